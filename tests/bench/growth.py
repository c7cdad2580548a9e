"""What a step costs as work grows: more steps, more parameters, larger batches, more callbacks."""

import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from engine import Trainer, callbacks
from tests.bench.loops import FIT, TRAINER
from tests.bench.models import compiled, dense
from tests.bench.page import PICTURES, table
from tests.bench.samples import BATCH_SIZE, samples
from tests.bench.turns import Effort, Run, Times, take_turns, timed

PICTURE = "growth.svg"
STEPS = 1_000, 10_000, 100_000, 1_000_000
PARAMETERS = 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000
BATCHES = 1, 4, 16, 64, 256, 1024, 4096
CALLBACKS = 0, 1, 2, 5, 10, 20


@attrs.frozen
class Growth:
    """How the cost of a step follows one number.

    Attributes:
        axis: What grows.
        sizes: How large it was.
        costs: Milliseconds a step at each size, by loop.
        memory: What the process held when the last step was done, in MB; empty where nobody looked.
    """

    axis: str
    sizes: Sequence[int]
    costs: dict[str, list[float]]
    memory: list[float] = attrs.field(factory=list)

    def slope(self, loop: str) -> float:
        """Of the cost's logarithm over the size's: 0 for a cost that stays, 1 for one in proportion to it."""
        points = [
            (math.log(size), math.log(cost)) for size, cost in zip(self.sizes, self.costs[loop], strict=True) if size
        ]
        return statistics.linear_regression(*zip(*points, strict=True)).slope


def measure(effort: Effort) -> str:
    """A table of the four ways to grow, and a picture of them."""
    effort = attrs.evolve(effort, rounds=min(effort.rounds, 3))
    growths = [_steps(effort), _parameters(effort), _batches(effort), _callbacks(effort)]
    if not effort.is_tiny:
        _draw(growths)
    slopes = [(own.axis, loop, f"{own.slope(loop):.2f}") for own in growths for loop in own.costs]
    return "\n\n".join([
        table("what grows | size | loop | ms a step | memory at the end", itertools.chain(*map(_rows, growths))),
        table("what grows | loop | slope", slopes),
        f"![What a step costs as work grows](assets/{PICTURE})",
        "A slope of 0: a step costs the same at every size; 1: in proportion. Medians of "
        f"{effort.rounds} rounds in turns (of the steps: one, up to a million).",
    ])  # fmt: skip


def _steps(effort: Effort) -> Growth:
    """One fit of ever more steps on a pipeline without end; the memory must not grow with them."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    trainer, batches = Trainer(model), tf.data.Dataset.from_tensors((np.ones((1, 4)), np.ones((1, 1)))).repeat()
    sizes = STEPS[: effort.of(len(STEPS))]
    costs: list[float] = []
    memory: list[float] = []
    look = callbacks.LambdaCallback(on_train_end=lambda logs: memory.append(_held_bytes() / 1e6))
    trainer.fit(batches, steps_per_epoch=2, verbose=0)
    for size in sizes:
        begin = time.perf_counter()
        trainer.fit(batches, steps_per_epoch=size, verbose=0, callbacks=look)
        costs.append((time.perf_counter() - begin) / size * 1e3)
    return Growth("steps", sizes, {TRAINER: costs}, memory)


def _held_bytes() -> int:
    """What of the process lies in memory now, as Linux tells it."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _parameters(effort: Effort) -> Growth:
    """A square dense layer of ever more parameters."""
    sizes = PARAMETERS[: effort.of(len(PARAMETERS))]

    def runs(size: int) -> tuple[dict[str, Run], int]:
        width, steps = round(size**0.5), effort.of(max(4, min(200, 20_000_000 // size)))
        generator = np.random.default_rng(0)
        x = generator.random((steps * BATCH_SIZE, width), dtype="float32")

        def make() -> keras.Model:
            model = keras.Sequential([keras.Input((width,)), keras.layers.Dense(width)])
            model.compile("sgd", "mse")
            return model

        return _both(make, (x, x), BATCH_SIZE, lambda _: []), steps

    return _grown("parameters", sizes, runs, effort)


def _batches(effort: Effort) -> Growth:
    """The smallest model on ever larger batches."""
    sizes = BATCHES[: effort.of(len(BATCHES))]

    def runs(size: int) -> tuple[dict[str, Run], int]:
        steps = effort.of(max(20, min(400, 50_000 // size)))
        return _both(lambda: compiled(dense()), samples((784,), steps, size), size, lambda _: []), steps

    return _grown("samples in a batch", sizes, runs, effort)


def _callbacks(effort: Effort) -> Growth:
    """The smallest model, with ever more callbacks that look at every batch."""
    steps, sizes = effort.of(600), CALLBACKS[: effort.of(len(CALLBACKS), 3)]
    data = samples((784,), steps)

    def runs(size: int) -> tuple[dict[str, Run], int]:
        def looking(loop: str) -> list[Any]:
            kind = callbacks.LambdaCallback if loop == TRAINER else keras.callbacks.LambdaCallback
            return [kind(on_train_batch_end=_look) for _ in range(size)]

        return _both(lambda: compiled(dense()), data, BATCH_SIZE, looking), steps

    return _grown("callbacks that look", sizes, runs, effort)


def _grown(
    axis: str, sizes: Sequence[int], runs: Callable[[int], tuple[dict[str, Run], int]], effort: Effort
) -> Growth:
    """The cost of a step at each size, the models of one size being dropped before those of the next are made."""
    costs: dict[str, list[float]] = {TRAINER: [], FIT: []}
    for size in sizes:
        own, steps = runs(size)
        times: dict[str, Times] = take_turns(own, effort, f"{size:,} {axis}")
        for loop, values in costs.items():
            values.append(times[loop].median / steps * 1e3)
        keras.utils.clear_session()
    return Growth(axis, sizes, costs)


def _both(
    make: Callable[[], keras.Model], data: tuple[Any, Any], batch_size: int, looking: Callable[[str], list[Any]]
) -> dict[str, Run]:
    fits = {TRAINER: Trainer(make()).fit, FIT: make().fit}

    def run_of(loop: str) -> Run:
        fit = fits[loop]
        return timed(lambda: fit(*data, batch_size=batch_size, verbose=0, callbacks=looking(loop)))

    return {loop: run_of(loop) for loop in fits}


def _look(batch: int, logs: Any = None) -> None:
    """Stands for whatever a user's own hook does."""


def _rows(growth: Growth) -> list[tuple[str, ...]]:
    memory = [f"{megabytes:.0f} MB" for megabytes in growth.memory] or [""] * len(growth.sizes)
    return [
        (growth.axis, f"{size:,}", loop, f"{cost:.3f}", held)
        for loop, costs in growth.costs.items()
        for size, cost, held in zip(growth.sizes, costs, memory, strict=True)
    ]


def _draw(growths: list[Growth]) -> None:
    """Four panels, one for each way to grow."""
    figure = Figure(figsize=(8, 6), layout="constrained")
    for axes, growth in zip(figure.subplots(2, 2).flat, growths, strict=True):
        for loop, costs in growth.costs.items():
            axes.plot(growth.sizes, costs, "o-", label=f"{loop.strip('`')}, slope {growth.slope(loop):.2f}")
        axes.set(xlabel=growth.axis, ylabel="ms a step", yscale="log")
        axes.set_xscale("symlog" if 0 in growth.sizes else "log")
        axes.legend()
    figure.savefig(PICTURES / PICTURE, metadata={"Date": None})

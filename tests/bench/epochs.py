"""The end of an epoch: how much longer an epoch takes than its steps."""

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import attrs
import keras
import tensorflow as tf
from matplotlib.figure import Figure
from tqdm import tqdm

from engine import Trainer
from engine.block import Block
from engine.callbacks import Timer
from tests.bench.loops import FIT, TRAINER
from tests.bench.models import compiled, dropout
from tests.bench.page import PICTURES, table
from tests.bench.samples import BATCH_SIZE, samples
from tests.bench.turns import Effort

LENGTHS_SECS = 0.3, 0.7, 1.5, 3.0, 6.0
ROUNDS = 10  # of each length, as the issue asks for
ALLOWED = 0.05
ARRAYS, PIPELINE = "arrays", "`tf.data`, `prefetch(AUTOTUNE)`"
PICTURE = "epochs.svg"


class Epochs(keras.callbacks.Callback):
    """When each epoch began and, where the loop tells of each batch as it is done, how long its batches took.

    Attributes:
        begins: Seconds on a monotonic clock.
        steps_secs: From the first batch's begin to the last one's end, of each epoch; empty in blocks.
    """

    def __init__(self, *, sees_batches: bool) -> None:
        super().__init__()
        self.begins: list[float] = []
        self.steps_secs: list[float] = []
        self._last_secs = self._first_secs = 0.0
        if sees_batches:
            self.on_train_batch_begin, self.on_train_batch_end = self._begin_batch, self._end_batch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the time."""
        self.begins.append(time.perf_counter())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Notes how long the batches took."""
        self.steps_secs.append(self._last_secs - self._first_secs)

    def _begin_batch(self, batch: int, logs: Any = None) -> None:
        if batch == 0:
            self._first_secs = time.perf_counter()

    def _end_batch(self, batch: int, logs: Any = None) -> None:
        self._last_secs = time.perf_counter()


class Blocks(Timer):
    """How long the steps of each epoch took in a Trainer, by its blocks.

    The first block of an epoch counts at the speed of the others: what it waits for besides, such as an iterator that
    is opened, is no part of a step.

    Attributes:
        steps_secs: Of each epoch.
    """

    def __init__(self) -> None:
        super().__init__(verbose=0)
        self.steps_secs: list[float] = []
        self._blocks: list[tuple[int, float]] = []  # its steps, and the seconds of all blocks up to its end
        self._before_secs = 0.0

    def on_train_block_end(self, block: Block) -> None:
        """Counts the steps of the block that has just been run."""
        self._blocks.append((len(block), self.timings.seconds["train steps"]))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds up what has come in this epoch."""
        (first, first_end), *others = self._blocks
        (_, end) = others[-1] if others else (first, first_end)
        steps = sum(number for number, _ in others)
        secs = (end - first_end) * (first + steps) / steps if others else end - self._before_secs
        self.steps_secs.append(secs)
        self._blocks, self._before_secs = [], end


@attrs.frozen
class Excess:
    """How much longer epochs of one length took than their steps, as shares of these.

    Attributes:
        data: What they were trained on.
        loop: Who trained.
        length_secs: How long the steps of an epoch should take.
        steps_secs: How long those of each epoch took.
        shares: What each epoch took beyond, divided by that.
    """

    data: str
    loop: str
    length_secs: float
    steps_secs: list[float]
    shares: list[float]


def measure(effort: Effort) -> str:
    """A table of the distributions, and a picture with every epoch as a dot."""
    step_secs = _step_secs(effort.of(400))
    lengths, rounds = (LENGTHS_SECS[:1], 2) if effort.is_tiny else (LENGTHS_SECS, ROUNDS)
    found = []
    for length in tqdm(lengths, "epochs"):
        x, y = samples((784,), 4 if effort.is_tiny else max(1, round(length / step_secs)))
        batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)
        for data, arguments in (
            (ARRAYS, {"x": x, "y": y, "batch_size": BATCH_SIZE}),
            (PIPELINE, {"x": batches, "shuffle": False}),
        ):
            for loop, run in ((TRAINER, _by_trainer), (FIT, _by_keras)):
                walls, steps = run(arguments, rounds)
                shares = [wall / own - 1 for wall, own in zip(walls, steps, strict=True)]
                found.append(Excess(data, loop, length, steps, shares))
    if not effort.is_tiny:
        _draw(found)
    return "\n\n".join([
        table("data | loop | steps of an epoch | beyond them: median | most | epochs over 5 %", map(_row, found)),
        f"![What epochs take beyond their steps](assets/{PICTURE})",
        f"784-512-10 dense with dropout, {rounds} epochs of each length in one fit, from the begin of one to that of "
        "the next, or to where `fit` returns. The Trainer's steps are its blocks, the first at the speed of the "
        "others; those of `model.fit` last from the first batch's begin to the last one's end.",
    ])  # fmt: skip


def _by_trainer(arguments: dict[str, Any], rounds: int) -> tuple[list[float], list[float]]:
    """The wall time of each epoch, and that of its steps."""
    blocks = Blocks()
    walls = _walls(Trainer(compiled(dropout())).fit, arguments, rounds, blocks, Epochs(sees_batches=False))
    return walls, blocks.steps_secs[1:]


def _by_keras(arguments: dict[str, Any], rounds: int) -> tuple[list[float], list[float]]:
    """The same of `model.fit`."""
    epochs = Epochs(sees_batches=True)
    return _walls(compiled(dropout()).fit, arguments, rounds, epochs), epochs.steps_secs[1:]


def _walls(fit: Callable[..., Any], arguments: dict[str, Any], rounds: int, *callbacks: Any) -> list[float]:
    """How long each epoch took, but for the first, which traces."""
    fit(**arguments, epochs=rounds + 1, verbose=0, callbacks=list(callbacks))
    begins = [*callbacks[-1].begins, time.perf_counter()]
    return [end - begin for begin, end in itertools.pairwise(begins[1:])]


def _step_secs(steps: int) -> float:
    """How long a step takes here."""
    (_, *walls), _ = _by_trainer(dict(zip("xy", samples((784,), steps), strict=True)), 3)
    return statistics.median(walls) / steps


def _row(excess: Excess) -> tuple[str, ...]:
    secs = statistics.median(excess.steps_secs)
    over = sum(share > ALLOWED for share in excess.shares)
    median, most = (f"{share:.1%}" for share in (statistics.median(excess.shares), max(excess.shares)))
    return excess.data, excess.loop, f"{secs:.2f} s", median, most, f"{over} of {len(excess.shares)}"


def _draw(found: list[Excess]) -> None:
    """One dot an epoch: the length of its steps, and the share beyond."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, data in zip(figure.subplots(1, 2, sharey=True), (ARRAYS, PIPELINE), strict=True):
        for loop, marker in ((FIT, "x"), (TRAINER, "o")):
            mine = [own for own in found if (own.data, own.loop) == (data, loop)]
            seconds = [secs for own in mine for secs in own.steps_secs]
            percent = [100 * share for own in mine for share in own.shares]
            axes.plot(seconds, percent, marker, alpha=0.6, label=loop.strip("`"))
        axes.axhline(100 * ALLOWED, color="gray", linewidth=0.8)
        axes.set(xscale="log", yscale="symlog", title=data.replace("`", ""), xlabel="seconds of steps in an epoch")
        axes.set_ylabel("% beyond them")
        axes.legend()
    figure.savefig(PICTURES / PICTURE, metadata={"Date": None})

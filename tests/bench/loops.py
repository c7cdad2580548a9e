"""The loop: epochs of four models beside `model.fit`, loops by hand and Keras on JAX."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import keras

from engine import Trainer
from engine.callbacks import LossHistory
from tests.bench import by_hand
from tests.bench.models import compiled, dense, dropout
from tests.bench.page import table
from tests.bench.samples import BATCH_SIZE, samples
from tests.bench.serving import Server
from tests.bench.turns import Effort, Run, Times, take_turns, timed
from zoo import small_inception, strided_cnn

FIT, TRAINER, TUNED = "`model.fit`", "Trainer", "Trainer, tuned"
BY_HAND = {"by hand, `tf.data`": by_hand.over_dataset, "by hand, arrays": by_hand.over_arrays}
JAX = "Keras on JAX"
REQUIRED = {
    TRAINER: {"fit": 5.0, "best fit": 1.7, "by hand": 1.1},
    TUNED: {"fit": 8.0, "best fit": 2.5, "by hand": 1.8},
}
REQUIRED_OF_OTHERS = 0.97


@attrs.frozen
class Case:
    """A model and how long a round of it is.

    Attributes:
        name: What the tables call it.
        make: Builds the model, not compiled.
        shape: Of one sample.
        steps: Steps of a round.
        executions: The steps an execution that `model.fit` is tried with, beside 1.
        has_jax: Whether Keras on JAX takes part.
    """

    name: str
    make: Callable[[], keras.Model]
    shape: tuple[int, ...]
    steps: int
    executions: tuple[int, ...] = (32, 64, 128, 256)
    has_jax: bool = False


SMALLEST = Case("784-16-10 dense", dense, (784,), steps=1875, has_jax=True)
CASES = (
    SMALLEST,
    Case("784-512-10 dense, dropout", dropout, (784,), steps=600, executions=(32, 128)),
    Case("small convolutional net", strided_cnn, (28, 28, 1), steps=128, executions=(32, 128)),
    Case("small Inception", small_inception, (28, 28, 1), steps=32, executions=(8, 32)),
)


def measure(effort: Effort) -> str:
    """Two tables: every contestant's time, and what the issue asks for beside what came out."""
    rows, verdicts, notes = [], [], []
    for case in CASES[:2] if effort.is_tiny else CASES:
        times, note = _race(case, effort)
        rows += [_row(case, name, times, effort.of(case.steps)) for name in times]
        verdicts += _verdicts(case, times)
        notes += [note] if note else []
    texts = [
        table("model, batch 32 | loop | ms a step | spread | times as long as the Trainer", rows),
        table("model | loop | beside | times as fast | required | ", verdicts),
        f"Medians of {effort.rounds} rounds in turns, whole calls of `fit` timed; the Trainer keeps every step's loss.",
        *notes,
    ]
    return "\n\n".join(texts)


def _race(case: Case, effort: Effort) -> tuple[dict[str, Times], str]:
    """The times, and what there is to say of who was left out."""
    steps = effort.of(case.steps)
    runs = {name: timed(call) for name, call in _contestants(case, samples(case.shape, steps)).items()}
    with contextlib.ExitStack() as stack:
        jax = dict(stack.enter_context(_on_jax(case, steps, effort)))
        times = take_turns(runs | jax, effort, case.name)
    is_left_out = case.has_jax and not jax
    return times, "Keras on JAX was left out: `make bench-others` installs it." if is_left_out else ""


def _contestants(case: Case, data: tuple[Any, Any]) -> dict[str, Callable[[], Any]]:
    """Name -> one epoch of the case's steps."""

    def make(steps_per_execution: int = 1) -> keras.Model:
        keras.utils.set_random_seed(1)
        return compiled(case.make(), steps_per_execution)

    def ours(trainer: Trainer) -> Callable[[], Any]:
        return lambda: trainer.fit(*data, batch_size=BATCH_SIZE, verbose=0, callbacks=[LossHistory()])

    def theirs(model: keras.Model) -> Callable[[], Any]:
        return lambda: model.fit(*data, batch_size=BATCH_SIZE, verbose=0)

    runs = {TRAINER: ours(Trainer(make()))}
    tuned = Trainer(make())
    tuned.tune(*data, batch_size=BATCH_SIZE, verbose=0)
    runs[TUNED] = ours(tuned)
    runs |= {_fit(number): theirs(make(number)) for number in (1, *case.executions)}
    return runs | {name: loop(make(), *data) for name, loop in BY_HAND.items()}


@contextlib.contextmanager
def _on_jax(case: Case, steps: int, effort: Effort) -> Iterator[dict[str, Run]]:
    """Keras on JAX at each number of steps an execution, if it takes part and is installed."""
    if not (case.has_jax and effort.jax.exists()):
        yield {}
        return
    arguments = map(str, (steps, 1, *case.executions))
    with Server(effort.jax, "tests.bench.keras_on_jax", *arguments, environment={"KERAS_BACKEND": "jax"}) as server:
        yield {_fit(int(name), JAX): lambda name=name: server.run(name) for name in server.names}  # type: ignore[misc]


def _fit(steps_per_execution: int, who: str = FIT) -> str:
    return who if steps_per_execution == 1 else f"{who}, steps_per_execution={steps_per_execution}"


def _row(case: Case, name: str, times: dict[str, Times], steps: int) -> tuple[str, ...]:
    own, ours = times[name], times[TRAINER].median
    unit = steps * 1e-3
    return case.name, name, f"{own.median / unit:.3f}", own.spread(unit), f"{own.median / ours:.2f}"


def _verdicts(case: Case, times: dict[str, Times]) -> list[tuple[str, ...]]:
    """What is required of the Trainer, of the tuned one too if there is one, and whether it was reached."""
    judges = {
        "fit": [FIT],
        "best fit": [_fit(number) for number in case.executions],
        "by hand": list(BY_HAND),
        JAX: [name for name in times if name.startswith(JAX)],
    }
    verdicts: list[tuple[str, ...]] = []
    for loop in [name for name in (TRAINER, TUNED) if name in times]:
        for judge, names in judges.items():
            if not names:
                continue
            best = min(names, key=lambda name: times[name].median)
            ratio = times[best].median / times[loop].median
            required = _required(case, loop, judge)
            shown = "" if required is None else f"{required:g}"
            verdicts.append((case.name, loop, best, f"{ratio:.2f}", shown, _won(ratio, required)))
    return verdicts


def _required(case: Case, loop: str, judge: str) -> float | None:
    if case is not SMALLEST:
        return REQUIRED_OF_OTHERS if loop == TRAINER else None
    return (1.0 if loop == TUNED else None) if judge == JAX else REQUIRED[loop][judge]


def _won(ratio: float, required: float | None) -> str:
    return "" if required is None else "won" if ratio >= required else "lost"

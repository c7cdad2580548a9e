"""What callbacks cost: none, the bar and TensorBoard, many that look, and one that acts."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from engine import Trainer, callbacks
from tests.bench.loops import FIT, SMALLEST, TRAINER
from tests.bench.models import compiled
from tests.bench.page import table
from tests.bench.samples import BATCH_SIZE, samples
from tests.bench.terminal import terminal
from tests.bench.turns import Effort, Run, Times, take_turns, timed

NONE, WATCHED = "none", "the bar, TensorBoard every batch"
ALLOWED = 1.05


def measure(effort: Effort) -> str:
    """A table: what the loop takes with each list of callbacks, beside what it takes without."""
    steps = effort.of(SMALLEST.steps)
    with tempfile.TemporaryDirectory() as folder:
        times = take_turns(_runs(steps, Path(folder)), effort, "callbacks")
    rows = [_row(name, times, steps) for name in times]
    ratio = times[f"{TRAINER}/{WATCHED}"].median / times[f"{TRAINER}/{NONE}"].median
    verdict = "won" if ratio <= ALLOWED else "lost"
    return "\n\n".join([
        table("loop | callbacks beside History | ms a step | spread | times as long as without", rows),
        f"Trainer with the bar and TensorBoard: {ratio:.3f} times as long as without, required {ALLOWED}: {verdict}.",
        f"{SMALLEST.name}, {steps} steps, medians of {effort.rounds} rounds in turns, the bars drawn in a terminal.",
    ])  # fmt: skip


def _runs(steps: int, folder: Path) -> dict[str, Run]:
    """Loop and list -> one epoch."""
    data = samples(SMALLEST.shape, steps)
    lists = {TRAINER: _ours(folder / "ours"), FIT: _theirs(folder / "theirs")}

    def run_of(loop: str, name: str) -> Run:
        model = compiled(SMALLEST.make())
        fit = Trainer(model).fit if loop == TRAINER else model.fit

        def epoch() -> Any:
            chosen = lists[loop][name]()
            return fit(*data, batch_size=BATCH_SIZE, verbose=int("the bar" in name), callbacks=chosen)

        return _on_terminal(timed(epoch))

    return {f"{loop}/{name}": run_of(loop, name) for name in lists[TRAINER] for loop in lists}


def _on_terminal(run: Run) -> Run:
    def round_of_it() -> float:
        with terminal():
            return run()

    return round_of_it


def _ours(folder: Path) -> dict[str, Callable[[], list[Any]]]:
    return {
        NONE: list,
        WATCHED: lambda: [callbacks.TensorBoard(folder)],
        "the bar, many that look": lambda: [
            callbacks.CSVLogger(folder / "log.csv", by="batch"),
            callbacks.EarlyStopping("loss", patience=9),
            callbacks.LambdaCallback(on_train_batch_end=_act),
            callbacks.LearningRateScheduler(callbacks.warmup_cosine(1e-3, 100, 10_000), per_step=True),
            callbacks.LossHistory(),
            callbacks.ReduceLROnPlateau("loss"),
            callbacks.TensorBoard(folder),
            callbacks.TerminateOnNaN(),
        ],
        "one that acts": lambda: [keras.callbacks.LambdaCallback(on_train_batch_end=_act)],
    }


def _theirs(folder: Path) -> dict[str, Callable[[], list[Any]]]:
    folder.mkdir()
    return {
        NONE: list,
        WATCHED: lambda: [keras.callbacks.TensorBoard(str(folder), update_freq="batch")],
        "the bar, many that look": lambda: [
            keras.callbacks.CSVLogger(str(folder / "log.csv")),
            keras.callbacks.EarlyStopping("loss", patience=9),
            keras.callbacks.LambdaCallback(on_train_batch_end=_act),
            keras.callbacks.ReduceLROnPlateau("loss"),
            keras.callbacks.TensorBoard(str(folder), update_freq="batch"),
            keras.callbacks.TerminateOnNaN(),
        ],
        "one that acts": lambda: [keras.callbacks.LambdaCallback(on_train_batch_end=_act)],
    }


def _act(batch: int, logs: Any = None) -> None:
    """Stands for whatever a user's own hook does."""


def _row(name: str, times: dict[str, Times], steps: int) -> tuple[str, ...]:
    loop, _, kind = name.partition("/")
    own, alone, unit = times[name], times[f"{loop}/{NONE}"].median, steps * 1e-3
    return loop, kind, f"{own.median / unit:.3f}", own.spread(unit), f"{own.median / alone:.3f}"

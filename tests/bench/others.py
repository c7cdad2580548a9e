"""The same models and samples by PyTorch Lightning, in a process of its own."""

from typing import Any

from engine import Trainer
from engine.callbacks import LossHistory
from tests.bench.loops import CASES, TRAINER
from tests.bench.models import compiled
from tests.bench.page import table
from tests.bench.samples import BATCH_SIZE, samples
from tests.bench.serving import Server
from tests.bench.turns import Effort, Times, take_turns, timed

NAMES = {"dense": CASES[0], "dropout": CASES[1], "Inception": CASES[-1]}
STEPS = {"dense": 600, "dropout": 300, "Inception": 32}


def measure(effort: Effort) -> str:
    """A table, won or lost; or a line that says what is not installed."""
    if not effort.lightning.exists():
        return "PyTorch Lightning is not installed here: `make bench-others` installs it."
    steps = {name: effort.of(number) for name, number in list(STEPS.items())[: effort.of(len(STEPS), 1)]}
    rows = []
    with Server(effort.lightning, "tests.bench.by_lightning", *map(str, steps.values()), environment={}) as server:
        for name, number in steps.items():
            theirs = {
                f"Lightning, {run.partition('/')[2]}": lambda run=run: server.run(run)
                for run in server.names
                if run.startswith(f"{name}/")
            }
            times = take_turns({TRAINER: timed(_ours(name, number)), **theirs}, effort, NAMES[name].name)
            rows += [_row(name, loop, times, number) for loop in times]
    return "\n\n".join([
        table("model, batch 32 | loop | ms a step | spread | times as long as the Trainer | ", rows),
        f"Medians of {effort.rounds} rounds in turns, whole calls of `fit` timed. By batch: a sampler of "
        "whole batches, so that each is one gather.",
    ])  # fmt: skip


def _ours(name: str, steps: int) -> Any:
    case = NAMES[name]
    trainer, data = Trainer(compiled(case.make())), samples(case.shape, steps)
    return lambda: trainer.fit(*data, batch_size=BATCH_SIZE, verbose=0, callbacks=[LossHistory()])


def _row(name: str, loop: str, times: dict[str, Times], steps: int) -> tuple[str, ...]:
    own, unit = times[loop], steps * 1e-3
    ratio = own.median / times[TRAINER].median
    verdict = "" if loop == TRAINER else "won" if ratio >= 1 else "lost"
    return NAMES[name].name, loop, f"{own.median / unit:.3f}", own.spread(unit), f"{ratio:.2f}", verdict

"""`evaluate` and `predict` of the smallest model, beside Keras's."""

from collections.abc import Callable
from typing import Any

from engine import Trainer
from tests.bench.loops import SMALLEST, TRAINER
from tests.bench.models import compiled
from tests.bench.page import table
from tests.bench.samples import BATCH_SIZE, samples
from tests.bench.turns import Effort, Times, take_turns, timed

KERAS = "Keras"
REQUIRED_OF_DEFAULT, REQUIRED_OF_BEST = 3.0, 1.0


def measure(effort: Effort) -> str:
    """A table of all contestants for each of the two calls, with what is required beside what came out."""
    steps = effort.of(SMALLEST.steps)
    x, y = samples(SMALLEST.shape, steps)
    rows = []
    for call, arguments in (("evaluate", (x, y)), ("predict", (x,))):
        runs = {name: timed(run) for name, run in _runs(call, arguments).items()}
        times = take_turns(runs, effort, call)
        rows += [_row(call, name, times, steps) for name in times]
    return "\n\n".join([
        table("call | by | ms a step | spread | times as long as the Trainer | required | ", rows),
        f"{SMALLEST.name}, {steps} steps, medians of {effort.rounds} rounds in turns.",
    ])  # fmt: skip


def _runs(call: str, arguments: tuple[Any, ...]) -> dict[str, Callable[[], Any]]:
    owners: dict[str, Any] = {TRAINER: Trainer(compiled(SMALLEST.make()))}
    owners |= {_keras(number): compiled(SMALLEST.make(), number) for number in (1, *SMALLEST.executions)}

    def run_of(owner: Any) -> Callable[[], Any]:
        method = getattr(owner, call)
        return lambda: method(*arguments, batch_size=BATCH_SIZE, verbose=0)

    return {name: run_of(owner) for name, owner in owners.items()}


def _keras(steps_per_execution: int) -> str:
    return KERAS if steps_per_execution == 1 else f"{KERAS}, steps_per_execution={steps_per_execution}"


def _row(call: str, name: str, times: dict[str, Times], steps: int) -> tuple[str, ...]:
    own, unit = times[name], steps * 1e-3
    ratio, required = own.median / times[TRAINER].median, ""
    best = min((other for other in times if other not in (TRAINER, KERAS)), key=lambda other: times[other].median)
    if name in (KERAS, best):
        required = f"{REQUIRED_OF_DEFAULT if name == KERAS else REQUIRED_OF_BEST:g}"
    verdict = ("won" if ratio >= float(required) else "lost") if required else ""
    return f"`{call}`", name, f"{own.median / unit:.3f}", own.spread(unit), f"{ratio:.2f}", required, verdict

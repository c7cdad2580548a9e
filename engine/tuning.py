"""Which way of executing the steps is the fastest here: measured on the data itself, in turns.

```text
measure
├── each way: traced, compiled, warmed up         one much slower than the graph is dropped here
└── rounds: each way in turn, for a quarter of a second
```

All of it happens inside a transaction, so that nothing of the run is changed.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import tensorflow as tf

from engine.data import ArraySource, Reader, Source
from engine.errors import DataError
from engine.execution import Execution, Xla
from engine.phase import Phase
from engine.progress import Progress

_ROUND_SECS = 0.25
_MUCH = 2.0  # times as slow as the graph when warm: it would only take time to measure this more exactly
_GAIN = 1.03  # what a way other than the graph must be faster by, so that chance does not choose it


@attrs.frozen(kw_only=True)
class Measured:
    """One way of executing the steps.

    Attributes:
        execution: Which.
        step_secs: Seconds a step, the median of the rounds; None: it was not measured.
        shortest_secs: Of the fastest round; None as above.
        longest_secs: Of the slowest round; None as above.
        first_secs: Until its first step was done: tracing, compiling.
        note: Why it was not measured, or not as often; None: it was.
    """

    execution: Execution
    step_secs: float | None = None
    shortest_secs: float | None = None
    longest_secs: float | None = None
    first_secs: float | None = None
    note: str | None = None


@attrs.frozen
class Tuning:
    """What `Trainer.tune` has measured.

    Attributes:
        measured: Every way that was tried, the graph first.
        best: The one with the fastest round; the graph, unless another one's is faster by more than 3 %.
    """

    measured: tuple[Measured, ...]
    best: Execution

    def __str__(self) -> str:
        """A table."""
        head = f"{'':2}{'steps run as':34} {'µs a step':>10} {'from':>8} {'to':>8} {'first step':>11}"
        return "\n".join([head, *(self._line(one) for one in self.measured)])

    def _line(self, one: Measured) -> str:
        mark = ">" if one.execution == self.best else " "
        times = (one.step_secs, one.shortest_secs, one.longest_secs)
        shown = " ".join(
            f"{'-' if secs is None else f'{secs * 1e6:.1f}':>{width}}"
            for secs, width in zip(times, (10, 8, 8), strict=True)
        )
        first = "-" if one.first_secs is None else f"{one.first_secs:.2f} s"
        return f"{mark} {one.execution!s:34} {shown} {first:>11}" + ("" if one.note is None else f"  {one.note}")


def why_not(source: Source) -> str | None:
    """Why nothing can be measured on this data, with the cure; None: it can."""
    if source.is_tryable:
        return None
    return (
        f"Measuring reads some of the data, and what this {source.facts()['kind']} gives later depends on what was "
        "read of it before. Give tune arrays, such as those of one batch: trainer.tune(x_batch, y_batch)."
    )


def worth_trying(source: Source, *, can_compile: bool) -> list[Execution]:
    """The executions to measure, the graph first.

    Args:
        source: The data.
        can_compile: Whether XLA may be asked, which it may not under replicas.
    """
    is_resident = isinstance(source, ArraySource) and source.fits
    compiled = [Xla.STEP, Xla.BLOCK] if is_resident else [Xla.STEP]
    ways = [Execution(), *(Execution(xla=xla) for xla in compiled if can_compile)]
    return [*ways, Execution(streams=True)] if is_resident else ways


def measure(
    readers: Callable[[Execution], Reader],
    training: Callable[[Execution, Reader], Phase],
    executions: list[Execution],
    *,
    rounds: int,
) -> Tuning:
    """Measures executions against each other; called inside a transaction.

    Args:
        readers: Opens the data.
        training: Makes the phase of a training for a reader, its step traced.
        executions: What to measure, the graph first.
        rounds: How often each is run.
    """
    runners: list[_Runner] = []
    notes: dict[Execution, str] = {}
    for execution in executions:
        if (note := _reason_to_skip(execution, runners, notes)) is not None:
            notes[execution] = note
            continue
        try:
            runners.append(_Runner.warm(execution, readers(execution), training))
        except tf.errors.OpError as error:  # what XLA cannot compile, it says as it first runs
            if execution.xla is Xla.OFF:
                raise
            notes[execution] = f"fails: {error.message.splitlines()[0][:100]}"
    graph, *others = runners
    close = [graph, *(one for one in others if one.rounds[0] < _MUCH * graph.rounds[0])]
    for _ in range(rounds):
        for runner in close:
            runner.run(_ROUND_SECS)
    found = {runner.execution: runner.measured(is_close=runner in close) for runner in runners}
    measured = [found.get(own) or Measured(execution=own, note=notes[own]) for own in executions]
    return Tuning(tuple(measured), _best(found))


def _reason_to_skip(execution: Execution, runners: "list[_Runner]", notes: dict[Execution, str]) -> str | None:
    """Why a way need not be tried; None: it shall be."""
    step = Execution(xla=Xla.STEP)
    if execution.xla is not Xla.BLOCK:
        return None
    if step in notes:
        return "not tried: single steps fail already"
    of_step = next(runner for runner in runners if runner.execution == step)
    is_slow = of_step.rounds[0] > _MUCH * runners[0].rounds[0]
    return "not tried: single steps are slow already" if is_slow else None


def _best(found: dict[Execution, Measured]) -> Execution:
    """By the fastest rounds: whatever else the machine does makes a round slower, and rounds are few."""
    graph, *_ = found.values()
    fastest = min(found.values(), key=lambda one: one.shortest_secs or 0.0)
    assert graph.shortest_secs is not None
    assert fastest.shortest_secs is not None
    return fastest.execution if fastest.shortest_secs * _GAIN < graph.shortest_secs else graph.execution


@attrs.define(eq=False)
class _Runner:
    """A training that goes on and on.

    Attributes:
        execution: How.
        phase: Its compiled step.
        reader: Where its batches come from.
        first_secs: Until its first step was done.
        rounds: Seconds a step, of each round; the first is the warm-up.
    """

    execution: Execution
    phase: Phase
    reader: Reader
    first_secs: float = attrs.field(init=False, default=0.0)
    rounds: list[float] = attrs.field(init=False, factory=list)
    _progress: Progress = attrs.field(init=False, factory=Progress)

    @classmethod
    def warm(cls, execution: Execution, reader: Reader, training: Callable[[Execution, Reader], Phase]) -> "_Runner":
        """Traces, compiles and warms up."""
        begin = time.perf_counter()
        reader.begin_epoch(0)
        runner = cls(execution, training(execution, reader), reader)
        next(runner._blocks())
        runner.first_secs = time.perf_counter() - begin
        runner.run(_ROUND_SECS)  # blocks grow to their length
        runner.rounds.clear()
        runner.run(_ROUND_SECS / 2)
        return runner

    def run(self, seconds: float) -> None:
        """One round of about so long, of one block at least."""
        begin, before = time.perf_counter(), self._progress.step
        for _ in self._blocks():
            if time.perf_counter() - begin > seconds:
                break
        self.rounds.append((time.perf_counter() - begin) / (self._progress.step - before))

    def measured(self, *, is_close: bool) -> Measured:
        """What came out."""
        rounds = self.rounds[1:] if is_close else self.rounds
        return Measured(
            execution=self.execution,
            step_secs=statistics.median(rounds),
            shortest_secs=min(rounds),
            longest_secs=max(rounds),
            first_secs=self.first_secs,
            note=None if is_close else "much slower, measured once",
        )

    def _blocks(self) -> Iterator[Any]:
        """Block after block, epoch after epoch."""
        while True:
            before = self._progress.step
            self._progress = self.phase.block(self.reader, self._progress, None)
            self.reader.raise_error()
            if self._progress.step > before:
                yield
            if self.reader.is_exhausted:
                if self._progress.batch == 0:
                    raise DataError("The data gave no batch: there is nothing to measure on. Give at least one.")
                self.reader.end_epoch()
                self._progress = self._progress.next_epoch()
                self.reader.begin_epoch(self._progress.epoch)

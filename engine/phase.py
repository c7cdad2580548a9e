"""One block of steps after another: the part that training and testing share.

```text
Phase.block(reader, limit, progress)
├── steps = the pace, cut at the limit (1 if a callback acts on batches)
├── rows = loop.run(...)                 the only wait for the device
├── logs = means.extend(rows)            running values, on the host
└── hooks.replay(...)                    batch by batch, with true indices
```
"""

import time
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import attrs
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from engine.block import Block
from engine.cadence import Pace
from engine.columns import Logs
from engine.data import Alike, Reader, given_batch
from engine.hooks import Hooks
from engine.loop import MOST_FUSED_STEPS, Loop, Pull, Rows
from engine.loops import Loops
from engine.metrics import RunningMeans, set_aside
from engine.progress import Progress
from engine.slow_input import SlowInput
from engine.task import Task
from engine.traces import Occasion


@attrs.define(eq=False)
class Phase:
    """Training or testing: a loop, its callbacks and its running means.

    Attributes:
        kind: "train" or "test".
        task: What is trained.
        loops: Where the compiled step comes from.
        spec: One batch, nested `tf.TensorSpec`.
        hooks: Who is told.
        pace: How long the next block is.
        loop: The compiled step.
        live: Metrics whose state the steps count on; a callback that evaluates finds and leaves them untouched.
        means: The values since the phase began.
    """

    kind: Literal["train", "test"]
    task: Task
    loops: Loops
    spec: Any
    hooks: Hooks
    pace: Pace
    loop: Loop = attrs.field(init=False)
    live: Sequence[keras.metrics.Metric] = attrs.field(init=False)
    means: RunningMeans = attrs.field(init=False, factory=RunningMeans)
    _slow_input: SlowInput = attrs.field(init=False, factory=SlowInput)

    def __attrs_post_init__(self) -> None:
        self._prepare()

    def renew(self, reader: Reader) -> None:
        """Takes up what a callback may have changed: a model compiled anew, or other weights trainable."""
        if self._current_loop() is not self.loop:
            self._prepare()
            self.trace(reader)

    def _prepare(self) -> None:
        with self.loops.strategy.scope():
            self.task.build(self.spec, self.kind)
        self.loop, self.live = self._current_loop(), self.task.live_metrics(self.kind)

    def _current_loop(self) -> Loop:
        if self.kind == "test":
            return self.loops.of("test")
        scheduled = [variable for variable, _ in self.hooks.step_schedules()]
        return self.loops.of("train", scheduled=scheduled, watch=self.hooks.watch())

    def reset(self) -> None:
        """Begins the running means anew."""
        self.means = RunningMeans()

    def block(self, reader: Reader, progress: Progress, limit: int | None) -> Progress:
        """Runs one block of steps, replays it, and returns how far that has come.

        Args:
            reader: Where in the data to go on.
            progress: Of this phase, before the block.
            limit: Steps that may be run at most, at least 1; None: as many as there are.
        """
        begin, others, num_traces = time.perf_counter(), self.hooks.timings.total_secs(), self.loop.num_traces
        acts = self.hooks.acts(self.kind)
        rows = self._run_one(reader, progress) if acts else self._run_many(reader, progress, limit)
        seconds = time.perf_counter() - begin
        self._note_time(reader, rows, seconds - (self.hooks.timings.total_secs() - others))
        if self.loop.num_traces > num_traces:
            self.loops.traces.note(self.kind, self._occasion(reader), None)
        if len(rows):
            self._replay(rows, progress, seconds, begun=acts)
        # Callbacks that look slowly count as well: the bar and Ctrl-C wait for them too.
        self.pace = self.pace.after(steps=len(rows), seconds=time.perf_counter() - begin)
        return progress.advance(steps=len(rows), samples=int(rows.sizes.sum()), seconds=seconds)

    def flush(self) -> None:
        """Ends an epoch: steps since the last update are updated with, and the norm of that is in the logs too."""
        for name, (value, weight) in self.loops.flush().items():
            self.means.add(name, value, weight)

    def trace(self, reader: Reader) -> None:
        """Traces what `block` will run, before the first step."""
        occasion = self._occasion(reader)
        with self.loops.traces.noting(self.kind, self.loop, occasion, self.hooks.timings):
            if occasion.is_given:
                self.loop.trace(given_batch, reader.source.spec)
            else:
                self.loop.trace(reader.walk.pull, reader.walk.signature())
            if (alike := self._alike(reader)) is not None:
                self.loop.trace_fused(alike.pull, alike.signature)

    def _occasion(self, reader: Reader) -> Occasion:
        is_given = self.hooks.acts(self.kind) and not reader.walk.is_certain
        return Occasion.of(self.loop, reader, num_changes=len(self.loops.traces.changes), is_given=is_given)

    def logs(self) -> Logs:
        """The values since the phase began, sorted by name."""
        return self.means.logs()

    def _run_many(self, reader: Reader, progress: Progress, limit: int | None) -> Rows:
        walk, alike = reader.walk, self._alike(reader)
        until_act = self.hooks.steps_until_act(progress) if self.kind == "train" else None
        steps = self.pace.steps_within(limit, until_act, reader.batches_left())
        if alike is None:
            rows = self._run(walk.pull, walk.cursor(reader.position), steps, progress)
        else:
            steps = min(steps, alike.steps, MOST_FUSED_STEPS)
            rows = self._run(alike.pull, alike.cursor, steps, progress, is_fused=True)
        has_halted = bool(rows.faults) and rows.faults[-1] is not None
        reader.advance(len(rows), ended=len(rows) < steps and not has_halted)
        return rows

    def _alike(self, reader: Reader) -> Alike | None:
        """The batches that come next and go into a block which XLA compiles; None: they do not."""
        return reader.walk.alike(reader.position) if self.loop.fuses else None

    def _run(self, pull: Pull, cursor: Any, steps: int, progress: Progress, *, is_fused: bool = False) -> Rows:
        schedule = self._schedule(progress, steps)
        run = self.loop.run_fused if is_fused else self.loop.run
        try:
            return run(pull, cursor, steps, schedule)
        except tf.errors.OpError as error:
            error.add_note(self._where(progress, error))
            raise

    def _where(self, progress: Progress, error: tf.errors.OpError) -> str:
        """What TensorFlow does not say of an error inside the compiled loop."""
        place = f"batch {progress.batch + 1} of epoch {progress.epoch + 1}" if self.kind == "train" else "a test step"
        cure = " Give a smaller batch_size." if isinstance(error, tf.errors.ResourceExhaustedError) else ""
        return (
            f"Raised in a block of steps that began with {place}; how many of them were done before is not known, so "
            "that nothing is saved here: the last checkpoint is what to go on from. With steps_per_execution=1 it is "
            f"the very step.{cure}"
        )

    def _note_time(self, reader: Reader, rows: Rows, seconds: float) -> None:
        """Writes down how long a block took, callbacks left out; says so if its data comes too slowly."""
        steps, waited_secs = len(rows), rows.waited_secs
        self.hooks.timings.add_block(self.kind, steps=steps, seconds=seconds, waited_secs=waited_secs)
        if waited_secs is None:
            return
        found = self._slow_input.after(steps=steps, seconds=seconds, waited_secs=waited_secs)
        if found is not None:
            warnings.warn(
                f"The loop {found}: the input pipeline is slower than the model. {reader.source.cure}", stacklevel=2
            )

    def _schedule(self, progress: Progress, steps: int) -> NDArray[np.float64] | None:
        """The value of each scheduled variable for each step of a block, (steps, variables); None of none."""
        if not self.loop.scheduled:
            return None
        values = [value for _, value in self.hooks.step_schedules()]
        return np.array([[value(progress.step + i) for value in values] for i in range(steps)], np.float64)

    def _run_one(self, reader: Reader, progress: Progress) -> Rows:
        """One step between its two hooks; without a batch there is no hook either."""
        walk, alike, begin = reader.walk, self._alike(reader), time.perf_counter()
        if alike is not None:
            pull, cursor = alike.pull, alike.cursor
        elif walk.is_certain:
            pull, cursor = walk.pull, walk.cursor(reader.position)
        else:
            pull, cursor = given_batch, reader.take()
        waited_secs = None if walk.is_certain or self.kind == "test" else time.perf_counter() - begin
        if cursor is None:
            reader.advance(0, ended=True)
            return self.loop.no_rows()
        with set_aside(self.live):
            self.hooks.batch_begin(self.kind, progress.batch)
        rows = self._run(pull, cursor, 1, progress, is_fused=alike is not None)
        reader.advance(1, ended=False)
        return attrs.evolve(rows, waited_secs=waited_secs)

    def _replay(self, rows: Rows, progress: Progress, seconds: float, *, begun: bool) -> None:
        if not self.means.columns.names:
            self.means = RunningMeans(rows.columns)
        running = self.means.extend(rows.values, rows.weights)
        done = (progress.batch, progress.step, progress.samples)
        block = Block(rows.columns, *done, rows.sizes, running, rows.values, rows.faults, seconds)
        if self.hooks.listens(self.kind):
            with set_aside(self.live):
                self.hooks.replay(self.kind, block, begun=begun)

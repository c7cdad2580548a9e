"""The event files of a training: opened when first written to, closed once, and never the end of a training.

```python
writers = Writers("runs/logs")
writers.begin()
writers.write("train", 7, [Summary.Value(tag="batch_loss", simple_value=0.3)])
writers.close()
```

Event files are only ever appended to. A run that was killed behind its last checkpoint has written steps that the
resumed one writes again, and epochs, which count along another axis, as well. Three programs read the files. For
each of them every step shall be there once:

| reader | leaves out | so that a resumed file |
|---|---|---|
| TensorBoard's data server | of a tag, what does not come before its newest step | needs nothing |
| `EventAccumulator` | what comes before a START, from its step on | begins with a START behind all that is to stay |
| TensorBoard without data server | the same, but for the run's first START | begins with two of them |

The START must not take what is to stay, such as epoch 100 beside step 6, so that it stands behind the highest step
of any axis. What is to go below that goes tag by tag: in files of version 1, an event whose step is smaller than
that of the event before it takes the later values of its own tags away.
"""

import contextlib
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence

import attrs
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary

from engine.callbacks.tensorboard.event_file import EventFile, Points

TRAIN, VALIDATION = "train", "validation"
SESSION = ""  # the folder itself, in which the hyper-parameters stand that hold for all the runs below it
SESSION_SUFFIX = ".hparams"
FAILURES = (OSError, tf.errors.OpError)  # a full disk, a folder that is gone, a profiler that already runs


def complain(error: BaseException, consequence: str, *, is_strict: bool) -> None:
    """Warns of an error in writing, which is no reason to end a training; raises it if that is wished."""
    if is_strict:
        raise error
    message = f"TensorBoard: {type(error).__name__}: {error}. {consequence} Give strict=True to end a training instead."
    warnings.warn(message, UserWarning, stacklevel=2)


@attrs.define(eq=False)
class Writers:
    """The event files of a training, one run (a folder) each.

    Attributes:
        log_dir: The folder of the runs.
        is_strict: Whether an error in writing is raised. Otherwise the first one is warned of and ends the writing.
        watermark: The highest step written so far, whatever it counts.
    """

    log_dir: str
    is_strict: bool = False
    watermark: int = 0
    _opened: dict[str, EventFile] = attrs.field(init=False, factory=dict)
    _restart_step: int = attrs.field(init=False, default=0)
    _has_failed: bool = attrs.field(init=False, default=False)

    def begin(self) -> None:
        """Begins a training: what an earlier one has met is forgotten."""
        self.close()
        self.watermark, self._restart_step, self._has_failed = 0, 0, False

    def resume(self, watermark: int) -> None:
        """Goes on where the watermark was as given; what an earlier process wrote after that shall not be seen."""
        self.watermark, self._restart_step = watermark, watermark + 1
        for run in self._opened:
            self._restart(run)

    def write(self, run: str, step: int, values: Iterable[Summary.Value]) -> None:
        """Writes values at a step; with none of them, nothing is opened."""
        summary = Summary(value=values)
        if not summary.value:
            return
        self._write(run, [step], [Event(wall_time=time.time(), step=step, summary=summary)])

    def write_points(self, run: str, points: Points) -> None:
        """Writes scalars of many steps; with none of them, nothing is opened."""
        if points.steps and points.scalars:
            self._write(run, points.steps, points.events())

    def _write(self, run: str, steps: Sequence[int], events: Iterable[Event]) -> None:
        self.watermark = max(self.watermark, *steps)
        if min(steps) >= self._restart_step:
            self.add(run, events)
            return
        for event in events:
            self.add(run, [event])
            if event.step < self._restart_step:
                self._mark(run)

    def add(self, run: str, events: Iterable[Event]) -> None:
        """Writes events; opens the run's file if need be."""
        if self._has_failed:
            return
        try:
            if run not in self._opened:
                self._open(run)
            self._opened[run].add(events)
        except FAILURES as error:
            self.fail(error)

    def flush(self) -> None:
        """Brings to disk what was written, so that it outlives the process."""
        with self.attempt():
            for file in self._opened.values():
                # A file that was deleted can be written to for ever without an error, and without a trace.
                if not tf.io.gfile.exists(file.folder):
                    raise FileNotFoundError(f"the folder {file.folder} is gone")
                file.flush()

    def close(self) -> None:
        """Closes all files; they are opened anew if more is written."""
        opened, self._opened = self._opened, {}
        for file in opened.values():
            with self.attempt():
                file.close()

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Around what writes, in event files or beside them: an error is warned of once, and ends the writing."""
        try:
            yield
        except FAILURES as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Gives up writing in this training."""
        opened, self._opened, has_failed, self._has_failed = self._opened, {}, self._has_failed, True
        for file in opened.values():
            with contextlib.suppress(*FAILURES):
                file.close()
        if not has_failed:
            consequence = f"The training goes on, and nothing more is written to {self.log_dir}."
            complain(error, consequence, is_strict=self.is_strict)

    def _open(self, run: str) -> None:
        folder = tf.io.gfile.join(self.log_dir, run) if run else self.log_dir
        suffix = SESSION_SUFFIX if run == SESSION else ""
        self._opened[run] = EventFile.create(folder, suffix)
        if self._restart_step:
            self._restart(run)

    def _restart(self, run: str) -> None:
        start = Event(wall_time=time.time(), step=self._restart_step, session_log=SessionLog(status=SessionLog.START))
        self._opened[run].add([start, start, Event(wall_time=time.time(), file_version="brain.Event:1")])
        self._mark(run)

    def _mark(self, run: str) -> None:
        """An event without values, behind all that is to stay: the next one below it counts as out of order."""
        self.add(run, [Event(wall_time=time.time(), step=self._restart_step, summary=Summary())])

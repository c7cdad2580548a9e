"""`EventFile`: one event file, written to at about a microsecond an event.

```python
file = EventFile.create("runs/logs/train")
file.add(Points([7, 8], [time.time()] * 2, {"batch_loss": [0.3, 0.2]}).events())
file.close()
```
"""

import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata
from tensorboard.compat.proto.summary_pb2 import Summary

_FLUSH_SECS = 10  # how old what TensorBoard shows of a running epoch may be


@attrs.define(eq=False)
class EventFile:
    """A file of events for TensorBoard, open for writing.

    An event is a record; TensorFlow's own writer frames it and takes its checksum, in C++, where TensorBoard's
    does that in Python. What cannot be written is raised by the call in which it is found.

    Attributes:
        folder: Where the file is.
    """

    folder: str
    _writer: tf.io.TFRecordWriter
    _flush_at_secs: float = attrs.field(init=False, default=0.0)  # so that the first events are to be seen at once

    @classmethod
    def create(cls, folder: str, suffix: str = "") -> "EventFile":
        """Makes a file whose name comes behind those that are there, and behind no other at the same moment.

        Args:
            folder: Made if there is none.
            suffix: Behind the name.

        Raises:
            OSError, tf.errors.OpError: It cannot be made.
        """
        tf.io.gfile.makedirs(folder)
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        name = f"events.out.tfevents.{seconds:010d}.{socket.gethostname()}.{os.getpid()}.{nanoseconds:09d}{suffix}"
        file = cls(folder, tf.io.TFRecordWriter(tf.io.gfile.join(folder, name)))
        origin = SourceMetadata(writer=__name__)
        file.add([Event(wall_time=seconds, file_version="brain.Event:2", source_metadata=origin)])
        return file

    def add(self, events: Iterable[Event]) -> None:
        """Writes events behind the others, and hands all of them to the system if that is long ago."""
        for event in events:
            self._writer.write(event.SerializeToString())
        if time.monotonic() >= self._flush_at_secs:
            self.flush()

    def flush(self) -> None:
        """Hands all that was written to the system, so that it outlives the process."""
        self._writer.flush()
        self._flush_at_secs = time.monotonic() + _FLUSH_SECS

    def close(self) -> None:
        """Flushes and closes."""
        self._writer.close()


@attrs.frozen
class Points:
    """Scalars along an axis of steps.

    Attributes:
        steps: The steps.
        wall_times: When each was done, in seconds since 1970.
        scalars: Tag -> its value at each step.
    """

    steps: Sequence[int] = ()
    wall_times: Sequence[float] = ()
    scalars: Mapping[str, Sequence[float]] = attrs.field(factory=dict)

    def events(self) -> Iterator[Event]:
        """An event a step: one object, filled anew each time, which takes a seventh of the time of making one."""
        if not self.scalars:
            return
        event = Event(summary=Summary(value=[Summary.Value(tag=tag) for tag in self.scalars]))
        values = list(event.summary.value)
        for step, wall_time, *numbers in zip(self.steps, self.wall_times, *self.scalars.values(), strict=True):
            event.step, event.wall_time = step, wall_time
            for value, number in zip(values, numbers, strict=True):
                value.simple_value = number
            yield event

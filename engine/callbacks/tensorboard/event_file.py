"""`EventFile`: one event file, written to at about a microsecond an event.

```python
file = EventFile.create("runs/logs/train")
file.write([Event(wall_time=time.time(), step=7, summary=Summary(value=values)).SerializeToString()])
file.close()
```
"""

import os
import socket
import time
from collections.abc import Iterable

import attrs
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata

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
        version = Event(wall_time=seconds, file_version="brain.Event:2", source_metadata=origin)
        file.write([version.SerializeToString()])
        return file

    def write(self, events: Iterable[bytes]) -> None:
        """Writes serialised events behind the others, and hands all of them to the system if that is long ago."""
        for event in events:
            self._writer.write(event)
        if time.monotonic() >= self._flush_at_secs:
            self.flush()

    def flush(self) -> None:
        """Hands all that was written to the system, so that it outlives the process."""
        self._writer.flush()
        self._flush_at_secs = time.monotonic() + _FLUSH_SECS

    def close(self) -> None:
        """Flushes and closes."""
        self._writer.close()

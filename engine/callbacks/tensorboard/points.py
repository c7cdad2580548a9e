"""`Points`: scalars of many steps, as the bytes of the events that hold them.

The events of a block of steps have the same bytes but for the numbers in them. One is made by protobuf, and the numbers
of all of them are put into its copies as arrays: a tenth of a microsecond a step, where an object for each takes three.

```text
09 wall_time:f8  10 step:varint  2a size  0a size  0a size tag:utf-8  15 simple_value:f4  0a size ...
```

```python
points = Points(np.array([7, 8]), np.array([1.8e9, 1.8e9]), {"batch_loss": np.array([0.3, 0.2])})
[Event.FromString(record).step for record in points.records()]  # [7, 8]
```
"""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

_BITS = 7  # of a number in each byte of a varint; the eighth says whether there are more
_STEPS_OF_MORE_BYTES = 1 << _BITS * np.arange(1, 9)  # from each of these on


@attrs.frozen(eq=False)
class Points:
    """Scalars along an axis of steps.

    Attributes:
        steps: Where along the axis, from 0 on, int64, (steps,).
        wall_times: When each was done, in seconds since 1970, (steps,).
        scalars: Tag -> its value at each step, (steps,).
    """

    steps: NDArray[np.int64] = attrs.field(factory=lambda: np.zeros(0, np.int64))
    wall_times: NDArray[np.float64] = attrs.field(factory=lambda: np.zeros(0))
    scalars: Mapping[str, NDArray[Any]] = attrs.field(factory=dict)

    def records(self) -> list[bytes]:
        """An event a step, serialised."""
        sizes = np.searchsorted(_STEPS_OF_MORE_BYTES, self.steps, side="right") + 1
        begins = np.flatnonzero(np.diff(sizes, prepend=0)).tolist()
        parts = [slice(*ends) for ends in zip(begins, [*begins[1:], len(sizes)], strict=False)]
        return [record for part in parts for record in self._alike(part, int(sizes[part.start]))]

    def _alike(self, part: slice, step_bytes: int) -> list[bytes]:
        """The events of a part of the steps, all of which take as many bytes."""
        values = [Summary.Value(tag=tag, simple_value=1.0) for tag in self.scalars]
        event = Event(wall_time=1.0, step=(1 << _BITS * step_bytes) - 1, summary=Summary(value=values))
        record = np.frombuffer(event.SerializeToString(), np.uint8)
        rows = np.empty(len(self.steps[part]), _layout(values, step_bytes, len(record)))
        rows.view(np.uint8).reshape(-1, len(record))[:] = record
        rows["wall_time"] = self.wall_times[part]
        rows["step"] = _varints(self.steps[part], step_bytes)
        with np.errstate(over="ignore"):  # too large for a float32 is infinite, as protobuf has it
            for i, own in enumerate(self.scalars.values()):
                rows[f"value {i}"] = own[part]
        data = rows.tobytes()
        return [data[begin : begin + len(record)] for begin in range(0, len(data), len(record))]


def _layout(values: Sequence[Summary.Value], step_bytes: int, record_bytes: int) -> np.dtype[Any]:
    """Where the numbers stand in the record of an event: behind a byte each, and at the very end of their values."""
    sizes = [Summary(value=[value]).ByteSize() for value in values]
    ends = record_bytes - sum(sizes) + np.cumsum(sizes)
    return np.dtype(
        {
            "names": ["wall_time", "step", *(f"value {i}" for i in range(len(values)))],
            "formats": ["<f8", ("u1", step_bytes), *("<f4" for _ in values)],
            "offsets": [1, 10, *(ends - 4)],
            "itemsize": record_bytes,
        }
    )


def _varints(numbers: NDArray[np.int64], num_bytes: int) -> NDArray[np.uint8]:
    """The numbers by seven bits, the lowest first, (numbers, bytes)."""
    parts = numbers[:, np.newaxis] >> _BITS * np.arange(num_bytes) & 0x7F
    parts[:, :-1] |= 0x80
    return parts.astype(np.uint8)

"""A block of steps as callbacks see it: its values as arrays, or batch by batch, each with its true index.

```python
block = Block(Columns(("loss",), (True,)), 3, 103, 3296, sizes=[32], running=[[0.5]], values=[[0.4]])
block.step_logs["loss"]  # array([0.4])
next(block.replay())     # (3, 104, 3328, {"loss": 0.5}, {"loss": 0.4}, None)
```
"""

from collections.abc import Iterator, Sequence
from itertools import starmap
from typing import Any, NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from engine.columns import Columns, Logs


class ReplayedBatch(NamedTuple):
    """One step of a block: its index in the epoch, its number in the run, samples so far, and its values."""

    batch: int
    step: int
    samples: int
    logs: Logs
    step_logs: Logs
    fault: str | None


@attrs.frozen(eq=False)
class Block:
    """Steps that one call of the compiled loop has run, at least one, as callbacks see them.

    Attributes:
        columns: What the columns mean.
        first_batch: Index in the epoch of the block's first batch.
        first_step: Steps of the run before the block.
        first_sample: Samples of the run before the block.
        sizes: Samples of each step, (steps,).
        running: Values since the epoch began, after each step, (steps, columns).
        values: Values of each step itself, (steps, columns).
        faults: What each step left behind that is not finite; None: nothing.
        seconds: Time that all the steps took.
    """

    columns: Columns
    first_batch: int
    first_step: int
    first_sample: int
    sizes: Any
    running: Any
    values: Any
    faults: Sequence[str | None] = ()
    seconds: float = 0.0

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def batches(self) -> range:
        """Of each step, the index of its batch in the epoch, from 0."""
        return range(self.first_batch, self.first_batch + len(self))

    @property
    def steps(self) -> range:
        """Of each step, its number in the whole run, from 1; in an evaluation, in it."""
        return range(self.first_step + 1, self.first_step + 1 + len(self))

    @property
    def samples(self) -> NDArray[np.int64]:
        """After each step, the samples of the whole run so far, (steps,); in an evaluation, of it."""
        return self.first_sample + np.cumsum(self.sizes)

    @property
    def logs(self) -> dict[str, NDArray[np.float64]]:
        """Name -> its value since the epoch began, after each step, (steps, ...), sorted by name; read-only."""
        return self.columns.split(_to_read(self.running))

    @property
    def step_logs(self) -> dict[str, NDArray[np.float64]]:
        """Name -> the value of each step itself, (steps, ...), sorted by name; read-only."""
        return self.columns.split(_to_read(self.values))

    @property
    def last_logs(self) -> Logs:
        """What a batch hook is given behind the block's last step: plain floats."""
        (logs,) = self.columns.logs(self.running[-1:])
        return logs

    def first(self, steps: int) -> "Block":
        """The block as if it had ended after so many steps."""
        tables = {name: getattr(self, name)[:steps] for name in ("sizes", "running", "values", "faults")}
        return attrs.evolve(self, **tables, seconds=self.seconds * steps / len(self))

    def replay(self) -> Iterator[ReplayedBatch]:
        """One step after the other."""
        running, values = (self.columns.logs(table) for table in (self.running, self.values))
        faults = self.faults or [None] * len(self)
        numbers = self.batches, self.steps, self.samples.tolist()
        yield from starmap(ReplayedBatch, zip(*numbers, running, values, faults, strict=True))


def _to_read(table: Any) -> NDArray[np.float64]:
    """A table that one callback cannot change for the others."""
    view = np.asarray(table).view()
    view.flags.writeable = False
    return view

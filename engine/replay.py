"""A block of steps as callbacks see it: batch by batch, each with its true index and its own values.

```python
block = Replay(Columns(("loss",), (True,)), 3, 103, 3296, sizes=[32], running=[[0.5]], values=[[0.4]])
next(block.batches())  # (3, 104, 3328, {"loss": 0.5}, {"loss": 0.4})
```
"""

from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np

from engine.columns import Columns, Logs


@attrs.frozen(eq=False)
class Replay:
    """A block of steps as callbacks see it.

    Attributes:
        columns: What the columns mean.
        first_batch: Index in the epoch of the block's first batch.
        first_step: Steps of the run before the block.
        first_sample: Samples of the run before the block.
        sizes: Samples of each step, (steps,).
        running: Values since the epoch began, after each step, (steps, columns).
        values: Values of each step itself, (steps, columns).
    """

    columns: Columns
    first_batch: int
    first_step: int
    first_sample: int
    sizes: Any
    running: Any
    values: Any

    def batches(self) -> Iterator[tuple[int, int, int, Logs, Logs]]:
        """For each step: its batch index, its number in the run, the samples so far, logs and its own values."""
        running, values = (self.columns.logs(table) for table in (self.running, self.values))
        samples = (self.first_sample + np.cumsum(self.sizes)).tolist()
        for i, (logs, step_logs, seen) in enumerate(zip(running, values, samples, strict=True)):
            yield self.first_batch + i, self.first_step + i + 1, seen, logs, step_logs

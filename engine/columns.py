"""What the columns of a block's rows mean: which values of a step they hold.

```python
columns = Columns(("loss", "f1"), averaged=(True, False), shapes=((), (3,)))
columns.logs(np.zeros((1, 4)))  # [{"f1": array([0., 0., 0.]), "loss": 0.0}]
```
"""

import math
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

Logs = dict[str, Any]  # float, but for a metric whose result is an array


@attrs.frozen
class Columns:
    """What a step's values are called, and how a row holds them one after the other.

    Attributes:
        names: Of the values.
        averaged: For each value, whether the logs average it; otherwise the last one stands.
        shapes: Of the values; () is a scalar, which takes one column.
    """

    names: tuple[str, ...] = ()
    averaged: tuple[bool, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = attrs.field()

    @shapes.default
    def _all_scalars(self) -> tuple[tuple[int, ...], ...]:
        return ((),) * len(self.names)

    @property
    def widths(self) -> list[int]:
        """Columns that each value takes."""
        return [math.prod(shape) for shape in self.shapes]

    @property
    def is_averaged(self) -> NDArray[np.bool_]:
        """For each column, whether the logs average it."""
        return np.repeat(np.asarray(self.averaged, bool), self.widths)

    def split(self, table: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Name -> its values, (rows, ...), of a table (rows, columns), sorted by name as Keras sorts logs."""
        ends = np.cumsum([0, *self.widths])
        parts = {
            name: table[:, begin:end].reshape(len(table), *shape)
            for name, begin, end, shape in zip(self.names, ends, ends[1:], self.shapes, strict=False)
        }
        return dict(sorted(parts.items()))

    def logs(self, table: NDArray[Any]) -> list[Logs]:
        """One dict for each row of a table (rows, columns), of plain floats but for values that are arrays."""
        parts = self.split(np.asarray(table))
        values = (part.tolist() if part.ndim == 1 else list(part) for part in parts.values())
        return [dict(zip(parts, row, strict=True)) for row in zip(*values, strict=True)]

"""How steps are executed: what XLA compiles, and where arrays lie. Which is fastest, `Trainer.tune` measures.

Results are the same for all of them but for rounding: XLA adds up in another order. So the one that a run began with is
in its checkpoints, and a resume repeats it.

```python
str(Execution(xla=Xla.BLOCK))                # "XLA, whole blocks"
str(Execution(xla=Xla.STEP, streams=True))   # "XLA, single steps; arrays streamed"
```
"""

import enum

import attrs


class Xla(enum.Enum):
    """What is compiled by XLA."""

    OFF = "graph"
    STEP = "XLA, single steps"
    BLOCK = "XLA, whole blocks"


@attrs.frozen(kw_only=True)
class Execution:
    """How steps are executed.

    Attributes:
        xla: What is compiled by XLA. A block can be where all its batches are alike, of arrays in memory; other
            steps (a smaller last batch, data of other kinds) then run as a graph.
        streams: Whether arrays are read batch by batch, though they are small enough to lie on the device.
    """

    xla: Xla = Xla.OFF
    streams: bool = False

    def __str__(self) -> str:
        return f"{self.xla.value}; arrays streamed" if self.streams else self.xla.value

"""A step made into one compiled loop of many steps that hands back every step's values.

```text
Loop.run(walk, cursor, steps)              one call, whose length is a tensor: traced once
└── while done < steps and data is left
    ├── batch = walk.pull(cursor, done)    a gather, or an iterator's next element
    ├── strategy.run(step, batch)          forward, loss, gradients, update
    └── rows.write(done, values)           this step's values, packed into one vector
rows                                       one transfer for the whole block
```

A step returns a flat dict. What a value stands for follows from its form:

- a scalar: this step's value; logs average it over the epoch, weighted by samples;
- a pair (scalar, weight): the same, weighted as it says;
- a pair (value, None): it already stands for the epoch so far, and the last one counts. It may be an array.

```python
loop = Loop(task.train_step)
rows = loop.run(walk.pull, walk.cursor(0), steps=100)
rows.columns.split(rows.values)["loss"]  # float64, (100,)
```
"""

from engine.loop.guard import Guard
from engine.loop.outputs import PredictLoop
from engine.loop.program import Pull, batch_size, compiled
from engine.loop.rows import MOST_FUSED_STEPS, Loop, Rows

__all__ = ["MOST_FUSED_STEPS", "Guard", "Loop", "PredictLoop", "Pull", "Rows", "batch_size", "compiled"]

"""What a replica's own mean is worth beside those of the others: as much as it has samples, or entries that count.

```python
mean = replicas.total(own_mean * share_of(count))    # of the whole batch
```
"""

import tensorflow as tf

from engine import replicas
from engine.losses.updates import current_step


def has_shares() -> bool:
    """Whether a loss is only a part of one just now, on one of several replicas or in one of several steps."""
    step = current_step()
    return replicas.number() > 1 or (step is not None and step.updates.accumulate > 1)


def share_of(count: tf.Tensor) -> tf.Tensor:
    """What part of all replicas' things this replica has; nothing, if there are none at all."""
    return tf.math.divide_no_nan(count, replicas.total(count))


def in_logs(value: tf.Tensor, count: tf.Tensor | None) -> tf.Tensor:
    """A mean over `count` things (None: samples), so that the logs' mean over samples is that of the whole batch."""
    step = current_step()
    if replicas.number() == 1 or count is None or step is None:
        return value
    return value * tf.cast(share_of(count) * replicas.total(step.size) / step.size, value.dtype)

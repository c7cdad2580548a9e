"""How long a compiled loop waits for its data, measured where it waits: in the graph.

A batch that is gathered from arrays on the device is waited for by nobody, and costs no look at the clock. One that
an iterator gives may still be in the making when the step before it is done.

```python
batch, is_there, seconds = pull_timed(pull, iterator, index)
```
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def is_awaited(cursor: Any) -> bool:
    """Whether batches from this cursor may have to be waited for, in a way that can be measured.

    Where there is a GPU it cannot: the host runs ahead of the device, which may be busy while the host waits.
    """
    return is_iterator(cursor) and not tf.config.list_logical_devices("GPU")


def is_iterator(cursor: Any) -> bool:
    """Whether batches from this cursor come from an iterator, which may end, and not from arrays."""
    first = cursor[0] if isinstance(cursor, tuple) and cursor else cursor  # beside it there may be a batch read before
    return isinstance(first, (tf.data.Iterator, tf.distribute.DistributedIterator))


def pull_timed(
    pull: Callable[[Any, tf.Tensor], tf.experimental.Optional], cursor: Any, index: tf.Tensor
) -> tuple[tf.experimental.Optional, tf.Tensor, tf.Tensor]:
    """The next batch of an iterator, whether there is one, and the seconds that it took to come, float64.

    All that changes variables in one turn of a loop is over before the next turn begins (TensorFlow sees to that), so
    that no training step is under way in these seconds. A step that changes nothing may well be.
    """
    begun = tf.timestamp()
    with tf.control_dependencies([begun]):
        batch = pull(cursor, index)
    is_there = batch.has_value()
    with tf.control_dependencies([is_there]):
        ready = tf.timestamp()
    with tf.control_dependencies([ready]):  # else the step may begin before the clock is looked at
        is_there = tf.identity(is_there)
    return batch, is_there, ready - begun

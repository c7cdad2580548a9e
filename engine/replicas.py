"""What a step may ask of the replicas that train in step with its own; with one replica, each is what it is.

A replica has a share of the batch. What concerns the whole batch, such as the negatives of a contrastive loss or
noise that shall not depend on how the batch was dealt out, goes through here.

```python
noise = replicas.drawn(lambda number: keras.random.normal((number, 64), seed=self.seeds), size)  # (size, 64)
others = replicas.gathered(features)                                                             # (whole batch, ...)
valid = replicas.total(tf.reduce_sum(mask))                                                      # of the whole batch
```
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf


def number() -> int:
    """Replicas that train in step with this one, itself counted."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def total(value: Any) -> Any:
    """The sum over the replicas of a tensor, or of each tensor of a list; its gradient goes to all of them."""
    if number() == 1:
        return value
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


def gathered(rows: tf.Tensor) -> tf.Tensor:
    """The rows of all replicas, one behind the other, (whole batch, ...); gradients go back to whose they are."""
    if number() == 1:
        return rows
    if _is_spread():
        return tf.distribute.get_replica_context().all_gather(rows, axis=0)
    size = tf.shape(rows)[0]
    begin = first_row(size)

    def gather(rows: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return _together(tf.add_n, upstream)[begin : begin + size]

        return _together(_concatenated, rows), gradient

    return tf.custom_gradient(gather)(rows)


def first_row(size: tf.Tensor) -> tf.Tensor:
    """Where in the whole batch the rows of this replica begin.

    Args:
        size: How many they are, int32, a scalar.
    """
    context, own = tf.distribute.get_replica_context(), tf.reshape(size, [1])
    sizes = context.all_gather(own, axis=0) if _is_spread() else _together(_concatenated, own)
    index = tf.cast(context.replica_id_in_sync_group, tf.int32)
    return tf.reduce_sum(tf.where(tf.range(tf.size(sizes)) < index, sizes, 0))


def _is_spread() -> bool:
    """Whether there are replicas in other processes."""
    return len(tf.distribute.get_strategy().extended.worker_devices) < number()


def _together(combine: Callable[[Sequence[tf.Tensor]], tf.Tensor], tensor: tf.Tensor) -> tf.Tensor:
    """What a function makes of the tensors of all replicas of this process, in their order; the same for each.

    Without TensorFlow's collective operations. These must keep their shape as long as a compiled loop runs, and fail
    ("Shape mismatch in the collective instance") at the first batch of another size, such as an epoch's last one.
    """
    return tf.distribute.get_replica_context().merge_call(
        lambda strategy, values: combine(strategy.experimental_local_results(values)), args=(tensor,)
    )


def _concatenated(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.concat(parts, axis=0)


def drawn(draw: Callable[[tf.Tensor], Any], size: tf.Tensor) -> Any:
    """Draws random numbers for the whole batch, and returns the rows of this replica.

    A `keras.random.SeedGenerator` gives the same numbers on every replica. Drawn so, two replicas together get what
    one would have got alone.

    Args:
        draw: Called with the number of samples in the whole batch, int32, a scalar; returns a nest of tensors,
            samples along the first axis. Every replica calls it.
        size: Samples of this replica, int32, a scalar.

    Examples:
        >>> replicas.drawn(lambda number: keras.random.uniform((number, 2), seed=seeds), tf.shape(images)[0])
    """
    if number() == 1:
        return draw(size)
    begin = first_row(size)
    return keras.tree.map_structure(lambda rows: rows[begin : begin + size], draw(total(size)))

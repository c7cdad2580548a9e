"""What a loss is the mean over, where not every entry counts."""

from typing import Any

import tensorflow as tf


def num_valid(loss: Any, y: Any, y_pred: Any) -> tf.Tensor | None:
    """How many entries a loss is the mean over where not all of them count: masked ones, ignored classes; else None."""
    mask, ignored = getattr(y_pred, "_keras_mask", None), getattr(loss, "ignore_class", None)
    if ignored is not None:
        counted = tf.not_equal(tf.convert_to_tensor(y), tf.cast(ignored, tf.convert_to_tensor(y).dtype))
        if mask is not None and counted.shape.rank == mask.shape.rank + 1:
            counted = tf.squeeze(counted, -1)
        mask = counted if mask is None else counted & tf.cast(mask, tf.bool)
    return None if mask is None else tf.math.count_nonzero(mask, dtype=tf.float32)

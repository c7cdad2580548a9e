"""`class_weight` as sample weights; given both, they multiply (Keras refuses the pair)."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engine.errors import ConfigError, DataError

ClassWeight = Mapping[int, float]


def weigh_arrays(y: Any, sample_weight: Any, class_weight: ClassWeight) -> Any:
    """The weight of each sample, float32, (samples,): its class's, times its own if it has one.

    Raises:
        ConfigError: There is not one class a sample, or `class_weight` names no classes.
    """
    if y is None or keras.tree.is_nested(y):
        raise ConfigError("class_weight needs one array of targets y, to read each sample's class from.")
    labels, table = np.asarray(y), _table(class_weight)
    if _is_one_hot(labels.shape):
        labels = labels.argmax(-1)
    classes = np.rint(labels.reshape(len(labels))).astype(int)
    is_named = (classes >= 0) & (classes < len(table))
    weights = np.where(is_named, table[np.where(is_named, classes, 0)], 1.0).astype("float32")
    if sample_weight is None:
        return weights
    own = np.asarray(sample_weight, "float32")
    if own.size != len(weights):
        raise DataError(f"sample_weight has {own.size} values, but y has {len(weights)} samples. Give one for each.")
    return weights * own.reshape(len(weights))


def weigh_dataset(dataset: tf.data.Dataset, class_weight: ClassWeight) -> tf.data.Dataset:
    """The dataset with each batch's sample weights multiplied by its samples' class weights.

    Raises:
        ConfigError: Its batches have not one class a sample, or `class_weight` names no classes.
    """
    table = tf.constant(_table(class_weight))
    _, targets, _ = keras.utils.unpack_x_y_sample_weight(dataset.element_spec)
    if targets is None or keras.tree.is_nested(targets):
        raise ConfigError("class_weight needs a dataset of (x, y) batches with one tensor of targets y.")
    is_one_hot = targets.shape.rank is not None and _is_one_hot(tuple(targets.shape))

    def weigh(*batch: Any) -> Any:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        labels = tf.argmax(y, -1) if is_one_hot else tf.cast(tf.round(tf.reshape(y, [-1])), tf.int64)
        is_named = (labels >= 0) & (labels < len(table))
        weights = tf.where(is_named, tf.gather(table, tf.where(is_named, labels, 0)), 1.0)
        return (
            x,
            y,
            weights if sample_weight is None else weights * tf.reshape(tf.cast(sample_weight, tf.float32), [-1]),
        )

    return dataset.map(weigh)


def _is_one_hot(shape: tuple[int | None, ...]) -> bool:
    """Whether targets of this shape are one-hot rather than class numbers."""
    if len(shape) > 2:
        raise ConfigError(f"class_weight needs one class a sample, but the targets have shape {shape}.")
    return len(shape) == 2 and shape[-1] != 1


def _table(class_weight: ClassWeight) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Weights by class number, 1 for those between that are not named."""
    are_classes = (isinstance(key, (int, float, np.number)) and key >= 0 and key == int(key) for key in class_weight)
    if not class_weight or not all(are_classes):
        raise ConfigError(f"class_weight={dict(class_weight)!r}: expected class numbers from 0, with a weight each.")
    table = np.ones(int(max(class_weight)) + 1, "float32")
    for key, weight in class_weight.items():
        table[int(key)] = weight
    return table

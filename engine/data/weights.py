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
    keys, values = _table(class_weight)
    if y is None or keras.tree.is_nested(y):
        raise ConfigError("class_weight needs one array of targets y, to read each sample's class from.")
    labels = np.asarray(y)
    if _is_one_hot(labels.shape):
        labels = labels.argmax(-1)
    classes = np.rint(labels.reshape(len(labels))).astype(np.int64)
    places = np.minimum(np.searchsorted(keys, classes), len(keys) - 1)
    weights = np.where(keys[places] == classes, values[places], np.float32(1.0))
    if sample_weight is None:
        return weights
    own = np.asarray(sample_weight, "float32")
    if own.size != len(weights):
        raise DataError(f"sample_weight has {own.size} values, but y has {len(weights)} samples. Give one for each.")
    return weights * own.reshape(len(weights))


def weigh_batch(batch: Any, class_weight: ClassWeight) -> Any:
    """A batch (x, y) or (x, y, sample_weight) of arrays with its samples' weights multiplied by their classes'."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    return (x, y, weigh_arrays(y, sample_weight, class_weight))


def weigh_dataset(dataset: tf.data.Dataset, class_weight: ClassWeight) -> tf.data.Dataset:
    """The dataset with each batch's sample weights multiplied by its samples' class weights.

    Raises:
        ConfigError: Its batches have not one class a sample, or `class_weight` names no classes.
    """
    keys, values = (tf.constant(part) for part in _table(class_weight))
    _, targets, _ = keras.utils.unpack_x_y_sample_weight(dataset.element_spec)
    if targets is None or keras.tree.is_nested(targets):
        raise ConfigError("class_weight needs a dataset of (x, y) batches with one tensor of targets y.")
    is_one_hot = targets.shape.rank is not None and _is_one_hot(tuple(targets.shape))

    def weigh(*batch: Any) -> Any:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        labels = tf.argmax(y, -1) if is_one_hot else tf.cast(tf.round(tf.reshape(y, [-1])), tf.int64)
        places = tf.minimum(tf.searchsorted(keys, labels), len(keys) - 1)
        weights = tf.where(tf.gather(keys, places) == labels, tf.gather(values, places), 1.0)
        if sample_weight is not None:
            weights *= tf.reshape(tf.cast(sample_weight, tf.float32), [-1])
        return x, y, weights

    return dataset.map(weigh)


def _is_one_hot(shape: tuple[int | None, ...]) -> bool:
    """Whether targets of this shape are one-hot rather than class numbers."""
    if len(shape) > 2:
        raise ConfigError(f"class_weight needs one class a sample, but the targets have shape {shape}.")
    return len(shape) == 2 and shape[-1] != 1


def _table(class_weight: ClassWeight) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The classes that are named, in rising order, int64, and what each of them weighs, float32."""
    are_classes = (isinstance(key, (int, float, np.number)) and key == int(key) for key in class_weight)
    if not class_weight or not all(are_classes):
        raise ConfigError(f"class_weight={dict(class_weight)!r}: expected class numbers, with a weight each.")
    keys = sorted(class_weight, key=int)
    return np.array([int(key) for key in keys], np.int64), np.array([class_weight[key] for key in keys], np.float32)

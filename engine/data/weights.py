"""`class_weight` as sample weights; given both, they multiply (Keras refuses the pair)."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engine.errors import ConfigError, DataError

ClassWeight = Mapping[int, float]


def weigh_arrays(y: Any, sample_weight: Any, class_weight: ClassWeight, *, are_numbers: bool = False) -> Any:
    """The weight of each target, float32, (samples,) or (samples, steps): its class's, times its own if it has one.

    Args:
        y: Class numbers, (samples,), (samples, 1) or, if `are_numbers`, (samples, steps); or one-hot,
            (samples, classes) or (samples, steps, classes).
        sample_weight: A weight of its own for each sample, or for each step of it; None: 1.
        class_weight: What each class weighs.
        are_numbers: Whether the loss takes class numbers, so that a second axis is one of steps.

    Raises:
        ConfigError: There is not one array of targets, or `class_weight` names no classes.
        DataError: There are not as many weights as samples.
    """
    keys, values = _table(class_weight)
    if y is None or keras.tree.is_nested(y):
        raise ConfigError("class_weight needs one array of targets y, to read each sample's class from.")
    labels = np.asarray(y)
    labels = labels.argmax(-1) if _is_one_hot(labels.shape, are_numbers) else labels
    labels = labels[..., 0] if _is_column(labels.shape) else labels
    classes = (np.rint(labels) if labels.dtype.kind == "f" else labels).astype(np.int64)
    places = np.minimum(np.searchsorted(keys, classes), len(keys) - 1)
    weights = np.where(keys[places] == classes, values[places], np.float32(1.0))
    if sample_weight is None:
        return weights
    own = np.asarray(sample_weight, "float32")
    if len(own) != len(weights):
        raise DataError(f"sample_weight has {len(own)} rows, but y has {len(weights)} samples. Give one for each.")
    return np.multiply(*_alike(own[..., 0] if _is_column(own.shape) else own, weights))


def weigh_batch(batch: Any, class_weight: ClassWeight, *, are_numbers: bool = False) -> Any:
    """A batch (x, y) or (x, y, sample_weight) of arrays with its weights multiplied by its classes'."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    return (x, y, weigh_arrays(y, sample_weight, class_weight, are_numbers=are_numbers))


def weigh_dataset(dataset: tf.data.Dataset, class_weight: ClassWeight, *, are_numbers: bool = False) -> tf.data.Dataset:
    """The dataset with each batch's weights multiplied by its classes': `weigh_arrays` in a graph.

    Raises:
        ConfigError: Its batches have not one array of targets, or `class_weight` names no classes.
    """
    keys, values = (tf.constant(part) for part in _table(class_weight))
    _, targets, _ = keras.utils.unpack_x_y_sample_weight(dataset.element_spec)
    if targets is None or keras.tree.is_nested(targets):
        raise ConfigError("class_weight needs a dataset of (x, y) batches with one tensor of targets y.")
    shape = (None,) if targets.shape.rank is None else tuple(targets.shape)

    def weigh(*batch: Any) -> Any:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        y_known = tf.reshape(y, [-1]) if len(shape) == 1 else y
        labels = tf.argmax(y, -1) if _is_one_hot(shape, are_numbers) else tf.cast(tf.round(y_known), tf.int64)
        classes = labels[..., 0] if _is_column(tuple(labels.shape)) else labels
        places = tf.minimum(tf.searchsorted(keys, tf.reshape(classes, [-1])), len(keys) - 1)
        places = tf.reshape(places, tf.shape(classes))
        weights = tf.where(tf.gather(keys, places) == classes, tf.gather(values, places), 1.0)
        if sample_weight is not None:
            own = tf.cast(sample_weight, tf.float32)
            weights = tf.multiply(*_alike(own[..., 0] if _is_column(tuple(own.shape)) else own, weights))
        return x, y, weights

    return dataset.map(weigh)


def _is_one_hot(shape: tuple[int | None, ...], are_numbers: bool) -> bool:
    """Whether targets of this shape are one-hot rather than class numbers."""
    return not are_numbers and len(shape) > 1 and shape[-1] != 1


def _is_column(shape: tuple[int | None, ...]) -> bool:
    """Whether the last axis is there for its own sake."""
    return len(shape) > 1 and shape[-1] == 1


def _alike(own: Any, weights: Any) -> tuple[Any, Any]:
    """Weights of samples beside weights of steps: the former given an axis to be multiplied along."""
    if len(own.shape) == len(weights.shape):
        return own, weights
    return (own[:, None], weights) if len(own.shape) < len(weights.shape) else (own, weights[:, None])


def _table(class_weight: ClassWeight) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The classes that are named, in rising order, int64, and what each of them weighs, float32."""
    are_classes = (isinstance(key, (int, float, np.number)) and key == int(key) for key in class_weight)
    if not class_weight or not all(are_classes):
        raise ConfigError(f"class_weight={dict(class_weight)!r}: expected class numbers, with a weight each.")
    keys = sorted(class_weight, key=int)
    return np.array([int(key) for key in keys], np.int64), np.array([class_weight[key] for key in keys], np.float32)

"""`class_weight` as sample weights; given both, they multiply (Keras refuses the pair)."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engine.errors import ConfigError

ClassWeight = Mapping[int, float]


def weigh_arrays(y: Any, sample_weight: Any, class_weight: ClassWeight) -> Any:
    """The weight of each sample, float32, (samples,): its class's, times its own if it has one."""
    if y is None or keras.tree.is_nested(y):
        raise ConfigError("class_weight needs one array of targets y, to read each sample's class from.")
    labels = np.asarray(y)
    is_one_hot = labels.ndim > 1 and labels.shape[-1] != 1
    classes = labels.argmax(-1) if is_one_hot else np.rint(labels.reshape(len(labels))).astype(int)
    table = _table(class_weight)
    weights = np.where(classes < len(table), table[np.minimum(classes, len(table) - 1)], 1.0)
    return weights.astype("float32") * (1.0 if sample_weight is None else np.asarray(sample_weight, "float32"))


def weigh_dataset(dataset: tf.data.Dataset, class_weight: ClassWeight) -> tf.data.Dataset:
    """The dataset with each batch's sample weights multiplied by its samples' class weights."""
    table = tf.constant(_table(class_weight))

    def weigh(*batch: Any) -> Any:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if y is None or keras.tree.is_nested(y):
            raise ConfigError("class_weight needs a dataset of (x, y) batches with one tensor of targets y.")
        is_one_hot = y.shape.rank is not None and y.shape.rank > 1 and y.shape[-1] != 1
        labels = tf.argmax(y, -1) if is_one_hot else tf.cast(tf.round(tf.reshape(y, [-1])), tf.int64)
        known = tf.gather(table, tf.minimum(labels, len(table) - 1))
        weights = tf.where(labels < len(table), known, 1.0)
        return x, y, weights if sample_weight is None else weights * tf.cast(sample_weight, tf.float32)

    return dataset.map(weigh)


def _table(class_weight: ClassWeight) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Weights by class number, 1 for those between that are not named."""
    if not class_weight or any(int(key) != key or key < 0 for key in class_weight):
        raise ConfigError(f"class_weight={dict(class_weight)!r}: expected class numbers from 0, with a weight each.")
    table = np.ones(int(max(class_weight)) + 1, "float32")
    for key, weight in class_weight.items():
        table[int(key)] = weight
    return table

"""`validation_split`: the last part of the arrays, set aside before any shuffling."""

from typing import Any

import keras
import tensorflow as tf

from engine.data.arrays import to_arrays
from engine.errors import ConfigError, DataError


def split_tail(x: Any, y: Any, sample_weight: Any, fraction: float) -> tuple[Any, Any]:
    """Splits arrays into ((x, y, w) to train on, (x, y, w) to validate on).

    Args:
        x: A nest of arrays, samples along the first axis.
        y: Targets, like `x`, or None.
        sample_weight: Weights, or None.
        fraction: The part that the validation gets, between 0 and 1.

    Raises:
        ConfigError: `fraction` is out of range, or `x` is no array.
        DataError: One of the two parts would be empty.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"validation_split={fraction!r}: expected a number between 0 and 1.")
    if isinstance(x, tf.data.Dataset):
        raise ConfigError(
            "validation_split needs arrays, but x is a dataset. Split it yourself, for example with "
            "dataset.take and dataset.skip, and give the second part as validation_data."
        )
    if x is None:
        raise DataError("x is None: give x as arrays.")
    arrays = tuple(to_arrays(*pair) for pair in (("x", x), ("y", y), ("sample_weight", sample_weight)))
    num_samples = len(next((leaf for leaf in keras.tree.flatten(arrays[0]) if leaf is not None), ()))
    cut = int(num_samples * (1.0 - fraction))  # as Keras rounds it
    if cut in (0, num_samples):
        raise DataError(
            f"validation_split={fraction} of {num_samples} samples leaves one of the two parts empty. "
            "Give more samples or another fraction."
        )
    head = keras.tree.map_structure(lambda leaf: None if leaf is None else leaf[:cut], arrays)
    tail = keras.tree.map_structure(lambda leaf: None if leaf is None else leaf[cut:], arrays)
    return head, tail

"""`validation_split`: the last part of the arrays, set aside before any shuffling."""

from typing import Any

import keras

from engine.data.arrays import leaves_of
from engine.data.kinds import makes_batches
from engine.data.leaves import Leaf
from engine.errors import ConfigError, DataError


def split_tail(x: Any, y: Any, sample_weight: Any, fraction: float) -> tuple[Any, Any]:
    """Splits arrays into ((x, y, w) to train on, (x, y, w) to validate on), nothing copied.

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
    if makes_batches(x):
        raise ConfigError(
            f"validation_split needs arrays, but x is a {type(x).__name__}. Split it yourself (a dataset, for example, "
            "with take and skip), and give the second part as validation_data."
        )
    arrays = tuple(leaves_of(x, y, sample_weight).values())
    num_samples = next((leaf.num_rows for leaf in keras.tree.flatten(arrays) if isinstance(leaf, Leaf)), 0)
    cut = int(num_samples * (1.0 - fraction))  # as Keras rounds it
    if cut in (0, num_samples):
        raise DataError(
            f"validation_split={fraction} of {num_samples} samples leaves one of the two parts empty. "
            "Give more samples or another fraction."
        )

    def part(begin: int, end: int) -> Any:
        return keras.tree.map_structure(lambda leaf: None if leaf is None else leaf.part(begin, end), arrays)

    return part(0, cut), part(cut, num_samples)

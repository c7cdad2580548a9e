"""What a batch that Python made is: of which arrays, in which structure, and like the batches before it.

```python
batch = to_batch((np.zeros((2, 1)), np.array([0, 1])))
spec_of([batch])  # (TensorSpec((None, 1), float32), TensorSpec((None,), int64))
```
"""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engine.data.leaves import tensor_dtype, to_batch_leaf
from engine.errors import DataError

BATCHES_FOR_SPEC = 2  # as in Keras: an axis that differs between them may have any length


def to_batch(batch: Any) -> Any:
    """A batch as a user's code made it, as (x,), (x, y), (x, y, sample_weight) or x alone, of arrays.

    Raises:
        DataError: It has more parts, or a part holds no array.
    """
    batch = tuple(batch) if isinstance(batch, list) else batch
    if isinstance(batch, tuple) and not 1 <= len(batch) <= 3:
        raise DataError(
            f"A batch is a tuple of {len(batch)}, where (inputs,), (inputs, targets) or (inputs, targets, "
            "sample_weights) was expected. Several inputs go into a tuple or dict of their own."
        )
    names = ("x", "y", "sample_weight") if isinstance(batch, tuple) else ("x",)
    parts = [_arrays(*pair) for pair in zip(names, batch if isinstance(batch, tuple) else (batch,), strict=False)]
    return tuple(parts) if isinstance(batch, tuple) else parts[0]


def targets_of(batch: Any) -> Any:
    """The targets of a batch as `to_batch` gives it, a nest of NumPy arrays; None for those that are ragged."""
    _, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
    return keras.tree.map_structure(lambda leaf: leaf if isinstance(leaf, np.ndarray) else None, y)


def spec_of(batches: Sequence[Any]) -> Any:
    """What batches like these look like: the batch axis, and every axis in which they differ, are None.

    Raises:
        DataError: There is no batch, or they are not of one structure, rank and dtype.
    """
    if not batches:
        raise DataError("The data is empty: it gave no batch. Give at least one.")
    first, *others = [keras.tree.map_structure(_leaf_spec, batch) for batch in batches]
    for other in others:
        _check_structure(1, first, other)
        first = keras.tree.map_structure(_common, first, other)
    return first


def _arrays(name: str, part: Any) -> Any:
    leaves = keras.tree.map_structure(lambda leaf: None if leaf is None else to_batch_leaf(name, leaf), part)
    if name == "x" and all(leaf is None for leaf in keras.tree.flatten(leaves)):
        raise DataError("x holds no array: every leaf of it is None.")
    return keras.tree.lists_to_tuples(leaves)


def _leaf_spec(leaf: Any) -> Any:
    if leaf is None:
        return None
    if isinstance(leaf, np.ndarray):
        return tf.TensorSpec((None, *leaf.shape[1:]), tensor_dtype(leaf.dtype))
    spec = tf.type_spec_from_value(leaf)
    return _with_shape(spec, (None, *spec.shape[1:]))


def _common(first: Any, second: Any) -> Any:
    if first is None:
        return None
    if type(first) is not type(second) or first.dtype != second.dtype or len(first.shape) != len(second.shape):
        raise DataError(
            f"The first two batches have parts of {first} and {second}. Give every batch the same rank and dtype."
        )
    lengths = (left if left == right else None for left, right in zip(first.shape, second.shape, strict=True))
    return _with_shape(first, tuple(lengths))


def _with_shape(spec: Any, shape: tuple[int | None, ...]) -> Any:
    if isinstance(spec, tf.RaggedTensorSpec):
        return tf.RaggedTensorSpec(shape, spec.dtype, spec.ragged_rank, spec.row_splits_dtype)
    return type(spec)(shape, spec.dtype)


def fitting(number: int, batch: Any, spec: Any) -> Iterator[Any]:
    """The leaves of a batch that are not None, found to be what the compiled loop was made for."""
    _check_structure(number, spec, batch)
    for expected, leaf in zip(keras.tree.flatten(spec), keras.tree.flatten(batch), strict=True):
        if expected is None:
            continue
        if not expected.shape.is_compatible_with(leaf.shape):
            raise DataError(
                f"Batch {number} has a part of shape {tuple(leaf.shape)}, where {tuple(expected.shape)} was expected. "
                "An axis may differ from batch to batch if it differs in the first two of them; or give a "
                "tf.data.Dataset, whose element_spec says so."
            )
        given = _leaf_spec(leaf)
        if (type(given), given.dtype) != (type(expected), expected.dtype):
            raise DataError(
                f"Batch {number} has a part of dtype {_shown(given)}, where {_shown(expected)} was expected, as in the "
                "first batches. Give every batch the same kind and dtype."
            )
        yield leaf


def _shown(spec: Any) -> str:
    kind = {tf.RaggedTensorSpec: " (ragged)", tf.SparseTensorSpec: " (sparse)"}.get(type(spec), "")
    return f"{spec.dtype.name}{kind}"


def _check_structure(number: int, expected: Any, given: Any) -> None:
    shown = [keras.tree.map_structure(lambda leaf: "-" if leaf is None else "*", batch) for batch in (expected, given)]
    if shown[0] != shown[1]:
        raise DataError(
            f"Batch {number} has the structure {shown[1]}, where {shown[0]} was expected, that of the first ('-' "
            "stands for None). Give every batch the same one."
        )

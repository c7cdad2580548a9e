"""How the entries of an array are distributed."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.histogram import metadata

_BUCKETS = 30  # as many as tf.summary.histogram makes


def histogram(tag: str, array: Any) -> Summary.Value:
    """The distribution of an array's finite entries, as `tf.summary.histogram` makes it.

    TensorBoard's own `histogram_pb` would make a table of 30 bytes for every entry, and fails at the first NaN.

    Args:
        tag: What it is shown as.
        array: Numbers, of any shape.
    """
    from tensorboard.util import tensor_util  # here: 25 ms that only who writes needs

    buckets = _buckets(np.asarray(array).astype(np.float64).ravel())
    kind = metadata.create_summary_metadata(display_name=None, description=None)
    return Summary.Value(tag=tag, metadata=kind, tensor=tensor_util.make_tensor_proto(buckets, dtype=np.float64))


def unique(names: Iterable[str]) -> list[str]:
    """The names, a number behind those that were there before: two layers may have one path."""
    taken: dict[str, int] = {}
    found = []
    for name in names:
        count = taken[name] = taken.get(name, -1) + 1
        found.append(f"{name}_{count}" if count else name)
    return found


def _buckets(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of (left edge, right edge, count); (0, 3) if there is no finite value."""
    values = values[np.isfinite(values)]
    if not len(values):
        return np.zeros((0, 3))
    low, high = values.min(), values.max()
    if low == high:
        return np.array([[low - 0.5, high + 0.5, len(values)]])
    places = np.minimum((values - low) * (_BUCKETS / (high - low)), _BUCKETS - 1).astype(int)
    edges = np.linspace(low, high, _BUCKETS + 1)
    return np.column_stack([edges[:-1], edges[1:], np.bincount(places, minlength=_BUCKETS)])

"""Batches that Python code makes, brought into the compiled loop.

A `Feed` asks for them ahead of the loop, in a thread of `tf.data`. An error in the user's code ends the
data and is kept, so that the steps before it count and the error itself, not TensorFlow's words about it,
comes out of `fit`.

```python
feed = Feed(lambda: iter(batches), spec_of(batches[:2]))
walk = feed.open()
```
"""

import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engine.data.datasets import DatasetPass, without_autotune
from engine.data.leaves import tensor_dtype, to_batch_leaf
from engine.data.source import Pass
from engine.errors import DataError

BATCHES_FOR_SPEC = 2  # as in Keras: an axis that differs between them may have any length
_BATCHES_AHEAD = 2


class Pipelines:
    """One `tf.data` pipeline for batches of each kind, used again by every pass over such batches.

    TensorFlow keeps some 30 KB of every `from_generator`, and all that it calls, for the life of the process: made anew
    for each pass, they would pile up, the user's data with them.
    """

    def __init__(self) -> None:
        self._kept: dict[Any, tf.data.Dataset] = {}
        self._starting: Callable[[], Iterable[tuple[Any, ...]] | None] = lambda: None

    def of(self, spec: Any) -> tf.data.Dataset:
        """The pipeline of batches like `spec`, whose iterators each read what was started last."""
        key = tuple((path, leaf) for path, leaf in keras.tree.flatten_with_path(spec))
        if key not in self._kept:
            leaf_specs = tuple(leaf for _, leaf in key if leaf is not None)
            own = weakref.ref(self)
            flat = tf.data.Dataset.from_generator(lambda: _begin(own()), output_signature=leaf_specs)
            packed = flat.map(lambda *leaves: _packed(spec, leaves)).prefetch(_BATCHES_AHEAD)
            self._kept[key] = without_autotune(packed)
        return self._kept[key]

    def start(self, batches: Iterable[tuple[Any, ...]]) -> None:
        """Lets the iterator that is asked for its first batch next read these."""
        self._starting = weakref.ref(batches)

    def begin(self) -> Iterator[tuple[Any, ...]]:
        """Called by TensorFlow for each iterator, when it is asked for its first batch."""
        batches = self._starting()
        return iter(() if batches is None else batches)


class Feed:
    """Batches of Python, as passes of which each begins them anew.

    Args:
        batches: Begins the batches, each as `to_batch` makes it; called when the first of them is wanted.
        spec: What each batch looks like.
        pipelines: Those of earlier feeds, to be used again.
    """

    def __init__(self, batches: Callable[[], Iterator[Any]], spec: Any, pipelines: Pipelines | None = None) -> None:
        self._batches, self._spec = batches, spec
        self._pipelines = Pipelines() if pipelines is None else pipelines

    def open(self) -> "FeedPass":
        """A pass over the batches, each dealt to the replicas where there are several.

        Raises:
            DataError: Several replicas, and parts that are None.
        """
        has_replicas = tf.distribute.get_strategy().num_replicas_in_sync > 1
        if has_replicas and None in keras.tree.flatten(self._spec):
            raise DataError("A part of each batch is None, which tf.distribute cannot deal to replicas. Give arrays.")
        # What deals to replicas may ask for a batch before it is asked for one, and so gets a pipeline of its own.
        return FeedPass(self._batches, self._spec, Pipelines() if has_replicas else self._pipelines)


class FeedPass(Pass):
    """One walk over batches of Python; when nobody holds it any more, their making ends."""

    def __init__(self, batches: Callable[[], Iterator[Any]], spec: Any, pipelines: Pipelines) -> None:
        self._making, self._pipelines = _Making(batches, spec), pipelines
        weakref.finalize(self, self._making.close)
        pipelines.start(self._making)
        self._walk = DatasetPass.over(pipelines.of(spec))

    pull = staticmethod(DatasetPass.pull)  # the same function, so that nothing is traced twice

    def cursor(self, position: int) -> Any:
        """The iterator."""
        self._pipelines.start(self._making)
        return self._walk.cursor(position)

    def signature(self) -> Any:
        """The iterator, which is its own spec."""
        return self._walk.signature()

    def take(self, position: int) -> Any:
        """The next batch, or None at the end of the data."""
        self._pipelines.start(self._making)
        return self._walk.take(position)

    def raise_error(self) -> None:
        """Raises what the user's own code raised."""
        if self._making.error is not None:
            raise self._making.error


class _Making:
    """The making of batches: in a thread of TensorFlow, which holds it longer than anybody needs it.

    Args:
        begin: Begins the batches.
        spec: What each looks like.
    """

    def __init__(self, begin: Callable[[], Iterator[Any]], spec: Any) -> None:
        self.error: BaseException | None = None
        self._begin = begin
        self._is_closed = False
        self._batches: Iterator[Any] | None = None
        self._spec = spec
        self._number = -1
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """The leaves of each batch that are not None, up to the last, or to an error."""
        while (leaves := self._next()) is not None:
            yield leaves

    def close(self) -> None:
        """Lets go of the user's code: at once, or as soon as the batch that is being made is done."""
        self._is_closed = True
        if self._lock.acquire(blocking=False):
            batches, self._batches, self._begin = self._batches, None, _nothing
            self._lock.release()
            if isinstance(batches, Generator):  # an iterator of the user's own goes on elsewhere
                batches.close()

    def _next(self) -> tuple[Any, ...] | None:
        try:
            with self._lock:
                if self._is_closed:
                    return None
                if self._batches is None:
                    self._batches = self._begin()
                self._number += 1
                leaves = tuple(_fitting(self._number, next(self._batches), self._spec))
        except StopIteration:
            return None
        except BaseException as error:
            self.error = error
            return None
        self._close_if_wanted()
        return leaves

    def _close_if_wanted(self) -> None:
        if self._is_closed:  # while the batch was being made
            self.close()


def _nothing() -> Iterator[Any]:
    return iter(())


def _begin(pipelines: Pipelines | None) -> Iterator[tuple[Any, ...]]:
    return iter(()) if pipelines is None else pipelines.begin()


def _packed(spec: Any, leaves: tuple[Any, ...]) -> Any:
    following = iter(leaves)
    return keras.tree.map_structure(lambda leaf: None if leaf is None else next(following), spec)


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


def _fitting(number: int, batch: Any, spec: Any) -> Iterator[Any]:
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

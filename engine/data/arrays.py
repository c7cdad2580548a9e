"""Arrays in memory: resident on the device and gathered inside the compiled loop.

An epoch needs no pipeline at all, only its order (one permutation of the samples); a batch is a slice
of the order and a gather. Nothing is built, warmed up or torn down at an epoch's end.

Arrays too large to keep a second copy of are read from where they are, through a small `tf.data`
pipeline without autotuning (`docs/design/decisions.md`: its shutdown can stall an epoch's end).
"""

import functools
from collections.abc import Callable
from typing import Any

import attrs
import keras
import numpy as np
import tensorflow as tf

from engine.data.datasets import DatasetPass, without_autotune
from engine.data.order import Indices, order, order_of_batches
from engine.data.source import Pass, Source
from engine.errors import ConfigError, DataError

RESIDENT_BYTES = 1 << 30  # copying up to this much to the device is cheaper than streaming it every epoch


@attrs.define(eq=False)
class ArraySource(Source):
    """A nest of arrays with samples along the first axis.

    Attributes:
        arrays: The batch's structure, `x`, `(x, y)` or `(x, y, sample_weight)`, of NumPy arrays.
        num_samples: Rows of every array.
        batch_size: Samples in a batch; the last of a pass may be smaller.
        shuffle: False, True or "batch".
        seed: With a pass's number, it decides the order.
    """

    arrays: Any
    num_samples: int
    batch_size: int
    shuffle: bool | str
    seed: int

    @classmethod
    def of(
        cls, x: Any, y: Any, sample_weight: Any, *, batch_size: int, shuffle: bool | str, seed: int
    ) -> "ArraySource":
        """Opens arrays as they come from a user, checked and cast as Keras casts them.

        Raises:
            DataError: No samples, or arrays of different lengths.
            ConfigError: `batch_size` or `shuffle` is none of those possible.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise ConfigError(f"batch_size={batch_size!r}: expected a whole number of samples, at least 1.")
        if shuffle not in (True, False, "batch"):
            raise ConfigError(f"shuffle={shuffle!r}: expected True, False or 'batch'.")
        if y is None and sample_weight is not None:
            raise ConfigError(
                "sample_weight was given without y: there is no loss of a sample for it to weigh. Give y."
            )
        named = {"x": x, "y": y, "sample_weight": sample_weight}
        named = {name: to_arrays(name, value) for name, value in named.items()}
        arrays = keras.utils.pack_x_y_sample_weight(**named)
        source = cls(arrays, _common_length(named), int(batch_size), shuffle, seed)
        source.targets = named["y"]
        return source

    @property
    def length(self) -> int:  # type: ignore[override]
        """Batches in a pass, the ragged last one counted."""
        return -(-self.num_samples // self.batch_size)

    @property
    def smallest_batch(self) -> int:  # type: ignore[override]
        """Samples in the last batch of a pass."""
        return self.num_samples % self.batch_size or self.batch_size

    @property
    def spec(self) -> Any:
        """One batch as nested `tf.TensorSpec`."""
        return _map(lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), self.arrays)

    @functools.cached_property
    def resident(self) -> Any:
        """The arrays as tensors on the device."""
        return _map(tf.convert_to_tensor, self.arrays)

    def open(self, index: int) -> Pass:
        """The pass in the order that (seed, index) decides."""
        rows = self.order(index)
        if sum(array.nbytes for array in keras.tree.flatten(self.arrays) if array is not None) > RESIDENT_BYTES:
            rows = np.arange(self.num_samples) if rows is None else rows
            return DatasetPass.over(streamed(self.arrays, rows, self.batch_size, self.spec))
        return ArrayPass(self.resident, None if rows is None else tf.constant(rows), self.batch_size, self.length)

    def order(self, index: int) -> Indices | None:
        """The sample numbers of pass `index`, in the order of their use; None: as they stand."""
        if self.shuffle == "batch":
            return order_of_batches(self.seed, index, self.num_samples, self.batch_size)
        return order(self.seed, index, self.num_samples) if self.shuffle else None


@attrs.define(eq=False)
class ArrayPass(Pass):
    """One walk over arrays on the device.

    Attributes:
        arrays: The batch's structure, of tensors.
        order: Sample numbers in the order of their use, int64, (samples,); None: as they stand.
        batch_size: Samples in a batch.
        length: Batches in the pass.
    """

    arrays: Any
    order: tf.Tensor | None
    batch_size: int
    length: int

    @staticmethod
    def pull(cursor: Any, index: tf.Tensor) -> Any:
        """Batch `index` after the cursor's, dealt to the replicas."""
        arrays, order, first, batch_size = cursor
        leaves = [leaf for leaf in keras.tree.flatten(arrays) if leaf is not None]
        begin = (first + index) * batch_size
        end = tf.minimum(begin + batch_size, tf.shape(leaves[0], tf.int64)[0])

        def pick(begin: tf.Tensor, end: tf.Tensor) -> list[tf.Tensor]:
            if order is None:
                return [leaf[begin:end] for leaf in leaves]
            return [tf.gather(leaf, order[begin:end]) for leaf in leaves]

        picked = iter(_deal(pick, begin, end))
        return _map(lambda _: next(picked), arrays)

    def cursor(self, position: int) -> Any:
        """The arrays, their order, the number of the next batch, and the batch size."""
        return (
            self.arrays,
            self.order,
            tf.constant(position, tf.int64),
            tf.constant(self.batch_size, tf.int64),
        )

    def signature(self) -> Any:
        """The cursor's specs, the number of samples left open."""
        number = tf.TensorSpec((), tf.int64)
        order = None if self.order is None else tf.TensorSpec((None,), tf.int64)
        return (
            _map(lambda leaf: tf.TensorSpec((None, *leaf.shape[1:]), leaf.dtype), self.arrays),
            order,
            number,
            number,
        )

    def take(self, position: int) -> Any:
        """The batch at `position`, or None behind the last one."""
        return self.pull(self.cursor(position), tf.constant(0, tf.int64)) if position < self.length else None


def streamed(arrays: Any, rows: Indices, batch_size: int, spec: Any) -> tf.data.Dataset:
    """Batches of `arrays` in the order `rows`, each read when its turn has almost come."""
    leaves = [leaf for leaf in keras.tree.flatten(arrays) if leaf is not None]
    specs = [leaf for leaf in keras.tree.flatten(spec) if leaf is not None]

    def read(batch: tf.Tensor) -> Any:
        picked = tf.numpy_function(
            lambda chosen: [leaf[chosen] for leaf in leaves], [batch], [leaf.dtype for leaf in specs]
        )
        shaped = iter([tf.ensure_shape(leaf, expected.shape) for leaf, expected in zip(picked, specs, strict=True)])
        return _map(lambda _: next(shaped), spec)

    return without_autotune(tf.data.Dataset.from_tensor_slices(rows).batch(batch_size).map(read).prefetch(2))


def _deal(pick: Callable[[Any, Any], list[tf.Tensor]], begin: tf.Tensor, end: tf.Tensor) -> Any:
    """The rows `begin` to `end`: as they are, or in nearly equal shares, one a replica."""
    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return pick(begin, end)

    def share(context: tf.distribute.ReplicaContext) -> tuple[tf.Tensor, ...]:
        replica, rows = context.replica_id_in_sync_group, end - begin
        return tuple(pick(begin + rows * replica // replicas, begin + rows * (replica + 1) // replicas))

    return strategy.experimental_distribute_values_from_function(share)


def to_arrays(name: str, value: Any) -> Any:
    """The leaves as NumPy arrays, floats as Keras's floatx, lists as tuples; None stays None."""

    def convert(leaf: Any) -> Any:
        if leaf is None:
            return None
        array = np.asarray(leaf)
        if array.ndim == 0 or array.dtype == object:
            raise DataError(
                f"{name} holds {type(leaf).__name__} {str(leaf)[:60]!r}, where an array was expected with samples "
                f"along its first axis. A list of numbers becomes one by np.array({name}), and a generator of batches "
                "a dataset by tf.data.Dataset.from_generator."
            )
        return array.astype(keras.config.floatx(), copy=False) if array.dtype.kind == "f" else array

    return keras.tree.lists_to_tuples(_map(convert, value))


def _common_length(named: dict[str, Any]) -> int:
    lengths = {
        f"{name}{list(path) if path else ''}": len(leaf)
        for name, value in named.items()
        for path, leaf in keras.tree.flatten_with_path(value)
        if leaf is not None
    }
    if not lengths:
        raise DataError("x holds no array: every leaf is None.")
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise DataError(f"The arrays have different numbers of samples ({listed}). Give as many of each.")
    num_samples = next(iter(lengths.values()))
    if num_samples == 0:
        raise DataError("The data is empty: the arrays have 0 samples. Give at least one.")
    return num_samples


def _map(function: Callable[[Any], Any], structure: Any) -> Any:
    """`function` on every leaf but None."""
    return keras.tree.map_structure(lambda leaf: None if leaf is None else function(leaf), structure)

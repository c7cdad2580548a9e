"""A pass over arrays: gathered in the graph from where they lie on the device, or in chunks by the host beside it."""

from collections.abc import Callable
from typing import Any, ClassVar

import attrs
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from engine.data.chunks import Chunks, Spares
from engine.data.leaves import Dense, map_leaves
from engine.data.order import Indices
from engine.data.resident import can_share
from engine.data.rows import gather_rows, slice_rows
from engine.data.source import Alike, Pass


@attrs.define(eq=False)
class ArrayPass(Pass):
    """One walk over arrays.

    Attributes:
        leaves: The batch's structure, of `Leaf`.
        order: Sample numbers in the order of their use, (samples,); None: as they stand.
        batch_size: Samples in a batch; the last may be smaller.
        num_samples: Samples in the pass.
        resident: Gives what `Leaf.resident` does for all leaves, copying them when it is first called.
        spares: Memory for chunks.
    """

    leaves: Any
    order: Indices | None
    batch_size: int
    num_samples: int
    resident: Callable[[], Any]
    spares: Spares
    is_certain: ClassVar[bool] = True
    _order_on_device: tf.Tensor | None = attrs.field(init=False, default=None)
    _sizes: tuple[tf.Tensor, tf.Tensor] = attrs.field(init=False)
    _chunks: Chunks | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._sizes = tf.constant(self.batch_size, tf.int64), tf.constant(self.num_samples, tf.int64)
        if self.order is not None:
            self._order_on_device = tf.constant(self.order)

    @staticmethod
    def pull(cursor: Any, index: tf.Tensor) -> Any:
        """Batch `index` after the cursor's, dealt to the replicas."""
        arrays, order, first, batch_size, num_samples = cursor
        leaves = [leaf for leaf in keras.tree.flatten(arrays) if leaf is not None]
        begin = (first + index) * batch_size
        end = tf.minimum(begin + batch_size, num_samples)

        def pick(begin: tf.Tensor, end: tf.Tensor) -> list[tf.Tensor]:
            if order is None:
                return [slice_rows(leaf, begin, end) for leaf in leaves]
            return [gather_rows(leaf, order[begin:end]) for leaf in leaves]

        picked = iter(_deal(pick, begin, end))
        return map_leaves(lambda _: next(picked), arrays)

    def cursor(self, position: int) -> Any:
        """The arrays, their order, the number of the next batch, the batch size and the number of samples."""
        if self._chunks is not None and position >= self._num_whole:
            return self._alone(position)
        return (self.resident(), self._order_on_device, tf.constant(position, tf.int64), *self._sizes)

    def signature(self) -> Any:
        """The cursor's specs, the number of samples left open."""
        order = None if self.order is None else tf.TensorSpec((None,), tf.int64)
        return (map_leaves(lambda leaf: leaf.signature, self.leaves), order, *[tf.TensorSpec((), tf.int64)] * 3)

    def alike(self, position: int) -> Alike | None:
        """All but a smaller last one, or as many of them as are gathered, if they are dense and of numbers."""
        steps = self._num_whole - position
        leaves = [leaf for leaf in keras.tree.flatten(self.leaves) if leaf is not None]
        if steps < 1 or not all(isinstance(leaf, Dense) and leaf.spec.dtype != tf.string for leaf in leaves):
            return None
        if all(can_share(leaf.array.dtype) for leaf in leaves):
            return self._gathered([leaf.array for leaf in leaves], position)
        arrays, order, first, *_ = self.cursor(position)
        like = tf.zeros([self.batch_size, 0])  # whose length the graph knows
        signature = (*self.signature()[:3], tf.TensorSpec(like.shape, like.dtype))
        return Alike(pull_alike, (arrays, order, first, like), signature, steps)

    def take(self, position: int) -> Any:
        """The batch at `position`, or None behind the last one."""
        if position * self.batch_size >= self.num_samples:
            return None
        cursor = self.cursor(position) if self._chunks is None else self._alone(position)
        return self.pull(cursor, tf.constant(0, tf.int64))

    def peek(self, position: int) -> Any:
        """The same: nothing is used up here."""
        return self.take(position)

    @property
    def _num_whole(self) -> int:
        """Batches that are not smaller than the others."""
        return self.num_samples // self.batch_size

    def _gathered(self, arrays: list[NDArray[Any]], position: int) -> Alike:
        """The batches of a chunk from `position` on."""
        if self._chunks is None:
            self._chunks = Chunks(
                arrays, self.order, batch_size=self.batch_size, num_batches=self._num_whole, spares=self.spares
            )
        chunk = self._chunks.at(position)
        tensors = iter(chunk.tensors)
        parts = map_leaves(lambda _: next(tensors), self.leaves)
        specs = map_leaves(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), parts)
        first = tf.constant(position - chunk.begin, tf.int64)
        return Alike(pull_gathered, (parts, first), (specs, tf.TensorSpec((), tf.int64)), chunk.end - position)

    def _alone(self, position: int) -> Any:
        """A cursor with nothing but one batch, for which the arrays need not be copied to the device."""
        begin = position * self.batch_size
        numbers = np.arange(begin, min(begin + self.batch_size, self.num_samples))
        rows = numbers if self.order is None else self.order[numbers]
        arrays = map_leaves(lambda leaf: tf.convert_to_tensor(leaf.read(rows)), self.leaves)
        order = None if self.order is None else tf.range(len(rows), dtype=tf.int64)
        sizes = self._sizes[0], tf.constant(len(rows), tf.int64)
        return (arrays, order, tf.constant(0, tf.int64), *sizes)


def pull_alike(cursor: Any, index: tf.Tensor) -> Any:
    """Batch `index` after the cursor's, as many samples as its last part is long."""
    arrays, order, first, like = cursor
    # No slice: where one begins, XLA takes for a constant, and compiles a block anew for each.
    numbers = (first + index) * like.shape[0] + tf.range(like.shape[0], dtype=tf.int64)
    numbers = numbers if order is None else tf.gather(order, numbers)
    return map_leaves(lambda leaf: _of_any_size(tf.gather(leaf, numbers)), arrays)


def pull_gathered(cursor: Any, index: tf.Tensor) -> Any:
    """Batch `index` after the cursor's, of those that lie in a chunk."""
    parts, first = cursor
    return map_leaves(lambda part: _of_any_size(tf.gather(part, first + index)), parts)


def _of_any_size(rows: tf.Tensor) -> tf.Tensor:
    """The same, its length unknown: the step is one graph for batches of every length (decisions.md, 13)."""
    return tf.raw_ops.PlaceholderWithDefault(input=rows, shape=[None, *rows.shape[1:]])


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

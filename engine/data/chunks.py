"""Batches that NumPy gathers beside the compiled loop, many at a time: what a block that XLA compiles reads from.

XLA would gather on the core that it computes on, number after number. NumPy copies whole rows, on another core, while
steps run on the batches before; and the data is not held twice (docs/design/decisions.md, 30).

```python
chunks = Chunks([images, labels], order, batch_size=32, num_batches=1875, spares=Spares())
chunk = chunks.at(700)
chunk.tensors[0][700 - chunk.begin]  # the images of batch 700, (32, 28, 28)
```
"""

import math
import weakref
from collections.abc import Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import attrs
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from engine.data.order import Indices
from engine.data.resident import aligned, shared

_MOST_BYTES = 32 << 20
_MOST_BATCHES = 1024
_FIRST_BATCHES = 64  # the loop waits for the first chunk alone
_GROWTH = 4  # gathering 64 batches of 100 KB took 1.2 ms, the smallest model's steps on them 6


@attrs.define(eq=False)
class Chunk:
    """Some batches of a pass.

    Attributes:
        arrays: A leaf each, (batches that have room, batch size, ...).
        tensors: The same memory as tensors, which change with the arrays.
        begin: The first batch that lies here.
        end: The one behind the last.
    """

    arrays: list[NDArray[Any]]
    tensors: list[tf.Tensor] = attrs.field(init=False)
    begin: int = attrs.field(init=False, default=0)
    end: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self.tensors = [shared(array) for array in self.arrays]

    def fill(self, leaves: Sequence[NDArray[Any]], order: Indices | None, begin: int, end: int) -> "Chunk":
        """Gathers the batches from `begin` up to `end` of a pass in this order."""
        for leaf, array in zip(leaves, self.arrays, strict=True):
            rows = slice(begin * array.shape[1], end * array.shape[1])
            target = array[: end - begin].reshape(-1, *array.shape[2:])
            if order is None:
                np.copyto(target, leaf[rows])
            elif leaf.flags.c_contiguous:
                np.take(leaf, order[rows], axis=0, out=target, mode="clip")  # another mode copies twice
            else:
                np.copyto(target, leaf[order[rows]])  # here `take` would copy all of the leaf first
        self.begin, self.end = begin, end
        return self


class Spares:
    """Chunks that no pass holds any more, for the next pass over batches of the same kind."""

    def __init__(self) -> None:
        self._kind: Hashable = None
        self._chunks: list[Chunk] = []

    def take(self, kind: Hashable) -> Chunk | None:
        """One of this kind, with anything in it; those of other kinds are let go of."""
        if kind != self._kind:
            self._kind, self._chunks = kind, []
        return self._chunks.pop() if self._chunks else None

    def give_back(self, kind: Hashable, chunks: list[Chunk]) -> None:
        """Keeps chunks that nobody reads or writes any more."""
        if kind == self._kind:
            self._chunks += chunks


class Chunks:
    """All whole batches of a pass, in chunks of which one is gathered while steps run on the one before.

    Args:
        leaves: The arrays, samples along their first axes.
        order: Sample numbers in the order of their use; None: as they stand.
        batch_size: Samples in a batch.
        num_batches: Whole batches in the pass.
        spares: Of earlier passes.

    Attributes:
        shapes: Of a chunk's arrays, whatever the number of samples.
    """

    def __init__(
        self,
        leaves: Sequence[NDArray[Any]],
        order: Indices | None,
        *,
        batch_size: int,
        num_batches: int,
        spares: Spares,
    ) -> None:
        batch_bytes = batch_size * sum(leaf.itemsize * math.prod(leaf.shape[1:]) for leaf in leaves)
        self._room = max(1, min(_MOST_BYTES // max(1, batch_bytes), _MOST_BATCHES))
        self.shapes = [(self._room, batch_size, *leaf.shape[1:]) for leaf in leaves]
        self._leaves, self._order, self._num_batches, self._spares = leaves, order, num_batches, spares
        self._kind = tuple((shape, leaf.dtype) for shape, leaf in zip(self.shapes, leaves, strict=True))
        self._chunk: Chunk | None = None
        self._ahead: Future[Chunk] | None = None
        self._thread = ThreadPoolExecutor(1, "engine-gathering")
        self._own: list[Chunk] = []  # but for the one that is being filled: it is let go of with its thread
        weakref.finalize(self, spares.give_back, self._kind, self._own).atexit = False

    def at(self, position: int) -> Chunk:
        """The chunk with the batch at `position`; until the next call nothing else is written to it."""
        if self._chunk is None or not self._chunk.begin <= position < self._chunk.end:
            self._chunk = self._advance(position)
        return self._chunk

    def _advance(self, position: int) -> Chunk:
        """The chunk that begins with `position`. Has the one behind it gathered in the memory of the one before."""
        before, ahead, self._ahead = self._chunk, self._ahead, None
        chunk = self._spare() if ahead is None else ahead.result()
        self._own.append(chunk)
        if ahead is None or chunk.begin != position:
            chunk.fill(self._leaves, self._order, position, self._end(position, _FIRST_BATCHES))
        if chunk.end < self._num_batches:
            following = before or self._spare()
            if before is not None:
                self._own.remove(before)
            end = self._end(chunk.end, _GROWTH * (chunk.end - chunk.begin))
            self._ahead = self._thread.submit(following.fill, self._leaves, self._order, chunk.end, end)
        return chunk

    def _end(self, begin: int, size: int) -> int:
        """Where a chunk of `size` batches ends, or of fewer."""
        return min(begin + min(size, self._room), self._num_batches)

    def _spare(self) -> Chunk:
        spare = self._spares.take(self._kind)
        return spare or Chunk(
            [aligned(shape, leaf.dtype) for shape, leaf in zip(self.shapes, self._leaves, strict=True)]
        )

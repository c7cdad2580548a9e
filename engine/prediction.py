"""One prediction: every batch through the model, in blocks where that is possible, the outputs in one nest.

```text
run
├── on_predict_begin
├── blocks of steps, then replayed batch by batch        outputs whose rows are all of one shape
│   or on_predict_batch_begin ── step ── ..._end         other outputs, or a callback that acts on batches
└── on_predict_end
```
"""

import time
from typing import Any

import attrs
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from engine.cadence import Pace
from engine.data import Reader
from engine.errors import DataError
from engine.hooks import Hooks
from engine.loop import PredictLoop


@attrs.define(eq=False)
class Prediction:
    """What one call of `Trainer.predict` works with.

    Attributes:
        loop: The compiled predict step.
        hooks: Who is told.
        reader: Where the batches come from.
        pace: How long the next block is.
        steps: Batches to predict; None: all.
    """

    loop: PredictLoop
    hooks: Hooks
    reader: Reader
    pace: Pace
    steps: int | None
    _done: int = attrs.field(init=False, default=0)
    _outputs: list[Any] = attrs.field(init=False, factory=list)

    def run(self) -> Any:
        """The outputs of all samples, in the model's output structure: see `joined`."""
        model = self.hooks.model
        model.stop_predicting = False
        with self.hooks.span("predict"):
            self.reader.begin_epoch(0)
            run_next = self._run_one if self.hooks.acts("predict") or not self.loop.makes_blocks else self._run_block
            while not (self.reader.is_exhausted or self._done == self.steps):
                run_next()
                self.reader.raise_error()
                if model.stop_predicting:
                    break
            self.reader.end_epoch()
        if not self._outputs:
            raise DataError("The data to predict gave no batch. Give at least one.")
        structure = keras.tree.map_structure(lambda _: None, self._outputs[0])
        leaves = [list(parts) for parts in zip(*map(keras.tree.flatten, self._outputs), strict=True)]
        self._outputs.clear()  # or each part would be kept until all are joined
        return keras.tree.pack_sequence_as(structure, [joined(parts) for parts in leaves])

    def _run_block(self) -> None:
        left = None if self.steps is None else self.steps - self._done
        stop = 1 if self.hooks.model.stop_predicting else None  # from on_predict_begin: one batch, as in Keras
        steps = self.pace.steps_within(left, stop, self.reader.batches_left())
        walk, begin = self.reader.walk, time.perf_counter()
        sizes, outputs = self.loop.run(walk.pull, walk.cursor(self.reader.position), steps)
        seconds = time.perf_counter() - begin
        self.hooks.timings.add_block("predict", steps=len(sizes), seconds=seconds, waited_secs=None)
        self.pace = self.pace.after(steps=len(sizes), seconds=seconds)
        self.reader.advance(len(sizes), ended=len(sizes) < steps)
        if len(sizes):
            self._replay(sizes, outputs)
            self._keep(outputs, len(sizes))

    def _run_one(self) -> None:
        """One step between its two hooks; without a batch there is no hook either."""
        batch = self.reader.take()
        self.reader.advance(int(batch is not None), ended=batch is None)
        if batch is not None:
            self.hooks.batch_begin("predict", self._done)
            begin = time.perf_counter()
            outputs = self.loop.run_one(batch)
            seconds = time.perf_counter() - begin
            self.hooks.timings.add_block("predict", steps=1, seconds=seconds, waited_secs=None)
            self.hooks.batch_end("predict", self._done, {"outputs": _to_read(outputs)})
            self._keep(outputs, 1)

    def _keep(self, outputs: Any, steps: int) -> None:
        self._outputs.append(outputs)
        self._done += steps

    def _replay(self, sizes: Any, outputs: Any) -> None:
        if not self.hooks.listens("predict"):
            return
        for batch, (end, size) in enumerate(zip(np.cumsum(sizes), sizes, strict=True), self._done):
            of_batch = keras.tree.map_structure(lambda leaf, end=end, size=size: leaf[end - size : end], outputs)
            self.hooks.batch_begin("predict", batch)
            self.hooks.batch_end("predict", batch, {"outputs": _to_read(of_batch)})


def _to_read(outputs: Any) -> Any:
    """The outputs as a callback may see them: what it writes would be what `predict` returns."""

    def view(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            leaf = leaf.view()
            leaf.flags.writeable = False
        return leaf

    return keras.tree.map_structure(view, outputs)


def joined(parts: list[Any]) -> Any:
    """One output of several batches as one; the list is empty afterwards.

    Returns:
        A NumPy array; a ragged tensor where batches differ in another axis than the first, as in Keras; a
        ragged or sparse tensor where the model gives one.
    """
    if isinstance(parts[0], tf.SparseTensor):
        return tf.sparse.concat(0, list(parts))
    if isinstance(parts[0], tf.RaggedTensor):
        return tf.concat(list(parts), 0)
    if np.ndim(parts[0]) == 0:
        return np.stack(parts)
    lengths = np.array([part.shape[1:] for part in parts])
    is_ragged = (lengths != lengths[0]).any(0)
    if not is_ragged.any():
        return _moved(parts)
    ragged_rank = int(np.flatnonzero(is_ragged)[-1]) + 1
    return tf.concat([tf.RaggedTensor.from_tensor(part, ragged_rank=ragged_rank) for part in parts], 0)


def _moved(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """The parts one after the other; each is let go of as soon as it is written, so that nothing is held twice."""
    result = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
    end = len(result)
    while parts:
        part = parts.pop()
        result[end - len(part) : end] = part
        end -= len(part)
    return result

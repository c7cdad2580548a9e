"""One prediction: every batch through the model, in blocks, the outputs in one nest of arrays."""

import time
from typing import Any

import attrs
import keras
import numpy as np

from engine.cadence import Pace
from engine.data import Reader, given_batch
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

    def run(self) -> Any:
        """The outputs of all samples, in the model's output structure, NumPy arrays."""
        model, blocks, done = self.hooks.model, [], 0
        model.stop_predicting = False
        self.hooks.call("on_predict_begin", {})
        while not (self.reader.is_exhausted or done == self.steps or model.stop_predicting):
            sizes, outputs = self._run_block(done)
            done += len(sizes)
            blocks += [outputs] if len(sizes) else []
        self.hooks.call("on_predict_end", {})
        if not blocks:
            raise DataError("The data to predict gave no batch. Give at least one.")
        return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *blocks)

    def _run_block(self, done: int) -> tuple[Any, Any]:
        if self.hooks.acts("predict"):
            return self._run_one(done)
        limit = None if self.steps is None else self.steps - done
        candidates = (self.pace.steps, limit, self.reader.batches_left())
        steps = min(n for n in candidates if n is not None)
        walk, begin = self.reader.walk, time.perf_counter()
        sizes, outputs = self.loop.run(walk.pull, walk.cursor(self.reader.position), steps)
        self.pace = self.pace.after(steps=len(sizes), seconds=time.perf_counter() - begin)
        self.reader.advance(len(sizes), ended=len(sizes) < steps)
        if len(sizes):
            self._replay(done, sizes, outputs)
        return sizes, outputs

    def _run_one(self, done: int) -> tuple[Any, Any]:
        """One step between its two hooks; without a batch there is no hook either."""
        batch = self.reader.take()
        self.reader.advance(int(batch is not None), ended=batch is None)
        if batch is None:
            return (), None
        self.hooks.batch_begin("predict", done)
        sizes, outputs = self.loop.run(given_batch, batch, 1)
        self.hooks.batch_end("predict", done, {"outputs": outputs})
        return sizes, outputs

    def _replay(self, first: int, sizes: Any, outputs: Any) -> None:
        if not self.hooks.listens("predict"):
            return
        for i, (end, size) in enumerate(zip(np.cumsum(sizes), sizes, strict=True)):
            of_batch = keras.tree.map_structure(lambda leaf, end=end, size=size: leaf[end - size : end], outputs)
            self.hooks.batch_begin("predict", first + i)
            self.hooks.batch_end("predict", first + i, {"outputs": of_batch})

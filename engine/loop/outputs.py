"""A step that returns outputs of every sample, repeated in the graph."""

from collections.abc import Callable
from typing import Any

import attrs
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from engine.loop.program import Batch, Program, Pull, compiled, concatenated, growing, repeat


@attrs.define(eq=False)
class PredictLoop:
    """A step that returns one row of outputs a sample, repeated in the graph.

    Attributes:
        step: Called on a batch in each replica; returns a nest of tensors, (batch, ...) each.
        strategy: Where the replicas are.
        jit_compile: Whether XLA compiles the step.
        run_eagerly: Whether steps run as plain Python, for debugging.
    """

    step: Callable[[Batch], Any]
    strategy: tf.distribute.Strategy = attrs.field(factory=tf.distribute.get_strategy, kw_only=True)
    jit_compile: bool = attrs.field(default=False, kw_only=True)
    run_eagerly: bool = attrs.field(default=False, kw_only=True)
    _structure: Any = attrs.field(init=False, default=None)
    _one: Callable[[Batch], list[tf.Tensor]] = attrs.field(init=False)
    _many: Program = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._one = compiled(self._run_one, eager=self.run_eagerly, jit_compile=self.jit_compile)
        self._many = Program(self._run_many, self.strategy, self.run_eagerly)

    def trace(self, pull: Pull, signature: Any) -> None:
        """Traces the loop before the first step, for every cursor that fits `signature`."""
        self._many.trace(pull, signature)

    def run(self, pull: Pull, cursor: Any, steps: int) -> tuple[NDArray[np.int64], Any]:
        """Runs up to `steps` steps.

        Returns:
            The samples of each step, int32, (steps,), and the outputs of them all, one nest of arrays; None of no step.
        """
        sizes, *outputs = self._many.run(pull, cursor, steps)
        arrays = [output.numpy() for output in outputs]  # waits for the device
        if not len(sizes):
            return sizes.numpy(), None
        return sizes.numpy(), keras.tree.pack_sequence_as(self._structure, arrays)

    def _run_many(self, pull: Pull, cursor: Any, steps: tf.Tensor) -> list[tf.Tensor]:
        if self.run_eagerly:
            return self._run_python(pull, cursor, int(steps))
        specs = self._output_specs(pull, cursor)
        sizes, *outputs = repeat(pull, cursor, steps, self._one, [growing(spec) for spec in specs])
        return [sizes.stack(), *(concatenated(*pair) for pair in zip(outputs, specs[1:], strict=True))]

    def _run_one(self, batch: Batch) -> list[tf.Tensor]:
        outputs = self.strategy.run(self.step, args=(batch,))
        self._structure = outputs
        parts = [tf.concat(self.strategy.experimental_local_results(leaf), 0) for leaf in keras.tree.flatten(outputs)]
        return [tf.shape(parts[0])[0], *parts]

    def _run_python(self, pull: Pull, cursor: Any, steps: int) -> list[tf.Tensor]:
        collected = []
        for index in range(steps):
            batch = pull(cursor, tf.constant(index, tf.int64))
            if isinstance(batch, tf.experimental.Optional):
                if not batch.has_value():
                    break
                batch = batch.get_value()
            collected.append(self._run_one(batch))
        if not collected:
            return [tf.zeros(0, tf.int32)]
        sizes, *outputs = zip(*collected, strict=True)
        return [tf.stack(sizes), *(tf.concat(parts, 0) for parts in outputs)]

    def _output_specs(self, pull: Pull, cursor: Any) -> list[tf.TensorSpec]:
        """What `_one` returns, found by tracing a function that never runs."""

        def first(cursor: Any) -> list[tf.Tensor]:
            batch = pull(cursor, tf.constant(0, tf.int64))
            return self._one(batch.get_value() if isinstance(batch, tf.experimental.Optional) else batch)

        specs: list[tf.TensorSpec] = (
            tf.function(first, autograph=False).get_concrete_function(cursor).structured_outputs
        )
        return specs

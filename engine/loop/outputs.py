"""A step that returns outputs of every sample, repeated in the graph."""

from collections.abc import Callable, Sequence
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
        makes_blocks: Whether `run` works: every output is dense, with rows of one shape; known once traced.
    """

    step: Callable[[Batch], Any]
    strategy: tf.distribute.Strategy = attrs.field(factory=tf.distribute.get_strategy, kw_only=True)
    jit_compile: bool = attrs.field(default=False, kw_only=True)
    run_eagerly: bool = attrs.field(default=False, kw_only=True)
    makes_blocks: bool = attrs.field(init=False, default=False)
    _structure: Any = attrs.field(init=False, default=None)
    _one: Callable[[Batch], list[Any]] = attrs.field(init=False)
    _many: Program = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._one = compiled(self._run_replicas, eager=self.run_eagerly, jit_compile=self.jit_compile)
        self._many = Program(self._run_many, self.strategy, self.run_eagerly)

    @property
    def num_traces(self) -> int:
        """How many graphs it has made: of blocks and of single steps."""
        return 0 if self.run_eagerly else self._many.num_traces + self._one.experimental_get_tracing_count()  # type: ignore[attr-defined]

    def trace(self, pull: Pull, signature: Any) -> None:
        """Traces the loop before the first step, for every cursor that fits `signature`."""
        if self.run_eagerly:
            return
        with self.strategy.scope():
            specs = self._output_specs(pull, signature)
        self.makes_blocks = all(
            isinstance(spec, tf.TensorSpec) and spec.shape.rank and spec.shape[1:].is_fully_defined() for spec in specs
        )
        if self.makes_blocks:
            self._many.trace(pull, signature)

    def run(self, pull: Pull, cursor: Any, steps: int) -> tuple[NDArray[np.int64], Any]:
        """Runs up to `steps` steps.

        Returns:
            The samples of each step, int32, (steps,), and the outputs of them all, one nest of arrays; None of no step.
        """
        sizes, *outputs = self._many.run(pull, cursor, steps)
        arrays = [output.numpy() for output in outputs]  # waits for the device
        return sizes.numpy(), self._nested(arrays) if len(sizes) else None

    def run_one(self, batch: Batch) -> Any:
        """Runs one step on a batch; outputs that are not dense stay ragged or sparse tensors."""
        with self.strategy.scope():
            leaves = self._one(batch)
        return self._nested([leaf.numpy() if isinstance(leaf, tf.Tensor) else leaf for leaf in leaves])

    def _run_many(self, pull: Pull, cursor: Any, steps: tf.Tensor) -> list[tf.Tensor]:
        specs = self._output_specs(pull, cursor)

        def one(batch: Batch, done: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
            leaves = self._one(batch)
            return [tf.shape(leaves[0])[0], *leaves], tf.constant(True)

        sizes_spec = tf.TensorSpec((), tf.int32)
        (sizes, *outputs), _ = repeat(pull, cursor, steps, one, [growing(spec) for spec in (sizes_spec, *specs)])
        return [sizes.stack(), *(concatenated(*pair) for pair in zip(outputs, specs, strict=True))]

    def _run_replicas(self, batch: Batch) -> list[Any]:
        """The leaves of the outputs, of all replicas together."""
        outputs = self.strategy.run(self.step, args=(batch,))
        self._structure = keras.tree.map_structure(lambda leaf: None, outputs)
        return [_of_all(self.strategy.experimental_local_results(leaf)) for leaf in keras.tree.flatten(outputs)]

    def _nested(self, leaves: Sequence[Any]) -> Any:
        return keras.tree.pack_sequence_as(self._structure, leaves)

    def _output_specs(self, pull: Pull, cursor: Any) -> list[tf.TypeSpec]:
        """What `_one` returns, found by tracing a function that never runs."""

        def first(cursor: Any) -> list[Any]:
            batch = pull(cursor, tf.constant(0, tf.int64))
            return self._one(batch.get_value() if isinstance(batch, tf.experimental.Optional) else batch)

        traced = tf.function(first, autograph=False).get_concrete_function(cursor)
        return [tf.type_spec_from_value(leaf) for leaf in traced.structured_outputs]


def _of_all(results: Sequence[Any]) -> Any:
    """One leaf of the outputs of every replica as one."""
    if len(results) == 1:
        return results[0]
    parts = list(results)
    return tf.sparse.concat(0, parts) if isinstance(parts[0], tf.SparseTensor) else tf.concat(parts, 0)

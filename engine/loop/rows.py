"""A step that returns scalars, repeated in the graph, and the rows that it brings back."""

from collections.abc import Callable
from typing import Any

import attrs
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from engine.errors import StepError
from engine.loop.program import Batch, Program, Pull, batch_size, compiled, concatenated, growing, repeat

Step = Callable[[Batch], dict[str, Any]]


@attrs.frozen(eq=False)
class Rows:
    """What a block of steps brought back.

    Attributes:
        names: What the columns are called.
        averaged: For each column, whether the logs average it.
        sizes: Samples of each step, int64, (steps,).
        values: float64, (steps, columns).
        weights: float64, (steps, columns); 1 where nothing is averaged.
    """

    names: tuple[str, ...]
    averaged: tuple[bool, ...]
    sizes: NDArray[np.int64]
    values: NDArray[np.float64]
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.sizes)


@attrs.define(eq=False)
class Loop:
    """A step that returns scalars, repeated in the graph.

    Attributes:
        step: Called on a batch in each replica; returns a flat dict of scalars as above.
        results: Called across replicas after each step; its scalars stand for the epoch so far.
        strategy: Where the replicas are.
        jit_compile: Whether XLA compiles the step.
        run_eagerly: Whether steps run as plain Python, for debugging.
        names: What the columns of its rows are called; known once traced.
        averaged: For each column, whether the logs average it.
        graph: The graph of one step; None before it is traced, or where it runs eagerly.
    """

    step: Step
    results: Callable[[], dict[str, tf.Tensor]] = dict
    strategy: tf.distribute.Strategy = attrs.field(factory=tf.distribute.get_strategy, kw_only=True)
    jit_compile: bool = attrs.field(default=False, kw_only=True)
    run_eagerly: bool = attrs.field(default=False, kw_only=True)
    names: tuple[str, ...] = attrs.field(init=False, default=())
    averaged: tuple[bool, ...] = attrs.field(init=False, default=())
    graph: tf.Graph | None = attrs.field(init=False, default=None)
    _one: Callable[[Batch], tf.Tensor] = attrs.field(init=False)
    _many: Program = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        # Collectives fail in a function inside the conditional of a loop (TensorFlow 2.21: "must feed a value for
        # placeholder"), so that under replicas the step is written straight into the loop.
        is_inlined = self.run_eagerly or self.strategy.num_replicas_in_sync > 1
        self._one = compiled(self._run_one, eager=is_inlined, jit_compile=self.jit_compile)
        self._many = Program(self._run_many, self.strategy, self.run_eagerly)

    def trace(self, pull: Pull, signature: Any) -> None:
        """Traces the loop before the first step, for every cursor that fits `signature`."""
        self._many.trace(pull, signature)

    def run(self, pull: Pull, cursor: Any, steps: int) -> Rows:
        """Runs up to `steps` steps, fewer where the data ends."""
        packed = self._many.run(pull, cursor, steps).numpy()  # waits for the device
        columns = len(self.names)
        values, weights = packed[:, 1 : 1 + columns], packed[:, 1 + columns :]
        sizes = packed[:, 0].astype(np.int64)
        return Rows(self.names, self.averaged, sizes, values.astype(np.float64), weights.astype(np.float64))

    def no_rows(self) -> Rows:
        """What no step at all brings back."""
        empty = np.zeros((0, len(self.names)))
        return Rows(self.names, self.averaged, np.zeros(0, np.int64), empty, empty)

    def _run_many(self, pull: Pull, cursor: Any, steps: tf.Tensor) -> tf.Tensor:
        spec = tf.TensorSpec([None], row_dtype())
        rows = growing(spec)
        (rows,) = repeat(pull, cursor, steps, lambda batch: [self._one(batch)], [rows])
        return tf.reshape(concatenated(rows, spec), [-1, 1 + 2 * len(self.names)])

    def _run_one(self, batch: Batch) -> tf.Tensor:
        layout: dict[str, bool] = {}
        packed = self.strategy.run(lambda share: self._run_replica(share, layout), args=(batch,))
        columns = len(layout)
        if self.strategy.num_replicas_in_sync > 1:
            packed = self.strategy.reduce(tf.distribute.ReduceOp.SUM, packed, axis=None)
            size, totals, weights = tf.split(packed, [1, columns, columns])
            packed = tf.concat([size, tf.math.divide_no_nan(totals, weights), weights], 0)
        results = _checked({name: tf.convert_to_tensor(value) for name, value in self.results().items()}, "A metric")
        standing = {name: tf.cast(value, packed.dtype) for name, value in sorted(results.items())}
        self.names = (*layout, *standing)
        self.averaged = (*layout.values(), *(False for _ in standing))
        if not self.run_eagerly:
            self.graph = tf.compat.v1.get_default_graph()
        if not standing:
            return packed
        head, weights = tf.split(packed, [1 + columns, columns])
        return tf.concat([head, list(standing.values()), weights, tf.ones(len(standing), packed.dtype)], 0)

    def _run_replica(self, batch: Batch, layout: dict[str, bool]) -> tf.Tensor:
        """One step packed as [size, a value a column, a weight a column]; values are totals if replicas add up."""
        size = tf.cast(batch_size(batch), row_dtype())
        values, weights = [], []
        for name, value in sorted(_checked(self.step(batch)).items()):
            scalar, weight = value if isinstance(value, tuple) else (value, size)
            layout[name] = weight is not None
            values.append(tf.cast(scalar, row_dtype()))
            weights.append(tf.ones((), row_dtype()) if weight is None else tf.cast(weight, row_dtype()))
        if self.strategy.num_replicas_in_sync > 1:
            values = [tf.math.multiply_no_nan(value, weight) for value, weight in zip(values, weights, strict=True)]
        return tf.stack([size, *values, *weights])


def row_dtype() -> tf.DType:
    """float32, or float64 where Keras is set to it."""
    return tf.float64 if keras.config.floatx() == "float64" else tf.float32


def _checked(values: Any, who: str = "A step") -> dict[str, Any]:
    """What a step or a metric returned, found to be what the loop can carry."""
    if not isinstance(values, dict):
        raise StepError(
            f"A step returned {type(values).__name__}, where a flat dict of scalar tensors was expected, "
            'such as {"loss": loss}.'
        )
    for name, value in values.items():
        scalar, *weights = value if isinstance(value, tuple) else (value,)
        if not isinstance(name, str) or len(weights) > 1 or not _is_scalar(scalar):
            given = _shown(value if len(weights) > 1 else scalar)
            raise StepError(
                f"{who} returned {name!r} with {given}, where a name and a scalar were expected, or a name and a "
                "pair of a scalar and its weight. Reduce it in the step, for example with tf.reduce_mean."
            )
    return values


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (int, float)) or (
        tf.is_tensor(value) and value.shape.rank == 0 and value.dtype != tf.string
    )


def _shown(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if tf.is_tensor(value) else f"{type(value).__name__} {str(value)[:60]!r}"

"""A step made into one compiled loop of many steps that hands back every step's values.

```text
Loop.run(walk, cursor, steps)              one call, whose length is a tensor: traced once
└── while done < steps and data is left
    ├── batch = walk.pull(cursor, done)    a gather, or an iterator's next element
    ├── strategy.run(step, batch)          forward, loss, gradients, update
    └── rows.write(done, values)           this step's values, packed into one vector
rows                                       one transfer for the whole block
```

A step returns a flat dict. What a value stands for follows from its form:

- a scalar: this step's value; logs average it over the epoch, weighted by samples;
- a pair (scalar, weight): the same, weighted as it says;
- a pair (scalar, None): it already stands for the epoch so far, and the last one counts.

```python
loop = Loop(task.train_step)
rows = loop.run(walk.pull, walk.cursor(0), steps=100)
rows.values["loss"]  # float64, (100,)
```
"""

from collections.abc import Callable
from typing import Any

import attrs
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from engine.errors import StepError

Batch = Any
Step = Callable[[Batch], dict[str, Any]]
Pull = Callable[[Any, tf.Tensor], Any]


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
    _many: Callable[..., tf.Tensor] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        # Collectives fail in a function inside the conditional of a loop (TensorFlow 2.21: "must feed a value for
        # placeholder"), so that under replicas the step is written straight into the loop.
        is_inlined = self.run_eagerly or self.strategy.num_replicas_in_sync > 1
        self._one = compiled(self._run_one, eager=is_inlined, jit_compile=self.jit_compile)
        self._many = compiled(self._run_many, eager=self.run_eagerly)

    def trace(self, pull: Pull, signature: Any) -> None:
        """Traces the loop before the first step, for every cursor that fits `signature`."""
        if not self.run_eagerly:
            with self.strategy.scope():
                self._many.get_concrete_function(pull, signature, tf.TensorSpec((), tf.int32))  # type: ignore[attr-defined]

    def run(self, pull: Pull, cursor: Any, steps: int) -> Rows:
        """Runs up to `steps` steps, fewer where the data ends."""
        with self.strategy.scope():
            packed = self._many(pull, cursor, tf.constant(steps, tf.int32)).numpy()  # waits for the device
        columns = len(self.names)
        values, weights = packed[:, 1 : 1 + columns], packed[:, 1 + columns :]
        sizes = packed[:, 0].astype(np.int64)
        return Rows(self.names, self.averaged, sizes, values.astype(np.float64), weights.astype(np.float64))

    def no_rows(self) -> Rows:
        """What no step at all brings back."""
        empty = np.zeros((0, len(self.names)))
        return Rows(self.names, self.averaged, np.zeros(0, np.int64), empty, empty)

    def _run_many(self, pull: Pull, cursor: Any, steps: tf.Tensor) -> tf.Tensor:
        rows = growing(tf.TensorSpec([None], row_dtype()))
        (rows,) = repeat(pull, cursor, steps, lambda batch: [self._one(batch)], [rows])
        return tf.reshape(rows.concat(), [-1, 1 + 2 * len(self.names)])  # stack() cannot make a block of no steps

    def _run_one(self, batch: Batch) -> tf.Tensor:
        layout: dict[str, bool] = {}
        packed = self.strategy.run(lambda share: self._run_replica(share, layout), args=(batch,))
        columns = len(layout)
        if self.strategy.num_replicas_in_sync > 1:
            packed = self.strategy.reduce(tf.distribute.ReduceOp.SUM, packed, axis=None)
            size, totals, weights = tf.split(packed, [1, columns, columns])
            packed = tf.concat([size, tf.math.divide_no_nan(totals, weights), weights], 0)
        standing = {name: tf.cast(value, packed.dtype) for name, value in sorted(self.results().items())}
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
    _many: Callable[..., list[tf.Tensor]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._one = compiled(self._run_one, eager=self.run_eagerly, jit_compile=self.jit_compile)
        self._many = compiled(self._run_many, eager=self.run_eagerly)

    def run(self, pull: Pull, cursor: Any, steps: int) -> tuple[NDArray[np.int64], Any]:
        """Runs up to `steps` steps.

        Returns:
            The samples of each step, int32, (steps,), and the outputs of them all, one nest of arrays; None of no step.
        """
        with self.strategy.scope():
            sizes, *outputs = self._many(pull, cursor, tf.constant(steps, tf.int32))
        arrays = [output.numpy() for output in outputs]  # waits for the device
        if not len(sizes):
            return sizes.numpy(), None
        return sizes.numpy(), keras.tree.pack_sequence_as(self._structure, arrays)

    def _run_many(self, pull: Pull, cursor: Any, steps: tf.Tensor) -> list[tf.Tensor]:
        if self.run_eagerly:
            return self._run_python(pull, cursor, int(steps))
        specs = self._output_specs(pull, cursor)
        sizes, *outputs = repeat(pull, cursor, steps, self._one, [growing(spec) for spec in specs])
        is_empty = tf.equal(sizes.size(), 0)
        return [sizes.stack(), *(_concatenated(*pair, is_empty) for pair in zip(outputs, specs[1:], strict=True))]

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


def repeat(
    pull: Pull,
    cursor: Any,
    steps: tf.Tensor,
    run: Callable[[Batch], list[tf.Tensor]],
    arrays: list[tf.TensorArray],
) -> list[tf.TensorArray]:
    """Runs batch after batch, up to `steps` of them, and writes what each gives into the arrays.

    The end of the data is a value that is looked at, never an exception: an `OutOfRangeError` that rises
    in here was measured to apply one update too many.
    """

    def advance(done: tf.Tensor, _: tf.Tensor, arrays: list[tf.TensorArray]) -> Any:
        def step(batch: Batch) -> Any:
            written = [array.write(done, value) for array, value in zip(arrays, run(batch), strict=True)]
            return done + 1, tf.constant(True), written

        batch = pull(cursor, tf.cast(done, tf.int64))
        if not isinstance(batch, tf.experimental.Optional):
            return step(batch)
        ended = (done, tf.constant(False), arrays)
        return tf.cond(batch.has_value(), lambda: step(batch.get_value()), lambda: ended)

    *_, arrays = tf.while_loop(
        lambda done, has_data, _: (done < steps) & has_data,
        advance,
        (tf.constant(0), tf.constant(True), arrays),
    )
    return list(arrays)


def growing(spec: tf.TensorSpec) -> tf.TensorArray:
    """An array that takes one tensor a step; growing was measured to cost nothing beside a fixed size."""
    return tf.TensorArray(spec.dtype, size=0, dynamic_size=True, infer_shape=False, element_shape=spec.shape)


def _concatenated(array: tf.TensorArray, spec: tf.TensorSpec, is_empty: tf.Tensor) -> tf.Tensor:
    """All that was written, along the first axis; of no steps, no rows (which concat() makes of known shapes only)."""
    none = tf.zeros([0, *(length or 0 for length in spec.shape[1:])], spec.dtype)
    return tf.cond(is_empty, lambda: none, array.concat)


def compiled(function: Callable[..., Any], *, eager: bool, jit_compile: bool = False) -> Callable[..., Any]:
    """The function as one graph, or as it is if it shall run eagerly."""
    if eager:
        return function
    traced: Callable[..., Any] = tf.function(function, autograph=False, reduce_retracing=True, jit_compile=jit_compile)
    return traced


def batch_size(batch: Batch) -> tf.Tensor:
    """Samples in a batch, int32: the length of its first leaf that is not None."""
    return tf.shape(next(leaf for leaf in keras.tree.flatten(batch) if leaf is not None))[0]


def row_dtype() -> tf.DType:
    """float32, or float64 where Keras is set to it."""
    return tf.float64 if keras.config.floatx() == "float64" else tf.float32


def _checked(values: Any) -> dict[str, Any]:
    """A step's return, found to be what the loop can carry."""
    if not isinstance(values, dict):
        raise StepError(
            f"A step returned {type(values).__name__}, where a flat dict of scalar tensors was expected, "
            'such as {"loss": loss}.'
        )
    for name, value in values.items():
        scalar = value[0] if isinstance(value, tuple) else value
        shape = getattr(scalar, "shape", ())
        if not isinstance(name, str) or tuple(shape) != ():
            raise StepError(
                f"A step returned {name!r} with shape {tuple(shape)}, where a name and a scalar were expected. "
                "Reduce it in the step, for example with tf.reduce_mean."
            )
    return values

"""Batch after batch in one graph: the part that every compiled loop shares."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from engine import replicas
from engine.loop.waiting import pull_timed

Batch = Any
Pull = Callable[[Any, tf.Tensor], Any]


class Program:
    """A function of (pull, cursor, steps, ...) as one graph in the scope of a strategy; as it is, if run eagerly."""

    def __init__(
        self,
        function: Callable[..., Any],
        strategy: tf.distribute.Strategy,
        run_eagerly: bool,
        *,
        jit_compile: bool = False,
    ) -> None:
        self._function = compiled(function, eager=run_eagerly, jit_compile=jit_compile)
        self._strategy = strategy
        self._is_traceable = not run_eagerly

    @property
    def num_traces(self) -> int:
        """How many graphs it has made."""
        return self._function.experimental_get_tracing_count() if self._is_traceable else 0  # type: ignore[attr-defined]

    def trace(self, pull: Pull, signature: Any, *others: tf.TensorSpec) -> None:
        """Makes the one graph that every cursor of this signature will use, whatever the number of steps."""
        if self._is_traceable:
            with self._strategy.scope():
                self._function.get_concrete_function(pull, signature, tf.TensorSpec((), tf.int32), *others)  # type: ignore[attr-defined]

    def run(self, pull: Pull, cursor: Any, steps: int, *others: tf.Tensor) -> Any:
        """Runs up to `steps` steps."""
        with self._strategy.scope():
            return self._function(pull, cursor, tf.constant(steps, tf.int32), *others)


def repeat(
    pull: Pull,
    cursor: Any,
    steps: tf.Tensor,
    run: Callable[[Batch, tf.Tensor], tuple[list[tf.Tensor], tf.Tensor]],
    arrays: list[tf.TensorArray],
    *,
    is_timed: bool = False,
) -> tuple[list[tf.TensorArray], list[tf.Tensor]]:
    """Runs batch after batch, up to `steps` of them, and writes what each gives into the arrays.

    `run` takes a batch and its number in the block, and returns what to write and whether to go on.

    Returns:
        The arrays; and the seconds that were waited for data, float64, in a list that is empty unless `is_timed`.

    The end of the data is a value that is looked at, never an exception: an `OutOfRangeError` that rises
    in here was measured to apply one update too many.
    """

    def advance(done: tf.Tensor, _: tf.Tensor, arrays: list[tf.TensorArray], waited: list[tf.Tensor]) -> Any:
        def step(batch: Batch) -> Any:
            values, goes_on = run(batch, done)
            written = [array.write(done, value) for array, value in zip(arrays, values, strict=True)]
            return done + 1, goes_on, written

        index = tf.cast(done, tf.int64)
        if waited:
            batch, is_there, seconds = pull_timed(pull, cursor, index)
            waited = [waited[0] + seconds]
        else:
            batch = pull(cursor, index)
            if not isinstance(batch, tf.experimental.Optional):
                return *step(batch), waited
            is_there = batch.has_value()
        ended = (done, tf.constant(False), arrays)
        return *tf.cond(is_there, lambda: step(batch.get_value()), lambda: ended), waited

    # A step begins before the last one is over, if nothing that it needs is missing. What replicas tell each other for
    # the logs alone, nobody waits for: the value of one replica's step would meet that of another one's next step.
    in_flight = 10 if replicas.number() == 1 else 1
    waited = [tf.constant(0.0, tf.float64)] if is_timed else []
    *_, arrays, waited = tf.while_loop(
        lambda done, goes_on, *_: (done < steps) & goes_on,
        advance,
        (tf.constant(0), tf.constant(True), arrays, waited),
        parallel_iterations=in_flight,
    )
    return list(arrays), list(waited)


def growing(spec: tf.TensorSpec) -> tf.TensorArray:
    """An array that takes one tensor a step; growing was measured to cost nothing beside a fixed size."""
    return tf.TensorArray(spec.dtype, size=0, dynamic_size=True, infer_shape=False, element_shape=spec.shape)


def concatenated(array: tf.TensorArray, spec: tf.TensorSpec) -> tf.Tensor:
    """All that was written, along the first axis; of no steps, no rows (which concat() makes of known shapes only)."""
    none = tf.zeros([0, *(length or 0 for length in spec.shape[1:])], spec.dtype)
    return tf.cond(tf.equal(array.size(), 0), lambda: none, array.concat)


def compiled(function: Callable[..., Any], *, eager: bool, jit_compile: bool = False) -> Callable[..., Any]:
    """The function as one graph, or as it is if it shall run eagerly."""
    if eager:
        return function
    traced: Callable[..., Any] = tf.function(function, autograph=False, jit_compile=jit_compile)
    return traced


def batch_size(batch: Batch) -> tf.Tensor:
    """Samples in a batch, int32: the length of its first leaf that is not None."""
    return tf.shape(next(leaf for leaf in keras.tree.flatten(batch) if leaf is not None))[0]

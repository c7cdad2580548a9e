"""Batch after batch in one graph: the part that every compiled loop shares."""

from collections.abc import Callable, Hashable
from typing import Any

import keras
import tensorflow as tf

from engine import replicas
from engine.loop.waiting import is_iterator, pull_timed

Batch = Any
Pull = Callable[[Any, tf.Tensor], Any]
Run = Callable[[Batch, tf.Tensor], tuple[list[tf.Tensor], tf.Tensor]]


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
        self._graphs: dict[Hashable, Callable[..., Any]] = {}

    @property
    def num_traces(self) -> int:
        """How many graphs it has made."""
        return self._function.experimental_get_tracing_count() if self._is_traceable else 0  # type: ignore[attr-defined]

    def trace(self, pull: Pull, signature: Any, *others: tf.TensorSpec | None) -> None:
        """Makes the one graph that every cursor of this signature will use, whatever the number of steps."""
        if self._is_traceable:
            with self._strategy.scope():
                self._function.get_concrete_function(pull, signature, tf.TensorSpec((), tf.int32), *others)  # type: ignore[attr-defined]

    def run(self, pull: Pull, cursor: Any, steps: int, *others: tf.Tensor | None) -> Any:
        """Runs up to `steps` steps."""
        arguments = pull, cursor, tf.constant(steps, tf.int32), *others
        with self._strategy.scope():
            return self._graph(*arguments)(*arguments)

    def _graph(self, pull: Pull, cursor: Any, *others: Any) -> Callable[..., Any]:
        """The graph for cursors like this one; `tf.function` takes longer to find it (docs/design/decisions.md, 29)."""
        if not self._is_traceable:
            return self._function
        leaves = keras.tree.flatten_with_path(cursor)
        kind = pull, *((path, None if leaf is None else tf.type_spec_from_value(leaf)) for path, leaf in leaves)
        if kind not in self._graphs:
            self._graphs[kind] = self._function.get_concrete_function(pull, cursor, *others)  # type: ignore[attr-defined]
        return self._graphs[kind]


def repeat(
    pull: Pull,
    cursor: Any,
    steps: tf.Tensor,
    run: Run,
    arrays: list[tf.TensorArray],
    *,
    is_timed: bool = False,
    looks_ahead: bool = True,
) -> tuple[list[tf.TensorArray], list[tf.Tensor]]:
    """Runs batch after batch, up to `steps` of them, and writes what each gives into the arrays.

    `run` takes a batch and its number in the block, and returns what to write and whether to go on. Of arrays the next
    batch may be gathered while a step runs, by another core: XLA, which uses one, would only have more to carry.

    Returns:
        The arrays; and the seconds that were waited for data, float64, in a list that is empty unless `is_timed`.
    """
    if is_iterator(cursor):
        return _repeat_pulled(pull, cursor, steps, run, arrays, is_timed=is_timed)
    is_single = replicas.number() == 1  # what is dealt to several cannot be carried from turn to turn
    return _repeat_gathered(pull, cursor, steps, run, arrays, looks_ahead=looks_ahead and is_single), []


def _repeat_gathered(
    pull: Pull, cursor: Any, steps: tf.Tensor, run: Run, arrays: list[tf.TensorArray], *, looks_ahead: bool
) -> list[tf.TensorArray]:
    """Of arrays, or of a batch in hand, which there is always one more of."""
    following = pull(cursor, tf.constant(0, tf.int64)) if looks_ahead else None
    leaves = _leaves(following)

    def advance(done: tf.Tensor, _: tf.Tensor, arrays: list[tf.TensorArray], leaves: list[Any]) -> Any:
        index = tf.cast(done, tf.int64)
        if leaves:
            batch = _in_place(following, leaves)
            leaves = _leaves(pull(cursor, index + 1))
        else:
            batch = pull(cursor, index)
        return *_step(run, batch, done, arrays), leaves

    *_, arrays, _ = _while(steps, advance, (arrays, leaves))
    return list(arrays)


def _repeat_pulled(
    pull: Pull, cursor: Any, steps: tf.Tensor, run: Run, arrays: list[tf.TensorArray], *, is_timed: bool
) -> tuple[list[tf.TensorArray], list[tf.Tensor]]:
    """From an iterator, which pulls ahead by itself.

    The end of the data is a value that is looked at, never an exception: an `OutOfRangeError` that rises
    in here was measured to apply one update too many.
    """

    def advance(done: tf.Tensor, _: tf.Tensor, arrays: list[tf.TensorArray], waited: list[tf.Tensor]) -> Any:
        index = tf.cast(done, tf.int64)
        if waited:
            batch, is_there, seconds = pull_timed(pull, cursor, index)
            waited = [waited[0] + seconds]
        else:
            batch = pull(cursor, index)
            is_there = batch.has_value()
        ended = (done, tf.constant(False), arrays)
        return *tf.cond(is_there, lambda: _step(run, batch.get_value(), done, arrays), lambda: ended), waited

    *_, arrays, waited = _while(steps, advance, (arrays, [tf.constant(0.0, tf.float64)] if is_timed else []))
    return list(arrays), list(waited)


def _while(steps: tf.Tensor, advance: Callable[..., Any], state: tuple[Any, ...]) -> Any:
    """Calls `advance` as long as it goes on, up to `steps` times."""
    # A step begins before the last one is over, if nothing that it needs is missing. What replicas tell each other for
    # the logs alone, nobody waits for: the value of one replica's step would meet that of another one's next step.
    return tf.while_loop(
        lambda done, goes_on, *_: (done < steps) & goes_on,
        advance,
        (tf.constant(0), tf.constant(True), *state),
        parallel_iterations=10 if replicas.number() == 1 else 1,
    )


def _step(run: Run, batch: Batch, done: tf.Tensor, arrays: list[tf.TensorArray]) -> Any:
    values, goes_on = run(batch, done)
    return done + 1, goes_on, [array.write(done, value) for array, value in zip(arrays, values, strict=True)]


def _leaves(batch: Batch) -> list[Any]:
    """Those that are not None."""
    return [leaf for leaf in keras.tree.flatten(batch) if leaf is not None]


def _in_place(batch: Batch, leaves: list[Any]) -> Batch:
    """The structure of a batch, with other tensors; what is None stays None."""
    own = iter(leaves)
    return keras.tree.map_structure(lambda leaf: None if leaf is None else next(own), batch)


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
    return tf.shape(_leaves(batch)[0])[0]

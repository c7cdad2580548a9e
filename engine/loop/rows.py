"""A step that returns scalars, repeated in the graph, and the rows that it brings back."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from engine.columns import Columns
from engine.errors import StepError
from engine.loop.guard import Guard
from engine.loop.program import Batch, Program, Pull, batch_size, compiled, concatenated, growing, repeat
from engine.loop.waiting import is_awaited

Step = Callable[[Batch], dict[str, Any]]

MOST_FUSED_STEPS = 1 << 12  # of a block that XLA compiles, whose rows lie in an array of fixed size


@attrs.frozen(eq=False)
class Rows:
    """What a block of steps brought back.

    Attributes:
        columns: What the columns mean.
        sizes: Samples of each step, int64, (steps,).
        values: float64, (steps, columns).
        weights: float64, (steps, columns); 1 where nothing is averaged.
        faults: For each step, what its guard found that is not finite; None: nothing. Empty without a guard.
        waited_secs: How long the loop waited for data; None: nobody can tell, or it had none to wait for.
    """

    columns: Columns
    sizes: NDArray[np.int64]
    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    faults: Sequence[str | None]
    waited_secs: float | None = None

    def __len__(self) -> int:
        return len(self.sizes)


@attrs.define(eq=False)
class Loop:
    """A step that returns scalars, repeated in the graph.

    Attributes:
        step: Called on a batch in each replica; returns a flat dict of scalars as above.
        behind: Called across replicas after each step, to finish it; gives (value, weight) pairs of scalars to log.
        results: Called across replicas after that; its scalars stand for the epoch so far.
        strategy: Where the replicas are.
        jit_compile: Whether XLA compiles the step.
        run_eagerly: Whether steps run as plain Python, for debugging.
        times_data: Whether to tell how long it waited for data; right only where each step changes variables.
        fuses: Whether XLA compiles blocks of steps on batches that are alike, each block as a whole.
        scheduled: Scalar variables that get a value of their own before each step.
        guard: What happens behind a step that is not finite; None: nothing.
        columns: What the columns of its rows mean; known once traced.
        graph: The graph of one step; None before it is traced, or where it runs eagerly.
    """

    step: Step
    results: Callable[[], dict[str, tf.Tensor]] = dict
    behind: Callable[[], dict[str, tuple[tf.Tensor, tf.Tensor]]] = attrs.field(default=dict, kw_only=True)
    strategy: tf.distribute.Strategy = attrs.field(factory=tf.distribute.get_strategy, kw_only=True)
    jit_compile: bool = attrs.field(default=False, kw_only=True)
    run_eagerly: bool = attrs.field(default=False, kw_only=True)
    times_data: bool = attrs.field(default=False, kw_only=True)
    fuses: bool = attrs.field(default=False, kw_only=True)
    scheduled: Sequence[Any] = attrs.field(default=(), kw_only=True)
    guard: Guard | None = attrs.field(default=None, kw_only=True)
    columns: Columns = attrs.field(init=False, factory=Columns)
    graph: tf.Graph | None = attrs.field(init=False, default=None)
    _one: Callable[[Batch], tf.Tensor] = attrs.field(init=False)
    _many: Program = attrs.field(init=False)
    _fused: Program = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        # Collectives fail in a function inside the conditional of a loop (TensorFlow 2.21: "must feed a value for
        # placeholder"), so that under replicas the step is written straight into the loop.
        is_inlined = self.run_eagerly or self.strategy.num_replicas_in_sync > 1
        self._one = compiled(self._run_one, eager=is_inlined, jit_compile=self.jit_compile)
        self._many = Program(self._run_many, self.strategy, self.run_eagerly)
        self._fused = Program(self._run_fused, self.strategy, self.run_eagerly, jit_compile=True)

    @property
    def num_traces(self) -> int:
        """How many graphs it has made."""
        return self._many.num_traces + self._fused.num_traces

    def trace(self, pull: Pull, signature: Any) -> None:
        """Traces the loop before the first step, for every cursor that fits `signature`."""
        self._many.trace(pull, signature, self._schedule_spec(None))

    def trace_fused(self, pull: Pull, signature: Any) -> None:
        """The same for batches that are alike; called behind `trace`. XLA compiles it when it first runs."""
        self._fused.trace(pull, signature, self._schedule_spec(MOST_FUSED_STEPS))

    def run(self, pull: Pull, cursor: Any, steps: int, schedule: NDArray[np.float64] | None = None) -> Rows:
        """Runs up to `steps` steps, fewer where the data ends or a guard halts them.

        Args:
            pull: Gives a batch.
            cursor: Where in the data to begin.
            steps: How many at most.
            schedule: The value of each scheduled variable for each step, (steps, variables).
        """
        entries = None if schedule is None else tf.constant(schedule)
        packed = self._many.run(pull, cursor, steps, entries).numpy()  # waits for the device
        if not self._is_timed(cursor):
            return self._rows(packed)
        return attrs.evolve(self._rows(packed[:-1]), waited_secs=float(packed[-1, 0]))

    def run_fused(self, pull: Pull, cursor: Any, steps: int, schedule: NDArray[np.float64] | None = None) -> Rows:
        """The same for batches that are alike, at most `MOST_FUSED_STEPS` of them."""
        entries = None
        if schedule is not None:  # of another length, XLA would compile it anew
            entries = tf.constant(np.pad(schedule, [(0, MOST_FUSED_STEPS - len(schedule)), (0, 0)]))
        packed = self._fused.run(pull, cursor, steps, entries).numpy()  # waits for the device
        return self._rows(packed[: np.count_nonzero(packed[:, 0])])  # no step has 0 samples

    def _rows(self, packed: NDArray[Any]) -> Rows:
        width = sum(self.columns.widths)
        values, weights, faults = (
            packed[:, 1 : 1 + width],
            packed[:, 1 + width : 1 + 2 * width],
            packed[:, self._width :],
        )
        return Rows(
            self.columns,
            packed[:, 0].astype(np.int64),
            values.astype(np.float64),
            weights.astype(np.float64),
            [self.guard.name(int(fault)) for fault in faults[:, 0]] if self.guard else [None] * len(packed),
        )

    def no_rows(self) -> Rows:
        """What no step at all brings back."""
        empty = np.zeros((0, sum(self.columns.widths)))
        return Rows(self.columns, np.zeros(0, np.int64), empty, empty, [])

    def _run_many(self, pull: Pull, cursor: Any, steps: tf.Tensor, schedule: tf.Tensor | None) -> tf.Tensor:
        spec = tf.TensorSpec([None], row_dtype())
        run = functools.partial(self._run_scheduled, schedule)
        (rows,), waited = repeat(pull, cursor, steps, run, [growing(spec)], is_timed=self._is_timed(cursor))
        packed = tf.reshape(concatenated(rows, spec), [-1, self._row_width])
        # As one row more, so that it comes with the others.
        padding = [[0, 0], [0, self._row_width - 1]]
        last = [tf.pad(tf.cast(seconds, spec.dtype)[None, None], padding) for seconds in waited]
        return tf.concat([packed, *last], 0) if last else packed

    def _is_timed(self, cursor: Any) -> bool:
        return self.times_data and is_awaited(cursor)

    def _run_fused(self, pull: Pull, cursor: Any, steps: tf.Tensor, schedule: tf.Tensor | None) -> tf.Tensor:
        empty = tf.TensorArray(row_dtype(), size=MOST_FUSED_STEPS, element_shape=[self._row_width])
        run = functools.partial(self._run_scheduled, schedule)
        (rows,), _ = repeat(pull, cursor, steps, run, [empty], looks_ahead=False)
        return rows.stack()

    def _run_scheduled(
        self, schedule: tf.Tensor | None, batch: Batch, done: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """The row of one step of a block, and whether the block goes on."""
        for variable, value in zip(self.scheduled, _entries(schedule, done), strict=True):
            variable.assign(tf.cast(value, variable.dtype))
        row = self._one(batch)
        halts = self.guard is not None and self.guard.halts
        return [row], tf.equal(row[-1], 0) if halts else tf.constant(True)

    def _schedule_spec(self, steps: int | None) -> tf.TensorSpec | None:
        return tf.TensorSpec([steps, len(self.scheduled)], tf.float64) if self.scheduled else None

    @property
    def _width(self) -> int:
        """Numbers in a row: the size, the values and their weights."""
        return 1 + 2 * sum(self.columns.widths)

    @property
    def _row_width(self) -> int:
        """The same, and what a guard has found."""
        return self._width + (self.guard is not None)

    def _run_one(self, batch: Batch) -> tf.Tensor:
        layout: dict[str, tuple[bool, tuple[int, ...]]] = {}
        before = self.guard.before() if self.guard else []
        packed = self.strategy.run(lambda share: self._run_replica(share, layout), args=(batch,))
        width = sum(math.prod(shape) for _, shape in layout.values())
        if self.strategy.num_replicas_in_sync > 1:
            packed = self.strategy.reduce(tf.distribute.ReduceOp.SUM, packed, axis=None)
            size, totals, weights = tf.split(packed, [1, width, width])
            packed = tf.concat([size, tf.math.divide_no_nan(totals, weights), weights], 0)
        behind = self.behind()
        fault = None if self.guard is None else self.guard.look_after(_named(packed[1 : 1 + width], layout), before)
        standing = _checked({name: (tf.convert_to_tensor(value), None) for name, value in self.results().items()})
        more = behind | dict(sorted(standing.items()))
        if twice := layout.keys() & more.keys():
            raise StepError(f"A value of the step and a metric are both called {min(twice)!r}. Rename one of them.")
        self._note(layout | {name: _layout_of(value, weight) for name, (value, weight) in more.items()})
        return packed if not more and fault is None else self._with(packed, width, more, fault)

    def _with(
        self, packed: tf.Tensor, width: int, more: dict[str, tuple[Any, Any]], fault: tf.Tensor | None
    ) -> tf.Tensor:
        """A row with further values and their weights, and with what the guard found."""
        head, weights = tf.split(packed, [1 + width, width])
        others = [tf.cast(value, packed.dtype) for value, _ in more.values()]
        pairs = zip(others, more.values(), strict=True)
        own = [tf.ones_like(value) if weight is None else tf.cast(weight, packed.dtype) for value, (_, weight) in pairs]
        weights = tf.concat([weights, *_flats(own)], 0)
        if fault is not None and self.guard is not None and self.guard.leaves_out:
            weights = tf.where(fault > 0, tf.zeros_like(weights), weights)
        found = [] if fault is None else [tf.cast(fault, packed.dtype)[tf.newaxis]]
        return tf.concat([head, *_flats(others), weights, *found], 0)

    def _note(self, layout: dict[str, tuple[bool, tuple[int, ...]]]) -> None:
        """Notes what the columns mean, which must be the same for every step."""
        averaged, shapes = zip(*layout.values(), strict=True) if layout else ((), ())
        columns = Columns(tuple(layout), averaged, shapes)
        if self.columns.names and set(columns.names) != set(self.columns.names):
            raise StepError(
                f"A step returned {_listed(columns.names)}, and the one before it {_listed(self.columns.names)}. "
                "Return the same names from every step; for a value that some steps do not have, a pair (value, "
                "weight) with weight 0."
            )
        self.columns = columns
        if not self.run_eagerly:
            self.graph = tf.compat.v1.get_default_graph()

    def _run_replica(self, batch: Batch, layout: dict[str, tuple[bool, tuple[int, ...]]]) -> tf.Tensor:
        """One step packed as [size, its values, their weights]; values are totals if replicas add up."""
        size = tf.cast(batch_size(batch), row_dtype())
        values, weights = [], []
        for name, value in sorted(_checked(self.step(batch)).items()):
            given, weight = value if isinstance(value, tuple) else (value, size)
            layout[name] = _layout_of(given, weight)
            values.append(tf.cast(given, row_dtype()))
            weights.append(tf.ones(np.shape(given), row_dtype()) if weight is None else tf.cast(weight, row_dtype()))
        if self.strategy.num_replicas_in_sync > 1:
            values = [tf.math.multiply_no_nan(value, weight) for value, weight in zip(values, weights, strict=True)]
        return _flat([size, *values, *weights])


def _entries(schedule: Any, done: tf.Tensor) -> list[tf.Tensor]:
    """The values of a schedule for one step; none without a schedule."""
    return [] if schedule is None else tf.unstack(tf.gather(schedule, done))


def _layout_of(value: Any, weight: Any) -> tuple[bool, tuple[int, ...]]:
    """Whether a value is averaged, and its shape."""
    return weight is not None, tuple(np.shape(value))


def _named(flat: tf.Tensor, layout: dict[str, tuple[bool, tuple[int, ...]]]) -> dict[str, tf.Tensor]:
    """The values of a row by name, each (entries,)."""
    return dict(zip(layout, tf.split(flat, [math.prod(shape) for _, shape in layout.values()]), strict=True))


def _flat(values: list[tf.Tensor]) -> tf.Tensor:
    """The values one after the other; scalars, the usual case, cost no reshape each."""
    are_scalars = all(value.shape.rank == 0 for value in values)
    return tf.stack(values) if are_scalars else tf.concat([tf.reshape(value, [-1]) for value in values], 0)


def _flats(values: list[tf.Tensor]) -> list[tf.Tensor]:
    """One vector of them all, or none of no value."""
    return [_flat(values)] if values else []


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names) or "nothing"


def row_dtype() -> tf.DType:
    """float32, or float64 where Keras is set to it."""
    return tf.float64 if keras.config.floatx() == "float64" else tf.float32


def _checked(values: Any) -> dict[str, Any]:
    """What a step or a metric returned, found to be what the loop can carry."""
    if not isinstance(values, dict):
        raise StepError(
            f"A step returned {type(values).__name__}, where a flat dict of scalar tensors was expected, "
            'such as {"loss": loss}.'
        )
    for name, value in values.items():
        given, *weights = value if isinstance(value, tuple) else (value,)
        may_be_array = weights == [None]
        if not isinstance(name, str) or len(weights) > 1 or not _is_number(given, may_be_array=may_be_array):
            shown = _shown(value if len(weights) > 1 else given)
            raise StepError(
                f"A step or a metric returned {name!r} with {shown}, where a name and a scalar were expected, or a "
                "name and a pair of a scalar and its weight. Reduce it in the step, for example with tf.reduce_mean."
            )
    return values


def _is_number(value: Any, *, may_be_array: bool) -> bool:
    if isinstance(value, (int, float)):
        return True
    if not tf.is_tensor(value) or value.dtype == tf.string:
        return False
    return value.shape.rank == 0 or (may_be_array and value.shape.is_fully_defined())


def _shown(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if tf.is_tensor(value) else f"{type(value).__name__} {str(value)[:60]!r}"

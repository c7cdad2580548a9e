"""When gradients become updates: at each step, or added up over several, so that they equal those of one large batch.

```text
accumulate=1                              accumulate=n
Total.minimize                            Total.minimize
└── descend: sum, clip, apply             └── gradients times their count, added to this replica's own sums
                                          behind the step, across the replicas
                                          └── every n-th step, and at an epoch's end: sums / counts, then descend
```

A mean over a large batch is no mean of means: of n steps, each weighs as many samples as it had, or as many valid time
steps where a mask left some out. So each group of terms with a count of its own has sums of its own.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import attrs
import keras
import tensorflow as tf

from engine import replicas
from engine.errors import StepError
from engine.losses.descent import Gradients, across_replicas, descend

Pair = tuple[tf.Tensor, tf.Tensor]


@attrs.define(eq=False)
class _Sums:
    """Gradients of terms that are means over the same things, each times how many these were, added up.

    Attributes:
        gradients: A variable for each weight, of each replica its own; None where a loss does not depend on it.
        count: How many things there were.
    """

    gradients: list[tf.Variable | None]
    count: tf.Variable

    @classmethod
    def zeros(cls, weights: Sequence[Any], are_known: Sequence[bool]) -> "_Sums":
        """Of the weights that the loss depends on."""
        pairs = zip(weights, are_known, strict=True)
        sums = [_local_zeros(weight.shape, _wide(weight.dtype)) if known else None for weight, known in pairs]
        return cls(sums, _local_zeros((), tf.float32))

    def add(self, gradients: Gradients, count: tf.Tensor) -> None:
        """Adds a step of this replica: its part of the gradients of the whole batch, and its share of the count."""
        self.count.assign_add(count)
        whole = replicas.total(count)
        for variable, gradient in zip(self.gradients, gradients, strict=True):
            if variable is not None:
                wide = tf.cast(tf.convert_to_tensor(gradient), variable.dtype)
                variable.assign_add(wide * tf.cast(whole, variable.dtype))

    def take(self) -> Gradients:
        """This replica's part of the gradients of the whole, which over all replicas add up to it; zeros remain."""
        count = replicas.total(tf.convert_to_tensor(self.count))
        taken = [
            None if v is None else tf.math.divide_no_nan(tf.convert_to_tensor(v), tf.cast(count, v.dtype))
            for v in self.gradients
        ]
        for variable in self.variables():
            variable.assign(tf.zeros(variable.shape, variable.dtype))
        return taken

    def variables(self) -> list[tf.Variable]:
        """All of them."""
        return [self.count, *(variable for variable in self.gradients if variable is not None)]


@attrs.define(eq=False)
class _Window:
    """What one call of `Total.minimize` in a step adds up until it is time to update.

    Attributes:
        optimizer: Which will update.
        weights: What it will update.
        norm_name: What the norm of the gradients is called in the logs; None: it is not logged.
        sums: Those of each group of terms.
    """

    optimizer: keras.optimizers.Optimizer
    weights: Sequence[Any]
    norm_name: str | None
    sums: list[_Sums] = attrs.field(init=False, factory=list)

    def make_sums(self, strategy: tf.distribute.Strategy, are_known: Sequence[Sequence[bool]]) -> None:
        """Makes the variables, from inside a step, once for all replicas."""
        with tf.init_scope(), strategy.scope():
            self.sums = [_Sums.zeros(self.weights, known) for known in are_known]

    def update(self) -> tf.Tensor | None:
        """Updates the weights; called in each replica."""
        taken = [sums.take() for sums in self.sums]
        gradients = [_added(parts) for parts in zip(*taken, strict=True)]
        return descend(self.optimizer, gradients, self.weights, wants_norm=self.norm_name is not None)


@attrs.define(eq=False)
class Updates:
    """How many steps go into an update, and what those since the last one came to.

    Attributes:
        accumulate: Steps that an update takes its gradients from.
    """

    accumulate: int = 1
    _windows: dict[Any, _Window] = attrs.field(init=False, factory=dict)
    _steps: tf.Variable | None = attrs.field(init=False, default=None)  # since the last update

    @contextlib.contextmanager
    def step(self, size: tf.Tensor) -> Iterator[None]:
        """In this context a step of a replica runs that has `size` samples."""
        token = _STEP.set(Step(self, tf.cast(size, tf.float32)))
        try:
            yield
        finally:
            _STEP.reset(token)

    def prepare(self) -> None:
        """Makes the variable that counts steps; called across replicas, in their scope."""
        if self.accumulate > 1 and self._steps is None:
            first = tf.VariableAggregation.ONLY_FIRST_REPLICA
            self._steps = tf.Variable(0, trainable=False, aggregation=first, name="steps_since_update")

    def window(self, optimizer: Any, weights: Sequence[Any], norm_name: str | None, number: int) -> _Window:
        """What is added up for these weights; `number` tells apart several calls in one step."""
        key = (id(optimizer), tuple(map(id, weights)), number)
        if key not in self._windows:
            self._windows[key] = _Window(optimizer, weights, norm_name)
        return self._windows[key]

    def apply_if_due(self) -> dict[str, Pair]:
        """Counts a step, and updates if it was the last of those that go into an update; called across replicas.

        Returns:
            The norms of gradients that are to be logged: name -> (norm, weight), with weight 0 without an update.
        """
        if self._steps is None:
            return {}
        if not self._windows:
            raise StepError(
                f"accumulate={self.accumulate}, but the train step updates nothing through engine.losses, so that "
                "there is nothing to add up. Write it with `losses.Total` and its `minimize`, or leave accumulate out."
            )
        self._steps.assign_add(1)
        due = tf.convert_to_tensor(self._steps) >= self.accumulate
        return self._named(tf.cond(due, self._apply, self._nothing))

    def flush(self) -> dict[str, Pair]:
        """Updates with what there is, at the end of an epoch; called across replicas, returns what the above does."""
        if self._steps is None or not self._windows:
            return {}
        return self._named(tf.cond(tf.convert_to_tensor(self._steps) > 0, self._apply, self._nothing))

    def reset(self) -> None:
        """Forgets what was added up, as a fit that begins must."""
        for variable in self.variables:
            variable.assign(tf.zeros(variable.shape, variable.dtype))

    def forget(self) -> None:
        """Lets go of what was made for weights that are trained no more."""
        self._windows.clear()

    @property
    def variables(self) -> list[tf.Variable]:
        """All that is added up; nothing where each step updates."""
        sums = [variable for window in self._windows.values() for own in window.sums for variable in own.variables()]
        return [] if self._steps is None else [self._steps, *sums]

    def _apply(self) -> list[tf.Tensor]:
        strategy = tf.distribute.get_strategy()
        norms = strategy.run(lambda: [n for window in self._windows.values() if (n := window.update()) is not None])
        assert self._steps is not None
        self._steps.assign(0)
        own = [strategy.experimental_local_results(norm)[0] for norm in norms]
        return [*(tf.cast(norm, tf.float32) for norm in own), tf.ones(())]

    def _nothing(self) -> list[tf.Tensor]:
        return [tf.zeros(()) for name in [*self._norm_names(), "weight"]]

    def _named(self, outcome: list[tf.Tensor]) -> dict[str, Pair]:
        *norms, weight = outcome
        return {name: (norm, weight) for name, norm in zip(self._norm_names(), norms, strict=True)}

    def _norm_names(self) -> list[str]:
        return [window.norm_name for window in self._windows.values() if window.norm_name is not None]


@attrs.define(eq=False)
class Step:
    """The step of a replica that is running.

    Attributes:
        updates: How many steps go into an update.
        size: Samples, float32, a scalar.
    """

    updates: Updates
    size: tf.Tensor
    _updated: set[int] = attrs.field(init=False, factory=set)

    def add(
        self, optimizer: Any, weights: Sequence[Any], groups: Sequence[tuple[Gradients, tf.Tensor]], name: Any
    ) -> None:
        """Adds the gradients of one `minimize`, and what each group of them is the mean over.

        Raises:
            StepError: Some of the weights were updated in this step already.
        """
        if any(id(weight) in self._updated for weight in weights):
            raise StepError(
                f"accumulate={self.updates.accumulate}, but the step updates the same weights more than once, and the "
                "second time would need what the first has changed. Leave accumulate out, or minimize once."
            )
        window = self.updates.window(optimizer, weights, name, len(self._updated))
        self._updated |= {id(weight) for weight in weights}
        if not window.sums:
            are_known = [[gradient is not None for gradient in gradients] for gradients, _ in groups]
            across_replicas(lambda strategy: window.make_sums(strategy, are_known))
        for sums, (gradients, count) in zip(window.sums, groups, strict=True):
            sums.add(gradients, count)


# A step is called by the loop, and finds what it runs in as it finds its replica: by the context that it is called in.
_STEP: ContextVar[Step | None] = ContextVar("engine_step", default=None)


def current_step() -> Step | None:
    """The step that is running; None outside a Trainer."""
    return _STEP.get()


def _wide(dtype: Any) -> tf.DType:
    """What gradients are added up in: what the weights are held in, but no fewer bits than 32."""
    return tf.float64 if dtype == "float64" else tf.float32


def _local_zeros(shape: Any, dtype: tf.DType) -> tf.Variable:
    """Of each replica its own; read across replicas, their sum."""
    return tf.Variable(
        tf.zeros(shape, dtype),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
        name="gradient_sum",
    )


def _added(parts: Sequence[Any]) -> Any:
    known = [part for part in parts if part is not None]
    return tf.add_n(known) if known else None

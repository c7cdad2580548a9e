"""Reads and sets the learning rate of every kind of optimizer, also on top of a `LearningRateSchedule`.

| optimizer | its rates |
|---|---|
| with a number | its learning rate |
| `LossScaleOptimizer` | that of the optimizer within |
| `MultiOptimizer` | one for each of its optimizers |
| with a `LearningRateSchedule` or another callable | a factor: rate = schedule(iterations) * factor, at first 1 |

```python
factors = Factors()
factors.open(model)             # before the step is traced: puts a `Scaled` where there is a schedule
for rate in rates_of(model.optimizer):
    rate.set(rate.get() / 2)
factors.close()                 # the schedules are as they were; plain rates stay as they were set
```
"""

from typing import Any

import attrs
import keras

from engine.columns import Logs
from engine.errors import ConfigError
from engine.hooks import SavedState
from engine.optimizers import optimizer_of, parts_of, rate_source, unscaled


@keras.saving.register_keras_serializable("engine")
class Scaled(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule times a factor that may be set while the compiled step runs.

    Attributes:
        schedule: Of the optimizer; takes its iterations, or nothing if it is no `LearningRateSchedule`.
        factor: A scalar variable, at first 1.
    """

    def __init__(self, schedule: Any, factor: float = 1.0) -> None:
        self.schedule = schedule
        self.factor = keras.Variable(
            factor, dtype=keras.config.floatx(), trainable=False, name="factor", aggregation="only_first_replica"
        )

    def __call__(self, step: Any) -> Any:
        """The rate of a step."""
        is_schedule = isinstance(self.schedule, keras.optimizers.schedules.LearningRateSchedule)
        rate = self.schedule(step) if is_schedule else self.schedule()
        return rate * keras.ops.cast(self.factor, keras.backend.standardize_dtype(getattr(rate, "dtype", "float32")))

    def get_config(self) -> dict[str, Any]:
        """What a model that is saved while it is trained says of it."""
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "factor": float(self.factor.numpy())}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Scaled":
        """The schedule of a model that was saved while it was trained."""
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["factor"])


@attrs.frozen(eq=False)
class Rate:
    """What can be set of one optimizer: its learning rate, or the factor on its schedule.

    Attributes:
        log_name: What Keras's callbacks call the rate in the logs.
        owner: The optimizer's name where there are several, otherwise "".
        optimizer: Neither a `LossScaleOptimizer` nor a `MultiOptimizer`.
    """

    log_name: str
    owner: str
    optimizer: keras.optimizers.Optimizer

    @property
    def is_factor(self) -> bool:
        """Whether it stands on top of a schedule."""
        return not isinstance(self.optimizer.learning_rate, keras.Variable)

    @property
    def variable(self) -> keras.Variable:
        """What to assign to, also from within a compiled loop."""
        source = rate_source(self.optimizer)
        if isinstance(source, Scaled):
            return source.factor
        if not isinstance(source, keras.Variable):
            raise ConfigError(_too_late(self.optimizer.name))
        return source

    def get(self) -> float:
        """The learning rate, or the factor."""
        return number(self.variable)

    def set(self, value: float) -> None:
        """Sets the learning rate, or the factor."""
        self.variable.assign(value)

    def effective(self) -> float:
        """The learning rate of the next step, in any case."""
        return number(self.optimizer.learning_rate)


@attrs.define(eq=False)
class Factors:
    """What one callback puts on the schedules of a model's optimizers, for the length of a fit."""

    _model: keras.Model | None = attrs.field(init=False, default=None)
    _opened: list[keras.optimizers.Optimizer] = attrs.field(init=False, factory=list)

    def open(self, model: keras.Model) -> None:
        """Puts a factor, 1, on every schedule that has none; two callbacks of one fit share it.

        Args:
            model: Compiled; its step is not traced yet, or will be traced anew.
        """
        parts = parts_of(optimizer_of(model))
        found = [part for part in parts if not isinstance(rate_source(part), (keras.Variable, Scaled))]
        for part in found:
            part.learning_rate = Scaled(rate_source(part))
        self._model, self._opened = model, [*self._opened, *found]
        if found and model.train_function is not None:
            model.make_train_function(force=True)  # model.fit would go on with one that knows the old schedule

    def close(self) -> None:
        """Takes the factors out again, so that the optimizer is as it was."""
        opened, self._opened = self._opened, []
        for part in opened:
            source = rate_source(part)
            if isinstance(source, Scaled):
                source.factor.assign(1.0)  # a loop that was compiled with it may run again
                part.learning_rate = source.schedule
        if opened and self._model is not None:
            self._model.train_function = None
        self._model = None

    def get(self) -> list[float]:
        """The factors, which are no variables of the optimizer, so that a callback must remember them."""
        return [rate.get() for rate in self._rates()]

    def read(self, saved: SavedState) -> list[float]:
        """The factors that a state holds, if it has as many as there are.

        Raises:
            CheckpointError: It has more or fewer, or something else.
        """
        values = saved.numbers("factors")
        if self._model is not None and len(values) != len(self._rates()):
            expected = f"{len(self._rates())}, as the optimizer has schedules"
            raise saved.error(f"holds {len(values)} factors of learning rates", expected)
        return values

    def set(self, values: list[float]) -> None:
        """Sets the factors; none of a run that is over, whose optimizer has its own schedules again."""
        for rate, value in zip(self._rates(), values, strict=self._model is not None):
            rate.set(value)

    def _rates(self) -> list[Rate]:
        return [] if self._model is None else [rate for rate in rates_of(optimizer_of(self._model)) if rate.is_factor]


def rates_of(optimizer: keras.optimizers.Optimizer | None) -> list[Rate]:
    """Every rate of an optimizer.

    Raises:
        ConfigError: There is none; or a `MultiOptimizer` does not know its optimizers yet, as its function has not been
            asked.
    """
    parts = parts_of(optimizer)
    if optimizer is None:
        raise ConfigError(
            "The model was not compiled with an optimizer, whose learning rate a callback could see and change. "
            "Compile the `model` of a Task with the optimizer that trains it: model.compile(keras.optimizers.Adam())."
        )
    if not parts:
        raise ConfigError(_too_late(optimizer.name))
    if isinstance(unscaled(optimizer), keras.optimizers.MultiOptimizer):
        return [Rate(f"learning_rate_{part.name}", part.name, part) for part in parts]
    return [Rate("learning_rate", "", part) for part in parts]


def log_rates(optimizer: keras.optimizers.Optimizer | None, logs: Logs | None) -> None:
    """Puts the rates into the logs of an epoch, named as Keras names them."""
    if logs is not None:
        logs.update({rate.log_name: rate.effective() for rate in rates_of(optimizer)})


def _too_late(name: str) -> str:
    return (
        f"The optimizer {name!r} would come to light after the training has begun. Build it before fit: "
        "model.optimizer.build(model.trainable_variables)."
    )


def number(value: Any) -> float:
    """A scalar variable, tensor or number as a number."""
    is_variable = isinstance(value, keras.Variable)  # of which `convert_to_numpy` makes an array by a deprecated way
    return float(value.numpy() if is_variable else keras.ops.convert_to_numpy(value))  # waits for the device

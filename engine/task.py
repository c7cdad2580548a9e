"""`Task`: what is trained, and how one step of it goes.

```python
@attrs.define(eq=False)
class Autoencoder(engine.Task):
    model: keras.Model                                # compiled with an optimizer

    def train_step(self, batch):                      # pure TensorFlow; returns this step's scalars
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        with losses.Total() as total:
            total.compare("data", "mse", x, total.call(self.model, x))
        total.minimize(self.model)
        return total.logs()

Trainer(Autoencoder(model)).fit(images, epochs=10)
```
"""

import abc
import functools
import re
from collections.abc import Iterator
from typing import Any, Literal

import attrs
import keras
import tensorflow as tf

from engine import replicas
from engine.description import UNKNOWN, described
from engine.errors import ConfigError, StepError
from engine.losses import Updates
from engine.metrics import RunningMeans
from engine.optimizers import parts_of, put_averages, rate_source

Batch = Any
Phase = Literal["train", "test"]
StepValues = dict[str, Any]


class Task(abc.ABC):
    """What is trained, and how one step of it goes.

    A subclass is an attrs class (`@attrs.define(eq=False)`) with a `model` and a `train_step`; it may have several
    models, each compiled with its own optimizer (`model.compile(optimizer)`), and anything else. What it keeps as
    attributes and has variables (models and layers, their optimizers, metrics, `keras.random.SeedGenerator`,
    variables, also in lists and dicts) is saved in every checkpoint, and taken up again.

    A step is a function of the batch in pure TensorFlow. It returns a flat dict of scalars, the values of this very
    step, which are averaged over the epoch by samples; or pairs (scalar, weight), which are averaged as they say; or
    pairs (value, None) of what stands for the epoch so far, such as `metric.result()`. Under several replicas each
    calls it with its share of the batch; see `engine.losses` and `engine.replicas`.

    Attributes:
        model: The Keras model that callbacks see, save and stop.
    """

    model: keras.Model

    @abc.abstractmethod
    def train_step(self, batch: Batch) -> StepValues:
        """Trains on one batch; returns this step's scalars.

        Args:
            batch: x alone, (x, y) or (x, y, sample_weight): `keras.utils.unpack_x_y_sample_weight` takes each apart.
        """

    def test_step(self, batch: Batch) -> StepValues:
        """Evaluates one batch; returns this step's scalars. Without one, there is no evaluation and no validation."""
        raise StepError(
            f"{type(self).__name__} has no test_step, which evaluate and validation_data need. Write one that returns "
            "the scalars of a batch, or leave validation_data out."
        )

    def predict_step(self, batch: Batch) -> Any:
        """The outputs for one batch, a nest of tensors, samples along the first axis; by default the model's."""
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        return self.model(x, training=False)

    # What follows has defaults: a task of one's own needs a train step only.

    def build(self, spec: Any, phase: Phase) -> None:
        """Creates every variable that the phase's step needs, and checks what can be known of a batch like `spec`.

        By default the optimizers of the models that are built. What is not there yet is made by the first step.

        Args:
            spec: One batch as nested `tf.TensorSpec`.
            phase: "train" or "test".

        Raises:
            ConfigError: A model is not built, and there are several replicas.
        """
        self._check_built()
        for model, optimizer in self._optimized():
            if model.built and not optimizer.built:
                optimizer.build(model.trainable_variables)

    def check_targets(self, targets: Any) -> None:
        """Checks the values of the targets, a nest of NumPy arrays, where they are at hand."""

    def results(self, phase: Phase) -> dict[str, tf.Tensor]:
        """What metrics with state stand at after a step of the phase, read across replicas."""
        return {}

    def live_metrics(self, phase: Phase) -> list[keras.metrics.Metric]:
        """The metrics whose variables the steps of the phase count on, so that nobody else may change them."""
        return self.metrics

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Metric objects, which begin anew with each epoch and each evaluation."""
        own = [part for part in self.parts().values() if isinstance(part, keras.metrics.Metric)]
        return [*self.model.metrics, *own]

    def reset_metrics(self) -> None:
        """Lets every metric begin anew."""
        self.model.reset_metrics()
        for metric in self.metrics:
            metric.reset_state()

    @functools.cached_property
    def updates(self) -> Updates:
        """How many steps go into an update."""
        return Updates()

    def publish(self, means: RunningMeans) -> None:
        """Writes the means of an epoch into the metric objects that they belong to."""

    def finish(self) -> None:
        """Called once, when the last epoch is over and before `on_train_end`: averaged weights take their place."""
        for part in self.parts().values():
            if is_optimizer(part):
                put_averages(part)

    def parts(self) -> dict[str, Any]:
        """Name -> an object with variables: all that a training changes, beside `model.metrics`.

        By default every attribute that has variables, and the optimizer that a model was compiled with.
        """
        kind = type(self)
        fields = [field.name for field in attrs.fields(kind)] if attrs.has(kind) else []
        own = {name: getattr(self, name) for name in ("model", *fields, *vars(self)) if name != "updates"}
        return {name: part for attribute, value in own.items() for name, part in _parts_in(attribute, value)}

    def _check_built(self) -> None:
        if replicas.number() == 1:
            return
        # One that was never called may have all its weights, if it is made of models that are built.
        models = [layer for layer in self.layers() if isinstance(layer, keras.Model)]
        unbuilt = [model for model in models if not model.built and not model.weights]
        if unbuilt:
            raise ConfigError(
                f"The model {unbuilt[0].name!r} of {type(self).__name__} is not built, and inside a step the "
                f"{replicas.number()} replicas cannot make its weights. Begin it with keras.Input(shape), or call it "
                "once, inside `with strategy.scope():`."
            )

    def layers(self) -> list[keras.layers.Layer]:
        """The models and layers among the parts."""
        return [part for part in self.parts().values() if isinstance(part, keras.layers.Layer)]

    def _optimized(self) -> Iterator[tuple[keras.Model, keras.optimizers.Optimizer]]:
        """Each model that was compiled with an optimizer, and that."""
        for model in self.layers():
            if (optimizer := _optimizer_of(model)) is not None:
                yield model, optimizer

    def variables(self) -> list[keras.Variable]:
        """Every variable that a step may change, each once; of what is built by now."""
        return list(self.named_variables().values())

    def named_variables(self) -> dict[str, keras.Variable]:
        """The same by name: `<part>/<number>/<path>`, the path without the numbers that Keras gives to names.

        The number alone tells two variables apart: layers of another process, or of a second model, are numbered anew.
        """
        metrics = [*self.model.metrics, *keras.Model.metrics.fget(self.model)]
        numbered = [(f"metrics/{index}", metric) for index, metric in enumerate(metrics)]
        holders = [*self.parts().items(), *numbered, ("updates", self.updates)]
        found: dict[int, tuple[str, keras.Variable]] = {}
        for part, holder in holders:
            for index, variable in enumerate(_variables_of(holder)):
                path = re.sub(r"_\d+(?=[_/]|$)", "", getattr(variable, "path", variable.name))
                found.setdefault(id(variable), (f"{part}/{index}/{path}", variable))
        return dict(found.values())

    def facts(self) -> dict[str, Any]:
        """What must be the same where a run goes on from a checkpoint, as plain values that a person can read."""
        optimizers = {name: part for name, part in self.parts().items() if is_optimizer(part)}
        return {"task": type(self).__name__, **{name: _facts_of(part) for name, part in optimizers.items()}}

    def ingredients(self) -> list[Any]:
        """The objects that a traced step is made from; another one of them means another trace."""
        optimizers = [part for part in self.parts().values() if is_optimizer(part)]
        rates = [rate_source(part) for optimizer in optimizers for part in parts_of(optimizer)]
        weights = [weight for layer in self.layers() for weight in layer.trainable_weights]
        return [*optimizers, *rates, *weights]


def _parts_in(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Everything with variables in an attribute, by where it is."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _parts_in(f"{name}.{key}", entry)
    elif isinstance(value, (list, tuple)):
        for index, entry in enumerate(value):
            yield from _parts_in(f"{name}.{index}", entry)
    elif _is_variable(value) or _is_variable(getattr(value, "state", None)) or _has_variables(value):
        yield name, value
        if (optimizer := _optimizer_of(value)) is not None:
            yield f"{name}.optimizer", optimizer


def _has_variables(value: Any) -> bool:
    return not isinstance(value, type) and isinstance(getattr(value, "variables", None), (list, tuple))


def _is_variable(value: Any) -> bool:
    return isinstance(value, (keras.Variable, tf.Variable))


def _variables_of(part: Any) -> list[Any]:
    """Its variables; of a random generator, the one that says where it stands; of a variable, itself."""
    if _is_variable(part):
        return [part]
    return [part.state] if _is_variable(getattr(part, "state", None)) else list(part.variables)


def _optimizer_of(value: Any) -> keras.optimizers.Optimizer | None:
    """What a model was compiled with."""
    optimizer = getattr(value, "optimizer", None) if isinstance(value, keras.Model) else None
    return optimizer if is_optimizer(optimizer) else None


def _facts_of(optimizer: Any) -> Any:
    """An optimizer before its first step; then nobody can tell what its learning rate was at the beginning."""
    facts = described(optimizer)
    if int(optimizer.iterations.numpy()) and isinstance(facts.get("learning_rate"), float):
        facts["learning_rate"] = UNKNOWN
    return facts


def is_optimizer(value: Any) -> bool:
    """Whether it is one of Keras's kind."""
    return isinstance(value, keras.optimizers.Optimizer)

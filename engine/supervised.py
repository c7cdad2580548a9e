"""`Supervised`: the task of a plain compiled model.

```text
Supervised.train_step(batch)
├── y_pred = model(x, training=True)
├── loss = model.compute_loss(x, y, y_pred, sample_weight)     model.losses included
├── optimizer.apply_gradients(d scale_loss(loss) / d weights)
└── model.compute_metrics(x, y, y_pred, sample_weight)         a mean: only what this batch adds to it
```

Every call goes through Keras's public methods, so that a model which overrides one of them is honoured; a
model that overrides `train_step` or `test_step` itself is run by it.
"""

import contextlib
import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import attrs
import keras
import tensorflow as tf

from engine import losses, metrics
from engine.description import described
from engine.errors import ConfigError, DataError
from engine.loop import batch_size
from engine.optimizers import parts_of, put_averages, rate_source
from engine.outline import Outline, symbols, why_refused
from engine.task import Batch, Phase, StepValues, Task, is_optimizer

Parts = list[tuple[tf.Tensor, tf.Tensor | None]]  # see `losses.counted_parts`


@attrs.define(eq=False)
class Supervised(Task):
    """The task of a compiled `keras.Model`.

    Attributes:
        model: Compiled, unless it shall only predict; built, if it is not yet, from the first batch's shapes.
        run_eagerly: Whether its steps run as plain Python, though it may not be compiled so.
        report_terms: Whether a step also returns what its loss is the sum of, by name.
        report_gradients: Whether a step also returns the norm of its gradients.
    """

    model: keras.Model
    run_eagerly: bool = attrs.field(default=False, kw_only=True)
    report_terms: bool = attrs.field(default=False, kw_only=True)
    report_gradients: bool = attrs.field(default=False, kw_only=True)
    _spec: Any = attrs.field(init=False, default=None)
    _y_pred: Any = attrs.field(init=False, default=None)
    _built_for: Any = attrs.field(init=False, default=None)
    _outline: Outline = attrs.field(init=False)
    _takes_training: bool = attrs.field(init=False)
    _bundle: metrics.NamedMetrics = attrs.field(init=False, factory=dict)
    _trackers: list[keras.metrics.Metric] = attrs.field(init=False, factory=list)
    _standing: metrics.NamedMetrics = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self._outline = Outline(run_eagerly=self.run_eagerly or self.model.run_eagerly)
        self._takes_training = "training" in inspect.signature(self.model.call).parameters

    def build(self, spec: Any, phase: Phase) -> None:
        """Builds the model, its losses, metrics and optimizer; compares the targets' shapes with the outputs'.

        Raises:
            ConfigError: The model is not compiled, or its loss cannot be shared among replicas.
            DataError: The model does not take such inputs, or the loss such targets.
        """
        if not self.model.compiled:
            raise ConfigError(
                f"The model {self.model.name!r} is not compiled, so that it can only predict. Call "
                "model.compile(optimizer, loss), or give optimizer and loss to the Trainer."
            )
        if self._overrides(f"{phase}_step"):
            self._refuse_reports(f"{phase}_step")
            with contextlib.suppress(NotImplementedError):  # a model that holds others need not be callable itself
                self._build_model(spec)
            # It may use the targets in any way: what cannot be built from them now is built, or not, by the step.
            with contextlib.suppress(Exception):
                self._build_metrics(spec)
            return
        self._build_model(spec)
        _, y, sample_weight = keras.utils.unpack_x_y_sample_weight(spec)
        if y is None and self.model.loss is not None and not self._overrides("compute_loss"):
            raise DataError(
                f"y is None, but the model {self.model.name!r} was compiled with a loss that compares its outputs with "
                "targets. Give y, or a dataset of (x, y) batches."
            )
        losses.warn_of_unused(self.model.loss, self._y_pred)
        losses.check_share(self.model.loss, accumulate=self.updates.accumulate, is_weighted=sample_weight is not None)
        losses.check_target_shapes(self.model.loss, y, self._y_pred)
        self._build_metrics(spec)

    def check_targets(self, targets: Any) -> None:
        """Compares class numbers with the outputs there are, and refuses NaN."""
        if self._y_pred is not None:  # which a model with a step of its own need not have
            losses.check_target_values(self.model.loss, targets, self._y_pred)

    def train_step(self, batch: Batch) -> StepValues:
        """Forward pass, loss, gradients, update, metrics."""
        if self._overrides("train_step"):
            return _as_they_stand(self.model.train_step(batch))
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        size, weights = batch_size(x), self.model.trainable_weights
        with losses.Total() as total:
            y_pred = self._call(x, training=True)
            loss, parts, terms = self._compute_loss(x, y, y_pred, sample_weight, training=True)
            _add(total, loss, parts)
        if weights:
            total.minimize(weights, self.model.optimizer, log_norm=self.report_gradients)
        else:
            warnings.warn("The model does not have any trainable weights: it is only evaluated.", stacklevel=2)
        loss = _in_logs(loss, parts)
        return terms | total.norms() | self._compute_metrics(loss, size, x, y, y_pred, sample_weight)

    def test_step(self, batch: Batch) -> StepValues:
        """Forward pass, loss, metrics."""
        if self._overrides("test_step"):
            return _as_they_stand(self.model.test_step(batch))
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        y_pred = self._call(x, training=False)
        loss, parts, terms = self._compute_loss(x, y, y_pred, sample_weight, training=False)
        return terms | self._compute_metrics(_in_logs(loss, parts), batch_size(x), x, y, y_pred, sample_weight)

    def predict_step(self, batch: Batch) -> Any:
        """The model's outputs."""
        return self.model.predict_step(batch)

    def results(self, phase: Phase) -> dict[str, tf.Tensor]:
        """Of a step that the model brings itself, nothing: it returns them."""
        return {} if self._overrides(f"{phase}_step") else metrics.results(self._standing)

    def live_metrics(self, phase: Phase) -> list[keras.metrics.Metric]:
        """Those that are no means; all of them for a step that the model brings itself."""
        is_own = self._overrides(f"{phase}_step") or self._own_metrics
        return list(self.model.metrics) if is_own else list(self._standing.values())

    def publish(self, means: metrics.RunningMeans) -> None:
        """To the loss tracker, the compiled metrics and each output's loss."""
        trackers = {tracker.name: tracker for tracker in self._trackers}
        means.publish({"loss": self._loss_tracker()} | self._bundle | trackers)

    def finish(self) -> None:
        """Lets an optimizer that averages weights (EMA) put the averages in their place."""
        if is_optimizer(self.model.optimizer):
            put_averages(self.model.optimizer)

    def parts(self) -> dict[str, Any]:
        """The model, its optimizer, and optimizers that it keeps as attributes."""
        kept = {name: value for name, value in vars(self.model).items() if is_optimizer(value)}
        optimizer = getattr(self.model, "optimizer", None)
        return {"model": self.model} | ({} if optimizer is None else {"optimizer": optimizer}) | kept

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Those of the model."""
        return list(self.model.metrics)

    def reset_metrics(self) -> None:
        """As the model does it."""
        self.model.reset_metrics()

    def ingredients(self) -> list[Any]:
        """What was compiled, and which weights are trainable."""
        model = self.model
        if not model.compiled:
            return []
        compiled = keras.Model.metrics.fget(model)
        return [
            model.optimizer,
            *map(rate_source, parts_of(model.optimizer)),
            self.model.loss,
            model.jit_compile,
            model.run_eagerly,
            *compiled,
            *model.trainable_weights,
        ]

    def facts(self) -> dict[str, Any]:
        """What was compiled."""
        model = self.model
        compiled = {
            "model": type(model).__name__,
            "loss": described(model.loss),
            "metrics": sorted(metrics.named(keras.Model.metrics.fget(model))),
            "run_eagerly": self.run_eagerly or model.run_eagerly,
        }
        return super().facts() | compiled

    def _refuse_reports(self, step: str) -> None:
        if self.report_gradients and step == "train_step":
            raise ConfigError(
                f"report_gradients=True, but {type(self.model).__name__} has a train_step of its own, which takes its "
                "gradients itself. Write it with losses.Total and minimize(..., log_norm=True)."
            )
        if self.report_terms:
            raise ConfigError(
                f"report_terms=True, but {type(self.model).__name__} has a {step} of its own, which computes its loss "
                "itself. Return the terms from it, or override compute_loss instead."
            )

    def _overrides(self, method: str) -> bool:
        return getattr(type(self.model), method) is not getattr(keras.Model, method)

    def _call(self, x: Any, *, training: bool) -> Any:
        return self.model(x, training=training) if self._takes_training else self.model(x)

    def _compute_loss(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any, *, training: bool
    ) -> tuple[tf.Tensor, Parts, StepValues]:
        """The total loss, its parts where they count apart, and each output's own where there are several."""
        compute = self.model.compute_loss
        arguments = {"x": x, "y": y, "y_pred": y_pred, "sample_weight": sample_weight}
        if "training" in inspect.signature(compute).parameters:
            arguments["training"] = training
        # Not in a StatelessScope, where Keras forgets activity losses: the trackers are made to hold this batch only.
        for tracker in self._trackers:
            tracker.reset_state()
        loss = compute(**arguments)
        parts: Parts = []
        if losses.has_shares() and not self._overrides("compute_loss"):
            parts = losses.counted_parts(self.model, y, y_pred, sample_weight)
        counts = [count for _, count in parts]
        values = self._tracked(counts)
        if self.report_terms:
            values |= self._terms(loss, counts, y, y_pred, sample_weight)
        # Weighted by samples, like the loss itself, so that the terms of an epoch add up to its loss.
        return loss, parts, {name: (value, batch_size(x)) for name, value in values.items()}

    def _tracked(self, counts: Sequence[tf.Tensor | None]) -> dict[str, tf.Tensor]:
        """Each output's loss, where there are several."""
        if not self._trackers:
            return {}
        in_order = self.model._compile_loss.metrics  # one for each loss, as the counts are
        count_of = {id(tracker): count for tracker, count in zip(in_order, counts, strict=False)}
        return {own.name: losses.in_logs(own.result(), count_of.get(id(own))) for own in self._trackers}

    def _terms(
        self, loss: tf.Tensor, counts: Sequence[tf.Tensor | None], y: Any, y_pred: Any, sample_weight: Any
    ) -> dict[str, tf.Tensor]:
        outputs, data = losses.outputs_of(self.model, counts) if self._trackers else {}, None
        if not outputs and not self._overrides("compute_loss"):
            data = losses.data_loss(self.model, y, y_pred, sample_weight)
            data = losses.in_logs(data, counts[0]) if counts else data
        return losses.terms_of(self.model, losses.of_samples(losses.mean_of(loss)), outputs, data=data)

    def _compute_metrics(
        self, loss: tf.Tensor, size: tf.Tensor, x: Any, y: Any, y_pred: Any, sample_weight: Any
    ) -> StepValues:
        compute = self.model.compute_metrics
        if self._own_metrics:
            self._loss_tracker().update_state(loss, sample_weight=size)
            return _as_they_stand(compute(x, y, y_pred, sample_weight=sample_weight))
        means = metrics.batch_means(self._bundle, lambda: compute(x, y, y_pred, sample_weight=sample_weight))
        return {"loss": (loss, size), **means} if _is_in(self._loss_tracker(), self.model.metrics) else dict(means)

    @property
    def _own_metrics(self) -> bool:
        """Whether the model computes its logs itself, so that they are taken as they stand."""
        return self._overrides("compute_metrics") or self._overrides("get_metrics_result")

    def _loss_tracker(self) -> keras.metrics.Metric:
        return keras.Model.metrics.fget(self.model)[0]

    def _build_model(self, spec: Any) -> None:
        """Runs the model once on symbols, as Keras does before it trains under a strategy."""
        if self._y_pred is None or not _equal(spec, self._spec):
            x, _, _ = keras.utils.unpack_x_y_sample_weight(symbols(spec))
            try:
                self._y_pred = self._outline.of(lambda x: self._call(x, training=False), x)
            except ValueError as error:
                raise DataError(why_refused(self.model, x, error)) from error
            self._spec = spec
        if self.model.optimizer is not None and not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)

    def _build_metrics(self, spec: Any) -> None:
        """Creates the variables of metrics and of several losses, which Keras makes when it first sees targets."""
        if self._built_for is not self._loss_tracker():  # of which compile() makes another
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(symbols(spec))
            y_pred = self._y_pred
            self._outline.of(self.model.compute_metrics, x, y, y_pred, sample_weight)
            if keras.tree.is_nested(y_pred) or keras.tree.is_nested(y):
                self._outline.of(self.model.compute_loss, x, y, y_pred, sample_weight)
            self.model.reset_metrics()
            self._built_for = self._loss_tracker()
        self._sort_metrics()

    def _sort_metrics(self) -> None:
        """Tells apart what `compile` bundled, the means of several losses, and metrics that the model brings."""
        compiled, brought = keras.Model.metrics.fget(self.model), keras.layers.Layer.metrics.fget(self.model)
        bundles = [metric for metric in compiled if metric.name == "compile_metrics"]
        trackers = [m for m in compiled if not _is_in(m, [self._loss_tracker(), *bundles, *brought])]
        # What the model's own `metrics` leaves out is neither reset nor reported.
        visible = [metric for metric in self.model.metrics if metric is not self._loss_tracker()]
        self._bundle = metrics.named([bundle for bundle in bundles if _is_in(bundle, visible)])
        self._trackers = [] if self._overrides("compute_loss") else [m for m in trackers if _is_in(m, visible)]
        stateful = {name: metric for name, metric in self._bundle.items() if not metrics.is_mean(metric)}
        rest = metrics.named([metric for metric in visible if not _is_in(metric, [*bundles, *self._trackers])])
        self._standing = {} if self._own_metrics else stateful | rest


def _add(total: losses.Total, loss: tf.Tensor, parts: Parts) -> None:
    """Adds a loss to a total, those of its parts that are no means over the samples apart."""
    counted = [(value, count) for value, count in parts if count is not None]
    own = losses.of_samples(tf.reduce_sum(loss))
    for index, (value, count) in enumerate(counted):
        total.add(f"data/{index}", value, count=count)
    total.add("rest", own - sum(value for value, _ in counted) if counted else own)


def _in_logs(loss: tf.Tensor, parts: Parts) -> tf.Tensor:
    """The loss of this replica's own samples, its parts as much as they weigh in that of the whole batch."""
    own = losses.of_samples(losses.mean_of(loss))
    return own + sum(losses.in_logs(value, count) - value for value, count in parts) if parts else own


def _is_in(wanted: Any, objects: Sequence[Any]) -> bool:
    return any(wanted is candidate for candidate in objects)


def _equal(left: Any, right: Any) -> bool:
    return bool(keras.tree.flatten(left) == keras.tree.flatten(right))


def _as_they_stand(values: dict[str, Any]) -> StepValues:
    """What a user's own step returned: running values already, nested dicts taken apart as Keras does."""
    found: StepValues = {}
    for name, value in values.items():
        found |= _as_they_stand(value) if isinstance(value, dict) else {name: (value, None)}
    return found

"""What a model overrides of Keras's public methods is honoured as `model.fit` honours it."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Trainer
from engine.callbacks import LossHistory
from tests.helpers import NUM_CLASSES, Recorder, assert_bit_equal, samples
from tests.oracle import RTOL, assert_same_logs, assert_trained_alike, twins

X, Y = samples(43, shape=(4,))  # six batches of at most 8, the last of three
WEIGHTS = np.linspace(0.5, 2.0, 43).astype("float32")


def dataset(*parts):
    return tf.data.Dataset.from_tensor_slices(parts or (X, Y)).batch(8)


class Plain(keras.Model):
    """Dropout and a regularizer, so that a call at the wrong time or in the wrong mode shows."""

    def __init__(self):
        super().__init__()
        self.dropout = keras.layers.Dropout(0.3)
        self.dense = keras.layers.Dense(NUM_CLASSES, activation="softmax", kernel_regularizer="l2")
        self.mean = keras.metrics.Mean(name="mean")
        self.total = keras.metrics.Sum(name="total")

    def call(self, x, training=False):
        return self.dense(self.dropout(x, training=training))

    def learn(self, data):
        """One update; returns the loss of the batch and its outputs."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight)
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss, y_pred


class TrainStep(Plain):
    """Raw values, which both log as the last batch's, beside metrics with state."""

    def train_step(self, data):
        loss, y_pred = self.learn(data)
        self.mean.update_state(loss)
        self.total.update_state(tf.shape(y_pred)[0])
        return {"mean": self.mean.result(), "total": self.total.result(), "raw": loss, "three": 3}


class SuperTrainStep(Plain):
    def train_step(self, data):
        self.total.update_state(1.0)
        logs = super().train_step(data)
        return logs | {"steps": self.total.result()}


class NestedDicts(Plain):
    """Keras takes nested dicts apart and drops the outer names."""

    def train_step(self, data):
        loss, y_pred = self.learn(data)
        return {"c": {"loss of batch": loss, "a": {"deep": tf.reduce_max(y_pred)}}, "b": tf.reduce_min(y_pred)}


class EvaluationStep(Plain):
    def test_step(self, data):
        x, y = data[:2]
        self.mean.update_state(self.compute_loss(x, y, self(x, training=False), training=False))
        return {"mean": self.mean.result(), "size": tf.shape(y)[0]}


class BothSteps(TrainStep):
    test_step = EvaluationStep.test_step


class ComputeLoss(Plain):
    """Its own term counts in training only; it keeps a metric of its own."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        penalty = tf.reduce_mean(tf.square(x)) * tf.reduce_sum(self.dense.bias**2)
        self.mean.update_state(penalty)
        return super().compute_loss(x, y, y_pred, sample_weight, training) + (penalty if training else 0.0)


class ComputeLossWithoutTraining(Plain):
    """As models were written before Keras 3.3; compiled without a loss."""

    def compute_loss(self, x, y, y_pred, sample_weight):
        return tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, y_pred)) + sum(self.losses)


class ComputeMetrics(Plain):
    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.total.update_state(tf.reduce_sum(x))
        return super().compute_metrics(x, y, y_pred, sample_weight) | {"batch": tf.shape(y)[0]}


class ComputeMetricsAlone(Plain):
    """Nothing of Keras's own is called, so that not even a loss is logged."""

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.mean.update_state(keras.metrics.sparse_categorical_accuracy(y, y_pred), sample_weight)
        return {"hits": self.mean.result()}


class GetMetricsResult(Plain):
    def get_metrics_result(self):
        logs = super().get_metrics_result()
        return logs | {"twice": 2.0 * logs["loss"]}


class MetricsProperty(Plain):
    """The example in the documentation of `keras.Model.compute_loss`."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        self.mean.update_state(loss)
        return loss

    def reset_metrics(self):
        self.mean.reset_state()

    @property
    def metrics(self):
        return [self.mean]


class MoreMetrics(Plain):
    """The property adds one that no attribute of the model shows to Keras."""

    hidden = ()

    def __init__(self):
        super().__init__()
        self.hidden = ("not tracked", keras.metrics.RootMeanSquaredError(name="hidden"))

    def call(self, x, training=False):
        y_pred = super().call(x, training)
        self.hidden[1].update_state(tf.zeros_like(y_pred), y_pred)
        return y_pred

    @property
    def metrics(self):
        return [*super().metrics, self.hidden[1]]


class StepAndMetrics(SuperTrainStep, ComputeMetrics, ComputeLoss):
    """All at once, each on top of the other."""


class CallWithoutTraining(Plain):
    """Layers that need to know learn of the mode from Keras."""

    def call(self, x):
        return self.dense(self.dropout(x))


class Inner(keras.Model):
    """Compiled and with a metric of its own, which Keras ignores inside another model."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(4, activation="relu")
        self.norm = keras.metrics.Mean(name="norm")
        self.compile("adam", "mse", metrics=["mae"])

    def call(self, x):
        hidden = self.dense(x)
        self.norm.update_state(tf.norm(hidden))
        return hidden


class Nested(Plain):
    def __init__(self):
        super().__init__()
        self.inner = Inner()

    def call(self, x, training=False):
        return super().call(self.inner(x), training)


CASES = [
    TrainStep, SuperTrainStep, NestedDicts, EvaluationStep, BothSteps, ComputeLoss, ComputeLossWithoutTraining,
    ComputeMetrics, ComputeMetricsAlone, GetMetricsResult, MetricsProperty, MoreMetrics, StepAndMetrics,
    CallWithoutTraining, Nested,
]  # fmt: skip
# What Keras would fail on if there were compiled metrics, as they do not use them.
NEVER_BUILT = (TrainStep, NestedDicts, EvaluationStep, BothSteps, ComputeMetricsAlone)


def compiled(kind):
    def make():
        model = kind()
        loss = None if kind is ComputeLossWithoutTraining else "sparse_categorical_crossentropy"
        model.compile("adam", loss, metrics=None if issubclass(kind, NEVER_BUILT) else ["accuracy"])
        return model

    return make


def data_of(kind):
    """With weights of samples, where metrics may use them."""
    return dataset(X, Y, WEIGHTS) if kind in (ComputeMetricsAlone, ComputeMetrics) else dataset()


# Those that an evaluation or a prediction calls otherwise than a validation does; it takes as long as the training.
EVALUATED = (EvaluationStep, ComputeMetrics, MetricsProperty, CallWithoutTraining, Nested)


@pytest.mark.parametrize(("kind", "steps_per_execution"), list(zip(CASES, itertools.cycle([4, 1]), strict=False)))
def test_a_model_trains_validates_and_predicts_as_in_keras(kind, steps_per_execution):
    """Weights bit by bit, history and `evaluate` by name and value; also where a block is longer than a step."""
    data, how = data_of(kind), {"steps_per_execution": steps_per_execution}
    theirs, ours = assert_trained_alike(compiled(kind), lambda: (data,), trainer=how, validation_data=dataset())
    if kind not in EVALUATED:
        return
    trainer, scores = Trainer(ours, **how), theirs.evaluate(data, verbose=0, return_dict=True)

    assert_same_logs(dict(sorted(scores.items())), trainer.evaluate(data, verbose=0))
    assert_bit_equal([theirs.predict(X, verbose=0)], [trainer.predict(X, verbose=0)])


class Hooked(Recorder):
    """Keeps the logs of every batch."""

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append((batch, dict(logs)))


@pytest.mark.parametrize("kind", [TrainStep, NestedDicts, StepAndMetrics])
def test_every_batch_has_the_logs_it_has_in_keras(kind):
    theirs, ours = (Hooked() for _ in range(2))
    models = twins(compiled(kind))
    models[0].fit(dataset(), callbacks=[theirs], shuffle=False, verbose=0)
    Trainer(models[1]).fit(dataset(), callbacks=[ours], verbose=0)
    batches = [[call for call in recorder.calls if isinstance(call[0], int)] for recorder in (theirs, ours)]

    assert 6 == len(batches[0]) == len(batches[1])
    for (number, expected), (given_number, given) in zip(*batches, strict=True):
        assert number == given_number
        assert_same_logs(expected, given)


class LossOnly(TrainStep):
    """Its own metrics are left out, so that Keras finds the names that it knows."""

    @property
    def metrics(self):
        return keras.Model.metrics.fget(self)[:1]

    def train_step(self, data):
        return {"loss": self.learn(data)[0]}


def test_a_raw_loss_is_logged_as_the_last_batchs():
    """Keras has 0 in its history: it prefers its own loss metric of the same name, which nobody has updated."""
    theirs, ours = twins(compiled(LossOnly))
    hooked, losses = Hooked(), LossHistory()
    zeros = theirs.fit(dataset(), callbacks=[hooked], shuffle=False, verbose=0).history
    history = Trainer(ours).fit(dataset(), callbacks=[losses], verbose=0).history
    expected = [call[1]["loss"] for call in hooked.calls if isinstance(call[0], int)]

    assert {"loss": [0.0]} == zeros
    assert {"loss": [expected[-1]]} == history
    assert expected == losses.losses.tolist()
    assert_bit_equal(theirs.get_weights(), ours.get_weights())


class PredictStep(Plain):
    def predict_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        y_pred = self(x, training=False)
        return {"class": tf.argmax(y_pred, -1), "sure": (tf.reduce_max(y_pred, -1), y_pred > 0.5)}


@pytest.mark.parametrize(("data", "steps_per_execution"), [(X, 1), (dataset(), 4)], ids=["arrays", "dataset"])
def test_a_predict_step_of_ones_own_gives_what_it_gives_in_keras(data, steps_per_execution):
    theirs, ours = twins(compiled(PredictStep))
    expected = theirs.predict(data, verbose=0)
    given = Trainer(ours, steps_per_execution=steps_per_execution).predict(data, verbose=0)

    keras.tree.assert_same_structure(expected, given)
    assert [a.dtype for a in keras.tree.flatten(expected)] == [a.dtype for a in keras.tree.flatten(given)]
    assert_bit_equal(keras.tree.flatten(expected), keras.tree.flatten(given))


class Lifetime(Plain):
    """Its `reset_metrics` leaves one metric alone, which then counts over all epochs."""

    def reset_metrics(self):
        for metric in self.metrics:
            if metric is not self.total:
                metric.reset_state()

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.total.update_state(tf.shape(y)[0])
        return super().compute_loss(x, y, y_pred, sample_weight, training)


def test_a_metric_that_is_never_reset_counts_over_all_epochs():
    _, ours = assert_trained_alike(compiled(Lifetime), lambda: (dataset(),), epochs=3)

    assert [43.0, 86.0, 129.0] == ours.history.history["total"]


class Adversaries(keras.Model):
    """The GAN of keras.io: a `compile` of its own, two inner models with an optimizer each, built by the step."""

    def __init__(self):
        super().__init__()
        self.judge = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
        self.maker = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(4)])
        self.noise = keras.random.SeedGenerator(5)
        self.judge_loss = keras.metrics.Mean(name="judge_loss")
        self.maker_loss = keras.metrics.Mean(name="maker_loss")

    def compile(self, judge_optimizer, maker_optimizer, loss_function):
        super().compile()
        self.judge_optimizer, self.maker_optimizer = judge_optimizer, maker_optimizer
        self.loss_function = loss_function

    @property
    def metrics(self):
        return [self.judge_loss, self.maker_loss]

    def train_step(self, real):
        size = tf.shape(real)[0]
        made = self.maker(keras.random.normal((size, 2), seed=self.noise))
        labels = tf.concat([tf.ones((size, 1)), tf.zeros((size, 1))], 0)
        with tf.GradientTape() as tape:
            judge_loss = self.loss_function(labels, self.judge(tf.concat([made, real], 0)))
        weights = self.judge.trainable_weights
        self.judge_optimizer.apply_gradients(zip(tape.gradient(judge_loss, weights), weights, strict=True))
        with tf.GradientTape() as tape:
            made = self.maker(keras.random.normal((size, 2), seed=self.noise))
            maker_loss = self.loss_function(tf.zeros((size, 1)), self.judge(made))
        weights = self.maker.trainable_weights
        self.maker_optimizer.apply_gradients(zip(tape.gradient(maker_loss, weights), weights, strict=True))
        self.judge_loss.update_state(judge_loss)
        self.maker_loss.update_state(maker_loss)
        return {"judge_loss": self.judge_loss.result(), "maker_loss": self.maker_loss.result()}


def test_adversaries_with_an_optimizer_each_train_as_in_keras():
    def make():
        model = Adversaries()
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.01), keras.optimizers.Adam(0.02), loss)
        return model

    theirs, ours = assert_trained_alike(
        make, lambda: (tf.data.Dataset.from_tensor_slices(X).batch(8),), trainer={"steps_per_execution": 4}
    )

    for name in ("judge_optimizer", "maker_optimizer"):
        assert_bit_equal(*([v.numpy() for v in getattr(model, name).variables] for model in (theirs, ours)))


class OnlySteps(keras.Model):
    """No model that can be called, whose step knows how its parts belong together."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(NUM_CLASSES)

    def build(self, input_shape):
        self.dense.build((None, 4))

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, keras.ops.softmax(self.dense(x)))
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"own_loss": loss}


def test_a_model_that_cannot_be_called_trains_on_arrays_of_class_numbers_as_in_keras():
    def make():
        model = OnlySteps()
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    assert_trained_alike(make, lambda: (X, Y))


@pytest.mark.parametrize(
    "make_layer",
    [
        lambda: keras.layers.Dense(NUM_CLASSES, activation="softmax", kernel_regularizer="l2"),
        lambda: keras.layers.BatchNormalization(),
        lambda: keras.layers.Pipeline([keras.layers.Rescaling(0.5), keras.layers.Dense(4)]),
    ],
    ids=["dense", "state that is no weight", "layers in a layer"],
)
def test_a_layer_that_is_no_model_trains_as_a_sequential_of_it(make_layer):
    loss = {"optimizer": "adam", "loss": "mse", "metrics": ["mae"]}
    targets = np.tile(X.sum(1, keepdims=True), (1, make_layer()(X).shape[-1]))
    outputs, histories = [], []
    for is_theirs in (True, False):
        keras.utils.set_random_seed(4)
        layer = make_layer()
        if is_theirs:
            model = keras.Sequential([layer])
            model.compile(**loss)
            fit, predict = model.fit, model.predict
        else:
            trainer = Trainer(layer, **loss)
            fit, predict = trainer.fit, trainer.predict
        histories.append(fit(X, targets, batch_size=8, epochs=2, shuffle=False, verbose=0).history)
        outputs.append([*(variable.numpy() for variable in layer.variables), predict(X, verbose=0)])

    assert_bit_equal(*outputs)
    assert_same_logs(*histories, rtol=RTOL)

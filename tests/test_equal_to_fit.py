"""The promise: the weights of `Trainer(model).fit` are those of `model.fit`, bit for bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Trainer
from engine.callbacks import LossHistory
from tests.helpers import BATCH_SIZE, assert_bit_equal, classifier, in_engine_order, samples, weights_of

EPOCHS, SEED = 3, 7
HISTORY_TOLERANCE = 1e-6  # ours sums in float64, Keras in float32


@pytest.fixture(scope="module")
def expected():
    """What `model.fit` makes of the batches that a Trainer with this seed takes."""
    x, y = samples()
    model = classifier()
    dataset = in_engine_order(x, y, batch_size=BATCH_SIZE, seed=SEED, epochs=EPOCHS)
    history = model.fit(dataset, epochs=EPOCHS, validation_data=(x[:11], y[:11]), shuffle=False, verbose=0)
    return weights_of(model), history.history


def fit(data, steps_per_execution):
    x, y = samples()
    losses = LossHistory()
    model = classifier()
    trainer = Trainer(model, seed=SEED, steps_per_execution=steps_per_execution)
    arguments = {"epochs": EPOCHS, "validation_data": (x[:11], y[:11]), "callbacks": [losses], "verbose": 0}
    if data == "arrays":
        history = trainer.fit(x, y, batch_size=BATCH_SIZE, **arguments)
    else:
        dataset = in_engine_order(x, y, batch_size=BATCH_SIZE, seed=SEED, epochs=EPOCHS)
        history = trainer.fit(dataset, **arguments)
    return model, history.history, losses


@pytest.mark.parametrize("data", ["arrays", "dataset"])
@pytest.mark.parametrize("steps_per_execution", [1, 7, "auto"])
def test_weights_are_bit_equal_and_history_is_equal(expected, data, steps_per_execution):
    """Convolution, batch normalisation, dropout and a ragged last batch, whatever the length of the blocks."""
    expected_weights, expected_history = expected
    model, history, _ = fit(data, steps_per_execution)

    assert_bit_equal(expected_weights, weights_of(model))
    assert list(expected_history) == list(history)
    for name, values in expected_history.items():
        np.testing.assert_allclose(history[name], values, rtol=HISTORY_TOLERANCE, atol=0, err_msg=name)


def test_every_batch_has_one_loss_and_it_does_not_depend_on_the_blocks():
    one, auto = fit("arrays", 1)[2], fit("arrays", "auto")[2]

    assert (6 * EPOCHS,) == one.losses.shape
    assert one.batches == auto.batches
    assert one.epochs == auto.epochs


def test_the_loss_of_a_batch_is_what_train_on_batch_gives():
    x, y = samples()
    losses = LossHistory()
    Trainer(classifier(), seed=SEED).fit(x, y, batch_size=BATCH_SIZE, callbacks=[losses], verbose=0)
    model = classifier()
    expected = []
    for batch in in_engine_order(x, y, batch_size=BATCH_SIZE, seed=SEED, epochs=1):
        model.reset_metrics()
        expected.append(model.train_on_batch(*batch, return_dict=True)["loss"])

    np.testing.assert_allclose(losses.losses, expected, rtol=HISTORY_TOLERANCE)


def two_headed(**compile_arguments):
    keras.utils.set_random_seed(2)
    image = keras.Input((6, 6, 1), name="image")
    hidden = keras.layers.Dense(8, activation="relu", activity_regularizer="l1")(keras.layers.Flatten()(image))
    kind = keras.layers.Dense(3, activation="softmax", name="kind")(hidden)
    size = keras.layers.Dense(1, name="size")(hidden)
    model = keras.Model({"image": image}, {"kind": kind, "size": size})
    model.compile("rmsprop", **compile_arguments)
    return model


def test_several_outputs_their_losses_weights_and_metrics_are_equal():
    """Dicts of inputs and outputs, loss weights, metrics with state beside means, sample weights."""
    x, y = samples(40)
    data = ({"image": x}, {"kind": y, "size": x.mean((1, 2))}, {"kind": np.linspace(0, 1, 40), "size": np.ones(40)})
    compiled = {
        "loss": {"kind": "sparse_categorical_crossentropy", "size": "mse"},
        "loss_weights": {"kind": 2.0, "size": 0.5},
        "metrics": {"kind": ["accuracy"], "size": ["mae", keras.metrics.RootMeanSquaredError()]},
        "weighted_metrics": {"kind": ["accuracy"]},
    }
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(8)
    theirs, ours = two_headed(**compiled), two_headed(**compiled)
    expected = theirs.fit(dataset, epochs=2, shuffle=False, verbose=0).history
    given = Trainer(ours).fit(dataset, epochs=2, verbose=0).history

    assert_bit_equal(weights_of(theirs), weights_of(ours))
    assert list(expected) == list(given)
    for name, values in expected.items():
        np.testing.assert_allclose(given[name], values, rtol=1e-5, err_msg=name)


class OwnStep(keras.Model):
    """A model with a train step of its own, and a loss metric that is a plain mean over batches."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3, activation="softmax")
        self.flatten = keras.layers.Flatten()
        self.tracker = keras.metrics.Mean(name="own")

    def call(self, x, training=False):
        return self.dense(self.flatten(x))

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        self.tracker.update_state(loss)
        return {"own": self.tracker.result(), "twice": 2.0 * loss}


class OwnLoss(OwnStep):
    """A model that overrides what is called inside the step, and keeps a metric of its own."""

    train_step = keras.Model.train_step

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        penalty = tf.reduce_mean(tf.square(self.dense.kernel))
        self.tracker.update_state(penalty)
        return super().compute_loss(x, y, y_pred, sample_weight, training) + penalty


class OwnMetrics(OwnStep):
    train_step = keras.Model.train_step

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(x, y, y_pred, sample_weight) | {"batch": tf.cast(tf.shape(y)[0], tf.float32)}


@pytest.mark.parametrize("make", [OwnStep, OwnLoss, OwnMetrics])
def test_what_a_model_overrides_is_honoured(make):
    x, y = samples()
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    models = []
    for _ in range(2):
        keras.utils.set_random_seed(4)
        models.append(make())
        metrics = None if make is OwnStep else ["accuracy"]  # which Keras never builds for a step of one's own
        models[-1].compile("adam", "sparse_categorical_crossentropy", metrics=metrics)
    theirs, ours = models
    expected = theirs.fit(dataset, epochs=2, validation_data=dataset, shuffle=False, verbose=0).history
    given = Trainer(ours).fit(dataset, epochs=2, validation_data=dataset, verbose=0).history

    assert_bit_equal(weights_of(theirs), weights_of(ours))
    assert sorted(expected) == sorted(given)
    for name, values in expected.items():
        np.testing.assert_allclose(given[name], values, rtol=HISTORY_TOLERANCE, err_msg=name)


@pytest.mark.parametrize("return_dict", [True, False])
def test_evaluate_and_predict_are_equal(return_dict):
    x, y = samples()
    model = classifier(metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")])
    trainer = Trainer(model)
    expected = model.evaluate(x, y, verbose=0, return_dict=return_dict)
    given = trainer.evaluate(x, y, verbose=0, return_dict=return_dict)
    in_order = (lambda scores: [scores[name] for name in sorted(scores)]) if return_dict else list

    np.testing.assert_allclose(in_order(given), in_order(expected), rtol=HISTORY_TOLERANCE)
    np.testing.assert_array_equal(model.predict(x, verbose=0), trainer.predict(x, verbose=0))


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_eager_and_compiled_steps_give_one_result(run_eagerly):
    x, y = samples()
    model = classifier()
    trainer = Trainer(model, seed=SEED, run_eagerly=run_eagerly)
    trainer.fit(x, y, batch_size=BATCH_SIZE, verbose=0)
    model_in_graph = classifier()
    Trainer(model_in_graph, seed=SEED).fit(x, y, batch_size=BATCH_SIZE, verbose=0)

    # An eager convolution may take another kernel than one that the graph optimizer has fused.
    for left, right in zip(weights_of(model_in_graph), weights_of(model), strict=True):
        np.testing.assert_allclose(right, left, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trainer.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5)

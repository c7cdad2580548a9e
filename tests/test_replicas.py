"""The promise: two replicas that share a batch train as one replica with the whole batch."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import ConfigError, DataError, Trainer
from engine.callbacks import LossHistory
from tests.helpers import NUM_CLASSES, Recorder, samples

# Equal, but for the order in which a batch is summed: each half first.
TOLERANCE = 1e-6


@pytest.fixture
def strategy(two_replicas):
    return two_replicas


def model_in(scope, **compile_arguments):
    """No batch normalisation, whose statistics are each replica's own, and no dropout, whose draws are."""
    keras.utils.set_random_seed(1)
    with scope:
        model = keras.Sequential([
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", kernel_regularizer="l2"),
            keras.layers.Flatten(),
            keras.layers.Dense(NUM_CLASSES, activation="softmax", activity_regularizer="l2"),
        ])  # fmt: skip
        arguments = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]} | compile_arguments
        model.compile(keras.optimizers.Adam(1e-2), **arguments)
    return model


def train(model, data, callbacks=()):
    x, y = samples(45)  # batches of 8, the last of 5: one replica gets three of its samples, the other two
    weights = np.linspace(0.5, 1.5, 45, dtype="float32")
    losses = LossHistory()
    trainer = Trainer(model, seed=3)
    arguments = {"epochs": 3, "validation_data": (x[:13], y[:13]), "callbacks": [losses, *callbacks], "verbose": 0}
    if data == "arrays":
        history = trainer.fit(x, y, batch_size=8, sample_weight=weights, **arguments)
    else:
        history = trainer.fit(tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(8), **arguments)
    return losses, history.history, trainer.evaluate(x, y, verbose=0), trainer.predict(x, verbose=0)


@pytest.mark.parametrize("data", ["arrays", "dataset"])
def test_losses_history_scores_and_predictions_are_equal(strategy, data):
    """Regularizers counted once, sample weights, and a ragged last batch that does not halve."""
    one, one_history, one_scores, one_outputs = train(model_in(contextlib.nullcontext()), data)
    two, two_history, two_scores, two_outputs = train(model_in(strategy.scope()), data)

    np.testing.assert_allclose(two.losses, one.losses, rtol=TOLERANCE)
    np.testing.assert_allclose(two_outputs, one_outputs, rtol=0, atol=TOLERANCE)
    assert list(one_history) == list(two_history)
    for name, values in one_history.items():
        np.testing.assert_allclose(two_history[name], values, rtol=TOLERANCE, err_msg=name)
    for name, value in one_scores.items():
        np.testing.assert_allclose(two_scores[name], value, rtol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("data", ["arrays", "dataset"])
def test_a_callback_that_acts_on_batches_changes_nothing(strategy, data):
    whole_blocks = train(model_in(strategy.scope()), data)[0]
    single_steps = train(model_in(strategy.scope()), data, [Recorder()])[0]

    assert whole_blocks.batches == single_steps.batches


def test_metrics_with_state_are_those_of_all_samples(strategy):
    """Keras's AUC under replicas is the mean of each replica's own."""
    x, y = samples(45)
    targets = keras.utils.to_categorical(y, NUM_CLASSES)
    scores = []
    for scope in (contextlib.nullcontext, strategy.scope):
        with scope():
            auc = keras.metrics.AUC(num_thresholds=20, name="auc")
        model = model_in(scope(), loss="categorical_crossentropy", metrics=[auc])
        scores.append(Trainer(model).evaluate(x, targets, batch_size=8, verbose=0))

    np.testing.assert_allclose(scores[1]["auc"], scores[0]["auc"], rtol=TOLERANCE)


def test_a_model_made_outside_the_scope_is_refused(strategy):
    with pytest.raises(ConfigError, match=r"was not made in its scope. Make and compile the model inside"):
        Trainer(model_in(contextlib.nullcontext()), strategy=strategy)


def test_a_loss_that_is_summed_is_refused_since_keras_would_count_it_twice(strategy):
    x, y = samples(16)
    with strategy.scope():
        loss = keras.losses.SparseCategoricalCrossentropy(reduction="sum")
    with pytest.raises(ConfigError, match="reduction='sum'"):
        Trainer(model_in(strategy.scope(), loss=loss)).fit(x, y, verbose=0)


def test_a_last_batch_that_leaves_a_replica_without_samples_is_refused(strategy):
    x, y = samples(17)
    trainer = Trainer(model_in(strategy.scope()))

    with pytest.raises(DataError, match="last batch of 1 samples cannot be dealt to 2 replicas"):
        trainer.fit(x, y, batch_size=8, verbose=0)
    assert trainer.evaluate(x, y, batch_size=8, verbose=0)["loss"] > 0
    assert (17, NUM_CLASSES) == trainer.predict(x, batch_size=8, verbose=0).shape


def test_xla_is_refused(strategy):
    with pytest.raises(ConfigError, match="jit_compile=True does not go with the 2 replicas"):
        Trainer(model_in(strategy.scope()), jit_compile=True)

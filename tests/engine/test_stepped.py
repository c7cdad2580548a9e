import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import ConfigError, Supervised, Trainer, losses
from engine.stepped import Stepped
from tests.helpers import samples

X, Y = samples(22, shape=(4,))


def regression():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_regularizer="l2")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


def step(model, batch):
    x, y = batch
    with losses.Total() as total:
        total.compare("data", model.loss, y, tf.nn.softmax(total.call(model, x)))
    total.minimize(model)
    return total.logs()


def fit(trainer):
    return trainer.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0).history


def test_a_function_trains_a_model_as_keras_would():
    """The judge is `model.fit`; the loss is the same sum in another order."""
    theirs, ours = regression(), regression()
    theirs.add(keras.layers.Softmax())
    theirs.compile(theirs.optimizer, "sparse_categorical_crossentropy")
    expected = fit(theirs)
    history = fit(Trainer(ours, step=step))

    assert ["loss", "loss/data", "loss/regularization"] == list(history)
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-6)
    for one, other in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-7)


def test_a_function_may_train_a_layer():
    """The optimizer is given to the Trainer, which makes a model of the layer."""
    trainer = Trainer(keras.layers.Dense(3), optimizer="sgd", loss="sparse_categorical_crossentropy", step=step)
    history = fit(trainer)

    assert history["loss"][1] < history["loss"][0]
    assert (4, 3) == trainer.model.get_weights()[0].shape


def test_its_facts_tell_the_function():
    """So that a run is not taken up with another."""
    assert "step" == Stepped(regression(), step).facts()["step"]
    assert "method" == Stepped(regression(), type("method", (), {"__call__": step})()).facts()["step"]


REFUSALS = {
    "no function": (
        lambda: Trainer(regression(), step="step"),
        "step='step': expected a function of (model, batch) that returns a dict of scalars.",
    ),
    "beside a task": (
        lambda: Trainer(Supervised(regression()), step=step),
        "step was given beside an engine.Task, which has a train_step. Give one of them.",
    ),
    "with terms": (
        lambda: Trainer(regression(), step=step, report_terms=True),
        "report_terms=True beside a step of one's own, which returns what it likes to be logged.",
    ),
    "with norms": (
        lambda: Trainer(regression(), step=step, report_gradients=True),
        "report_gradients=True beside a step of one's own, which returns what it likes to be logged.",
    ),
}


@pytest.mark.parametrize(("make", "words"), REFUSALS.values(), ids=REFUSALS.keys())
def test_what_does_not_go_with_a_function_is_refused_in_words(make, words):
    with pytest.raises(ConfigError) as error:
        make()

    assert words == str(error.value)

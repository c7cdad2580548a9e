import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import DataError, Trainer
from tests.helpers import NUM_CLASSES, Recorder, perceptron, samples

X, Y = samples(43, shape=(4,))
TARGETS = keras.utils.to_categorical(Y, NUM_CLASSES)
WEIGHTS = np.linspace(0.5, 2.0, 43).astype("float32")
DATASET = tf.data.Dataset.from_tensor_slices((X, TARGETS, WEIGHTS)).batch(8)
RTOL = 1e-6  # ours sums in float64, Keras in float32


@pytest.fixture(scope="module")
def model():
    """Untrained; with means and a metric that holds state, weighted and not."""
    return perceptron(
        loss="categorical_crossentropy",
        metrics=["accuracy", keras.metrics.AUC(name="auc")],
        weighted_metrics=["accuracy", keras.metrics.AUC(name="weighted_auc")],
    )


@pytest.fixture(scope="module")
def trainer(model):
    return Trainer(model)


def assert_equal_scores(expected, given):
    assert sorted(expected) == list(given)
    for name, value in expected.items():
        np.testing.assert_allclose(given[name], value, rtol=RTOL, err_msg=name)


CASES = {
    "weights": {"x": X, "y": TARGETS, "sample_weight": WEIGHTS},
    "small batches": {"x": X, "y": TARGETS, "batch_size": 5},
    "some batches": {"x": X, "y": TARGETS, "batch_size": 8, "steps": 3},
    "a dataset": {"x": DATASET},
    "a part of a dataset": {"x": DATASET, "steps": 4},
    "a part of an endless dataset": {"x": DATASET.repeat(), "steps": 8},
}


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_keras(model, trainer, case):
    expected = model.evaluate(**CASES[case], verbose=0, return_dict=True)

    assert_equal_scores(expected, trainer.evaluate(**CASES[case], verbose=0))


def test_data_of_unknown_length_has_the_scores_of_data_of_known_length(trainer):
    assert trainer.evaluate(DATASET, verbose=0) == trainer.evaluate(DATASET.filter(lambda *_: True), verbose=0)


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_blocks_change_nothing(model, trainer, steps_per_execution):
    again = Trainer(model, steps_per_execution=steps_per_execution)

    assert trainer.evaluate(DATASET, verbose=0) == again.evaluate(DATASET, verbose=0)


def test_the_metric_objects_hold_the_scores_and_forget_those_before(model, trainer):
    trainer.evaluate(X[:5], TARGETS[:5], verbose=0)
    scores = trainer.evaluate(X, TARGETS, verbose=0)

    assert_equal_scores({name: float(value) for name, value in model.get_metrics_result().items()}, scores)


def test_a_single_score_comes_as_a_number_if_a_list_is_asked_for():
    model = perceptron(metrics=None)
    expected = model.evaluate(X, Y, verbose=0)
    given = Trainer(model).evaluate(X, Y, verbose=0, return_dict=False)

    assert isinstance(given, float)
    np.testing.assert_allclose(given, expected, rtol=RTOL)


class Stops(keras.callbacks.Callback):
    def __init__(self, hook):
        super().__init__()
        setattr(self, hook, self._stop)

    def _stop(self, *arguments, **named):
        if not arguments or arguments[0] == 2:
            self.model.stop_evaluating = True


@pytest.mark.parametrize("hook", ["on_test_begin", "on_test_batch_begin", "on_test_batch_end", "on_test_end"])
def test_stop_evaluating_takes_effect_where_keras_lets_it(model, trainer, hook):
    theirs, ours = Recorder(), Recorder()
    expected = model.evaluate(DATASET, callbacks=[Stops(hook), theirs], verbose=0, return_dict=True)
    given = trainer.evaluate(DATASET, callbacks=[Stops(hook), ours], verbose=0)

    assert theirs.calls == ours.calls
    assert_equal_scores(expected, given)


def test_inputs_may_be_named_in_a_dataset():
    left, right = keras.Input((2,), name="left"), keras.Input((2,), name="right")
    model = keras.Model(
        {"right": right, "left": left}, keras.layers.Dense(1)(keras.layers.Concatenate()([left, right]))
    )
    model.compile("sgd", "mse")
    named = tf.data.Dataset.from_tensor_slices(({"left": X[:, :2], "right": X[:, 2:]}, X.sum(1))).batch(8)
    trainer = Trainer(model)

    assert_equal_scores(model.evaluate(named, verbose=0, return_dict=True), trainer.evaluate(named, verbose=0))
    np.testing.assert_array_equal(model.predict(named, verbose=0), trainer.predict(named, verbose=0))


def test_fewer_batches_than_were_asked_for_are_said(model, trainer):
    """Keras says so as well, and both give the scores of what there was."""
    dataset = DATASET.filter(lambda *_: True)
    with pytest.warns(UserWarning, match="ran out of data"):
        expected = model.evaluate(dataset, steps=9, verbose=0, return_dict=True)
    with pytest.warns(UserWarning, match="6 of 9 steps"):
        given = trainer.evaluate(dataset, steps=9, verbose=0)

    assert_equal_scores(expected, given)


@pytest.mark.parametrize("data", [(X, TARGETS), (DATASET,)], ids=["arrays", "dataset"])
def test_more_steps_than_there_are_batches_is_refused_at_the_door(trainer, data):
    """Where their number is known. Keras evaluates on fewer, and warns."""
    with pytest.raises(DataError, match=r"^steps=9, but the data has \d batches. Give steps=\d or less"):
        trainer.evaluate(*data, batch_size=8 if len(data) == 2 else None, steps=9, verbose=0)

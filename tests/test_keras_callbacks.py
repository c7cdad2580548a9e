"""The promise: Keras's own callbacks, unmodified, do in a Trainer what they do in `model.fit`.

Each case of `callback_cases.py` is trained by Keras and by a Trainer, and all that can be seen of it is compared: the
history, every variable, files, what was printed, attributes at every epoch, what the hooks saw. The cases of a
callback take blocks of several lengths in turn. Keras takes one step at a time: what it does with more is in
"Differences from Keras", Counts. Those that write files have a file of their own, `test_keras_callbacks_that_write.py`.
"""

import inspect

import keras
import pytest

from tests.as_in_keras import NAMES, WRITING, assert_as_in_keras, params
from tests.callback_cases import CASES, EVALUATED, PREDICTED
from tests.callback_runs import Side, side

pytestmark = [pytest.mark.slow, pytest.mark.shares_models]  # some 250 fits


@pytest.mark.parametrize("name", NAMES)
def test_every_callback_and_every_parameter_has_a_case(name):
    parameters = inspect.signature(getattr(keras.callbacks, name)).parameters
    cases = [case.parameter for case in CASES if case.callback == name]

    assert cases
    assert set(parameters) == set(cases) - {None}


@pytest.mark.parametrize(("cases", "phase"), [(EVALUATED, "test"), (PREDICTED, "predict")])
def test_every_callback_with_hooks_of_evaluations_or_predictions_has_a_case(cases, phase):
    hooks = [f"on_{phase}_{moment}" for moment in ("begin", "end", "batch_begin", "batch_end")]
    kinds = {name: getattr(keras.callbacks, name) for name in NAMES}
    having = {
        name
        for name, kind in kinds.items()
        if any(not hasattr(getattr(kind, hook), "_is_default") for hook in hooks) or name == "LambdaCallback"
    }

    assert having == {case.callback for case in cases}


@pytest.mark.parametrize("case", params([case for case in CASES if case.callback not in WRITING]))
def test_it_does_in_a_fit_what_it_does_in_that_of_keras(case, tmp_path):
    assert_as_in_keras(case, tmp_path)


@pytest.mark.parametrize("case", params(EVALUATED))
def test_it_does_in_an_evaluation_what_it_does_in_that_of_keras(case, tmp_path):
    assert_as_in_keras(case, tmp_path)


@pytest.mark.parametrize("case", params(PREDICTED))
def test_it_does_in_a_prediction_what_it_does_in_that_of_keras(case, tmp_path):
    assert_as_in_keras(case, tmp_path)


@pytest.mark.parametrize("by", ["keras", 1])
def test_the_history_is_the_models_from_the_beginning(by):
    seen = []
    begins = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: seen.append(begins.model.history))
    history = (made := Side("plain", by)).fit([begins], epochs=1)

    assert made.model.history is history
    assert [history] == seen


@pytest.mark.parametrize("by", ["keras", 1])
def test_what_keras_adds_to_the_logs_for_many_optimizers_can_be_monitored(by):
    rates = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    stops = keras.callbacks.EarlyStopping("learning_rate_slow", mode="max", patience=1)
    history = side("many optimizers", by).fit([rates, stops])

    assert [0, 1] == history.epoch

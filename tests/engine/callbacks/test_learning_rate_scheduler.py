import copy
import functools
import json

import keras
import numpy as np
import pytest

from engine import Trainer
from engine.callbacks import LearningRateScheduler, LossHistory, warmup_cosine
from engine.errors import ConfigError
from tests.helpers import as_datasets, assert_bit_equal, perceptron, samples, weights_of
from tests.oracle import assert_same_logs
from tests.traced import Traced

pytestmark = pytest.mark.shares_models
X, Y = samples(43, shape=(4,))  # six steps an epoch
FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}
STEPS, NUM_STEPS = 6, 18


def adam(rate=0.1):
    return perceptron(optimizer=keras.optimizers.Adam(rate))


def two_of_them():
    others = {".*bias": keras.optimizers.SGD(0.5, name="biases")}
    pairs = keras.optimizers.OptimizerMap(keras.optimizers.Adam(0.1, name="most"), others)
    return perceptron(optimizer=keras.optimizers.MultiOptimizer(pairs))


def scaled():
    return perceptron(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1)))


def decaying():
    return perceptron(optimizer=keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.5, 6, 0.5)))


@functools.cache
def traced(make, in_trainer):
    return Traced(make(), in_trainer=in_trainer)


def trained(make, in_trainer, *callbacks, epochs=1):
    """The history of a training that begins anew, and all variables behind it."""
    own, arguments = traced(make, in_trainer), {"x": X, "y": Y, "epochs": epochs, **FIT}
    history = own.anew().fit(**(arguments if in_trainer else as_datasets(**arguments)), callbacks=callbacks).history
    return history, weights_of(own.model)


class Halving:
    """An object that can be called."""

    def __call__(self, epoch, rate):
        return rate / 2


SCHEDULES = {
    "of the epoch": lambda epoch: 0.1 / (epoch + 1),
    "of epoch and rate": lambda epoch, rate: rate * 0.9,
    "with a default": lambda epoch, rate=7.0: rate * 0.9,
    "of any number": lambda *arguments: arguments[1] * 0.9,
    "an object": Halving(),
    "float32": lambda epoch, rate: np.float32(rate * 0.7),
}


CASES = [(name, adam, 0) for name in SCHEDULES]
CASES += [("of the epoch", adam, 1), ("of epoch and rate", two_of_them, 0), ("of the epoch", two_of_them, 1)]


@pytest.mark.parametrize(("name", "make", "verbose"), CASES)
def test_rates_of_epochs_are_those_of_keras(name, make, verbose, capsys):
    theirs = keras.callbacks.LearningRateScheduler(SCHEDULES[name], verbose)
    expected, expected_weights = trained(make, False, theirs, epochs=3)
    printed = capsys.readouterr().out
    for in_trainer in (False, True):
        given, weights = trained(make, in_trainer, LearningRateScheduler(SCHEDULES[name], verbose), epochs=3)

        assert_bit_equal(expected_weights, weights)
        assert_same_logs(expected, given)
        assert in_trainer or expected == given
        assert printed == capsys.readouterr().out


def test_it_reaches_the_optimizer_within_another():
    history, _ = trained(scaled, True, LearningRateScheduler(lambda epoch: 0.5))

    assert [0.5] == history["learning_rate"]


def test_an_error_inside_the_schedule_comes_out_as_it_is():
    """Keras takes a TypeError for the sign of another form, and calls the schedule a second time."""
    calls = []

    def schedule(epoch, rate=0.0):
        calls.append(epoch)
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        trained(adam, True, LearningRateScheduler(schedule))

    assert [0] == calls


def test_each_step_has_the_rate_of_a_schedule_in_the_optimizer():
    """The oracle is Keras with the same schedule where Keras takes one."""
    rate = warmup_cosine(0.25, 5, NUM_STEPS, floor=0.01, start=0.02)

    class Same(keras.optimizers.schedules.LearningRateSchedule):
        def __init__(self):
            self.rates = keras.ops.convert_to_tensor(np.float32([rate(step) for step in range(NUM_STEPS)]))

        def __call__(self, step):
            return self.rates[keras.ops.cast(step, "int32")]

    expected = perceptron(optimizer=keras.optimizers.Adam(Same()))
    expected.fit(X, Y, epochs=3, **FIT)
    for steps_per_execution in (1, 4, "auto"):
        given, callback, losses = adam(), LearningRateScheduler(rate, per_step=True), LossHistory()
        trainer = Trainer(given, steps_per_execution=steps_per_execution)
        history = trainer.fit(X, Y, epochs=3, callbacks=[callback, losses], **FIT).history

        assert_bit_equal(expected.get_weights(), given.get_weights())
        assert [np.float32(rate(step)) for step in (5, 11, 17)] == history["learning_rate"]
        assert NUM_STEPS == len(losses.losses)
        assert callback.acts_on_batches is False


@pytest.mark.parametrize("make", [adam, two_of_them, scaled])
def test_under_model_fit_each_step_has_the_same_rate_as_in_a_trainer(make):
    """Every fit counts its steps from 0."""
    seen = []
    for in_trainer in (True, False):
        own, rates = traced(make, in_trainer), []
        own.anew()
        callback = LearningRateScheduler(warmup_cosine(0.25, 5, NUM_STEPS), per_step=True)
        for epochs in (2, 1):
            history = own.runner.fit(X, Y, epochs=epochs, callbacks=[callback], **FIT).history
            rates.append({name: values for name, values in history.items() if name.startswith("learning")})
        seen.append((weights_of(own.model), rates))
    (weights, rates), (other_weights, other_rates) = seen

    assert_bit_equal(weights, other_weights)
    assert rates == other_rates


def test_under_model_fit_each_execution_has_the_rate_of_its_first_step():
    rates = []
    model = perceptron(steps_per_execution=4)
    read = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: rates.append(float(model.optimizer.learning_rate))
    )
    callback = LearningRateScheduler(lambda step: step / 64, per_step=True)
    model.fit(X, Y, epochs=2, callbacks=[callback, read], **FIT)

    assert [0, 4 / 64, 6 / 64, 10 / 64] == rates


@pytest.mark.parametrize("in_trainer", [True, False])
def test_for_each_step_a_factor_stands_on_top_of_a_schedule(in_trainer):
    """A warm-up of a rate that falls by itself."""
    model = perceptron(optimizer=keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.5, 6, 0.5, True)))
    callback = LearningRateScheduler(lambda step: (step + 1) / 16, per_step=True)
    fit = Trainer(model).fit if in_trainer else model.fit
    history = fit(X, Y, epochs=2, callbacks=[callback], **FIT).history

    assert [0.25 * 6 / 16, 0.125 * 12 / 16] == history["learning_rate"]  # when the epoch has ended
    assert 0.125 == float(model.optimizer.learning_rate)


def test_with_a_schedule_the_function_gets_the_factor():
    got = []

    def schedule(epoch, factor):
        got.append(factor)
        return factor / 2

    trained(decaying, True, LearningRateScheduler(schedule), epochs=3)

    assert [1.0, 0.5, 0.25] == got


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("is_scheduled", [False, True])
def test_a_resumed_training_goes_on_as_the_uncut_one(is_scheduled, per_step):
    """Cut behind every epoch; the weights and the optimizer are what a checkpoint holds beside the callback."""
    schedule = warmup_cosine(0.25, 5, NUM_STEPS) if per_step else lambda epoch, rate: rate * 0.75

    own = traced(decaying if is_scheduled else adam, False)

    class Resumes(LearningRateScheduler):
        """Takes up a state where a Trainer that resumes would."""

        state, saved = None, None

        def on_train_begin(self, logs=None):
            super().on_train_begin(logs)
            if self.state is not None:
                self.set_state(self.state)

        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            self.saved = json.loads(json.dumps(self.get_state()))

    once = LearningRateScheduler(schedule, per_step=per_step)
    expected = own.anew().fit(X, Y, epochs=3, callbacks=[once], **FIT).history
    expected_weights, cut, state, rates = weights_of(own.model), own.anew(), None, []
    for epoch in range(3):
        callback = Resumes(schedule, per_step=per_step)
        callback.state = state
        history = cut.fit(X, Y, initial_epoch=epoch, epochs=epoch + 1, callbacks=[callback], **FIT).history
        state, rates = callback.saved, rates + history["learning_rate"]

    assert expected["learning_rate"] == rates
    assert_bit_equal(expected_weights, weights_of(own.model))


def test_it_may_be_copied_and_used_again():
    callback = copy.deepcopy(LearningRateScheduler(warmup_cosine(0.25, 5, NUM_STEPS), per_step=True))
    histories = [trained(adam, True, callback, epochs=2)[0] for _ in "ab"]

    assert histories[0] == histories[1]


FORMS = {
    "no argument": (lambda: 1.0, False, "schedule(epoch, rate) or schedule(epoch)"),
    "three arguments": (lambda a, b, c: 1.0, False, "schedule(epoch, rate) or schedule(epoch)"),
    "two for a step": (lambda a, b: 1.0, True, "schedule(step)"),
}


@pytest.mark.parametrize(("schedule", "per_step", "forms"), FORMS.values(), ids=FORMS.keys())
def test_a_function_that_cannot_be_called_so_is_refused_at_once(schedule, per_step, forms):
    with pytest.raises(ConfigError) as error:
        LearningRateScheduler(schedule, per_step=per_step)

    assert f"schedule={schedule!r} cannot be called as {forms}. Give a function that can." == str(error.value)


@pytest.mark.parametrize("rate", [None, "0.1", -0.5, float("nan"), float("inf"), [0.1, 0.2]])
@pytest.mark.parametrize(("per_step", "when"), [(False, "epoch 0"), (True, "step 0")])
def test_what_is_no_learning_rate_is_refused(rate, per_step, when):
    with pytest.raises(ConfigError) as error:
        trained(adam, True, LearningRateScheduler(lambda number: rate, per_step=per_step))

    assert f"schedule gave {rate!r} for {when}: expected a learning rate, a finite number from 0 on." == str(
        error.value
    )

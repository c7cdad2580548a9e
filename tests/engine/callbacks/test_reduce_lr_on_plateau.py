import json

import attrs
import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Trainer
from engine.callbacks import ReduceLROnPlateau
from engine.errors import ConfigError
from tests.helpers import perceptron, samples
from tests.strategies import examples, quarters
from tests.three_ways import assert_same_three_ways

DATA = samples(43, shape=(4,))
VALID = {"epochs": 8, "validation_data": samples(20, shape=(4,))}


def jumpy():
    """Learns so fast that its loss goes up and down."""
    return perceptron(optimizer=keras.optimizers.SGD(6.0, momentum=0.5))


def jumpy_twice():
    others = {".*bias": keras.optimizers.SGD(2.0, name="biases")}
    pairs = keras.optimizers.OptimizerMap(keras.optimizers.SGD(6.0, name="most"), others)
    return perceptron(optimizer=keras.optimizers.MultiOptimizer(pairs))


ARGUMENTS = {
    "nothing": {},
    "another name": {"monitor": "val_accuracy", "patience": 1},
    "a factor": {"factor": 0.3, "patience": 1},
    "said": {"patience": 2, "verbose": 1},
    "the other way": {"mode": "max", "patience": 1, "factor": 0.5},
    "a delta": {"min_delta": 0.3, "patience": 1, "factor": 0.7},
    "a cooldown": {"patience": 1, "cooldown": 2, "mode": "max", "factor": 0.5},
    "a floor": {"patience": 1, "min_lr": 0.5, "mode": "max", "verbose": 1},
}


@pytest.mark.shares_models
@pytest.mark.parametrize("make", [jumpy, jumpy_twice])
@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_it_lowers_the_rate_as_keras_does(arguments, make, capsys):
    printed = []

    def told(kind):
        printed.append(capsys.readouterr().out)
        return kind(**arguments)

    trainings = assert_same_three_ways(
        make, lambda: told(keras.callbacks.ReduceLROnPlateau), lambda: told(ReduceLROnPlateau), DATA, **VALID
    )
    expected, *ours = (training.callback for training in trainings)
    printed = [*printed[1:], capsys.readouterr().out]

    for given_ in ours:
        assert (expected.wait, expected.cooldown_counter) == (given_.wait, given_.cooldown_counter)
        np.testing.assert_allclose(given_.best, expected.best, rtol=1e-6)  # ours sums in float64
    assert [printed[0]] * 2 == printed[1:]


# What follows drives the hooks by hand, with values drawn for the logs.


@attrs.frozen
class Settings:
    """Arguments for both kinds of callback."""

    factor: float
    patience: int
    mode: str
    min_delta: float
    cooldown: int
    min_lr: float


def settings():
    return st.builds(
        Settings,
        factor=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
        patience=st.integers(0, 3),
        mode=st.sampled_from(["min", "max", "auto"]),
        min_delta=quarters(3),
        cooldown=st.integers(0, 3),
        min_lr=st.sampled_from([0.0, 0.05, 0.6]),
    )


MODELS = {}


class Driven:
    """A callback beside a model that begins with a rate of 1."""

    def __init__(self, callback, *, schedule=None):
        if schedule not in MODELS:
            MODELS[schedule] = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
            MODELS[schedule].compile(keras.optimizers.SGD(schedule or 1.0), "mse")
        self.callback, self.model = callback, MODELS[schedule]
        self.begin()

    def begin(self, *, rate=1.0):
        if isinstance(self.model.optimizer.learning_rate, keras.Variable):
            self.model.optimizer.learning_rate = rate
        self.callback.set_model(self.model)
        self.callback.on_train_begin()

    def end_epoch(self, epoch, loss):
        logs = {"loss": loss}
        self.callback.on_epoch_end(epoch, logs)
        rate = float(self.model.optimizer.learning_rate)
        return [self.callback.wait, self.callback.best, self.callback.cooldown_counter, logs["learning_rate"], rate]


@given(settings=settings(), losses=st.lists(quarters(8), min_size=1, max_size=10))
@examples(60)
def test_hook_by_hook_it_is_keras(settings, losses):
    runs = []
    for kind in (keras.callbacks.ReduceLROnPlateau, ReduceLROnPlateau):
        driven = Driven(kind("loss", **attrs.asdict(settings)))
        runs.append([driven.end_epoch(epoch, loss) for epoch, loss in enumerate(losses)])

    assert runs[0] == runs[1]


@given(settings=settings(), losses=st.lists(quarters(8), min_size=1, max_size=10), bad=st.sets(st.integers(1, 9)))
@examples(30)
def test_nan_counts_as_the_worst_value_there_is(settings, losses, bad):
    """Once there is a best value; Keras would make of NaN what it makes of the worst."""
    runs, worst = [], -np.inf if settings.mode == "max" else np.inf
    for kind, value in ((keras.callbacks.ReduceLROnPlateau, worst), (ReduceLROnPlateau, np.nan)):
        driven = Driven(kind("loss", **attrs.asdict(settings)))
        runs.append([driven.end_epoch(epoch, value if epoch in bad else loss) for epoch, loss in enumerate(losses)])

    assert runs[0] == runs[1]


def test_nan_is_not_even_the_first_best_value():
    """Keras takes it for the best, and nothing beats it ever after."""
    driven = Driven(ReduceLROnPlateau("loss", patience=5))
    ends = [driven.end_epoch(epoch, loss)[:2] for epoch, loss in enumerate([float("nan"), 2.0])]

    assert [[1, None], [0, 2.0]] == ends


SCHEDULE = keras.optimizers.schedules.ExponentialDecay(1.0, 6, 0.5)


@given(settings=settings(), losses=st.lists(quarters(8), min_size=1, max_size=7))
@pytest.mark.parametrize("schedule", [None, SCHEDULE], ids=["number", "schedule"])
@examples(25)
def test_a_resumed_training_goes_on_as_the_uncut_one(schedule, settings, losses):
    """Cut behind every epoch, with a new object in the old one's place."""
    make = lambda: ReduceLROnPlateau("loss", **attrs.asdict(settings))  # noqa: E731
    driven = Driven(make(), schedule=schedule)
    expected = [driven.end_epoch(epoch, loss) for epoch, loss in enumerate(losses)]
    driven.callback.on_train_end()

    driven, given_ = Driven(make(), schedule=schedule), []
    for epoch, loss in enumerate(losses):
        state = json.loads(json.dumps(driven.callback.get_state()))
        rate = float(driven.model.optimizer.learning_rate)
        driven.callback.on_train_end()
        driven.callback = make()
        driven.begin(rate=rate)  # which the optimizer's part of a checkpoint holds
        driven.callback.set_state(state)
        given_.append(driven.end_epoch(epoch, loss))
    driven.callback.on_train_end()
    assert expected == given_


@given(settings=settings(), losses=st.lists(quarters(8), min_size=1, max_size=10))
@examples(25)
def test_on_top_of_a_schedule_it_does_what_it_does_to_a_number(settings, losses):
    """Here the schedule stands still at 1, so that the factor is the rate."""
    runs = []
    for schedule in (None, SCHEDULE):
        driven = Driven(ReduceLROnPlateau("loss", **attrs.asdict(settings)), schedule=schedule)
        runs.append([driven.end_epoch(epoch, loss) for epoch, loss in enumerate(losses)])
        driven.callback.on_train_end()

    assert runs[0] == runs[1]
    assert SCHEDULE is driven.model.optimizer._learning_rate


def test_it_begins_anew_with_every_training():
    reduce = ReduceLROnPlateau("loss", patience=2, mode="max")
    for _ in range(2):
        history = Trainer(perceptron()).fit(*DATA, epochs=4, callbacks=[reduce], verbose=0, shuffle=False).history

        np.testing.assert_allclose([0.01, 0.01, 0.01, 0.001], history["learning_rate"], rtol=1e-6)  # is float32


@pytest.mark.parametrize("factor", [1.0, 2.0, -0.1, float("nan")])
def test_a_factor_that_lowers_nothing_is_refused(factor):
    with pytest.raises(ConfigError) as error:
        ReduceLROnPlateau(factor=factor)

    assert f"factor={factor!r}: expected 0 <= factor < 1, so that the learning rate is lowered." == str(error.value)

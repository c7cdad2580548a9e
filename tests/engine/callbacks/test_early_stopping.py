import copy
import json

import attrs
import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Trainer
from engine.callbacks import EarlyStopping
from engine.errors import ConfigError
from tests.helpers import BATCH_SIZE, assert_bit_equal, classifier, perceptron, samples, weights_of
from tests.strategies import counts, examples, quarters
from tests.three_ways import assert_same_three_ways

DATA = samples(43, shape=(4,))
VALID = {"epochs": 9, "validation_data": samples(20, shape=(4,))}
NAMES = ("loss", "accuracy")


def jumpy():
    """Learns so fast that its loss goes up and down."""
    return perceptron(optimizer=keras.optimizers.SGD(6.0, momentum=0.5))


ARGUMENTS = {
    "nothing": {},
    "another name": {"monitor": "val_accuracy", "patience": 2},
    "a training value": {"monitor": "loss", "patience": 1},
    "more than a delta": {"min_delta": 0.05, "patience": 2},
    "less than a delta": {"min_delta": -0.05, "patience": 2},
    "the other way": {"mode": "max", "patience": 3},
    "the same way": {"mode": "min", "patience": 1},
    "a baseline never reached": {"baseline": 0.01, "patience": 4},
    "a baseline reached": {"baseline": 1.0, "patience": 3},
    "the best weights": {"patience": 3, "restore_best_weights": True},
    "the best weights, not stopped": {"patience": 20, "restore_best_weights": True},
    "the best weights of an unreached baseline": {"baseline": 0.01, "patience": 3, "restore_best_weights": True},
    "from a later epoch": {"patience": 1, "start_from_epoch": 3, "restore_best_weights": True},
    "said": {"patience": 1, "verbose": 1, "restore_best_weights": True},
}


@pytest.mark.shares_models
@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_it_stops_and_restores_as_keras_does(arguments, capsys):
    printed = []

    def told(kind):
        printed.append(capsys.readouterr().out)
        return kind(**arguments)

    trainings = assert_same_three_ways(
        jumpy, lambda: told(keras.callbacks.EarlyStopping), lambda: told(EarlyStopping), DATA, **VALID
    )
    expected, *ours = (training.callback for training in trainings)
    printed = [*printed[1:], capsys.readouterr().out]

    for given_ in ours:
        for name in ("wait", "stopped_epoch", "best_epoch"):
            assert getattr(expected, name) == getattr(given_, name), name
        np.testing.assert_allclose(given_.best, expected.best, rtol=1e-6)  # ours sums in float64
        assert (expected.best_weights is None) == (given_.best_weights is None)
    assert [printed[0]] * 2 == printed[1:]


def test_statistics_of_batch_normalization_are_restored_and_random_numbers_go_on():
    """All that `get_weights` gives, as in Keras."""
    data = samples()
    arguments = {"mode": "max", "patience": 2, "restore_best_weights": True}
    _, _, ours = assert_same_three_ways(
        lambda: classifier(optimizer=keras.optimizers.Adam(0.01)),
        lambda: keras.callbacks.EarlyStopping(**arguments),
        lambda: EarlyStopping(**arguments),
        data,
        epochs=6,
        validation_data=data,
    )

    assert ours.callback.stopped_epoch > ours.callback.best_epoch


def test_the_whole_best_epoch_is_restored_if_the_optimizer_is_wanted():
    """Going on from there is going on from that epoch: weights, statistics, optimizer and random numbers."""
    data, fit = samples(), {"batch_size": BATCH_SIZE, "shuffle": False, "verbose": 0}
    stop = EarlyStopping("val_loss", patience=2, mode="max", restore_best_weights=True, restore_best_optimizer=True)
    stopped, short = classifier(), classifier()
    Trainer(stopped).fit(*data, epochs=8, validation_data=data, callbacks=[stop], **fit)
    Trainer(short).fit(*data, epochs=stop.best_epoch + 1, validation_data=data, **fit)

    assert stop.stopped_epoch > stop.best_epoch
    assert_bit_equal(weights_of(short), weights_of(stopped))


def test_it_restores_also_after_an_error():
    class Fails(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                raise ValueError("mine")

    stop, model, fit = EarlyStopping("loss", mode="max", patience=9, restore_best_weights=True), jumpy(), {"verbose": 0}
    with pytest.raises(ValueError, match="mine"):
        Trainer(model).fit(*DATA, epochs=5, callbacks=[stop, Fails()], **fit)

    assert_bit_equal(stop.best_weights, model.get_weights())


@pytest.mark.parametrize("copied", [False, True])
def test_it_may_be_used_again(copied):
    stop = EarlyStopping("loss", mode="max", patience=1, restore_best_weights=True)
    stop = copy.deepcopy(stop) if copied else stop
    histories = [Trainer(perceptron()).fit(*DATA, epochs=5, callbacks=[stop], verbose=0, shuffle=False) for _ in "ab"]

    assert 2 == len(histories[0].epoch)
    assert histories[0].history == histories[1].history


# What follows drives the hooks by hand, with values drawn for the logs.


@attrs.frozen
class Settings:
    """Arguments for both kinds of callback."""

    min_delta: float
    patience: int
    mode: str
    baseline: float | None
    restore_best_weights: bool
    start_from_epoch: int


def settings():
    return st.builds(
        Settings,
        min_delta=quarters(3),
        patience=st.integers(0, 4),
        mode=st.sampled_from(["min", "max", "auto"]),
        baseline=st.none() | quarters(12),
        restore_best_weights=st.booleans(),
        start_from_epoch=st.integers(0, 3),
    )


def values(most=10):
    return st.lists(quarters(12), min_size=1, max_size=most)


class Driven:
    """A callback beside a model whose weights say which epoch it is."""

    def __init__(self, callback):
        self.callback, self.model = callback, MODELS.setdefault("tiny", _tiny())
        self.model.stop_training = False
        callback.set_model(self.model)
        callback.on_train_begin()

    def end_epoch(self, epoch, logs):
        self.model.set_weights([np.full_like(array, epoch) for array in self.model.get_weights()])
        self.model.stop_training = False
        self.callback.on_epoch_end(epoch, logs)
        kept = self.callback.best_weights
        told = [self.callback.wait, self.callback.best, self.callback.stopped_epoch, self.callback.best_epoch]
        return [*told, self.model.stop_training, None if kept is None else kept[0].ravel()[0]]

    def end(self):
        self.callback.on_train_end()
        return self.model.get_weights()[0].ravel()[0]


MODELS = {}


def _tiny():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def through_json(state):
    """A state as a checkpoint holds it: arrays apart, the rest as JSON."""
    arrays = {name: value.copy() for name, value in state.items() if isinstance(value, np.ndarray)}
    rest = {name: value for name, value in state.items() if name not in arrays}
    return json.loads(json.dumps(rest)) | arrays


@given(settings=settings(), losses=values())
@examples(30)
def test_hook_by_hook_it_is_keras(settings, losses):
    runs = []
    for kind in (keras.callbacks.EarlyStopping, EarlyStopping):
        driven = Driven(kind("loss", **attrs.asdict(settings)))
        runs.append([*(driven.end_epoch(epoch, {"loss": loss}) for epoch, loss in enumerate(losses)), driven.end()])

    assert runs[0] == runs[1]


@given(settings=settings(), losses=values(), bad=st.sets(st.integers(1, 9)))
@examples(25)
def test_nan_counts_as_the_worst_value_there_is(settings, losses, bad):
    """Once there is a best value; Keras would make of NaN what it makes of the worst."""
    worst = -np.inf if settings.mode == "max" else np.inf
    runs = []
    for kind, value in ((keras.callbacks.EarlyStopping, worst), (EarlyStopping, np.nan)):
        driven = Driven(kind("loss", **attrs.asdict(attrs.evolve(settings, start_from_epoch=0))))
        given_ = [value if epoch in bad else loss for epoch, loss in enumerate(losses)]
        runs.append([*(driven.end_epoch(epoch, {"loss": loss}) for epoch, loss in enumerate(given_)), driven.end()])

    assert runs[0] == runs[1]


def test_nan_is_not_even_the_first_best_value():
    """Keras takes it for the best, and nothing beats it ever after."""
    driven = Driven(EarlyStopping("loss", patience=3, restore_best_weights=True))
    nan = float("nan")
    first, second, third = (driven.end_epoch(epoch, {"loss": loss}) for epoch, loss in enumerate([nan, nan, 2.0]))

    assert [1, None, 0, 0, False, None] == first
    assert [2, None, 0, 0, False, None] == second
    assert [0, 2.0, 0, 2, False, 2.0] == third


@given(settings=settings(), losses=values(7), nan_at=st.none() | st.integers(0, 6))
@examples(25)
def test_a_resumed_training_goes_on_as_the_uncut_one(settings, losses, nan_at):
    """Cut behind every epoch, with a new object in the old one's place."""
    losses = [float("nan") if epoch == nan_at else loss for epoch, loss in enumerate(losses)]
    make = lambda: EarlyStopping("loss", **attrs.asdict(settings))  # noqa: E731
    whole = Driven(make())
    expected = [*(whole.end_epoch(epoch, {"loss": loss}) for epoch, loss in enumerate(losses)), whole.end()]

    driven, given_ = Driven(make()), []
    for epoch, loss in enumerate(losses):
        state = through_json(driven.callback.get_state())
        driven = Driven(make())
        driven.callback.set_state(state)
        given_.append(driven.end_epoch(epoch, {"loss": loss}))
    assert repr(expected) == repr([*given_, driven.end()])


def test_the_optimizer_of_the_best_epoch_is_in_the_state_too():
    fit = {"epochs": 3, "batch_size": 8, "shuffle": False, "verbose": 0}
    arguments = {"mode": "max", "patience": 9, "restore_best_weights": True, "restore_best_optimizer": True}
    first, model = EarlyStopping("loss", **arguments), classifier()
    Trainer(model).fit(*samples(), callbacks=[first], **fit)
    restored, state = weights_of(model), through_json(first.get_state())
    Trainer(model).fit(*samples(), **fit)
    second = EarlyStopping("loss", **arguments)
    second.set_model(model)
    second.on_train_begin()
    second.set_state(state)
    second.on_train_end()

    assert_bit_equal(restored, weights_of(model))


@given(
    pairs=st.lists(st.tuples(quarters(8), quarters(8)), min_size=1, max_size=10),
    patience=st.integers(0, 4),
    deltas=st.tuples(quarters(3), quarters(3)),
    modes=st.tuples(*[st.sampled_from(["min", "max"])] * 2),
    baselines=st.tuples(*[st.none() | quarters(8)] * 2),
)
@examples(30)
def test_several_monitors_wait_for_whichever_improved_last(pairs, patience, deltas, modes, baselines):
    """Its wait is the shortest of those of one Keras callback for each, and its best weights are the first's."""
    apart = [
        Driven(keras.callbacks.EarlyStopping("loss", delta, 99, 0, mode, baseline, restore_best_weights=True))
        for delta, mode, baseline in zip(deltas, modes, baselines, strict=True)
    ]
    ours = Driven(
        EarlyStopping(NAMES, list(deltas), patience, 0, list(modes), list(baselines), restore_best_weights=True)
    )
    for epoch, pair in enumerate(pairs):
        before = [driven.callback.best for driven in apart]
        first, second = (driven.end_epoch(epoch, {"loss": value}) for driven, value in zip(apart, pair, strict=True))
        has_improved = before != [first[1], second[1]]
        wait, bests, _, best_epoch, stops, kept = ours.end_epoch(epoch, dict(zip(NAMES, pair, strict=True)))

        assert min(first[0], second[0]) == wait
        assert [first[1], second[1]] == bests
        assert (first[3], first[5]) == (best_epoch, kept)
        assert (not has_improved and wait >= patience and epoch > 0) == stops


def test_an_epoch_that_lacks_one_of_several_monitors_does_not_count():
    stop = EarlyStopping(["loss", "val_loss"], patience=2, mode="max")
    history = Trainer(perceptron()).fit(
        *DATA, epochs=12, validation_data=DATA, validation_freq=2, callbacks=[stop], verbose=0
    )

    assert 6 == len(history.epoch)  # the best was epoch 2, then 4 and 6 count
    assert 2 == stop.wait


def test_one_value_does_for_several_monitors():
    stop = EarlyStopping(["loss", "val_loss"], 0.25, mode="max", baseline=1.0)
    stop.set_model(_tiny())
    stop.on_train_begin()
    stop.on_epoch_end(0, {"loss": 2.0, "val_loss": 3.0})

    assert [2.0, 3.0] == stop.best


WRONG = {
    "an optimizer without weights": (
        {"restore_best_optimizer": True},
        "restore_best_optimizer=True, but restore_best_weights=False: the optimizer would no longer fit the weights. "
        "Give restore_best_weights=True as well.",
    ),
    "no monitor": ({"monitor": []}, "monitor=[]: there is nothing to monitor. Give a name in the logs, or several."),
    "too few modes": (
        {"monitor": ["loss", "accuracy"], "mode": ["min"]},
        "mode=['min'] has 1 values for 2 monitors. Give one value for all, or one for each.",
    ),
    "a delta too many": (
        {"min_delta": [0, 1]},
        "min_delta=[0, 1] has 2 values for 1 monitors. Give one value for all, or one for each.",
    ),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG.keys())
def test_arguments_that_cannot_be_are_refused_at_once(arguments, words):
    with pytest.raises(ConfigError) as error:
        EarlyStopping(**arguments)

    assert words == str(error.value)


@pytest.mark.parametrize("monitor", ["val_los", ["loss", "val_los"]])
def test_a_trainer_refuses_a_name_that_will_never_be_there(monitor):
    with pytest.raises(ConfigError, match="EarlyStopping monitors 'val_los', but the logs of this training hold"):
        Trainer(perceptron()).fit(*DATA, validation_data=DATA, callbacks=[EarlyStopping(monitor)], verbose=0)


@given(epochs=counts(4))
@examples(4)
def test_it_never_stops_at_the_first_epoch(epochs):
    stop = EarlyStopping("loss", mode="max")
    history = Trainer(perceptron()).fit(*DATA, epochs=epochs, callbacks=[stop], verbose=0)

    assert min(epochs, 2) == len(history.epoch)

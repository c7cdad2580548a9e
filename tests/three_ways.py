"""One training three ways: by Keras with its own callback, by Keras with ours in its place, by a Trainer with ours."""

import functools
from collections.abc import Callable
from typing import Any

import attrs
import keras

from engine import Trainer
from tests.helpers import as_datasets, assert_bit_equal, weights_of
from tests.oracle import assert_same_logs
from tests.traced import Traced


@attrs.frozen(eq=False)
class Trained:
    """A model when it has been trained, its history, and the callback that was there."""

    model: keras.Model
    history: dict[str, list[Any]]
    callback: Any


def train(make: Callable[[], keras.Model], callback: Any, data: Any, *, by_trainer: bool, **arguments: Any) -> Trained:
    """Trains a model that is made anew, its samples in order."""
    keras.utils.set_random_seed(4)
    model = make()
    x, y = data
    fit = Trainer(model).fit if by_trainer else model.fit
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0} | arguments
    return Trained(model, fit(x, y, callbacks=[callback], **arguments).history, callback)


@functools.cache
def _traced(make: Callable[[], keras.Model], in_trainer: bool) -> Traced:
    keras.utils.set_random_seed(4)
    return Traced(make(), in_trainer=in_trainer)


def _train_anew(
    make: Callable[[], keras.Model], callback: Any, data: Any, *, by_trainer: bool, **arguments: Any
) -> Trained:
    """What `train` does, with a model that is put back to where it began."""
    own = _traced(make, by_trainer)
    runner = own.anew()
    keras.utils.set_random_seed(4)
    arguments = {"x": data[0], "y": data[1], "batch_size": 8, "shuffle": False, "verbose": 0} | arguments
    given = arguments if by_trainer else as_datasets(**arguments)
    return Trained(own.model, runner.fit(callbacks=[callback], **given).history, callback)


def assert_same_three_ways(
    make: Callable[[], keras.Model],
    theirs: Callable[[], Any],
    ours: Callable[[], Any],
    data: Any,
    **arguments: Any,
) -> tuple[Trained, Trained, Trained]:
    """Trains three ways: bit-equal variables, equal histories; returns Keras's training and both of ours.

    Models are kept for the next test, so that `make` is best a function of the file, and the test `shares_models`.
    """
    ways, trainings = [(theirs, False), (ours, False), (ours, True)], []
    for callback, by_trainer in ways:
        trained = _train_anew(make, callback(), data, by_trainer=by_trainer, **arguments)
        trainings.append((trained, weights_of(trained.model)))
    (expected, weights), *given = trainings
    (by_keras, _), (in_trainer, _) = given

    for trained, own in given:
        assert_bit_equal(weights, own)
        assert_same_logs(expected.history, trained.history)
    assert expected.history == by_keras.history
    return expected, by_keras, in_trainer

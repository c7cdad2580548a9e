"""`model.fit` as the judge: one model trained by Keras, its twin by a Trainer."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from engine import Trainer
from tests.helpers import assert_bit_equal, weights_of

RTOL = 1e-6  # ours sums in float64, Keras in float32


def assert_same_logs(expected: dict[str, Any], given: dict[str, Any], *, rtol: float = RTOL) -> None:
    """Compares names, their order and, but for rounding, values."""
    assert list(expected) == list(given)
    for name, values in expected.items():
        np.testing.assert_allclose(given[name], values, rtol=rtol, err_msg=name)


def twins(make: Callable[[], keras.Model]) -> list[keras.Model]:
    """Two models made alike, random numbers included."""
    models = []
    for _ in range(2):
        keras.utils.set_random_seed(4)
        models.append(make())
    return models


def assert_trained_alike(
    make: Callable[[], keras.Model],
    data: Callable[[], Any],
    *,
    trainer: Any = None,
    rtol: float = RTOL,
    **arguments: Any,
) -> tuple[keras.Model, keras.Model]:
    """Fits a model by Keras and its twin by a Trainer: bit-equal variables, equal histories; returns both.

    Args:
        make: Makes a compiled model.
        data: Makes what is given to `fit` as x and y, anew for each.
        trainer: Arguments for the Trainer.
        rtol: How far values of the history may differ.
        arguments: For both `fit`s.
    """
    theirs, ours = twins(make)
    arguments = {"epochs": 2, "shuffle": False, "verbose": 0} | arguments
    expected = theirs.fit(*data(), **arguments).history
    given = Trainer(ours, **(trainer or {})).fit(*data(), **arguments).history

    assert_bit_equal(weights_of(theirs), weights_of(ours))
    assert_same_logs(expected, given, rtol=rtol)
    return theirs, ours

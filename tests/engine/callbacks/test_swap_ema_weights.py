import functools

import keras
import numpy as np
import pytest

from engine import Trainer
from engine.callbacks import EarlyStopping, SwapEMAWeights
from engine.errors import ConfigError
from tests.helpers import as_datasets, assert_bit_equal, perceptron, samples, weights_of
from tests.traced import Traced

pytestmark = pytest.mark.shares_models

X, Y = DATA = samples(43, shape=(4,))
FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}
SGD = keras.optimizers.SGD


def averaging(**arguments):
    return SGD(0.5, use_ema=True, ema_momentum=0.5, **arguments)


def of_two():
    pairs = keras.optimizers.OptimizerMap(averaging(), {".*bias": SGD(0.5)})
    return keras.optimizers.MultiOptimizer(pairs)


OPTIMIZERS = {
    "plain": averaging,
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(averaging()),
    "two, one of which averages": of_two,
    "overwriting": lambda: averaging(ema_overwrite_frequency=4),
    "accumulating": lambda: averaging(gradient_accumulation_steps=4),
}
optimizers = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
everywhere = pytest.mark.parametrize("in_trainer", [True, False], ids=["trainer", "model.fit"])


@functools.cache
def traced(optimizer, in_trainer):
    return Traced(perceptron(optimizer=optimizer()), in_trainer=in_trainer)


def fitting(model, in_trainer):
    return Trainer(model) if in_trainer else model


def trained(optimizer, in_trainer, *callbacks):
    """The history and all variables behind three epochs."""
    arguments = {"x": X, "y": Y, "validation_data": DATA, "epochs": 3, **FIT}
    if not in_trainer:
        arguments = as_datasets(**arguments)
    history = traced(optimizer, in_trainer).anew().fit(**arguments, callbacks=callbacks)
    return history.history, weights_of(traced(optimizer, in_trainer).model)


@optimizers
@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_it_trains_and_validates_as_with_keras(optimizer, swap_on_epoch):
    """But for the rounding of Keras's swaps, which add and subtract."""
    history, weights = trained(optimizer, False, keras.callbacks.SwapEMAWeights(swap_on_epoch))
    for in_trainer in (True, False):
        given_history, given_weights = trained(optimizer, in_trainer, SwapEMAWeights(swap_on_epoch))

        for name, expected in history.items():
            np.testing.assert_allclose(given_history[name], expected, rtol=1e-5, err_msg=name)
        for expected, given in zip(weights, given_weights, strict=True):
            np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-6)


@optimizers
@everywhere
def test_the_training_is_the_same_to_the_bit_as_without_it(optimizer, in_trainer):
    history, weights = trained(optimizer, in_trainer)
    for swap_on_epoch in (False, True):
        given_history, given_weights = trained(optimizer, in_trainer, SwapEMAWeights(swap_on_epoch))

        assert_bit_equal(weights, given_weights)
        for name in ("accuracy", "loss"):
            assert history[name] == given_history[name]


@everywhere
def test_the_validation_is_one_of_the_averages(in_trainer):
    """Those with which such a training ends."""
    own = traced(averaging, in_trainer)
    history = own.anew().fit(X, Y, validation_data=DATA, callbacks=[SwapEMAWeights()], **FIT).history

    expected = own.model.evaluate(X, Y, batch_size=8, verbose=0, return_dict=True)["loss"]

    np.testing.assert_allclose(history["val_loss"], [expected], rtol=1e-6)  # ours sums in float64


class Sees(keras.callbacks.Callback):
    """Notes the weights at hooks."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def on_epoch_end(self, epoch, logs=None):
        self.seen["epoch"] = self.model.get_weights()

    def on_test_batch_end(self, batch, logs=None):
        self.seen["test"] = self.model.get_weights()

    def on_predict_batch_end(self, batch, logs=None):
        self.seen["predict"] = self.model.get_weights()


@everywhere
def test_the_model_has_its_own_weights_back_after_a_prediction_and_an_evaluation(in_trainer):
    """Keras leaves the averages in after a prediction."""
    runner, model = traced(averaging, in_trainer).anew(), traced(averaging, in_trainer).model
    runner.fit(X, Y, **FIT)
    averages = model.get_weights()
    own = [array + 1 for array in averages]
    model.set_weights(own)
    for run in ("predict", "evaluate"):
        sees = Sees()
        getattr(runner, run)(X, *([Y] if run == "evaluate" else []), verbose=0, callbacks=[SwapEMAWeights(), sees])

        assert_bit_equal(averages, sees.seen["test" if run == "evaluate" else run])
        assert_bit_equal(own, model.get_weights())


@everywhere
def test_callbacks_behind_it_may_see_the_averages_at_the_end_of_an_epoch(in_trainer):
    for swap_on_epoch in (False, True):
        sees = Sees()
        trained(averaging, in_trainer, SwapEMAWeights(swap_on_epoch), sees)

        assert swap_on_epoch == all(
            np.array_equal(*pair) for pair in zip(sees.seen["epoch"], sees.seen["test"], strict=True)
        )


@everywhere
def test_a_training_that_stops_early_ends_with_the_averages_too(in_trainer):
    """With Keras's, which swaps at the end of the last epoch only if it was to be the last, it does not."""
    weights = []
    for callbacks, epochs in (([], 2), ([SwapEMAWeights(True), EarlyStopping("loss", mode="max")], 9)):
        traced(averaging, in_trainer).anew().fit(X, Y, epochs=epochs, callbacks=callbacks, **FIT)
        weights.append(weights_of(traced(averaging, in_trainer).model))

    assert_bit_equal(*weights)


@pytest.mark.parametrize("hook", ["on_test_batch_end", "on_test_end", "on_epoch_end"])
def test_after_an_error_the_model_has_its_own_weights(hook):
    """As after the same error without it."""

    class Fails(keras.callbacks.Callback):
        pass

    def fail(self, *arguments, **named):
        raise ValueError("mine")

    setattr(Fails, hook, fail)
    weights = []
    for callbacks in ([], [SwapEMAWeights(swap_on_epoch=True)]):
        with pytest.raises(ValueError, match="mine"):
            trained(averaging, True, *callbacks, Fails())
        weights.append(weights_of(traced(averaging, True).model))

    assert_bit_equal(*weights)


@pytest.mark.parametrize("run", ["evaluate", "predict"])
def test_after_an_error_outside_of_a_training_too(run):
    class Fails(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            raise ValueError("mine")

        on_predict_batch_end = on_test_batch_end

    trainer, model = traced(averaging, True).anew(), traced(averaging, True).model
    trainer.fit(X, Y, **FIT)
    own = [array + 1 for array in model.get_weights()]
    model.set_weights(own)
    with pytest.raises(ValueError, match="mine"):
        getattr(trainer, run)(X, *([Y] if run == "evaluate" else []), verbose=0, callbacks=[SwapEMAWeights(), Fails()])

    assert_bit_equal(own, model.get_weights())


def test_under_model_fit_which_tells_nobody_of_an_error_the_next_training_gives_them_back():
    class Fails(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            raise ValueError("mine")

    weights, swap = [], SwapEMAWeights()
    for callbacks in ([], [swap]):
        with pytest.raises(ValueError, match="mine"):
            trained(averaging, False, *callbacks, Fails())
        traced(averaging, False).model.fit(X, Y, callbacks=callbacks, **FIT)
        weights.append(weights_of(traced(averaging, False).model))

    assert_bit_equal(*weights)


def test_an_evaluation_between_two_epochs_leaves_the_averages_there():
    """One that another callback begins, with the same object."""
    swap, sees = SwapEMAWeights(swap_on_epoch=True), Sees()

    class Evaluates(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.before = self.model.get_weights()
            self.model.evaluate(X, Y, verbose=0, callbacks=[swap])

    evaluates = Evaluates()
    traced(averaging, False).anew().fit(X, Y, epochs=2, callbacks=[swap, evaluates, sees], **FIT)

    assert_bit_equal(evaluates.before, sees.seen["epoch"])


def test_an_optimizer_without_a_step_has_no_averages_to_put_in():
    """They would be zeros."""
    model, sees = perceptron(optimizer=averaging()), Sees()
    Trainer(model).evaluate(X, Y, verbose=0, callbacks=[SwapEMAWeights(), sees])

    assert_bit_equal(model.get_weights(), sees.seen["test"])


@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_a_resumed_training_goes_on_as_the_uncut_one(swap_on_epoch):
    """Cut behind every epoch; what a checkpoint holds beside the callback is put into a model that begins anew."""

    class Saves(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            arrays = {name: np.array(value) for name, value in swap.get_state().items()}
            self.saved = weights_of(self.model), arrays

    class Resumes(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            weights, state = saves.saved
            for variable, value in zip((*model.variables, *model.optimizer.variables), weights, strict=True):
                variable.assign(value)
            swap.set_state(state)

    _, whole = trained(averaging, True, SwapEMAWeights(swap_on_epoch))
    saves, model = Saves(), traced(averaging, True).model
    for epoch in range(3):
        swap = SwapEMAWeights(swap_on_epoch)
        callbacks = [swap, *([Resumes()] if epoch else []), saves]
        traced(averaging, True).anew().fit(
            X, Y, initial_epoch=epoch, epochs=epoch + 1, validation_data=DATA, callbacks=callbacks, **FIT
        )

    assert_bit_equal(whole, weights_of(model))


def test_replicas_swap_too(two_replicas):
    arguments = {"epochs": 2, "batch_size": 10, "shuffle": False, "verbose": 0}
    models, sees = [], Sees()
    for callbacks in ([], [SwapEMAWeights(True), sees]):
        with two_replicas.scope():
            models.append(perceptron(optimizer=averaging()))
        data = X[:40], Y[:40]
        Trainer(models[-1]).fit(*data, validation_data=data, callbacks=callbacks, **arguments)

    assert_bit_equal(weights_of(models[0]), weights_of(models[1]))
    assert_bit_equal(models[1].get_weights(), sees.seen["epoch"])


@everywhere
def test_an_optimizer_that_does_not_average_is_refused(in_trainer):
    with pytest.raises(ConfigError) as error:
        fitting(perceptron(), in_trainer).fit(X, Y, callbacks=[SwapEMAWeights()], **FIT)

    assert (
        "SwapEMAWeights: the model was compiled with SGD, which keeps no averages of the weights. Give the optimizer "
        "use_ema=True."
    ) == str(error.value)

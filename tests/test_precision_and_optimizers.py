"""Precisions, optimizers and ways to run a step: the weights are those of `model.fit`, bit for bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Trainer
from tests.helpers import NUM_CLASSES, assert_bit_equal, classifier, perceptron, samples, weights_of
from tests.oracle import assert_same_logs, assert_trained_alike, twins

X, Y = samples(43)  # six batches of at most 8, the last of three


def arrays():
    return X, Y


def dense_only(**compile_arguments):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([
        keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(5, "relu"),
        keras.layers.Dense(NUM_CLASSES, "softmax"),
    ])  # fmt: skip
    arguments = {"optimizer": "adam", "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    model.compile(**(arguments | compile_arguments))
    return model


@pytest.fixture
def precision(request):
    """Keras set to a precision for one test."""
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64" if request.param == "float64" else floatx)
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


def Adam(rate=0.01, **arguments):  # noqa: N802
    return keras.optimizers.Adam(rate, **arguments)


@pytest.mark.parametrize(
    ("precision", "steps_per_execution"),
    [("mixed_bfloat16", 4), ("mixed_float16", 1), ("float64", 4)],
    indirect=["precision"],
)
def test_a_precision_trains_validates_and_predicts_as_in_keras(precision, steps_per_execution):
    theirs, ours = assert_trained_alike(
        classifier,
        arrays,
        trainer={"steps_per_execution": steps_per_execution},
        validation_data=(X[:11], Y[:11]),
        batch_size=8,
    )

    assert (precision == "mixed_float16") == isinstance(ours.optimizer, keras.optimizers.LossScaleOptimizer)
    assert_bit_equal([theirs.predict(X, verbose=0)], [Trainer(ours).predict(X, verbose=0)])


@pytest.mark.parametrize("precision", ["mixed_float16"], indirect=True)
def test_a_step_whose_gradients_are_not_finite_is_skipped_and_the_scale_is_halved(precision):
    """In float16 the first scales overflow; after them it learns, and doubles the scale again."""

    def make():
        inner = keras.optimizers.SGD(0.1)
        return classifier(
            optimizer=keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**24, dynamic_growth_steps=3)
        )

    _, ours = assert_trained_alike(make, arrays, trainer={"steps_per_execution": 4}, batch_size=8, epochs=3)
    applied, scale = int(ours.optimizer.iterations), float(ours.optimizer.dynamic_scale)

    assert 0 < applied < 18
    assert scale < 2.0**24


def test_one_poisoned_batch_is_skipped_alone():
    """A loss that is infinite in one batch of six: that step alone leaves every weight as it is."""
    x = X.copy()
    x[9] = np.inf

    def make():
        return classifier(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)), metrics=None)

    theirs, ours = twins(make)
    arguments = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    theirs.fit(x, Y, **arguments)
    Trainer(ours, steps_per_execution=3).fit(x, Y, **arguments)

    assert 10 == int(ours.optimizer.iterations)
    for expected, given in zip(weights_of(theirs), weights_of(ours), strict=True):
        np.testing.assert_array_equal(given, expected)  # batch normalisation's averages are NaN in both


SCHEDULES = {
    "exponential": lambda: keras.optimizers.schedules.ExponentialDecay(0.05, 3, 0.5),
    "cosine with warm-up": lambda: keras.optimizers.schedules.CosineDecay(
        0.001, 10, warmup_target=0.05, warmup_steps=4
    ),
    "piecewise": lambda: keras.optimizers.schedules.PiecewiseConstantDecay([4, 9], [0.1, 0.01, 0.001]),
    "restarts": lambda: keras.optimizers.schedules.CosineDecayRestarts(0.05, 4),
}


def multi_by_map():
    biases, others = Adam(0.05), keras.optimizers.SGD(0.1, momentum=0.9)
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(default_optimizer=others, optimizer_map={".*bias": biases})
    )


def multi_by_callable():
    kinds = {True: Adam(0.05), False: keras.optimizers.RMSprop(0.01)}
    return keras.optimizers.MultiOptimizer(lambda variable: kinds["kernel" in variable.path])


OPTIMIZERS = {
    "average": lambda: Adam(use_ema=True, ema_momentum=0.8),
    "average written every 4 steps": lambda: Adam(use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=4),
    "average written every step": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_overwrite_frequency=1),
    "weight decay": lambda: Adam(weight_decay=0.1),
    "AdamW": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.05),
    "clipnorm": lambda: Adam(clipnorm=0.01),
    "global clipnorm": lambda: keras.optimizers.SGD(0.1, global_clipnorm=0.05),
    "clipvalue": lambda: keras.optimizers.SGD(0.1, clipvalue=0.01),
    "accumulation": lambda: Adam(gradient_accumulation_steps=4),
    "accumulation, clipped, averaged, decaying": lambda: Adam(
        SCHEDULES["exponential"](), gradient_accumulation_steps=5, clipnorm=0.1, weight_decay=0.01, use_ema=True
    ),
    "loss scale": lambda: Adam(loss_scale_factor=128.0),
    "many by a map": multi_by_map,
    "many by a callable": multi_by_callable,
    "Muon": lambda: keras.optimizers.Muon(0.01),
    **{f"schedule: {name}": lambda make=make: keras.optimizers.SGD(make(), 0.9) for name, make in SCHEDULES.items()},
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizer_does_what_it_does_in_keras(kind):
    """Three epochs of six steps, in blocks of four: micro-steps and overwriting go across blocks and epochs."""
    theirs, ours = assert_trained_alike(
        lambda: perceptron(optimizer=OPTIMIZERS[kind](), metrics=None),
        lambda: (X[:, 1:5, 2, 0], Y),
        trainer={"steps_per_execution": 4},
        batch_size=8,
        epochs=3,
    )

    assert int(theirs.optimizer.iterations) == int(ours.optimizer.iterations)


def test_averaged_weights_stand_in_their_place_when_callbacks_hear_of_the_end():
    """Keras writes them before `on_train_end`; with two fits in turn, the second begins from the averages."""

    class Looks(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seen = []

        def on_epoch_end(self, epoch, logs=None):
            self.seen.append(self.model.get_weights())

        def on_train_end(self, logs=None):
            self.seen.append(self.model.get_weights())

    seen = []
    for model, is_ours in zip(twins(lambda: perceptron(optimizer=OPTIMIZERS["average"]())), (False, True), strict=True):
        looks = Looks()
        for _ in range(2):
            fit = Trainer(model).fit if is_ours else model.fit
            fit(X[:, 1:5, 2, 0], Y, batch_size=8, shuffle=False, callbacks=[looks], verbose=0)
        seen.append([array for weights in looks.seen for array in weights])

    assert_bit_equal(*seen)


def test_blocks_as_compiled_or_as_given_change_nothing():
    """The oracle takes one step a time: what Keras does with 3 is in the page of differences."""
    arguments = {"batch_size": 8, "epochs": 2, "shuffle": False, "validation_data": (X[:11], Y[:11]), "verbose": 0}
    theirs = dense_only()
    expected = theirs.fit(X, Y, **arguments).history
    for compiled, given in [(1, 3), (3, None), (50, "auto")]:
        ours = dense_only(steps_per_execution=compiled)
        history = Trainer(ours, steps_per_execution=given).fit(X, Y, **arguments).history

        assert_bit_equal(weights_of(theirs), weights_of(ours))
        assert_same_logs(expected, history)


def test_xla_gives_what_xla_gives_in_keras():
    """Compiled with the model or asked of the Trainer; XLA compiles one step, here as there, so that bits agree."""
    arguments = {"batch_size": 8, "epochs": 2, "shuffle": False, "validation_data": (X[:11], Y[:11]), "verbose": 0}
    theirs = dense_only(jit_compile=True)
    expected = theirs.fit(X, Y, **arguments).history
    predicted = theirs.predict(X, verbose=0)
    for given, steps_per_execution in [(None, 4), (True, 1)]:
        ours = dense_only(jit_compile=given is None)
        trainer = Trainer(ours, jit_compile=given, steps_per_execution=steps_per_execution)
        history = trainer.fit(X, Y, **arguments).history

        assert_bit_equal(weights_of(theirs), weights_of(ours))
        assert_same_logs(expected, history)
    assert_bit_equal([predicted], [trainer.predict(X, verbose=0)])


def test_without_xla_a_model_compiled_for_it_trains_as_one_that_is_not():
    theirs, ours = dense_only(jit_compile=False), dense_only(jit_compile=True)
    for fit in (theirs.fit, Trainer(ours, jit_compile=False).fit):
        fit(X, Y, batch_size=8, shuffle=False, verbose=0)

    assert_bit_equal(weights_of(theirs), weights_of(ours))


def test_eager_steps_give_what_eager_steps_give_in_keras():
    """Compiled so or asked of the Trainer: Python goes through every step, here as there."""
    arguments = {"batch_size": 8, "epochs": 2, "shuffle": False, "validation_data": (X[:11], Y[:11]), "verbose": 0}
    theirs = classifier(run_eagerly=True)
    expected = theirs.fit(X, Y, **arguments).history
    for given in (False, True):
        ours, calls = classifier(run_eagerly=not given), []
        call = ours.layers[-1].call
        ours.layers[-1].call = lambda *inputs, to=call, seen=calls, **named: seen.append(1) or to(*inputs, **named)
        history = Trainer(ours, run_eagerly=given).fit(X, Y, **arguments).history

        assert_bit_equal(weights_of(theirs), weights_of(ours))
        assert_same_logs(expected, history)
        assert 12 + 4 <= len(calls)


def test_a_custom_gradient_and_a_schedule_of_ones_own_see_what_they_see_in_keras():
    """The schedule is asked with the number of the step, from 0, the same in every block."""

    @keras.saving.register_keras_serializable()
    class Steps(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1 / (1.0 + keras.ops.cast(step, "float32"))

        def get_config(self):
            return {}

    def make():
        return classifier(optimizer=keras.optimizers.SGD(Steps(), momentum=0.5, nesterov=True))

    _, ours = assert_trained_alike(make, arrays, trainer={"steps_per_execution": 5}, batch_size=8)

    assert np.float32(0.1 / 13) == tf.convert_to_tensor(ours.optimizer.learning_rate)

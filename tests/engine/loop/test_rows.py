"""Variables with a value of their own at every step; the oracle is a callback that sets them between the steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Callback, Trainer
from engine.callbacks import LossHistory
from engine.data import open_source
from engine.loop import Loop
from tests.helpers import NUM_CLASSES, assert_bit_equal, samples, weights_of

X, Y = samples(44, shape=(4,))  # six batches of at most 8, the last of four
SEED = 2


def rate_of(step):
    """No two steps have the same."""
    return 0.2 / (1 + step)


def slope_of(step):
    return 1.0 + 0.1 * step


class Leaky(keras.layers.Layer):
    """A slope that training does not learn, and a count of its traces."""

    def __init__(self):
        super().__init__()
        self.slope = self.add_weight(shape=(), dtype="float64", trainable=False, initializer="ones", name="slope")
        self.traces = 0

    def call(self, x, training=False):
        self.traces += bool(training)
        return keras.ops.where(x > 0, x, keras.ops.cast(self.slope, x.dtype) * x)


def make(scope=None):
    keras.utils.set_random_seed(1)
    with scope or tf.distribute.get_strategy().scope():
        model = keras.Sequential([
            keras.Input((4,)),
            keras.layers.Dense(5),
            Leaky(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(NUM_CLASSES, activation="softmax"),
        ])  # fmt: skip
        model.compile(keras.optimizers.SGD(9.0, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def variables_of(model):
    return model.optimizer.learning_rate, model.layers[1].slope


class Schedules(Callback):
    """One variable of the model, set inside the loop."""

    def __init__(self, which, value):
        super().__init__()
        self.which, self.value, self.steps = which, value, []

    def step_schedules(self):
        return [(variables_of(self.model)[self.which], self._value)]

    def _value(self, step):
        self.steps.append(step)
        return self.value(step)


class Sets(keras.callbacks.Callback):
    """The same two by hand, in front of each step."""

    def __init__(self):
        super().__init__()
        self.step, self.seen = 0, []

    def on_train_batch_begin(self, batch, logs=None):
        for variable, value in zip(variables_of(self.model), (rate_of, slope_of), strict=True):
            variable.assign(value(self.step))
        self.step += 1


def fit(trainer, callbacks, **arguments):
    losses = LossHistory()
    arguments = {"batch_size": 8, "epochs": 3, "verbose": 0} | arguments
    history = trainer.fit(X, Y, callbacks=[losses, *callbacks], **arguments).history
    return weights_of(trainer.model), history, losses.losses


def scheduled():
    return [Schedules(0, rate_of), Schedules(1, slope_of)]


def assert_equal(expected, given):
    assert_bit_equal(expected[0], given[0])
    assert expected[1] == given[1]
    np.testing.assert_array_equal(expected[2], given[2])


HOW = {
    "single steps": {"steps_per_execution": 1},
    "blocks of three": {"steps_per_execution": 3},
    "blocks by themselves": {"steps_per_execution": "auto"},
    "eager": {"steps_per_execution": 3, "run_eagerly": True},
    "compiled by XLA": {"steps_per_execution": 3, "jit_compile": True},
}
ARGUMENTS = {
    "whole epochs": {},
    "ends in the middle of an epoch": {"max_steps": 8},
    "epochs of half the data": {"steps_per_epoch": 3},
}


@pytest.mark.parametrize(
    ("how", "arguments"),
    [
        ("single steps", "whole epochs"),
        ("blocks of three", "whole epochs"),
        ("blocks of three", "ends in the middle of an epoch"),
        ("blocks by themselves", "ends in the middle of an epoch"),
        ("blocks by themselves", "epochs of half the data"),
        ("eager", "epochs of half the data"),
        ("compiled by XLA", "ends in the middle of an epoch"),
    ],
)
def test_scheduled_variables_are_those_that_a_callback_sets_before_each_step(how, arguments):
    """Two variables of two callbacks, of another dtype each; weights, optimizer, seeds, losses and history."""
    expected = fit(Trainer(make(), seed=SEED, **HOW[how]), [Sets()], **ARGUMENTS[arguments])
    callbacks = scheduled()
    given = fit(Trainer(make(), seed=SEED, **HOW[how]), callbacks, **ARGUMENTS[arguments])
    steps = len(given[2])

    assert_equal(expected, given)
    assert [list(range(steps))] * 2 == [callback.steps for callback in callbacks]


def test_under_model_fit_with_the_same_callback_the_weights_are_the_same():
    theirs, ours = make(), make()
    theirs.fit(X, Y, batch_size=8, epochs=3, shuffle=False, callbacks=[Sets()], verbose=0)
    fit(Trainer(ours), scheduled(), shuffle=False)

    assert_bit_equal(weights_of(theirs), weights_of(ours))


def test_two_replicas_take_the_same_values(two_replicas):
    expected = fit(Trainer(make(two_replicas.scope()), seed=SEED, steps_per_execution=3), [Sets()])
    given = fit(Trainer(make(two_replicas.scope()), seed=SEED, steps_per_execution=3), scheduled())

    assert_equal(expected, given)


@pytest.mark.parametrize("is_length_known", [True, False])
def test_values_belong_to_steps_also_where_the_data_ends_sooner_than_a_block(is_length_known):
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    dataset = dataset if is_length_known else dataset.filter(lambda *_: True)
    runs = []
    for callbacks in ([Sets()], scheduled()):
        model = make()
        Trainer(model, steps_per_execution=4).fit(dataset, epochs=3, callbacks=callbacks, verbose=0)
        runs.append(weights_of(model))

    assert_bit_equal(*runs)


def test_beside_one_that_acts_each_step_has_its_value_already_as_it_is_told_of():
    seen = []

    class Acts(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append([float(variable) for variable in variables_of(self.model)])

    expected = fit(Trainer(make(), seed=SEED), [Sets()])
    given = fit(Trainer(make(), seed=SEED), [*scheduled(), Acts()])

    assert_equal(expected, given)
    assert [[np.float32(rate_of(i)), slope_of(i)] for i in range(18)] == seen


def test_the_step_is_traced_once_whatever_the_values_and_the_lengths_are():
    trainer = Trainer(make(), seed=SEED)
    traces = []
    for factor, arguments in ((1, {}), (2, {"max_steps": 5}), (3, {"batch_size": 5})):
        fit(trainer, [Schedules(0, lambda step, factor=factor: factor * rate_of(step))], **arguments)
        traces.append(trainer.model.layers[1].traces)

    assert traces[0] == traces[1] == traces[2]


def test_without_the_callback_the_rate_stays_where_the_last_step_has_left_it():
    """As it does behind Keras's LearningRateScheduler."""
    trainer = Trainer(make(), seed=SEED)
    fit(trainer, [Schedules(0, rate_of)], epochs=1)
    rate = float(trainer.model.optimizer.learning_rate)
    fit(trainer, [], epochs=1)

    assert np.float32(rate_of(5)) == rate == float(trainer.model.optimizer.learning_rate)


def test_in_a_loop_by_itself_each_row_has_its_own_value():
    """What the loop promises without a Trainer: a table of (steps, variables)."""
    number, factor = tf.Variable(0), keras.Variable(0.0)
    loop = Loop(lambda x: {"a": tf.cast(number, tf.float32) * factor}, scheduled=[number, factor])
    walk = open_source(X, batch_size=8).open(0)
    loop.trace(walk.pull, walk.signature())
    table = np.array([[1.0, 0.5], [2.0, 0.25], [3.0, 4.0]])
    rows = loop.run(walk.pull, walk.cursor(0), 3, table)

    assert [0.5, 0.5, 12.0] == rows.values[:, 0].tolist()
    assert (3, 4.0) == (int(number), float(factor))

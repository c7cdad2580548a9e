"""`compile` and `trainable` inside a fit take effect with the next epoch; the oracle is two fits, one after another."""

import functools

import keras
import pytest
import tensorflow as tf

from engine import Callback, Trainer
from tests.helpers import NUM_CLASSES, assert_bit_equal, samples, weights_of
from tests.oracle import assert_same_logs

X, Y = samples(43, shape=(4,))  # six batches of at most 8, the last of three
ARGUMENTS = {"batch_size": 8, "shuffle": False, "validation_data": (X[:11], Y[:11]), "verbose": 0}


class CountsTraces(keras.layers.Layer):
    """Counts how often Python goes through it in training and else."""

    def __init__(self):
        super().__init__()
        self.traces = {True: 0, False: 0}

    def call(self, x, training=False):
        self.traces[bool(training)] += 1
        return x


def make_model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([
        keras.Input((4,)), CountsTraces(), keras.layers.Dense(5, "relu"), keras.layers.Dropout(0.3),
        keras.layers.Dense(NUM_CLASSES, "softmax"),
    ])  # fmt: skip
    compile_anew(model, keras.optimizers.Adam(0.05))
    model.layers[0].traces.update({True: 0, False: 0})
    return model


def compile_anew(model, optimizer=None, loss="sparse_categorical_crossentropy", metrics=("accuracy",)):
    model.compile(optimizer or keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=list(metrics))


def freeze(model):
    model.layers[1].trainable = False


def freeze_and_compile(model):
    freeze(model)
    compile_anew(model)


def other_rate(model):
    model.optimizer.learning_rate = 0.001


CHANGES = {
    "other optimizer": compile_anew,
    "other loss": lambda model: compile_anew(model, loss=keras.losses.SparseCategoricalCrossentropy(ignore_class=1)),
    "other metrics": lambda model: compile_anew(model, metrics=["sparse_top_k_categorical_accuracy"]),
    "frozen": freeze,
    "frozen and compiled": freeze_and_compile,
    "thawed": lambda model: [setattr(layer, "trainable", True) for layer in model.layers],
    "other rate": other_rate,
}
TRACED_ANEW = {name: name not in ("thawed", "other rate") for name in CHANGES}


class Changes(Callback):
    """Makes the change when one hook is called in one epoch; of batches, in the fourth."""

    def __init__(self, change, hook, epoch, *, acts=False):
        super().__init__()
        self.acts_on_batches = acts
        self.now = -1
        hooks = {"on_epoch_begin": lambda index, logs=None: setattr(self, "now", index)}

        def make_change(index=None, logs=None):
            hooks["on_epoch_begin"](index) if hook == "on_epoch_begin" else None
            if self.now == epoch and ("batch" not in hook or index == 3):
                change(self.model)

        for name, method in (hooks | {hook: make_change}).items():
            setattr(self, name, method)


MOMENTS = {  # the third epoch is the first to be changed
    "as it begins": ("on_epoch_begin", 2, False),
    "as the one before ends": ("on_epoch_end", 1, False),
    "while a block of the one before is replayed": ("on_train_batch_end", 1, False),
    "between two batches of the one before": ("on_train_batch_end", 1, True),
}
WHEN = {  # every change at one of the moments, and some at each
    "as it begins": ("frozen", "frozen and compiled", "other metrics", "other rate"),
    "as the one before ends": ("frozen", "other optimizer"),
    "while a block of the one before is replayed": ("frozen and compiled", "thawed"),
    "between two batches of the one before": ("frozen and compiled", "other loss"),
}
VALIDATED = ("frozen", "other metrics", "other optimizer")


@functools.cache
def two_fits(change, is_validated):
    """The weights and the history of two epochs, the change, and two more epochs.

    A name that is in one of the fits only has a shorter list, as in Keras.
    """
    model = make_model()
    arguments = ARGUMENTS | ({} if is_validated else {"validation_data": None})
    trainer = Trainer(model, steps_per_execution=4)
    first = trainer.fit(X, Y, epochs=2, **arguments).history
    CHANGES[change](model)
    second = trainer.fit(X, Y, epochs=4, initial_epoch=2, **arguments).history
    history = {name: first.get(name, []) + second.get(name, []) for name in sorted({**first, **second})}
    return weights_of(model), history


CASES = [
    pytest.param(change, *moment, id=f"{change} {name}") for name, moment in MOMENTS.items() for change in WHEN[name]
]


@pytest.mark.parametrize(("change", "hook", "epoch", "acts"), CASES)
def test_a_change_takes_effect_with_the_next_epoch_by_one_more_trace(change, hook, epoch, acts):
    """As if one fit had ended, the change had been made and another fit had begun."""
    is_validated = "batch" not in hook and change in VALIDATED  # a validation takes a change up as soon as it begins
    expected_weights, expected = two_fits(change, is_validated)
    arguments = ARGUMENTS | ({} if is_validated else {"validation_data": None})
    ours = make_model()
    callback = Changes(CHANGES[change], hook, epoch, acts=acts)
    history = Trainer(ours, steps_per_execution=4).fit(X, Y, epochs=4, callbacks=[callback], **arguments).history

    assert_same_logs(expected, dict(sorted(history.items())))
    assert_bit_equal(expected_weights, weights_of(ours))
    assert ours.layers[0].traces[True] == (2 if TRACED_ANEW[change] else 1)


@pytest.mark.parametrize("change", ["other loss", "frozen and compiled"])
def test_a_change_as_training_begins_is_one_before_it(change):
    """Though the step has been traced by then."""
    theirs, ours = make_model(), make_model()
    CHANGES[change](theirs)
    expected = theirs.fit(X, Y, epochs=2, **ARGUMENTS).history
    callback = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: CHANGES[change](ours))
    history = Trainer(ours).fit(X, Y, epochs=2, callbacks=[callback], **ARGUMENTS).history

    assert_bit_equal(weights_of(theirs), weights_of(ours))
    assert_same_logs(expected, history)


def test_a_layer_frozen_and_thawed_within_an_epoch_costs_no_trace():
    model = make_model()

    def freeze_and_thaw(epoch):
        model.layers[1].trainable = epoch % 2 == 0
        model.layers[1].trainable = True

    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: freeze_and_thaw(epoch))
    Trainer(model).fit(X, Y, epochs=3, callbacks=[callback], **ARGUMENTS)

    assert 1 == model.layers[0].traces[True]


@pytest.mark.parametrize(("as_dataset", "ranks"), [(False, (1, 2, 1)), (True, (2, 1, 2))], ids=str)
def test_targets_of_another_rank_in_the_next_fit_train_as_those_of_the_same(as_dataset, ranks):
    """The class numbers are the same ones; Keras fails in the second fit: "shape with unknown rank"."""
    theirs, ours = make_model(), make_model()
    trainer = Trainer(ours, steps_per_execution=4)
    for rank in ranks:
        y = Y.reshape((-1,) + (1,) * (rank - 1))
        data = (tf.data.Dataset.from_tensor_slices((X, y)).batch(8),) if as_dataset else (X, y)
        sizes = {} if as_dataset else {"batch_size": 8}
        history = trainer.fit(*data, shuffle=False, verbose=0, **sizes).history
        expected = theirs.fit(X, Y, batch_size=8, shuffle=False, verbose=0).history
        assert_same_logs(expected, history)

    assert_bit_equal(weights_of(theirs), weights_of(ours))

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Callback, Trainer
from tests.helpers import Recorder, assert_bit_equal, samples

X, Y = samples(43, shape=(4,))
DATASET = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)


@pytest.fixture(scope="module")
def model():
    """Never compiled by itself; a nest of outputs of several ranks and dtypes."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(6, activation="relu")(inputs)
    outputs = {
        "b": [keras.layers.Reshape((2, 3))(hidden)],
        "a": (keras.layers.Dense(1)(hidden), keras.ops.cast(hidden > 0.5, "int32")),
    }
    model = keras.Model(inputs, outputs)
    model.compile("sgd", loss=None)
    return model


@pytest.fixture(scope="module")
def trainer(model):
    return Trainer(model)


def assert_equal_outputs(expected, given):
    keras.tree.assert_same_structure(expected, given)
    assert all(isinstance(leaf, np.ndarray) for leaf in keras.tree.flatten(given))
    assert [leaf.dtype for leaf in keras.tree.flatten(expected)] == [leaf.dtype for leaf in keras.tree.flatten(given)]
    assert_bit_equal(keras.tree.flatten(expected), keras.tree.flatten(given))


CASES = {
    "arrays": {"x": X},
    "small batches, the last ragged": {"x": X, "batch_size": 5},
    "a batch larger than the data": {"x": X, "batch_size": 100},
    "some batches": {"x": X, "batch_size": 8, "steps": 3},
    "a dataset": {"x": DATASET},
    "a part of an endless dataset": {"x": DATASET.repeat(), "steps": 8},
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_keras_in_its_structure(model, trainer, case):
    assert_equal_outputs(model.predict(**CASES[case], verbose=0), trainer.predict(**CASES[case], verbose=0))


def test_dense_outputs_come_in_blocks(model):
    """Six batches; a loop that took each by itself would give the same outputs, several times as slowly."""
    trainer = Trainer(model, steps_per_execution=4)
    trainer.predict(X, batch_size=8, verbose=0)

    assert "2 blocks of steps (shortest, median, longest: 2, 4, 4)" == str(trainer.report().predict.blocks)


@pytest.mark.parametrize("steps_per_execution", [1, 3, 64])
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_neither_blocks_nor_an_unknown_length_change_anything(model, trainer, steps_per_execution, run_eagerly):
    again = Trainer(model, steps_per_execution=steps_per_execution, run_eagerly=run_eagerly)

    assert_equal_outputs(
        trainer.predict(X, batch_size=8, verbose=0), again.predict(DATASET.filter(lambda *_: True), verbose=0)
    )


class Outputs(Callback):
    """Keeps what each batch gave, told of whole blocks."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def on_predict_batch_end(self, batch, logs=None):
        self.kept.append(keras.tree.map_structure(np.asarray, logs["outputs"]))


class ActingOutputs(Outputs):
    acts_on_batches = True


@pytest.mark.parametrize("kind", [Outputs, ActingOutputs])
def test_a_callback_gets_the_outputs_of_each_batch(trainer, kind):
    callback = kind()
    expected = trainer.predict(X, batch_size=8, callbacks=[callback], verbose=0)

    assert [8, 8, 8, 8, 8, 3] == [len(outputs["b"][0]) for outputs in callback.kept]
    assert_equal_outputs(expected, keras.tree.map_structure(lambda *parts: np.concatenate(parts), *callback.kept))


class Stops(keras.callbacks.Callback):
    def __init__(self, hook):
        super().__init__()
        setattr(self, hook, self._stop)

    def _stop(self, *arguments, **named):
        if arguments and arguments[0] == 2:
            self.model.stop_predicting = True


@pytest.mark.parametrize("hook", ["on_predict_batch_begin", "on_predict_batch_end"])
def test_stop_predicting_takes_effect_where_keras_lets_it(model, trainer, hook):
    theirs, ours = Recorder(), Recorder()
    expected = model.predict(DATASET, callbacks=[Stops(hook), theirs], verbose=0)
    given = trainer.predict(DATASET, callbacks=[Stops(hook), ours], verbose=0)

    # Without the names in the logs: Keras takes outputs apart that are a dict.
    assert [call[:-1] for call in theirs.calls] == [call[:-1] for call in ours.calls]
    assert_equal_outputs(expected, given)


class Adds(keras.callbacks.Callback):
    """Changes the weights before each batch."""

    def on_predict_batch_begin(self, batch, logs=None):
        self.model.layers[1].bias.assign_add(np.full(6, 1.0))


def test_a_callback_that_acts_before_a_batch_acts_on_that_batch(model, trainer):
    before = model.get_weights()
    outputs = []
    for predict in (model.predict, trainer.predict):
        outputs.append(predict(X, batch_size=8, callbacks=[Adds()], verbose=0))
        model.set_weights(before)

    assert_equal_outputs(*outputs)


def test_a_model_that_is_not_compiled_predicts_as_in_keras():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])

    assert_equal_outputs(model.predict(X, verbose=0), Trainer(model).predict(X, verbose=0))


@pytest.mark.slow
def test_nothing_of_the_outputs_is_held_twice():
    """Outputs of 400 MB: beside them there is room for the blocks that they come in, not for all of them again."""
    program = """
import resource
import keras
import numpy as np
from engine import Trainer
inputs = keras.Input((1,))
model = keras.Model(inputs, keras.layers.Dense(5000)(inputs))
trainer = Trainer(model)
x = np.ones((20_000, 1), "float32")
trainer.predict(x[:2_000], batch_size=500, verbose=0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
outputs = trainer.predict(x, batch_size=500, verbose=0)
print(outputs.nbytes, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    size, grown = map(int, done.stdout.split())

    assert 400_000_000 == size
    assert grown < 1.5 * size

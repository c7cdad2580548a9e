"""Whatever a model gives, `predict` hands over as Keras does, in blocks or batch by batch; `evaluate`'s two forms."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Callback, Trainer
from tests.helpers import NUM_CLASSES, perceptron, samples
from tests.oracle import RTOL

pytestmark = pytest.mark.shares_models

X, Y = samples(43, shape=(4,))  # six batches of at most 8, the last of three


class Gives(keras.Model):
    """A model whose outputs are a function of its inputs."""

    def __init__(self, function):
        super().__init__()
        self.dense = keras.layers.Dense(3)
        self.dense.build((None, 4))
        self.function = function

    def call(self, x):
        return self.function(x, self.dense)


def ragged(x):
    """Rows of 0 to 4 values."""
    return tf.RaggedTensor.from_tensor(x, lengths=tf.cast(tf.abs(x[:, 0] * 10), tf.int64) % 5)


def as_long_as_the_longest(x):
    """(batch, longest row of the batch): another inner axis in every batch."""
    return ragged(x).to_tensor()


OUTPUTS = {
    "single": lambda x, dense: dense(x),
    "list": lambda x, dense: [dense(x), x],
    "list of one": lambda x, dense: [dense(x)],
    "tuple": lambda x, dense: (dense(x), x),
    "dict": lambda x, dense: {"b": dense(x), "a": x},
    "nested": lambda x, dense: {"b": [dense(x), (x, {"c": x[:, 0]})], "a": (x,)},
    "one number a sample": lambda x, dense: x[:, 0],
    "images": lambda x, dense: tf.tile(x[:, :, None, None], (1, 1, 2, 3)),
    "bool and integers": lambda x, dense: (x > 0, tf.cast(x * 100, tf.int32), tf.argmax(dense(x), -1)),
    "float16 and float64": lambda x, dense: (tf.cast(x, tf.float16), tf.cast(x, tf.float64)),
    "complex": lambda x, dense: tf.complex(x, 2.0 * x),
    "strings": lambda x, dense: tf.strings.as_string(x),
    "strings beside numbers": lambda x, dense: {"name": tf.strings.as_string(x[:, 0]), "value": dense(x)},
    "ragged": lambda x, dense: ragged(x),
    "ragged beside dense": lambda x, dense: [ragged(x), dense(x)],
    "ragged strings": lambda x, dense: tf.strings.split(tf.strings.join([tf.strings.as_string(x[:, 0]), "b c"], " ")),
    "sparse": lambda x, dense: tf.sparse.from_dense(tf.nn.relu(x)),
    "sparse beside dense": lambda x, dense: (tf.sparse.from_dense(tf.nn.relu(x)), dense(x)),
    "inner axis of any length": lambda x, dense: as_long_as_the_longest(x),
    "inner axis of any length, before one that is fixed": lambda x, dense: tf.tile(
        as_long_as_the_longest(x)[..., None], (1, 1, 2)
    ),
    "two inner axes of any length": lambda x, dense: as_long_as_the_longest(x)[:, :, None]
    * as_long_as_the_longest(-x)[:, None, :],
    "no value a sample": lambda x, dense: x[:, :0],
    "one number a batch": lambda x, dense: tf.reduce_max(x),
    "one number a batch beside dense": lambda x, dense: (tf.reduce_max(x), x),
    "not as many rows as samples": lambda x, dense: tf.repeat(x, 2, 0),
}  # fmt: skip


@functools.cache
def model_and_trainer(outputs):
    """A model that gives such outputs, and a Trainer of it; one for all tests, so that steps are traced seldom."""
    model = Gives(OUTPUTS[outputs])
    return model, Trainer(model, steps_per_execution=4)


def assert_same_outputs(expected, given):
    """In structure, kind, dtype and every bit."""
    keras.tree.assert_same_structure(expected, given)
    for left, right in zip(keras.tree.flatten(expected), keras.tree.flatten(given), strict=True):
        assert type(left) is type(right)
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        if isinstance(left, tf.RaggedTensor):
            assert left.to_list() == right.to_list()
        elif isinstance(left, tf.SparseTensor):
            np.testing.assert_array_equal(left.indices, right.indices)
            np.testing.assert_array_equal(left.values, right.values)
        else:
            np.testing.assert_array_equal(left, right)


def batches(batch_size=8):
    return tf.data.Dataset.from_tensor_slices(X).batch(batch_size)


DATA = {
    "arrays": lambda: {"x": X, "batch_size": 8},
    "one batch": lambda: {"x": X, "batch_size": 64},
    "unknown length": lambda: {"x": batches().filter(lambda x: True)},
}


class Looks(Callback):
    """Keeps what every batch gave."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def on_predict_batch_end(self, batch, logs=None):
        self.kept.append((batch, list(logs), logs["outputs"]))


class Acts(Looks):
    acts_on_batches = True


OF_ONE_BATCH = ["nested", "inner axis of any length", "one number a batch", "one number a batch beside dense"]
OF_UNKNOWN_LENGTH = ["single", "strings beside numbers", "ragged", "sparse", "two inner axes of any length"]


@pytest.mark.parametrize(
    ("outputs", "data"),
    [
        *((outputs, "arrays") for outputs in OUTPUTS),
        *((outputs, "one batch") for outputs in OF_ONE_BATCH),
        *((outputs, "unknown length") for outputs in OF_UNKNOWN_LENGTH),
    ],
)
def test_outputs_are_those_of_keras(outputs, data):
    """In blocks of four, in single steps for a callback that acts, and eagerly."""
    model, trainer = model_and_trainer(outputs)
    # Of data of unknown length Keras complains that it ran out.
    expected = model.predict(**DATA["arrays" if data == "unknown length" else data](), verbose=0)
    if (
        data == "one batch" and "one number a batch" in outputs
    ):  # which Keras has as no array, if there is but one batch
        expected = keras.tree.map_structure(np.atleast_1d, expected)

    assert_same_outputs(expected, trainer.predict(**DATA[data](), verbose=0))
    assert_same_outputs(expected, trainer.predict(**DATA[data](), callbacks=[Acts()], verbose=0))


@functools.cache
def batches_by_keras(outputs):
    """What Keras predicts of each batch by itself."""
    model, _ = model_and_trainer(outputs)
    return [model.predict(batches().skip(index).take(1), verbose=0) for index in range(6)]


@pytest.mark.parametrize("outputs", [name for name in OUTPUTS if name != "not as many rows as samples"])
@pytest.mark.parametrize("callback", [Looks, Acts])
def test_a_hook_gets_the_outputs_of_its_batch(outputs, callback):
    """In the model's own structure; Keras takes a dict of outputs apart."""
    (_, trainer), looks = model_and_trainer(outputs), callback()
    trainer.predict(batches(), callbacks=[looks], verbose=0)

    assert [(batch, ["outputs"]) for batch in range(6)] == [kept[:2] for kept in looks.kept]
    for batch, _, given in looks.kept:
        assert_same_outputs(batches_by_keras(outputs)[batch], given)


@pytest.mark.parametrize("outputs", ["nested", "inner axis of any length", "strings beside numbers", "sparse"])
def test_eager_steps_give_the_same_outputs(outputs):
    model, _ = model_and_trainer(outputs)
    expected = model.predict(batches(), verbose=0)

    assert_same_outputs(expected, Trainer(model, run_eagerly=True).predict(batches(), verbose=0))


def two_headed(**compile_arguments):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((4,))
    outputs = {
        "kind": keras.layers.Dense(3, activation="softmax", name="kind")(inputs),
        "size": keras.layers.Dense(1, name="size")(inputs),
    }
    model = keras.Model(inputs, outputs)
    model.compile("sgd", **compile_arguments)
    return model


SCORED = {
    "loss alone": (lambda: perceptron(metrics=None), Y),
    "loss and metrics": (lambda: perceptron(metrics=["accuracy", "sparse_top_k_categorical_accuracy"]), Y),
    "weighted metrics": (lambda: perceptron(weighted_metrics=["accuracy"]), Y),
    "a metric with state": (
        lambda: perceptron(loss="categorical_crossentropy", metrics=[keras.metrics.AUC(name="auc"), "accuracy"]),
        keras.utils.to_categorical(Y, NUM_CLASSES),
    ),
    "several outputs": (
        lambda: two_headed(loss={"kind": "sparse_categorical_crossentropy", "size": "mse"}),
        {"kind": Y, "size": X.sum(1)},
    ),
    "several outputs with metrics": (
        lambda: two_headed(
            loss={"kind": "sparse_categorical_crossentropy", "size": "mse"},
            metrics={"size": ["mae", keras.metrics.RootMeanSquaredError()], "kind": ["accuracy"]},
        ),
        {"kind": Y, "size": X.sum(1, keepdims=True)},
    ),
}


@pytest.mark.parametrize("case", SCORED)
def test_scores_come_as_a_dict_or_as_the_list_of_keras(case):
    """With and without a callback that acts.

    43 samples in one batch: in more, Keras averages the losses of single outputs over batches, not samples.
    """
    make, y = SCORED[case]
    model = make()
    arguments = {"batch_size": 43, "verbose": 0}
    trainer = Trainer(model)
    by_name = model.evaluate(X, y, return_dict=True, **arguments)
    in_order = model.evaluate(X, y, **arguments)
    as_list = trainer.evaluate(X, y, return_dict=False, **arguments)

    for callbacks in ([], [keras.callbacks.LambdaCallback(on_test_batch_end=lambda batch, logs: None)]):
        scores = trainer.evaluate(X, y, callbacks=callbacks, **arguments)
        assert sorted(by_name) == list(scores)
        np.testing.assert_allclose([scores[name] for name in by_name], [*by_name.values()], rtol=RTOL)
    assert type(in_order) is type(as_list)
    np.testing.assert_allclose(as_list, in_order, rtol=RTOL)

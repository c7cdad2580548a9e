"""The promise of `test_equal_to_fit.py` on models, losses, metrics, data and blocks that Hypothesis draws.

```text
ENGINE_EXAMPLES=10 python -m pytest tests/test_equal_to_fit_drawn.py    ten times as many
```
"""

import operator

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from engine import Trainer
from engine.data.order import order
from tests.helpers import assert_bit_equal, weights_of
from tests.networks import Branch, Compiled, Head, Network, Run, Training
from tests.strategies import examples, trainings

SEED = 3
TOLERANCE = {"rtol": 1e-6, "atol": 1e-7}  # ours sums in float64, Keras in float32


def dataset_of(training, rows_of_epochs, *, is_static=False):
    """The training's batches, an epoch for each list of rows; their length known beforehand if it is static."""
    num_samples, batch_size = training.run.num_samples, training.run.batch_size
    data = keras.tree.lists_to_tuples(keras.utils.pack_x_y_sample_weight(*training.data(num_samples)))
    orders = iter(rows_of_epochs)

    def batches():
        rows = next(orders)
        for begin in range(0, num_samples, batch_size):
            some = rows[begin : begin + batch_size]
            yield keras.tree.map_structure(operator.itemgetter(some), data)

    length = batch_size if is_static else None
    signature = keras.tree.map_structure(lambda leaf: tf.TensorSpec((length, *leaf.shape[1:]), leaf.dtype), data)
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(-(-num_samples // batch_size)))


def fed(training, *, is_oracle):
    """How `fit` is told of the training's data; the oracle is given shuffled arrays in the Trainer's order.

    Batches that are all of one length go to the oracle as a dataset too: see the last test of this file.
    """
    run = training.run
    x, y, sample_weight = training.data(run.num_samples)
    arrays = {"x": x, "y": y, "sample_weight": sample_weight, "batch_size": run.batch_size}
    is_even = run.num_samples % run.batch_size == 0
    if run.feed == "arrays" and not (is_oracle and is_even):
        return arrays | {"shuffle": False}
    if run.feed in ("arrays", "dataset"):
        return {"x": dataset_of(training, [np.arange(run.num_samples)] * run.epochs), "shuffle": False}
    orders = [order(SEED, epoch, run.num_samples) for epoch in range(run.epochs)]
    if not is_oracle:
        return arrays
    return {"x": dataset_of(training, orders), "shuffle": False}


def fit(fit, training, *, is_oracle):
    """The history of a model's or a Trainer's `fit`."""
    run = training.run
    arguments = {"epochs": run.epochs, "class_weight": training.class_weight, "verbose": 0}
    if run.num_held_out:
        held_out = tuple(part for part in training.data(run.num_held_out) if part is not None)
        arguments |= {"validation_data": held_out, "validation_batch_size": run.batch_size}
    return fit(**fed(training, is_oracle=is_oracle), **arguments).history


def assert_equal_logs(expected, given, excepted=()):
    """Compares names and values; those excepted by name alone."""
    assert set(expected) == set(given)
    for name in set(expected) - set(excepted):
        np.testing.assert_allclose(given[name], expected[name], err_msg=name, **TOLERANCE)


def unlike_in_keras(model, run):
    """Losses of outputs that Keras averages over batches where it should over samples."""
    of_outputs = [metric.name for metric in model.metrics if metric.name.endswith("_loss")]
    names = {"": run.num_samples, "val_": run.num_held_out}
    return [p + name for p, n in names.items() if n > run.batch_size and n % run.batch_size for name in of_outputs]


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")  # of outputs without a loss
@pytest.mark.parametrize("kind", ["sequential", "functional", "subclassed"])
@examples(3)
@given(data=st.data())
def test_whatever_is_trained_on_whatever_is_as_fit_trains_it(kind, data):
    """Weights, optimizer and dropout's seeds bit by bit, in blocks of any length; the history and the scores.

    The scores are those of the validation, or those of an evaluation where there is none.
    """
    training = data.draw(trainings(kind), label="training")
    theirs, ours, run = training.model(), training.model(), training.run
    expected = fit(theirs.fit, training, is_oracle=True)
    trainer = Trainer(ours, seed=SEED, steps_per_execution=run.steps_per_execution)
    given = fit(trainer.fit, training, is_oracle=False)

    assert_bit_equal(weights_of(theirs), weights_of(ours))
    assert_equal_logs(expected, given, excepted=unlike_in_keras(theirs, run))
    if not run.num_held_out:
        x, y, sample_weight = training.data(run.num_samples)
        arguments = {"sample_weight": sample_weight, "batch_size": run.num_samples, "return_dict": True, "verbose": 0}
        assert_equal_logs(theirs.evaluate(x, y, **arguments), trainer.evaluate(x, y, **arguments))


def test_where_every_batch_is_of_one_length_keras_knows_it_and_an_ulp_may_differ():
    """Of arrays that it cuts evenly Keras makes batches of a known length, and TensorFlow folds the constants of some
    gradients into another product. Here one graph serves every length, so that these are equal to rounding only; to
    the bit they are those of the same batches given as a dataset, of whose lengths Keras does not know either.
    """
    branch, head = Branch("tokens", ("layer normalisation",)), Head("numbers", "string")
    training = Training(Network("functional", (branch,), (head,)), Compiled(), Run(num_samples=12, batch_size=4))
    of_arrays, of_dataset, ours = training.model(), training.model(), training.model()
    x, y, _ = training.data(12)
    epochs = training.run.epochs
    of_arrays.fit(x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0)
    fit(of_dataset.fit, training, is_oracle=True)
    fit(Trainer(ours).fit, training, is_oracle=False)

    assert_bit_equal(weights_of(of_dataset), weights_of(ours))
    for expected, found in zip(weights_of(of_arrays), weights_of(ours), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

"""Two replicas with unequal shares of a batch, and of what a mask leaves of it: together they are one."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from engine import Trainer, losses, replicas
from engine.losses import Updates
from tests.strategies import examples

SIZE, STEPS, CLASSES = 6, 3, 4
RANDOM = np.random.default_rng(0)
X, Z = (RANDOM.normal(size=(SIZE, STEPS, 3)).astype("float32") for _ in range(2))
WEIGHT = RANDOM.uniform(0.1, 3, (SIZE, STEPS)).astype("float32")
ONE = tf.distribute.get_strategy()


@functools.cache
def trained_in(strategy):
    """A model, and a function of (where the batch is cut, targets, mask) that trains it by a step with every term."""
    with strategy.scope():
        keras.utils.set_random_seed(1)
        dense = keras.layers.Dense(CLASSES, "softmax", kernel_regularizer="l2", activity_regularizer="l1", name="dense")
        model = keras.Sequential([keras.Input((STEPS, 3)), dense])
        model.compile(keras.optimizers.SGD(1.0, momentum=0.9))
        model.optimizer.build(model.trainable_variables)
    loss, updates = keras.losses.SparseCategoricalCrossentropy(ignore_class=1), Updates()

    def step(x, z, y, mask, weight):
        with losses.Total() as total:
            outputs, others = total.call(model, x), total.call(model, z)
            outputs._keras_mask = mask
            valid = tf.cast(mask, tf.float32)
            count = tf.reduce_sum(valid)
            squares = tf.reduce_sum(outputs**2, axis=-1)
            total.compare("steps", loss, y, outputs, weight)
            total.compare("likeness", keras.losses.mean_absolute_error, x[..., :1], others, weight=0.5)
            total.add("hand", tf.math.divide_no_nan(tf.reduce_sum(squares * valid), count), count=count, weight=2.0)
            total.add("each", tf.reduce_mean(squares, axis=1))
        total.minimize(model, log_norm=True)
        return total.logs()

    @tf.function
    def run(cuts, y, mask):
        def on_replica():
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            begin, end = cuts[index], cuts[index + 1]
            size = tf.cast(end - begin, tf.float32)
            with updates.step(size):
                logs = step(*(part[begin:end] for part in map(tf.convert_to_tensor, (X, Z, y, mask, WEIGHT))))
            return {name: value * size / SIZE for name, value in logs.items()}

        return {name: strategy.reduce("SUM", value, axis=None) for name, value in strategy.run(on_replica).items()}

    def train(*arguments):
        for variable in model.optimizer.variables:
            variable.assign(tf.zeros(variable.shape, variable.dtype))
        model.optimizer.learning_rate = 1.0
        before = model.get_weights()
        logs = {name: float(value) for name, value in run(*arguments).items()}
        model.set_weights(before)
        return logs, [momentum.numpy() for momentum in model.optimizer.momentums]  # the gradients, to their last bits

    return train


@examples(20)
@given(
    first=st.integers(1, SIZE - 1),
    mask=st.lists(st.booleans(), min_size=SIZE * STEPS, max_size=SIZE * STEPS),
    y=st.lists(st.integers(0, CLASSES - 1), min_size=SIZE * STEPS, max_size=SIZE * STEPS),
)
def test_every_term_and_every_gradient_is_that_of_the_whole_batch(two_replicas, first, mask, y):
    """However it is dealt out, also where a replica, or all, has nothing that counts."""
    mask, y = np.reshape(mask, (SIZE, STEPS)), np.reshape(y, (SIZE, STEPS))
    expected_logs, expected = trained_in(ONE)(tf.constant([0, SIZE]), y, mask)
    logs, found = trained_in(two_replicas)(tf.constant([0, first, SIZE]), y, mask)
    largest = max(np.abs(gradient).max() for gradient in expected)

    assert expected_logs.keys() == logs.keys()
    for name, value in expected_logs.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-6, atol=1e-7, err_msg=name)
    for one, both in zip(expected, found, strict=True):
        np.testing.assert_allclose(both, one, rtol=0, atol=1e-6 * largest)


TOKENS = RANDOM.integers(0, 5, (11, STEPS))
TOKENS[:, 0] = np.maximum(TOKENS[:, 0], 1)
TOKENS[3, 1:] = 0
LABELS = RANDOM.integers(0, CLASSES, (11, STEPS))


def masked(num_outputs):
    keras.utils.set_random_seed(1)
    tokens = keras.Input((STEPS,), dtype="int32")
    embedded = keras.layers.Embedding(5, 3, mask_zero=True, embeddings_regularizer="l2")(tokens)
    outputs = [keras.layers.Dense(CLASSES, "softmax", name=f"out{i}")(embedded) for i in range(num_outputs)]
    model = keras.Model(tokens, outputs if num_outputs > 1 else outputs[0])
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=1)
    weights = [0.5, 2.0] if num_outputs > 1 else None
    model.compile(keras.optimizers.SGD(0.5), [loss, loss][:num_outputs], loss_weights=weights)
    return model


@pytest.mark.parametrize(
    ("num_outputs", "arguments"),
    [(1, {}), (1, {"report_terms": True}), (2, {"accumulate": 2, "report_terms": True})],
    ids=["one output", "its terms", "terms of two outputs, accumulated"],
)
def test_a_compiled_model_with_masks_trains_and_is_evaluated_on_two_replicas_as_on_one(
    two_replicas, num_outputs, arguments
):
    """Weights, and every loss in the logs: of training, of validation, of each output."""
    histories, weights = [], []
    y = LABELS if num_outputs == 1 else [LABELS, LABELS[::-1].copy()]
    for strategy in (ONE, two_replicas):
        with strategy.scope():
            model = masked(num_outputs)
        trainer = Trainer(model, **arguments)
        history = trainer.fit(TOKENS, y, 6, 2, 0, shuffle=False, validation_data=(TOKENS, y))
        histories.append(history.history)
        weights.append(model.get_weights())

    assert histories[0].keys() == histories[1].keys()
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=2e-6, err_msg=name)
    for one, both in zip(*weights, strict=True):
        np.testing.assert_allclose(both, one, rtol=0, atol=1e-6)


def test_a_term_by_hand_may_ask_for_the_whole_batch(two_replicas):
    """Rows of all replicas and sums over them; what flows back through either reaches whose it is."""
    found = []
    for strategy, cuts in ((ONE, [0, SIZE]), (two_replicas, [0, 2, SIZE])):
        with strategy.scope():
            weight = keras.Variable(np.eye(3, dtype="float32"))
            optimizer = keras.optimizers.SGD(1.0)
            optimizer.build([weight])
        updates = Updates()

        def step(weight=weight, optimizer=optimizer, cuts=cuts, updates=updates):
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            rows = tf.constant(X[:, 0])[tf.constant(cuts)[index] : tf.constant(cuts)[index + 1]]
            with updates.step(tf.shape(rows)[0]), losses.Total() as total:
                features = rows @ tf.convert_to_tensor(weight)  # (B, 3)
                others = replicas.gathered(features)
                total.add("likeness", tf.reduce_mean(tf.tanh(features @ tf.transpose(others)), axis=1))
                total.add("spread", tf.reduce_max(replicas.total(tf.reduce_sum(features**2, axis=0))))
            with updates.step(tf.shape(rows)[0]):
                total.minimize([weight], optimizer)

        tf.function(lambda strategy=strategy, step=step: strategy.run(step))()
        found.append(weight.numpy())

    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-6)
    assert np.abs(found[0] - np.eye(3)).max() > 0.1

"""Steps written with `losses.Total` in 16 bits: the scale is found, and an overflow costs one update."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Trainer, losses
from engine.callbacks import LambdaCallback
from tests.helpers import samples

X, Y = samples(24, shape=(4,))
ONE = tf.distribute.get_strategy()


@pytest.fixture
def policy(request):
    """Keras set to a policy for one test."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def step(model, batch):
    """A loss of Keras's, a term by hand in the layers' own 16 bits, and a regularizer."""
    x, y = batch
    with losses.Total() as total:
        outputs = total.call(model, x)
        total.compare("data", keras.losses.SparseCategoricalCrossentropy(from_logits=True), y, outputs)
        total.add("small", tf.reduce_mean(outputs**2, axis=1), weight=0.01)
    total.minimize(model, log_norm=True)
    return total.logs()


def half(**compile_arguments):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_regularizer="l2")])
    model.compile(**({"optimizer": keras.optimizers.SGD(0.1)} | compile_arguments))
    return model


def trained(strategy, accumulate, *, initial_scale=2.0**24):
    """(scale, updates, weights) behind every update, and the history."""
    with strategy.scope():
        inner = keras.optimizers.SGD(0.1)
        scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=initial_scale, dynamic_growth_steps=3)
        model = half(optimizer=scaled)
    found = []

    def look(batch, logs=None):
        if (batch + 1) % accumulate == 0:
            weights = np.concatenate([weight.ravel() for weight in model.get_weights()])
            found.append((float(scaled.dynamic_scale.numpy()), int(inner.iterations.numpy()), weights))

    trainer, looks = (
        Trainer(model, step=step, accumulate=accumulate),
        LambdaCallback(on_train_batch_end=look, acts_on_batches=True),
    )
    history = trainer.fit(X, Y, 4 // accumulate, epochs=4, shuffle=False, verbose=0, callbacks=[looks])
    return found, history.history


@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("is_shared", [False, True], ids=["one replica", "two replicas"])
def test_an_overflow_halves_the_scale_and_costs_one_update(two_replicas, policy, accumulate, is_shared):
    """Until gradients fit; from there on it learns, and after three good updates the scale is doubled to try again."""
    found, history = trained(two_replicas if is_shared else ONE, accumulate)
    outcomes = []
    for (scale, updates, weights), (new_scale, new_updates, new_weights) in itertools.pairwise(found):
        is_same = np.array_equal(weights, new_weights)
        assert is_same == (new_scale == scale / 2) == (new_updates == updates)
        assert new_scale in (scale / 2, scale, scale * 2)
        outcomes.append(new_scale / scale)

    assert 24 == len(found)
    assert 2.0**23 == found[0][0]
    assert {0.5, 1.0, 2.0} == set(outcomes)
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
def test_the_scale_does_not_show_in_what_is_learnt_or_logged(policy):
    """A power of two is taken out to the last bit, of weights and of the norm in the logs."""
    (*_, small), small_history = trained(ONE, 1, initial_scale=2.0**3)
    (*_, large), large_history = trained(ONE, 1, initial_scale=2.0**6)

    assert 24 == small[1] == large[1]
    np.testing.assert_allclose(small[2], large[2], rtol=0, atol=1e-4)  # the smallest gradients have fewer bits
    np.testing.assert_allclose(small_history["gradient_norm"], large_history["gradient_norm"], rtol=1e-3)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"], indirect=True)
def test_a_model_compiled_in_16_bits_learns_and_its_loss_has_32(policy):
    model = half()
    history = Trainer(model, step=step, run_eagerly=True).fit(X, Y, 8, epochs=8, verbose=0).history

    assert (policy == "mixed_float16") == isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert history["loss"][-1] < history["loss"][0]
    assert all(float(np.float16(value)) != value for value in history["loss"])

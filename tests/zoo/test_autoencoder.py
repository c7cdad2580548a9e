import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from engine import Trainer
from zoo import Gaussian, VariationalAutoencoder, VariationalInference

SHAPE = (8, 8, 1)
LOGS = ["loss", "loss/divergence", "loss/reconstruction"]


def images(number):
    return np.random.default_rng(0).random((number, *SHAPE), np.float32)


def autoencoder():
    """Compiled, the same at each call."""
    keras.utils.set_random_seed(3)
    model = VariationalAutoencoder(SHAPE, 3)
    model.compile(keras.optimizers.SGD(1e-3))  # Adam would make much of the rounding of a gradient near 0
    return model


def by_hand(model, real, noise):
    """The bound on one batch, with what it is the sum of, as the paper's appendices B and C.1 write it."""
    encoded = model.encoder(real)
    mean, log_variance = encoded[:, :3], encoded[:, 3:]
    divergence = -tf.reduce_sum(1 + log_variance - mean**2 - tf.exp(log_variance)) / 2 / len(real)
    white = model.decoder(mean + tf.exp(log_variance) ** 0.5 * noise)
    likelihood = tf.reduce_sum(real * tf.math.log(white) + (1 - real) * tf.math.log(1 - white)) / len(real)
    return divergence - likelihood, divergence, -likelihood


def step_by_hand(model, real, noise):
    """One update."""
    with tf.GradientTape() as tape:
        values = by_hand(model, real, noise)
    weights = model.trainable_weights
    model.optimizer.apply_gradients(zip(tape.gradient(values[0], weights), weights, strict=True))
    return [float(value) for value in values]


def test_three_steps_are_those_of_a_loop_by_hand():
    """Losses and weights, with the same noise: its seeds start at 1."""
    ours, theirs, real, seeds = autoencoder(), autoencoder(), images(12), keras.random.SeedGenerator(1)
    expected = [step_by_hand(theirs, batch, keras.random.normal((4, 3), seed=seeds)) for batch in np.split(real, 3)]
    history = Trainer(VariationalInference(ours)).fit(real, batch_size=4, shuffle=False, verbose=0).history

    assert LOGS == sorted(history)
    np.testing.assert_allclose(np.mean(expected, axis=0), [history[name][0] for name in LOGS], rtol=1e-5)
    for left, right in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def test_evaluation_is_the_bound_and_draws_the_same_noise_each_time():
    model, real = autoencoder(), images(6)
    trainer = Trainer(VariationalInference(model))
    expected = by_hand(model, real, tf.random.stateless_normal((6, 3), seed=(0, 0)))
    first, again = trainer.evaluate(real, verbose=0), trainer.evaluate(real, verbose=0)

    assert first == again
    np.testing.assert_allclose([float(value) for value in expected], [first[name] for name in LOGS], rtol=1e-5)


def test_validation_does_not_touch_the_noise_of_the_training():
    models = autoencoder(), autoencoder()
    for model, validation in zip(models, (None, (images(4),)), strict=True):
        task = VariationalInference(model)
        Trainer(task, seed=1).fit(images(8), batch_size=4, epochs=2, validation_data=validation, verbose=0)

    assert all(map(np.array_equal, models[0].get_weights(), models[1].get_weights()))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=2))
def test_a_code_costs_the_divergence_of_its_distribution_from_the_standard_normal(parameters):
    """The integral of q log(q / p), found by quadrature, summed over the numbers of a code."""
    mean, log_variance = np.array(parameters, np.float32).T[:, np.newaxis]  # (1, size) each
    layer = Gaussian()
    layer(mean, log_variance)
    codes = [norm(loc, np.exp(log / 2)) for loc, log in parameters]
    expected = sum(q.expect(lambda z, q=q: q.logpdf(z) - norm.logpdf(z)) for q in codes)

    assert float(layer.losses[0]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_drawn_codes_have_the_mean_and_the_variance_asked_for():
    size = (20_000, 1)
    noise = np.random.default_rng(0).standard_normal(size, np.float32)
    codes = np.asarray(Gaussian()(np.full(size, 3.0, np.float32), np.full(size, np.log(4.0), np.float32), noise))

    assert codes.mean() == pytest.approx(3 + 2 * noise.mean(), rel=1e-4)
    assert codes.std() == pytest.approx(2 * noise.std(), rel=1e-4)


def test_predicting_makes_pictures_again_from_the_means_of_their_codes():
    model, real = autoencoder(), images(5)
    means = model.encoder(real)[:, :3]
    again = Trainer(VariationalInference(model)).predict(real, verbose=0)

    np.testing.assert_allclose(model.decoder(means), again, rtol=1e-5)


def test_a_saved_model_makes_the_same_pictures(tmp_path):
    model, real = autoencoder(), images(5)
    model(real)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")

    assert np.array_equal(model.predict(real, verbose=0), again.predict(real, verbose=0))


def test_in_half_precision_pictures_and_losses_are_float32(policy):
    policy("mixed_bfloat16")
    model, real = autoencoder(), images(4)
    pictures = model(real)

    assert tf.float32 == pictures.dtype == model.losses[0].dtype
    assert tf.bfloat16 == model.decoder.layers[0].compute_dtype
    assert np.isfinite(Trainer(VariationalInference(model)).fit(real, verbose=0).history["loss"][0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((28, 30, 1),), r"image_shape was given as \(28, 30, 1\), but must be"),
        ((SHAPE, 0), r"code_size was given as 0, but must be a whole number"),
    ],
)
def test_sizes_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        VariationalAutoencoder(*arguments)

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Trainer
from zoo import GAN, small_critic, small_generator

SHAPE = (8, 8, 1)
CRITIC = ["critic_loss", "critic_loss/fake", "critic_loss/real", "critic_loss/slope"]
LOGS = [*CRITIC, "generator_loss", "generator_loss/fooling"]


def images(number):
    return np.random.default_rng(0).random((number, *SHAPE), np.float32)


def adversaries():
    """A generator and a critic, compiled, the same at each call."""
    keras.utils.set_random_seed(3)
    networks = small_generator(SHAPE, noise_size=4), small_critic(SHAPE)
    for network, rate in zip(networks, (0.1, 0.05), strict=True):
        # Adam divides a gradient by its size: where it is nearly 0, rounding would decide.
        network.compile(keras.optimizers.SGD(rate))
    return networks


def by_hand(generator, critic, real, noise):
    """The step as the paper writes it: the values of both losses, and one update of each network."""
    with tf.GradientTape(persistent=True) as tape:
        fakes = generator(noise, training=True)
        with tf.GradientTape() as inner:
            inner.watch(real := tf.constant(real))
            on_real = critic(real, training=True)
        slope = tf.reduce_mean(tf.reduce_sum(inner.gradient(on_real, real) ** 2, axis=(1, 2, 3)))
        on_fake = critic(fakes, training=True)
        told = tf.reduce_mean(tf.nn.softplus(-on_real))  # -log sigmoid(on_real)
        caught = tf.reduce_mean(tf.nn.softplus(on_fake))  # -log(1 - sigmoid(on_fake))
        fooling = tf.reduce_mean(tf.nn.softplus(-on_fake))
        total = told + caught + 3.0 / 2 * slope
    for network, loss in ((critic, total), (generator, fooling)):
        weights = network.trainable_weights
        network.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
    return [float(value) for value in (total, caught, told, 3.0 / 2 * slope, fooling, fooling)]


def test_three_steps_are_those_of_a_loop_by_hand():
    """Losses and weights, with the same noise: its seeds start at 1."""
    ours, theirs, real, seeds = adversaries(), adversaries(), images(12), keras.random.SeedGenerator(1)
    expected = [by_hand(*theirs, batch, keras.random.normal((4, 4), seed=seeds)) for batch in np.split(real, 3)]
    history = Trainer(GAN(*ours, penalty=3.0)).fit(real, batch_size=4, shuffle=False, verbose=0).history

    assert LOGS == sorted(history)
    np.testing.assert_allclose(np.mean(expected, axis=0), [history[name][0] for name in LOGS], rtol=1e-5)
    for one, other in zip(theirs, ours, strict=True):
        for left, right in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def test_each_network_learns_by_its_own_loss_only():
    """A generator that stands still leaves the critic's update as it is, and the other way round."""
    frozen, moving = adversaries(), adversaries()
    frozen[0].trainable = False
    Trainer(GAN(*frozen)).fit(images(4), batch_size=4, verbose=0)
    Trainer(GAN(*moving)).fit(images(4), batch_size=4, verbose=0)
    still = adversaries()[0].get_weights()

    assert all(map(np.array_equal, still, frozen[0].get_weights()))
    assert not any(map(np.array_equal, still, moving[0].get_weights()))
    for left, right in zip(moving[1].get_weights(), frozen[1].get_weights(), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)  # another graph rounds in another order


def test_predicting_draws_images_from_noise():
    generator, critic = adversaries()
    noise = np.random.default_rng(0).standard_normal((5, 4), np.float32)
    drawn = Trainer(GAN(generator, critic)).predict(noise, verbose=0)

    assert np.array_equal(generator.predict(noise, verbose=0), drawn)


def test_the_networks_have_the_sizes_they_speak_of():
    assert 237_345 == small_generator().count_params()
    assert 435_041 == small_critic().count_params()


@pytest.mark.parametrize("shape", [(28, 28, 1), (8, 12, 3)])
@pytest.mark.parametrize("policy_name", ["float32", "mixed_bfloat16"])
def test_images_are_float32_from_0_to_1_of_the_shape_asked_for(policy, policy_name, shape):
    policy(policy_name)
    pictures = small_generator(shape, noise_size=3)(np.full((2, 3), 9, np.float32))
    logits = small_critic(shape)(pictures)

    assert (2, *shape) == pictures.shape
    assert (2, 1) == logits.shape
    assert tf.float32 == pictures.dtype == logits.dtype
    assert 0 <= np.min(pictures) <= np.max(pictures) <= 1


@pytest.mark.parametrize("make", [small_generator, small_critic])
def test_a_shape_that_cannot_be_halved_twice_is_refused(make):
    with pytest.raises(ValueError, match=r"image_shape was given as \(28, 30, 1\), but must be"):
        make((28, 30, 1))


def test_noise_of_no_numbers_is_refused():
    with pytest.raises(ValueError, match=r"noise_size was given as 0, but must be a whole number"):
        small_generator(noise_size=0)


def test_a_penalty_under_nothing_is_refused():
    with pytest.raises(ValueError, match="'penalty' must be >= 0"):
        GAN(*adversaries(), penalty=-1.0)

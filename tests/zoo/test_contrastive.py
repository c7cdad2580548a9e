import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Trainer, losses
from zoo import RandomViews, SimCLR, nt_xent, small_encoder, with_projection_head
from zoo.contrastive import compare, found

SIZE = 3  # of a projection


def expected_losses(first, second, temperature):
    """The paper's equation 1, view by view, in double precision; an image's is the mean of its two."""
    views = np.concatenate([first, second]).astype("float64")
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    number, losses = len(first), []
    for i, view in enumerate(views):
        partner = views[(i + number) % (2 * number)]
        others = [other for k, other in enumerate(views) if k != i]
        total = sum(np.exp(view @ other / temperature) for other in others)
        losses.append(-np.log(np.exp(view @ partner / temperature) / total))
    return (np.array(losses[:number]) + np.array(losses[number:])) / 2


def expected_gradients(first, second, temperature):
    """Of the mean loss of all views by each of them: through the softmax, both factors of a cosine, and the norm."""
    number, views = len(first), np.concatenate([first, second]).astype("float64")
    norms = np.linalg.norm(views, axis=1, keepdims=True)
    units = views / norms
    odds = np.exp(units @ units.T / temperature) * (1 - np.eye(2 * number))
    by_cosine = odds / odds.sum(axis=1, keepdims=True) - np.roll(np.eye(2 * number), number, axis=1)
    by_unit = (by_cosine + by_cosine.T) @ units / temperature / (2 * number)
    by_view = (by_unit - units * (by_unit * units).sum(axis=1, keepdims=True)) / norms
    return np.split(by_view, 2)


@st.composite
def projections(draw, least=1):
    """Two views' projections of a few images, none so short that its direction would be a matter of rounding."""
    number = draw(st.integers(least, 6))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    both = generator.normal(size=(2, number, SIZE)) * draw(st.sampled_from([0.1, 1, 10]))
    both[draw(st.booleans()) * 1] = both[0] if draw(st.integers(0, 4)) == 0 else both[1]  # at times two equal views
    return both.astype("float32")


temperatures = st.floats(0.1, 2)


@functools.cache
def in_one_replica():
    """Losses and the gradients of their mean; traced once for all numbers of images."""
    rows = tf.TensorSpec((None, SIZE))

    @tf.function(input_signature=[rows, rows, tf.TensorSpec(())])
    def run(first, second, temperature):
        with tf.GradientTape() as tape:
            tape.watch([first, second])
            losses = nt_xent(first, second, temperature=temperature)
            mean = tf.reduce_mean(losses)
        return losses, tape.gradient(mean, [first, second])

    return run


@functools.cache
def in_two_replicas(strategy):
    """The same, where the first replica has the first `share` images and the second one the others."""
    rows = tf.TensorSpec((None, SIZE))

    @tf.function(input_signature=[rows, rows, tf.TensorSpec(()), tf.TensorSpec((), "int32")])
    def run(first, second, temperature, share):
        def own():
            is_first = tf.equal(tf.distribute.get_replica_context().replica_id_in_sync_group, 0)
            begin, end = tf.where(is_first, 0, share), tf.where(is_first, share, tf.shape(first)[0])
            one, other = first[begin:end], second[begin:end]
            with tf.GradientTape() as tape:
                tape.watch([one, other])
                losses = nt_xent(one, other, temperature=temperature)
                part = tf.reduce_sum(losses) / tf.cast(tf.shape(first)[0], tf.float32)  # of the whole batch's mean
            return losses, tape.gradient(part, [one, other])

        return [strategy.experimental_local_results(part) for part in keras.tree.flatten(strategy.run(own))]

    return run


@given(projections(), temperatures)
@settings(deadline=None)
def test_the_loss_is_that_of_the_papers_equation(both, temperature):
    losses, _ = in_one_replica()(*both, temperature)

    # Cosines are rounded to 1e-7 and divided by as little as 0.1.
    np.testing.assert_allclose(losses, expected_losses(*both, temperature), rtol=1e-5, atol=1e-5)


@given(projections(), temperatures)
@settings(deadline=None)
def test_its_gradient_is_the_one_written_out(both, temperature):
    _, gradients = in_one_replica()(*both, temperature)
    expected = expected_gradients(*both, temperature)

    np.testing.assert_allclose(gradients, expected, rtol=1e-4, atol=1e-5 / np.abs(both).max())


@given(projections(least=2), temperatures, st.data())
@settings(deadline=None)
def test_two_replicas_have_the_losses_and_gradients_of_the_whole_batch(two_replicas, both, temperature, data):
    """Whatever their shares: each view has those of both replicas for negatives, and pushes them away."""
    share = data.draw(st.integers(1, both.shape[1] - 1))
    parts = in_two_replicas(two_replicas)(*both, temperature, share)
    losses, first, second = (np.concatenate(part) for part in parts)

    np.testing.assert_allclose(losses, expected_losses(*both, temperature), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        [first, second], expected_gradients(*both, temperature), rtol=1e-4, atol=1e-5 / np.abs(both).max()
    )


def test_a_single_image_has_nothing_to_be_told_from():
    view = tf.constant([[1.0, 2.0, 3.0]])

    np.testing.assert_array_equal([0.0], nt_xent(view, -view, temperature=0.5))


def test_the_length_of_a_projection_does_not_count():
    first, second = np.random.default_rng(0).normal(size=(2, 5, SIZE)).astype("float32")
    expected = nt_xent(first, second, temperature=0.5)

    np.testing.assert_allclose(nt_xent(4 * first, second / 4, temperature=0.5), expected, rtol=1e-6)


def test_half_precision_is_compared_in_float32():
    first, second = np.random.default_rng(0).normal(size=(2, 5, SIZE)).astype("float16")
    expected = nt_xent(first.astype("float32"), second.astype("float32"), temperature=0.5)

    np.testing.assert_array_equal(expected, nt_xent(first, second, temperature=0.5))


def test_a_view_is_found_if_none_is_nearer():
    """Of three images: the first's views are together, the second's apart, of the third's one is nearer to a second."""
    first = tf.constant([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    second = tf.constant([[1.0, 0.1, 0.0], [0.0, -1.0, 0.0], [0.0, 0.9, 1.0]])
    cosines, partners = compare(first, second)

    np.testing.assert_array_equal([3, 4, 5, 0, 1, 2], partners)
    np.testing.assert_array_equal(np.full(6, -np.inf), tf.linalg.diag_part(cosines))
    np.testing.assert_array_equal([1.0, 0.0, 1.0], found(first, second))


def task(**arguments):
    """A small one."""
    keras.utils.set_random_seed(1)
    encoder = small_encoder((8, 8, 1), width=8)
    network = with_projection_head(encoder, width=8, size=4)
    network.compile(keras.optimizers.Adam(1e-2))
    return SimCLR(network, encoder, **arguments)


def images(number):
    return np.random.default_rng(0).random((number, 8, 8, 1), dtype="float32")


def test_a_step_is_two_views_a_loss_and_an_update():
    """Against the same written out with a plain tape."""
    ours, plain, batch = task(), task(), tf.constant(images(6))
    with tf.GradientTape() as tape:
        first, second = (plain.model(plain.views(batch, plain.seeds), training=True) for _ in range(2))
        loss = tf.reduce_mean(nt_xent(first, second, temperature=plain.temperature))
    weights = plain.model.trainable_variables
    plain.model.optimizer.apply_gradients(zip(tape.gradient(loss, [w.value for w in weights]), weights, strict=True))
    logs = ours.train_step((batch,))

    assert {"loss", "loss/nt_xent", "found"} == set(logs)
    assert float(loss) == float(logs["loss"]) == float(logs["loss/nt_xent"])
    assert 0 <= float(logs["found"]) <= 1
    for expected, given_ in zip(plain.model.get_weights(), ours.model.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, given_)


def test_training_brings_the_views_of_an_image_together():
    encoder = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    network = with_projection_head(encoder, width=32, size=8)
    network.compile(keras.optimizers.Adam(1e-2))
    views = RandomViews(rotation=15, zoom=0.2, shear=0.2, noise=0.05)
    own = SimCLR(network, encoder, views=views, temperature=0.2)
    history = Trainer(own, seed=3).fit(images(64), batch_size=32, epochs=20, verbose=0).history

    assert history["loss"][-1] < history["loss"][0] - 0.5
    assert history["found"][-1] > 3 * history["found"][0]


def test_predict_gives_the_encoders_features():
    own = task()

    np.testing.assert_array_equal(own.encoder.predict(images(4), verbose=0), Trainer(own).predict(images(4), verbose=0))


@pytest.mark.parametrize(("shape", "features"), [((28, 28, 1), 1024), ((8, 8, 3), 64), ((1, 1, 1), 64)])
def test_the_encoder_keeps_an_eighth_of_each_side(shape, features):
    assert (None, features) == small_encoder(shape).output_shape


def test_an_images_features_do_not_depend_on_the_batch():
    encoder = small_encoder((8, 8, 1))
    together = encoder(images(5), training=True)
    alone = np.concatenate([encoder(image[None], training=True) for image in images(5)])

    # Not bit-equal: another number of images is convolved in another order.
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-5)


def test_an_encoder_that_is_not_in_the_model_is_refused():
    network = with_projection_head(small_encoder((8, 8, 1)))

    with pytest.raises(ValueError, match=r"encoder was given as 'other', which is no part of the model 'contrastive'"):
        SimCLR(network, small_encoder((8, 8, 1), name="other"))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_above_0_is_refused(temperature):
    with pytest.raises(ValueError, match="'temperature' must be > 0"):
        task(temperature=temperature)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: small_encoder((8, 8, 1), width=0), "^width was given as 0"),
        (lambda: small_encoder((8, 8, 1), width=12), "^width was given as 12, but must be a multiple of 8"),
        (lambda: with_projection_head(small_encoder((8, 8, 1)), width=0), "^width was given as 0"),
        (lambda: with_projection_head(small_encoder((8, 8, 1)), size=-1), "^size was given as -1"),
    ],
)
def test_a_bad_number_is_refused_by_the_name_of_the_argument(make, words):
    with pytest.raises(ValueError, match=words):
        make()


class Spread(keras.layers.Layer):
    """Wants its inputs to be far from 0, by `add_loss`."""

    def call(self, x):
        self.add_loss(-0.3 * tf.reduce_mean(tf.square(x)))
        return x


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_a_model_called_for_two_views_counts_what_each_call_adds_and_its_weights_once(number, seed):
    """Against the same total written out, on a plain tape: `model.losses` has those of one call only."""
    layers = [
        keras.layers.Dense(3, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.1), name="dense"),
        Spread(name="spread"),
        keras.layers.Activation("linear", activity_regularizer=keras.regularizers.L1(0.2), name="thin"),
    ]
    model = keras.Sequential([keras.Input((4,)), *layers])
    first, second = np.random.default_rng(seed).normal(size=(2, number, 4)).astype("float32")
    with losses.Total() as total:
        one, other = total.call(model, first), total.call(model, second)
        total.add("data", tf.reduce_mean(tf.square(one - other)))
    kernel = model.trainable_weights[0]
    weights = tf.Variable(kernel.value)
    with tf.GradientTape() as tape:
        outputs = tf.stack([first @ weights, second @ weights])  # (2, B, 3)
        spread = -0.3 * tf.reduce_mean(tf.square(outputs)) * 2
        thin = 0.2 * tf.reduce_sum(tf.abs(outputs)) / number
        regularization = 0.1 * tf.reduce_sum(tf.square(weights))
        expected = tf.reduce_mean(tf.square(outputs[0] - outputs[1])) + spread + thin + regularization
    gradient = tape.gradient(expected, weights)
    total.minimize(model, keras.optimizers.SGD(1.0))
    logs = total.logs()

    # Not bit-equal: summed in another order.
    np.testing.assert_allclose(logs["loss/spread"], spread, rtol=1e-5)
    np.testing.assert_allclose(logs["loss/thin"], thin, rtol=1e-5)
    np.testing.assert_allclose(logs["loss/regularization"], regularization, rtol=1e-5)
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(kernel, weights - gradient, rtol=1e-5, atol=1e-5)

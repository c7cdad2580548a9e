import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from zoo import RandomViews

STILL = {"rotation": 0.0, "zoom": 0.0, "shear": 0.0, "shift": 0.0, "cut_out": 0.0, "noise": 0.0}
HEIGHT, WIDTH = 9, 12


def pictures(number):
    return np.random.default_rng(0).random((number, HEIGHT, WIDTH, 2), dtype="float32")


def seeds():
    return keras.random.SeedGenerator(3)


def drawn(number):
    """What the views of `seeds()` are made from, in [-1, 1]."""
    return keras.random.uniform((number, 8), -1, 1, seed=seeds()).numpy().astype("float64")


def moved(image, draws, views):
    """One image as SciPy moves it: what the view shows at (row, column), by a product of three matrices."""
    angle, shear, log_x, log_y, move_x, move_y = draws[:6]
    angle *= math.radians(views.rotation)
    turn = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    slide = [[1, views.shear * shear], [0, 1]]
    matrix = np.diag((1 + views.zoom) ** np.array([log_x, log_y])) @ turn @ slide
    matrix = matrix[::-1, ::-1]  # (y, x), as SciPy counts
    middle = (np.array([HEIGHT, WIDTH]) - 1) / 2
    offset = middle + views.shift * np.array([move_y * HEIGHT, move_x * WIDTH]) - matrix @ middle
    channels = [ndimage.affine_transform(image[..., c], matrix, offset, order=1, mode="grid-constant") for c in (0, 1)]
    return np.stack(channels, axis=-1)


@given(
    st.builds(
        RandomViews,
        rotation=st.floats(0, 180),
        zoom=st.floats(0, 1),
        shear=st.floats(0, 1),
        shift=st.floats(0, 1),
        cut_out=st.just(0.0),
        noise=st.just(0.0),
    )
)
@settings(max_examples=30, deadline=None)
def test_an_image_is_turned_stretched_sheared_and_moved_as_scipy_does(views):
    images = pictures(4)
    expected = [moved(image, draws, views) for image, draws in zip(images, drawn(4), strict=True)]

    # The matrices are float32 here: a pixel's place is known to 1e-5, and so is its value.
    np.testing.assert_allclose(views(tf.constant(images), seeds()), expected, rtol=0, atol=1e-4)


def test_a_box_is_blacked_out():
    images, views = np.ones((20, HEIGHT, WIDTH, 2), "float32"), RandomViews(**STILL | {"cut_out": 0.4})
    rows, columns = np.arange(HEIGHT) - (HEIGHT - 1) / 2, np.arange(WIDTH) - (WIDTH - 1) / 2
    expected = np.ones_like(images)
    for image, (x, y) in zip(expected, drawn(20)[:, 6:], strict=True):
        in_rows = np.abs(rows - y * HEIGHT / 2) < 0.4 * HEIGHT / 2
        in_columns = np.abs(columns - x * WIDTH / 2) < 0.4 * WIDTH / 2
        image[np.ix_(in_rows, in_columns)] = 0
    given = views(tf.constant(images), seeds()).numpy()

    np.testing.assert_array_equal(expected, given)
    assert 0 < given.mean() < 1


def test_noise_is_added_to_each_pixel_by_itself():
    views = RandomViews(**STILL | {"noise": 0.3})
    images = pictures(100)
    noise = views(tf.constant(images), seeds()).numpy() - images

    assert abs(noise.mean()) < 0.01  # of 21,600 draws: five standard errors
    assert 0.3 == pytest.approx(noise.std(), rel=0.03)
    assert len(np.unique(noise)) > 0.9 * noise.size


def test_where_nothing_is_asked_for_nothing_changes():
    images = pictures(5)

    np.testing.assert_array_equal(images, RandomViews(**STILL)(tf.constant(images), seeds()))


def test_views_differ_from_each_other_and_from_image_to_image():
    images = np.repeat(pictures(1), 3, axis=0)
    generator = seeds()
    first, second = (RandomViews()(tf.constant(images), generator).numpy() for _ in range(2))

    assert 6 == len(np.unique(np.concatenate([first, second]), axis=0))


@pytest.mark.parametrize("share", [1, 3, 4])
def test_two_replicas_together_see_what_one_would(two_replicas, share):
    """Though their shares differ, and though a seed generator gives the same numbers to both."""
    images = tf.constant(pictures(7))
    expected = RandomViews(cut_out=0.3)(images, seeds())
    with two_replicas.scope():
        generator = seeds()

    @tf.function
    def views(size):
        def own():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            is_first = tf.equal(replica, 0)
            begin, end = tf.where(is_first, 0, size), tf.where(is_first, size, 7)
            return RandomViews(cut_out=0.3)(images[begin:end], generator)

        return two_replicas.experimental_local_results(two_replicas.run(own))

    # Not bit-equal: a sine is rounded another way where it is computed for fewer images.
    np.testing.assert_allclose(np.concatenate(views(tf.constant(share))), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (tf.TensorSpec((2, 4, 4, 1), "uint8"), r"images was given as uint8 of shape \(2, 4, 4, 1\), but must be float"),
        (tf.TensorSpec((2, 4, 4)), r"float32 of shape \(2, 4, 4\), but must"),
        (tf.TensorSpec((None, None, 4, 1)), r"float32 of shape \(None, None, 4, 1\), but must"),
        (tf.TensorSpec(None), r"float32 of shape <unknown>, but must"),
    ],
)
def test_other_images_are_refused_in_words(images, words):
    generator = seeds()

    with pytest.raises(ValueError, match=words):
        tf.function(lambda images: RandomViews(cut_out=0.3)(images, generator)).get_concrete_function(images)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rotation": -1.0}, "'rotation' must be >= 0"),
        ({"rotation": 181.0}, "'rotation' must be <= 180"),
        ({"zoom": -0.1}, "'zoom' must be >= 0"),
        ({"shear": math.nan}, "'shear' must be >= 0"),
        ({"shift": 1.1}, "'shift' must be <= 1"),
        ({"cut_out": 1.0}, "'cut_out' must be < 1"),
        ({"noise": -0.1}, "'noise' must be >= 0"),
    ],
)
def test_a_bad_strength_is_refused_at_the_door(arguments, words):
    with pytest.raises(ValueError, match=words):
        RandomViews(**arguments)

import numpy as np
import pytest

from recipes.data import Images, Splits
from recipes.probe import Features, few, pixels_of, probe


def splits(number=120):
    """Images of three classes, told by which of three pixels is brightest; a fourth pixel is always black."""
    generator = np.random.default_rng(0)
    labels = np.arange(number) % 3
    pixels = generator.random((number, 2, 2, 1)).astype("float32") * 0.5
    pixels.reshape(number, 4)[np.arange(number), labels] += 0.5
    pixels[:, 1, 1] = 0
    parts = [Images(pixels[rows], labels[rows]) for rows in (slice(60), slice(60, 80), slice(80, None))]
    return Splits(*parts, num_classes=3)


def test_features_are_standardised_by_the_training_images():
    features = Features(np.array([[1, 5], [3, 5]], "float32"), np.array([[4, 6]], "float32"))
    standard = features.standardised()

    np.testing.assert_array_equal([[-1, 0], [1, 0]], standard.train)
    np.testing.assert_array_equal([[2, 1]], standard.test)


def test_what_tells_the_classes_is_found_and_what_does_not_is_not():
    """Expected: all but certain by the pixels, a third by noise; one row a count and one for all labels."""
    own = splits()
    noise = np.random.default_rng(1).random((100, 4)).astype("float32")
    good = probe(pixels_of(own), own, counts=(5, 15), draws=3, seed=1)
    bad = probe(Features(noise[:60], noise[60:]), own, counts=(5, 15), draws=3, seed=1)

    assert (3, 3) == good.shape == bad.shape
    assert good[-1].min() > 0.9 > 0.6 > bad.max()
    assert 1 == len(set(good[-1]))
    assert good[0].mean() <= good[-1].mean()


def test_the_same_seed_draws_the_same_images_for_any_features():
    own = splits()
    features = pixels_of(own)
    doubled = Features(4 * features.train, 4 * features.test)

    np.testing.assert_array_equal(
        probe(features, own, counts=(5,), draws=3, seed=1), probe(doubled, own, counts=(5,), draws=3, seed=1)
    )


@pytest.mark.parametrize("count", [1, 4, 100])
def test_as_many_of_each_class_are_drawn_and_none_twice(count):
    labels = np.repeat([0, 1, 2], [4, 7, 30])
    rows = few(labels, count, np.random.default_rng(0))

    assert [min(count, size) for size in (4, 7, 30)] == np.bincount(labels[rows]).tolist()
    assert len(rows) == len(set(rows))

from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import pairwise_distances_argmin

from engine.errors import DataError
from recipes.data import Images, Splits, load


def parts(splits: Splits) -> list[Images]:
    return [splits.train, splits.validation, splits.test]


def mnist_like(**changes):
    """Thirty 9x8 images to train on and six to test on; the first pixel of each tells it from the others."""
    x_train, x_test = np.zeros((30, 9, 8), np.uint8), np.zeros((6, 9, 8), np.uint8)
    x_train[:, 0, 0], x_test[:, 0, 0] = np.arange(30), np.arange(100, 106)
    x_train[:, 8, 7] = x_test[:, 8, 7] = 255
    y_train, y_test = np.arange(30, dtype=np.uint8) % 5, np.arange(6, dtype=np.uint8)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test} | changes


def saved(directory: Path, arrays) -> str:
    np.savez(directory / "images.npz", **arrays)
    return str(directory / "images.npz")


@pytest.fixture(scope="module")
def digits() -> Splits:
    return load("digits")


def test_digits_are_float32_pictures_of_28x28_in_0_to_1(digits):
    for part in parts(digits):
        assert part.pixels.shape == (len(part), 28, 28, 1)
        assert part.pixels.dtype == np.float32
        assert part.labels.dtype == np.int64
        assert part.pixels.min() == 0.0
        assert part.pixels.max() == 1.0
    assert digits.num_classes == 10


def test_digits_are_split_the_same_way_every_time(digits):
    for once, again in zip(parts(digits), parts(load("digits")), strict=True):
        np.testing.assert_array_equal(once.pixels, again.pixels)
        np.testing.assert_array_equal(once.labels, again.labels)


def test_every_digit_is_in_exactly_one_part(digits):
    """The 1,797 pictures are all different, so as many different ones in the parts means each once."""
    pixels = np.concatenate([part.pixels for part in parts(digits)])

    assert [1257, 180, 360] == [len(part) for part in parts(digits)]
    assert len(np.unique(pixels.reshape(len(pixels), -1), axis=0)) == 1797


def test_every_part_of_digits_has_each_class_in_its_share(digits):
    whole = np.bincount(load_digits().target) / 1797
    for part in parts(digits):
        expected = whole * len(part)

        np.testing.assert_allclose(expected, np.bincount(part.labels), rtol=0, atol=1)


def test_an_enlarged_digit_is_still_the_digit(digits):
    """Brought back to 8x8, each is closest to an original with its own label."""
    originals, labels = load_digits(return_X_y=True)
    reduced = keras.ops.image.resize(digits.test.pixels, (8, 8))
    vectors = np.asarray(reduced).reshape(-1, 64)
    nearest = pairwise_distances_argmin(vectors, originals / 16)

    np.testing.assert_array_equal(labels[nearest], digits.test.labels)
    np.testing.assert_allclose(originals[nearest] / 16, vectors, rtol=0, atol=0.2)


def test_a_limit_keeps_the_first_training_images_and_the_other_parts(digits):
    limited = digits.limit(5)

    np.testing.assert_array_equal(digits.train.labels[:5], limited.train.labels)
    np.testing.assert_array_equal(digits.train.pixels[:5], limited.train.pixels)
    assert limited.validation is digits.validation
    assert limited.test is digits.test


def test_a_limit_beyond_the_training_images_is_refused(digits):
    with pytest.raises(DataError, match=r"limit is 2,000, but there are 1,257 training images\. Give a smaller"):
        digits.limit(2000)


def test_a_file_comes_back_scaled_with_its_last_tenth_for_validation(tmp_path):
    arrays = mnist_like()
    splits = load(saved(tmp_path, arrays))
    known = np.concatenate([splits.train.pixels, splits.validation.pixels])
    labels = np.concatenate([splits.train.labels, splits.validation.labels])
    order = np.argsort(known[:, 0, 0, 0])

    assert [27, 3, 6] == [len(part) for part in parts(splits)]
    assert splits.num_classes == 6
    np.testing.assert_array_equal(arrays["x_train"][..., None] / np.float32(255), known[order])
    np.testing.assert_array_equal(arrays["y_train"], labels[order])
    np.testing.assert_array_equal(arrays["x_test"][..., None] / np.float32(255), splits.test.pixels)
    np.testing.assert_array_equal(arrays["y_test"], splits.test.labels)
    assert splits.train.pixels.dtype == np.float32
    assert splits.train.labels.dtype == np.int64


def test_a_file_is_split_the_same_way_every_time(tmp_path):
    source = saved(tmp_path, mnist_like())

    np.testing.assert_array_equal(load(source).train.pixels, load(source).train.pixels)


def test_pictures_in_colour_and_floating_point_stay_as_they_are(tmp_path):
    x_train, x_test = np.random.default_rng(0).random((2, 20, 8, 8, 3))
    labels = np.zeros(20, np.int32)
    arrays = {"x_train": x_train, "y_train": labels, "x_test": x_test, "y_test": labels}
    splits = load(saved(tmp_path, arrays))

    np.testing.assert_array_equal(x_test.astype(np.float32), splits.test.pixels)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_train": np.zeros((30, 72))}, r"x_train has shape \(30, 72\), but \(image, height, width\) or"),
        ({"x_test": np.zeros((0, 9, 8))}, r"x_test has shape \(0, 9, 8\), but .* with 2 images or more"),
        ({"y_train": np.zeros((29,), int)}, r"y_train has shape \(29,\), but \(30,\) was expected"),
        ({"y_test": np.eye(6)}, r"y_test has shape \(6, 6\), but \(6,\) was expected: one number for each"),
        ({"y_test": np.zeros(6)}, "y_test is float64, but integers from 0 on were expected"),
        ({"y_test": np.array(list("abcdef"))}, "y_test is <U1, but integers from 0 on were expected"),
        ({"y_train": np.arange(30) - 1}, "y_train holds -1, but integers from 0 on were expected"),
        ({"x_test": np.full((6, 9, 8), 1.5)}, "x_test is float64 from 1.5 to 1.5, but uint8 from 0 to 255 or"),
        ({"x_test": np.full((6, 9, 8), np.nan)}, "x_test is float64 from nan to nan, but uint8"),
        ({"x_train": np.zeros((30, 9, 8), int)}, "x_train is int64, but uint8 from 0 to 255 or"),
        ({"x_test": np.zeros((6, 9, 9))}, r"x_train is \(9, 8, 1\) and one of x_test is \(9, 9, 1\), but one"),
        ({"x_train": np.full((30, 9, 8), None)}, "is not an .npz file of plain arrays, or it is damaged. Save"),
    ],
)
def test_arrays_of_another_layout_are_refused_with_what_was_expected(tmp_path, changes, words):
    with pytest.raises(DataError, match=words):
        load(saved(tmp_path, mnist_like(**changes)))


def test_a_file_without_some_of_the_arrays_says_which(tmp_path):
    arrays = mnist_like()
    del arrays["y_train"], arrays["x_test"]

    with pytest.raises(
        DataError, match=r"images\.npz lacks y_train, x_test\. Save one with np\.savez\(path, x_train=\.\.\."
    ):
        load(saved(tmp_path, arrays))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04hello"], ids=["empty", "text", "torn archive"])
def test_a_file_that_is_no_npz_file_is_refused(tmp_path, content):
    (tmp_path / "images.npz").write_bytes(content)

    with pytest.raises(DataError, match=r"images\.npz is not an \.npz file of plain arrays, or it is damaged"):
        load(str(tmp_path / "images.npz"))


def test_a_damaged_file_is_refused(tmp_path):
    path = Path(saved(tmp_path, mnist_like()))
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)

    with pytest.raises(DataError, match="or it is damaged"):
        load(str(path))


def test_a_single_array_is_refused(tmp_path):
    with (tmp_path / "images.npz").open("wb") as file:
        np.save(file, np.zeros(3))

    with pytest.raises(DataError, match=r"is not an \.npz file of plain arrays"):
        load(str(tmp_path / "images.npz"))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.npz cannot be read: No such file or directory\."):
        load(str(tmp_path / "none.npz"))


def test_an_unknown_source_is_told_the_known_ones():
    with pytest.raises(DataError, match=r"data is 'cifar', but 'digits', 'mnist' or the path of an \.npz file was"):
        load("cifar")

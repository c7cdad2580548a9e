import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras.src.trainers.data_adapters.array_slicing import train_validation_split  # what `fit` splits with

from engine.data import split_tail
from engine.errors import ConfigError, DataError
from tests.helpers import assert_bit_equal
from tests.strategies import counts, examples

fractions = st.floats(0, 1, exclude_min=True, exclude_max=True) | st.sampled_from([0.1, 0.2, 0.25, 0.3, 0.7, 0.9])


def kerass_split(arrays, fraction):
    """The halves that Keras makes, its wrappers taken off; None where it refuses."""
    try:
        halves = train_validation_split(arrays, fraction)
    except ValueError:
        return None
    return keras.tree.map_structure(lambda leaf: None if leaf is None else np.asarray(leaf), halves)


def our_split(arrays, fraction):
    """The halves that we make, their leaves read; None where we refuse."""
    try:
        halves = split_tail(*arrays, fraction)
    except DataError:
        return None
    return keras.tree.map_structure(lambda leaf: leaf and leaf.read(np.arange(leaf.num_rows)), halves)


@examples(500)
@given(counts(200), fractions)
def test_the_split_is_where_model_fit_has_it(num_samples, fraction):
    """The same tail, rounded alike, and refused for the same numbers of samples."""
    arrays = (np.arange(num_samples), np.arange(num_samples) * 2, None)
    expected, found = kerass_split(arrays, fraction), our_split(arrays, fraction)

    assert (expected is None) == (found is None)
    assert_bit_equal(keras.tree.flatten(expected), keras.tree.flatten(found))


@pytest.mark.parametrize(
    "x",
    [
        {"b": np.arange(10), "a": np.arange(20).reshape(10, 2)},
        [np.arange(10), (np.arange(10), np.arange(10))],
        (np.arange(10), None),
        [None, np.arange(10)],
        tf.range(10),
    ],
    ids=["dict", "nest", "None behind", "None in front", "tensor"],
)
def test_every_leaf_is_split_alike(x):
    arrays = (x, np.arange(10), np.ones(10))
    (expected_head, expected_tail), (head, tail) = kerass_split(arrays, 0.25), our_split(arrays, 0.25)

    keras.tree.assert_same_paths(keras.tree.lists_to_tuples(arrays), head)
    keras.tree.assert_same_paths(keras.tree.lists_to_tuples(arrays), tail)
    assert_bit_equal(keras.tree.flatten(expected_head), keras.tree.flatten(head))
    assert_bit_equal(keras.tree.flatten(expected_tail), keras.tree.flatten(tail))


@examples(100)
@given(counts(100), fractions)
def test_no_sample_is_lost_and_none_is_in_both_parts(num_samples, fraction):
    halves = our_split((np.arange(num_samples), None, None), fraction)

    assert halves is None or list(range(num_samples)) == [*halves[0][0], *halves[1][0]]


@pytest.mark.parametrize("fraction", [1.0, 1, 1.5, -0.1, 0.0])
def test_a_fraction_that_is_none_is_refused_in_words(fraction):
    with pytest.raises(ConfigError) as error:
        split_tail(np.arange(10), None, None, fraction)

    assert f"validation_split={fraction!r}: expected a number between 0 and 1." == str(error.value)


def test_too_few_samples_are_refused_in_words():
    with pytest.raises(DataError) as error:
        split_tail(np.arange(1), None, None, 0.5)

    assert (
        "validation_split=0.5 of 1 samples leaves one of the two parts empty. Give more samples or another fraction."
    ) == str(error.value)


def test_what_makes_batches_is_refused_in_words():
    with pytest.raises(ConfigError) as error:
        split_tail((i for i in range(3)), None, None, 0.5)

    assert (
        "validation_split needs arrays, but x is a generator. Split it yourself (a dataset, for example, with take and "
        "skip), and give the second part as validation_data."
    ) == str(error.value)


@pytest.mark.parametrize(
    "x", [None, [1, 2, 3], 5.0, tf.data.Dataset.range(4)], ids=["None", "numbers", "number", "dataset"]
)
def test_what_is_no_array_is_refused_before_it_is_split(x):
    with pytest.raises((ConfigError, DataError)):
        split_tail(x, None, None, 0.5)

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.order import order, order_of_batches
from tests.strategies import counts, examples

seeds = st.integers(0, 2**32 - 1)
epochs = st.integers(0, 1000)


@pytest.mark.parametrize(
    ("seed", "epoch", "expected"),
    [
        (1, 0, [3, 5, 2, 9, 7, 10, 0, 8, 6, 11, 1, 4]),
        (1, 1, [10, 0, 6, 11, 5, 3, 4, 9, 7, 8, 2, 1]),
        (2, 0, [10, 11, 1, 4, 0, 6, 3, 5, 2, 7, 8, 9]),
    ],
)
def test_the_order_never_changes(seed, epoch, expected):
    """A run that was begun years ago goes on with the very same batches: these numbers are for ever."""
    assert expected == order(seed, epoch, 12).tolist()


def test_the_order_of_batches_never_changes():
    assert [6, 7, 8, 0, 1, 2, 3, 4, 5, 9, 10] == order_of_batches(1, 0, 11, 3).tolist()


@examples(300)
@given(seeds, epochs, st.integers(0, 200))
def test_an_order_is_a_permutation(seed, epoch, num_samples):
    rows = order(seed, epoch, num_samples)

    assert np.int64 == rows.dtype
    assert list(range(num_samples)) == sorted(rows.tolist())


@examples(100)
@given(seeds, epochs, counts(200))
def test_an_order_follows_from_its_arguments_alone(seed, epoch, num_samples):
    """Neither the global generators nor earlier calls have a say, and they are left as they were."""
    np.random.seed(0)
    first = order(seed, epoch, num_samples)
    order(seed, epoch + 1, num_samples)
    drawn = np.random.random()
    again = order(seed, epoch, num_samples)
    np.random.seed(0)

    np.testing.assert_array_equal(first, again)
    assert np.random.random() == drawn


def test_epochs_and_seeds_all_have_orders_of_their_own():
    orders = {tuple(order(seed, epoch, 20)) for seed in range(20) for epoch in range(20)}

    assert 20 * 20 == len(orders)


def test_every_order_of_few_samples_occurs():
    """All six are equally likely: 600 epochs hold each about 100 times, 9 being the standard deviation."""
    found = [tuple(order(0, epoch, 3)) for epoch in range(600)]

    assert set(itertools.permutations(range(3))) == set(found)
    assert all(55 < found.count(permutation) < 145 for permutation in set(found))


@examples(300)
@given(seeds, epochs, counts(100), counts(20))
def test_batches_change_places_whole_and_the_ragged_one_stays_last(seed, epoch, num_samples, batch_size):
    rows = order_of_batches(seed, epoch, num_samples, batch_size)
    whole = num_samples // batch_size
    batches = rows[: whole * batch_size].reshape(whole, batch_size)

    assert np.int64 == rows.dtype
    np.testing.assert_array_equal(np.arange(whole * batch_size, num_samples), rows[whole * batch_size :])
    np.testing.assert_array_equal(
        np.arange(whole * batch_size).reshape(whole, batch_size), batches[np.argsort(batches[:, 0])]
    )


def test_batches_take_another_order_each_epoch():
    orders = {tuple(order_of_batches(seed=1, epoch=epoch, num_samples=43, batch_size=2)) for epoch in range(20)}

    assert 20 == len(orders)

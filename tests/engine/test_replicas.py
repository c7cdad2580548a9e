"""What a step may ask of the other replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from engine import replicas
from tests.strategies import examples

SIZE = 6
ROWS = np.arange(SIZE * 2, dtype="float32").reshape(SIZE, 2)


def seeds_in(scope):
    with scope:
        return keras.random.SeedGenerator(3)


def draw(number, seeds):
    """A nest of random numbers, one of them for the whole batch."""
    return {
        "noise": keras.random.normal((number, 2), seed=seeds),
        "kinds": (keras.random.randint((number,), 0, 9, seed=seeds),),
    }


@pytest.fixture(scope="module")
def asked(two_replicas):
    """A function of where the batch is cut: what each of two replicas got for its answer."""
    seeds = seeds_in(two_replicas.scope())

    @tf.function
    def ask(cuts):
        def on_replica():
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            begin, size = cuts[index], cuts[index + 1] - cuts[index]
            own = tf.constant(ROWS)[begin : begin + size]
            weight = tf.constant([2.0, 3.0])[index]
            with tf.GradientTape() as tape:
                tape.watch(own)
                everything = replicas.gathered(own)  # (SIZE, 2)
                factors = tf.range(1.0, SIZE + 1.0)
                loss = weight * tf.reduce_sum(everything * factors[:, None]) + replicas.total(tf.reduce_sum(own**2))
            return {
                "drawn": replicas.drawn(lambda number: draw(number, seeds), size),
                "number": tf.constant(replicas.number()),
                "total": replicas.total(tf.cast(size, tf.float32)),
                "totals": replicas.total([tf.reduce_sum(own), tf.cast(index, tf.float32)]),
                "gathered": everything,
                "first": replicas.first_row(size),
                "gradient": tape.gradient(loss, own),
            }

        return two_replicas.run(on_replica)

    def answers(first):
        seeds.state.assign([3, 0])
        found = ask(tf.constant([0, first, SIZE]))

        def of(index):
            return keras.tree.map_structure(
                lambda value: np.array(two_replicas.experimental_local_results(value)[index]), found
            )

        return [of(index) for index in range(2)]

    return answers


@examples(6)
@given(first=st.integers(1, SIZE - 1))
def test_two_replicas_draw_what_one_would_have_drawn(asked, first):
    """Each its own rows; the generator stands where it would stand."""
    expected = draw(SIZE, seeds_in(tf.distribute.get_strategy().scope()))
    drawn = [own["drawn"] for own in asked(first)]

    assert [first, SIZE - first] == [len(own["noise"]) for own in drawn]
    np.testing.assert_array_equal(expected["noise"], np.concatenate([own["noise"] for own in drawn]))
    np.testing.assert_array_equal(expected["kinds"][0], np.concatenate([own["kinds"][0] for own in drawn]))


@examples(6)
@given(first=st.integers(1, SIZE - 1))
def test_sums_and_rows_are_those_of_all_replicas(asked, first):
    for index, own in enumerate(asked(first)):
        assert 2 == own["number"]
        assert SIZE == own["total"]
        assert [ROWS.sum(), 1.0] == own["totals"]
        assert [0, first][index] == own["first"]
        np.testing.assert_array_equal(ROWS, own["gathered"])


@examples(6)
@given(first=st.integers(1, SIZE - 1))
def test_gradients_of_every_replica_flow_back_to_whose_rows_they_are(asked, first):
    """Of the gathered rows with the weights of both losses, 2 and 3; of the total once for each replica."""
    given_back = np.concatenate([own["gradient"] for own in asked(first)])
    factors = np.arange(1.0, SIZE + 1.0)[:, None]

    np.testing.assert_allclose(given_back, 5 * factors * np.ones((1, 2)) + 2 * 2 * ROWS, rtol=1e-6)


def test_alone_a_replica_is_all_there_is():
    rows, seeds = tf.constant(ROWS), seeds_in(tf.distribute.get_strategy().scope())
    drawn = replicas.drawn(lambda number: draw(number, seeds), tf.constant(SIZE))
    expected = draw(SIZE, seeds_in(tf.distribute.get_strategy().scope()))

    assert 1 == replicas.number()
    assert replicas.total(rows) is rows
    assert replicas.gathered(rows) is rows
    np.testing.assert_array_equal(expected["noise"], drawn["noise"])

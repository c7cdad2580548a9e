import itertools

import grain
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from engine.data import Reader, Resumption, open_source
from engine.data import arrays as arrays_module
from engine.data.order import order
from engine.data.source import given_batch
from tests.helpers import assert_bit_equal
from tests.strategies import counts, examples


def arrays(num_batches):
    """Batches of one sample, whose value is its number; shuffled, so that each pass has an order of its own."""
    return open_source(np.arange(num_batches), batch_size=1, shuffle=True, seed=1)


def known(num_batches):
    return open_source(tf.data.Dataset.range(num_batches).batch(1))


def unknown(num_batches):
    return open_source(tf.data.Dataset.range(num_batches).batch(1).filter(lambda x: True))


def read(reader, epochs):
    """The samples of each epoch, read batch by batch until its steps are done or its data has ended."""
    for epoch in range(epochs):
        reader.begin_epoch(epoch)
        samples = []
        while not reader.is_exhausted and len(samples) != reader.steps_per_epoch:
            batch = reader.take()
            if batch is None:
                reader.advance(0, ended=True)
            else:
                samples += batch.numpy().tolist()
                reader.advance(1, ended=False)
        yield samples


@pytest.mark.parametrize("make", [arrays, known, unknown])
def test_without_steps_per_epoch_every_epoch_is_a_pass(make):
    assert [5, 5, 5] == [len(samples) for samples in read(Reader(make(5)), 3)]


@pytest.mark.parametrize("make", [arrays, known, unknown])
def test_a_pass_goes_on_from_epoch_to_epoch_and_the_next_begins_with_an_epoch(make):
    """Five batches at three an epoch: the data ends in the second epoch, and so does that epoch."""
    assert [3, 2, 3, 2, 3] == [len(samples) for samples in read(Reader(make(5), steps_per_epoch=3), 5)]


@pytest.mark.parametrize("make", [arrays, known, unknown])
def test_no_epoch_is_empty_where_a_pass_ends_with_an_epoch(make):
    """Whether the length was known beforehand does not matter."""
    assert [3, 3, 3, 3] == [len(samples) for samples in read(Reader(make(6), steps_per_epoch=3), 4)]


@examples(100)
@given(counts(9), counts(12), counts(6))
def test_epochs_one_after_another_are_passes_one_after_another(num_batches, steps_per_epoch, epochs):
    """No batch is lost or read twice where an epoch ends; only a pass that ends makes an epoch shorter."""
    read_epochs = list(read(Reader(arrays(num_batches), steps_per_epoch=steps_per_epoch), epochs))
    samples = list(itertools.chain(*read_epochs))
    passes = itertools.chain.from_iterable(order(1, index, num_batches).tolist() for index in itertools.count())
    ends = list(itertools.accumulate(len(epoch) for epoch in read_epochs))

    assert list(itertools.islice(passes, len(samples))) == samples
    assert all(
        len(epoch) == steps_per_epoch or end % num_batches == 0 for epoch, end in zip(read_epochs, ends, strict=True)
    )


@examples(50)
@given(counts(9), counts(9), st.data())
def test_an_epoch_reads_in_the_order_of_its_own_number(num_batches, epochs, data):
    """Training may begin at any epoch, and reads what it would have read there after all the others."""
    first = data.draw(st.integers(0, epochs - 1))
    reader, found = Reader(arrays(num_batches), index=first), []
    for epoch in range(first, epochs):
        reader.begin_epoch(epoch)
        while (batch := reader.take()) is not None:
            found += batch.numpy().tolist()
            reader.advance(1, ended=False)

    assert [row for epoch in range(first, epochs) for row in order(1, epoch, num_batches).tolist()] == found


def test_beginning_an_epoch_twice_reads_no_batch_away():
    reader = Reader(known(5))
    reader.begin_epoch(0)
    reader.begin_epoch(0)

    assert [0] == reader.take().numpy().tolist()


def test_an_epoch_that_is_begun_again_begins_at_its_first_batch():
    reader = Reader(known(5))
    reader.begin_epoch(0)
    reader.advance(2, ended=False)
    reader.begin_epoch(0)

    assert [0] == reader.take().numpy().tolist()


def test_an_epoch_may_be_begun_that_is_not_the_next():
    """A callback that restores a training says only as it begins where that is."""
    reader = Reader(arrays(5))
    reader.begin_epoch(4)

    assert order(1, 4, 5)[:1].tolist() == reader.take().numpy().tolist()


def test_blocks_of_steps_and_single_steps_stand_at_the_same_place():
    one, many = Reader(arrays(7)), Reader(arrays(7))
    for _ in range(5):
        one.advance(1, ended=False)
    many.advance(5, ended=False)

    assert one.take().numpy().tolist() == many.take().numpy().tolist()
    assert 2 == one.batches_left() == many.batches_left()


def test_a_pass_of_known_length_has_ended_with_its_last_batch():
    reader = Reader(known(3))
    reader.advance(2, ended=False)
    before = reader.is_exhausted
    reader.advance(1, ended=False)

    assert (False, True) == (before, reader.is_exhausted)
    assert 0 == reader.batches_left()


def test_a_pass_of_unknown_length_has_ended_when_it_is_said_to():
    reader = Reader(unknown(3))
    reader.advance(3, ended=False)
    before = reader.is_exhausted
    reader.advance(0, ended=True)

    assert (False, True) == (before, reader.is_exhausted)
    assert reader.batches_left() is None


def test_taking_a_batch_does_not_use_it_up():
    reader = Reader(arrays(3))

    assert reader.take().numpy() == reader.take().numpy()
    assert 0 == reader.position


def test_a_reader_reads_for_the_replicas_of_its_strategy(two_replicas):
    reader = Reader(open_source(np.arange(6), batch_size=4), two_replicas)
    shares = two_replicas.experimental_local_results(reader.take())

    assert [[0, 1], [2, 3]] == [share.numpy().tolist() for share in shares]


class Batches(keras.utils.PyDataset):
    """So many batches of two numbers; None: without an end."""

    def __init__(self, length, **how):
        super().__init__(**how)
        self.length = length

    @property
    def num_batches(self):
        return self.length

    def __getitem__(self, index):
        return np.arange(2 * index, 2 * index + 2)


def shuffled_dataset():
    return tf.data.Dataset.range(11).shuffle(11, seed=1, reshuffle_each_iteration=False).batch(2)


SOURCES = {
    "arrays": lambda: (np.arange(11), None, None, {"batch_size": 2}),
    "shuffled arrays": lambda: (np.arange(11), np.arange(11), np.ones(11), {"batch_size": 2, "shuffle": True}),
    "arrays in shuffled batches": lambda: (np.arange(11), None, None, {"batch_size": 2, "shuffle": "batch"}),
    "ragged": lambda: (tf.ragged.constant([[1], [], [2, 3], [4]]), None, None, {"batch_size": 1, "shuffle": True}),
    "sparse": lambda: (tf.sparse.eye(11), None, None, {"batch_size": 2, "shuffle": True}),
    "PyDataset": lambda: (Batches(6), None, None, {"shuffle": True}),
    "PyDataset of threads": lambda: (Batches(6, workers=2), None, None, {"shuffle": True}),
    "PyDataset without an end": lambda: (Batches(None), None, None, {}),
    "dataset": lambda: (tf.data.Dataset.range(11).batch(2), None, None, {}),
    "shuffled dataset": lambda: (shuffled_dataset(), None, None, {}),
    "dataset of unknown length": lambda: (shuffled_dataset().filter(lambda x: True), None, None, {}),
    "dataset without an end": lambda: (shuffled_dataset().repeat(), None, None, {}),
    "grain MapDataset": lambda: (grain.MapDataset.range(11).shuffle(seed=1).batch(2), None, None, {}),
    "grain IterDataset": lambda: (grain.MapDataset.range(11).to_iter_dataset().batch(2), None, None, {}),
}


def first_batches(walk, position):
    """Up to three of them, from a position on."""
    taken = itertools.takewhile(lambda batch: batch is not None, map(walk.take, range(position, position + 3)))
    return [part.numpy() for batch in taken for part in tf.nest.flatten(batch, expand_composites=True)]


@pytest.mark.parametrize("resident_bytes", [1 << 30, 0], ids=["resident", "read"])
@pytest.mark.parametrize("position", [0, 1, 3])
@pytest.mark.parametrize("kind", SOURCES)
def test_a_pass_opened_at_a_position_gives_what_follows_it(monkeypatch, kind, position, resident_bytes):
    """As if the batches before it had been used; at once or by reading them again."""
    monkeypatch.setattr(arrays_module, "RESIDENT_BYTES", resident_bytes)
    *data, how = SOURCES[kind]()
    source = open_source(*data, seed=1, **how)
    whole = source.open(2)
    for skipped in range(position):
        whole.take(skipped)
    expected = first_batches(whole, position)

    assert source.resumption in (Resumption.EXACT, Resumption.REPEATED)
    assert len(expected) > 0
    assert_bit_equal(expected, first_batches(source.open(2, position), position))


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_replicas_share_the_batches_behind_a_position(two_replicas, kind):
    *data, how = SOURCES[kind]()
    with two_replicas.scope():
        source = open_source(*data, **how)
        walk = source.open(0, 2)
        shares = two_replicas.experimental_local_results(walk.take(2))

    assert [[4], [5]] == [share.numpy().tolist() for share in shares]


def test_a_batch_in_hand_is_pulled_as_it_is():
    batch = {"x": tf.constant([1])}

    assert given_batch(batch, tf.constant(5, tf.int64)) is batch

"""Batches that NumPy gathers ahead of the loop."""

import gc
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.chunks import Chunks, Spares
from engine.data.order import order
from tests.strategies import examples

LONG = 1500  # batches: more than any chunk holds


def rows(number, *shape, dtype="float32"):
    return np.random.default_rng(0).integers(0, 100, (number, *shape)).astype(dtype)


def chunks_of(leaves, *, batch_size, shuffle=True, spares=None):
    number = len(leaves[0])
    return Chunks(
        leaves,
        order(1, 0, number) if shuffle else None,
        batch_size=batch_size,
        num_batches=number // batch_size,
        spares=Spares() if spares is None else spares,
    )


LEAVES = {
    "two of other dtypes": lambda number: [rows(number, 3), rows(number, dtype="int64")],
    "of rows that are not side by side": lambda number: [rows(3, number).T],
    "read backwards": lambda number: [rows(number, 2)[::-1]],
}


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("leaves", LEAVES.values(), ids=LEAVES)
def test_each_batch_is_the_one_that_the_order_says(leaves, shuffle):
    """Chunk behind chunk, each complete when it is handed out, and none changed before the next is asked for."""
    batch_size = 2
    leaves = leaves(LONG * batch_size + 1)
    chunks = chunks_of(leaves, batch_size=batch_size, shuffle=shuffle)
    number = order(1, 0, len(leaves[0])) if shuffle else np.arange(len(leaves[0]))
    ends, position = [], 0
    while position < LONG:
        chunk = chunks.at(position)
        wanted = number[position * batch_size : chunk.end * batch_size]
        for leaf, tensor in zip(leaves, chunk.tensors, strict=True):
            found = tensor.numpy()[: chunk.end - chunk.begin].reshape(-1, *leaf.shape[1:])
            np.testing.assert_array_equal(leaf[wanted], found)
            assert leaf.dtype == found.dtype
        position = chunk.end
        ends.append(position)

    assert LONG == ends[-1]
    assert len(ends) > 3


@given(st.lists(st.integers(0, LONG - 1), min_size=1, max_size=4))
@examples(20)
def test_any_position_is_reached(positions):
    leaf = rows(LONG)
    chunks = chunks_of([leaf], batch_size=1)
    for position in positions:
        chunk = chunks.at(position)

        assert chunk.begin <= position < chunk.end
        assert leaf[order(1, 0, LONG)[position]] == chunk.tensors[0][position - chunk.begin]


def test_shapes_do_not_depend_on_how_many_samples_there_are():
    few, many = (chunks_of([rows(number, 3)], batch_size=4) for number in (9, 5000))

    assert few.shapes == many.shapes
    assert few.shapes[0] == few.at(0).tensors[0].shape


def test_a_batch_larger_than_any_chunk_should_be_is_a_chunk_of_its_own():
    leaf = rows(3, 40 << 20, dtype="uint8")
    chunks = chunks_of([leaf], batch_size=1, shuffle=False)

    for position in range(3):
        np.testing.assert_array_equal(leaf[position : position + 1], chunks.at(position).tensors[0][0])


def test_the_next_pass_gathers_into_the_memory_of_the_last_one():
    spares = Spares()

    def addresses(batch_size):
        chunks = chunks_of([rows(1000, 3)], batch_size=batch_size, spares=spares)
        return {chunks.at(position).arrays[0].ctypes.data for position in range(1000 // batch_size)}

    first = addresses(2)

    assert len(first) == 2
    assert first == addresses(2)
    assert first != addresses(4)


def test_two_passes_at_once_do_not_share_their_memory():
    spares, leaf = Spares(), rows(200)
    one, other = (chunks_of([leaf], batch_size=1, shuffle=shuffle, spares=spares) for shuffle in (True, False))
    mine, _ = one.at(0), other.at(0)

    np.testing.assert_array_equal(leaf[order(1, 0, 200)[:64]], mine.tensors[0][:64, 0])


def test_a_pass_that_is_given_up_leaves_no_thread():
    chunks = chunks_of([rows(LONG)], batch_size=1)
    chunks.at(0)
    (thread,) = [thread for thread in threading.enumerate() if thread.name.startswith("engine-gathering")]
    del chunks
    gc.collect()
    thread.join(10)

    assert not thread.is_alive()

"""Arrays as tensors of their own."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

from engine.data.resident import Copies

DTYPES = ("float32", "float64", "float16", "uint8", "int8", "int32", "int64", "uint16", "bool", "complex64")
LARGE = (1100, 1024)  # above the size from which memory is handed over


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 4), LARGE])
def test_a_tensor_has_the_values_and_the_dtype_of_its_array(shape, dtype):
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)

    tensor = Copies().tensor(array)

    assert tensor.dtype.name == dtype
    np.testing.assert_array_equal(array, tensor.numpy())


@pytest.mark.parametrize("shape", [(3, 4), LARGE])
def test_a_tensor_keeps_its_values_when_the_array_is_changed(shape):
    array = np.zeros(shape, "float32")
    tensor = Copies().tensor(array)

    array += 1

    assert 0 == tf.reduce_max(tensor).numpy()


def test_arrays_that_are_transposed_sliced_or_read_only_are_taken_as_they_look():
    whole = np.random.default_rng(0).random((1024, 2200), "float32")
    array = whole.T[::2]
    array.flags.writeable = False

    np.testing.assert_array_equal(array, Copies().tensor(array).numpy())
    assert LARGE == Copies().tensor(array).shape


def test_the_memory_of_a_tensor_lives_as_long_as_the_tensor():
    """That of an array which nobody holds any more would be used by the next one."""
    tensors = [Copies().tensor(np.full(LARGE, number, "float32")) for number in range(8)]

    assert list(range(8)) == [float(tensor[17, 4]) for tensor in tensors]


def test_the_next_tensor_of_an_array_lies_where_the_last_one_lay():
    copies, array = Copies(), np.zeros(LARGE, "float32")
    first = copies.tensor(array)
    where = first.numpy().ctypes.data
    del first
    array += 3

    again = copies.tensor(array)

    assert where == again.numpy().ctypes.data
    np.testing.assert_array_equal(array, again.numpy())


def test_two_tensors_of_one_array_have_memory_of_their_own():
    copies, array = Copies(), np.zeros(LARGE, "float32")
    first = copies.tensor(array)
    array += 1
    second = copies.tensor(array)

    assert 0 == tf.reduce_max(first).numpy()
    assert 1 == tf.reduce_min(second).numpy()


def test_memory_is_kept_no_longer_than_its_array():
    copies, array = Copies(), np.zeros(LARGE, "float32")
    copies.tensor(array)
    (_, own), *_ = copies._free.values()
    gone = weakref.ref(own)
    del own, array

    assert gone() is None


def test_nor_than_those_who_copy():
    copies, array = Copies(), np.zeros(LARGE, "float32")
    copies.tensor(array)
    (_, own), *_ = copies._free.values()
    gone = weakref.ref(own)
    del own, copies
    gc.collect()

    assert gone() is None
    assert array.shape == LARGE

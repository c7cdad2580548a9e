"""Arrays as tensors of their own."""

import numpy as np
import pytest
import tensorflow as tf

from engine.data.resident import resident

DTYPES = ("float32", "float64", "float16", "uint8", "int8", "int32", "int64", "uint16", "bool", "complex64")
LARGE = (1100, 1024)  # above the size from which memory is handed over


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 4), LARGE])
def test_a_tensor_has_the_values_and_the_dtype_of_its_array(shape, dtype):
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)

    tensor = resident(array)

    assert tensor.dtype.name == dtype
    np.testing.assert_array_equal(array, tensor.numpy())


@pytest.mark.parametrize("shape", [(3, 4), LARGE])
def test_a_tensor_keeps_its_values_when_the_array_is_changed(shape):
    array = np.zeros(shape, "float32")
    tensor = resident(array)

    array += 1

    assert 0 == tf.reduce_max(tensor).numpy()


def test_arrays_that_are_transposed_sliced_or_read_only_are_taken_as_they_look():
    whole = np.random.default_rng(0).random((1024, 2200), "float32")
    array = whole.T[::2]
    array.flags.writeable = False

    np.testing.assert_array_equal(array, resident(array).numpy())
    assert LARGE == resident(array).shape


def test_the_memory_of_a_tensor_lives_as_long_as_the_tensor():
    """That of an array which nobody holds any more would be used by the next one."""
    tensors = [resident(np.full(LARGE, number, "float32")) for number in range(8)]

    assert list(range(8)) == [float(tensor[17, 4]) for tensor in tensors]

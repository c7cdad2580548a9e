"""Arrays as tensors of their own, copied once, into memory that was used before.

`tf.convert_to_tensor` copies an array twice: so that nobody can change the tensor through the array, and because NumPy
does not lay arrays out where TensorFlow wants them. And memory that is fresh costs more than the copy
(docs/design/decisions.md, 26).

```python
copies = Copies()
tensor = copies.tensor(images)   # images may be changed now
```
"""

import weakref
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

_ALIGNMENT_BYTES = 64  # what TensorFlow asks of memory that it takes over
_SMALL_BYTES = 1 << 20  # below this, nobody can tell the difference
_SHARED_KINDS = "iuf"  # of dtypes: what DLPack can hand over is integers and floats


class Copies:
    """Makes tensors of arrays. The memory of one that nobody holds any more is kept for the same array's next tensor.

    It is let go of with the array, or with this object.
    """

    def __init__(self) -> None:
        self._free: dict[int, tuple[weakref.ref[Any], NDArray[Any]]] = {}

    def tensor(self, array: NDArray[Any]) -> tf.Tensor:
        """A tensor with the values of an array, on the device that TensorFlow puts tensors on."""
        if not can_share(array.dtype) or array.nbytes < _SMALL_BYTES:
            return tf.convert_to_tensor(array)
        own = self._memory(array)
        np.copyto(own, array)
        lent = own.view()  # the tensor holds this very object, so that its end tells of the tensor's
        weakref.finalize(lent, _give_back, weakref.ref(self), weakref.ref(array), own).atexit = False
        return shared(lent)

    def take_back(self, array: NDArray[Any], own: NDArray[Any]) -> None:
        """Keeps memory that a tensor of this array has given up."""
        key = id(array)
        self._free[key] = weakref.ref(array, lambda _: self._free.pop(key, None)), own

    def _memory(self, array: NDArray[Any]) -> NDArray[Any]:
        _, own = self._free.pop(id(array), (None, None))
        is_right = own is not None and (own.shape, own.dtype) == (array.shape, array.dtype)
        return own if is_right else aligned(array.shape, array.dtype)  # type: ignore[return-value]


def _give_back(copies: weakref.ref[Copies], array: weakref.ref[Any], own: NDArray[Any]) -> None:
    """Called when a tensor is gone, which may be later than its Trainer, or its array."""
    taker, known = copies(), array()
    if taker is not None and known is not None:
        taker.take_back(known, own)


def can_share(dtype: np.dtype[Any]) -> bool:
    """Whether a tensor can take over the memory of an array of this dtype: not where it goes to a GPU."""
    return dtype.kind in _SHARED_KINDS and not tf.config.list_logical_devices("GPU")


def shared(array: NDArray[Any]) -> tf.Tensor:
    """A tensor in the memory of an array that `aligned` made; it changes with the array, which it holds."""
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array of the kind, not filled, whose first byte is where TensorFlow wants it."""
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(num_bytes + _ALIGNMENT_BYTES, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT_BYTES
    return memory[begin : begin + num_bytes].view(dtype).reshape(shape)

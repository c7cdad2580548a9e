"""An array as a tensor of its own, copied once.

`tf.convert_to_tensor` copies an array twice: so that nobody can change the tensor through the array, and because NumPy
does not lay arrays out where TensorFlow wants them. Of 188 MB that is 44 ms at each `fit`, and once is 16 ms
(docs/design/decisions.md).

```python
tensor = resident(images)   # images may be changed now
```
"""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

_ALIGNMENT_BYTES = 64  # what TensorFlow asks of memory that it takes over
_SMALL_BYTES = 1 << 20  # below this, nobody can tell the difference
_SHARED_KINDS = "iuf"  # of dtypes: what DLPack can hand over is integers and floats


def resident(array: NDArray[Any]) -> tf.Tensor:
    """A tensor with the values of an array, on the device that TensorFlow puts tensors on."""
    is_shared = array.dtype.kind in _SHARED_KINDS and array.nbytes >= _SMALL_BYTES
    if not is_shared or tf.config.list_logical_devices("GPU"):  # there the second copy is the way to the device
        return tf.convert_to_tensor(array)
    own = _aligned(array.shape, array.dtype)
    np.copyto(own, array)
    return tf.experimental.dlpack.from_dlpack(own.__dlpack__())


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array of the kind, not filled, whose first byte is where TensorFlow wants it."""
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(num_bytes + _ALIGNMENT_BYTES, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT_BYTES
    return memory[begin : begin + num_bytes].view(dtype).reshape(shape)

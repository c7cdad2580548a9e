"""What a leaf of the data may be, and how rows are taken from it.

```text
Leaf
├── Dense      NumPy arrays, tensors, pandas, anything in memory that NumPy understands
├── Composite  ragged and sparse tensors, SciPy's sparse matrices
└── Stored     h5py, memory maps, zarr: rows are read when their turn has come, the whole is never loaded
```

Floats become Keras's `floatx`, as in `model.fit`; every other dtype stays what it is.

```python
leaf = leaf_of("x", h5py.File("images.h5")["x"])
leaf.read(np.array([7, 3]))  # two rows, in this order
```
"""

import abc
import mmap
from collections.abc import Callable
from typing import Any

import attrs
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from engine.data.order import Indices
from engine.data.resident import Copies
from engine.data.rows import SparseRows, as_floatx, gather_rows, is_scipy, ragged_spec, signature_of, sparse_rows
from engine.errors import DataError


class Leaf(abc.ABC):
    """One array of the data, samples along its first axis.

    Attributes:
        num_rows: Samples.
        spec: A batch of it, the batch axis None.
        num_bytes: What a copy of it in memory takes; None: it shall not be copied.
    """

    num_rows: int
    spec: tf.TypeSpec
    num_bytes: int | None

    @abc.abstractmethod
    def part(self, begin: int, end: int) -> "Leaf":
        """The rows from `begin` up to `end`, nothing copied."""

    @abc.abstractmethod
    def read(self, rows: Indices) -> Any:
        """The rows with these numbers, in this order: a NumPy array, or a ragged or sparse tensor."""

    def whole(self) -> Any:
        """All rows."""
        return self.read(np.arange(self.num_rows))

    @abc.abstractmethod
    def resident(self, copies: Copies) -> Any:
        """All rows as something that `slice_rows` and `gather_rows` take, on the device."""

    @property
    def signature(self) -> tf.TypeSpec:
        """What fits `resident`, of however many rows."""
        return self.spec


@attrs.define(eq=False)
class Dense(Leaf):
    """An array in memory, of numbers or of strings."""

    array: NDArray[Any]

    @property
    def num_rows(self) -> int:  # type: ignore[override]
        """Samples."""
        return len(self.array)

    @property
    def num_bytes(self) -> int:  # type: ignore[override]
        """What a copy takes."""
        return self.array.nbytes

    @property
    def spec(self) -> tf.TypeSpec:
        """A batch of it."""
        return tf.TensorSpec((None, *self.array.shape[1:]), tensor_dtype(self.array.dtype))

    def part(self, begin: int, end: int) -> Leaf:
        """The rows from `begin` up to `end`."""
        return Dense(self.array[begin:end])

    def read(self, rows: Indices) -> Any:
        """The rows with these numbers."""
        return self.array[rows]

    def resident(self, copies: Copies) -> Any:
        """A tensor."""
        return copies.tensor(self.array)


@attrs.define(eq=False)
class Composite(Leaf):
    """A ragged or a sparse tensor in memory."""

    rows: tf.RaggedTensor | SparseRows

    @property
    def num_rows(self) -> int:  # type: ignore[override]
        """Samples."""
        return int(_values(self.rows).nrows())

    @property
    def num_bytes(self) -> int:  # type: ignore[override]
        """What its values take; they are on the device already, and are never copied."""
        return 0

    @property
    def spec(self) -> tf.TypeSpec:
        """A batch of it."""
        if isinstance(self.rows, SparseRows):
            return tf.SparseTensorSpec((None, *self.rows.row_shape), self.rows.values.dtype)
        return ragged_spec(self.rows)

    def part(self, begin: int, end: int) -> Leaf:
        """The rows from `begin` up to `end`."""
        if isinstance(self.rows, SparseRows):
            return Composite(SparseRows(self.rows.columns[begin:end], self.rows.values[begin:end], self.rows.row_shape))
        return Composite(self.rows[begin:end])

    def read(self, rows: Indices) -> Any:
        """The rows with these numbers."""
        return gather_rows(self.rows, rows)

    def resident(self, copies: Copies) -> Any:
        """Itself."""
        return self.rows

    @property
    def signature(self) -> tf.TypeSpec:
        """That of a batch, but for sparse rows, which lie there in another form."""
        return signature_of(self.rows) if isinstance(self.rows, SparseRows) else self.spec


@attrs.define(eq=False)
class Stored(Leaf):
    """An array in a file, or anything else that gives rows when it is asked for them.

    Attributes:
        array: Has `shape`, `dtype` and `array[rows]`, rows in rising order.
        begin: The first row that counts.
        end: The row behind the last that counts.
    """

    array: Any
    begin: int
    end: int
    num_bytes = None

    @property
    def num_rows(self) -> int:  # type: ignore[override]
        """Samples."""
        return self.end - self.begin

    @property
    def spec(self) -> tf.TypeSpec:
        """A batch of it."""
        return tf.TensorSpec((None, *self.array.shape[1:]), tensor_dtype(_kept_dtype(self.array.dtype)))

    def part(self, begin: int, end: int) -> Leaf:
        """The rows from `begin` up to `end`."""
        return Stored(self.array, self.begin + begin, self.begin + end)

    def read(self, rows: Indices) -> Any:
        """The rows with these numbers, read from the file in rising order, as HDF5 demands."""
        ranks = np.argsort(rows, kind="stable")
        rising = self.begin + rows[ranks]
        is_run = len(rising) > 0 and rising[-1] - rising[0] == len(rising) - 1
        found = np.asarray(self.array[int(rising[0]) : int(rising[-1]) + 1] if is_run else self.array[rising])
        picked = np.empty_like(found)
        picked[ranks] = found
        return picked.astype(_kept_dtype(found.dtype), copy=False)

    def resident(self, copies: Copies) -> Any:
        """A tensor of all rows."""
        return tf.convert_to_tensor(self.whole())


def leaf_of(name: str, value: Any) -> Leaf:
    """Takes what a user gave as an array.

    Raises:
        DataError: It is none.
    """
    if isinstance(value, Leaf):
        return value
    if isinstance(value, tf.RaggedTensor):
        return Composite(as_floatx(value))
    if isinstance(value, tf.SparseTensor) or is_scipy(value):
        return Composite(sparse_rows(value))
    if _is_stored(value):
        _check_kind(name, value, value.shape, value.dtype, may_be_objects=True)  # h5py's strings
        return Stored(value, 0, len(value))
    array = to_array(name, value)
    is_column = type(value).__name__ == "Series" and hasattr(value, "iloc")
    return Dense(array[:, None] if is_column else array)  # as Keras takes a column of pandas


def map_leaves(function: Callable[[Any], Any], structure: Any) -> Any:
    """`function` on every leaf but None."""
    return keras.tree.map_structure(lambda leaf: None if leaf is None else function(leaf), structure)


def to_array(name: str, value: Any) -> NDArray[Any]:
    """A dense array as NumPy's, floats as Keras's floatx.

    Raises:
        DataError: It is none, or holds objects other than strings.
    """
    if hasattr(value, "detach"):  # PyTorch, which may keep it on an accelerator
        value = value.detach().cpu()
    array = np.asarray(value)
    if array.dtype.kind in "SU":
        array = array.astype(object)
    is_text = array.dtype == object and all(isinstance(word, (str, bytes)) for word in array.flat)
    _check_kind(name, value, array.shape, array.dtype, may_be_objects=is_text)
    return array.astype(_kept_dtype(array.dtype), copy=False)


def _check_kind(name: str, value: Any, shape: tuple[int, ...], dtype: Any, *, may_be_objects: bool) -> None:
    """Refuses what cannot become a tensor of samples."""
    if dtype.kind in "mM":
        raise DataError(f"{name} holds dates (dtype {dtype}). Turn them into numbers, for example seconds.")
    if not shape or dtype.names is not None or (dtype.kind == "O" and not may_be_objects):
        raise DataError(
            f"{name} holds {type(value).__name__} {str(value)[:60]!r}, where an array was expected with samples "
            f"along its first axis. A list of numbers becomes one by np.array({name}); a column of mixed or missing "
            "values must be turned into numbers first."
        )


def to_batch_leaf(name: str, value: Any) -> Any:
    """One leaf of a batch that Python made: a NumPy array, or a ragged or sparse tensor."""
    if isinstance(value, (tf.RaggedTensor, tf.SparseTensor)):
        return as_floatx(value)
    return sparse_rows(value).to_sparse() if is_scipy(value) else to_array(name, value)


def tensor_dtype(dtype: Any) -> tf.DType:
    """What a tensor made of a NumPy array of this dtype has."""
    return tf.string if dtype.kind in "OSU" else tf.as_dtype(dtype)


def _values(rows: "tf.RaggedTensor | SparseRows") -> tf.RaggedTensor:
    return rows.values if isinstance(rows, SparseRows) else rows


def _kept_dtype(dtype: Any) -> Any:
    """Keras's floatx for every kind of float, bfloat16 (of kind "V") included."""
    name = np.dtype(dtype).name
    return np.dtype(keras.config.floatx()) if "float" in name else np.dtype(dtype)


def _is_stored(value: Any) -> bool:
    """Whether rows can be had only by asking for them: not through NumPy's ways to an array in memory."""
    if isinstance(value, np.ndarray):
        return _is_memory_mapped(value)
    has_rows = all(hasattr(value, name) for name in ("shape", "dtype", "__getitem__", "__len__"))
    in_memory = ("__array_interface__", "__dlpack__", "__array_ufunc__", "iloc")
    return has_rows and not tf.is_tensor(value) and not any(hasattr(value, name) for name in in_memory)


def _is_memory_mapped(array: Any) -> bool:
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return isinstance(array.obj if isinstance(array, memoryview) else array, mmap.mmap)

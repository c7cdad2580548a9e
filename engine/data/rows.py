"""Rows of tensors that are ragged or sparse, picked as rows of dense ones are.

```python
rows = sparse_rows(tf.sparse.from_dense([[0.0, 2.0], [3.0, 0.0]]))
gather_rows(rows, [1, 0])  # a tf.SparseTensor of the two rows, the second first
```
"""

from typing import Any

import keras
import tensorflow as tf


class SparseRows(tf.experimental.ExtensionType):
    """A sparse tensor whose rows can be picked, which those of `tf.SparseTensor` cannot.

    Attributes:
        columns: int64, (rows, values of the row, rank - 1): where in its row each value stands.
        values: (rows, values of the row).
        row_shape: The shape of one row, dense.
    """

    columns: tf.RaggedTensor
    values: tf.RaggedTensor
    row_shape: tuple[int, ...]

    def to_sparse(self) -> tf.SparseTensor:
        """The rows as Keras's layers take them."""
        rows = tf.cast(self.values.value_rowids(), tf.int64)[:, None]
        indices = tf.concat([rows, self.columns.values], 1)
        return tf.SparseTensor(indices, self.values.values, (self.values.nrows(), *self.row_shape))


def slice_rows(rows: Any, begin: Any, end: Any) -> Any:
    """The rows from `begin` up to `end` of what `Leaf.resident` gave, in a graph."""
    if isinstance(rows, SparseRows):
        return SparseRows(rows.columns[begin:end], rows.values[begin:end], rows.row_shape).to_sparse()
    return rows[begin:end]


def gather_rows(rows: Any, numbers: Any) -> Any:
    """The rows with these numbers of what `Leaf.resident` gave, in a graph."""
    if isinstance(rows, SparseRows):
        picked = SparseRows(tf.gather(rows.columns, numbers), tf.gather(rows.values, numbers), rows.row_shape)
        return picked.to_sparse()
    return tf.gather(rows, numbers)


def signature_of(rows: SparseRows) -> tf.TypeSpec:
    """The spec that fits every such `rows`, however many there are."""
    columns, values = (ragged_spec(part) for part in (rows.columns, rows.values))
    return SparseRows.Spec(columns, values, rows.row_shape)


def ragged_spec(ragged: tf.RaggedTensor) -> tf.RaggedTensorSpec:
    """The spec of a batch of such rows."""
    shape = (None, *ragged.shape[1:])
    return tf.RaggedTensorSpec(shape, ragged.dtype, ragged.ragged_rank, ragged.row_splits.dtype)


def sparse_rows(value: Any) -> SparseRows:
    """A `tf.SparseTensor`, or a matrix of SciPy, as rows that can be picked."""
    if is_scipy(value):
        matrix = value.tocsr().sorted_indices()
        splits = tf.constant(matrix.indptr, tf.int64)
        columns, values = tf.constant(matrix.indices[:, None], tf.int64), tf.constant(matrix.data)
        row_shape = tuple(int(length) for length in matrix.shape[1:])
    else:
        ordered = tf.sparse.reorder(value)
        rows = tf.experimental.RowPartition.from_value_rowids(ordered.indices[:, 0], nrows=ordered.dense_shape[0])
        splits, columns, values = rows.row_splits(), ordered.indices[:, 1:], ordered.values
        row_shape = tuple(int(length) for length in ordered.dense_shape[1:])
    # The width stays a static number: tf.RaggedTensor would forget it beside ragged rows.
    ragged = [tf.RaggedTensor.from_row_splits(part, splits) for part in (columns, as_floatx(values))]
    return SparseRows(*ragged, row_shape)


def as_floatx(tensor: Any) -> Any:
    """The tensor, floats as Keras's floatx."""
    is_float = tensor.dtype.is_floating and tensor.dtype.name != keras.config.floatx()
    return tf.cast(tensor, keras.config.floatx()) if is_float else tensor


def is_scipy(value: Any) -> bool:
    """Whether something is one of SciPy's sparse matrices."""
    return type(value).__module__.startswith("scipy.sparse")

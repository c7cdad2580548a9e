import mmap
import re

import h5py
import keras
import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter  # what `fit` makes of arrays

from engine.data import open_source, split_tail
from engine.data.leaves import Composite, Dense, Stored, leaf_of, to_batch_leaf
from engine.data.resident import Copies
from engine.data.rows import gather_rows, slice_rows
from engine.errors import DataError
from tests.helpers import arrays_of, assert_bit_equal, batches_of
from tests.strategies import examples

NUM_ROWS = 11
TABLE = np.where(np.arange(33) % 3 == 1, 0, np.arange(33.0)).reshape(NUM_ROWS, 3).astype("float32")
TABLE[[0, 5, 10]] = 0  # rows without values, the first and the last among them
CUBE = np.arange(66.0, dtype="float32").reshape(NUM_ROWS, 3, 2) * (np.arange(66).reshape(NUM_ROWS, 3, 2) % 5 < 2)
WORDS = np.array([f"word {row}" for row in range(NUM_ROWS)])
LENGTHS = [2, 0, 1, 3, 0, 4, 1, 1, 2, 0, 5]
FLAT = np.arange(sum(LENGTHS), dtype="float32")
DTYPES = ["float16", "float32", "float64", ml_dtypes.bfloat16, "int8", "uint8", "int32", "int64", "uint64", "bool"]


class Asked:
    """An array that can be had only by its rows, and counts how many it was asked for, each time."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.sizes = array, array.shape, array.dtype, []

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        found = self.array[rows]
        assert isinstance(rows, slice) or (np.diff(rows) > 0).all()  # all that HDF5 takes
        self.sizes.append(len(found))
        return found


def ragged(values=FLAT, dtype="int64"):
    return tf.RaggedTensor.from_row_lengths(values, tf.constant(LENGTHS, dtype))


def doubly_ragged():
    """Rows of lists of lists."""
    return tf.RaggedTensor.from_row_lengths(tf.RaggedTensor.from_row_lengths(np.arange(38), [2] * 19), LENGTHS)


def unordered(sparse):
    """The same values, listed from the last to the first."""
    return tf.SparseTensor(sparse.indices[::-1], sparse.values[::-1], sparse.dense_shape)


DENSE = {
    "numbers": lambda: TABLE,
    "one a row": lambda: np.arange(NUM_ROWS),
    "strings": lambda: WORDS,
    "bytes": lambda: WORDS.astype("S"),
    "strings as objects": lambda: WORDS.astype(object)[:, None],
    "tensor": lambda: tf.constant(TABLE),
    "variable": lambda: tf.Variable(TABLE),
    "DataFrame": lambda: pd.DataFrame(TABLE),
    "DataFrame of several dtypes": lambda: pd.DataFrame({"a": np.arange(NUM_ROWS), "b": TABLE[:, 0]}),
    "Series": lambda: pd.Series(np.arange(NUM_ROWS)),
    "Series of strings": lambda: pd.Series(WORDS),
    "array of pandas": lambda: pd.array(np.arange(NUM_ROWS)),
    "other byte order": lambda: np.arange(NUM_ROWS, dtype=">i4"),
    "not contiguous": lambda: TABLE.T.copy().T[:, ::-1],
}
COMPOSITE = {
    "ragged": ragged,
    "ragged by int32": lambda: ragged(dtype="int32"),
    "ragged strings": lambda: tf.RaggedTensor.from_row_lengths(WORDS, [1] * NUM_ROWS),
    "ragged vectors": lambda: ragged(np.arange(38.0).reshape(19, 2)),
    "ragged rank 2": doubly_ragged,
    "sparse": lambda: tf.sparse.from_dense(TABLE),
    "sparse unordered": lambda: unordered(tf.sparse.from_dense(TABLE)),
    "sparse rank 3": lambda: tf.sparse.from_dense(CUBE),
    "sparse rank 3 unordered": lambda: unordered(tf.sparse.from_dense(CUBE)),
    "sparse integers": lambda: tf.sparse.from_dense(TABLE.astype("int64")),
    "sparse without values": lambda: tf.sparse.from_dense(TABLE * 0),
    "csr": lambda: scipy.sparse.csr_matrix(TABLE),
    "csr array": lambda: scipy.sparse.csr_array(TABLE),
    "csc, unordered by rows": lambda: scipy.sparse.csc_matrix(TABLE),
    "coo": lambda: scipy.sparse.coo_matrix(TABLE),
    "coo unordered": lambda: scipy.sparse.coo_matrix((np.arange(1.0, 4), ([9, 1, 1], [0, 2, 1])), (NUM_ROWS, 3)),
}
STORED = {
    "rows asked for": lambda folder: Asked(TABLE),
    "h5py": lambda folder: h5_of(folder, TABLE.astype("float64")),
    "h5py half precision": lambda folder: h5_of(folder, TABLE.astype("float16")),
    "h5py bytes": lambda folder: h5_of(folder, WORDS.astype("S")),
    "h5py strings": lambda folder: h5_of(folder, WORDS.tolist()),
    "memmap": lambda folder: memmap_of(folder, TABLE),
    "memmap bytes": lambda folder: memmap_of(folder, WORDS.astype("S")),
    "rows of a memmap": lambda folder: memmap_of(folder, np.concatenate([TABLE, TABLE]))[NUM_ROWS:],
    "memmap backwards": lambda folder: memmap_of(folder, TABLE)[::-1],
    "memmap as a buffer": lambda folder: np.frombuffer(memmap_of(folder, TABLE).base, TABLE.dtype).reshape(TABLE.shape),
    "memmap as an array": lambda folder: np.asarray(memmap_of(folder, TABLE)),
    "memmap reshaped": lambda folder: np.asarray(memmap_of(folder, TABLE)).reshape(NUM_ROWS, 1, 3),
    "buffer of a file": lambda folder: np.ndarray(TABLE.shape, TABLE.dtype, mapped_file(folder, TABLE)),
}
KINDS = {
    **{name: lambda folder, make=make: make() for name, make in (DENSE | COMPOSITE).items()},
    **STORED,
}
kinds = pytest.mark.parametrize("kind", KINDS)


def h5_of(folder, array):
    with h5py.File(folder / "arrays.h5", "w") as file:
        file["x"] = array
    return h5py.File(folder / "arrays.h5")["x"]


def memmap_of(folder, array):
    array.tofile(folder / "array")
    return np.memmap(folder / "array", array.dtype, "r", shape=array.shape)


def mapped_file(folder, array):
    array.tofile(folder / "array")
    with open(folder / "array", "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def rows_of(value):
    """The rows of a tensor or an array as lists; words as bytes."""
    if isinstance(value, tf.RaggedTensor):
        return value.to_list()
    dense = tf.sparse.to_dense(value) if isinstance(value, tf.SparseTensor) else tf.convert_to_tensor(value)
    return dense.numpy().tolist()


def rows_of_fit(value):
    """The rows that `model.fit` trains on; of a file, once it is loaded."""
    in_memory = np.asarray(value.array if isinstance(value, Asked) else value) if _is_file(value) else value
    batches = ArrayDataAdapter(in_memory, batch_size=4).get_tf_dataset()
    return [row for batch in batches for row in rows_of(batch)]


def _is_file(value):
    return isinstance(value, (Asked, h5py.Dataset, np.memmap))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not re.search("string|bytes|unordered", kind)])
def test_rows_are_those_of_model_fit(kind, tmp_path):
    value = KINDS[kind](tmp_path)

    assert rows_of_fit(value) == rows_of(leaf_of("x", value).whole())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "unordered" in kind])
def test_sparse_values_may_be_listed_in_any_order_though_keras_refuses(kind, tmp_path):
    value = KINDS[kind](tmp_path)
    dense = value.toarray() if scipy.sparse.issparse(value) else tf.sparse.to_dense(tf.sparse.reorder(value))

    assert rows_of(dense) == rows_of(leaf_of("x", value).whole())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if re.search("string|bytes", kind)])
def test_words_are_kept_though_keras_refuses_them(kind, tmp_path):
    words = np.array(rows_of(leaf_of("x", KINDS[kind](tmp_path)).whole()), object)

    assert WORDS.astype("S").tolist() == words.reshape(-1).tolist()


@kinds
@pytest.mark.parametrize(
    "rows", [[3, 4, 5], [10, 0, 5], range(NUM_ROWS - 1, -1, -1)], ids=["a run", "any", "backwards"]
)
def test_rows_come_in_the_order_in_which_they_are_asked_for(kind, rows, tmp_path):
    leaf = leaf_of("x", KINDS[kind](tmp_path))
    whole = rows_of(leaf.whole())

    assert NUM_ROWS == leaf.num_rows
    assert [whole[row] for row in rows] == rows_of(leaf.read(np.array(rows)))


@kinds
def test_a_part_holds_the_rows_between_and_so_do_its_parts(kind, tmp_path):
    leaf = leaf_of("x", KINDS[kind](tmp_path))
    part, whole = leaf.part(2, 9), rows_of(leaf.whole())

    assert 7 == part.num_rows
    assert whole[2:9] == rows_of(part.whole())
    assert whole[5:8] == rows_of(part.part(3, 6).whole())
    assert [whole[7], whole[6]] == rows_of(part.part(3, 6).read(np.array([2, 1])))


@kinds
def test_what_lies_on_the_device_gives_the_rows_that_are_read(kind, tmp_path):
    """By slices and by numbers, in one graph that fits any number of rows, whose batches have the leaf's spec."""
    leaf = leaf_of("x", KINDS[kind](tmp_path))
    signature = (leaf.signature, tf.TensorSpec((None,), tf.int64))

    @tf.function(input_signature=signature)
    def take(rows, numbers):
        return slice_rows(rows, 1, 4), gather_rows(rows, numbers)

    for begin, part in ((0, leaf), (2, leaf.part(2, 9))):
        cut, picked = take(part.resident(Copies()), [3, 1, 2])

        assert rows_of(leaf.read(begin + np.array([1, 2, 3]))) == rows_of(cut)
        assert rows_of(leaf.read(begin + np.array([3, 1, 2]))) == rows_of(picked)
        assert leaf.spec.is_compatible_with(cut)
        assert leaf.spec.is_compatible_with(picked)


@kinds
@pytest.mark.parametrize("shuffle", [False, True, "batch"])
def test_a_source_gives_every_kind_in_the_order_of_the_pass(kind, shuffle, tmp_path):
    """Beside row numbers, which tell the order; in memory or not."""
    value = KINDS[kind](tmp_path)
    whole = rows_of(leaf_of("x", value).whole())
    source = open_source(value, np.arange(NUM_ROWS), batch_size=4, shuffle=shuffle, seed=1)
    walk, batches = source.open(2), []
    while (batch := walk.take(len(batches))) is not None:
        batches.append(batch)
    numbers = [int(number) for _, numbers in batches for number in numbers]

    assert [4, 4, 3] == [len(numbers) for _, numbers in batches]
    assert [whole[number] for number in numbers] == [row for x, _ in batches for row in rows_of(x)]
    assert list(range(NUM_ROWS)) == (sorted(numbers) if shuffle else numbers)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("floatx", ["float32", "float64"])
def test_floats_of_every_kind_become_floatx_and_all_else_stays(dtype, floatx, tmp_path):
    """Values too, in memory, in a file, ragged and sparse alike."""
    dtype = np.dtype(dtype)
    array = np.array([[1, 0], [0, 1], [1, 1]]).astype(dtype)
    is_float = dtype.kind in "fV"
    tensors = [tf.RaggedTensor.from_tensor(tf.constant(array)), tf.sparse.from_dense(tf.constant(array))]
    expected = floatx if is_float else dtype.name
    before = keras.config.floatx()
    keras.config.set_floatx(floatx)
    try:
        leaves = [leaf_of("x", value) for value in (array, memmap_of(tmp_path, array), *tensors)]
        specs, found = [leaf.spec for leaf in leaves], [leaf.whole() for leaf in leaves]
        found += [to_batch_leaf("x", value) for value in (array, *tensors)]
    finally:
        keras.config.set_floatx(before)

    assert [expected] * 4 == [spec.dtype.name for spec in specs]
    assert [expected] * 7 == [tf.as_dtype(leaf.dtype).name for leaf in found]
    assert [array.tolist()] * 7 == [rows_of(leaf) for leaf in found]


@pytest.mark.parametrize(
    ("kind", "expected"), [*((kind, Dense) for kind in DENSE), *((kind, Composite) for kind in COMPOSITE)]
)
def test_what_is_in_memory_is_copied_to_the_device_once(kind, expected, tmp_path):
    leaf = leaf_of("x", KINDS[kind](tmp_path))

    assert isinstance(leaf, expected)
    assert leaf.num_bytes is not None


@pytest.mark.parametrize("kind", STORED)
def test_what_lies_in_a_file_is_not_to_be_copied(kind, tmp_path):
    leaf = leaf_of("x", KINDS[kind](tmp_path))

    assert isinstance(leaf, Stored)
    assert leaf.num_bytes is None


@pytest.mark.parametrize("shuffle", [False, True, "batch"])
def test_a_file_is_never_asked_for_more_rows_than_a_batch_has(shuffle):
    """Neither when it is opened, nor when it is split, nor for its order; and in a pass for each of them once."""
    asked = Asked(np.arange(40.0).reshape(20, 2))
    (x, y, _), validation = split_tail(asked, np.arange(20), None, 0.25)
    source = open_source(x, y, batch_size=4, shuffle=shuffle, seed=1)
    open_source(*validation, batch_size=4)
    before = list(asked.sizes)
    batches = batches_of(source.open(0))

    assert [] == before
    assert [4, 4, 4, 3] == asked.sizes
    assert_bit_equal([asked.array[y] for _, y in batches], [x for x, _ in batches])


@examples(100)
@given(st.lists(st.integers(0, NUM_ROWS - 4), min_size=1, unique=True), st.integers(0, 3))
def test_a_file_is_asked_for_rows_in_rising_order_each_once(rows, begin):
    """`Asked` refuses another."""
    asked = Asked(np.arange(NUM_ROWS))
    found = Stored(asked, begin, NUM_ROWS).read(np.array(rows))

    assert [begin + row for row in rows] == found.tolist()
    assert [len(rows)] == asked.sizes


def test_rows_that_follow_one_another_are_read_as_a_slice():
    """HDF5 reads a slice many times faster than a list of rows."""

    class OnlySlices(Asked):
        def __getitem__(self, rows):
            assert isinstance(rows, slice)
            return super().__getitem__(rows)

    source = open_source(OnlySlices(TABLE), batch_size=4, shuffle="batch", seed=1)

    assert 3 == len(batches_of(source.open(0)))


def test_nothing_is_copied_before_it_must_be():
    array = np.zeros((4, 2), "float32")

    assert np.shares_memory(array, leaf_of("x", array).part(1, 3).array)


@pytest.mark.parametrize("kind", COMPOSITE)
def test_a_batch_that_python_makes_has_the_values_of_the_leaf(kind):
    """The same values, in the same order where they are in one."""
    value = COMPOSITE[kind]()
    batch = to_batch_leaf("x", value)

    assert_bit_equal(
        arrays_of(leaf_of("x", value).whole()),
        arrays_of(tf.sparse.reorder(batch) if isinstance(batch, tf.SparseTensor) else batch),
    )


def test_a_tensor_of_pytorch_is_an_array():
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(TABLE, requires_grad=True)

    assert_bit_equal([TABLE], [leaf_of("x", tensor).whole()])


REFUSED = {
    "a number": (lambda folder: 5.0, r"^x holds float '5.0', where an array was expected with samples along its first"),
    "nothing but a name": (lambda folder: "cat", r"^x holds str 'cat'.*becomes one by np.array\(x\)"),
    "objects": (lambda folder: np.array([{}, {}]), r"^x holds ndarray '\[\{\} \{\}\]'"),
    "missing words": (lambda folder: pd.Series(["a", None]), r"a column of mixed or missing values must be turned"),
    "mixed columns": (lambda folder: pd.DataFrame({"a": [1], "b": ["c"]}), r"^x holds DataFrame .*mixed"),
    "dates": (lambda folder: np.array(["2024-02-29"], "M8[D]"), r"^x holds dates \(dtype datetime64\[D\]\)"),
    "dates of pandas": (lambda folder: pd.Series(pd.to_datetime(["2024-02-29"])), r"^x holds dates .*for example sec"),
    "durations": (lambda folder: np.array([1], "m8[s]"), r"^x holds dates \(dtype timedelta64\[s\]\)"),
    "dates in a file": (lambda folder: memmap_of(folder, np.array([1], "M8[s]")), r"^x holds dates"),
    "records": (lambda folder: np.zeros(3, [("a", "i4")]), r"^x holds"),
    "records in a file": (lambda folder: h5_of(folder, np.zeros(3, [("a", "i4")])), r"^x holds"),
    "a number in a file": (lambda folder: h5_of(folder, 5.0), r"^x holds"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_array_of_samples_is_refused_in_words(case, tmp_path):
    make, message = REFUSED[case]

    with pytest.raises(DataError, match=message):
        assert leaf_of("x", make(tmp_path)).spec is None


def test_a_leaf_is_taken_as_it_is():
    leaf = leaf_of("x", TABLE)

    assert leaf is leaf_of("y", leaf)

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter  # what `fit` makes of arrays

from engine.data import arrays as module
from engine.data import open_source
from engine.data.arrays import ArraySource
from engine.data.order import order, order_of_batches
from engine.errors import ConfigError, DataError
from tests.helpers import assert_bit_equal
from tests.strategies import counts, examples

NUM_SAMPLES = 11
ROWS = np.arange(NUM_SAMPLES)


def leaf(*shape, dtype="float32"):
    """An array of so many samples, the values of each telling which one it is."""
    return (ROWS.reshape(-1, *(1 for _ in shape)) * 10 + np.arange(np.prod(shape, dtype=int)).reshape(shape)).astype(
        dtype
    )


NESTS = {
    "array": lambda: leaf(2),
    "tuple": lambda: (leaf(2), leaf(3, dtype="int32")),
    "list": lambda: [leaf(2), leaf(3, dtype="int32")],
    "list of equal shapes": lambda: [leaf(2), leaf(2) + 1],
    "dict": lambda: {"b": leaf(2), "a": leaf(3, dtype="int64")},
    "deep": lambda: {"b": [leaf(2), (leaf(1),)], "a": {"c": leaf()}},
    "with None": lambda: {"b": leaf(2), "a": None, "c": (None, leaf(dtype="uint8"))},
}
nests = pytest.mark.parametrize("x", [make() for make in NESTS.values()], ids=NESTS)
shuffles = pytest.mark.parametrize("shuffle", [False, True, "batch"])


@pytest.fixture
def floatx():
    """Sets Keras's floatx by name; the test's end puts the old one back."""
    before = keras.config.floatx()
    yield keras.config.set_floatx
    keras.config.set_floatx(before)


def source_of(x, y=None, sample_weight=None, *, batch_size=4, shuffle=False, seed=1):
    return ArraySource.of(x, y, sample_weight, batch_size=batch_size, shuffle=shuffle, seed=seed)


def batches_of(walk, first=0):
    """What a pass gives, one batch after the other, as NumPy arrays."""
    found = []
    while (batch := walk.take(first + len(found))) is not None:
        found.append(keras.tree.map_structure(lambda leaf: None if leaf is None else leaf.numpy(), batch))
    return found


def flat(batches):
    return [leaf for batch in batches for leaf in keras.tree.flatten(batch) if leaf is not None]


def shares_of(batch, strategy):
    """Each replica's part of a batch of one array."""
    return [share.numpy() for share in strategy.experimental_local_results(batch)]


def batches_of_fit(*arrays, batch_size):
    dataset = ArrayDataAdapter(*arrays, batch_size=batch_size).get_tf_dataset()
    return [keras.tree.map_structure(lambda leaf: None if leaf is None else leaf.numpy(), batch) for batch in dataset]


@nests
@pytest.mark.parametrize("batch_size", [1, 4, 11, 32])
def test_batches_are_those_of_model_fit(x, batch_size):
    """Without shuffling, the same samples in the same batches with the same types as Keras makes of them."""
    y, weight = leaf(dtype="int64"), leaf(dtype="float64")
    expected = flat(batches_of_fit(x, y, weight, batch_size=batch_size))
    found = flat(batches_of(source_of(x, y, weight, batch_size=batch_size).open(0)))

    assert_bit_equal(expected, found)
    assert [array.dtype for array in expected] == [array.dtype for array in found]


@pytest.mark.parametrize("target", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"])
def test_floats_become_floatx_and_all_else_stays(floatx, target, dtype):
    floatx(target)
    x = leaf(2, dtype=dtype)
    source = source_of(x)

    assert batches_of_fit(x, batch_size=4)[0].dtype == batches_of(source.open(0))[0].dtype == source.spec.dtype


@pytest.mark.parametrize("convert", [tf.constant, keras.ops.convert_to_tensor, memoryview])
def test_whatever_numpy_takes_is_an_array(convert):
    x = leaf(2)

    assert_bit_equal(batches_of(source_of(x).open(0)), batches_of(source_of(convert(x)).open(0)))


@nests
def test_a_batch_has_the_structure_that_model_fit_gives_it(x):
    """That of the arrays, lists as tuples: a dataset would make one tensor of a list."""
    source = source_of(x, leaf())
    expected = batches_of_fit(x, leaf(), batch_size=4)[0]

    keras.tree.assert_same_structure(expected, source.open(0).take(0))
    keras.tree.assert_same_structure(expected, source.spec)


@pytest.mark.parametrize("arguments", [(leaf(2),), (leaf(2), leaf()), (leaf(2), leaf(), leaf())])
def test_a_batch_is_packed_as_keras_packs_it(arguments):
    batch = source_of(*arguments).open(0).take(0)

    assert len(arguments) == sum(part is not None for part in keras.utils.unpack_x_y_sample_weight(batch))


@nests
def test_the_spec_is_that_of_a_batch_of_any_size(x):
    expected = [tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in flat([x])]

    assert expected == flat([source_of(x).spec])


@examples(150)
@given(counts(40), counts(12), st.sampled_from([False, True, "batch"]), st.integers(0, 5))
def test_every_sample_comes_exactly_once_a_pass(num_samples, batch_size, shuffle, index):
    x = np.arange(num_samples)
    source = source_of(x, x * 2, batch_size=batch_size, shuffle=shuffle)
    batches = batches_of(source.open(index))
    samples = np.concatenate([batch[0] for batch in batches])

    assert source.length == len(batches) == -(-num_samples // batch_size)
    assert [batch_size] * (source.length - 1) == [len(batch[0]) for batch in batches[:-1]]
    assert source.smallest_batch == len(batches[-1][0])
    np.testing.assert_array_equal(x, np.sort(samples))
    np.testing.assert_array_equal(samples * 2, np.concatenate([batch[1] for batch in batches]))


@pytest.mark.parametrize(
    ("shuffle", "expected"),
    [
        (False, lambda index: ROWS),
        (True, lambda index: order(1, index, NUM_SAMPLES)),
        ("batch", lambda index: order_of_batches(1, index, NUM_SAMPLES, 4)),
    ],
)
def test_a_passes_order_follows_from_the_seed_and_its_number(shuffle, expected):
    source = source_of(ROWS, shuffle=shuffle, seed=1)

    for index in (3, 0, 3):
        np.testing.assert_array_equal(expected(index), np.concatenate(batches_of(source.open(index))))


@shuffles
@pytest.mark.parametrize("position", range(4))
def test_a_position_is_reached_as_if_all_before_it_had_been_read(shuffle, position):
    """Seeking is skipping, by `take` and in the loop alike."""
    source = source_of(leaf(2), leaf(), shuffle=shuffle)
    skipped = batches_of(source.open(2))[position:]
    walk = source.open(2)
    cursor = walk.cursor(position)
    pulled = [walk.pull(cursor, tf.constant(index, tf.int64)) for index in range(len(skipped))]

    assert_bit_equal(flat(skipped), flat(batches_of(walk, position)))
    assert_bit_equal(flat(skipped), flat(pulled))


def test_behind_the_last_batch_there_is_none():
    walk = source_of(leaf(2)).open(0)

    assert 3 == len(batches_of(walk))
    assert walk.take(3) is None


def test_data_of_another_length_needs_no_other_trace():
    """A cursor fits the signature of any arrays with the same shapes and types of samples."""
    traces = []

    @tf.function
    def pull(cursor):
        traces.append(cursor)
        return short.open(0).pull(cursor, tf.constant(0, tf.int64))

    short, long = source_of(ROWS, shuffle=True), source_of(np.arange(100), shuffle=True, batch_size=7)
    concrete = pull.get_concrete_function(short.open(0).signature())
    found = [concrete(*tf.nest.flatten(source.open(0).cursor(0), expand_composites=True)) for source in (short, long)]

    assert 1 == len(traces)
    assert_bit_equal([batches_of(source.open(0))[0] for source in (short, long)], found)


def test_the_device_gets_one_copy_for_all_passes():
    source = source_of(leaf(2), shuffle=True)
    (first, *_), (second, *_) = (source.open(index).cursor(0) for index in range(2))

    assert first is second


@nests
@shuffles
@pytest.mark.parametrize("dtype", ["float32", "bool"])  # the first NumPy gathers, the second the graph
def test_batches_that_are_alike_are_the_same_and_the_rest_comes_behind_them(x, shuffle, dtype):
    source = source_of(x, leaf(3, dtype=dtype), shuffle=shuffle)
    expected, walk = batches_of(source.open(2)), source.open(2)
    alike = walk.alike(0)
    found = [alike.pull(alike.cursor, tf.constant(index, tf.int64)) for index in range(alike.steps)]

    assert alike.steps == 2
    assert walk.alike(2) is None
    assert_bit_equal(flat(expected), flat([*found, walk.pull(walk.cursor(2), tf.constant(0, tf.int64))]))
    assert_bit_equal(flat(expected), flat(batches_of(walk)))


def test_the_device_gets_no_copy_of_what_numpy_gathers():
    array = leaf(100_000)  # held: its copy's memory would be kept as long as it is
    source = source_of(array, shuffle=True)
    walk = source.open(0)
    walk.alike(0)
    for position in range(3):
        walk.take(position)
    walk.cursor(2)
    del walk
    copies = source.pipelines.copies
    del source

    assert {} == copies._free


@nests
@shuffles
def test_streamed_batches_are_those_of_resident_arrays(monkeypatch, x, shuffle):
    """How much memory there is decides where batches are read from, and nothing else."""
    source = source_of(x, leaf(dtype="int64"), shuffle=shuffle)
    resident = batches_of(source.open(3))
    monkeypatch.setattr(module, "RESIDENT_BYTES", 0)
    read = batches_of(source.open(3))

    for expected, found in zip(resident, read, strict=True):
        keras.tree.assert_same_paths(expected, found)
    assert_bit_equal(flat(resident), flat(read))
    assert [array.dtype for array in flat(resident)] == [array.dtype for array in flat(read)]


@pytest.mark.parametrize("resident_bytes", [1 << 30, 0], ids=["resident", "streamed"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [2, 5, 8, 10])
def test_replicas_get_contiguous_and_nearly_equal_shares(
    monkeypatch, two_replicas, resident_bytes, shuffle, batch_size
):
    """The shares of a batch, one behind the other, are the batch; they differ by one sample at most."""
    monkeypatch.setattr(module, "RESIDENT_BYTES", resident_bytes)
    source = source_of(ROWS, batch_size=batch_size, shuffle=shuffle)
    expected = batches_of(source.open(2))
    with two_replicas.scope():
        walk = source.open(2)
        shares = [shares_of(walk.take(position), two_replicas) for position in range(source.length)]

    assert [2] * source.length == [len(parts) for parts in shares]
    assert all(abs(len(first) - len(second)) <= 1 for first, second in shares)
    assert_bit_equal(expected, [np.concatenate(parts) for parts in shares])


def test_replicas_get_shares_of_every_leaf_alike(two_replicas):
    source = source_of({"b": ROWS, "a": None}, (ROWS * 2, ROWS * 3), batch_size=5, shuffle=True)
    with two_replicas.scope():
        batch = source.open(0).take(0)
    x, double, triple = (shares_of(leaf, two_replicas) for leaf in (batch[0]["b"], *batch[1]))

    assert batch[0]["a"] is None
    assert_bit_equal([share * 2 for share in x], double)
    assert_bit_equal([share * 3 for share in x], triple)


@pytest.mark.parametrize("batch_size", [-1, 2.0, "32", True])
def test_a_batch_size_that_is_no_count_is_refused_in_words(batch_size):
    with pytest.raises(ConfigError) as error:
        source_of(leaf(2), batch_size=batch_size)

    assert f"batch_size={batch_size!r}: expected a whole number of samples, at least 1." == str(error.value)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_no_data_is_opened_with_batches_of_nothing(batch_size):
    with pytest.raises(ConfigError, match=f"^batch_size={batch_size}: "):
        open_source(leaf(2), batch_size=batch_size)


@pytest.mark.parametrize("shuffle", ["epoch", "", 2, None])
def test_a_shuffle_that_is_not_known_is_refused_in_words(shuffle):
    with pytest.raises(ConfigError) as error:
        source_of(leaf(2), shuffle=shuffle)

    assert f"shuffle={shuffle!r}: expected True, False or 'batch'." == str(error.value)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (
            leaf(2),
            leaf()[:4],
            "The arrays have different numbers of samples (x: 11, y: 4). Give as many of each.",
        ),
        (
            {"b": leaf(2), "a": leaf()[:4]},
            leaf(),
            "The arrays have different numbers of samples (x['a']: 4, x['b']: 11, y: 11). Give as many of each.",
        ),
        (leaf(2)[:0], leaf()[:0], "The data is empty: the arrays have 0 samples. Give at least one."),
        ({"a": None}, None, "x holds no array: every leaf is None."),
        (
            5.0,
            None,
            "x holds float '5.0', where an array was expected with samples along its first axis. "
            "A list of numbers becomes one by np.array(x); a column of mixed or missing values must be "
            "turned into numbers first.",
        ),
        (
            leaf(2),
            ROWS.tolist(),
            "y holds int '0', where an array was expected with samples along its first axis. "
            "A list of numbers becomes one by np.array(y); a column of mixed or missing values must be "
            "turned into numbers first.",
        ),
        (
            np.array([{}, {}]),
            None,
            "x holds ndarray '[{} {}]', where an array was expected with samples along its first axis. "
            "A list of numbers becomes one by np.array(x); a column of mixed or missing values must be "
            "turned into numbers first.",
        ),
    ],
)
def test_data_that_makes_no_batches_is_refused_in_words(x, y, words):
    with pytest.raises(DataError) as error:
        source_of(x, y)

    assert words == str(error.value)


def test_no_data_at_all_is_refused_in_words():
    with pytest.raises(DataError) as error:
        open_source(None, leaf())

    assert "x is None: give x as arrays, or as something that makes batches, such as a tf.data.Dataset." == str(
        error.value
    )


def test_weights_without_targets_are_not_dropped_silently():
    with pytest.raises(ConfigError, match="sample_weight"):
        open_source(leaf(2), sample_weight=leaf())

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras.src.trainers.data_adapters.data_adapter_utils import class_weight_to_sample_weights  # what `fit` weighs with

from engine.data import open_source, split_tail
from engine.data.weights import weigh_arrays, weigh_dataset
from engine.errors import ConfigError, DataError
from tests.helpers import assert_bit_equal
from tests.strategies import examples

NUM_CLASSES = 5
LABELS = np.array([0, 3, 1, 1, 4, 0, 2])
CLASS_WEIGHT = {0: 0.5, 1: 2.0, 3: 7.0}  # 2 lies between those named, 4 behind them

weights = st.floats(0, 10, width=32)
class_weights = st.dictionaries(st.integers(0, NUM_CLASSES - 1), weights, min_size=1)
labels = st.lists(st.integers(0, NUM_CLASSES - 1), min_size=1, max_size=8).map(np.array)

FORMS = {
    "numbers": lambda classes: classes,
    "floats": lambda classes: classes.astype("float32"),
    "between": lambda classes: classes / 2,
    "unsigned bytes": lambda classes: classes.astype("uint8"),
    "column": lambda classes: classes[:, None],
    "one-hot": lambda classes: np.eye(NUM_CLASSES)[classes],
    "probabilities": lambda classes: (np.eye(NUM_CLASSES)[classes] + 0.1) / 1.5,
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def batches_of(source):
    walk, found = source.open(0), []
    while (batch := walk.take(len(found))) is not None:
        found.append(batch)
    return [leaf.numpy() for batch in found for leaf in batch]


@forms
def test_a_sample_weighs_what_its_class_does_in_model_fit(form):
    y = form(LABELS)

    np.testing.assert_array_equal(
        class_weight_to_sample_weights(y, CLASS_WEIGHT), weigh_arrays(y, None, CLASS_WEIGHT), strict=True
    )


@examples(300)
@given(labels, class_weights, st.sampled_from(list(FORMS.values())))
def test_any_classes_and_weights_are_those_of_model_fit(classes, class_weight, form):
    y = form(classes)

    np.testing.assert_array_equal(
        class_weight_to_sample_weights(y, class_weight), weigh_arrays(y, None, class_weight), strict=True
    )


@pytest.mark.parametrize("y", [np.array([-1, 1, 1, -1]), np.array([[-1.0], [1.0]]), np.array([255, 0, 1])])
def test_a_class_that_is_not_named_weighs_1_wherever_it_lies(y):
    """Hinge losses call the classes -1 and 1; -1 is not the last class, as it would be for an index."""
    class_weight = {0: 0.5, 1: 3.0}

    np.testing.assert_array_equal(
        class_weight_to_sample_weights(y, class_weight), weigh_arrays(y, None, class_weight), strict=True
    )


@pytest.mark.parametrize("shape", [(7,), (7, 1)], ids=["flat", "column"])
def test_class_and_sample_weight_multiply(shape):
    """One weight a sample comes out, whatever form the given ones have."""
    own = np.linspace(0.5, 2, 7).astype("float32")
    found = weigh_arrays(LABELS, own.reshape(shape), CLASS_WEIGHT)

    np.testing.assert_array_equal(class_weight_to_sample_weights(LABELS, CLASS_WEIGHT) * own, found, strict=True)


@pytest.mark.parametrize("kind", [int, float, np.int64, np.uint8, np.float32, bool])
def test_a_class_is_named_by_whatever_equals_its_number(kind):
    """As by `dict(zip(np.unique(y), weights))`, whatever numbers the targets are."""
    y = np.array([0, 1, 1, 0, 2])
    class_weight = {kind(0): 0.5, kind(1): 3.0}

    np.testing.assert_array_equal(
        class_weight_to_sample_weights(y, class_weight), weigh_arrays(y, None, class_weight), strict=True
    )


@forms
@pytest.mark.parametrize(
    "own",
    [None, np.linspace(0.5, 2, 7), np.linspace(0.5, 2, 7)[:, None]],
    ids=["alone", "with sample_weight", "with a column of sample_weight"],
)
def test_a_dataset_weighs_as_arrays_do(form, own):
    arrays = (np.arange(7.0), form(LABELS)) + (() if own is None else (own,))
    dataset = tf.data.Dataset.from_tensor_slices(arrays).batch(3)

    assert_bit_equal(
        batches_of(open_source(*arrays, batch_size=3, class_weight=CLASS_WEIGHT)),
        [
            leaf.astype("float32") if leaf.dtype == "float64" else leaf  # a dataset keeps its own types
            for leaf in batches_of(open_source(dataset, class_weight=CLASS_WEIGHT))
        ],
    )


@pytest.mark.parametrize("label", [-1, 99])
def test_a_dataset_weighs_classes_that_are_not_named_1(label):
    dataset = tf.data.Dataset.from_tensor_slices(([0.0, 0.0], [1, label])).batch(2)
    _, _, found = next(weigh_dataset(dataset, {0: 0.5, 1: 3.0}).as_numpy_iterator())

    assert [3.0, 1.0] == found.tolist()


def test_a_dataset_weighs_targets_of_a_shape_that_is_not_known():
    def batches():
        yield np.zeros((2, 1)), [1, 0]

    dataset = tf.data.Dataset.from_generator(
        batches, output_signature=(tf.TensorSpec((None, 1)), tf.TensorSpec(None, tf.int64))
    )
    _, _, found = next(weigh_dataset(dataset, {0: 0.5, 1: 3.0}).as_numpy_iterator())

    assert [3.0, 0.5] == found.tolist()


def test_weights_of_another_number_of_samples_are_refused():
    with pytest.raises(DataError, match="sample"):
        open_source(LABELS, LABELS, np.ones(5), class_weight=CLASS_WEIGHT)


def test_weights_reach_the_batches_in_the_order_of_their_samples():
    source = open_source(LABELS, LABELS, batch_size=2, shuffle=True, seed=1, class_weight=CLASS_WEIGHT)
    found = batches_of(source)
    y, weight = np.concatenate(found[1::3]), np.concatenate(found[2::3])

    np.testing.assert_array_equal(class_weight_to_sample_weights(y, CLASS_WEIGHT), weight)


def test_a_weighted_loss_is_that_of_model_fit():
    """One epoch without updates: the loss that `fit` logs for the same class weights."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(NUM_CLASSES, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", run_eagerly=True)
    x = np.linspace(-1, 1, 7)[:, None]
    logs = model.fit(x, LABELS, batch_size=7, class_weight=CLASS_WEIGHT, verbose=0, shuffle=False).history
    loss = model.evaluate(x, LABELS, sample_weight=weigh_arrays(LABELS, None, CLASS_WEIGHT), verbose=0)

    assert logs["loss"] == [loss]


@pytest.mark.parametrize("class_weight", [{}, {0.5: 1.0}, {"cat": 1.0}, {None: 1.0}])
def test_what_are_no_class_numbers_is_refused_in_words(class_weight):
    with pytest.raises(ConfigError) as error:
        weigh_arrays(LABELS, None, class_weight)

    assert f"class_weight={class_weight!r}: expected class numbers, with a weight each." == str(error.value)


@pytest.mark.parametrize("y", [None, [LABELS, LABELS], {"a": LABELS}], ids=["none", "list", "dict"])
def test_several_targets_have_no_class_each(y):
    with pytest.raises(ConfigError) as error:
        weigh_arrays(y, None, CLASS_WEIGHT)

    assert "class_weight needs one array of targets y, to read each sample's class from." == str(error.value)


@pytest.mark.parametrize("batch", [(LABELS,), (LABELS, (LABELS, LABELS))], ids=["no targets", "two targets"])
def test_a_dataset_without_one_tensor_of_targets_is_refused_in_words(batch):
    dataset = tf.data.Dataset.from_tensor_slices(batch).batch(2)
    with pytest.raises(ConfigError) as error:
        weigh_dataset(dataset, CLASS_WEIGHT)

    assert "class_weight needs a dataset of (x, y) batches with one tensor of targets y." == str(error.value)


STEPS = np.array([[0, 3, 1], [1, 4, 0], [2, 2, 3], [0, 0, 0]])  # four samples of three steps each
OWN_OF_STEPS = {
    "alone": None,
    "one a sample": np.array([1.0, 0.5, 2.0, 3.0]),
    "one a sample, as a column": np.array([[1.0], [0.5], [2.0], [3.0]]),
    "one a step": np.linspace(0.5, 2, 12).reshape(4, 3),
}


@pytest.mark.parametrize("form", ["numbers", "one-hot"])
@pytest.mark.parametrize("own", OWN_OF_STEPS)
def test_a_step_of_a_sequence_weighs_what_its_class_does(form, own):
    """Times its own weight or its sample's; where Keras fails, or takes the steps for classes."""
    y = STEPS if form == "numbers" else np.eye(NUM_CLASSES)[STEPS]
    parts = [part for part in (y, OWN_OF_STEPS[own]) if part is not None]
    factor = 1.0 if len(parts) == 1 else parts[1].reshape(4, -1)
    expected = (np.vectorize(lambda label: CLASS_WEIGHT.get(label, 1.0))(STEPS) * factor).astype("float32")
    dataset = tf.data.Dataset.from_tensor_slices((np.zeros(4), *parts)).batch(4)
    (_, _, of_dataset) = next(weigh_dataset(dataset, CLASS_WEIGHT, are_numbers=form == "numbers").as_numpy_iterator())

    np.testing.assert_array_equal(
        expected, weigh_arrays(y, OWN_OF_STEPS[own], CLASS_WEIGHT, are_numbers=form == "numbers"), strict=True
    )
    np.testing.assert_array_equal(expected, of_dataset, strict=True)


@pytest.mark.parametrize("label", [-1, -(2**40), 2**40, 2**53 + 1, 2**62])
def test_a_class_may_have_any_number(label):
    """Such as those made by hashing; its neighbours are other classes."""
    y = np.array([label, label - 1, label + 1, 0])
    expected = np.array([7.0, 1.0, 1.0, 1.0], "float32")
    dataset = tf.data.Dataset.from_tensors((np.zeros(4), y))

    np.testing.assert_array_equal(expected, weigh_arrays(y, None, {label: 7.0}))
    np.testing.assert_array_equal(expected, next(weigh_dataset(dataset, {label: 7.0}).as_numpy_iterator())[2])


KINDS_OF_BATCHES = {
    "generator": lambda batches: iter(batches),
    "PyDataset": lambda batches: _Batches(batches),
    "dataset": lambda batches: tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature=tf.nest.map_structure(tf.TensorSpec.from_tensor, batches[0])
    ),
}


class _Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return tuple(part.numpy() for part in self.batches[index])


@pytest.mark.parametrize("kind", KINDS_OF_BATCHES)
@pytest.mark.parametrize("is_weighted", [False, True])
def test_whatever_makes_batches_weighs_as_arrays_do(kind, is_weighted):
    arrays = (np.arange(8.0), np.append(LABELS, 4), *([np.linspace(0.5, 2, 8)] if is_weighted else []))
    arrays = [array.astype("float32") if array.dtype == "float64" else array for array in arrays]
    batches = [tuple(tf.constant(array[i : i + 4]) for array in arrays) for i in (0, 4)]

    assert_bit_equal(
        batches_of(open_source(*arrays, batch_size=4, class_weight=CLASS_WEIGHT)),
        batches_of(open_source(KINDS_OF_BATCHES[kind](batches), class_weight=CLASS_WEIGHT)),
    )


@pytest.mark.parametrize("y", [None, {"a": LABELS}], ids=["none", "dict"])
def test_batches_without_one_array_of_targets_are_refused_as_they_are_opened(y):
    with pytest.raises(ConfigError, match="class_weight needs one array of targets y"):
        open_source(iter([(LABELS, y)]), class_weight=CLASS_WEIGHT)


def test_the_part_that_is_split_off_to_train_on_is_weighed():
    """And the part to validate on is not."""
    (x, y, weight), (_, _, of_validation) = split_tail(LABELS, LABELS, None, 0.3)
    found = batches_of(open_source(x, y, weight, batch_size=8, class_weight=CLASS_WEIGHT))

    np.testing.assert_array_equal(class_weight_to_sample_weights(LABELS[:4], CLASS_WEIGHT), found[2])
    assert of_validation is None

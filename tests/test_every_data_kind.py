"""The promise: whatever kind the data is of, a Trainer makes of it what `model.fit` makes of it, bit for bit."""

import functools
import itertools
import tempfile

import grain
import h5py
import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf

from tests.helpers import BATCH_SIZE, NUM_CLASSES, NUM_SAMPLES, assert_bit_equal, perceptron, samples, weights_of
from tests.traced import Traced

pytestmark = pytest.mark.shares_models

EPOCHS = 2
X, Y = samples(shape=(4,))
W = np.linspace(0.5, 2, NUM_SAMPLES).astype("float32")
CLASS_WEIGHT = {0: 0.5, 2: 3.0}  # class 1 weighs 1
HISTORY_TOLERANCE = 1e-6  # ours sums in float64, Keras in float32
VALIDATION = slice(0, 19)  # three batches, the last of three samples
ENDLESS = "without an end"


class Inputs(keras.Model):
    """Takes its features in one tensor, in ragged rows, in words, or in parts of a nest that may hold None."""

    def __init__(self, width):
        super().__init__()
        self.words = keras.layers.StringLookup(vocabulary=[str(number) for number in range(9)])
        self.dense = keras.layers.Dense(NUM_CLASSES, activation="softmax")
        self.dense.build((None, width))
        self.built = True

    def call(self, inputs):
        leaves = [leaf for leaf in keras.tree.flatten(inputs) if leaf is not None]
        return self.dense(keras.ops.concatenate([self._features(leaf) for leaf in leaves], -1))

    def _features(self, leaf):
        if isinstance(leaf, tf.RaggedTensor):
            return leaf.to_tensor(shape=(None, 4))
        return keras.ops.one_hot(self.words(leaf), 10) if leaf.dtype == "string" else leaf


def inputs(width=4):
    keras.utils.set_random_seed(1)
    model = Inputs(width)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def words_inputs():
    return inputs(10)


class Batches(keras.utils.PyDataset):
    """A list of batches; endless if it repeats."""

    def __init__(self, batches, *, repeats=False, **how):
        super().__init__(**how)
        self.batches, self.repeats = batches, repeats

    @property
    def num_batches(self):
        return None if self.repeats else len(self.batches)

    def __getitem__(self, index):
        return self.batches[index % len(self.batches)]


class Rows:
    """What grain and PyTorch take as a source of samples."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data[0])

    def __getitem__(self, index):
        return tuple(part[index] for part in self.data)


def arrays(x, y, *weight):
    return {"x": x, "y": y, "batch_size": BATCH_SIZE} | dict(zip(["sample_weight"], weight, strict=False))


def nest(make):
    """Arrays whose inputs are a nest of two halves."""
    return lambda data, folder: arrays(make(data[0][:, :2], data[0][:, 2:]), *data[1:])


def ragged(x):
    """Rows of one to four numbers."""
    return tf.RaggedTensor.from_tensor(x, lengths=1 + np.arange(len(x)) % 4)


def words(x):
    return np.abs(x[:, 0] * 3).astype(int).astype(str)


def batches(data):
    parts = range(0, len(data[1]), BATCH_SIZE)
    return [tuple(part[begin : begin + BATCH_SIZE] for part in data) for begin in parts]


def stored(data, folder):
    file = h5py.File(f"{tempfile.mkdtemp(dir=folder)}/arrays.h5", "w")
    return arrays(*(file.create_dataset(str(number), data=part) for number, part in enumerate(data)))


def mapped(data, folder):
    paths = [f"{tempfile.mkdtemp(dir=folder)}/array.npy" for _ in data]
    for path, part in zip(paths, data, strict=True):
        np.save(path, part)
    return arrays(*(np.load(path, mmap_mode="r") for path in paths))


def dataset(data):
    return tf.data.Dataset.from_tensor_slices(tuple(data)).batch(BATCH_SIZE)


def grain_dataset(data):
    return grain.MapDataset.source(Rows(data)).batch(BATCH_SIZE)


def grain_loader(data):
    sampler = grain.samplers.IndexSampler(len(data[0]), shuffle=False, num_epochs=1, seed=0)
    return grain.DataLoader(data_source=Rows(data), sampler=sampler, operations=[grain.transforms.Batch(BATCH_SIZE)])


def torch_loader(data):
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*map(torch.as_tensor, data)), batch_size=BATCH_SIZE
    )


def generator(batches):
    yield from batches


ARRAYS = {
    "arrays": (perceptron, lambda data, folder: arrays(*data)),
    "arrays of float64": (perceptron, lambda data, folder: arrays(data[0].astype("float64"), *data[1:])),
    "tensors": (perceptron, lambda data, folder: arrays(*map(tf.constant, data))),
    "pandas": (perceptron, lambda data, folder: arrays(pd.DataFrame(data[0]), *map(pd.Series, data[1:]))),
    "h5py": (perceptron, stored),
    "memmap": (perceptron, mapped),
    "scipy csr": (perceptron, lambda data, folder: arrays(scipy.sparse.csr_matrix(data[0]), *data[1:])),
    "scipy coo": (perceptron, lambda data, folder: arrays(scipy.sparse.coo_matrix(data[0]), *data[1:])),
    "sparse tensor": (perceptron, lambda data, folder: arrays(tf.sparse.from_dense(data[0]), *data[1:])),
    "ragged tensor": (inputs, lambda data, folder: arrays(ragged(data[0]), *data[1:])),
    "words": (words_inputs, lambda data, folder: arrays(words(data[0]), *data[1:])),
    "list of arrays": (inputs, nest(lambda left, right: [left, right])),
    "dict of arrays": (inputs, nest(lambda left, right: {"b": left, "a": right})),
    "nest with None": (inputs, nest(lambda left, right: {"b": (left, None), "a": [right], "c": None})),
}
MAKERS = {
    "dataset": (perceptron, lambda data, folder: dataset(data)),
    "dataset of unknown length": (perceptron, lambda data, folder: dataset(data).filter(lambda *_: True)),
    "dataset of nests with None": (
        inputs,
        lambda data, folder: dataset(data).map(lambda x, *rest: ({"b": x, "a": None}, *rest)),
    ),
    "dataset of words": (words_inputs, lambda data, folder: dataset([words(data[0]), *data[1:]])),
    f"dataset {ENDLESS}": (perceptron, lambda data, folder: dataset(data).repeat()),
    "dataset of sparse tensors": (perceptron, lambda data, folder: dataset([tf.sparse.from_dense(data[0]), *data[1:]])),
    "PyDataset": (perceptron, lambda data, folder: Batches(batches(data))),
    "PyDataset of threads": (perceptron, lambda data, folder: Batches(batches(data), workers=2)),
    "PyDataset of processes": (
        perceptron,
        lambda data, folder: Batches(batches(data), workers=2, use_multiprocessing=True),
    ),
    f"PyDataset {ENDLESS}": (perceptron, lambda data, folder: Batches(batches(data), repeats=True)),
    "PyDataset of words": (words_inputs, lambda data, folder: Batches(batches([words(data[0]), *data[1:]]))),
    "PyDataset of ragged tensors": (inputs, lambda data, folder: Batches(batches([ragged(data[0]), *data[1:]]))),
    "PyDataset of nests with None": (
        inputs,
        lambda data, folder: Batches([({"b": x[:, :2], "a": (None, x[:, 2:])}, *rest) for x, *rest in batches(data)]),
    ),
    f"generator {ENDLESS}": (perceptron, lambda data, folder: generator(itertools.cycle(batches(data)))),
    f"generator of sparse matrices {ENDLESS}": (
        perceptron,
        lambda data, folder: generator(
            (scipy.sparse.csr_matrix(x), *rest) for x, *rest in itertools.cycle(batches(data))
        ),
    ),
    f"iterator {ENDLESS}": (perceptron, lambda data, folder: itertools.cycle(batches(data))),
    "grain MapDataset": (perceptron, lambda data, folder: grain_dataset(data)),
    f"grain MapDataset {ENDLESS}": (perceptron, lambda data, folder: grain_dataset(data).repeat()),
    "grain IterDataset": (perceptron, lambda data, folder: grain_dataset(data).to_iter_dataset()),
    "grain DataLoader": (perceptron, lambda data, folder: grain_loader(data)),
    "PyTorch DataLoader": (perceptron, lambda data, folder: torch_loader(data)),
}
KINDS = ARRAYS | {
    kind: (model, lambda data, folder, make=make: {"x": make(data, folder)}) for kind, (model, make) in MAKERS.items()
}

# What Keras is given instead, where it refuses a kind, runs a step on no data at its end, replays its beginning,
# takes seconds to stop its processes, or reads what another kind holds in the same way.
JUDGES = {
    "tensors": "arrays",
    "h5py": "arrays",
    "memmap": "arrays",
    "PyDataset of threads": "PyDataset",
    f"PyDataset {ENDLESS}": f"dataset {ENDLESS}",
    f"grain MapDataset {ENDLESS}": f"dataset {ENDLESS}",
    "words": "dataset of words",
    "PyDataset of words": "dataset of words",
    "PyDataset of nests with None": "nest with None",
    "PyDataset of processes": "PyDataset",
    "dataset of unknown length": "dataset",
    f"generator {ENDLESS}": "dataset",
    f"generator of sparse matrices {ENDLESS}": "dataset of sparse tensors",
    f"iterator {ENDLESS}": "dataset",
    "grain MapDataset": "dataset",
    "grain IterDataset": "dataset",
    "grain DataLoader": "dataset",
}


def given(kind, data, folder, steps="steps"):
    """Arguments for `fit`, `evaluate` or `predict`: data of a kind, and how much of it to use if it has no end."""
    limit = {steps: -(-len(data[1]) // BATCH_SIZE)} if ENDLESS in kind else {}
    return KINDS[kind][1](data, folder) | limit


def fit(run, kind, data, folder, **arguments):
    """Two epochs by `model.fit` or `Trainer.fit`, in the order of the data, validated on data of the same kind."""
    validation = given(kind, [part[VALIDATION] for part in data], folder, "validation_steps")
    validation.pop("batch_size", None)
    arguments |= {"validation_steps": validation.pop("validation_steps", None)}
    return run(
        **given(kind, data, folder, "steps_per_epoch"),
        validation_data=tuple(validation.values()) if kind in ARRAYS else validation["x"],
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        **arguments,
    ).history


def assert_same_logs(expected, given):
    assert sorted(expected) == sorted(given)
    for name, values in expected.items():
        np.testing.assert_allclose(given[name], values, rtol=HISTORY_TOLERANCE, err_msg=name)


@functools.cache
def traced(model, in_trainer, rank=1):
    return Traced(model(), in_trainer=in_trainer)


def of_keras(kind):
    """Keras fails where one model is given targets of two ranks, one after the other; those of pandas are columns."""
    return traced(KINDS[kind][0], in_trainer=False, rank=2 if kind == "pandas" else 1)


def of_trainer(kind):
    return traced(KINDS[kind][0], in_trainer=True)


def seen(own, kind, data, folder):
    """The logs of a fit, all variables behind it, the scores of an evaluation, and the outputs."""
    history, weights = fit(own.anew().fit, kind, data, folder), weights_of(own.model)
    scores = own.runner.evaluate(**given(kind, data, folder), verbose=0, return_dict=True)
    inputs_of = {name: value for name, value in given(kind, data, folder).items() if name != "y"}
    return history, weights, scores, keras.tree.flatten(own.runner.predict(**inputs_of, verbose=0))


@functools.cache
def seen_in_keras(kind):
    with tempfile.TemporaryDirectory() as folder:
        return seen(of_keras(kind), kind, (X, Y), folder)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_evaluates_and_predicts_as_in_keras(kind, tmp_path):
    expected = seen_in_keras(JUDGES.get(kind, kind))
    history, weights, scores, outputs = seen(of_trainer(kind), kind, (X, Y), tmp_path)

    assert_same_logs(expected[0], history)
    assert_bit_equal(expected[1], weights)
    assert_same_logs(expected[2], scores)
    assert_bit_equal(expected[3], outputs)


WEIGHTED = [
    "arrays",
    "pandas",
    "h5py",
    "scipy csr",
    "ragged tensor",
    "nest with None",
    "dataset",
    "dataset of unknown length",
    "PyDataset of threads",
    f"generator {ENDLESS}",
    "grain MapDataset",
    "PyTorch DataLoader",
]


@pytest.mark.parametrize("kind", WEIGHTED)
def test_every_kind_carries_weights_of_samples_which_those_of_classes_multiply(kind, tmp_path):
    """Keras, which refuses the pair, is given their product. Validation is weighted by its samples alone."""
    judge = JUDGES.get(kind, kind)
    theirs, ours = of_keras(judge), of_trainer(kind)
    of_classes = np.array([CLASS_WEIGHT.get(label, 1.0) for label in Y], "float32")
    expected = fit(theirs.anew().fit, judge, (X, Y, W * of_classes), tmp_path)
    found = fit(ours.anew().fit, kind, (X, Y, W), tmp_path, class_weight=CLASS_WEIGHT)
    validation = given(judge, [part[VALIDATION] for part in (X, Y, W)], tmp_path)

    assert_bit_equal(weights_of(theirs.model), weights_of(ours.model))
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=HISTORY_TOLERANCE)
    np.testing.assert_allclose(
        found["val_loss"][-1], theirs.model.evaluate(**validation, verbose=0)[0], rtol=HISTORY_TOLERANCE
    )

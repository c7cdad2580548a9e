import grain
import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf

from engine.data.kinds import is_loader, makes_batches


class Batches(keras.utils.PyDataset):
    pass


class OwnMapDataset(grain.MapDataset):
    """A user's own kind, by inheritance."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return np.zeros(2)


class DataLoader:
    """Neither PyTorch's nor grain's: only called so."""


NUMBERS = grain.MapDataset.range(4)
LOADERS = {
    "grain MapDataset": lambda: NUMBERS.batch(2),
    "grain IterDataset": lambda: NUMBERS.to_iter_dataset().batch(2),
    "grain DataLoader": lambda: grain.DataLoader(data_source=NUMBERS, sampler=grain.samplers.SequentialSampler(4)),
    "a MapDataset of one's own": OwnMapDataset,
}
MAKERS = {
    "dataset": lambda: tf.data.Dataset.range(4).batch(2),
    "PyDataset": Batches,
    "generator": lambda: (number for number in range(3)),
    "iterator": lambda: iter([1, 2]),
    "map": lambda: map(np.zeros, [1, 2]),
}
OTHERS = {
    "array": lambda: np.zeros(3),
    "list": lambda: [np.zeros(3)],
    "dict": lambda: {"x": np.zeros(3)},
    "tuple": lambda: (np.zeros(3), np.zeros(3)),
    "tensor": lambda: tf.zeros(3),
    "ragged": lambda: tf.ragged.constant([[1], []]),
    "DataFrame": lambda: pd.DataFrame({"a": [1]}),
    "sparse": lambda: scipy.sparse.eye(3),
    "range": lambda: range(3),
    "text": lambda: "cat",
    "nothing": lambda: None,
    "of the name alone": DataLoader,
}


@pytest.mark.parametrize("kind", LOADERS | MAKERS | OTHERS)
def test_what_makes_batches_is_told_from_arrays_and_loaders_from_the_rest(kind):
    data = (LOADERS | MAKERS | OTHERS)[kind]()

    assert (kind in LOADERS) is is_loader(data)
    assert (kind in LOADERS | MAKERS) is makes_batches(data)


def test_a_distributed_dataset_makes_batches(two_replicas):
    assert makes_batches(two_replicas.experimental_distribute_dataset(tf.data.Dataset.range(4).batch(2)))


def test_pytorchs_loader_is_one_and_its_tensors_and_datasets_are_none():
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(torch.zeros(3))

    assert is_loader(torch.utils.data.DataLoader(dataset))
    assert not makes_batches(torch.zeros(3))
    assert not makes_batches(dataset)

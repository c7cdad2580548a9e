import itertools

import grain
import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Trainer
from engine.data import Reader, Resumption, open_source
from engine.errors import DataError
from tests.helpers import assert_bit_equal, batches_of, perceptron, samples, weights_of

X, Y = samples(40, shape=(4,))
NUMBERS = np.arange(10).reshape(5, 2)  # five batches of two numbers


def pairs(count=5):
    """A generator of so many batches of eight samples."""
    return ((X[8 * (i % 5) : 8 * (i % 5) + 8], Y[8 * (i % 5) : 8 * (i % 5) + 8]) for i in range(count))


class Plain:
    """An iterator that is no generator."""

    def __init__(self):
        self.batches = iter(NUMBERS)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.batches)


class Rows:
    """What grain takes as a source of samples."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return np.int64(index)


def grain_loader(num_epochs=1):
    sampler = grain.samplers.IndexSampler(10, shuffle=False, num_epochs=num_epochs, seed=0)
    return grain.DataLoader(data_source=Rows(), sampler=sampler, operations=[grain.transforms.Batch(2)])


def torch_loader():
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.arange(10)), batch_size=2)


def torch_stream():
    torch = pytest.importorskip("torch")

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(range(10))

    return torch.utils.data.DataLoader(Stream(), batch_size=2)


ITERATORS = {
    "generator": lambda: (batch for batch in NUMBERS),
    "iterator": lambda: iter(NUMBERS),
    "map": lambda: map(np.copy, NUMBERS),
    "an iterator of one's own": Plain,
}
LOADERS = {
    "grain MapDataset": (lambda: grain.MapDataset.source(Rows()).batch(2), 5),
    "grain MapDataset shuffled": (lambda: grain.MapDataset.source(Rows()).shuffle(seed=1).batch(2), 5),
    "grain IterDataset": (lambda: grain.MapDataset.source(Rows()).to_iter_dataset().batch(2), None),
    "grain DataLoader": (grain_loader, None),
    "PyTorch DataLoader": (torch_loader, 5),
    "PyTorch DataLoader of a stream": (torch_stream, None),
}
iterators = pytest.mark.parametrize("kind", ITERATORS)
loaders = pytest.mark.parametrize("kind", LOADERS)


def numbers_of(walk):
    return [int(number) for (batch,) in batches_of(walk) for number in batch]


@iterators
def test_an_iterator_is_read_once_from_its_first_batch_to_its_last(kind):
    """The batches that tell what all look like are used as well, and none of them twice."""
    source = open_source(ITERATORS[kind]())

    assert (None, False, Resumption.NONE) == (source.length, source.is_endless, source.resumption)
    assert list(range(10)) == numbers_of(source.open(0))
    assert [] == numbers_of(source.open(1))


@iterators
def test_an_iterator_goes_on_where_it_stands(kind):
    source = open_source(ITERATORS[kind]())
    found = [source.open(index).take(0).numpy().tolist() for index in range(3)]

    assert NUMBERS[:3].tolist() == found


def test_epochs_of_so_many_steps_follow_one_another_in_an_iterator():
    reader, found = Reader(open_source(iter(NUMBERS)), steps_per_epoch=2), []
    for epoch in range(2):
        reader.begin_epoch(epoch)
        for _ in range(2):
            found += reader.take().numpy().tolist()
            reader.advance(1, ended=False)

    assert list(range(8)) == found


def test_training_on_an_iterator_is_training_on_its_batches_one_after_the_other():
    theirs, ours = perceptron(), perceptron()
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).repeat()
    expected = theirs.fit(dataset, epochs=3, steps_per_epoch=3, shuffle=False, verbose=0).history
    given = Trainer(ours).fit(pairs(9), epochs=3, steps_per_epoch=3, verbose=0).history

    assert_bit_equal(weights_of(theirs), weights_of(ours))
    np.testing.assert_allclose(given["loss"], expected["loss"], rtol=1e-6)


def test_an_iterator_that_is_used_up_is_not_replayed_though_keras_does():
    """Keras trains the later epochs on the first two batches again."""
    theirs, ours = perceptron(), perceptron()
    with pytest.warns(UserWarning, match="ran out of data"):
        theirs.fit(pairs(), epochs=3, shuffle=False, verbose=0)
    with pytest.warns(UserWarning, match="gave no batch in epoch 2, so that training ends here"):
        history = Trainer(ours).fit(pairs(), epochs=3, verbose=0)

    assert 5 == int(ours.optimizer.iterations) < int(theirs.optimizer.iterations)
    assert 1 == len(history.history["loss"])


def test_an_iterator_that_ends_within_an_epoch_is_said():
    with pytest.warns(UserWarning, match="ended after 1 of 2 steps of epoch 3"):
        Trainer(perceptron()).fit(pairs(), epochs=3, steps_per_epoch=2, verbose=0)


def test_validation_by_an_iterator_goes_on_from_epoch_to_epoch():
    model = perceptron(optimizer=keras.optimizers.SGD(0.0))
    expected = [model.evaluate(*batch, verbose=0)[0] for batch in itertools.islice(pairs(), 4)]
    history = Trainer(model).fit(X, Y, epochs=2, validation_data=pairs(), validation_steps=2, verbose=0).history

    np.testing.assert_allclose(history["val_loss"], np.reshape(expected, (2, 2)).mean(1), rtol=1e-6)


def test_validation_by_an_iterator_that_is_used_up_is_refused_in_words():
    with pytest.raises(DataError, match="The data to evaluate on gave no batch"):
        Trainer(perceptron()).fit(X, Y, epochs=2, validation_data=pairs(), verbose=0)


@pytest.mark.parametrize("batches", [[], [(X[:8], Y[:8])]], ids=["none", "one"])
def test_an_iterator_may_have_one_batch_but_not_none(batches):
    if batches:
        assert [0] == Trainer(perceptron()).fit(iter(batches), verbose=0).epoch
    else:
        with pytest.raises(DataError, match=r"^The data is empty: it gave no batch. Give at least one\.$"):
            Trainer(perceptron()).fit(iter(batches), verbose=0)


@loaders
def test_a_loader_begins_anew_with_each_pass(kind):
    make, length = LOADERS[kind]
    source = open_source(make())
    source.open(0).take(0)
    first, second = numbers_of(source.open(0)), numbers_of(source.open(1))

    assert (length, False, Resumption.REPEATED) == (source.length, source.is_endless, source.resumption)
    assert first == second
    assert list(range(10)) == (sorted(first) if "shuffled" in kind else first)


@loaders
@pytest.mark.parametrize("position", [0, 1, 3, 5])
def test_a_position_is_reached_by_reading_what_is_before_it(kind, position):
    source = open_source(LOADERS[kind][0]())

    assert numbers_of(source.open(0))[2 * position :] == numbers_of(source.open(1, position))


@pytest.mark.parametrize("is_endless", [True, False])
def test_a_dataset_of_grain_that_repeats_without_a_count_needs_steps(is_endless):
    pairs_of_rows = grain.MapDataset.source(list(zip(X, Y, strict=True))).batch(8)
    data = pairs_of_rows.repeat(None if is_endless else 2)
    trainer = Trainer(perceptron())
    history = trainer.fit(data, steps_per_epoch=7, verbose=0)

    assert (None, True) if is_endless else (10, False) == (open_source(data).length, open_source(data).is_endless)
    assert 7 == int(trainer.model.optimizer.iterations)
    assert [0] == history.epoch
    if is_endless:
        with pytest.raises(DataError, match=r"The data is endless .* Give steps_per_epoch"):
            trainer.fit(data, verbose=0)


def test_a_loader_of_grain_without_an_end_is_read_as_far_as_is_asked_for():
    """It does not say that it has none."""
    walk = open_source(grain_loader(num_epochs=None)).open(0)

    assert [0, 0] == [int(walk.take(position)[0]) for position in range(6)][::5]


def test_an_empty_loader_is_refused_in_words():
    with pytest.raises(DataError) as error:
        open_source(grain.MapDataset.range(0).batch(2))

    assert "The BatchMapDataset is empty: it has 0 batches. Give at least one." == str(error.value)


def test_targets_of_the_first_batch_are_checked_at_the_door():
    model = perceptron()
    with pytest.raises(DataError, match=r"y holds the class 9 at y\[3\], but the model has 3 outputs"):
        Trainer(model).fit(iter([(X[:8], np.array([0, 0, 0, 9, 0, 0, 0, 0]))]), verbose=0)

    assert 0 == int(model.optimizer.iterations)

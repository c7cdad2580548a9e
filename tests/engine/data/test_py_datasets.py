import functools
import gc
import multiprocessing
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Trainer
from engine.data import Reader, Resumption, open_source
from engine.data.order import order
from engine.errors import DataError
from tests.helpers import Recorder, assert_bit_equal, batches_of, perceptron, samples
from tests.traced import Traced

pytestmark = pytest.mark.shares_models
X, Y = samples(48, shape=(4,))
MODES = {
    "one thread": {},
    "threads": {"workers": 2},
    "a process": {"workers": 1, "use_multiprocessing": True},
    "processes": {"workers": 2, "use_multiprocessing": True},
}
modes = pytest.mark.parametrize("mode", MODES)


class Numbers(keras.utils.PyDataset):
    """So many batches of one number, its own plus ten for each epoch; writes down what it is asked in this process."""

    def __init__(self, length=5, **how):
        super().__init__(**how)
        self.length, self.epoch, self.calls, self.error_at = length, 0, [], {}

    @property
    def num_batches(self):
        return self.length

    def __getitem__(self, index):
        self.calls.append(index)
        if index in self.error_at and "B" in self.calls:
            raise self.error_at[index]("mine")
        return np.array([10 * self.epoch + index])

    def on_epoch_begin(self):
        self.calls.append("B")

    def on_epoch_end(self):
        self.calls.append("E")
        self.epoch += 1


class Pairs(Numbers):
    """Batches of eight samples to train on."""

    def __getitem__(self, index):
        super().__getitem__(index)
        return X[8 * (index % 6) : 8 * (index % 6) + 8], Y[8 * (index % 6) : 8 * (index % 6) + 8]


class Barriers(Numbers):
    """Gives a batch only when another one is in the making."""

    def __init__(self, **how):
        super().__init__(4, **how)
        self.barrier = threading.Barrier(2)

    def __getitem__(self, index):
        if "B" in self.calls:
            self.barrier.wait(timeout=20)
        return super().__getitem__(index)


@functools.cache
def traced():
    return Traced(perceptron(), in_trainer=True)


def numbers_of(walk):
    return [int(number) for (batch,) in batches_of(walk) for number in batch]


def seen(dataset):
    """What the dataset was asked, without the first two batches, which tell what all look like."""
    return dataset.calls[2:]


@modes
@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_come_in_the_order_of_the_pass(mode, shuffle):
    """Which follows from the seed and the pass's number, whoever makes the batches."""
    source = open_source(Numbers(7, **MODES[mode]), shuffle=shuffle, seed=3)

    for index in (2, 0, 2):
        assert (order(3, index, 7).tolist() if shuffle else list(range(7))) == numbers_of(source.open(index))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("length", "position"), [(1, 0), (1, 1), (7, 0), (7, 1), (7, 4), (7, 7)])
def test_a_position_is_reached_as_if_all_before_it_had_been_read(length, shuffle, position):
    source = open_source(Numbers(length), shuffle=shuffle, seed=1)

    assert Resumption.EXACT is source.resumption
    assert numbers_of(source.open(2))[position:] == numbers_of(source.open(2, position))


@modes
def test_batches_before_a_position_are_never_asked_for(mode):
    dataset = Numbers(6, **MODES[mode])
    found = numbers_of(open_source(dataset).open(0, 4))

    assert [4, 5] == found
    assert {*seen(dataset)} <= {4, 5}


@pytest.mark.parametrize("steps_per_execution", [1, 2, "auto"])
def test_an_epoch_is_begun_before_its_first_batch_and_ended_after_its_last(steps_per_execution):
    """Keras ends one more epoch before it begins the first, and begins some after their first batch."""
    dataset = Pairs(3)
    Trainer(perceptron(), steps_per_execution=steps_per_execution).fit(dataset, epochs=3, shuffle=False, verbose=0)

    assert ["B", 0, 1, 2, "E"] * 3 == seen(dataset)


@modes
def test_the_hooks_are_called_once_an_epoch_however_batches_are_made(mode):
    dataset = Pairs(3, **MODES[mode])
    traced().anew().fit(dataset, epochs=2, callbacks=[Recorder()], verbose=0)

    assert ["B", "E"] * 2 == [call for call in seen(dataset) if isinstance(call, str)]
    assert ("use_multiprocessing" in MODES[mode]) == (["B", "E"] * 2 == seen(dataset))


@pytest.mark.parametrize("mode", ["one thread", "threads"])
def test_replicas_ask_for_no_batch_before_the_epoch_is_begun(two_replicas, mode):
    dataset = Pairs(3, **MODES[mode])
    with two_replicas.scope():
        model = perceptron()
    Trainer(model).fit(dataset, epochs=2, shuffle=False, verbose=0)

    for epoch in (seen(dataset)[:5], seen(dataset)[5:]):
        assert ["B", 0, 1, 2, "E"] == [epoch[0], *sorted(epoch[1:4]), epoch[4]]


def test_evaluating_predicting_and_each_validation_are_epochs_of_their_own():
    """Never shuffled."""
    dataset = Pairs(3)
    trainer = traced().anew()
    trainer.evaluate(dataset, verbose=0)
    trainer.predict(dataset, verbose=0)
    evaluated = dataset.calls
    dataset = Pairs(3)
    trainer.fit(X, Y, epochs=2, validation_data=dataset, verbose=0)

    assert [0, 1, "B", 0, 1, 2, "E"] * 2 == evaluated
    assert ["B", 0, 1, 2, "E"] * 2 == seen(dataset)


@modes
def test_what_the_hooks_change_counts_from_the_next_epoch_on(mode):
    """In processes too, although these hold a copy."""
    dataset = Numbers(3, **MODES[mode])
    reader, found = Reader(open_source(dataset)), []
    for epoch in range(3):
        reader.begin_epoch(epoch)
        found.append(numbers_of(reader.walk))
        reader.advance(3, ended=False)
        reader.end_epoch()

    assert [[0, 1, 2], [10, 11, 12], [20, 21, 22]] == found


class Changes(Pairs):
    """Has other lengths in later epochs."""

    def on_epoch_end(self):
        super().on_epoch_end()
        self.length = [5, 1, 4][self.epoch - 1]


@modes
def test_the_length_may_change_between_epochs(mode):
    callback = Recorder()
    traced().anew().fit(Changes(2, **MODES[mode]), epochs=3, callbacks=[callback], verbose=0)
    ends = [call[1] for call in callback.calls if call[0] == "on_train_batch_end"]

    assert [0, 1, 0, 1, 2, 3, 4, 0] == ends


def test_a_pass_that_goes_on_from_epoch_to_epoch_keeps_the_length_that_it_began_with():
    """A dataset that has become shorter in between must not make the rest of the pass a negative number."""
    dataset = Numbers(6)
    reader = Reader(open_source(dataset), steps_per_epoch=4)
    reader.begin_epoch(0)
    reader.advance(4, ended=False)
    reader.end_epoch()
    dataset.length = 1
    reader.begin_epoch(1)

    assert 2 == reader.batches_left()


@modes
def test_one_without_an_end_goes_on_from_epoch_to_epoch_in_its_own_order(mode):
    dataset = Numbers(None, **MODES[mode])
    source = open_source(dataset, shuffle=True)
    walk = source.open(0)
    found = [int(walk.take(position)[0]) for position in range(5)]

    assert (None, True) == (source.length, source.is_endless)
    assert [0, 1, 2, 3, 4] == found
    assert [7, 8] == [int(source.open(0, 7).take(0)[0]), int(source.open(3, 8).take(0)[0])]


@pytest.mark.parametrize("arguments", [{}, {"validation_data": True}])
def test_one_without_an_end_needs_steps(arguments):
    data = (Pairs(None),) if not arguments else (X, Y)
    with pytest.raises(DataError, match=r"The data is endless .* Give (validation_steps|steps_per_epoch)"):
        traced().anew().fit(*data, verbose=0, **{name: Pairs(None) for name in arguments})


def test_batches_are_made_side_by_side_in_threads():
    """Each waits for another; one after the other, they would wait for ever."""
    dataset = Barriers(workers=2)
    source = open_source(dataset)
    source.begin_epoch()

    assert [0, 1, 2, 3] == numbers_of(source.open(0))


@pytest.mark.parametrize("max_queue_size", [1, 4])
def test_no_more_batches_wait_than_the_dataset_allows(max_queue_size):
    """Beside the few that `tf.data` holds: one in its hands and two ahead of the loop."""
    dataset = Numbers(None, workers=2, max_queue_size=max_queue_size)
    walk = open_source(dataset).open(0)
    for position in range(3):
        walk.take(position)

    assert 3 <= len(seen(dataset)) <= 3 + 3 + 1 + max_queue_size


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        *((mode, error) for mode in ("one thread", "processes") for error in (KeyError, IndexError, StopIteration)),
        ("threads", OSError),
        ("a process", StopIteration),
    ],
)
def test_an_error_in_the_users_code_comes_out_of_fit_after_the_steps_before_it(mode, error):
    """As its type, whoever made the batch; a StopIteration, which Python forbids here, as Python's RuntimeError."""
    dataset = Pairs(5, **MODES[mode])
    dataset.error_at[3] = error
    expected = (RuntimeError, "StopIteration") if error is StopIteration else (error, "mine")
    with pytest.raises(expected[0], match=expected[1]):
        traced().anew().fit(dataset, shuffle=False, verbose=0)

    assert 3 == int(traced().model.optimizer.iterations)


@pytest.mark.parametrize(
    ("mode", "ends"), [("a process", "by itself"), ("processes", "by an error"), ("processes", "early")]
)
def test_processes_end_with_their_pass(mode, ends):
    dataset = Pairs(None if ends == "early" else 4, **MODES[mode])
    dataset.error_at.update({2: KeyError} if ends == "by an error" else {})
    try:
        traced().anew().fit(dataset, steps_per_epoch=2 if ends == "early" else None, verbose=0)
    except KeyError:
        assert "by an error" == ends
    gc.collect()
    end = time.monotonic() + 20
    while multiprocessing.active_children() and time.monotonic() < end:  # the pool joins them in a thread of its own
        time.sleep(0.01)

    assert [] == multiprocessing.active_children()


class Stops(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = batch == 1


@pytest.mark.parametrize(
    ("mode", "length"), [("one thread", 1000), ("threads", None), ("a process", 1000), ("processes", None)]
)
def test_stopping_early_leaves_no_thread_behind(mode, length):
    """Nor a batch asked for without need, and the epoch is ended."""
    before = {*threading.enumerate()}
    dataset = Pairs(length, **MODES[mode])
    traced().anew().fit(dataset, steps_per_epoch=500, callbacks=[Stops()], verbose=0)
    gc.collect()
    workers = [thread for thread in {*threading.enumerate()} - before if "Dummy" not in thread.name]
    for thread in workers:
        thread.join(20)

    assert not any(thread.is_alive() for thread in workers)
    assert "E" == [call for call in dataset.calls if isinstance(call, str)][-1]
    assert len(seen(dataset)) < 30


def test_an_empty_one_is_refused_in_words():
    with pytest.raises(DataError) as error:
        open_source(Numbers(0))

    assert "The PyDataset is empty: it has 0 batches. Give at least one." == str(error.value)


def test_the_first_batches_tell_what_all_look_like_and_their_targets_are_checked():
    source = open_source(Pairs(3))

    assert (tf.TensorSpec((None, 4), tf.float32), tf.TensorSpec((None,), tf.int64)) == source.spec
    assert_bit_equal([Y[:8]], [source.targets])


def test_one_that_keeps_its_length_in_len_has_that_length():
    class Old(Pairs):
        num_batches = keras.utils.PyDataset.num_batches

        def __len__(self):
            return 3

    assert 3 == open_source(Old()).length

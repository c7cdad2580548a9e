"""Dropping an iterator may take seconds, so that no thread that trains, evaluates or predicts may do it."""

import contextlib
import gc
import queue
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Trainer
from engine.data import letting_go
from engine.data.letting_go import THREAD, empty_later


class Watched(keras.callbacks.Callback):
    """Looks for iterators itself, so that who makes them need not know of it, and notes which thread drops them."""

    def __init__(self):
        super().__init__()
        gc.collect()
        wait_for_threads()
        self._seen = weakref.WeakSet(iterators())
        self._dropped_in = queue.SimpleQueue()
        self.number = 0

    def _look(self, *_):
        """Follows what each iterator that is new holds in TensorFlow, which is what waits."""
        wait_for_threads()  # who looks holds what there is, and would drop what another thread is about to drop
        for iterator in iterators():
            if iterator not in self._seen:
                self._seen.add(iterator)
                self.number += 1
                weakref.finalize(iterator._iterator_resource, self._note)

    on_train_begin = on_epoch_end = on_test_end = on_predict_end = _look

    def _note(self):
        self._dropped_in.put(threading.current_thread().name)

    def threads(self):
        """The names of the threads in which they were dropped, as soon as all are."""
        return [self._dropped_in.get(timeout=30) for _ in range(self.number)]


def wait_for_threads():
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join()


def iterators():
    return [own for own in gc.get_objects() if type(own).__name__ == "OwnedIterator"]


def batches():
    """A user's pipeline, in which TensorFlow tunes all that it can."""
    images, labels = np.ones((8, 3), np.float32), np.zeros(8, np.int64)
    pairs = tf.data.Dataset.from_tensor_slices((images, labels))
    doubled = pairs.map(lambda image, label: (2 * image, label), num_parallel_calls=tf.data.AUTOTUNE)
    return doubled.batch(2).prefetch(tf.data.AUTOTUNE)


def trainer(scope):
    with scope:
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
    return Trainer(model)


def fit(own, watched):
    own.fit(batches(), epochs=2, verbose=0, callbacks=watched, validation_data=batches())


def evaluate(own, watched):
    own.evaluate(batches(), verbose=0, callbacks=watched)


def predict(own, watched):
    own.predict(batches(), verbose=0, callbacks=watched)


@pytest.mark.parametrize(("call", "number"), [(fit, 4), (evaluate, 1), (predict, 1)])
def test_no_call_drops_an_iterator_in_its_own_thread(call, number):
    watched = Watched()
    call(trainer(contextlib.nullcontext()), watched)

    assert number == watched.number
    assert {THREAD} == set(watched.threads())


def test_nor_does_it_drop_those_of_replicas(two_replicas):
    """One for each replica, an epoch."""
    watched = Watched()
    trainer(two_replicas.scope()).fit(batches(), epochs=2, verbose=0, callbacks=watched)

    assert 2 * 2 == watched.number
    assert {THREAD} == set(watched.threads())


def test_a_process_ends_while_an_iterator_is_let_go_of():
    """Whatever that takes."""
    program = """
import threading
from letting_go import empty_later  # alone: it needs no TensorFlow

class Owner: pass
class Slow:
    def __del__(self): begun.set(); forever.wait()

begun, forever, owner = threading.Event(), threading.Event(), Owner()
empty_later(owner, [Slow()])
del owner
begun.wait()
"""
    folder = Path(letting_go.__file__).parent
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_what_is_owned_is_dropped_in_another_thread_when_its_owner_is():
    owner, owned, dropped_in = Owner(), [Owner()], queue.SimpleQueue()
    weakref.finalize(owned[0], lambda: dropped_in.put(threading.current_thread().name))
    empty_later(owner, owned)

    assert dropped_in.empty()
    del owner
    assert THREAD == dropped_in.get(timeout=30)
    assert [] == owned


class Owner:
    """Anything that can be referred to weakly."""

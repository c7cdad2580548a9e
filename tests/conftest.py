"""Made before TensorFlow starts: two logical CPU devices, for the tests with replicas, and a Ctrl-C that is heard."""

import gc
import random
import resource
import signal
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.data.datasets import without_autotune

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
# A shell that starts the tests in the background (`make test &`) has them ignore Ctrl-C, which many of them press.
signal.signal(signal.SIGINT, signal.default_int_handler)

_begin = tf.data.Dataset.__iter__


def _begin_without_autotune(dataset: tf.data.Dataset) -> Iterator[Any]:
    return _begin(without_autotune(dataset))


# Whoever drops an iterator waits until its autotuner has slept out (docs/design/decisions.md, 8). That of a `model.fit`
# ended by an error lies in a cycle, until garbage is collected in the middle of another test: for 30 s and more.
tf.data.Dataset.__iter__ = _begin_without_autotune

# Graphs that are traced hold hundreds of thousands of objects: at Python's threshold, 700, walking through them again
# and again takes a twentieth of all tests' time.
gc.set_threshold(50_000, 20, 100)


def begin_anew() -> None:
    """The same seeds, and no layer names used up. Drops the kernels of all models, which are then made anew."""
    keras.utils.clear_session(free_memory=False)  # collecting garbage takes longer than most tests
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _new_file() -> None:
    """Every file begins anew."""
    begin_anew()


@pytest.fixture(autouse=True)
def _new_test(request: pytest.FixtureRequest) -> None:
    """Every test begins anew; those that share models keep the kernels, which takes a third of the time."""
    if request.node.get_closest_marker("shares_models") is None:
        begin_anew()
    else:
        random.seed(0)
        np.random.seed(0)


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.MirroredStrategy:
    """The one strategy of all tests: two of them number their collectives alike, and TensorFlow mixes these up."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 100 kB: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

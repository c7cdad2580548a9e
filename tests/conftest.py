"""Settings that must be made before TensorFlow starts: two logical CPU devices, for the tests with replicas."""

import keras
import pytest
import tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test begins with the same seeds and with no layer names used up."""
    keras.utils.clear_session(free_memory=False)  # collecting garbage takes longer than most tests
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.MirroredStrategy:
    """The one strategy of all tests: two of them number their collectives alike, and TensorFlow mixes these up."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

"""Tiny networks and data for the trainings by this package and by Keras, each given to the `train` of either."""

import importlib
import os
import signal
import time

import attrs
import gymnasium
import keras
import numpy as np
import tensorflow as tf

from zoo import Arena, VariationalAutoencoder


class Countdown(keras.layers.Layer):
    """Hands on what it gets, and at its n-th call kills the process, when what is being written is on the disk."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def call(self, inputs):
        """Counts in Python, for a graph is traced once."""
        return tf.ensure_shape(tf.grad_pass_through(self.count)(inputs), inputs.shape)

    def count(self, inputs):
        """As a tensor that the outputs depend on."""
        return tf.numpy_function(self._count, [inputs], inputs.dtype)

    def _count(self, inputs):
        self.calls -= 1
        if self.calls == 0:
            time.sleep(2)
            os.kill(os.getpid(), signal.SIGKILL)
        return inputs


@attrs.frozen
class Setting:
    """Where and how long to train.

    Attributes:
        tool: "ours" or "keras".
        directory: Where it is saved.
        steps: In an epoch.
        epochs: How many.
        kill_after: Steps after which the process is killed; None: it is not.
    """

    tool: str
    directory: os.PathLike
    steps: int
    epochs: int
    kill_after: int | None = None

    def images(self, batch_size):
        """As many as an epoch needs."""
        return np.random.default_rng(1).random((self.steps * batch_size, 4, 4, 1), np.float32)

    def labels(self, batch_size):
        """Of three classes."""
        return np.random.default_rng(2).integers(0, 3, self.steps * batch_size)

    def dense(self, size, units, activation=None, *, calls_per_step=None):
        """A network of one layer, which kills the process if it is to be, and if it is told how often it is called."""
        countdown = []
        if calls_per_step is not None and self.kill_after is not None:
            countdown = [Countdown(calls_per_step * self.kill_after)]
        shape = (size,) if isinstance(size, int) else size
        return keras.Sequential(
            [keras.Input(shape), *countdown, keras.layers.Flatten(), keras.layers.Dense(units, activation)]
        )


def gan(train, setting):
    generator = setting.dense(4, 16, "sigmoid", calls_per_step=1)
    generator.add(keras.layers.Reshape((4, 4, 1)))
    critic = setting.dense((4, 4, 1), 1)
    return train(generator, critic, setting.images(64), setting.directory, epochs=setting.epochs), [generator, critic]


def vae(train, setting):
    model = VariationalAutoencoder((4, 4, 1), code_size=2)
    model.encoder = setting.dense((4, 4, 1), 4, calls_per_step=1)
    model.decoder = setting.dense(2, 16, "sigmoid")
    model.decoder.add(keras.layers.Reshape((4, 4, 1)))
    networks = (model,) if setting.tool == "ours" else (model.encoder, model.decoder)
    images = setting.images(64)
    history = train(*networks, images, images[:64], setting.directory, epochs=setting.epochs)
    return history, [model.encoder, model.decoder]


def distillation(train, setting):
    student = setting.dense((4, 4, 1), 3, "softmax", calls_per_step=1)
    teacher = setting.dense((4, 4, 1), 3, "softmax")
    data = setting.images(64), setting.labels(64)
    few = tuple(array[:64] for array in data)
    return train(student, teacher, data, few, setting.directory, epochs=setting.epochs), [student]


def contrastive(train, setting):
    network = setting.dense((4, 4, 1), 4, calls_per_step=2)
    encoder = keras.Model(network.inputs, network.layers[-2].output)
    networks = (encoder, network) if setting.tool == "ours" else (network,)
    history = train(*networks, noisy, setting.images(256), setting.directory, epochs=setting.epochs)
    return history, [network]


def noisy(images, seeds):
    """A view of each image."""
    return images + keras.random.normal(tf.shape(images), seed=seeds) / 10


def fine_tuning(train, setting):
    features = setting.dense((4, 4, 1), 8, "relu", calls_per_step=1)
    features.add(keras.layers.BatchNormalization())
    features = keras.Model(features.inputs, features.outputs)
    data = setting.images(32), setting.labels(32)
    few = tuple(array[:32] for array in data)
    last = next(layer.name for layer in features.layers if isinstance(layer, keras.layers.Dense))
    histories = train(features, 3, data, few, setting.directory, from_layer=last, epochs=setting.epochs)
    return histories[-1], [features]


def reinforce(train, setting):
    return _learn_to_act(train, setting, calls_per_step=1)


def ppo(train, setting):
    return _learn_to_act(train, setting, calls_per_step=2 + 6)


def _learn_to_act(train, setting, *, calls_per_step):
    policy, judge = setting.dense(4, 2), setting.dense(4, 1, calls_per_step=calls_per_step)
    arena = Arena(lambda: gymnasium.make("CartPole-v1"), max_steps=12)
    seeds = np.arange(setting.steps * 10)
    history = train(policy, judge, arena, seeds, seeds[:10], setting.directory, epochs=setting.epochs)
    return history, [policy, judge]


CASES = (gan, vae, distillation, contrastive, fine_tuning, reinforce, ppo)


def run(name, setting):
    """Trains from the same beginning; returns the history and all weights."""
    keras.utils.set_random_seed(1)
    train = importlib.import_module(f"tests.lines.{setting.tool}_{name}").train
    history, networks = {case.__name__: case for case in CASES}[name](train, setting)
    return history.history, [weight for network in networks for weight in network.get_weights()]

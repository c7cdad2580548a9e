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

from zoo import Arena

IMAGE = (4, 4, 1)


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
        is_one_image: Whether all images are the same, so that their order makes no difference.
    """

    tool: str
    directory: os.PathLike
    steps: int
    epochs: int
    kill_after: int | None = None
    is_one_image: bool = False

    def images(self, batch_size):
        """As many as an epoch needs."""
        images = np.random.default_rng(1).random((self.steps * batch_size, *IMAGE), np.float32)
        return np.broadcast_to(images[:1], images.shape).copy() if self.is_one_image else images

    def labels(self, batch_size):
        """Of three classes."""
        return np.random.default_rng(2).integers(0, 3, self.steps * batch_size)

    def countdown(self, calls_per_step):
        """A layer that kills the process if it is to be, once it was called often enough; else it does nothing."""
        return keras.layers.Identity() if self.kill_after is None else Countdown(calls_per_step * self.kill_after)


def dense(shape, units, activation=None, *, first=()):
    """A network of one layer that has weights, behind those that come first."""
    return keras.Sequential([keras.Input(shape), *first, keras.layers.Flatten(), keras.layers.Dense(units, activation)])


def gan(train, setting):
    generator = dense((4,), 16, "sigmoid", first=[setting.countdown(1)])
    generator.add(keras.layers.Reshape(IMAGE))
    critic = dense(IMAGE, 1)
    history = train(generator, critic, setting.images(64), setting.directory, epochs=setting.epochs)
    return history, [generator, critic]


def vae(train, setting):
    encoder, decoder = dense(IMAGE, 4, first=[setting.countdown(1)]), dense((2,), 16, "sigmoid")
    decoder.add(keras.layers.Reshape(IMAGE))
    images = setting.images(64)
    history = train(encoder, decoder, images, images[:64], setting.directory, epochs=setting.epochs)
    return history, [encoder, decoder]


def distillation(train, setting):
    student, teacher = dense(IMAGE, 3, "softmax", first=[setting.countdown(1)]), dense(IMAGE, 3, "softmax")
    data = setting.images(64), setting.labels(64)
    few = tuple(array[:64] for array in data)
    return train(student, teacher, data, few, setting.directory, epochs=setting.epochs), [student]


def contrastive(train, setting):
    network = dense(IMAGE, 4, first=[setting.countdown(2)])
    history = train(network, noisy, setting.images(256), setting.directory, epochs=setting.epochs)
    return history, [network]


def noisy(images, seeds):
    """A view of each image."""
    return images + keras.random.normal(tf.shape(images), seed=seeds) / 10


def fine_tuning(train, setting):
    inputs = keras.Input(IMAGE)
    x = keras.layers.Flatten()(setting.countdown(1)(inputs))
    x = keras.layers.Dense(8, "relu")(x)
    last = keras.layers.Dense(8, "relu")
    features = keras.Model(inputs, keras.layers.BatchNormalization()(last(x)))
    data = setting.images(32), setting.labels(32)
    few = tuple(array[:32] for array in data)
    histories = train(features, 3, data, few, setting.directory, from_layer=last.name, epochs=setting.epochs)
    return histories[-1], [features]


def reinforce(train, setting):
    return learn_to_act(train, setting, calls_per_step=1)


def ppo(train, setting):
    return learn_to_act(train, setting, calls_per_step=2 + 6)


def learn_to_act(train, setting, *, calls_per_step):
    policy, judge = dense((4,), 2), dense((4,), 1, first=[setting.countdown(calls_per_step)])
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

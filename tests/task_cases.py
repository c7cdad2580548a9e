"""Tasks that are no plain compiled model, each small enough to be trained again and again."""

import contextlib
from collections.abc import Callable
from typing import Any

import attrs
import gymnasium
import keras
import numpy as np
import tensorflow as tf

from engine import Task, Trainer, losses, replicas
from tests.helpers import samples
from zoo import (
    GAN,
    PPO,
    Arena,
    Distillation,
    RandomViews,
    Reinforce,
    SimCLR,
    VariationalAutoencoder,
    VariationalInference,
    dense_classifier,
    fine_tuned,
    policy_network,
    small_critic,
    small_encoder,
    small_generator,
    value_network,
    with_projection_head,
)

NUM_SAMPLES = 22  # of 6 at a time: four steps, the last of four samples


@attrs.frozen
class TaskCase:
    """A task and what it is trained on.

    Attributes:
        make: Makes the task anew, or what a Trainer takes in its place; its variables in the scope around it.
        data: Makes the arguments of fit.
        trainer: More arguments of the Trainer.
    """

    make: Callable[[], Any]
    data: Callable[[], dict[str, Any]] = lambda: {"x": samples(NUM_SAMPLES, shape=(4,))[0], "batch_size": 6}
    trainer: dict[str, Any] = attrs.Factory(dict)


@attrs.define(eq=False)
class TwoPlayers(Task):
    """Two models that take turns, each with an optimizer, a regularizer and an activity term of its own."""

    model: keras.Model
    critic: keras.Model
    seeds: keras.random.SeedGenerator

    def train_step(self, batch: Any) -> dict[str, Any]:
        """One update of each."""
        real, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        size = tf.shape(real)[0]
        noise = replicas.drawn(lambda number: keras.random.normal((number, 3), seed=self.seeds), size)
        with losses.Total("critic_loss") as critic, losses.Total("loss") as generator:
            made = generator.call(self.model, noise)
            on_real, on_made = critic.call(self.critic, real), critic.call(self.critic, made)
            critic.compare("real", "binary_crossentropy", tf.ones_like(on_real), on_real)
            critic.compare("made", "binary_crossentropy", tf.zeros_like(on_made), on_made)
            generator.compare("fooling", "binary_crossentropy", tf.ones_like(on_made), on_made)
        critic.minimize(self.critic, log_norm=True)
        generator.minimize(self.model)
        return critic.logs() | generator.logs()


def two_players() -> Task:
    """Compiled with two optimizers of two kinds."""
    model = keras.Sequential([
        keras.Input((3,)),
        keras.layers.Dense(5, activation="relu", activity_regularizer="l2"),
        keras.layers.Dense(4),
    ])  # fmt: skip
    critic = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid", kernel_regularizer="l2")])
    model.compile(keras.optimizers.Adam(0.01))
    critic.compile(keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.5))
    return TwoPlayers(model, critic, keras.random.SeedGenerator(5))


def a_step(model: keras.Model, batch: Any) -> dict[str, Any]:
    """A plain function as the step."""
    x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
    with losses.Total() as total:
        total.compare("data", "mse", x, total.call(model, x))
    total.minimize(model)
    return total.logs()


def stepped() -> keras.Model:
    """A model without a loss."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, kernel_regularizer="l1")])
    model.compile(keras.optimizers.RMSprop(0.01))
    return model


def images_and_labels() -> dict[str, Any]:
    """Small images of three classes."""
    x, _ = samples(NUM_SAMPLES, shape=(2, 2, 1))
    return {"x": x, "y": np.arange(NUM_SAMPLES) % 3, "batch_size": 6}


def trained() -> keras.Sequential:
    """A classifier with what a teacher and frozen features must not do: drop, and count statistics."""
    return keras.Sequential([
        keras.Input((2, 2, 1)),
        keras.layers.Flatten(),
        keras.layers.Dense(5, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(3, activation="softmax"),
    ])  # fmt: skip


def distillation() -> Task:
    """A student that has a regularizer."""
    student = dense_classifier(3, (2, 2, 1), units=4)
    student.layers[-1].kernel_regularizer = keras.regularizers.L2(0.01)
    student.compile(keras.optimizers.Adam(0.01))
    return Distillation(student, trained())


def partly_frozen() -> keras.Model:
    """A new head, and features that learn from their batch normalisation on."""
    model = fine_tuned(trained(), 3)
    model.unfreeze(model.features.layers[-2].name)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


def images_alone() -> dict[str, Any]:
    """In batches of which one of two replicas has three images and the other two, or one each at the end."""
    return {"x": samples(NUM_SAMPLES)[0], "batch_size": 5}


def contrastive() -> Task:
    """Views drawn for the whole batch, and a loss that compares each with those of all replicas."""
    encoder = small_encoder((6, 6, 1), width=8)
    network = with_projection_head(encoder, width=8, size=4)
    network.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    return SimCLR(network, encoder, views=RandomViews(cut_out=0.3))


def player(task: Callable[..., Task], **options: Any) -> Task:
    """A policy and a value function that learn by playing."""
    arena = Arena(lambda: gymnasium.make("CartPole-v1"), max_steps=20)
    models = policy_network((4,), 2, units=8), value_network((4,), units=8)
    for model in models:
        model.compile(keras.optimizers.Adam(0.001))
    return task(*models, arena=arena, **options)


IMAGE_SHAPE = (8, 8, 1)


def images() -> dict[str, Any]:
    """Pictures alone, without labels."""
    return {"x": np.random.default_rng(0).random((NUM_SAMPLES, *IMAGE_SHAPE), np.float32), "batch_size": 6}


def gan() -> Task:
    """The one of the zoo."""
    generator, critic = small_generator(IMAGE_SHAPE, noise_size=3), small_critic(IMAGE_SHAPE)
    generator.compile(keras.optimizers.SGD(0.1, momentum=0.5))
    critic.compile(keras.optimizers.SGD(0.05, momentum=0.5))
    return GAN(generator, critic)


def autoencoder() -> Task:
    """The variational one of the zoo."""
    model = VariationalAutoencoder(IMAGE_SHAPE, code_size=3)
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.5))
    return VariationalInference(model)


CASES = {
    "two players": TaskCase(two_players),
    "two players, accumulated": TaskCase(two_players, trainer={"accumulate": 3}),
    "contrastive": TaskCase(contrastive, images_alone),
    "contrastive, accumulated": TaskCase(contrastive, images_alone, {"accumulate": 3}),
    "a function": TaskCase(stepped, trainer={"step": a_step}),
    "distillation": TaskCase(distillation, images_and_labels),
    "distillation without labels": TaskCase(distillation, lambda: images_and_labels() | {"y": None}),
    "fine-tuning": TaskCase(partly_frozen, images_and_labels),
    "REINFORCE": TaskCase(lambda: player(Reinforce), lambda: {"x": np.arange(NUM_SAMPLES), "batch_size": 6}),
    "PPO": TaskCase(lambda: player(PPO, num_updates=2), lambda: {"x": np.arange(NUM_SAMPLES), "batch_size": 6}),
    "a GAN": TaskCase(gan, images),
    "a variational auto-encoder": TaskCase(autoencoder, images),
}


def trainer_of(case: TaskCase, *, strategy: tf.distribute.Strategy | None = None, **arguments: Any) -> Trainer:
    """A new Trainer, as another process would make it."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(7)
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        task = case.make()
    return Trainer(task, seed=3, **case.trainer, **arguments)


def seen(trainer: Trainer, history: keras.callbacks.History) -> dict[str, Any]:
    """Every variable of the task, and the history."""
    variables = trainer._task.named_variables()
    return {name: np.array(v.numpy()) for name, v in variables.items()} | {"history": history.history}

"""Tasks that are no plain compiled model, each small enough to be trained again and again."""

import contextlib
from collections.abc import Callable
from typing import Any

import attrs
import keras
import numpy as np
import tensorflow as tf

from engine import Task, Trainer, losses, replicas
from tests.helpers import samples

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


CASES = {
    "two players": TaskCase(two_players),
    "two players, accumulated": TaskCase(two_players, trainer={"accumulate": 3}),
    "a function": TaskCase(stepped, trainer={"step": a_step}),
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

"""The door: what a user gives to a Trainer, checked and made into what the rooms behind it work with.

Everything here runs before the first step. An argument that is wrong raises a `ConfigError` that says what
was given, what was expected and how to fix it.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engine.cadence import Pace
from engine.data import Source, open_source
from engine.errors import ConfigError, DataError
from engine.task import Supervised, Task


def task_of(task: Any, compile_arguments: dict[str, Any], *, run_eagerly: bool = False) -> Task:
    """The task that a user means: a Task itself, or a model, compiled here if it is not yet."""
    given = {name: value for name, value in compile_arguments.items() if value is not None}
    if isinstance(task, Task):
        if given:
            raise ConfigError(f"{', '.join(given)} cannot be given beside an engine.Task, which holds its own.")
        return task
    if not isinstance(task, keras.layers.Layer):
        raise ConfigError(
            f"Trainer got {type(task).__name__}, but trains a keras.Model, a keras.layers.Layer or an engine.Task."
        )
    model = task if isinstance(task, keras.Model) else keras.Sequential([task])
    if given and model.compiled:
        raise ConfigError(
            f"The model {model.name!r} is compiled already, and {', '.join(given)} would replace what it was "
            "compiled with, the optimizer's state included. Give them in one place only."
        )
    if given:
        model.compile(**given)
    return Supervised(model, run_eagerly=run_eagerly)


def strategy_of(model: keras.Model, strategy: tf.distribute.Strategy | None) -> tf.distribute.Strategy:
    """Where to train: where the model was made, for that is where its variables are."""
    own = model.distribute_strategy
    if strategy is not None and strategy is not own:
        raise ConfigError(
            f"strategy is a {type(strategy).__name__}, but the model {model.name!r} was not made in its scope. "
            "Make and compile the model inside `with strategy.scope():`."
        )
    return own


def check_jit(jit_compile: bool | None, *, run_eagerly: bool, strategy: tf.distribute.Strategy) -> None:
    """Refuses XLA where it cannot compile the step."""
    if jit_compile and run_eagerly:
        raise ConfigError("jit_compile=True and run_eagerly=True exclude each other. Give one of them.")
    if jit_compile and strategy.num_replicas_in_sync > 1:
        raise ConfigError(
            f"jit_compile=True does not go with the {strategy.num_replicas_in_sync} replicas of "
            f"{type(strategy).__name__}, whose sums over replicas XLA cannot compile here. Leave it out."
        )


def check_shares(source: Source, strategy: tf.distribute.Strategy) -> None:
    """Refuses to train on a batch of which a replica would get no sample, and its loss be 0 / 0."""
    replicas, smallest = strategy.num_replicas_in_sync, source.smallest_batch
    if smallest is not None and smallest < replicas:
        raise DataError(
            f"The last batch of {smallest} samples cannot be dealt to {replicas} replicas. Choose a batch_size that "
            f"leaves at least {replicas} samples for it, or leave out the last {smallest}."
        )


def pace_of(steps_per_execution: int | str | None, model: keras.Model) -> Pace:
    """How long blocks are: as asked, else as compiled if that is more than 1, else by themselves."""
    steps = steps_per_execution
    if steps is None:
        steps = model.steps_per_execution if model.steps_per_execution > 1 else "auto"
    if steps == "auto":
        return Pace()
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
        raise ConfigError(f"steps_per_execution={steps!r}: expected a number of steps, at least 1, or 'auto'.")
    return Pace(steps=int(steps), target_seconds=0.0)


def at_least(least: int, name: str, value: Any) -> int:
    """The whole number that `value` is, if it is not less than `least`."""
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or not least <= value < 1 << 63:
        raise ConfigError(f"{name}={value!r}: expected a whole number, at least {least}.")
    return int(value)


def positive_seconds(name: str, value: Any) -> float | None:
    """The seconds that `value` is, if it is a number greater than 0; None stays None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not value > 0:
        raise ConfigError(f"{name}={value!r}: expected a number of seconds, greater than 0.")
    return float(value)


def is_verbose(verbose: bool | int | str) -> bool:
    """Whether a progress bar or lines are wanted at all."""
    if verbose not in (0, 1, 2, "auto"):
        raise ConfigError(f"verbose={verbose!r}: expected 0 (silent), 1 or 'auto' (bar), or 2 (a line an epoch).")
    return verbose != 0


def steps_of(source: Source, steps: int | None, name: str) -> int | None:
    """Batches in an epoch: as asked, else as many as there are; None: unknown until the data ends.

    Raises:
        DataError: The data never ends and no number was given.
    """
    if steps is not None:
        return at_least(1, name, steps)
    if source.is_endless:
        raise DataError(
            f"The dataset is endless (it repeats without a count), and {name} is not given. Give {name}, or a "
            "count: dataset.repeat(count)."
        )
    return source.length


def open_validation(data: Any, batch_size: int | None) -> Source:
    """`validation_data`: a dataset, or (x, y) or (x, y, sample_weight)."""
    if isinstance(data, (tf.data.Dataset, tf.distribute.DistributedDataset)):
        return open_source(data)
    if not isinstance(data, (tuple, list)) or not 2 <= len(data) <= 3:
        raise ConfigError(
            f"validation_data is {type(data).__name__}, where (x, y), (x, y, sample_weight) or a dataset was expected."
        )
    return open_source(*data, batch_size=batch_size)

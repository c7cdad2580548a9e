"""The door: what a user gives to a Trainer, checked and made into what the rooms behind it work with.

Everything here runs before the first step. An argument that is wrong raises a `ConfigError` that says what
was given, what was expected and how to fix it.
"""

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engine.cadence import Pace
from engine.data import Pipelines, Source, makes_batches, open_source
from engine.errors import ConfigError, DataError
from engine.stepped import StepFunction, Stepped
from engine.supervised import Supervised
from engine.task import Task


def task_of(
    task: Any,
    compile_arguments: dict[str, Any],
    *,
    step: StepFunction | None = None,
    run_eagerly: bool = False,
    reports: dict[str, bool] | None = None,
) -> Task:
    """The task that a user means: a Task itself, or a model, compiled here if it is not yet.

    Args:
        task: As given to the Trainer.
        compile_arguments: What `model.compile` takes, None where it was not given.
        step: A function that trains the model on a batch; None: as it is compiled.
        run_eagerly: Whether steps run as plain Python.
        reports: `report_terms` and `report_gradients`.
    """
    given = {name: value for name, value in compile_arguments.items() if value is not None}
    wanted = [name for name, value in (reports or {}).items() if value]
    if isinstance(task, Task):
        if wanted:
            raise ConfigError(f"{wanted[0]}=True beside an engine.Task, which returns what it likes to be logged.")
        if step is not None:
            raise ConfigError("step was given beside an engine.Task, which has a train_step. Give one of them.")
        if given:
            raise ConfigError(f"{', '.join(given)} cannot be given beside an engine.Task, which holds its own.")
        return task
    if step is not None and not callable(step):
        raise ConfigError(f"step={step!r}: expected a function of (model, batch) that returns a dict of scalars.")
    if step is not None and wanted:
        raise ConfigError(f"{wanted[0]}=True beside a step of one's own, which returns what it likes to be logged.")
    if not isinstance(task, keras.layers.Layer):
        raise ConfigError(
            f"Trainer got {type(task).__name__}, but trains a keras.Model, a keras.layers.Layer or an engine.Task."
        )
    if getattr(task, "preprocessor", None) is not None and hasattr(task, "preprocess_samples"):
        raise ConfigError(
            f"The model {task.name!r} preprocesses samples in a fit of its own (KerasHub), which is not called here. "
            "Give it preprocessor=None, and preprocessed data: dataset.map(preprocessor)."
        )
    model = task if isinstance(task, keras.Model) else keras.Sequential([task])
    if given and model.compiled:
        raise ConfigError(
            f"The model {model.name!r} is compiled already, and {', '.join(given)} would replace what it was "
            "compiled with, the optimizer's state included. Give them in one place only."
        )
    if given:
        model.compile(**given)
    if step is not None:
        return Stepped(model, step)
    return Supervised(model, run_eagerly=run_eagerly, **(reports or {}))


def accumulation_of(accumulate: Any, task: Task) -> int:
    """How many steps go into an update, if the task can do it."""
    steps = at_least(1, "accumulate", accumulate)
    own = [part for part in task.parts().values() if getattr(part, "gradient_accumulation_steps", None)]
    if steps > 1 and own:
        raise ConfigError(
            f"accumulate={steps}, and the optimizer {own[0].name!r} has gradient_accumulation_steps="
            f"{own[0].gradient_accumulation_steps} of its own. Give one of them; accumulate also weighs a ragged last "
            "batch right."
        )
    return steps


def strategy_of(task: Task, strategy: tf.distribute.Strategy | None) -> tf.distribute.Strategy:
    """Where to train: where the model was made, for that is where its variables are."""
    model = task.model
    own = model.distribute_strategy
    for other in task.layers():
        if isinstance(other, keras.Model) and other.distribute_strategy is not own:
            raise ConfigError(
                f"The models {model.name!r} and {other.name!r} of the task were made in the scopes of two strategies. "
                "Make all of them inside one `with strategy.scope():`."
            )
    if strategy is not None and strategy is not own:
        raise ConfigError(
            f"strategy is a {type(strategy).__name__}, but the model {model.name!r} was not made in its scope. "
            "Make and compile the model inside `with strategy.scope():`."
        )
    return own


def check_jit(jit_compile: bool | str | None, *, run_eagerly: bool, strategy: tf.distribute.Strategy) -> None:
    """Refuses XLA where it cannot compile the step."""
    if jit_compile not in (True, False, None, "auto"):
        raise ConfigError(f"jit_compile={jit_compile!r}: expected True, False, None or 'auto'.")
    if jit_compile == "auto" and strategy.num_replicas_in_sync > 1:
        return  # what is measured there is no XLA
    if jit_compile and run_eagerly:
        raise ConfigError(f"jit_compile={jit_compile!r} and run_eagerly=True exclude each other. Give one of them.")
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


def warn_of_pixels(spec: Any, model: keras.Model) -> None:
    """Says so where images of uint8, pixels from 0 to 255, go straight into a layer with weights."""
    x, _, _ = keras.utils.unpack_x_y_sample_weight(spec)
    shapes = [leaf.shape for leaf in keras.tree.flatten(x) if leaf is not None and leaf.dtype == tf.uint8]
    if any(shape.rank == 4 for shape in shapes) and _weighs_first(model):
        warnings.warn(
            f"x holds images of dtype uint8, shape {tuple(shapes[0])}, and the first layer of the model {model.name!r} "
            "takes them as they are: pixels up to 255 train badly. Give x / 255.0, or begin the model with "
            "keras.layers.Rescaling(1 / 255).",
            stacklevel=3,
        )


def _weighs_first(model: keras.Model) -> bool:
    """Whether the first layer that does more than move values about is a convolution or dense."""
    if type(model).__name__ not in ("Sequential", "Functional"):
        return False  # its call may do anything
    moving = (keras.layers.InputLayer, keras.layers.Reshape, keras.layers.Flatten, keras.layers.Permute)
    first = next((layer for layer in model.layers if not isinstance(layer, moving)), None)
    weighing = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    return isinstance(first, weighing)


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
    if steps is None:
        if source.is_endless:
            raise DataError(
                f"The data is endless (it repeats without a count), and {name} is not given. Give {name}, or a "
                "count: dataset.repeat(count)."
            )
        return source.length
    if source.length is not None and source.length < steps:
        raise DataError(
            f"{name}={steps}, but the data has {source.length} batches. Give {name}={source.length} or less, or repeat "
            "the data: dataset.repeat()."
        )
    return steps


def capped(name: str, value: int | None, most: int | None) -> int | None:
    """The number, or less where Keras is set to run less (`keras.config.max_epochs()`), for debugging."""
    if not most or (value is not None and value <= most):
        return value
    warnings.warn(f"Limiting {name} to {most}, as keras.config says.", stacklevel=3)
    return most


def capped_steps(name: str, steps: int | None) -> int | None:
    """The steps asked for, checked, or fewer where `keras.config.max_steps_per_epoch()` says so."""
    return capped(name, None if steps is None else at_least(1, name, steps), keras.config.max_steps_per_epoch())


def open_validation(data: Any, batch_size: int | None, steps: int | None, pipelines: Pipelines | None = None) -> Source:
    """`validation_data`: something that makes batches; (x,), (x, y) or (x, y, sample_weight); or x alone."""
    if makes_batches(data):
        return open_source(data, pipelines=pipelines)
    if isinstance(data, (tuple, list)) and not 1 <= len(data) <= 3:
        raise ConfigError(
            f"validation_data has {len(data)} parts, where (x, y), (x, y, sample_weight) or a dataset was expected."
        )
    parts = keras.utils.unpack_x_y_sample_weight(data)
    return open_source(*parts, batch_size=batch_size, steps=steps, pipelines=pipelines)

"""Numbers along an axis: of a step, of an epoch, of the optimizer, and of the clock."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import keras
import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary

from engine.callbacks.tensorboard.event_file import Points
from engine.callbacks.tensorboard.writers import TRAIN, VALIDATION
from engine.columns import Logs
from engine.errors import ConfigError
from engine.hooks import Block

_LEAST_SECS = 1.0  # a speed is a mean over this time at least: ten blocks, so that where they end matters little


def scalars(prefix: str, logs: Logs) -> Iterator[Summary.Value]:
    """The logs as scalars; a value that is an array, entry by entry: "f1/0", "f1/1"."""
    for name, value in logs.items():
        if isinstance(value, float) or not np.ndim(value):
            yield Summary.Value(tag=prefix + name, simple_value=value)
        else:
            for i, entry in enumerate(np.ravel(value)):
                yield Summary.Value(tag=f"{prefix}{name}/{i}", simple_value=entry)


def points_of(prefix: str, block: Block, steps: range, *, every: int) -> Points:
    """The own values of those steps of a block that fall due.

    Nobody knows when each of them was done: the time that all of them took is shared out evenly.

    Args:
        prefix: In front of each tag.
        block: The steps, the last of which was done just now.
        steps: Where each stands along the axis.
        every: Steps from one that is due to the next; 0: none is.
    """
    due = slice(-steps[0] % every, None, every) if every else slice(0)
    if not steps[due]:
        return Points()
    ago_secs = np.arange(len(block))[::-1] * (block.seconds / len(block))
    tags: dict[str, list[float]] = {}
    for name, values in block.step_logs.items():
        entries = values[due].reshape(len(steps[due]), -1).T.tolist()
        tags |= {prefix + name if values.ndim == 1 else f"{prefix}{name}/{i}": own for i, own in enumerate(entries)}
    return Points(steps[due], (time.time() - ago_secs[due]).tolist(), tags)


def by_run(logs: Logs) -> dict[str, Logs]:
    """The logs of an epoch by their runs; first those of the validation, by which trainings are compared."""
    validation = {name.removeprefix("val_"): value for name, value in logs.items() if name.startswith("val_")}
    return {VALIDATION: validation, TRAIN: {name: value for name, value in logs.items() if not name.startswith("val_")}}


def batches_of(update_freq: Any) -> int:
    """Batches from one point to the next; 0: none of them is written.

    Raises:
        ConfigError: It is neither "batch" nor "epoch" nor a number of batches.
    """
    if update_freq in ("batch", "epoch"):
        return 1 if update_freq == "batch" else 0
    if isinstance(update_freq, bool) or not isinstance(update_freq, int) or update_freq < 1:
        raise ConfigError(f"update_freq={update_freq!r}: expected 'batch', 'epoch' or a number of batches.")
    return update_freq


def learning_rates(optimizer: Any) -> Logs:
    """The learning rate as it is now; of an optimizer that is several, theirs by their names; else none."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    several = getattr(optimizer, "optimizers", None)
    if several is not None:
        return {f"learning_rate_{own.name}": _number(own.learning_rate) for own in several}
    rate = getattr(optimizer, "learning_rate", None)
    return {} if rate is None else {"learning_rate": _number(rate)}


def _number(rate: Any) -> float:
    return float(keras.ops.convert_to_numpy(rate))  # float() does not take a variable of several replicas


@attrs.define(eq=False)
class Speed:
    """Steps a second; what lies between epochs does not count, nor do validations.

    Attributes:
        clock: Seconds since some time.
    """

    clock: Callable[[], float] = time.perf_counter
    _epoch_step: int = attrs.field(init=False, default=0)
    _epoch_secs: float = attrs.field(init=False, default=0.0)
    _step: int = attrs.field(init=False, default=0)
    _secs: float = attrs.field(init=False, default=0.0)
    _paused_secs: float = attrs.field(init=False, default=0.0)

    def begin(self, step: int) -> None:
        """A training begins, or goes on, at this step."""
        self._step = self._epoch_step = step
        self._secs = self._epoch_secs = self._paused_secs = self.clock()

    def begin_epoch(self, step: int) -> None:
        """Starts the clock."""
        self.go_on()
        self._epoch_step, self._epoch_secs = step, self.clock()

    def pause(self) -> None:
        """A validation begins, or an epoch is over."""
        self._paused_secs = self.clock()

    def go_on(self) -> None:
        """A validation has ended."""
        paused = self.clock() - self._paused_secs
        self._epoch_secs += paused
        self._secs += paused

    def of_steps(self, step: int) -> Logs:
        """The mean since the last time there was one to tell, if that is long enough ago."""
        now = self.clock()
        if now - self._secs < _LEAST_SECS:
            return {}
        speed = (step - self._step) / (now - self._secs)
        self._step, self._secs = step, now
        return {"steps_per_second": speed}

    def of_epoch(self, step: int) -> Logs:
        """The mean since the epoch began."""
        return {"steps_per_second": (step - self._epoch_step) / (self.clock() - self._epoch_secs)}

"""Lowers the learning rate when a value no longer improves."""

from typing import Any

import numpy as np

from engine.callbacks.monitor import Monitor, warn_of_missing
from engine.callbacks.rates import Factors, Rate, log_rates, rates_of
from engine.columns import Logs
from engine.errors import ConfigError
from engine.hooks import Callback, SavedState
from engine.hooks.callback import StepSchedule
from engine.optimizers import optimizer_of


class ReduceLROnPlateau(Callback):
    """Multiplies the learning rate by a factor when a value of the logs has not improved for some epochs.

    Unlike Keras's: it works on top of a `LearningRateSchedule`, whose rate it multiplies while the training lasts;
    "auto" knows more metrics (see `EarlyStopping`); an unknown `mode` is an error; NaN is never an improvement.

    Args:
        monitor: Name in the logs.
        factor: What the rate is multiplied by, from 0 on and less than 1.
        patience: Epochs without improvement after which the rate is lowered.
        verbose: 1: says so.
        mode: "min", "max" or "auto".
        min_delta: An improvement is more than this.
        cooldown: Epochs after a lowering that do not count.
        min_lr: The rate is not lowered below this; a schedule may go on below it by itself.

    Attributes:
        best: The best value yet; None: there was none.
        wait: Epochs since the last improvement or lowering.
        cooldown_counter: Epochs yet to come that do not count.

    Raises:
        ConfigError: `mode` is unknown, `factor` out of its range; before step 1: "auto" cannot tell the direction.

    Examples:
        >>> trainer.fit(x, y, validation_split=0.1, callbacks=[ReduceLROnPlateau(factor=0.5, patience=3)])
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= factor < 1:
            raise ConfigError(f"factor={factor!r}: expected 0 <= factor < 1, so that the learning rate is lowered.")
        self.monitor, self.factor, self.patience, self.verbose = monitor, factor, patience, verbose
        self.cooldown, self.min_lr = cooldown, min_lr
        self._given = Monitor(monitor, mode, min_delta)
        self._factors = Factors()
        self._reset()

    def _reset(self) -> None:
        self.best: float | None = None
        self.wait, self.cooldown_counter = 0, 0
        self._monitor = self._given
        self._has_warned = False

    def step_schedules(self) -> list[StepSchedule]:
        """None; puts a factor on the schedule that the optimizer may have, before the step is traced."""
        self._factors.open(self.model)
        return []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begins anew, and finds out which way the monitor gets better."""
        self._factors.open(self.model)
        self._reset()
        if self.in_trainer:  # under model.fit there are no metrics before the first batch
            self._monitor = self._monitor.resolved(self.model)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Puts a factor on the schedule of an optimizer that another callback has compiled the model with."""
        self._factors.open(self.model)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Adds the rate to the logs, and lowers it if it is time."""
        log_rates(optimizer_of(self.model), logs)
        self._monitor = self._monitor.resolved(self.model)
        value = self._monitor.value(logs or {})
        if value is None:
            self._has_warned = self._has_warned or warn_of_missing(self, [self.monitor], logs or {})
            return
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if self._monitor.is_improvement(value, self.best):
            self.best, self.wait = value, 0
        elif not self.in_cooldown():
            self.wait += 1
            if self.wait >= self.patience and self._reduce(epoch):
                self.cooldown_counter, self.wait = self.cooldown, 0

    def in_cooldown(self) -> bool:
        """Whether this epoch does not count yet."""
        return self.cooldown_counter > 0

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Takes the factor out again."""
        self._factors.close()

    def forget_run(self) -> None:
        """Takes the factor out again where an error came before `on_train_begin`."""
        super().forget_run()
        if not self.in_trainer:
            self._factors.close()

    def get_state(self) -> dict[str, Any]:
        """The best value, the counters and the factors; rates are variables of the optimizer."""
        counters = {"best": self.best, "wait": self.wait, "cooldown_counter": self.cooldown_counter}
        return counters | {"factors": self._factors.get()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on where another training was."""
        saved = SavedState.of(self, state)
        best, factors = saved.number_or_none("best"), self._factors.read(saved)
        wait, cooldown_counter = saved.count("wait"), saved.count("cooldown_counter")
        self.best, self.wait, self.cooldown_counter = best, wait, cooldown_counter
        self._factors.set(factors)

    def _reduce(self, epoch: int) -> bool:
        """Whether any rate could be lowered; all are tried."""
        lowered = [self._reduce_one(rate, epoch) for rate in rates_of(optimizer_of(self.model))]
        return any(lowered)

    def _reduce_one(self, rate: Rate, epoch: int) -> bool:
        old = rate.effective()
        if not old > np.float32(self.min_lr):  # as float32 knows it: the rate is stored as such
            return False
        new = max(old * self.factor, self.min_lr)
        rate.set(rate.get() * (new / old) if rate.is_factor else new)
        if self.verbose > 0:
            owner = f" {rate.owner}" if rate.owner else ""
            print(f"\nEpoch {epoch + 1}: ReduceLROnPlateau reducing{owner} learning rate to {new}.", flush=True)
        return True

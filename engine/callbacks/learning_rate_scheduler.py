"""Sets the learning rate from a function, for each epoch or for each step."""

import inspect
import math
from collections.abc import Callable
from typing import Any

from engine.callbacks.rates import Factors, log_rates, rates_of
from engine.columns import Logs
from engine.errors import ConfigError
from engine.hooks import Block, Callback, SavedState
from engine.hooks.callback import StepSchedule
from engine.optimizers import optimizer_of


class LearningRateScheduler(Callback):
    """Sets the learning rate to what a function says.

    Unlike Keras's: there is a form for each step, which a Trainer assigns within its compiled loop; the function's
    signature decides how it is called, so that a TypeError from inside it comes out; and it works on top of a
    `LearningRateSchedule`. There what it gives is a factor: rate = optimizer's schedule * factor, and the current
    factor is what it gets in place of the rate. The optimizer has its own schedule again when the training is over.

    A `MultiOptimizer` has a rate for each of its optimizers; each is asked for.

    Args:
        schedule: For each epoch, `schedule(epoch, rate)` or `schedule(epoch)`, epochs counted from 0: called with the
            current rate if it takes a second argument. With `per_step`, `schedule(step)`, steps counted from 0 over
            the whole run, under `model.fit` over the fit. Returns the rate, a number from 0 on.
        verbose: 1: prints the rate of each epoch.
        per_step: Whether each step has a rate of its own. Under `model.fit`, each call of the train function.

    Raises:
        ConfigError: `schedule` cannot be called like that, or, while training, returns no such number.

    Examples:
        >>> trainer.fit(x, y, callbacks=[LearningRateScheduler(lambda epoch, rate: rate * 0.9)])
        >>> trainer.fit(x, y, callbacks=[LearningRateScheduler(warmup_cosine(1e-3, 500, 10_000), per_step=True)])
    """

    def __init__(self, schedule: Callable[..., Any], verbose: int = 0, *, per_step: bool = False) -> None:
        super().__init__()
        self.schedule, self.verbose, self.per_step = schedule, verbose, per_step
        self._takes_rate = not per_step and _takes(schedule, 2)
        if not self._takes_rate and not _takes(schedule, 1):
            forms = "schedule(step)" if per_step else "schedule(epoch, rate) or schedule(epoch)"
            raise ConfigError(f"schedule={schedule!r} cannot be called as {forms}. Give a function that can.")
        self._factors = Factors()
        self._steps_before, self._steps = 0, 0  # of this fit, under model.fit alone

    def step_schedules(self) -> list[StepSchedule]:
        """With `per_step`, each optimizer's rate; puts a factor on the schedule that the optimizer may have."""
        self._factors.open(self.model)
        rates = rates_of(optimizer_of(self.model)) if self.per_step else []
        return [(rate.variable, self._rate_of_step) for rate in rates]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begins anew."""
        self._factors.open(self.model)
        self._steps_before, self._steps = 0, 0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Sets the rate of the epoch; says it."""
        self._factors.open(self.model)  # another callback may have compiled the model anew
        if self.per_step and not self.verbose:
            return
        for rate in rates_of(optimizer_of(self.model)):
            value = self._rate_of_epoch(epoch, rate.get())
            if not self.per_step:
                rate.set(value)
            if self.verbose > 0:
                owner = f" {rate.owner}" if rate.owner else ""
                told = f"LearningRateScheduler setting{owner} learning rate to {value}."
                print(f"\nEpoch {epoch + 1}: {told}", flush=True)

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Under `model.fit`, sets the rate of the step; a Trainer does it itself."""
        if self.per_step and not self.in_trainer:
            for rate in rates_of(optimizer_of(self.model)):
                rate.set(self._rate_of_step(self._steps_before + batch))

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Counts the steps."""
        # Keras counts on to the end of an execution that the end of the data has cut.
        self._steps = self._steps_before + min(batch + 1, self.params.get("steps") or batch + 1)

    def on_train_block_end(self, block: Block) -> None:
        """Counts the steps."""
        self._steps = self._steps_before + block.batches[-1] + 1

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Adds the rate to the logs."""
        self._steps_before = self._steps
        log_rates(optimizer_of(self.model), logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Takes the factor out again."""
        self._factors.close()

    def forget_run(self) -> None:
        """Takes the factor out again where an error came before `on_train_begin`."""
        super().forget_run()
        if not self.in_trainer:
            self._factors.close()

    def get_state(self) -> dict[str, Any]:
        """The factors and, under `model.fit`, the steps done; rates are variables of the optimizer."""
        return {"factors": self._factors.get(), "steps": self._steps}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on where another training was."""
        saved = SavedState.of(self, state)
        steps, factors = saved.count("steps"), self._factors.read(saved)
        self._steps_before = self._steps = steps
        self._factors.set(factors)

    def _rate_of_epoch(self, epoch: int, rate: float) -> float:
        if self.per_step:
            return self._rate_of_step(self.step if self.in_trainer else self._steps_before)
        return _checked(self.schedule(epoch, rate) if self._takes_rate else self.schedule(epoch), f"epoch {epoch}")

    def _rate_of_step(self, step: int) -> float:
        return _checked(self.schedule(step), f"step {step}")


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many arguments."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # some that are written in C have none
        return count == 1
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _checked(rate: Any, when: str) -> float:
    try:
        number = math.nan if isinstance(rate, str) else float(rate)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ConfigError(f"schedule gave {rate!r} for {when}: expected a learning rate, a finite number from 0 on.")
    return number

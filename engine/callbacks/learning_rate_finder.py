"""A learning rate to begin with, from a short training in which it grows step by step."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.callbacks.rates import Rate, rates_of
from engine.columns import Logs
from engine.errors import ConfigError
from engine.hooks import Callback, StepSchedule, Watch
from engine.optimizers import optimizer_of
from engine.state import State

_SMOOTHING = 0.9  # a loss of the curve is the mean of about the last ten
_EDGE = 5  # points at the curve's begin that are too few to be smoothed


class LearningRateFinder(Callback):
    """Finds a learning rate: trains for some steps, the rate growing from step to step, and looks at the losses.

    The rate to take is where the loss falls the steepest (Smith, "Cyclical Learning Rates for Training Neural
    Networks", arXiv 1506.01186, section 3.3). The fit is a try and nothing of it remains: weights, optimizer, metrics,
    seeds and random generators are afterwards as they were before, to the bit. The rate is set inside the compiled
    loop.

    Args:
        min_rate: Of the first step.
        max_rate: Of the last step.
        steps: How many steps at most, at least 20.
        stop_factor: It stops where the smoothed loss is so many times the smallest one, or no number.

    Attributes:
        rates: Of each step, float64, (steps,).
        losses: Of each step, float64, (steps,).

    Raises:
        ConfigError: The numbers do not fit, or the optimizer has a LearningRateSchedule or several rates.

    Examples:
        >>> finder = LearningRateFinder()
        >>> rate = finder.search(trainer.fit, x, y, batch_size=32)
        >>> finder.plot("rates.png")
        >>> model.optimizer.learning_rate = rate
    """

    leaves_no_trace = True
    watch = Watch(halts=True)

    def __init__(
        self, min_rate: float = 1e-7, max_rate: float = 10.0, steps: int = 100, *, stop_factor: float = 4.0
    ) -> None:
        super().__init__()
        if not 0 < min_rate < max_rate:
            raise ConfigError(f"min_rate={min_rate}, max_rate={max_rate}: expected 0 < min_rate < max_rate.")
        if steps < 20:
            raise ConfigError(f"steps={steps}: expected at least 20, so that there is a curve to look at.")
        self.min_rate, self.max_rate, self.steps, self.stop_factor = min_rate, max_rate, steps, stop_factor
        self._rates: list[float] = []
        self._losses: list[float] = []
        self._means = _Means()
        self._state: State | None = None
        self._rate: Rate | None = None

    @property
    def rates(self) -> NDArray[np.float64]:
        """The learning rate of each step, float64, (steps,)."""
        return np.array(self._rates)

    @property
    def losses(self) -> NDArray[np.float64]:
        """The loss of each step, float64, (steps,)."""
        return np.array(self._losses)

    def search(self, fit: Callable[..., Any], *data: Any, **arguments: Any) -> float:
        """Runs a fit with this callback alone, as long as it needs.

        Args:
            fit: `trainer.fit` or `model.fit`.
            data: Its data: x and y, or a dataset.
            arguments: More of its arguments, such as `batch_size`.

        Returns:
            The suggestion.
        """
        try:
            fit(*data, **({"epochs": self.steps, "verbose": 0} | arguments), callbacks=[self])
        finally:
            self._undo()  # model.fit closes no callback after an error
        return self.suggestion

    @property
    def suggestion(self) -> float:
        """The learning rate where the smoothed loss falls the steepest, before its minimum.

        Raises:
            ConfigError: The search has seen too few steps.
        """
        smooth = self._smooth()
        end = int(np.argmin(smooth)) + 1 if len(smooth) else 0
        if end <= _EDGE + 1:
            raise ConfigError(
                f"After {len(smooth)} steps there is no falling loss to judge by. Search again with a smaller "
                f"min_rate than {self.min_rate:g}, more steps, or more epochs."
            )
        slopes = np.gradient(smooth[:end], np.log(self.rates[:end]))
        return float(self.rates[_EDGE + int(np.argmin(slopes[_EDGE:]))])

    def plot(self, path: str | Path) -> Path:
        """Draws the losses against the rates, and the suggestion.

        Args:
            path: The picture to write; its ending chooses the format.

        Returns:
            The path.
        """
        from matplotlib.figure import Figure  # here: 0.3 s that only a plot needs

        figure = Figure(figsize=(9, 4.5), layout="constrained")
        axes, smooth = figure.add_subplot(), self._smooth()
        axes.plot(self.rates, self.losses, color="tab:blue", alpha=0.35, linewidth=0.8, label="loss of each step")
        axes.plot(self.rates, smooth, color="tab:blue", linewidth=1.8, label="smoothed")
        axes.axvline(self.suggestion, color="tab:orange", label=f"suggestion: {self.suggestion:.2g}")
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss", title="Where does the loss fall the steepest?")
        finite = smooth[np.isfinite(smooth)]
        low = float(min(finite.min(), self.losses.min(where=np.isfinite(self.losses), initial=np.inf)))
        high = float(finite[: _EDGE + 1].max())
        axes.set_ylim(low - 0.2 * (high - low), high + 0.6 * (high - low))
        axes.legend(frameon=False)
        figure.savefig(path, dpi=120)
        return Path(path)

    def step_schedules(self) -> list[StepSchedule]:
        """The learning rate, growing from step to step."""
        return [(self._only_rate().variable, self._rate_of)]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begins anew; under `model.fit`, keeps what must be put back."""
        self._rates, self._losses, self._means, self._rate = [], [], _Means(), self._only_rate()
        self._state = None if self.in_trainer else State.of(self.variables())

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Under `model.fit`, begins the means of which the losses are taken."""
        self._means = _Means()

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Under `model.fit`, sets the rate."""
        if not self.in_trainer and self._rate is not None:
            self._rate.set(self._rate_of(len(self._losses)))

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Keeps the loss, and ends the search where it is lost."""
        if self.model.stop_training:
            return  # the rest of a block
        logs = logs or {}
        loss = float(self.step_logs["loss"]) if self.in_trainer else self._means.last(logs["loss"], batch + 1)
        self._rates.append(self._rate_of(len(self._losses)))
        self._losses.append(loss)
        smooth = self._smooth()
        is_lost = not math.isfinite(loss) or (len(smooth) > _EDGE and smooth[-1] > self.stop_factor * smooth.min())
        self.model.stop_training = is_lost or len(self._losses) >= self.steps

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Under `model.fit`, puts everything back."""
        self._undo()

    def _undo(self) -> None:
        if self._state is not None:
            self._state.restore()
        self._state = self._rate = None

    def _rate_of(self, step: int) -> float:
        share = min(step / (self.steps - 1), 1.0)
        return float(self.min_rate * (self.max_rate / self.min_rate) ** share)

    def _only_rate(self) -> Rate:
        rates = rates_of(optimizer_of(self.model))
        if len(rates) > 1 or rates[0].is_factor:
            raise ConfigError(
                "LearningRateFinder needs an optimizer with one learning rate that can be set, but "
                f"{type(optimizer_of(self.model)).__name__} has a LearningRateSchedule or several rates. Search with a "
                "plain one, such as Adam(1e-3)."
            )
        return rates[0]

    def _smooth(self) -> NDArray[np.float64]:
        """The losses as a moving average without the bias of its begin (Kingma and Ba, arXiv 1412.6980, section 3)."""
        mean, found = 0.0, []
        for i, loss in enumerate(self._losses, start=1):
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
            found.append(mean / (1 - _SMOOTHING**i))
        return np.array(found)


class _Means:
    """Finds the last value in a running mean, which is all that `model.fit` tells."""

    def __init__(self) -> None:
        self._total = 0.0

    def last(self, mean: float, count: int) -> float:
        """The value that has moved the mean of `count` values to `mean`."""
        before, self._total = self._total, mean * count
        return self._total - before

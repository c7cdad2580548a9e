"""The values of every single batch, kept and drawn."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.columns import Logs
from engine.errors import ConfigError
from engine.hooks import Callback

_TREND_WINDOWS = 20  # the smoothed line of a plot looks at this part of the curve at once


class LossHistory(Callback):
    """Keeps the loss and metrics of each batch of a training: its own values, not the running means.

    Under `model.fit`, which does not hand them over, it keeps what there is: the running means.

    Attributes:
        batches: Name -> the value of each batch, in order, over all epochs.
        epochs: The epoch of each batch, from 0.
        validation: Name -> (batches done, value) of each validation, with Keras's `val_` in front of the names.

    Examples:
        >>> losses = LossHistory()
        >>> trainer.fit(x, y, epochs=2, callbacks=[losses])
        >>> losses.losses.shape  # one value for every batch
        (94,)
        >>> losses.plot("loss.png")
    """

    def __init__(self) -> None:
        super().__init__()
        self.batches: dict[str, list[float]] = {}
        self.epochs: list[int] = []
        self.validation: dict[str, list[tuple[int, float]]] = {}
        self._epoch = 0
        self._is_training = False

    @property
    def losses(self) -> NDArray[np.float64]:
        """The loss of each batch, float64, (batches,)."""
        return np.asarray(self.batches.get("loss", []))

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Forgets an earlier training."""
        self.batches, self.epochs, self.validation, self._is_training = {}, [], {}, True

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Notes which epoch the next batches belong to."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Keeps the batch's values."""
        for name, value in (self.step_logs or logs or {}).items():
            self.batches.setdefault(name, []).append(value)
        self.epochs.append(self._epoch)

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Keeps a validation's values."""
        if self._is_training:
            for name, value in (logs or {}).items():
                self.validation.setdefault(f"val_{name}", []).append((len(self.epochs), value))

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Takes evaluations from now on for evaluations."""
        self._is_training = False

    def plot(self, path: str | Path, name: str = "loss") -> Path:
        """Draws one value of each batch, its trend, the epochs' ends and the validation.

        Args:
            path: The picture to write; its ending chooses the format.
            name: Which of the values, "loss" or a metric.

        Returns:
            The path.

        Raises:
            ConfigError: No batch had a number of this name.
            ModuleNotFoundError: matplotlib is not installed (`pip install keras-training-engine[reports]`).
        """
        from matplotlib.figure import Figure  # here: 0.3 s that only a plot needs

        if name not in self.batches:
            raise ConfigError(
                f"name={name!r}: no batch had such a value. There are {', '.join(map(repr, self.batches)) or 'none'}."
            )
        values = np.asarray(self.batches[name])
        if values.ndim > 1:
            raise ConfigError(f"name={name!r} is an array of shape {values.shape[1:]} in each batch: no single curve.")
        steps = np.arange(1, len(values) + 1)
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for end in np.flatnonzero(np.diff(self.epochs)) + 1:
            axes.axvline(float(end), color="0.85", linewidth=0.8, zorder=0)
        axes.plot(steps, values, color="tab:blue", alpha=0.35, linewidth=0.8, label=f"{name} of each batch")
        axes.plot(steps, _trend(values), color="tab:blue", linewidth=1.8, label="trend")
        if validated := self.validation.get(f"val_{name}"):
            axes.plot(*zip(*validated, strict=True), "o-", color="tab:orange", markersize=4, label="validation")
        axes.set(xlabel="batch", ylabel=name, title=f"{name}: {len(values)} batches, {self.epochs[-1] + 1} epochs")
        axes.set_xlim(0, len(values) + 1)
        if name == "loss" and values.min() > 0:
            axes.set_yscale("log")
        axes.legend(frameon=False)
        figure.savefig(path, dpi=120)
        return Path(path)


def _trend(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The median of the batches around each: it neither lags behind a falling curve nor follows a spike."""
    window = min(len(values), max(3, len(values) // _TREND_WINDOWS | 1))
    padded = np.pad(values, (window // 2, window - 1 - window // 2), mode="reflect")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, window), axis=-1)

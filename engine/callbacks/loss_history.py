"""The values of every single batch, kept and drawn."""

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.callbacks.atomic import replacing
from engine.callbacks.curve import draw
from engine.callbacks.filepath import Filepath
from engine.callbacks.steps import Steps
from engine.columns import Logs
from engine.errors import ConfigError
from engine.hooks import Block, Callback, SavedState


class LossHistory(Callback):
    """Keeps the loss and metrics of each batch of a training: its own values, not the running means.

    Under `model.fit`, which does not hand them over, it keeps what there is: the running means. A resumed run has the
    batches of the whole run.

    Args:
        plot: A picture of the loss to draw at the end of every epoch; its ending chooses the format. It is replaced as
            a whole each time, or with `{epoch}` in its name, counted from 1, there is one for each epoch. None: none.

    Attributes:
        batches: Name -> the value of each batch, in order, over all epochs.
        epochs: The epoch of each batch, from 0.
        indices: The index of each batch in its epoch, from 0.
        steps: How many steps of the run were done after each batch.
        validation: Name -> (batches done, value) of each validation, with Keras's `val_` in front of the names.

    Raises:
        ConfigError: `plot` has another placeholder than `{epoch}`.

    Examples:
        >>> losses = LossHistory(plot="runs/loss.png")
        >>> trainer.fit(x, y, epochs=2, callbacks=[losses])
        >>> losses.losses.shape  # one value for every batch
        (94,)
        >>> losses.to_frame().columns.tolist()
        ['epoch', 'batch', 'step', 'accuracy', 'loss']
    """

    def __init__(self, plot: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self.batches: dict[str, list[float]] = {}
        self.epochs: list[int] = []
        self.indices: list[int] = []
        self.steps: list[int] = []
        self.validation: dict[str, list[tuple[int, float]]] = {}
        self._epoch = 0
        self._counted = Steps()
        self._is_training = False
        self._picture = None if plot is None else Filepath(os.fspath(plot), "plot")
        if self._picture is not None and not self._picture.placeholders <= {"epoch"}:
            raise ConfigError(f"plot={os.fspath(plot)!r}: expected no placeholder but {{epoch}}.")  # type: ignore[arg-type]

    @property
    def losses(self) -> NDArray[np.float64]:
        """The loss of each batch, float64, (batches,)."""
        return np.asarray(self.batches.get("loss", []))

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Forgets an earlier training."""
        self.batches, self.epochs, self.indices, self.steps, self.validation = {}, [], [], [], {}
        self._counted, self._is_training = Steps(), True
        if self._picture is not None:
            importlib.import_module("matplotlib")  # to fail now, rather than when an epoch is done
            self._picture.directory.mkdir(parents=True, exist_ok=True)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Notes which epoch the next batches belong to."""
        self._epoch = epoch
        self._counted.begin_epoch()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Keeps the batch's values."""
        for name, value in (self.step_logs or logs or {}).items():
            self.batches.setdefault(name, []).append(value)
        self.epochs.append(self._epoch)
        self.indices.append(batch)
        self.steps.append(self.step or self._counted.count(batch, self.params.get("steps")))

    def on_train_block_end(self, block: Block) -> None:
        """Keeps the values of a block of batches."""
        for name, values in block.step_logs.items():
            self.batches.setdefault(name, []).extend(_listed(values))
        self.epochs.extend([self._epoch] * len(block))
        self.indices.extend(block.batches)
        self.steps.extend(block.steps)

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Keeps a validation's values."""
        if self._is_training:
            for name, value in (logs or {}).items():
                self.validation.setdefault(f"val_{name}", []).append((len(self.epochs), value))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Draws the picture."""
        if self._picture is not None:
            self.plot(self._picture.fill({"epoch": epoch + 1}))

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Takes evaluations from now on for evaluations."""
        self._is_training = False

    def get_state(self) -> dict[str, Any]:
        """All batches and validations, as arrays."""
        state = {name: np.asarray(getattr(self, name), np.int64) for name in ("epochs", "indices", "steps")}
        for name, values in self.batches.items():
            state[f"batches/{name}"] = np.asarray(values, np.float64)
        for name, validated in self.validation.items():
            state[f"validated_at/{name}"] = np.asarray([batches for batches, _ in validated], np.int64)
            state[f"validation/{name}"] = np.asarray([value for _, value in validated], np.float64)
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes up the batches and validations of a run that goes on."""
        saved = SavedState.of(self, state)
        epochs, indices, steps = (_whole(saved, name).tolist() for name in ("epochs", "indices", "steps"))
        if not len(epochs) == len(indices) == len(steps):
            raise saved.error(f"holds {len(epochs)}, {len(indices)} and {len(steps)} batches", "the same three times")
        batches = {name: _listed(saved.array(f"batches/{name}", np.float64)) for name in saved.under("batches")}
        validation = {
            name: (_whole(saved, f"validated_at/{name}"), saved.array(f"validation/{name}", np.float64))
            for name in saved.under("validation")
        }
        self.epochs, self.indices, self.steps, self.batches = epochs, indices, steps, batches
        self.validation = {
            name: list(zip(at.tolist(), _listed(values), strict=True)) for name, (at, values) in validation.items()
        }

    def to_frame(self) -> Any:
        """The batches as a table.

        Returns:
            A `pandas.DataFrame`, a row for each batch: epoch and batch, counted from 0, step, counted from 1, and the
            values, sorted by name; those of an array are `name/0`, `name/1` and so on.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")  # here: only a table needs it
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "to_frame() makes a pandas.DataFrame: pip install pandas.", name="pandas"
            ) from error
        columns: dict[str, Any] = {"epoch": self.epochs, "batch": self.indices, "step": self.steps}
        for name, values in sorted(self.batches.items()):
            table = np.asarray(values).reshape(len(values), -1)
            is_scalar = np.ndim(values[0]) == 0
            columns |= {name if is_scalar else f"{name}/{i}": column for i, column in enumerate(table.T)}
        return pandas.DataFrame(columns)

    def plot(self, path: str | Path, name: str = "loss") -> Path:
        """Draws one value of each batch, its trend, the epochs' ends and the validation.

        Args:
            path: The picture to write, as a whole or not at all; its ending chooses the format.
            name: Which of the values, "loss" or a metric.

        Returns:
            The path.

        Raises:
            ConfigError: No batch had a number of this name.
            ModuleNotFoundError: matplotlib is not installed (`pip install keras-training-engine[reports]`).
        """
        if name not in self.batches:
            raise ConfigError(
                f"name={name!r}: no batch had such a value. There are {', '.join(map(repr, self.batches)) or 'none'}."
            )
        values = np.asarray(self.batches[name])
        if values.ndim > 1:
            raise ConfigError(f"name={name!r} is an array of shape {values.shape[1:]} in each batch: no single curve.")
        with replacing(Path(path)) as temporary:
            draw(temporary, name, values, epochs=self.epochs, validated=self.validation.get(f"val_{name}", []))
        return Path(path)


def _listed(values: NDArray[Any]) -> list[Any]:
    """One entry a batch: a float, or an array."""
    return values.tolist() if values.ndim == 1 else list(values)


def _whole(saved: SavedState, name: str) -> NDArray[Any]:
    return saved.array(name, np.int64, ndim=1)

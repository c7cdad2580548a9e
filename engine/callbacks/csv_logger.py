"""The values of each epoch, or of each step, as a CSV file."""

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine.callbacks.csv_table import CsvTable
from engine.callbacks.steps import Steps
from engine.columns import Logs
from engine.errors import ConfigError
from engine.hooks import Block, Callback, SavedState


class CSVLogger(Callback):
    """Writes a row of values for each epoch, or for each step.

    | `by` | columns |
    |---|---|
    | "epoch" | epoch, and the logs of the epoch, sorted by name |
    | "batch" | epoch, batch, step, and the step's own values; under `model.fit` the running means |

    Epochs and batches count from 0, steps from 1 over the whole run. A row is given to the system as soon as its hook
    is called: a killed process loses at most the block of steps it was at. A resumed run cuts the file back to where
    its checkpoint was, so that every row stands there once.

    Unlike Keras's: a value that comes later than the first row, as with `validation_freq=2`, gets a column when it
    comes, where Keras guesses a `val_` column for each name and drops what it did not guess; the directory is made if
    there is none; an old file is replaced when there is a first row; `append=True` looks at what it appends to.

    Args:
        filename: The file.
        separator: One character between two values.
        append: True: writes below what the file holds. False: replaces it.
        by: "epoch" or "batch".

    Raises:
        ConfigError: `separator` or `by` is neither; when training begins: the file to append to has other columns.

    Examples:
        >>> trainer.fit(x, y, callbacks=[CSVLogger("runs/epochs.csv"), CSVLogger("runs/steps.csv", by="batch")])
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        separator: str = ",",
        append: bool = False,
        *,
        by: Literal["epoch", "batch"] = "epoch",
    ) -> None:
        super().__init__()
        if by not in ("epoch", "batch"):
            raise ConfigError(f"by={by!r}: expected 'epoch' or 'batch'.")
        if not isinstance(separator, str) or len(separator) != 1:
            raise ConfigError(f"separator={separator!r}: expected one character.")
        self.filename = Path(filename)
        self.separator = separator
        self.append = append
        self._lead = ("epoch",) if by == "epoch" else ("epoch", "batch", "step")
        self._table: CsvTable | None = None
        self._must_check = False
        self._epoch = 0
        self._steps = Steps()
        if by == "batch":
            # Only then: a listener has the values of every step fetched.
            self.on_train_block_end = self._write_block  # type: ignore[method-assign]
            self.on_train_batch_end = self._write_batch  # for `model.fit`

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Opens the file."""
        self._close()  # after an error under `model.fit`, nobody else did
        self._table = CsvTable.open(self.filename, self.separator, self._lead, append=self.append)
        self._must_check = self._table.names is not None
        self._steps = Steps()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch
        self._steps.begin_epoch()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Writes the epoch's row."""
        if "step" not in self._lead:
            self._write((epoch,), logs or {})

    def on_exception(self, error: BaseException) -> None:
        """Keeps an old file whose place no row has taken: it may be of the run that was to be resumed."""
        if self._table is not None:
            self._table.keep()

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Closes the file."""
        self._close()

    def get_state(self) -> dict[str, Any]:
        """How much of the file there is."""
        if self._table is None:
            return {}
        self._table.sync()  # or a power cut could leave a checkpoint that is ahead of its log
        return {"names": self._table.names, "rows": self._table.rows}

    def set_state(self, state: dict[str, Any]) -> None:
        """Cuts the file back to what there was of it; leaves that of a run that is over alone."""
        if self._table is None or not state:
            return
        saved = SavedState.of(self, state)
        rows, names = saved.count("rows"), saved.texts_or_none("names")
        if names is None:
            self._table.discard()
            return
        self._table.rewrite(names, rows)
        self._must_check = False
        if self._table.rows < rows:
            warnings.warn(
                f"{self.filename} holds {self._table.rows} of the {rows} rows that were written before the "
                "checkpoint this run goes on from. The others are lost.",
                stacklevel=2,
            )

    def _write_batch(self, batch: int, logs: Logs | None = None) -> None:
        counted = self._steps.count(batch, self.params.get("steps"))
        self._write((self._epoch, batch, self.step or counted), self.step_logs or logs or {})

    def _write_block(self, block: Block) -> None:
        leads = [(self._epoch, *lead) for lead in zip(block.batches, block.steps, strict=True)]
        values = block.step_logs.items()
        rows = {name: own.tolist() if own.ndim == 1 else list(map(_written, own)) for name, own in values}
        self._write_rows(leads, rows)

    def _write(self, lead: tuple[int, ...], values: Logs) -> None:
        self._write_rows([lead], {name: [_written(value)] for name, value in values.items()})

    def _write_rows(self, leads: Sequence[tuple[int, ...]], columns: dict[str, list[Any]]) -> None:
        assert self._table is not None
        if self._must_check:
            self._check_columns(self._table.names or [], columns)
        self._table.write(leads, columns)

    def _check_columns(self, names: list[str], values: Iterable[str]) -> None:
        """Refuses to append to another training's file; columns of a validation may come and go."""
        self._must_check = False
        expected, given = ({name for name in some if not name.startswith("val_")} for some in (names, values))
        if expected != given:
            raise ConfigError(
                f"append=True, but {str(self.filename)!r} has the columns {', '.join(sorted(expected))}, and this "
                f"training {', '.join(sorted(given))}. Give another file, or append=False to replace this one."
            )

    def _close(self) -> None:
        if self._table is not None:
            self._table.close()
            self._table = None


def _written(value: Any) -> Any:
    """A value as Keras writes it: an array as its entries, in brackets and quotes."""
    if isinstance(value, str) or not isinstance(value, Iterable) or np.ndim(value) == 0:  # type: ignore[arg-type]
        return value
    return f'"[{", ".join(map(str, value))}]"'

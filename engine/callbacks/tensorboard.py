"""Curves of every batch and every epoch, training beside validation, and the graph of a step."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from engine.columns import Logs
from engine.errors import ConfigError
from engine.hooks import Callback

_FLUSH_SECONDS = 10  # how old what TensorBoard shows of a running epoch may be


class TensorBoard(Callback):
    """Writes what TensorBoard shows: scalars against the global step, and the graph of operations.

    | tag | run | x axis |
    |---|---|---|
    | `batch_loss`, `batch_<metric>` | train | step of the run: that batch's own value |
    | `batch_loss`, `batch_<metric>` | validation | step of the run at which it was validated: the mean |
    | `validation_batch_loss`, `validation_batch_<metric>` | validation | batch, counted over all validations |
    | `epoch_loss`, `epoch_<metric>` | train, validation | epoch |
    | `epoch_learning_rate` | train | epoch |

    Both runs use the same tags, so that their curves lie in one chart. Look at them with
    `tensorboard --logdir LOG_DIR`. Under `model.fit` the batch values are running means, and there is no graph.

    Args:
        log_dir: Where the runs `train` and `validation` are written, a folder each.
        update_freq: "batch": scalars of every batch and epoch; "epoch": of epochs only.
        write_graph: Whether to write the graph of one train step.

    Raises:
        ConfigError: `update_freq` is neither of the two.

    Examples:
        >>> trainer.fit(x, y, validation_split=0.1, callbacks=[TensorBoard("runs/logs")])
    """

    def __init__(self, log_dir: str | Path = "logs", *, update_freq: str = "batch", write_graph: bool = True) -> None:
        super().__init__()
        if update_freq not in ("batch", "epoch"):
            raise ConfigError(f"update_freq={update_freq!r}: expected 'batch' or 'epoch'.")
        self._log_dir = Path(log_dir)
        self._writes_batches = update_freq == "batch"
        self._writes_graph = write_graph
        self._writers: dict[str, EventFileWriter] = {}
        self._test_batches = 0
        self._train_batches = 0
        self._is_training = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Writes the graph."""
        self._is_training, self._train_batches, self._test_batches = True, 0, 0
        if self._writes_graph and self.step_graph is not None:
            graph = self.step_graph.as_graph_def().SerializeToString()
            self._writer("train").add_event(Event(wall_time=time.time(), graph_def=graph))

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Writes the batch's own values."""
        self._train_batches += 1
        if self._writes_batches:
            self._write("train", "batch_", self.step_logs or logs, self.step or self._train_batches)

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Writes the values of a batch of validation."""
        self._test_batches += 1
        if self._writes_batches and self._is_training:
            self._write("validation", "validation_batch_", self.step_logs or logs, self._test_batches)

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Writes the means of a validation beside the batches of the training."""
        if self._writes_batches and self._is_training:
            self._write("validation", "batch_", logs, self.step or self._train_batches)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Writes the epoch's values, those of the validation into a run of their own."""
        logs = dict(logs or {})
        validation = {name.removeprefix("val_"): logs.pop(name) for name in list(logs) if name.startswith("val_")}
        rates = _learning_rate(getattr(self.model, "optimizer", None))
        self._write("train", "epoch_", rates | logs, epoch)
        self._write("validation", "epoch_", validation, epoch)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers, self._is_training = {}, False

    def _write(self, run: str, prefix: str, values: Logs | None, step: int) -> None:
        if not values:
            return
        scalars = [Summary.Value(tag=prefix + name, simple_value=value) for name, value in _scalars(values).items()]
        self._writer(run).add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))

    def _writer(self, run: str) -> EventFileWriter:
        if run not in self._writers:
            self._writers[run] = EventFileWriter(str(self._log_dir / run), flush_secs=_FLUSH_SECONDS)
        return self._writers[run]


def _scalars(values: Logs) -> Logs:
    """The values, those that are arrays entry by entry: "f1/0", "f1/1"."""
    found: Logs = {}
    for name, value in values.items():
        entries = {f"{name}/{i}": entry for i, entry in enumerate(np.ravel(value))}
        found |= entries if np.ndim(value) else {name: value}
    return found


def _learning_rate(optimizer: Any) -> Logs:
    """The learning rate as it is now; none for an optimizer that is several."""
    rate = getattr(optimizer, "learning_rate", None)
    return {} if rate is None else {"learning_rate": float(rate)}

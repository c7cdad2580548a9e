"""One evaluation: every batch tested once, the training's own metrics left alone.

```text
run
├── on_test_begin
├── blocks of steps                phase.py
└── on_test_end(logs)
```
"""

import warnings

import attrs

from engine.columns import Logs
from engine.data import Reader, Source
from engine.errors import DataError
from engine.interrupts import Interrupts
from engine.metrics import set_aside
from engine.phase import Phase
from engine.progress import Progress
from engine.task import Task


@attrs.define(eq=False)
class Evaluation:
    """What is evaluated, and on what; it can be run again and again.

    Attributes:
        task: The model and its test step.
        phase: The compiled test step and who is told.
        source: The data, read from its beginning each time.
        steps: Batches to test; None: all.
    """

    task: Task
    phase: Phase
    source: Source
    steps: int | None

    def run(self, interrupts: Interrupts | None = None) -> Logs:
        """Evaluates, and returns the logs, sorted by name; the metric objects hold them afterwards."""
        model = self.task.model
        model.stop_evaluating = False
        with self.phase.hooks.span("test") as logs:
            reader = Reader(self.source, self.phase.loop.strategy)
            self.phase.renew(reader)
            self.task.reset_metrics()
            self.phase.reset()
            self._test(reader, interrupts or Interrupts())
            logs.update(self.phase.logs())
            self.task.publish(self.phase.means)
        return logs

    def run_beside_training(self, interrupts: Interrupts) -> Logs:
        """Evaluates with metric state of its own, and names the logs `val_...`."""
        with set_aside(self.task.metrics):
            logs = self.run(interrupts)
        return {f"val_{name}": value for name, value in logs.items()}

    def log_names(self) -> list[str]:
        """What the logs beside training will be called; known once the step is traced."""
        return [f"val_{name}" for name in self.phase.loop.columns.names]

    def _test(self, reader: Reader, interrupts: Interrupts) -> None:
        progress = Progress()
        reader.begin_epoch(0)
        while not reader.is_exhausted and progress.batch != self.steps:
            left = None if self.steps is None else self.steps - progress.batch
            limit = 1 if self.task.model.stop_evaluating else left  # from on_test_begin: one batch, as in Keras
            progress = self.phase.block(reader, progress, limit)
            reader.raise_error()
            interrupts.raise_noted()
            if self.task.model.stop_evaluating:
                break
        reader.end_epoch()
        if progress.batch == 0:
            raise DataError("The data to evaluate on gave no batch. Give at least one.")
        if self.steps is not None and reader.is_exhausted and progress.batch < self.steps:
            warnings.warn(
                f"The data to evaluate on ended after {progress.batch} of {self.steps} steps. Give fewer steps, or "
                "more data.",
                stacklevel=2,
            )

"""A tqdm bar while an epoch runs, one line when it is over."""

import math
import sys
from time import perf_counter
from typing import Any

from tqdm.auto import tqdm

from engine.callbacks.meter import HAS_WIDGETS, Meter
from engine.callbacks.output import Output
from engine.columns import Logs
from engine.hooks import Block, Callback, SavedState

_REFRESH_SECONDS = 0.1  # so often is a bar drawn at most: drawing costs more than a small step
_LEAST_SECONDS = 0.05  # between two drawings, where blocks of steps come a little before or after they are due


class ProgressBar(Callback):
    """Shows how far training, evaluation and prediction are.

    ```text
    Epoch 2/10:  43%|████████▌           | 20/47 [00:03<00:04, 163 samples/s, 5.1 steps/s, accuracy=0.9140, loss=0.2881]
    Epoch 2/10: 47 steps in 9.21 s, 163 samples/s, accuracy=0.9310, loss=0.2410, val_accuracy=0.9440, val_loss=0.2004
    ```

    `fit`, `evaluate` and `predict` add one by themselves unless `verbose=0`. It works under `model.fit` too, without
    samples a second.

    Bars go to the error output if that is a terminal, or into a notebook, and disappear; lines go to the output and
    stay. With `verbose=2`, or without a terminal, there are lines only. A validation has a bar of its own under that
    of the epoch; its time is not counted in the epoch's. Nothing is wider than a terminal: speeds, times and metrics
    are left out, the loss last of all. (Lines into a pipe, into a file or with `verbose=2` are always whole.)

    Where nobody knows the number of steps, it is that of the epoch before, or of the validation before.

    No error in writing reaches the training: a closed terminal or a broken pipe loses lines and nothing else.

    Examples:
        >>> trainer.fit(x, y, verbose=1)
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines = self._screen = Output(None)
        self._meter = Meter("")
        self._outer: Meter | None = None  # the epoch's, while a validation runs
        self._draw_at_secs = math.inf
        self._is_training = False
        self._epochs = 0
        self._steps: int | None = None
        self._most_steps: int | None = None
        self._validation_steps: int | None = None

    def get_state(self) -> dict[str, Any]:
        """The steps done, and how many there are, which had to be learned, so that a resumed run knows them at once."""
        meter = self._outer or self._meter
        return {"steps": self._steps, "validation_steps": self._validation_steps, "done": meter.done}

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes up what an interrupted run had learned, and goes on in the epoch's bar if there is one."""
        saved = SavedState.of(self, state)
        steps, validation_steps = saved.count_or_none("steps"), saved.count_or_none("validation_steps")
        done = saved.count("done")
        self._steps, self._validation_steps = steps, validation_steps
        self._meter.take_up(done, steps, first_step=self.step, first_sample=self.samples)
        if self._meter.is_shown:
            self._draw()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Looks where to write to; takes evaluations from now on for validations."""
        self._begin()
        self._is_training, self._validation_steps = True, None
        self._epochs, self._steps = self.params["epochs"], self.params.get("steps")
        self._most_steps = self._steps

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Opens the epoch's bar."""
        self._open(f"Epoch {epoch + 1}/{self._epochs}", self._steps, self._most_steps)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Moves the bar."""
        self._move(batch, logs)

    def on_train_block_end(self, block: Block) -> None:
        """Moves the bar by a block."""
        self._move(block.batches[-1], block.last_logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Puts a line in the bar's place."""
        self._close(logs)
        self._steps = max(self._steps or 0, self._meter.steps)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Takes evaluations from now on for evaluations."""
        self._close_bars()
        self._is_training = False

    def on_exception(self, error: BaseException) -> None:
        """Takes away the bars, so that the error begins on a line of its own."""
        is_echoed = isinstance(error, KeyboardInterrupt) and self._meter.is_shown and self._screen.is_terminal
        self._meter.fail()
        if self._outer is not None:
            self._outer.close()
        if is_echoed:
            self._screen.wipe()

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Opens the bar of an evaluation, or of a validation under that of its epoch."""
        if not self._is_training:
            self._begin()
            self._open("Evaluate", self.params.get("steps"), self.params.get("steps"))
            return
        if self._meter.is_shown:
            self._draw()  # up to the last step before the validation
        if self._lines.is_notebook and not HAS_WIDGETS:
            self._meter.close()  # text in a cell cannot go back by more than a line
        self._outer = self._meter
        self._outer.pause()
        self._open("Validate", self._validation_steps)

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Moves the bar of an evaluation."""
        self._move(batch, logs)

    def on_test_block_end(self, block: Block) -> None:
        """Moves the bar of an evaluation by a block."""
        self._move(block.batches[-1], block.last_logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Puts a line in the place of an evaluation's bar; a validation's values come with the epoch's line."""
        if self._outer is None:
            self._close(logs)
        else:
            self._meter.close()
            if not self._meter.has_failed:
                self._validation_steps = max(self._validation_steps or 0, self._meter.steps)
            self._outer.go_on()
            self._meter, self._outer = self._outer, None

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Opens the bar of a prediction."""
        self._begin()
        self._open("Predict", self.params.get("steps"), self.params.get("steps"))

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        """Moves the bar of a prediction."""
        self._move(batch, None)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Puts a line in the place of a prediction's bar."""
        self._close(None)

    def _begin(self) -> None:
        """Looks at the outputs anew, since they may be others than in an earlier run."""
        self._lines = Output(sys.stdout)
        is_notebook = self._lines.is_notebook
        self._screen = self._lines if is_notebook else Output(sys.stderr)
        has_bars = not self._has_lines_only() and (is_notebook or self._screen.is_terminal)
        self._draw_at_secs = 0.0 if has_bars else math.inf
        self._close_bars()  # of a run under model.fit that an error ended

    def _close_bars(self) -> None:
        self._meter.close()
        if self._outer is not None:
            self._outer.close()
            self._outer = None

    def _has_lines_only(self) -> bool:
        return bool(self.params.get("verbose") == 2)

    def _open(self, title: str, steps: int | None, most_steps: int | None = None) -> None:
        # Under model.fit, the last block of `steps_per_execution` is numbered as if it were whole.
        most_steps = None if self.in_trainer else most_steps
        self._meter = Meter(title, steps, most_steps, first_step=self.step, first_sample=self.samples)
        if perf_counter() >= self._draw_at_secs:
            self._draw()

    def _move(self, batch: int, logs: Logs | None) -> None:
        meter = self._meter
        meter.done, meter.logs = batch + 1, logs
        if perf_counter() >= self._draw_at_secs or (meter.done == meter.total and meter.is_shown):
            self._draw()

    def _draw(self) -> None:
        self._draw_at_secs = max(self._draw_at_secs + _REFRESH_SECONDS, perf_counter() + _LEAST_SECONDS)
        self._meter.draw(self._screen, self.samples)

    def _close(self, logs: Logs | None) -> None:
        if self._meter.has_failed:
            return  # every beginning has its end, but there is nothing to say of it
        self._meter.close()
        columns = None if self._has_lines_only() else self._lines.columns()
        line = self._meter.line(logs, step=self.step, samples=self.samples, columns=columns)
        tqdm.write(line, file=self._lines)  # which lifts a bar of somebody else's out of the way
        self._lines.flush()
        if self._screen is not self._lines and not self._lines.is_terminal:
            # What reads the pipe may write to the very terminal where the next bar will be: let it go first.
            self._draw_at_secs = max(self._draw_at_secs, perf_counter() + _REFRESH_SECONDS)

"""A tqdm bar while an epoch runs, one line when it is over."""

import sys
import time
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from engine.columns import Logs
from engine.hooks import Callback

_REFRESH_SECONDS = 0.1  # so often is a bar drawn at most: drawing costs more than a small step


class ProgressBar(Callback):
    """Shows how far training, evaluation and prediction are.

    ```text
    Epoch 2/10:  43%|████▎     | 20/47 [00:03<00:04, 5.10step/s, 163 samples/s, accuracy=0.914, loss=0.288]
    Epoch 2/10: 47 steps in 9.2 s, 163 samples/s, accuracy=0.931, loss=0.241, val_accuracy=0.944, val_loss=0.2
    ```

    `fit`, `evaluate` and `predict` add one by themselves unless `verbose=0`. With `verbose=2`, or where the
    error output is no terminal, the bars are left out and the lines stay. It works under `model.fit` too,
    without samples a second.

    Examples:
        >>> trainer.fit(x, y, verbose=1)
    """

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None
        self._title = ""
        self._begun_secs = 0.0
        self._drawn_secs = 0.0
        self._steps = 0
        self._samples_before = 0
        self._is_training = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Takes evaluations from now on for validations."""
        self._is_training = True
        self.samples = 0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Opens the epoch's bar."""
        self._open(f"Epoch {epoch + 1}/{self.params['epochs']}", self.params.get("steps"))

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Moves the bar."""
        self._move(logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Puts a line in the bar's place."""
        self._close(logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Takes evaluations from now on for evaluations."""
        self._drop_bar()
        self._is_training = False

    def on_exception(self, error: BaseException) -> None:
        """Takes away the bar, so that the error begins on a line of its own."""
        self._drop_bar()

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Opens a bar for an evaluation; a validation only says that it runs."""
        if self._is_training:
            self._say("validating")
        else:
            self._open("Evaluate", self.params.get("steps"))

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Moves the bar of an evaluation."""
        if not self._is_training:
            self._move(logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Puts a line in the place of an evaluation's bar."""
        if not self._is_training:
            self._close(logs)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Opens the bar of a prediction."""
        self._open("Predict", self.params.get("steps"))

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        """Moves the bar of a prediction."""
        self._move(None)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Puts a line in the place of a prediction's bar."""
        self._close(None)

    def _open(self, title: str, steps: int | None) -> None:
        self._drop_bar()
        self._title, self._steps, self._samples_before = title, 0, self.samples
        self._begun_secs = time.perf_counter()
        is_shown = self.params.get("verbose") != 2
        self._bar = tqdm(
            desc=title,
            total=steps,
            unit="step",
            leave=False,
            dynamic_ncols=True,
            disable=None if is_shown else True,  # None: shown on a terminal only
        )

    def _move(self, logs: Logs | None) -> None:
        self._steps += 1
        now = time.perf_counter()
        if self._bar is None or self._bar.disable or now - self._drawn_secs < _REFRESH_SECONDS:
            return
        self._drawn_secs = now
        self._bar.n = self._steps
        self._say(", ".join([*self._speed(), *_words(logs)]))

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(text)

    def _close(self, logs: Logs | None) -> None:
        self._drop_bar()
        seconds = time.perf_counter() - self._begun_secs
        line = ", ".join([f"{self._steps} steps in {seconds:.1f} s", *self._speed(), *_words(logs)])
        print(f"{self._title}: {line}", file=sys.stdout, flush=True)

    def _drop_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _speed(self) -> list[str]:
        samples = self.samples - self._samples_before
        seconds = time.perf_counter() - self._begun_secs
        return [f"{samples / seconds:.0f} samples/s"] if samples > 0 and seconds > 0 else []


def _words(logs: Logs | None) -> list[str]:
    return [f"{name}={_four_digits(value)}" for name, value in (logs or {}).items()]


def _four_digits(value: Any) -> str:
    return f"[{' '.join(map(_four_digits, np.ravel(value)))}]" if np.ndim(value) else f"{value:.4g}"

import fcntl
import os
import re
import struct
import sys
import termios
import threading

import keras
import pytest
import tensorflow as tf

from engine import Trainer
from engine.callbacks import ProgressBar
from tests.helpers import perceptron, samples

X, Y = samples(43, shape=(4,))  # six batches of at most 8
FIT = {"batch_size": 8, "shuffle": False}
LINE = r"6 steps in \d+\.\d s, \d+ samples/s"


@pytest.fixture(scope="module")
def trainer():
    return Trainer(perceptron())


class Terminal:
    """A pseudo-terminal of 200 columns in the place of both outputs."""

    def __init__(self, monkeypatch):
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
        self._file = os.fdopen(theirs, "w", encoding="utf-8", buffering=1)
        monkeypatch.setattr(sys, "stderr", self._file)
        monkeypatch.setattr(sys, "stdout", self._file)
        self._read = b""
        self._reader = threading.Thread(target=self._keep_reading)
        self._reader.start()

    def _keep_reading(self):
        try:
            while chunk := os.read(self._ours, 4096):
                self._read += chunk
        except OSError:
            """The other side is closed."""

    def close(self):
        """All that was ever written."""
        self._file.close()
        self._reader.join()
        os.close(self._ours)
        return self._read.decode("utf-8")


def as_seen(written):
    """The lines left on the screen: what a carriage return goes back over is overwritten."""
    lines = []
    for line in written.replace("\r\n", "\n").split("\n"):
        cells = []
        for part in line.split("\r"):
            cells[: len(part)] = part
        lines.append("".join(cells).rstrip())
    return [line for line in lines if line]


def test_a_terminal_shows_a_bar_while_an_epoch_runs_and_a_line_afterwards(trainer, monkeypatch):
    terminal = Terminal(monkeypatch)
    history = trainer.fit(X, Y, epochs=2, validation_data=(X, Y), **FIT).history
    written = terminal.close()

    assert re.search(r"Epoch 1/2: +\d+%\|.*\| [1-6]/6 \[.*step/s, \d+ samples/s, accuracy=0\.\d+, loss=\d", written)
    assert "validating" in written
    lines = as_seen(written)
    assert 2 == len(lines)
    for epoch, line in enumerate(lines):
        values = ", ".join(f"{name}={values[epoch]:.4g}" for name, values in history.items())
        assert re.fullmatch(rf"Epoch {epoch + 1}/2: {LINE}, {values}", line)


@pytest.mark.parametrize("is_length_known", [True, False])
def test_evaluation_and_prediction_have_bars_and_lines_as_well(trainer, monkeypatch, is_length_known):
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    dataset = dataset if is_length_known else dataset.filter(lambda *_: True)
    terminal = Terminal(monkeypatch)
    scores = trainer.evaluate(dataset)
    trainer.predict(dataset)
    written = terminal.close()

    assert ("/6 [" if is_length_known else "step [") in written
    evaluated, predicted = as_seen(written)
    values = ", ".join(f"{name}={value:.4g}" for name, value in scores.items())
    assert re.fullmatch(rf"Evaluate: 6 steps in \d+\.\d s, {values}", evaluated)
    assert re.fullmatch(r"Predict: 6 steps in \d+\.\d s", predicted)


@pytest.mark.parametrize(("verbose", "is_terminal"), [(1, False), ("auto", False), (2, False), (2, True)])
def test_without_a_terminal_or_with_verbose_2_there_are_lines_only(trainer, monkeypatch, capfd, verbose, is_terminal):
    terminal = Terminal(monkeypatch) if is_terminal else None
    trainer.fit(X, Y, epochs=2, verbose=verbose, **FIT)
    if terminal is not None:
        written, errors = terminal.close().replace("\r\n", "\n"), ""
    else:
        written, errors = capfd.readouterr()

    assert "" == errors
    assert re.fullmatch(rf"(Epoch [12]/2: {LINE}, accuracy=[\d.]+, loss=[\d.]+\n){{2}}", written)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_verbose_0_says_nothing(trainer, monkeypatch, capfd, is_terminal):
    terminal = Terminal(monkeypatch) if is_terminal else None
    trainer.fit(X, Y, validation_data=(X, Y), verbose=0, **FIT)
    trainer.evaluate(X, Y, verbose=0)
    trainer.predict(X, verbose=0)

    assert "" == (terminal.close() if terminal is not None else "".join(capfd.readouterr()))


class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 3:
            raise ValueError("mine")

    def on_test_batch_end(self, batch, logs=None):
        self.on_train_batch_end(batch)

    def on_predict_batch_end(self, batch, logs=None):
        self.on_train_batch_end(batch)


@pytest.mark.parametrize("run", ["fit", "validation", "evaluate", "predict"])
def test_nothing_is_left_on_the_screen_after_an_error(trainer, monkeypatch, run):
    """What is printed next, a traceback, begins on a line of its own."""
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    runs = {
        "fit": lambda: trainer.fit(dataset, callbacks=[Fails()]),
        "validation": lambda: trainer.fit(dataset.take(2), validation_data=dataset, callbacks=[Fails()]),
        "evaluate": lambda: trainer.evaluate(dataset, callbacks=[Fails()]),
        "predict": lambda: trainer.predict(dataset, callbacks=[Fails()]),
    }
    terminal = Terminal(monkeypatch)
    with pytest.raises(ValueError, match="mine"):  # noqa: PT012  the screen is looked at while the error is alive
        try:
            runs[run]()
        except ValueError:
            print("Traceback")
            raise
    written = terminal.close()

    assert ["Traceback"] == as_seen(written)
    assert "%|" in written


def test_it_works_under_model_fit(monkeypatch):
    terminal = Terminal(monkeypatch)
    perceptron().fit(X, Y, epochs=2, validation_data=(X, Y), callbacks=[ProgressBar()], verbose=0, **FIT)
    written = terminal.close()

    assert re.search(r"Epoch 1/2: +\d+%\|.*step/s, accuracy=0\.\d+, loss=\d", written)
    lines = as_seen(written)
    assert ["Epoch 1/2", "Epoch 2/2"] == [line.split(":")[0] for line in lines]
    assert all(re.search(r"6 steps in \d+\.\d s, accuracy=.* val_loss=\d", line) for line in lines)

import contextlib
import fcntl
import io
import os
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pyte
import pytest
import tensorflow as tf
from tqdm import tqdm

from engine import Callback, Trainer
from engine.callbacks import ProgressBar, meter, progress_bar
from tests.helpers import perceptron, samples

ROOT = Path(__file__).parents[3]
X, Y = samples(43, shape=(4,))  # six batches of at most 8
FIT = {"batch_size": 8, "shuffle": False}
LINE = r"6 steps in [\d.]+ s, [\d.]+ samples/s"


@pytest.fixture(scope="module")
def trainer():
    """Its blocks are of one step: a bar moves by blocks."""
    return Trainer(perceptron(), steps_per_execution=1)


@pytest.fixture
def clock(monkeypatch):
    """The bar's own clock, which stands still unless a test moves it."""
    own = Clock()
    for module in (meter, progress_bar):
        monkeypatch.setattr(module, "perf_counter", own)
    return own


class Clock:
    secs = 1000.0

    def __call__(self):
        return self.secs

    def wait(self, secs):
        self.secs += secs


class Terminal:
    """A pseudo-terminal in the place of both outputs, and what a person would see on it."""

    def __init__(self, monkeypatch, columns=200, rows=24):
        self._ours, self._theirs = os.openpty()
        self._set_size(columns, rows)
        self.files = [os.fdopen(os.dup(self._theirs), "w", encoding="utf-8", buffering=1) for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", self.files[0])
        monkeypatch.setattr(sys, "stderr", self.files[1])
        self._screen = pyte.Screen(columns or 80, rows or 24)
        self._stream = pyte.ByteStream(self._screen)
        self._read, self._marks, self._is_lost = b"", 0, False
        self._reader = threading.Thread(target=self._keep_reading, daemon=True)
        self._reader.start()

    def _keep_reading(self):
        try:
            while chunk := os.read(self._ours, 4096):
                self._stream.feed(chunk)
                self._read += chunk
        except OSError:
            """The other side is closed."""

    def lines(self):
        """What is on the screen now, without the empty lines at its end."""
        self._marks += 1
        mark = f"\033]9;{self._marks}\007".encode()  # a command that no terminal shows: all before it has been shown
        os.write(self._theirs, mark)
        while mark not in self._read:
            time.sleep(0.0005)
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip().splitlines()

    def written(self):
        """All that was ever written."""
        self.lines()
        return re.sub(r"\033]9;\d+\007", "", self._read.decode("utf-8"))

    def has_got(self, text):
        return text.encode() in self._read

    def _set_size(self, columns, rows):
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns, rows=24):
        self.lines()
        self._set_size(columns, rows)
        self._screen.resize(rows, columns)

    def type(self, keys):
        os.write(self._ours, keys)

    def hang_up(self):
        """What is written from now on is an error, as after a lost connection."""
        self.lines()
        os.close(self._ours)
        self._is_lost = True

    def close(self):
        for file in self.files:
            with contextlib.suppress(OSError):
                file.close()
        os.close(self._theirs)
        if not self._is_lost:
            self._reader.join()
            os.close(self._ours)


@pytest.fixture
def open_terminal(monkeypatch):
    """To be called in the test itself: pytest sets the outputs anew when it begins."""
    opened = []

    def open_one(**size):
        opened.append(Terminal(patch, **size))
        return opened[-1]

    with monkeypatch.context() as patch:
        yield open_one
    for bar in list(tqdm._instances):
        bar.close()  # those that a failing test has left would move the bars of the next
    for own in opened:
        own.close()


class Watch(Callback):
    """Behind the bar in the list: notes the screen after each hook, and moves the clock on."""

    def __init__(self, terminal, clock=None, step_secs=0.2):
        super().__init__()
        self.terminal, self.clock, self.step_secs = terminal, clock, step_secs
        self.screens = {}
        self.logs = {}
        self.epoch = None

    def look(self, *key, logs=None):
        self.screens[key] = self.terminal.lines()
        self.logs[key] = {name: f"{value:.4f}" for name, value in (logs or {}).items()}
        if self.clock is not None:
            self.clock.secs += self.step_secs

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.look(epoch, "begin")

    def on_train_batch_end(self, batch, logs=None):
        self.look(self.epoch, batch, logs=logs)

    def on_test_begin(self, logs=None):
        self.look(self.epoch, "test begins")

    def on_test_batch_end(self, batch, logs=None):
        self.look(self.epoch, "test", batch, logs=logs)

    def on_test_end(self, logs=None):
        self.look(self.epoch, "test ends")

    def on_epoch_end(self, epoch, logs=None):
        self.look(epoch, "end", logs=logs)


# What is seen after the third of six batches of the second epoch, one batch taking 0.2 s; and of its validation.
BARS = {
    40: ["Epoch 2/2:  50% 3/6 [loss={loss}]"],
    60: ["Epoch 2/2:  50%|████▌    | 3/6 [00:00<00:00, loss={loss}]"],
    80: ["Epoch 2/2:  50%|██████      | 3/6 [00:00<00:00, accuracy={accuracy}, loss={loss}]"],
    200: [
        "Epoch 2/2:  50%|██████████          | 3/6 [00:00<00:00, 40.0 samples/s, 5.00 steps/s, "
        "accuracy={accuracy}, loss={loss}]"
    ],
}
VALIDATIONS = {
    40: ["Epoch 2/2: 100% 6/6 [loss={loss}]", "Validate:  50% 3/6 [loss={val_loss}]"],
    60: [
        "Epoch 2/2: 100%|█████████| 6/6 [00:01<00:00, loss={loss}]",
        "Validate:  50%|█████     | 3/6 [00:00<00:00, loss={val_loss}]",
    ],
    80: [
        "Epoch 2/2: 100%|████████████| 6/6 [00:01<00:00, accuracy={accuracy}, loss={loss}]",
        "Validate:  50%|██████▌      | 3/6 [00:00<00:00, accuracy={val_accuracy}, loss={val_loss}]",
    ],
    200: [
        "Epoch 2/2: 100%|████████████████████| 6/6 [00:01<00:00, 30.7 samples/s, 4.29 steps/s, "
        "accuracy={accuracy}, loss={loss}]",
        "Validate:  50%|██████████          | 3/6 [00:00<00:00, 5.00 steps/s, "
        "accuracy={val_accuracy}, loss={val_loss}]",
    ],
}
LINES = {
    40: "Epoch {n}/2: loss={loss}, val_loss={val_loss}",
    60: "Epoch {n}/2: accuracy={accuracy}, loss={loss}, val_loss={val_loss}",
    80: "Epoch {n}/2: accuracy={accuracy}, loss={loss}, val_accuracy={val_accuracy}, val_loss={val_loss}",
    200: "Epoch {n}/2: 6 steps in {secs} s, {speed} samples/s, accuracy={accuracy}, loss={loss}, "
    "val_accuracy={val_accuracy}, val_loss={val_loss}",
}


@pytest.mark.parametrize("columns", BARS)
def test_a_terminal_of_any_width_shows_a_bar_while_an_epoch_runs_and_a_line_afterwards(
    trainer, open_terminal, clock, columns
):
    """Nothing wraps, and nothing is left of a bar."""
    watch = Watch(open_terminal(columns=columns), clock)
    trainer.fit(X, Y, epochs=2, validation_data=(X, Y), callbacks=[ProgressBar(), watch], **FIT)
    seen, logs = watch.screens, watch.logs
    lines = [LINES[columns].format(n=epoch + 1, secs="1.60", speed="26.9", **logs[epoch, "end"]) for epoch in range(2)]

    assert ["Epoch 1/2:   0%"] == [line[:15] for line in seen[0, "begin"]]
    assert [lines[0], *(bar.format(**logs[1, 2]) for bar in BARS[columns])] == seen[1, 2]
    values = logs[1, 5] | {f"val_{name}": value for name, value in logs[1, "test", 2].items()}
    assert [lines[0], *(bar.format(**values) for bar in VALIDATIONS[columns])] == seen[1, "test", 2]
    assert [lines[0], "Epoch 2/2: 100%"] == [line if line == lines[0] else line[:15] for line in seen[1, "test ends"]]
    assert lines == seen[1, "end"] == watch.terminal.lines()
    assert all(len(line) <= columns for screen in seen.values() for line in screen)


def dataset(*, is_length_known=True):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    return data if is_length_known else data.filter(lambda *_: True)


def test_a_length_that_nobody_knows_is_that_of_the_epoch_before(trainer, open_terminal, clock):
    terminal = open_terminal()
    data = dataset(is_length_known=False)
    watch = Watch(terminal, clock)
    trainer.fit(data, epochs=2, validation_data=data, callbacks=[ProgressBar(), watch])
    first, second = ([line.split(" [")[0] for line in watch.screens[epoch, "test", 2]] for epoch in (0, 1))

    assert ["Epoch 1/2: 3 steps"] == [line.split(" [")[0] for line in watch.screens[0, 2]]
    assert ["Epoch 1/2: 6 steps", "Validate: 3 steps"] == first
    assert ["Epoch 2/2: 100%|████████████████████| 6/6", "Validate:  50%|██████████          | 3/6"] == second[1:]


def test_more_steps_than_were_expected_are_counted_without_a_percentage(open_terminal, clock):
    terminal = open_terminal()
    bar = opened(ProgressBar(), steps=2)
    move(bar, clock, 3)

    assert terminal.lines()[0].startswith("Epoch 1/1: 3 steps [00:00, ")


def test_a_resumed_run_knows_what_the_interrupted_one_had_learned(trainer, open_terminal, clock):
    terminal = open_terminal()
    first, second = ProgressBar(), ProgressBar()
    data = dataset(is_length_known=False)
    trainer.fit(data, validation_data=data, callbacks=[first])
    bar = opened(second, steps=None, state=first.get_state())
    move(bar, clock, 3)
    of_epoch = terminal.lines()[-1]
    bar.on_test_begin({})
    clock.secs += 1
    bar.on_test_batch_end(2, {"loss": 1.0})

    assert {"steps": 6, "validation_steps": 6, "done": 6} == first.get_state()
    assert " 50%|" in of_epoch
    assert "Validate:  50%|" in terminal.lines()[-1]


def test_a_run_that_goes_on_in_the_middle_of_an_epoch_shows_the_steps_done(open_terminal, clock):
    """At once, and without taking them for steps of a moment."""
    terminal = open_terminal()
    first = opened(ProgressBar(), steps=6)
    move(first, clock, 3)
    state = first.get_state()
    first.on_train_end()
    second = opened(ProgressBar(), steps=6)
    second.step, second.samples = 3, 24
    second.set_state(state)
    begun = terminal.lines()[-1]
    clock.secs += 0.5
    second.step, second.samples = 4, 32
    second.on_train_batch_end(3, {"loss": 1.0})
    moved = terminal.lines()[-1]
    second.on_epoch_end(0, {"loss": 1.0})

    assert "Epoch 1/1:  50%|██████████          | 3/6 [" in begun
    assert "| 4/6 [00:00<00:01, 16.0 samples/s, 2.00 steps/s, loss=1.0000]" in moved
    assert "Epoch 1/1: 1 step in 0.500 s, 16.0 samples/s, loss=1.0000" == terminal.lines()[-1]


def opened(bar, *, steps, state=None, verbose=1):
    """A bar in the first epoch of a Trainer's fit."""
    bar.set_params({"epochs": 1, "steps": steps, "verbose": verbose})
    bar.in_trainer = True
    bar.on_train_begin({})
    if state is not None:
        bar.set_state(state)
    bar.on_epoch_begin(0, {})
    return bar


def move(bar, clock, steps, *, step_secs=0.2, logs=None):
    for batch in range(steps):
        clock.secs += step_secs
        bar.on_train_batch_end(batch, logs or {"loss": 1.0})


def test_epochs_are_numbered_and_measured_as_they_were_asked_for(trainer, open_terminal, clock):
    terminal = open_terminal()
    watch = Watch(terminal, clock)
    trainer.fit(dataset().repeat(), epochs=4, initial_epoch=2, steps_per_epoch=4, callbacks=[ProgressBar(), watch])

    assert watch.screens[2, 1][0].startswith("Epoch 3/4:  50%|██████████          | 2/4 [")
    assert ["Epoch 3/4: 4 steps", "Epoch 4/4: 4 steps"] == [line.split(" in ")[0] for line in terminal.lines()]


@pytest.mark.parametrize("block_secs", [0.001, 0.06, 0.098, 0.102, 0.13])
def test_blocks_of_steps_move_a_bar_smoothly_and_at_most_ten_times_a_second(open_terminal, clock, block_secs):
    """A block's steps are told all at once when it is over."""
    terminal = open_terminal()
    bar = opened(ProgressBar(), steps=10**6)
    for block in range(round(10 / block_secs)):
        clock.secs += block_secs
        for batch in range(10):
            bar.on_train_batch_end(10 * block + batch, {"loss": 1.0})
    drawn = [int(count) for count in re.findall(r"(\d+)/1000000 ", terminal.written())]
    blocks = np.diff(drawn[3:]) / 10  # the bar is drawn twice as it opens

    assert 0.9 * min(100, 10 / block_secs) <= len(drawn) <= 103
    assert max(blocks) - min(blocks) <= 1
    assert (block_secs < 0.09) or np.mean(blocks == 1) > 0.9


def test_the_speed_shown_is_that_of_the_last_seconds(open_terminal, clock):
    """One slow step at the beginning, where things are compiled, does not spoil the remaining time."""
    terminal = open_terminal()
    bar = opened(ProgressBar(), steps=104)
    clock.secs += 60.5
    bar.on_train_batch_end(0, {})
    move(bar, clock, 50, step_secs=0.1)

    assert "50/104 [01:05<00:05, 10.0 steps/s, " in terminal.lines()[0]


def test_evaluation_and_prediction_have_bars_and_lines_as_well(trainer, open_terminal, clock):
    terminal = open_terminal()
    watch = Watch(terminal, clock)
    scores = trainer.evaluate(X, Y, batch_size=8, callbacks=[ProgressBar(), watch])
    bar = ProgressBar()
    looks = keras.callbacks.LambdaCallback(on_predict_batch_end=lambda batch, logs: watch.look("predict", batch))
    trainer.predict(X, batch_size=8, callbacks=[bar, looks])

    assert watch.screens[None, "test", 2][0].startswith(
        "Evaluate:  50%|██████████          | 3/6 [00:00<00:00, 5.00 st"
    )
    assert "Predict:  50%|██████████          | 3/6 [00:00<00:00, 7.50 steps/s]" == watch.screens["predict", 2][-1]
    values = ", ".join(f"{name}={value:.4f}" for name, value in scores.items())
    assert [
        f"Evaluate: 6 steps in 1.40 s, 4.29 steps/s, {values}",
        "Predict: 6 steps in 1.20 s, 5.00 steps/s",
    ] == terminal.lines()


def test_a_callback_that_evaluates_within_an_epoch_does_not_destroy_its_bar(trainer, open_terminal, clock):
    terminal = open_terminal()

    class Evaluates(Watch):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                trainer.evaluate(X, Y, batch_size=8)
            super().on_train_batch_end(batch, logs)

    watch = Evaluates(terminal, clock)
    trainer.fit(X, Y, callbacks=[ProgressBar(), watch], **FIT)
    evaluated, bar = watch.screens[0, 2]

    assert evaluated.startswith("Evaluate: 6 steps in ")
    assert bar.startswith("Epoch 1/1:  50%|██████████          | 3/6 [")
    assert [evaluated[:9], "Epoch 1/1"] == [line[:9] for line in terminal.lines()]


def test_what_a_callback_prints_costs_a_line_and_what_it_writes_by_tqdm_does_not_even_that(
    trainer, open_terminal, clock
):
    terminal = open_terminal()

    class Prints(Watch):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                tqdm.write("written")
            if batch == 3:
                print(", printed")
            super().on_train_batch_end(batch, logs)

    watch = Prints(terminal, clock)
    trainer.fit(X, Y, callbacks=[ProgressBar(), watch], **FIT)
    written, printed, bar = watch.screens[0, 4]

    assert ["written", "Epoch 1/1:  33%|"] == [line[:16] for line in watch.screens[0, 1]]
    assert "written" == written
    assert re.fullmatch(r"Epoch 1/1:  66%\|█+▎ +\| 4/6 \[.*\], printed", printed)
    assert re.fullmatch(r"Epoch 1/1:  83%\|█+▋ +\| 5/6 \[.*\]", bar)
    assert [written, printed] == terminal.lines()[:2]
    assert 3 == len(terminal.lines())


def test_it_keeps_out_of_the_way_of_a_bar_around_the_fits(trainer, open_terminal, clock):
    terminal = open_terminal()
    watch = Watch(terminal, clock)
    with tqdm(total=2, desc="Trials", ncols=50, mininterval=0) as trials:
        for _ in range(2):
            trainer.fit(X, Y, callbacks=[ProgressBar(), watch], **FIT)
            trials.update()

    assert ["Epoch 1/1", "Trials:  50%|", "Epoch 1/1:  50%|"] == [
        begin
        for line, begin in zip(watch.screens[0, 2], ("Epoch 1/1", "Trials:  50%|", "Epoch 1/1:  50%|"), strict=True)
        if line.startswith(begin)
    ]
    assert ["Epoch", "Epoch", "Trial"] == [line[:5] for line in terminal.lines()]


class ReadsPipe(keras.callbacks.Callback):
    """Behind the bar in the list: what has come out of the pipe at each epoch's end."""

    def __init__(self, pipe):
        super().__init__()
        self.pipe, self.read = pipe, []

    def on_epoch_end(self, epoch, logs=None):
        self.read.append(os.read(self.pipe, 4096).decode())


@pytest.mark.parametrize("verbose", [1, "auto", 2])
def test_a_pipe_gets_one_whole_line_an_epoch_as_soon_as_it_is_over(trainer, monkeypatch, verbose):
    ours, theirs = os.pipe()
    watch = ReadsPipe(ours)
    with os.fdopen(theirs, "w") as file, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", file)
        patch.setattr(sys, "stderr", file)
        bar = ProgressBar()
        history = trainer.fit(
            X, Y, epochs=2, verbose=verbose, validation_data=(X, Y), callbacks=[bar, watch], **FIT
        ).history
    os.set_blocking(ours, False)

    assert b"" == os.read(ours, 4096)
    os.close(ours)
    assert 2 == len(watch.read)
    for epoch, line in enumerate(watch.read):
        values = ", ".join(f"{name}={values[epoch]:.4f}" for name, values in history.items())
        assert re.fullmatch(rf"Epoch {epoch + 1}/2: {LINE}, {values}\n", line)


def test_a_pipe_beside_a_terminal_has_the_lines_and_the_terminal_the_bars(trainer, open_terminal, monkeypatch, clock):
    """As in `python train.py | tee log`: there is time for a line to reach the terminal before the next bar does."""
    watch = Watch(open_terminal(), clock, step_secs=0.04)
    monkeypatch.setattr(sys, "stdout", pipe := io.StringIO())
    trainer.fit(X, Y, epochs=2, callbacks=[ProgressBar(), watch], **FIT)
    seen = watch.screens

    assert ["Epoch 1/2"] == [line[:9] for line in seen[0, 2]]
    assert [] == seen[0, "end"] == seen[1, "begin"] == seen[1, 0]
    assert ["Epoch 2/2"] == [line[:9] for line in seen[1, 2]]
    assert ["Epoch 1/2", "Epoch 2/2"] == [line[:9] for line in pipe.getvalue().splitlines()]


@pytest.mark.parametrize("columns", [40, 200])
def test_verbose_2_gives_whole_lines_only(trainer, open_terminal, columns):
    terminal = open_terminal(columns=columns)
    trainer.fit(X, Y, epochs=2, verbose=2, **FIT)
    written = terminal.written().replace("\r\n", "\n")

    assert re.fullmatch(rf"(Epoch [12]/2: {LINE}, accuracy=[\d.]+, loss=[\d.]+\n){{2}}", written)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_verbose_0_says_nothing(trainer, open_terminal, capfd, is_terminal):
    terminal = open_terminal() if is_terminal else None
    trainer.fit(X, Y, validation_data=(X, Y), verbose=0, **FIT)
    trainer.evaluate(X, Y, verbose=0)
    trainer.predict(X, verbose=0)

    assert "" == (terminal.written() if terminal is not None else "".join(capfd.readouterr()))


class Fails(keras.callbacks.Callback):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def on_train_batch_end(self, batch, logs=None):
        if batch == 3:
            raise self.error

    def on_test_batch_end(self, batch, logs=None):
        self.on_train_batch_end(batch)

    def on_predict_batch_end(self, batch, logs=None):
        self.on_train_batch_end(batch)


RUNS = {
    "fit": lambda trainer, fails: trainer.fit(dataset(), callbacks=[fails]),
    "validation": lambda trainer, fails: trainer.fit(dataset().take(2), validation_data=dataset(), callbacks=[fails]),
    "evaluate": lambda trainer, fails: trainer.evaluate(dataset(), callbacks=[fails]),
    "predict": lambda trainer, fails: trainer.predict(dataset(), callbacks=[fails]),
}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("run", RUNS)
def test_nothing_is_left_on_the_screen_after_an_error(trainer, open_terminal, run, error):
    """What is printed next, a traceback, begins on a line of its own; the next bar is where it belongs."""
    terminal = open_terminal()
    with pytest.raises(error) as caught:  # whose frames hold the bar
        RUNS[run](trainer, Fails(error("mine")))
    print("Traceback")
    after_error = terminal.lines()
    watch = Watch(terminal)
    trainer.evaluate(X, Y, callbacks=[ProgressBar(), watch])

    assert "mine" in str(caught.value)
    assert "%|" in terminal.written()
    assert ["Traceback"] == after_error
    assert ["Traceback", "Evaluate:"] == [line[:9] for line in watch.screens[None, "test", 0]]


@pytest.mark.parametrize("columns", [40, 80])
def test_the_echo_of_ctrl_c_goes_with_the_bar(open_terminal, clock, columns):
    """It fits into the bar's line, so that it can be wiped away with it."""
    terminal = open_terminal(columns=columns)
    bar = opened(ProgressBar(), steps=2)
    move(bar, clock, 1)
    os.write(sys.stdout.fileno(), b"^C")
    echoed = terminal.lines()
    bar.on_exception(KeyboardInterrupt())
    bar.on_train_end({})

    assert ["^C"] == [line[-2:] for line in echoed]
    assert [] == terminal.lines()


def test_an_error_within_an_evaluation_that_a_callback_survives_leaves_the_epochs_bar(trainer, open_terminal, clock):
    class Survives(Watch):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                with pytest.raises(ValueError, match="mine"):
                    trainer.evaluate(dataset(), callbacks=[Fails(ValueError("mine"))])
            super().on_train_batch_end(batch, logs)

    watch = Survives(open_terminal(), clock)
    trainer.fit(X, Y, callbacks=[ProgressBar(), watch], **FIT)

    assert ["Epoch 1/1:  50%"] == [line[:15] for line in watch.screens[0, 2]]
    assert ["Epoch 1/1:  66%"] == [line[:15] for line in watch.screens[0, 3]]


class Mute:
    """All that `print` asks of a stream."""

    def write(self, text):
        pass


class Streams:
    """Both outputs, and ways to lose them."""

    def __init__(self, open_terminal, monkeypatch):
        self.terminal, self._monkeypatch = open_terminal(), monkeypatch
        self._ours, theirs = os.pipe()
        self.pipe = os.fdopen(theirs, "w", buffering=1)
        self.full = open("/dev/full", "w", buffering=1)  # noqa: SIM115  closed below

    def replace(self, stream, *names):
        for name in names:
            self._monkeypatch.setattr(sys, name, stream)

    def break_pipe(self):
        os.close(self._ours)

    def close(self):
        for file in (self.pipe, self.full):
            with contextlib.suppress(OSError):
                file.close()


@pytest.fixture
def streams(open_terminal, monkeypatch):
    with monkeypatch.context() as patch:
        own = []

        def open_all():
            own.append(Streams(open_terminal, patch))
            return own[0]

        yield open_all
    own[0].close()


# What is in the place of the outputs, and how they are lost in the middle of an epoch.
LOSSES = {
    "no streams": (lambda of: of.replace(None, "stdout", "stderr"), lambda of: None),
    "streams that can only write": (lambda of: of.replace(Mute(), "stdout", "stderr"), lambda of: None),
    "closed output": (lambda of: sys.stdout.close(), lambda of: None),
    "closed error output": (lambda of: sys.stderr.close(), lambda of: None),
    "output closed later": (lambda of: None, lambda of: sys.stdout.close()),
    "error output closed later": (lambda of: None, lambda of: sys.stderr.close()),
    "broken pipe": (lambda of: (of.replace(of.pipe, "stdout"), of.break_pipe()), lambda of: None),
    "pipe broken later": (lambda of: of.replace(of.pipe, "stdout"), lambda of: of.break_pipe()),
    "broken pipe for both": (lambda of: of.replace(of.pipe, "stdout", "stderr"), lambda of: of.break_pipe()),
    "full disk": (lambda of: of.replace(of.full, "stdout"), lambda of: None),
    "lost terminal": (lambda of: of.terminal.hang_up(), lambda of: None),
    "terminal lost later": (lambda of: None, lambda of: of.terminal.hang_up()),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_outputs_that_are_gone_end_no_training(trainer, streams, clock, loss):
    begin, lose = LOSSES[loss]
    own = streams()
    begin(own)
    seen = []

    def at_batch(batch, logs):
        clock.secs += 0.2
        seen.append(batch)
        if len(seen) == 3:
            lose(own)

    looks = keras.callbacks.LambdaCallback(on_train_batch_end=at_batch)
    history = trainer.fit(X, Y, epochs=2, validation_data=(X, Y), callbacks=[ProgressBar(), looks], **FIT).history
    trainer.evaluate(X, Y)
    trainer.predict(X)

    assert 12 == len(seen)
    assert 2 == len(history["val_loss"])


def test_characters_that_an_output_lacks_become_question_marks(monkeypatch, clock):
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", ascii_only)
    bar = opened(ProgressBar(), steps=1)
    move(bar, clock, 1)
    bar.on_epoch_end(0, {"précision": 0.5})

    assert b"Epoch 1/1: 1 step in 0.200 s, 5.00 steps/s, pr?cision=0.5000\n" == ascii_only.buffer.getvalue()


def test_a_terminal_without_these_characters_has_a_bar_of_others(open_terminal, clock):
    terminal = open_terminal()
    sys.stderr.reconfigure(encoding="ascii")
    bar = opened(ProgressBar(), steps=2)
    move(bar, clock, 1, logs={"précision": 0.5})

    assert (
        "Epoch 1/1:  50%|##########          | 1/2 [00:00<00:00, 5.00 steps/s, pr?cision=0.5000]" == terminal.lines()[0]
    )


@pytest.mark.parametrize("size", [(0, 0), (80, 1), (12, 24)])
def test_terminals_of_odd_sizes_are_written_to_as_well(trainer, open_terminal, clock, size):
    columns, rows = size
    terminal = open_terminal(columns=columns, rows=rows)
    trainer.fit(X, Y, epochs=2, validation_data=(X, Y), callbacks=[ProgressBar(), Watch(terminal, clock)], **FIT)

    assert "Epoch 2/2"[-3:] in terminal.written()


def test_a_terminal_may_change_its_width(open_terminal, clock):
    terminal = open_terminal(columns=100)
    bar = opened(ProgressBar(), steps=10)
    move(bar, clock, 5)
    terminal.resize(40)
    clock.secs += 1
    bar.on_train_batch_end(5, {"loss": 1.0})

    assert "Epoch 1/1:  60%  6/10 [loss=1.0000]" == terminal.lines()[0].rstrip()


class OutStream(io.StringIO):
    """What a notebook's kernel has in the place of `sys.stdout`."""


OutStream.__module__ = "ipykernel.iostream"


def test_a_notebook_without_widgets_has_a_text_bar_in_its_output(monkeypatch, clock):
    cell, errors = OutStream(), OutStream()
    monkeypatch.setattr(sys, "stdout", cell)
    monkeypatch.setattr(sys, "stderr", errors)
    bar = opened(ProgressBar(), steps=2)
    move(bar, clock, 1)
    of_bar = cell.getvalue()
    bar.on_epoch_end(0, {"loss": 1.0})

    assert of_bar.endswith("\rEpoch 1/1:  50%|█████     | 1/2 [00:00<00:00, 5.00 steps/s, loss=1.0000]")
    assert cell.getvalue().endswith("\rEpoch 1/1: 1 step in 0.200 s, 5.00 steps/s, loss=1.0000\n")
    assert "" == errors.getvalue()


def test_a_notebook_without_widgets_shows_one_bar_at_a_time(trainer, monkeypatch, clock):
    """Text in a cell cannot go back by more than a line."""
    cell = OutStream()
    monkeypatch.setattr(sys, "stdout", cell)
    slow = keras.callbacks.LambdaCallback(on_test_batch_end=lambda batch, logs: clock.wait(1))
    trainer.fit(X, Y, validation_data=(X, Y), callbacks=[ProgressBar(), slow], **FIT)

    assert "\rValidate: 3 steps [" in cell.getvalue()
    assert 1 == cell.getvalue().count("\n")


def test_values_that_are_arrays_or_anything_else_are_shown(open_terminal, clock):
    terminal = open_terminal()
    bar = opened(ProgressBar(), steps=2)
    move(bar, clock, 1, logs={"loss": 1.0, "recall": np.linspace(0, 1, 3)})
    clock.secs += 1
    bar.on_train_batch_end(0, {"loss": 1.0, "recall": np.linspace(0, 1, 3)})
    of_bar = terminal.lines()[0]
    bar.on_epoch_end(0, {"loss": tf.constant(1.0), "recall": np.eye(3), "phase": "warm\nup", "best": None})

    assert of_bar.endswith("loss=1.0000, recall=[0.0000 0.5000 1.0000]]")
    assert ["loss=1.0000, recall=[1.0000 0.0000 0.0000 0.0000 ...], phase=warm up, best=None"] == [
        line[line.index("loss=") :] for line in terminal.lines()
    ]


def test_the_learning_rate_is_in_the_line_if_it_is_in_the_logs(trainer, open_terminal):
    terminal = open_terminal()
    rate = keras.callbacks.LearningRateScheduler(lambda epoch: 10.0**-epoch / 100)
    trainer.fit(X, Y, epochs=2, callbacks=[rate], **FIT)

    assert [", learning_rate=0.01", ", learning_rate=0.001"] == [
        re.search(", learning_rate=.*", line)[0] for line in terminal.lines()
    ]


def test_the_time_of_a_validation_is_not_the_epochs(trainer, open_terminal, clock):
    class Slow(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            clock.secs += 100

    terminal = open_terminal()
    trainer.fit(X, Y, validation_data=(X, Y), callbacks=[ProgressBar(), Watch(terminal, clock), Slow()], **FIT)

    assert terminal.lines()[0].startswith("Epoch 1/1: 6 steps in 1.60 s, 26.9 samples/s, ")


def test_one_bar_serves_several_fits(trainer, open_terminal, clock):
    terminal = open_terminal()
    bar, watch = ProgressBar(), Watch(terminal, clock)
    for data in (dataset(is_length_known=False), dataset(is_length_known=False).take(4)):
        trainer.fit(data, callbacks=[bar, watch])
        trainer.evaluate(data, callbacks=[bar, watch])

    assert watch.screens[0, 2][2].startswith("Epoch 1/1: 3 steps [")  # what the first fit had learned is forgotten
    assert ["Epoch 1/1: 6 s", "Evaluate: 6 st", "Epoch 1/1: 4 s", "Evaluate: 4 st"] == [
        line[:14] for line in terminal.lines()
    ]


def test_it_works_under_model_fit(open_terminal, clock):
    watch = Watch(open_terminal(), clock)
    perceptron().fit(X, Y, epochs=2, validation_data=(X, Y), callbacks=[ProgressBar(), watch], verbose=0, **FIT)
    seen, logs = watch.screens, watch.logs
    bar = "Epoch 1/2:  50%|██████████          | 3/6 [00:00<00:00, 5.00 steps/s, accuracy={accuracy}, loss={loss}]"
    line = (
        "Epoch {n}/2: 6 steps in 1.60 s, 3.75 steps/s, accuracy={accuracy}, loss={loss}, val_accuracy={val_accuracy}, "
        "val_loss={val_loss}"
    )

    assert [bar.format(**logs[0, 2])] == seen[0, 2]
    assert seen[1, "test", 2][2].startswith("Validate:  50%|")
    assert [line.format(n=epoch + 1, **logs[epoch, "end"]) for epoch in range(2)] == watch.terminal.lines()


def test_the_last_block_under_model_fit_is_not_longer_than_the_epoch(open_terminal, clock):
    """Keras numbers the last step of a block as if every block were whole: of six steps in fours, it is the eighth."""
    watch = Watch(open_terminal(), clock)
    perceptron(steps_per_execution=4).fit(X, Y, callbacks=[ProgressBar(), watch], verbose=0, **FIT)

    assert watch.screens[0, 7][0].startswith("Epoch 1/1: 100%|████████████████████| 6/6 [")
    assert watch.terminal.lines()[0].startswith("Epoch 1/1: 6 steps in ")


def test_an_error_under_model_fit_leaves_no_bar_to_the_next_fit(open_terminal, clock):
    """Keras tells nobody of the error."""
    terminal, model, bar = open_terminal(), perceptron(), ProgressBar()
    watch, quiet = Watch(terminal, clock), {"verbose": 0, "shuffle": False}
    for data in (dataset(), dataset().take(2)):
        with pytest.raises(ValueError, match="mine"):
            model.fit(data, validation_data=dataset(), callbacks=[bar, Fails(ValueError("mine"))], **quiet)
    model.fit(X, Y, callbacks=[bar, watch], verbose=0, **FIT)

    assert ["Epoch 1/1:  50%"] == [line[:15] for line in watch.screens[0, 2]]


PROGRAM = """
import os, sys
os.open(os.ttyname(0), os.O_RDWR)  # the first that the leader of a session opens is where its Ctrl-C comes from
import tensorflow as tf
from engine import Trainer
from tests.helpers import perceptron, samples
x, y = samples(64, shape=(4,))
data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8).repeat()
try:
    Trainer(perceptron()).fit(data, steps_per_epoch=10**9)
except KeyboardInterrupt:
    print("interrupted")
input()
"""


@pytest.mark.slow
def test_ctrl_c_ends_a_training_and_leaves_no_bar_below_what_it_says(open_terminal):
    terminal = open_terminal(columns=100)
    theirs = terminal.files[0].fileno()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    wait_until(lambda: terminal.has_got("loss="))
    terminal.type(b"\x03")
    wait_until(lambda: terminal.has_got("interrupted"))
    lines = terminal.lines()
    terminal.type(b"\n")

    assert 0 == process.wait(timeout=60)
    assert terminal.has_got("^C")
    assert ["SIGINT: stopping after these steps. Ctrl-C again stops at once.", "interrupted"] == lines[-2:]
    assert [lines[-3]] == [line for line in lines if "Epoch" in line]  # where it was when the key was pressed
    assert lines[-3].endswith("^C")


def wait_until(is_true):
    for _ in range(6000):
        if is_true():
            return
        time.sleep(0.01)
    raise TimeoutError

import copy
import re
import time

import keras
import numpy as np
import pytest

from engine import Callback, Trainer
from engine.callbacks import LossHistory, Timer
from tests.helpers import Recorder, assert_bit_equal, perceptron, samples, weights_of

X, Y = samples(43, shape=(4,))  # six batches of at most 8
FIT = {"batch_size": 8, "epochs": 3, "verbose": 0, "validation_data": (X, Y)}


class Sleeps(Callback):
    """Takes a time that is known, in a hook of its own and between the steps."""

    def on_epoch_begin(self, epoch, logs=None):
        time.sleep(0.05)


def seconds_in(text):
    """The table's rows: name -> (seconds, share)."""
    rows = re.findall(r"^(\S.*?)\s+(-?[\d.]+) s\s+(-?[\d.]+) %", text, re.MULTILINE)
    return {name: (float(seconds), float(share)) for name, seconds, share in rows}


@pytest.fixture(scope="module")
def timed():
    """A timer after a fit with callbacks, and the model."""
    timer, model = Timer(verbose=0), perceptron()
    trainer = Trainer(model, steps_per_execution=4)
    trainer.fit(X, Y, callbacks=[Sleeps(), timer, LossHistory(), Recorder.__base__()], **FIT)
    return timer


def test_each_callback_and_both_kinds_of_steps_have_a_line(timed):
    """Whoever has no hook of a moment is not called then; a block of steps is one call."""
    names = {"train steps", "test steps", "validation"}
    names |= {f"callbacks/{name}" for name in ("Sleeps", "Timer", "LossHistory")}

    assert names | {"callbacks/Callback", "callbacks/History"} == set(timed.timings.seconds) == set(timed.timings.calls)
    assert 6 == timed.timings.calls["train steps"] == timed.timings.calls["test steps"]  # 4 and 2, three times
    assert timed.timings.calls["callbacks/LossHistory"] >= 3 * 6


def test_what_is_measured_is_what_was_spent(timed):
    assert timed.timings.seconds["callbacks/Sleeps"] >= 3 * 0.05
    assert timed.timings.seconds["callbacks/LossHistory"] < 0.05
    assert timed.whole_secs >= sum(timed.timings.seconds.values()) - timed.timings.seconds["callbacks/Timer"]


def test_the_lines_of_the_table_sum_to_the_whole(timed):
    rows = seconds_in(timed.to_text())
    whole, share = rows.pop("whole")

    assert 100.0 == share
    assert {"training steps", "validation steps", "everything else"} <= set(rows)
    assert abs(whole - sum(seconds for seconds, _ in rows.values())) <= 0.006 * len(rows)  # each is rounded
    assert abs(100 - sum(share for _, share in rows.values())) <= 0.06 * len(rows)
    assert rows["everything else"][0] >= 0


def test_the_most_expensive_comes_first_and_calls_are_counted(timed):
    lines = timed.to_text().splitlines()
    measured = [seconds for name, (seconds, _) in seconds_in(timed.to_text()).items() if name not in (
        "everything else", "whole")]  # fmt: skip

    assert sorted(measured, reverse=True) == measured
    assert all(line.endswith(" calls") for line in lines[: len(measured)])
    assert re.search(r"^training steps .* 6 calls$", timed.to_text(), re.MULTILINE)


def test_the_table_is_printed_when_the_training_ends_also_by_an_error(capsys):
    class Fails(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise ValueError("mine")

    trainer = Trainer(perceptron())
    trainer.fit(X, Y, callbacks=[Timer()], **FIT)
    whole = capsys.readouterr().out
    trainer.fit(X, Y, callbacks=[Timer(verbose=0)], **FIT)
    silent = capsys.readouterr().out
    with pytest.raises(ValueError, match="mine"):
        trainer.fit(X, Y, callbacks=[Timer(), Fails()], **FIT)
    failed = capsys.readouterr().out

    assert {"training steps", "callbacks/History", "whole"} <= set(seconds_in(whole))
    assert "" == silent
    assert {"training steps", "callbacks/Fails", "whole"} <= set(seconds_in(failed))


def test_measuring_changes_nothing_of_a_training():
    expected, given, recorders = perceptron(), perceptron(), [Recorder(), Recorder()]
    histories = [
        Trainer(expected, seed=1).fit(X, Y, callbacks=[recorders[0]], **FIT).history,
        Trainer(given, seed=1).fit(X, Y, callbacks=[Timer(verbose=0), recorders[1]], **FIT).history,
    ]

    assert_bit_equal(weights_of(expected), weights_of(given))
    assert histories[0] == histories[1]
    assert recorders[0].calls == recorders[1].calls


def test_it_listens_to_no_batch_so_that_nothing_is_fetched_for_it():
    """Of a Trainer, which times its blocks itself; also behind a model.fit, where it has to listen."""
    timer, model = Timer(verbose=0), perceptron()
    model.fit(X, Y, callbacks=[timer], **FIT)
    trainer = Trainer(model, steps_per_execution=6)
    trainer.fit(X, Y, callbacks=[timer], **FIT)

    assert 3 == timer.timings.calls["train steps"]
    assert timer.timings.calls["callbacks/Timer"] <= 2 + 2 * 3 + 2 * 3  # of the fit, its epochs and its validations


def test_each_fit_begins_anew():
    timer, trainer = Timer(verbose=0), Trainer(perceptron(), steps_per_execution=6)
    for _ in range(2):
        trainer.fit(X, Y, callbacks=[timer], **FIT)

        assert 3 == timer.timings.calls["train steps"] == timer.timings.calls["test steps"]
    copied = copy.deepcopy(timer)
    trainer.fit(X, Y, callbacks=[copied], **(FIT | {"epochs": 1}))

    assert (1, 3) == (copied.timings.calls["train steps"], timer.timings.calls["train steps"])


def test_two_timers_measure_one_training_alike():
    first, second = Timer(verbose=0), Timer(verbose=0)
    Trainer(perceptron(), steps_per_execution=6).fit(X, Y, callbacks=[first, second], **FIT)

    for timer in (first, second):
        assert {"train steps", "test steps"} <= set(timer.timings.seconds)
        assert 3 == timer.timings.calls["train steps"]


def test_an_evaluation_by_a_callback_counts_among_the_validations():
    trainer, timer = Trainer(perceptron()), Timer(verbose=0)

    class Evaluates(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.evaluate(X, Y, verbose=0, callbacks=[])

    trainer.fit(X, Y, callbacks=[timer, Evaluates()], **(FIT | {"validation_data": None}))

    assert timer.timings.seconds["callbacks/Evaluates"] > 0
    assert "test steps" not in timer.timings.seconds  # which Keras does not tell the callbacks of


def test_under_model_fit_a_call_is_a_batch_and_callbacks_are_part_of_everything_else(capsys):
    """Hooks that the batches of evaluations call as well."""
    timer = Timer()
    perceptron().fit(X, Y, callbacks=[timer, LossHistory()], **FIT)
    rows = seconds_in(capsys.readouterr().out)

    assert {"train steps": 18, "test steps": 18} == timer.timings.calls
    assert {"training steps", "validation steps", "everything else", "whole"} == set(rows)
    assert np.isclose(rows["whole"][0], timer.whole_secs, atol=0.006)


def test_before_it_has_measured_anything_there_is_a_table_as_well():
    assert "whole" in Timer().to_text()

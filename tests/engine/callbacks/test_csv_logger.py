import copy
import csv
import functools
import gc
import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from engine import ConfigError
from engine.callbacks import CSVLogger, LambdaCallback, LossHistory
from tests.helpers import as_datasets, perceptron, samples
from tests.traced import Traced

pytestmark = pytest.mark.shares_models
X, Y = samples(43, shape=(4,))  # six batches of at most 8
FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}
VALIDATED = {"validation_data": (X, Y)}


@functools.cache
def traced(in_trainer):
    return Traced(perceptron(), in_trainer=in_trainer)


def trainer():
    """One that has not trained yet."""
    return traced(True).anew()


def fit_by_keras(**arguments):
    return traced(False).anew().fit(**as_datasets(x=X, y=Y, **arguments, **FIT))


def rows_of(path, separator=","):
    with path.open(newline="") as file:
        return list(csv.reader(file, delimiter=separator))


def resuming(callback, state):
    """What a Trainer does that resumes: `set_state` after every `on_train_begin`."""
    return LambdaCallback(on_train_begin=lambda logs: callback.set_state(json.loads(json.dumps(state))))


class Bracketed(keras.metrics.Metric):
    """A metric whose result is an array."""

    def update_state(self, *arguments, **named):
        """Counts nothing."""

    def result(self):
        return keras.ops.convert_to_tensor([0.25, 0.5])


@pytest.mark.parametrize(
    ("arguments", "fit"),
    [
        ({}, VALIDATED),
        ({"separator": ";"}, VALIDATED),
        ({}, {**VALIDATED, "initial_epoch": 1, "epochs": 3}),
        ({}, {**VALIDATED, "validation_freq": 2, "epochs": 4}),
        ({}, {"epochs": 0}),
    ],
)
def test_the_file_is_that_of_keras_byte_for_byte(tmp_path, arguments, fit):
    """Keras guesses the columns of a validation that comes later, and here it guesses right."""
    theirs, ours = (
        keras.callbacks.CSVLogger(tmp_path / "theirs", **arguments),
        CSVLogger(tmp_path / "ours", **arguments),
    )
    fit_by_keras(callbacks=[theirs, ours], **({"epochs": 2} | fit))

    assert (tmp_path / "theirs").read_bytes() == (tmp_path / "ours").read_bytes()


def test_an_array_is_written_as_keras_writes_it(tmp_path):
    theirs, ours = keras.callbacks.CSVLogger(tmp_path / "theirs"), CSVLogger(tmp_path / "ours")
    logs = {"f1": np.array([0.25, 0.5]), "rate": np.float32(0.1), "name": "a,b", "zero": np.array(2.0), "val_": 1}
    for callback in (theirs, ours):
        callback.on_train_begin()
        callback.on_epoch_end(0, logs)
        callback.on_epoch_end(1, logs)
        callback.on_train_end()

    assert (tmp_path / "theirs").read_bytes() == (tmp_path / "ours").read_bytes()
    assert b'"""[0.25, 0.5]"""' in (tmp_path / "ours").read_bytes()


def test_epochs_of_a_trainer_are_its_history(tmp_path):
    history = trainer().fit(X, Y, epochs=2, **VALIDATED, callbacks=[CSVLogger(tmp_path / "a" / "log")], **FIT)
    header, *rows = rows_of(tmp_path / "a" / "log")

    assert ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"] == header
    assert [[str(epoch), *(repr(values[epoch]) for values in history.history.values())] for epoch in (0, 1)] == rows


def test_a_value_that_comes_later_gets_a_column_and_nothing_is_guessed(tmp_path):
    """A learning rate too, which Keras drops."""
    own, path = trainer(), tmp_path / "log"
    late = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update({"late": epoch} if epoch else {}))
    fit = {"validation_freq": 2, "epochs": 2, "callbacks": [late, CSVLogger(path)]}
    own.fit(X, Y, **fit, **VALIDATED, **FIT)
    header, first, second = rows_of(path)

    assert ["epoch", "accuracy", "late", "loss", "val_accuracy", "val_loss"] == header
    assert ["NA"] * 3 == [first[2], *first[4:]]
    assert "1" == second[2]
    assert "NA" not in second
    own.fit(X, Y, callbacks=[CSVLogger(path)], **FIT)
    assert ["epoch", "accuracy", "loss"] == rows_of(path)[0]
    assert ["log"] == os.listdir(tmp_path)


def test_every_step_has_its_line_with_its_own_values(tmp_path):
    losses = LossHistory()
    trainer().fit(X, Y, epochs=2, callbacks=[losses, CSVLogger(tmp_path / "log", by="batch")], **FIT)
    header, *rows = rows_of(tmp_path / "log")

    assert ["epoch", "batch", "step", "accuracy", "loss"] == header
    assert [[str(i // 6), str(i % 6), str(i + 1)] for i in range(12)] == [row[:3] for row in rows]
    assert losses.losses.tolist() == [float(row[4]) for row in rows]


@pytest.mark.parametrize(("per_call", "steps"), [(1, [1, 2, 3, 4, 5, 6]), (4, [4, 6])])
def test_under_fit_the_steps_are_counted_too(tmp_path, per_call, steps):
    """Keras calls the last batch of an execution of four that has but two 7; there are six."""
    model, means = perceptron(steps_per_execution=per_call), []
    told = LambdaCallback(on_train_batch_end=lambda batch, logs: means.append(logs["loss"]))
    model.fit(X, Y, epochs=2, callbacks=[CSVLogger(tmp_path / "log", by="batch"), told], **FIT)
    _, *rows = rows_of(tmp_path / "log")

    assert [*steps, *(6 + step for step in steps)] == [int(row[2]) for row in rows]
    assert means == [float(row[4]) for row in rows]


def test_only_a_file_by_batches_listens_to_batches(tmp_path):
    """For a listener, the values of every step are fetched."""
    assert getattr(CSVLogger(tmp_path / "log").on_train_batch_end, "_is_default", False)
    assert not getattr(CSVLogger(tmp_path / "log", by="batch").on_train_batch_end, "_is_default", False)


def test_appending_goes_on_below_the_same_header(tmp_path):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for epochs, begin in ((2, 0), (3, 2)):
        callbacks = [keras.callbacks.CSVLogger(theirs, append=True), CSVLogger(ours, append=True)]
        fit_by_keras(epochs=epochs, initial_epoch=begin, callbacks=callbacks, **VALIDATED)

    assert theirs.read_bytes() == ours.read_bytes()
    assert ["epoch", "0", "1", "2"] == [row[0] for row in rows_of(ours)]


def test_appending_may_add_the_columns_of_a_validation(tmp_path):
    own, path = trainer(), tmp_path / "log"
    own.fit(X, Y, callbacks=[CSVLogger(path, append=True)], **FIT)
    own.fit(X, Y, callbacks=[CSVLogger(path, append=True)], **VALIDATED, **FIT)
    own.fit(X, Y, callbacks=[CSVLogger(path, append=True)], **FIT)
    header, *rows = rows_of(path)

    assert ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"] == header
    assert [2, 0, 2] == [row.count("NA") for row in rows]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("step,loss\r\n", "its columns are step, loss, not epoch and values"),
        ("epoch;accuracy;loss\r\n", "its columns are epoch;accuracy;loss, not epoch and values"),
        ("epoch,auc,loss\r\n", "has the columns auc, loss, and this training accuracy, loss"),
        ("epoch,loss\r\n", "has the columns loss, and this training accuracy, loss"),
    ],
)
def test_appending_to_another_table_is_refused_and_leaves_it(tmp_path, header, words):
    path = tmp_path / "log"
    path.write_bytes(header.encode())
    with pytest.raises(ConfigError, match=words):
        trainer().fit(X, Y, callbacks=[CSVLogger(path, append=True)], **FIT)

    assert header.encode() == path.read_bytes()


@pytest.mark.parametrize("by", ["epoch", "batch"])
@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("columns", ["the same", "more after the checkpoint"])
def test_a_resumed_run_has_each_row_once(tmp_path, by, append, columns):
    """The run goes on to epoch 3, is lost, and is resumed from its checkpoint at the end of epoch 1."""
    fit = {**FIT, "callbacks": None, "validation_freq": 2}
    fit |= VALIDATED if columns != "the same" else {}
    files = [tmp_path / name for name in ("whole", "cut")]
    states = {}
    for path in files:
        path.write_bytes(b"" if append else b"an older file")
    whole, cut = (CSVLogger(path, append=append, by=by) for path in files)
    checkpoint = LambdaCallback(on_epoch_end=lambda epoch, logs: states.update({epoch: cut.get_state()}))
    trainer().fit(X, Y, epochs=4, **(fit | {"callbacks": [whole, cut, checkpoint]}))
    resumed = CSVLogger(files[1], append=append, by=by)
    after_first = CSVLogger(tmp_path / "first", by=by)
    trainer().fit(X, Y, epochs=1, **(fit | {"callbacks": [after_first]}))
    cut_back = {**fit, "callbacks": [resumed, resuming(resumed, states[0])]}
    trainer().fit(X, Y, epochs=0, **cut_back)

    assert (tmp_path / "first").read_bytes() == files[1].read_bytes()
    trainer().fit(X, Y, epochs=1, **fit)
    resumed = CSVLogger(files[1], append=append, by=by)
    traced(True).runner.fit(
        X, Y, epochs=4, initial_epoch=1, **(fit | {"callbacks": [resumed, resuming(resumed, states[0])]})
    )
    if by == "epoch":
        assert files[0].read_bytes() == files[1].read_bytes()
    else:  # the number of a step is the Trainer's to restore
        without_steps = ([row[:2] + row[3:] for row in rows_of(path)] for path in files)
        assert next(without_steps) == next(without_steps)


def test_a_state_of_before_the_first_row_empties_the_file(tmp_path):
    """It is given up as soon as there is a row, and not before."""
    path = tmp_path / "log"
    path.write_bytes(b"an older file")
    logger, states = CSVLogger(path), []
    state = LambdaCallback(on_epoch_begin=lambda epoch, logs: states.append(logger.get_state()))
    seen = LambdaCallback(on_train_batch_end=lambda batch, logs: states.append(path.read_bytes()))
    trainer().fit(X[:8], Y[:8], callbacks=[logger, state, seen], **FIT)
    whole = path.read_bytes()
    trainer().fit(X[:8], Y[:8], callbacks=[logger, resuming(logger, states[0])], **FIT)

    assert [{"names": None, "rows": 0}, b"an older file"] == states
    assert whole == path.read_bytes()
    assert 2 == len(rows_of(path))


@pytest.mark.parametrize("by", ["epoch", "batch"])
def test_a_resume_that_fails_before_the_state_is_taken_up_costs_no_row(tmp_path, by):
    """What stands in the file is needed when the run is resumed again."""
    path = tmp_path / "log"
    trainer().fit(X, Y, callbacks=[CSVLogger(path, by=by)], **FIT)
    before = path.read_bytes()

    def fail(logs):
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        trainer().fit(X, Y, callbacks=[CSVLogger(path, by=by), LambdaCallback(on_train_begin=fail)], **FIT)

    assert before == path.read_bytes()


def test_rows_that_are_gone_are_told(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"epoch,accuracy,loss\r\n0,1.0,2.0\r\n")
    logger = CSVLogger(path)
    state = {"names": ["accuracy", "loss"], "rows": 3}
    with pytest.warns(UserWarning, match="log holds 1 of the 3 rows that were written before the checkpoint"):
        trainer().fit(X, Y, initial_epoch=3, epochs=4, callbacks=[logger, resuming(logger, state)], **FIT)

    assert ["epoch", "0", "3"] == [row[0] for row in rows_of(path)]


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_the_file_is_closed_when_training_fails(tmp_path):
    """A file left open would warn when it is collected."""

    def fail(epoch, logs):
        raise ArithmeticError

    logger = CSVLogger(tmp_path / "log")
    for own in (traced(True), traced(False)):
        with pytest.raises(ArithmeticError):
            own.anew().fit(X, Y, callbacks=[logger, LambdaCallback(on_epoch_end=fail)], **FIT)
    fit_by_keras(callbacks=[logger])
    del logger
    gc.collect()

    assert 2 == len(rows_of(tmp_path / "log"))


def test_a_failed_rewriting_leaves_the_old_file(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    path = tmp_path / "log"
    refusing = LambdaCallback(on_epoch_begin=lambda epoch, logs: epoch and monkeypatch.setattr(os, "replace", refuse))
    with pytest.raises(OSError, match="No space left"):
        trainer().fit(X, Y, epochs=2, validation_freq=2, callbacks=[CSVLogger(path), refusing], **VALIDATED, **FIT)

    assert ["epoch", "0"] == [row[0] for row in rows_of(path)]
    assert ["log"] == os.listdir(tmp_path)


def test_a_place_where_nothing_can_be_written_is_refused_before_the_first_step(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    steps = []
    told = LambdaCallback(on_epoch_begin=lambda epoch, logs: steps.append(epoch))
    for path, error in (
        (tmp_path / "file" / "log", (NotADirectoryError, FileExistsError)),
        (tmp_path, IsADirectoryError),
    ):
        with pytest.raises(error):
            trainer().fit(X, Y, callbacks=[CSVLogger(path), told], **FIT)

    assert [] == steps


def test_a_copy_writes_a_file_of_its_own_accord(tmp_path):
    copied = copy.deepcopy(CSVLogger(tmp_path / "log", by="batch"))
    trainer().fit(X, Y, callbacks=[copied], **FIT)

    assert 7 == len(rows_of(tmp_path / "log"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"by": "step"}, "by='step': expected 'epoch' or 'batch'"),
        ({"separator": ""}, "separator='': expected one character"),
        ({"separator": ", "}, "separator=', ': expected one character"),
    ],
)
def test_a_wrong_argument_is_refused(arguments, words):
    with pytest.raises(ConfigError, match=words):
        CSVLogger("log", **arguments)


KILLED = """
import sys
from engine import Trainer
from engine.callbacks import CSVLogger, LambdaCallback
from tests.helpers import perceptron, samples
x, y = samples(4000, shape=(4,))
logger = CSVLogger(sys.argv[1], by="batch")
Trainer(perceptron()).fit(x, y, batch_size=4, epochs=10**6, callbacks=[logger], verbose=0)
"""


@pytest.mark.slow
def test_a_killed_run_has_whole_rows_only(tmp_path):
    path = tmp_path / "log"
    process = subprocess.Popen([sys.executable, "-c", KILLED, path], cwd=os.getcwd())
    deadline = time.monotonic() + 120
    while (not path.exists() or path.stat().st_size < 100_000) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    header, *rows = rows_of(path)

    assert {len(header)} == {len(row) for row in rows}
    assert list(range(1, len(rows) + 1)) == [int(row[2]) for row in rows]

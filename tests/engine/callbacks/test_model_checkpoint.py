import copy
import functools
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from engine import ConfigError, Every, Trainer
from engine.callbacks import LambdaCallback, ModelCheckpoint
from engine.callbacks.atomic import temporary_for
from tests.helpers import as_datasets, assert_bit_equal, perceptron, samples, weights_of
from tests.traced import Traced

pytestmark = pytest.mark.shares_models

X, Y = samples(43, shape=(4,))  # six batches of at most 8
FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}
VALIDATED = {"validation_data": (X[:20], Y[:20])}
WEIGHTS = {"save_weights_only": True}
LOSS = {"monitor": "loss", "mode": "min"}


def datasets_of(path):
    """Every array in a file of Keras, by its name in there."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            path = io.BytesIO(archive.read("model.weights.h5"))
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return found


def assert_same_files(expected, given):
    assert sorted(os.listdir(expected)) == sorted(os.listdir(given))
    for name in os.listdir(expected):
        theirs, ours = datasets_of(expected / name), datasets_of(given / name)

        assert list(theirs) == list(ours)
        assert theirs  # a file without arrays would prove nothing
        for key, array in theirs.items():
            np.testing.assert_array_equal(array, ours[key], err_msg=f"{name}: {key}")


def names_in(directory):
    return sorted(os.listdir(directory))


def model():
    keras.utils.clear_session(free_memory=False)  # layers of one name, which stands in an .h5 file
    return perceptron(optimizer=keras.optimizers.Adam(0.1))


@functools.cache
def traced(in_trainer):
    return Traced(model(), in_trainer=in_trainer)


def trainer():
    """One that has not trained yet."""
    return traced(True).anew()


def untrained():
    """A model for `model.fit`."""
    return traced(False).anew()


SAME_AS_KERAS = [
    ("{epoch:02d}.keras", {}),
    ("{epoch}-{val_loss:.3f}-{accuracy:.2f}.keras", {}),
    ("last.h5", {}),
    ("{epoch}.weights.h5", WEIGHTS),
    ("{epoch}-{batch}.weights.h5", {**WEIGHTS, "save_freq": 4}),
    ("{epoch}-{batch}-{loss:.4f}.keras", {"save_freq": 7}),
    ("{epoch}.keras", {"save_best_only": True}),
    ("{epoch}.keras", {"save_best_only": True, "monitor": "loss", "mode": "max"}),
    ("{epoch}.keras", {"save_best_only": True, "monitor": "val_accuracy"}),
    ("{epoch}.keras", {"save_best_only": True, "monitor": "val_loss", "initial_value_threshold": 0.9}),
    ("{epoch}.keras", {"save_best_only": True, "monitor": "val_loss", "initial_value_threshold": 0.0}),
    ("best.weights.h5", {"save_best_only": True, **WEIGHTS, "monitor": "accuracy", "mode": "max"}),
]


@pytest.mark.parametrize(("name", "arguments"), SAME_AS_KERAS)
def test_the_files_are_those_of_keras(tmp_path, name, arguments):
    """Beside Keras's own in one `model.fit`, and in a Trainer with another model made alike."""
    paths = [tmp_path / who / name for who in ("keras", "fit", "trainer")]
    theirs = keras.callbacks.ModelCheckpoint(paths[0], **arguments)
    ours = ModelCheckpoint(paths[1], **arguments, background=False)
    in_trainer = ModelCheckpoint(paths[2], **arguments)
    for path in paths:
        path.parent.mkdir()
    # When Keras has saved a model as .h5, it has forgotten by which optimizer.
    by_keras, by_us = (model(), Trainer(model())) if name == "last.h5" else (untrained(), trainer())
    by_keras.fit(**as_datasets(x=X, y=Y, epochs=3, **VALIDATED, **FIT), callbacks=[theirs, ours])
    by_us.fit(X, Y, epochs=3, callbacks=[in_trainer], **VALIDATED, **FIT)

    assert_same_files(paths[0].parent, paths[1].parent)
    assert_same_files(paths[0].parent, paths[2].parent)
    assert theirs.best == ours.best
    if theirs.best is not None:
        assert theirs.best == pytest.approx(in_trainer.best, rel=1e-6)  # ours sums in float64


def test_a_saved_model_goes_on_as_the_one_that_was_saved(tmp_path):
    trainer().fit(X, Y, callbacks=[ModelCheckpoint(tmp_path / "model.keras")], **FIT)
    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert_bit_equal(weights_of(traced(True).model), weights_of(loaded))


def test_an_existing_best_file_is_not_given_up_in_another_fit(tmp_path):
    """As in Keras: the second fit, of a bad model, finds nothing better."""
    theirs = keras.callbacks.ModelCheckpoint(tmp_path / "theirs.keras", "loss", save_best_only=True)
    ours = ModelCheckpoint(tmp_path / "ours.keras", "loss", save_best_only=True)
    trained = untrained()
    trained.fit(X, Y, epochs=3, callbacks=[theirs, ours], **FIT)
    content = (tmp_path / "ours.keras").read_bytes()
    trained.set_weights([np.full_like(array, 9.0) for array in trained.get_weights()])
    trained.fit(X, Y, epochs=1, callbacks=[theirs, ours], **FIT)

    assert theirs.best == ours.best
    assert content == (tmp_path / "ours.keras").read_bytes()


@pytest.mark.parametrize(
    ("save_freq", "names"),
    [
        (Every(epochs=2), ["12.keras"]),
        (Every(steps=4), ["12.keras", "16.keras", "4.keras", "8.keras"]),
        (5, ["10.keras", "15.keras", "5.keras"]),
        ("epoch", ["12.keras", "18.keras", "6.keras"]),
    ],
)
def test_the_cadence_is_that_which_was_asked_for(tmp_path, save_freq, names):
    """Under `model.fit` as in a Trainer; the file of a step holds what the model was after that very step."""
    for number, make in enumerate((untrained, trainer), 1):
        directory = tmp_path / str(number)
        callback = ModelCheckpoint(directory / "{step}.keras", save_freq=save_freq)
        make().fit(X, Y, epochs=3, callbacks=[callback], **FIT)

        assert names == names_in(directory)
        for name in names:
            loaded = keras.models.load_model(directory / name)
            assert int(name.removesuffix(".keras")) == int(loaded.optimizer.iterations)
    assert_same_files(tmp_path / "1", tmp_path / "2")


def test_steps_are_counted_exactly_whatever_steps_per_execution_is(tmp_path):
    """Six batches in executions of 4 and 2: step 5 is passed at 6, 10 at 10, 15 at 16. Keras counts 4, 8, 12, 16."""
    trained = perceptron(steps_per_execution=4)
    checkpoint = ModelCheckpoint(tmp_path / "{step}.keras", save_freq=5)
    trained.fit(X, Y, epochs=3, callbacks=[checkpoint], **FIT)

    assert ["10.keras", "16.keras", "6.keras"] == names_in(tmp_path)


def test_after_steps_the_running_means_are_compared(tmp_path):
    """Keras fails here: `TypeError: 'NoneType' object is not callable`."""
    means = []
    told = LambdaCallback(on_train_batch_end=lambda batch, logs: means.append(logs["loss"]))
    checkpoint = ModelCheckpoint(tmp_path / "{step}.keras", "loss", save_best_only=True, save_freq=2)
    trainer().fit(X, Y, epochs=2, callbacks=[told, checkpoint], **FIT)
    bests = [step for step in range(2, 13, 2) if means[step - 1] < min(means[1 : step - 1 : 2], default=np.inf)]

    assert sorted(f"{step}.keras" for step in bests) == names_in(tmp_path)
    assert 1 < len(bests)
    assert means[bests[-1] - 1] == checkpoint.best


@pytest.mark.parametrize("save_freq", [4, 12])
def test_a_value_of_the_validation_is_compared_when_the_validation_is_over(tmp_path, save_freq):
    """So that it is that of the very model that is saved: evaluated again, it gives the same."""
    checkpoint = ModelCheckpoint(
        tmp_path / "{step}-{val_loss:.9f}.keras", save_best_only=True, save_freq=save_freq, initial_value_threshold=9.0
    )
    validated = []
    told = LambdaCallback(on_test_end=lambda logs: validated.append(logs["loss"]))
    fit = {"validation_freq": Every(steps=4), "epochs": 4, **VALIDATED}
    trainer().fit(X, Y, callbacks=[told, checkpoint], **fit, **FIT)
    due = [(4 * i, loss) for i, loss in enumerate(validated, 1) if 4 * i % save_freq == 0]
    bests = [(step, loss) for i, (step, loss) in enumerate(due) if loss < min((old for _, old in due[:i]), default=9.0)]

    assert sorted(f"{step}-{loss:.9f}.keras" for step, loss in bests) == names_in(tmp_path)
    for step, loss in bests:
        scores = Trainer(keras.models.load_model(tmp_path / f"{step}-{loss:.9f}.keras")).evaluate(
            *VALIDATED["validation_data"], verbose=0
        )
        assert loss == pytest.approx(scores["loss"], rel=1e-6)  # one batch of 20, against three of 8


def test_only_steps_listen_to_batches_and_end_blocks(tmp_path):
    """For a listener, the values of every step are fetched."""
    for arguments, listens, acts_every in [
        ({}, False, None),
        ({"save_freq": Every(epochs=2)}, False, None),
        ({"save_freq": 5}, True, Every(steps=5)),
        ({"save_freq": 5, "save_best_only": True, "monitor": "loss"}, True, Every(steps=5)),
        ({"save_freq": 5, "save_best_only": True}, True, None),
    ]:
        checkpoint = ModelCheckpoint(tmp_path / "{epoch}.keras", **arguments)

        assert listens != getattr(checkpoint.on_train_batch_end, "_is_default", False), arguments
        assert acts_every == checkpoint.acts_every, arguments
        assert not checkpoint.acts_on_batches, arguments


def test_a_monitor_that_is_not_there_is_no_improvement(tmp_path):
    """Keras saves every time. Under `model.fit` it is said once; a Trainer refuses it before step 1."""
    checkpoint = ModelCheckpoint(tmp_path / "{epoch}.keras", save_best_only=True)
    with pytest.warns(
        UserWarning, match="ModelCheckpoint monitors 'val_loss', but the logs .* hold 'accuracy', 'loss'"
    ) as told:
        untrained().fit(X, Y, epochs=3, callbacks=[checkpoint], **FIT)

    assert 1 == len(told)
    assert [] == names_in(tmp_path)
    with pytest.raises(ConfigError, match="ModelCheckpoint monitors 'val_loss'"):
        trainer().fit(X, Y, callbacks=[checkpoint], **FIT)


def test_a_direction_that_nothing_tells_is_refused_before_the_first_step_and_only_if_it_matters(tmp_path):
    """Keras refuses it at the end of the first epoch, and also where nothing is compared."""
    steps = []
    told = LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))

    def spread(y, p):
        return keras.ops.std(p, axis=-1)

    trainer = Trainer(perceptron(metrics=[spread]))
    with pytest.raises(ConfigError, match="monitor='spread': nothing tells whether a lower or a higher"):
        trainer.fit(X, Y, callbacks=[told, ModelCheckpoint(tmp_path / "a.keras", "spread", save_best_only=True)], **FIT)
    assert [] == steps
    trainer.fit(X, Y, callbacks=[ModelCheckpoint(tmp_path / "a.keras", "spread")], **FIT)
    assert ["a.keras"] == names_in(tmp_path)


@pytest.mark.parametrize("first", [np.nan, 2.0])
def test_nan_is_no_improvement_and_does_not_stand_in_the_way_of_one(tmp_path, first):
    """With NaN as the first value, Keras never saves again."""
    values = [first, np.nan, 1.0, np.nan]
    change = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(loss=values[epoch]))
    checkpoint = ModelCheckpoint(tmp_path / "{epoch}.keras", "loss", save_best_only=True)
    trainer().fit(X, Y, epochs=4, callbacks=[change, checkpoint], **FIT)

    assert (["1.keras"] if first == 2.0 else []) + ["3.keras"] == names_in(tmp_path)
    assert 1.0 == checkpoint.best


def test_a_slow_disk_leaves_no_doubt_about_what_was_best(tmp_path, monkeypatch):
    """The next value is compared when the file before it is in its place, not with the value of before."""
    values, real = [2.0, 1.0, 1.5], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (time.sleep(0.2), real(descriptor)))
    change = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(loss=values[epoch]))
    checkpoint = ModelCheckpoint(tmp_path / "{epoch}.keras", "loss", save_best_only=True)
    trainer().fit(X, Y, epochs=3, callbacks=[change, checkpoint], **FIT)

    assert ["1.keras", "2.keras"] == names_in(tmp_path)
    assert 1.0 == checkpoint.best


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ({"keep_last": 2}, [5, 6]),
        ({"keep_best": 2}, [2, 4]),
        ({"keep_best": 1, "keep_last": 2}, [2, 5, 6]),
        ({"keep_best": 9}, [1, 2, 3, 4, 5, 6]),
        ({"keep_best": 2, "mode": "max"}, [1, 3]),
        ({"keep_last": 1, "save_best_only": True}, [2]),
    ],
)
@pytest.mark.parametrize("background", [True, False])
def test_of_the_files_that_it_wrote_it_keeps_the_last_and_the_best(tmp_path, arguments, kept, background):
    """By the order of saving: their times, and what else lies there, mean nothing."""
    values = [5.0, 1.0, 4.0, 2.0, 3.0, 3.5]
    (tmp_path / "0.keras").write_bytes(b"another's")

    def change(epoch, logs):
        logs.update(loss=values[epoch])
        for name in os.listdir(tmp_path):
            os.utime(tmp_path / name, (10**9 - epoch,) * 2)

    checkpoint = ModelCheckpoint(tmp_path / "{epoch}.keras", **({"monitor": "loss"} | arguments), background=background)
    trainer().fit(X, Y, epochs=6, callbacks=[LambdaCallback(on_epoch_end=change), checkpoint], **FIT)

    assert ["0.keras", *(f"{epoch}.keras" for epoch in kept)] == names_in(tmp_path)
    assert [f"{tmp_path}/{epoch}.keras" for epoch in kept] == [file.path for file in checkpoint.files]


def test_an_epoch_without_the_monitor_is_kept_for_being_the_last(tmp_path):
    """Validation every other epoch; nothing is said where it is only not due."""
    checkpoint = ModelCheckpoint(tmp_path / "{epoch}.keras", keep_best=1, keep_last=1)
    history = trainer().fit(X, Y, epochs=5, validation_freq=2, callbacks=[checkpoint], **VALIDATED, **FIT).history
    rated = {Path(file.path).name: file.value for file in checkpoint.files}
    best = 2 + 2 * int(np.argmin(history["val_loss"]))

    assert [f"{best}.keras", "5.keras"] == sorted(rated) == names_in(tmp_path)
    assert min(history["val_loss"]) == rated[f"{best}.keras"]
    assert rated["5.keras"] is None


def test_a_file_that_somebody_took_away_is_no_error(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path / "{epoch}.keras", keep_last=1, background=False)
    take = LambdaCallback(on_epoch_begin=lambda epoch, logs: epoch == 2 and os.unlink(tmp_path / "2.keras"))
    trainer().fit(X, Y, epochs=3, callbacks=[checkpoint, take], **FIT)

    assert ["3.keras"] == names_in(tmp_path)


def resuming(checkpoint, states):
    """What a Trainer does that resumes: `set_state`, of the last state, after every `on_train_begin`."""
    return LambdaCallback(on_train_begin=lambda logs: checkpoint.set_state(json.loads(json.dumps(states[-1]))))


@pytest.mark.parametrize("arguments", [{"keep_last": 2, "keep_best": 1}, {"save_best_only": True}])
def test_a_resumed_run_leaves_the_files_of_the_whole_run(tmp_path, arguments):
    values = [1.0, 3.0, 2.0, 4.0, 0.5]
    change = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(loss=values[epoch]))
    whole, first, second = (
        ModelCheckpoint(tmp_path / name / "{epoch}.keras", "loss", **arguments) for name in ("whole", "cut", "cut")
    )
    trainer().fit(X, Y, epochs=5, callbacks=[change, whole], **FIT)
    states = []
    save = LambdaCallback(on_epoch_end=lambda epoch, logs: states.append(first.get_state()))
    resumed = [change, second, resuming(second, states)]
    trainer().fit(X, Y, epochs=3, callbacks=[change, first, save], **FIT)
    traced(True).runner.fit(X, Y, epochs=5, initial_epoch=3, callbacks=resumed, **FIT)

    assert_same_files(tmp_path / "whole", tmp_path / "cut")
    assert whole.best == second.best
    assert [file.value for file in whole.files] == [file.value for file in second.files]


def test_a_state_never_makes_it_delete_what_is_not_its_own(tmp_path):
    """A checkpoint may come from elsewhere."""
    others = [tmp_path / "precious.keras", tmp_path / "sub" / "1.keras"]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    paths = [*map(str, others), f"{tmp_path}/runs/../precious.keras"]
    checkpoint = ModelCheckpoint(tmp_path / "runs" / "{epoch}-.keras", keep_last=1)
    state = {"best": None, "files": [[path, None] for path in paths], "is_due": False, "step_values": {}}
    trainer().fit(X, Y, callbacks=[checkpoint, resuming(checkpoint, [state])], **FIT)

    assert all(path.exists() for path in others)
    assert ["1-.keras"] == names_in(tmp_path / "runs")


def refusing_at(monkeypatch, name, k):
    """The system refuses the k-th call, counted from 1, of one of its functions."""
    real, calls = getattr(os, name), []

    def call(*arguments):
        calls.append(arguments)
        if len(calls) == k:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(
    ("ending", "name", "k"),
    [
        (".keras", "replace", 1),
        (".weights.h5", "replace", 2),
        (".weights.h5", "fsync", 1),
        (".keras", "fsync", 3),
        (".keras", "fsync", 4),
    ],
)
def test_a_system_that_refuses_costs_no_file_and_leaves_nothing_behind(
    tmp_path, monkeypatch, background, name, k, ending
):
    """What stands there is whole: the file of before, or, if its name alone is not yet on the disk, the new one."""
    path, epochs = tmp_path / f"model{ending}", []
    weights = {"save_weights_only": ending != ".keras"}
    trainer().fit(X, Y, callbacks=[ModelCheckpoint(path, **weights)], **FIT)
    before = datasets_of(path)
    refusing_at(monkeypatch, name, k)
    told = LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    checkpoint = ModelCheckpoint(path, **weights, background=background)
    with pytest.raises(OSError, match="No space left on device") as caught:
        trainer().fit(X, Y, epochs=3, callbacks=[told, checkpoint], **FIT)

    assert OSError is type(caught.value)
    assert [path.name] == names_in(tmp_path)
    assert list(before) == list(datasets_of(path))
    failed = k - 1 if name == "replace" else (k - 1) // 2  # a file is synchronised, and then its name
    assert epochs[-1] in ((failed, failed + 1) if background else (failed,))
    assert not any(thread.name.startswith("Publisher") for thread in threading.enumerate())
    if (name, k) in (("replace", 1), ("fsync", 1)):
        assert all(np.array_equal(before[key], array) for key, array in datasets_of(path).items())


@pytest.mark.parametrize("run", ["fit", "trainer"])
def test_the_last_file_may_fail_too(tmp_path, monkeypatch, run):
    """It is waited for in `on_train_end`."""
    refusing_at(monkeypatch, "replace", 1)
    fit = untrained().fit if run == "fit" else trainer().fit
    with pytest.raises(OSError, match="No space left on device"):
        fit(X, Y, callbacks=[ModelCheckpoint(tmp_path / "a.keras")], **FIT)

    assert [] == names_in(tmp_path)


def test_a_full_disk_is_noticed_before_a_file_is_begun(tmp_path, monkeypatch):
    """HDF5 takes the whole process down where the disk is full while it writes."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    saved, trained = [], model()
    trained.save_weights = lambda *arguments, **named: saved.append(arguments)
    path = tmp_path / "a.weights.h5"
    with pytest.raises(
        OSError, match=r"No space left on device: 1000 bytes are free, and the model needs 1\d{6}: "
    ) as caught:
        Trainer(trained).fit(X, Y, callbacks=[ModelCheckpoint(path, save_weights_only=True)], **FIT)

    assert 28 == caught.value.errno
    assert str(path) == caught.value.filename
    assert ([], []) == (saved, names_in(tmp_path))


@pytest.mark.parametrize("num_layers", [1, 20])
def test_the_room_that_is_asked_for_is_enough(tmp_path, monkeypatch, num_layers):
    """Of many small variables, what describes them is the most; of a large one, its values."""
    asked = []
    real = shutil.disk_usage
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(4 if num_layers > 1 else 300_000, activation="softmax") for _ in range(num_layers)]
    trained = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(3, activation="softmax")])
    trained.compile("adam", "sparse_categorical_crossentropy")
    own = Trainer(trained)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or shutil._ntuple_diskusage(0, 0, 0))
    for name, arguments in (("a.weights.h5", WEIGHTS), ("a.keras", {})):
        with pytest.raises(OSError, match="the model needs") as caught:
            own.fit(X, Y, callbacks=[ModelCheckpoint(tmp_path / name, **arguments)], **FIT)
        needed = int(str(caught.value).split("the model needs ")[1].split(":")[0])
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", real)
            own.fit(X, Y, callbacks=[ModelCheckpoint(tmp_path / name, **arguments)], **FIT)

        assert (tmp_path / name).stat().st_size < needed < 2 * (tmp_path / name).stat().st_size + 2_000_000


def test_a_file_that_may_not_grow_costs_no_file(tmp_path):
    """A limit on the size of files stands for a full disk: `.keras` is written by Python, and fails in words."""
    path = tmp_path / "a.keras"
    own, limits = trainer(), resource.getrlimit(resource.RLIMIT_FSIZE)
    own.fit(X, Y, callbacks=[ModelCheckpoint(path)], **FIT)
    before = path.read_bytes()
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            own.fit(X, Y, callbacks=[ModelCheckpoint(path)], **FIT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)

    assert before == path.read_bytes()
    assert ["a.keras"] == names_in(tmp_path)


@pytest.mark.parametrize("error", [ArithmeticError, KeyboardInterrupt])
def test_after_an_error_in_the_training_the_file_on_its_way_arrives(tmp_path, error):
    def fail(epoch, logs):
        raise error

    checkpoint = ModelCheckpoint(tmp_path / "{epoch}.keras")
    for run in (trainer().fit, untrained().fit):
        with pytest.raises(error):
            run(X, Y, callbacks=[checkpoint, LambdaCallback(on_epoch_end=fail)], **FIT)
    checkpoint.get_state()  # after an error under `model.fit`, nobody has waited

    assert ["1.keras"] == names_in(tmp_path)
    assert datasets_of(tmp_path / "1.keras")


def test_what_a_killed_process_left_is_removed_when_training_begins(tmp_path):
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    names = [temporary_for(tmp_path / name).name for name in ("7.keras", "seven.weights.h5")]
    left, others = (name.replace(f"-{os.getpid()}-", f"-{done.pid}-") for name in names)
    for name in (left, others):
        (tmp_path / name).write_bytes(b"")
    trainer().fit(X, Y, epochs=0, callbacks=[ModelCheckpoint(tmp_path / "{epoch}.keras")], **FIT)

    assert [others] == names_in(tmp_path)


@pytest.mark.parametrize("place", ["file/a.keras", "file/sub/{epoch}.keras", "directory"])
def test_where_nothing_can_be_written_is_said_before_the_first_step(tmp_path, place):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "directory.keras").mkdir()
    steps = []
    told = LambdaCallback(on_epoch_begin=lambda epoch, logs: steps.append(epoch))
    path = tmp_path / (place if place != "directory" else "directory.keras")
    with pytest.raises((NotADirectoryError, FileExistsError, IsADirectoryError)):
        trainer().fit(X, Y, callbacks=[told, ModelCheckpoint(path)], **FIT)

    assert [] == steps


def test_placeholders_may_name_directories(tmp_path):
    trainer().fit(X, Y, epochs=2, callbacks=[ModelCheckpoint(tmp_path / "{epoch}" / "a.keras", keep_last=1)], **FIT)

    assert ["1", "2"] == names_in(tmp_path)
    assert ([], ["a.keras"]) == (names_in(tmp_path / "1"), names_in(tmp_path / "2"))


def test_the_model_is_asked_to_save_itself_at_each_call(tmp_path):
    """Packages that track experiments replace these functions while a training runs."""
    trained, calls = model(), []

    def replace(epoch, logs):
        trained.save = lambda path, **named: (calls.append(Path(path)), keras.Model.save(trained, path, **named))

    callbacks = [LambdaCallback(on_epoch_begin=replace), ModelCheckpoint(tmp_path / "a.keras")]
    Trainer(trained).fit(X, Y, callbacks=callbacks, **FIT)

    assert [(tmp_path, ".keras")] == [(path.parent, path.suffix) for path in calls]
    assert ["a.keras"] == names_in(tmp_path)


@pytest.mark.parametrize("background", [True, False])
def test_it_says_what_keras_says(tmp_path, capsys, background):
    said = []
    for kind, more in ((keras.callbacks.ModelCheckpoint, {}), (ModelCheckpoint, {"background": background})):
        for best in (False, True):
            checkpoint = kind(str(tmp_path / "a.keras"), "loss", 1, best, mode="max", **more)
            untrained().fit(**as_datasets(x=X, y=Y, epochs=3, **FIT), callbacks=[checkpoint])
        said.append(capsys.readouterr().out)

    assert said[0] == said[1]
    assert "did not improve" in said[0]


def test_a_copy_saves_as_well(tmp_path):
    """A tuner copies every callback for each of its trials."""
    copied = copy.deepcopy(ModelCheckpoint(tmp_path / "{step}.keras", save_freq=3))
    trainer().fit(X, Y, callbacks=[copied], **FIT)

    assert ["3.keras", "6.keras"] == names_in(tmp_path)
    assert ["3.keras", "6.keras"] == [Path(file.path).name for file in copy.deepcopy(copied).files]


@pytest.mark.parametrize("kind", [KeyError, ConfigError])
def test_a_placeholder_that_stands_for_nothing_is_an_error_that_says_what_there_is(tmp_path, kind):
    words = "there is no 'auc' when it is filled in. There are 'accuracy', 'epoch', 'loss', 'step'"
    with pytest.raises(kind, match=re.escape(words)):
        trainer().fit(X, Y, callbacks=[ModelCheckpoint(tmp_path / "{auc}.keras")], **FIT)


@pytest.mark.parametrize(
    ("path", "arguments", "words"),
    [
        ("a.h6", {}, r"filepath='a.h6': with save_weights_only=False it must end in .keras or .h5"),
        ("a.keras", WEIGHTS, r"with save_weights_only=True it must end in .weights.h5"),
        ("a.keras", {"keep_last": 2}, "filepath='a.keras' names one file, .* Give it a placeholder, such as {epoch}"),
        ("{epoch}.keras", {"keep_last": 0}, "keep_last=0: expected a number of files, at least 1, or None"),
        ("{batch}.keras", {}, "there is no 'batch' when it is filled in at an epoch's end"),
        ("{}.keras", {}, "has no plain name"),
        ("a.keras", {"save_freq": "step"}, "save_freq='step': expected 'epoch', a number of steps, Every"),
        ("a.keras", {"save_freq": 0}, "save_freq=0: expected 'epoch'"),
        ("a.keras", {"save_freq": True}, "save_freq=True: expected 'epoch'"),
        ("a.keras", {"save_freq": Every(seconds=1)}, "expected 'epoch', a number of steps, Every"),
        ("a.keras", {"mode": "least"}, "mode='least': expected 'min', 'max' or 'auto'"),
    ],
)
def test_a_wrong_argument_is_refused(path, arguments, words):
    with pytest.raises(ConfigError, match=words):
        ModelCheckpoint(path, **arguments)


KILLED = """
import os, random, signal, sys, time
from pathlib import Path

from engine import Trainer
from engine.callbacks import ModelCheckpoint
from tests.helpers import perceptron, samples

def train(directory, function, last_call):
    real, calls = getattr(os, function, None), []

    def call(*arguments):
        calls.append(arguments)
        if len(calls) == last_call:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    setattr(os, function, call)
    x, y = samples(43, shape=(4,))
    callbacks = [
        ModelCheckpoint(directory / "last.weights.h5", save_weights_only=True, save_freq=1),
        ModelCheckpoint(directory / "{step}.keras", save_freq=2, keep_last=3),
    ]
    Trainer(perceptron(optimizer="adam")).fit(x, y, batch_size=8, epochs=10**6, callbacks=callbacks, verbose=0)

for function, last_call in {"fsync": 9, "replace": 9, "unlink": 2, "none": 0}.items():
    directory = Path(sys.argv[1], function)
    process = os.fork()
    if not process:
        train(directory, function, last_call)
    if function == "none":
        while not any(directory.glob("??.keras")) and not os.waitpid(process, os.WNOHANG)[0]:
            time.sleep(0.01)
        time.sleep(random.Random(0).uniform(0, 0.3))
        os.kill(process, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A directory for each of the processes, which are forks of one that has TensorFlow imported, and done no more."""
    directory = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-c", KILLED, directory]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=240).stdout

    assert [str(-signal.SIGKILL)] * 4 == said.split()
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("function", ["fsync", "replace", "unlink", "none"])
def test_a_process_that_is_killed_in_the_middle_of_saving_leaves_whole_files_only(killed, function):
    """Not on the disk yet, not in its place yet, with a file to delete still there, and at any moment."""
    directory = killed / function
    steps = sorted(int(path.stem) for path in directory.glob("[0-9]*.keras"))

    assert steps
    assert list(range(steps[0], steps[0] + 2 * len(steps), 2)) == steps
    for step in steps:
        assert step == int(keras.models.load_model(directory / f"{step}.keras").optimizer.iterations)
    last = model()
    last.optimizer.build(last.trainable_variables)
    last.load_weights(directory / "last.weights.h5")
    assert 0 <= int(last.optimizer.iterations) - steps[-1] <= 2
    hidden = [name for name in os.listdir(directory) if name.startswith(".")]
    assert hidden or function in ("unlink", "none")  # nobody but a training that begins removes it
    callbacks = [
        ModelCheckpoint(directory / "last.weights.h5", **WEIGHTS),
        ModelCheckpoint(directory / "{step}.keras"),
    ]
    trainer().fit(X, Y, epochs=0, callbacks=callbacks, **FIT)
    assert [] == [name for name in os.listdir(directory) if name.startswith(".")]

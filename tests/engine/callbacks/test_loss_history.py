import os
import struct
import sys
import time

import keras
import numpy as np
import pytest

from engine import ConfigError, Every, Trainer
from engine.callbacks import LambdaCallback, LossHistory
from tests.helpers import perceptron, samples

X, Y = samples(43, shape=(4,))  # six batches of at most 8, the last of three
SIZES = np.array([8, 8, 8, 8, 8, 3])
FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}


@pytest.fixture(scope="module")
def trainer():
    return Trainer(perceptron())


def test_every_batch_has_its_own_values_whose_means_are_the_history(trainer):
    """Weighted by samples; numbered by epoch; the validations stand at the number of batches done before them."""
    losses = LossHistory()
    history = trainer.fit(X, Y, epochs=2, validation_data=(X, Y), callbacks=[losses], **FIT).history

    assert ["accuracy", "loss"] == sorted(losses.batches)
    assert [0] * 6 + [1] * 6 == losses.epochs
    assert losses.batches["loss"] == losses.losses.tolist()
    for name, values in losses.batches.items():
        means = np.reshape(values, (2, 6)) @ SIZES / 43
        np.testing.assert_allclose(history[name], means, rtol=1e-12)  # float64 sums in another order
        assert [(6, history[f"val_{name}"][0]), (12, history[f"val_{name}"][1])] == losses.validation[f"val_{name}"]


def test_validations_within_an_epoch_are_kept_where_they_were(trainer):
    losses, tests = LossHistory(), []
    told = keras.callbacks.LambdaCallback(on_test_end=lambda logs: tests.append(logs["loss"]))
    validation = {"validation_data": (X, Y), "validation_freq": Every(steps=4)}
    trainer.fit(X, Y, epochs=2, callbacks=[losses, told], **validation, **FIT)

    assert list(zip([4, 8, 12], tests, strict=True)) == losses.validation["val_loss"]


def test_another_training_begins_with_an_empty_page_whoever_runs_it(trainer):
    """Under `model.fit` it keeps the running means, the only values that there are."""
    losses, means = LossHistory(), []
    told = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: means.append(logs["loss"]))
    trainer.fit(X, Y, callbacks=[losses], **FIT)
    trainer.fit(X, Y, validation_data=(X, Y), callbacks=[losses], **FIT)
    of_batches = losses.losses
    model = perceptron()
    model.set_weights(trainer.model.get_weights())
    model.fit(X, Y, callbacks=[losses, told], **FIT)

    assert (6,) == of_batches.shape == losses.losses.shape
    assert {} == losses.validation
    assert means == losses.losses.tolist()


def size_of(picture):
    """Width and height of a PNG, from its header."""
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", content[16:24])


@pytest.mark.parametrize("num_batches", [1, 2, 3, 500, 9001])
@pytest.mark.parametrize("values", ["falling", "constant", "negative", "NaN at the end"])
def test_a_picture_is_drawn_of_few_and_of_many_batches_whatever_their_values(tmp_path, num_batches, values):
    drawn = {
        "falling": np.geomspace(2.0, 0.01, num_batches),
        "constant": np.full(num_batches, 1.0),
        "negative": -np.arange(1.0, num_batches + 1),
        "NaN at the end": np.where(np.arange(num_batches) == num_batches - 1, np.nan, 1.0),
    }[values]
    losses = LossHistory()
    losses.batches, losses.epochs = (
        {"loss": drawn.tolist()},
        [0] * (num_batches // 2) + [1] * (num_batches - num_batches // 2),
    )
    losses.validation = {"val_loss": [(num_batches, 1.0)]}
    path = losses.plot(tmp_path / "loss.png")

    assert tmp_path / "loss.png" == path
    width, height = size_of(path)
    assert 600 < height * 1.5 < width < 2000


def test_a_metric_is_drawn_and_one_that_is_not_there_is_named(trainer, tmp_path):
    losses = LossHistory()
    trainer.fit(X, Y, callbacks=[losses], **FIT)
    losses.plot(tmp_path / "loss.png")
    losses.plot(tmp_path / "accuracy.png", "accuracy")

    assert (tmp_path / "loss.png").read_bytes() != (tmp_path / "accuracy.png").read_bytes()
    with pytest.raises(ConfigError, match=r"name='f1': no batch had such a value. There are 'accuracy', 'loss'"):
        losses.plot(tmp_path / "f1.png", "f1")
    with pytest.raises(ConfigError, match="There are none"):
        LossHistory().plot(tmp_path / "nothing.png")
    assert ["accuracy.png", "loss.png"] == sorted(path.name for path in tmp_path.iterdir())


def test_a_table_has_a_row_for_each_batch(trainer):
    losses = LossHistory()
    trainer.fit(X, Y, epochs=2, callbacks=[losses], **FIT)
    frame = losses.to_frame()

    assert ["epoch", "batch", "step", "accuracy", "loss"] == list(frame.columns)
    assert [[i // 6, i % 6, i + 1] for i in range(12)] == frame[["epoch", "batch", "step"]].to_numpy().tolist()
    assert losses.batches["loss"] == frame["loss"].tolist()
    assert (0, 3) == LossHistory().to_frame().shape


def test_a_table_has_a_column_for_each_entry_of_an_array():
    losses = LossHistory()
    losses.on_train_begin()
    losses.step = 1
    for batch in range(2):
        losses.on_train_batch_end(batch, {"f1": np.array([0.25, batch]), "loss": 1.0})
    frame = losses.to_frame()

    assert ["epoch", "batch", "step", "f1/0", "f1/1", "loss"] == list(frame.columns)
    assert [0.0, 1.0] == frame["f1/1"].tolist()


def test_without_pandas_the_error_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(ModuleNotFoundError, match=r"to_frame\(\) makes a pandas.DataFrame: pip install pandas"):
        LossHistory().to_frame()


@pytest.mark.parametrize(("per_call", "steps"), [(1, [1, 2, 3, 4, 5, 6]), (4, [4, 6])])
def test_under_fit_the_steps_are_counted(per_call, steps):
    """Keras calls the last batch of an execution of four that has but two 7; there are six."""
    losses = LossHistory()
    perceptron(steps_per_execution=per_call).fit(X, Y, epochs=2, callbacks=[losses], **FIT)

    assert [*steps, *(6 + step for step in steps)] == losses.steps


class WithArrays(LossHistory):
    """Keeps one more value; a subclass with a hook behind each batch is told of each."""

    def on_train_batch_end(self, batch, logs=None):
        self.step_logs = {**self.step_logs, "f1": np.array([batch, 0.5])}
        super().on_train_batch_end(batch, logs)


def test_a_resumed_run_has_the_batches_of_the_whole_run(trainer):
    """Its state holds arrays alone, also of a value that is an array."""
    whole, first = LossHistory(), WithArrays()
    trainer.fit(X, Y, epochs=2, validation_data=(X, Y), callbacks=[first, whole], **FIT)
    state = first.get_state()
    resumed = LossHistory()
    resume = LambdaCallback(on_train_begin=lambda logs: resumed.set_state(state))
    fit = {"epochs": 3, "initial_epoch": 2, "validation_data": (X, Y)}
    trainer.fit(X, Y, callbacks=[first, resumed, resume], **fit, **FIT)

    assert {np.dtype("float64"), np.dtype("int64")} == {array.dtype for array in state.values()}
    assert [0] * 6 + [1] * 6 + [2] * 6 == resumed.epochs
    assert whole.losses.tolist() + first.losses.tolist() == resumed.losses.tolist()
    for name, values in whole.validation.items():
        assert [*values, (18, first.validation[name][0][1])] == resumed.validation[name]
    np.testing.assert_array_equal([[i % 6, 0.5] for i in range(12)], resumed.batches["f1"][:12])


def test_a_state_survives_another_state(trainer):
    losses, empty = LossHistory(), LossHistory()
    trainer.fit(X, Y, callbacks=[losses], **FIT)
    losses.set_state(empty.get_state())

    assert ({}, [], {}) == (losses.batches, losses.epochs, losses.validation)


def test_a_picture_is_drawn_at_each_epoch_and_replaced_as_a_whole(trainer, tmp_path, monkeypatch):
    path, pictures = tmp_path / "made" / "loss.png", []
    seen = LambdaCallback(on_epoch_end=lambda epoch, logs: pictures.append(path.read_bytes()))
    trainer.fit(X, Y, epochs=2, callbacks=[LossHistory(plot=path), seen], **FIT)

    def break_off(*arguments, **named):
        raise OSError(28, "No space left on device")

    assert pictures[0] != pictures[1]
    assert ["loss.png"] == os.listdir(path.parent)
    size_of(path)
    monkeypatch.setattr(os, "fsync", break_off)
    with pytest.raises(OSError, match="No space left"):
        trainer.fit(X, Y, callbacks=[LossHistory(plot=path)], **FIT)
    assert pictures[1] == path.read_bytes()
    assert ["loss.png"] == os.listdir(path.parent)


def test_there_may_be_a_picture_for_each_epoch(trainer, tmp_path):
    trainer.fit(X, Y, epochs=2, callbacks=[LossHistory(plot=f"{tmp_path}/{{epoch:02d}}.svg")], **FIT)

    assert ["01.svg", "02.svg"] == sorted(os.listdir(tmp_path))


def test_a_path_that_no_epoch_could_fill_in_is_refused():
    with pytest.raises(ConfigError, match=r"plot='\{step\}.png': expected no placeholder but \{epoch\}"):
        LossHistory(plot="{step}.png")


def test_a_hundred_thousand_batches_take_no_second():
    losses = LossHistory()
    losses.on_train_begin()
    losses.on_epoch_begin(0)
    logs = {"accuracy": 0.5, "loss": 1.0}
    begin = time.process_time()
    for batch in range(100_000):
        losses.step, losses.step_logs = batch + 1, logs
        losses.on_train_batch_end(batch, logs)

    assert 1.0 > time.process_time() - begin
    assert 100_000 == len(losses.losses)

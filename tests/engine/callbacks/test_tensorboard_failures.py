"""What goes wrong in writing, and that it does not go wrong in the training."""

import copy
import os
import re
import shutil
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine import Trainer
from engine.callbacks import TensorBoard
from engine.callbacks.tensorboard.writers import Writers
from tests.helpers import assert_bit_equal, perceptron, samples, weights_of

X, Y = samples(43, shape=(4,))
FIT = {"batch_size": 8, "shuffle": False, "verbose": 0, "epochs": 3, "validation_data": (X, Y)}
NOISE = np.random.default_rng(0).integers(0, 256, (300, 300, 3), "uint8")  # 270 kB, which nothing makes smaller


class At(keras.callbacks.Callback):
    """Does something at the end of epoch 1."""

    def __init__(self, action):
        super().__init__()
        self.action = action

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            self.action()


def told_by_us(warned):
    """The kinds of the callback's own warnings; NumPy has others, which are not shown by default."""
    return [warning.category for warning in warned if str(warning.message).startswith("TensorBoard")]


def open_files(folder):
    """What this process holds open of a folder."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [path for path in (os.path.realpath(link) for link in links) if path.startswith(str(folder))]


def expected_weights():
    model = perceptron()
    model.fit(X, Y, **FIT)
    return weights_of(model)


@pytest.mark.parametrize("by_keras", [False, True], ids=["Trainer", "model.fit"])
def test_a_full_disk_is_warned_of_once_and_ends_the_writing_alone(by_keras, tmp_path, small_disk):
    board, model = TensorBoard(tmp_path, 1, hparams={"a": 1}), perceptron()
    fit = model.fit if by_keras else Trainer(model).fit
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        fit(X, Y, callbacks=[At(lambda: board.add_image("noise", NOISE)), board], **FIT)
    told = [str(warning.message) for warning in told if issubclass(warning.category, UserWarning)]
    told = [message for message in told if message.startswith("TensorBoard")]

    assert 1 == len(told)
    assert re.search(r"^TensorBoard: .*(File too large|too large).* The training goes on, and nothing more is", told[0])
    assert_bit_equal(expected_weights(), weights_of(model))
    assert [] == open_files(tmp_path)


def test_a_full_disk_ends_the_training_if_that_is_wished(tmp_path, small_disk):
    board = TensorBoard(tmp_path, strict=True)
    with pytest.raises((OSError, tf.errors.OpError), match="too large"):
        Trainer(perceptron()).fit(X, Y, callbacks=[At(lambda: board.add_image("noise", NOISE)), board], **FIT)


def test_a_folder_that_is_removed_is_warned_of_once(tmp_path):
    """Its files could still be written to, and nobody would ever see them."""
    board, model = TensorBoard(tmp_path / "logs", hparams={"a": 1}), perceptron()
    with pytest.warns(
        UserWarning, match=r"FileNotFoundError: the folder .*logs/?.* is gone. The training goes on"
    ) as told:
        Trainer(model).fit(X, Y, callbacks=[At(lambda: shutil.rmtree(tmp_path / "logs")), board], **FIT)

    assert [UserWarning] == told_by_us(told)
    assert_bit_equal(expected_weights(), weights_of(model))
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("strict", [False, True])
def test_a_folder_that_cannot_be_made_is_told_when_training_begins(strict, tmp_path):
    (tmp_path / "file").write_text("no folder")
    board, model = TensorBoard(tmp_path / "file" / "logs", strict=strict), perceptron()
    if strict:
        with pytest.raises((OSError, tf.errors.OpError)):
            Trainer(model).fit(X, Y, callbacks=[board], **FIT)
    else:
        with pytest.warns(UserWarning, match="The training goes on, and nothing more is written to") as told:
            Trainer(model).fit(X, Y, callbacks=[board], **FIT)

        assert [UserWarning] == told_by_us(told)
        assert_bit_equal(expected_weights(), weights_of(model))


def test_the_next_training_is_written_again(tmp_path):
    board, trainer = TensorBoard(tmp_path / "logs"), Trainer(perceptron())
    with pytest.warns(UserWarning, match="is gone"):
        trainer.fit(X, Y, callbacks=[At(lambda: shutil.rmtree(tmp_path / "logs")), board], **FIT)
    trainer.fit(X, Y, callbacks=[board], **FIT)
    shown = EventAccumulator(str(tmp_path / "logs" / "train")).Reload()

    assert [0, 1, 2] == [event.step for event in shown.Scalars("epoch_loss")]


class Fails(keras.callbacks.Callback):
    def __init__(self, hook):
        super().__init__()
        setattr(self, hook, self.fail)

    def fail(self, *_, **__):
        raise KeyboardInterrupt


@pytest.mark.parametrize("hook", ["on_train_begin", "on_train_batch_end", "on_test_end", "on_epoch_end"])
@pytest.mark.parametrize("comes_first", [False, True])
def test_files_are_closed_on_every_way_out(hook, comes_first, tmp_path):
    board = TensorBoard(tmp_path, hparams={"a": 1}, profile_batch=(1, 100))
    callbacks = [Fails(hook), board] if comes_first else [board, Fails(hook)]
    with pytest.raises(KeyboardInterrupt):
        Trainer(perceptron()).fit(X, Y, callbacks=callbacks, **FIT)

    assert [] == open_files(tmp_path)
    assert not board._writers._opened
    assert not board._profile._is_running


def steps_shown(run_dir):
    """The steps of the batches, from files that are closed again."""
    return [event.step for event in EventAccumulator(str(run_dir)).Reload().Scalars("batch_loss")]


def test_one_callback_serves_copies_and_several_trainings(tmp_path):
    """Each training writes all of its steps, and nothing is left open between them."""
    board = copy.deepcopy(
        TensorBoard(tmp_path, hparams={"a": 1}, samples=(X, Y), histogram_freq=1, write_gradients=True)
    )
    model = perceptron()
    for fit in (Trainer(model).fit, model.fit, Trainer(model).fit):
        shutil.rmtree(tmp_path)
        fit(X, Y, callbacks=[copy.deepcopy(board), board], **FIT)

        assert [] == open_files(tmp_path)
        assert sorted(2 * [*range(1, 19)]) == sorted(steps_shown(tmp_path / "train"))


def test_an_evaluation_of_its_own_writes_nothing(tmp_path):
    Trainer(perceptron()).evaluate(X, Y, verbose=0, callbacks=[TensorBoard(tmp_path / "logs")])

    assert not (tmp_path / "logs").exists()


def test_a_run_of_which_there_is_nothing_to_write_has_no_folder(tmp_path):
    writers = Writers(str(tmp_path))
    writers.begin()
    writers.write("train", 1, [])
    writers.close()

    assert [] == list(tmp_path.iterdir())

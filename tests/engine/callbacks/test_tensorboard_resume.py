"""A resumed training in TensorBoard: every step once, whichever of the programs reads the files."""

import shutil
import subprocess
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.data import grpc_provider, provider, server_ingester
from tensorboard.plugins.histogram.metadata import PLUGIN_NAME as HISTOGRAMS
from tensorboard.plugins.scalar.metadata import PLUGIN_NAME as SCALARS
from tensorboard.util import grpc_util

from engine import Trainer
from engine.block import Block
from engine.callbacks import TensorBoard
from engine.columns import Columns
from engine.hooks import Hooks
from engine.progress import Progress
from tests.event_files import make_old
from tests.helpers import perceptron, samples

X, Y = samples(43, shape=(4,))  # six batches of at most 8
VALIDATION = (X[:20], Y[:20])
PLAIN = {"is_opening_due": False, "metrics": []}  # the state of one that has begun, without hyper-parameters
FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}


class KilledTensorBoard(TensorBoard):
    """Writes nothing when its training ends: its process was killed."""

    def on_train_end(self, logs=None):
        for writer in self._writers._opened.values():
            writer.flush()


class Saves(keras.callbacks.Callback):
    """What a checkpoint behind an epoch holds of a TensorBoard."""

    def __init__(self, board, epoch):
        super().__init__()
        self.board, self.epoch, self.state = board, epoch, None

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.state = self.board.get_state()


class Resumes(keras.callbacks.Callback):
    """Gives a TensorBoard its state back, as a Trainer does."""

    def __init__(self, board, state):
        super().__init__()
        self.board, self.state = board, state

    def on_train_begin(self, logs=None):
        self.board.set_state(self.state)


def by_accumulator(log_dir, run):
    """What EventAccumulator shows of the scalars; it never takes tensors away."""
    shown = EventAccumulator(str(log_dir / run), size_guidance={"scalars": 0}, purge_orphaned_data=True).Reload()
    return {tag: [(event.step, event.value) for event in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]}


def provided(own, run):
    """What a data provider of TensorBoard shows of the scalars and histograms."""
    chosen = {"experiment_id": "", "downsample": 1000, "run_tag_filter": provider.RunTagFilter(runs=[run])}
    scalars = own.read_scalars(context.RequestContext(), plugin_name=SCALARS, **chosen).get(run, {})
    tensors = own.read_tensors(context.RequestContext(), plugin_name=HISTOGRAMS, **chosen).get(run, {})
    shown = {tag: [(datum.step, datum.value) for datum in data] for tag, data in scalars.items()}
    return shown | {tag: [(datum.step, None) for datum in data] for tag, data in tensors.items()}


def by_tensorboard(log_dir, run):
    """What `tensorboard --load_fast=false` shows."""
    multiplexer = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={SCALARS: 0, HISTOGRAMS: 0})
    multiplexer.AddRunsFromDirectory(str(log_dir))
    multiplexer.Reload()
    return provided(data_provider.MultiplexerDataProvider(multiplexer, str(log_dir)), run)


def by_data_server(log_dir, run):
    """What `tensorboard` shows."""
    port = log_dir.with_suffix(".port")
    port.unlink(missing_ok=True)
    binary = server_ingester.get_server_binary().path
    arguments = [f"--logdir={log_dir}", "--reload=once", "--port=0", f"--port-file={port}", "--die-after-stdin"]
    with subprocess.Popen([binary, *arguments], stdin=subprocess.PIPE):
        while not (port.exists() and port.read_text().endswith("\n")):
            time.sleep(0.02)
        address = f"localhost:{int(port.read_text())}"
        stub = server_ingester._make_stub(address, grpc_util.ChannelCredsType.LOCAL)
        while not (shown := provided(grpc_provider.GrpcDataProvider(address, stub), run)):
            time.sleep(0.02)  # a run appears when it has been read
    return shown


def steps_of(shown):
    return {tag: [step for step, _ in points] for tag, points in shown.items()}


READERS = [by_accumulator, by_tensorboard, by_data_server]


@pytest.mark.parametrize("update_freq", ["batch", "epoch", 4])
@pytest.mark.parametrize("validation_batch_size", [1, 8], ids=["long validations", "short validations"])
def test_every_step_is_there_once_after_a_resume(update_freq, validation_batch_size, tmp_path):
    """Along each of the axes, with the values of the training that went on; 20 or 3 batches of validation."""
    board = KilledTensorBoard(tmp_path, 1, update_freq=update_freq)
    saves = Saves(board, 0)
    arguments = FIT | {"validation_data": VALIDATION, "validation_batch_size": validation_batch_size}
    model = perceptron()
    model.fit(X, Y, epochs=3, callbacks=[board, saves], **arguments)
    make_old(tmp_path)
    board = TensorBoard(tmp_path, 1, update_freq=update_freq)
    history = model.fit(
        X, Y, epochs=3, initial_epoch=1, callbacks=[board, Resumes(board, saves.state)], **arguments
    ).history
    freq = {"batch": 1, "epoch": 1000}.get(update_freq, update_freq)
    batches = [step for step in range(1, 19) if step % freq == 0]
    tests = [step for step in range(1, 3 * -(-20 // validation_batch_size) + 1) if step % freq == 0]
    histograms = [f"{weight.path}/histogram" for weight in model.weights]

    for read in READERS:
        train, validation = read(tmp_path, "train"), read(tmp_path, "validation")
        assert {"epoch_loss": [0, 1, 2], "batch_loss": batches} == picked(train, "epoch_loss", "batch_loss")
        assert {
            "epoch_loss": [0, 1, 2],
            "batch_loss": [6, 12, 18] if batches else [],
            "validation_batch_loss": tests,
        } == picked(validation, "epoch_loss", "batch_loss", "validation_batch_loss")
        assert np.float32(history["loss"]).tolist() == [value for _, value in train["epoch_loss"][1:]]
        assert np.float32(history["val_loss"]).tolist() == [value for _, value in validation["epoch_loss"][1:]]
        if read is not by_accumulator:
            assert {path: [0, 1, 2] for path in histograms} == picked(train, *histograms)


def picked(shown, *tags):
    return {tag: steps_of(shown).get(tag, []) for tag in tags}


def replay(hooks, epoch, loss, step):
    """Tells of an epoch of six batches, as a Trainer does."""
    values = np.full((6, 1), loss)
    hooks.call("on_epoch_begin", epoch, {})
    hooks.replay("train", Block(Columns(("loss",), (True,)), 0, step, 8 * step, [8] * 6, values, values))
    hooks.stand(Progress(epoch=epoch, batch=6, step=step + 6, samples=8 * step + 48))
    hooks.call("on_epoch_end", epoch, {"loss": loss})


@pytest.mark.parametrize("read", READERS)
def test_the_step_of_the_trainer_counts_and_a_later_resume_works_as_well(read, tmp_path):
    """Killed in epoch 1, resumed behind epoch 0, killed in epoch 3, resumed behind epoch 1; epochs count from 100."""
    state, model = None, perceptron()
    for first, last, saved, loss in ((0, 1, 0, 1.0), (1, 3, 1, 2.0), (2, 3, 3, 3.0)):
        board = (TensorBoard if last == saved else KilledTensorBoard)(tmp_path)
        hooks = Hooks.of([board], model=model, params={})
        hooks.stand(Progress(epoch=first, step=6 * first))
        hooks.call("on_train_begin", {})
        if state is not None:
            board.set_state(state)
        for epoch in range(first, last + 1):
            replay(hooks, 100 + epoch, loss, 6 * epoch)
            state = board.get_state() if epoch == saved else state
        hooks.close({})
        make_old(tmp_path)
    shown = read(tmp_path, "train")

    assert PLAIN | {"steps": 24, "validation_batches": 0, "watermark": 103} == state
    assert list(zip(range(100, 104), [1.0, 2.0, 3.0, 3.0], strict=True)) == shown["epoch_loss"]
    assert list(zip(range(1, 25), [1.0] * 6 + [2.0] * 6 + [3.0] * 12, strict=True)) == shown["batch_loss"]


def test_a_state_is_plain_and_what_was_written_before_it_is_on_disk(tmp_path):
    seen = {}

    class Looks(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                seen.update(board.get_state(), shown=steps_of(by_accumulator(tmp_path, "train"))["batch_loss"])

    board = TensorBoard(tmp_path)
    perceptron().fit(X, Y, callbacks=[board, Looks()], **FIT)

    assert PLAIN | {"steps": 4, "validation_batches": 0, "watermark": 4, "shown": [1, 2, 3, 4]} == seen


def restarts(log_dir):
    """The steps at which the files of a run say that it has been restarted."""
    records = [record.numpy() for file in log_dir.iterdir() for record in tf.data.TFRecordDataset(str(file))]
    events = [Event.FromString(record) for record in records]
    return [event.step for event in events if event.HasField("session_log")]


def test_a_training_of_its_own_begins_anew(tmp_path):
    """The same callback, first resumed, then not."""
    board, model = TensorBoard(tmp_path), perceptron()
    resumes = Resumes(board, PLAIN | {"steps": 6, "validation_batches": 3, "watermark": 6})
    model.fit(X, Y, validation_data=VALIDATION, callbacks=[board, resumes], **FIT)
    resumed, restarted = board.get_state(), [restarts(tmp_path / run) for run in ("train", "validation")]
    shutil.rmtree(tmp_path)
    Trainer(model).fit(X, Y, callbacks=[board], **FIT)

    assert PLAIN | {"steps": 12, "validation_batches": 6, "watermark": 12} == resumed
    assert [[7, 7], [7, 7]] == restarted
    assert PLAIN | {"steps": 6, "validation_batches": 0, "watermark": 6} == board.get_state()
    assert [] == restarts(tmp_path / "train")

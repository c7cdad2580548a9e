import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine import Trainer
from engine.callbacks import LossHistory, TensorBoard
from tests.helpers import perceptron, samples

X, Y = samples(43, shape=(4,))  # six batches of at most 8
FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}


def read(log_dir):
    """What TensorBoard would show of a run."""
    shown = EventAccumulator(str(log_dir), size_guidance={"scalars": 0, "graph": 0})
    return shown.Reload()


def points(run, tag):
    """Steps and values of a curve."""
    scalars = run.Scalars(tag)
    return [scalar.step for scalar in scalars], [scalar.value for scalar in scalars]


def single(values):
    """As TensorBoard keeps them: float32."""
    return np.asarray(values, "float32").tolist()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two epochs with validation: the folder, the history, each batch's values and the model."""
    log_dir, losses, model = tmp_path_factory.mktemp("logs"), LossHistory(), perceptron()
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    callbacks = [losses, halve, TensorBoard(log_dir)]
    history = Trainer(model).fit(X, Y, epochs=2, validation_data=(X[:20], Y[:20]), callbacks=callbacks, **FIT)
    return log_dir, history.history, losses, model


def test_every_batch_of_the_training_is_one_point_with_its_own_value(trained):
    log_dir, _, losses, _ = trained
    run = read(log_dir / "train")

    assert ["batch_accuracy", "batch_loss", "epoch_accuracy", "epoch_learning_rate", "epoch_loss"] == sorted(
        run.Tags()["scalars"]
    )
    for name in ("loss", "accuracy"):
        assert (list(range(1, 13)), single(losses.batches[name])) == points(run, f"batch_{name}")


def test_epochs_of_both_runs_share_their_tags(trained):
    """So that training and validation lie in one chart."""
    log_dir, history, _, _ = trained
    train, validation = read(log_dir / "train"), read(log_dir / "validation")

    for name in ("loss", "accuracy"):
        assert ([0, 1], single(history[name])) == points(train, f"epoch_{name}")
        assert ([0, 1], single(history[f"val_{name}"])) == points(validation, f"epoch_{name}")
    assert ([0, 1], single(history["learning_rate"])) == points(train, "epoch_learning_rate")


def test_validations_stand_beside_the_step_at_which_they_ran_and_batch_by_batch(trained):
    log_dir, history, _, _ = trained
    run = read(log_dir / "validation")

    for name in ("loss", "accuracy"):
        assert ([6, 12], single(history[f"val_{name}"])) == points(run, f"batch_{name}")
        assert list(range(1, 7)) == points(run, f"validation_batch_{name}")[0]  # three batches, twice


def test_the_graph_is_that_of_a_step_and_names_the_layers(trained):
    log_dir, _, _, model = trained
    graph = read(log_dir / "train").Graph()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]

    assert all(any(layer.name in node.name for node in nodes) for layer in model.layers)
    assert "MatMul" in {node.op for node in nodes}


def test_without_batches_and_graph_only_epochs_are_written(tmp_path):
    callback = TensorBoard(str(tmp_path), update_freq="epoch", write_graph=False)
    Trainer(perceptron()).fit(X, Y, callbacks=[callback], **FIT)
    tags = read(tmp_path / "train").Tags()

    assert ["epoch_accuracy", "epoch_learning_rate", "epoch_loss"] == sorted(tags["scalars"])
    assert not tags["graph"]
    assert ["train"] == [path.name for path in tmp_path.iterdir()]


def test_nothing_is_lost_if_the_training_fails(tmp_path):
    """All that happened until then is in the file, though nobody has flushed it."""

    class Fails(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                raise ValueError("mine")

    losses = LossHistory()
    with pytest.raises(ValueError, match="mine"):
        Trainer(perceptron()).fit(X, Y, callbacks=[losses, TensorBoard(tmp_path), Fails()], **FIT)

    assert ([1, 2, 3, 4], single(losses.losses)) == points(read(tmp_path / "train"), "batch_loss")


def test_under_model_fit_it_writes_the_running_means_and_no_graph(tmp_path):
    """Also if a Trainer has used it before."""
    model, means = perceptron(), []
    told = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: means.append(logs["loss"]))
    for is_used in (False, True):
        callback = TensorBoard(tmp_path / str(is_used))
        if is_used:
            Trainer(model).fit(X, Y, callbacks=[callback], **FIT)
            for file in (tmp_path / "True" / "train").iterdir():
                file.unlink()
        means.clear()
        model.fit(X, Y, epochs=2, validation_data=(X, Y), callbacks=[callback, told], **FIT)
        run = read(tmp_path / str(is_used) / "train")

        assert (list(range(1, 13)), single(means)) == points(run, "batch_loss")
        assert [0, 1] == points(read(tmp_path / str(is_used) / "validation"), "epoch_loss")[0]
        assert not run.Tags()["graph"]

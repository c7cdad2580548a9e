import struct

import keras
import numpy as np
import pytest

from engine import ConfigError, Every, Trainer
from engine.callbacks import LossHistory
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


@pytest.mark.parametrize("num_batches", [1, 2, 3, 500])
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

"""The promise: a step is traced once, however long the data, the blocks and the fits."""

import keras
import pytest
import tensorflow as tf

from engine import Trainer
from engine.callbacks import LossHistory
from tests.helpers import NUM_CLASSES, Recorder, samples


class CountsTraces(keras.Model):
    """Counts how often Python goes through its train and test step; a compiled step goes through once."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(NUM_CLASSES, activation="softmax")
        self.traces = {"train": 0, "test": 0, "predict": 0}

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        self.traces["train"] += 1
        return super().train_step(data)

    def test_step(self, data):
        self.traces["test"] += 1
        return super().test_step(data)

    def predict_step(self, data):
        self.traces["predict"] += 1
        return super().predict_step(data)


@pytest.fixture
def model():
    model = CountsTraces()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def as_dataset(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(8)


@pytest.mark.parametrize("kind", ["arrays", "dataset", "unknown length"])
@pytest.mark.parametrize("steps_per_execution", ["auto", 5])
def test_three_fits_of_different_lengths_trace_each_step_once(model, kind, steps_per_execution):
    trainer = Trainer(model, steps_per_execution=steps_per_execution)
    for num_samples in (43, 100, 17):
        x, y = samples(num_samples, shape=(4,))
        data = (x, y) if kind == "arrays" else (as_dataset(x, y),)
        if kind == "unknown length":
            data = (data[0].filter(lambda *_: True),)
        arguments = {"batch_size": 8} if kind == "arrays" else {}
        trainer.fit(*data, epochs=2, validation_data=(x, y), callbacks=[LossHistory()], verbose=0, **arguments)
        trainer.evaluate(x, y, verbose=0)
        trainer.predict(x, verbose=0)

    assert {"train": 1, "test": 1, "predict": 1} == model.traces


def test_acting_callbacks_and_another_kind_of_data_share_the_step(model):
    """Blocks of one step for a callback that acts, then whole blocks, then a dataset: still one train step."""
    x, y = samples(43, shape=(4,))
    trainer = Trainer(model)
    trainer.fit(x, y, callbacks=[Recorder()], verbose=0)
    trainer.fit(x, y, verbose=0)
    trainer.fit(as_dataset(x, y), verbose=0)

    assert 1 == model.traces["train"]


def test_a_learning_rate_set_between_fits_needs_no_trace_and_takes_effect(model):
    x, y = samples(43, shape=(4,))
    trainer = Trainer(model)
    trainer.fit(x, y, verbose=0)
    model.optimizer.learning_rate = 0.0
    before = model.get_weights()
    trainer.fit(x, y, verbose=0)

    assert 1 == model.traces["train"]
    assert all((left == right).all() for left, right in zip(before, model.get_weights(), strict=True))


def test_compiling_anew_or_freezing_a_layer_takes_effect_by_another_trace(model):
    """Keras goes on training a layer frozen between two fits."""
    x, y = samples(43, shape=(4,))
    trainer = Trainer(model)
    trainer.fit(x, y, verbose=0)
    model.dense.trainable = False
    before = model.get_weights()
    with pytest.warns(UserWarning, match="does not have any trainable weights"):
        trainer.fit(x, y, verbose=0)
    after = model.get_weights()
    model.dense.trainable = True
    model.compile("sgd", "sparse_categorical_crossentropy")
    trainer.fit(x, y, verbose=0)

    assert 3 == model.traces["train"]
    assert all((left == right).all() for left, right in zip(before, after, strict=True))
    assert any((left != right).any() for left, right in zip(after, model.get_weights(), strict=True))

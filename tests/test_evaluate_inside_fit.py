"""The promise: an evaluation in the middle of an epoch, whoever asks for it, leaves the training as it was."""

import keras
import pytest
import tensorflow as tf

from engine import Callback, Every, Trainer
from tests.helpers import BATCH_SIZE, NUM_CLASSES, assert_bit_equal, samples, weights_of

X, Y = samples(27, shape=(4,))  # four batches, the last of three samples
SOME = tf.data.Dataset.from_tensor_slices((X[:9], Y[:9])).batch(BATCH_SIZE)


class Evaluates(keras.callbacks.Callback):
    """Evaluates wherever it is called, by Keras's own evaluate or by the Trainer's."""

    def __init__(self, evaluate):
        super().__init__()
        self.evaluate = evaluate

    def on_epoch_begin(self, epoch, logs=None):
        self.evaluate(SOME, verbose=0)

    on_train_batch_begin = on_train_batch_end = on_epoch_end = on_epoch_begin


class EvaluatesAfterBlocks(Evaluates, Callback):
    """The same, but it is told of whole blocks."""


class OwnTrainStep(keras.Sequential):
    """Keeps its metrics in variables that any evaluation would reset."""

    def train_step(self, data):
        return super().train_step(data)


def compiled(own_step=False):
    keras.utils.set_random_seed(1)
    kind = OwnTrainStep if own_step else keras.Sequential
    model = kind([
        keras.Input((4,)), keras.layers.Dense(5, kernel_regularizer="l2"), keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.3), keras.layers.Dense(NUM_CLASSES, "softmax"),
    ])  # fmt: skip
    metrics = ["accuracy", keras.metrics.MeanIoU(3, sparse_y_pred=False, name="iou")]
    model.compile("adam", "sparse_categorical_crossentropy", metrics=metrics)
    return model


def train(make_callback=None, own_step=False, **arguments):
    model = compiled(own_step)
    trainer = Trainer(model, seed=2, steps_per_execution=4)
    callbacks = [make_callback(model, trainer)] if make_callback else []
    history = trainer.fit(X, Y, batch_size=BATCH_SIZE, epochs=2, callbacks=callbacks, verbose=0, **arguments).history
    return weights_of(model), {name: values for name, values in history.items() if not name.startswith("val_")}


CASES = {
    "keras evaluates between the steps": {"make_callback": lambda model, _: Evaluates(model.evaluate)},
    "the trainer evaluates between the steps": {"make_callback": lambda _, trainer: Evaluates(trainer.evaluate)},
    "keras evaluates after blocks": {"make_callback": lambda model, _: EvaluatesAfterBlocks(model.evaluate)},
    "validation every epoch": {"validation_data": SOME},
    "validation every two steps": {"validation_data": SOME, "validation_freq": Every(steps=2)},
}


@pytest.mark.parametrize("own_step", [False, True])
def test_weights_and_curves_are_those_of_a_training_that_nobody_looked_at(own_step):
    """Metrics that are means, metrics with state, and metrics in the variables of a step of one's own."""
    expected_weights, expected_curves = train(own_step=own_step)
    for name, case in CASES.items():
        weights, curves = train(own_step=own_step, **case)

        assert_bit_equal(expected_weights, weights)
        assert expected_curves == curves, name

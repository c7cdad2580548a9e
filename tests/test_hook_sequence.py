"""The promise: Keras's hooks, in Keras's order, with Keras's numbers and names."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Trainer
from tests.helpers import Observer, Recorder, perceptron, samples

TWO_EPOCHS_WITH_VALIDATION = """
on_train_begin
on_epoch_begin       0
on_train_batch_begin 0
on_train_batch_end   0 accuracy loss
on_train_batch_begin 1
on_train_batch_end   1 accuracy loss
on_train_batch_begin 2
on_train_batch_end   2 accuracy loss
on_test_begin
on_test_batch_begin  0
on_test_batch_end    0 accuracy loss
on_test_batch_begin  1
on_test_batch_end    1 accuracy loss
on_test_end            accuracy loss
on_epoch_end         0 accuracy loss val_accuracy val_loss
on_epoch_begin       1
on_train_batch_begin 0
on_train_batch_end   0 accuracy loss
on_train_batch_begin 1
on_train_batch_end   1 accuracy loss
on_train_batch_begin 2
on_train_batch_end   2 accuracy loss
on_test_begin
on_test_batch_begin  0
on_test_batch_end    0 accuracy loss
on_test_batch_begin  1
on_test_batch_end    1 accuracy loss
on_test_end            accuracy loss
on_epoch_end         1 accuracy loss val_accuracy val_loss
on_train_end           accuracy loss val_accuracy val_loss
"""


def as_calls(table):
    """The table's lines as (hook, number or none, names)."""
    for line in table.strip().splitlines():
        hook, *words = line.split()
        number = (int(words.pop(0)),) if words and words[0].isdigit() else ()
        yield (hook, *number, " ".join(words))


def train_with(fit, recorder, **arguments):
    x, y = samples(22, shape=(4,))
    fit(x, y, batch_size=8, epochs=2, validation_data=(x[:10], y[:10]), callbacks=[recorder], verbose=0, **arguments)
    return recorder


def test_keras_itself_calls_the_hooks_as_the_table_says():
    recorder = train_with(perceptron().fit, Recorder())

    assert list(as_calls(TWO_EPOCHS_WITH_VALIDATION)) == recorder.calls


@pytest.mark.parametrize("steps_per_execution", [1, 2, 7, "auto"])
@pytest.mark.parametrize("recorder", [Recorder, Observer])
def test_fit_calls_the_hooks_as_the_table_says(recorder, steps_per_execution):
    """Whoever listens, acting between the steps or told of a block afterwards, sees one and the same sequence."""
    trainer = Trainer(perceptron(), steps_per_execution=steps_per_execution)

    assert list(as_calls(TWO_EPOCHS_WITH_VALIDATION)) == train_with(trainer.fit, recorder()).calls


def test_params_and_history_are_those_of_keras():
    theirs, ours = train_with(perceptron().fit, Recorder()), train_with(Trainer(perceptron()).fit, Recorder())

    assert theirs.params == ours.params
    assert list(theirs.model.history.history) == list(ours.model.history.history)
    assert theirs.model.history.epoch == ours.model.history.epoch


@pytest.mark.parametrize("is_length_known", [True, False])
def test_data_of_unknown_length_brings_no_hook_of_a_batch_that_never_was(is_length_known):
    """Keras calls on_train_batch_begin once more than there are batches; here begin and end always come in pairs."""
    x, y = samples(22, shape=(4,))
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    dataset = dataset if is_length_known else dataset.filter(lambda *_: True)
    for recorder in (Recorder(), Observer()):
        Trainer(perceptron()).fit(dataset, callbacks=[recorder], verbose=0)
        begun = [call for call in recorder.calls if call[0] == "on_train_batch_begin"]

        assert [("on_train_batch_begin", batch, "") for batch in range(3)] == begun


def test_evaluate_and_predict_call_the_hooks_that_keras_calls():
    x, y = samples(10, shape=(4,))
    theirs, ours = Recorder(), Recorder()
    model = perceptron()
    model.evaluate(x, y, batch_size=4, callbacks=[theirs], verbose=0)
    model.predict(x, batch_size=4, callbacks=[theirs], verbose=0)
    trainer = Trainer(perceptron())
    trainer.evaluate(x, y, batch_size=4, callbacks=[ours], verbose=0)
    trainer.predict(x, batch_size=4, callbacks=[ours], verbose=0)

    assert theirs.calls == ours.calls


def test_logs_are_plain_floats_in_a_dict_of_its_own_for_every_call():
    class Scribbler(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            assert all(type(value) is float for value in logs.values())
            logs["loss"] = -1.0

        def on_train_begin(self, logs=None):
            logs["graffito"] = 1.0

    recorder = Recorder()
    x, y = samples(22, shape=(4,))
    history = Trainer(perceptron()).fit(x, y, callbacks=[Scribbler(), recorder], verbose=0)

    assert np.all(np.array(history.history["loss"]) > 0)
    assert ("on_epoch_begin", 0, "") in recorder.calls


def test_what_a_callback_adds_to_the_logs_of_an_epoch_reaches_those_behind_it_and_the_history():
    class Adds(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["mine"] = 7.0

    x, y = samples(22, shape=(4,))
    history = Trainer(perceptron()).fit(x, y, epochs=2, callbacks=[Adds()], verbose=0)

    assert [7.0, 7.0] == history.history["mine"]

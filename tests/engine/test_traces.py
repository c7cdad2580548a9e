"""Why a step was traced; the oracle for how often is Python itself, which goes through a loop once a trace."""

import keras
import pytest
import tensorflow as tf

from engine import Callback, Trainer
from engine.callbacks import NonFinite
from engine.loop import Loop, PredictLoop
from tests.helpers import NUM_CLASSES, Recorder, perceptron, samples

X, Y = samples(43, shape=(4,))
BATCHES = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
SPEC = "float32 (None, 4), int64 (None,)"
FIRST = "the first step of training"


class Sets(Callback):
    """A learning rate for each step, set inside the loop."""

    def step_schedules(self):
        return [(self.model.optimizer.learning_rate, lambda step: 0.1 / (1 + step))]


@pytest.fixture
def passes(monkeypatch):
    """How often Python went through a loop of blocks."""
    found = []
    for kind in (Loop, PredictLoop):
        monkeypatch.setattr(kind, "_run_many", _counted(kind._run_many, found))
    return found


def _counted(method, found):
    def run_many(self, *arguments):
        found.append(method)
        return method(self, *arguments)

    return run_many


def fit(trainer, *data, callbacks=(), **arguments):
    trainer.fit(*(data or (X, Y)), verbose=0, callbacks=list(callbacks), **arguments)


def reasons(trainer, phase="train"):
    return [trace.reason for trace in trainer.report().traces if trace.phase == phase]


def test_three_fits_an_evaluation_and_a_prediction_are_a_trace_each(passes):
    trainer = Trainer(perceptron())
    for epochs in (1, 2, 1):
        fit(trainer, epochs=epochs, validation_data=(X, Y))
        trainer.evaluate(X, Y, verbose=0)
        trainer.predict(X, verbose=0)

    assert [("train", FIRST), ("test", "the first step of an evaluation"), ("predict", "the first step")] == [
        (trace.phase, trace.reason) for trace in trainer.report().traces
    ]
    assert 3 == len(passes)
    assert all(trace.seconds > 0 for trace in trainer.report().traces)


def test_other_data_is_traced_anew(passes):
    wide = keras.Sequential([keras.layers.Dense(NUM_CLASSES, activation="softmax")])
    wide.compile("sgd", "sparse_categorical_crossentropy")
    trainer = Trainer(wide)
    fit(trainer)
    fit(trainer, shuffle=False)
    fit(trainer, BATCHES)
    fit(trainer, BATCHES.map(lambda x, y: (x, tf.cast(y, tf.int32))))
    fit(trainer)  # as the first time: known
    fit(trainer, iter([(X, Y)] * 4))  # the same spec as an iterator as BATCHES: known as well

    assert [
        FIRST,
        "the data was shuffled arrays and is arrays as they stand",
        "the data was arrays as they stand and is tf.data.Dataset",
        f"the data's spec changed from {SPEC} to float32 (None, 4), int32 (None,)",
    ] == reasons(trainer)
    assert 4 == len(passes)


def test_another_model_is_traced_anew_and_each_phase_says_why(passes):
    model = perceptron()
    trainer = Trainer(model)
    fit(trainer, validation_data=(X, Y))
    model.layers[0].trainable = False
    with pytest.warns(UserWarning, match="does not have any trainable weights"):
        fit(trainer, validation_data=(X, Y))
    model.layers[0].trainable = True
    model.compile("adam", "sparse_categorical_crossentropy")
    fit(trainer)
    model.optimizer.learning_rate = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    fit(trainer)

    assert [
        FIRST,
        "other weights are trainable",
        "the model was compiled anew",
        "another schedule sets the learning rate",
    ] == reasons(trainer)
    assert ["the first step of an evaluation", "other weights are trainable"] == reasons(trainer, "test")
    assert 6 == len(passes)


def test_callbacks_that_change_the_loop_are_named(passes):
    trainer = Trainer(perceptron())
    fit(trainer, BATCHES)
    fit(trainer, BATCHES, callbacks=[Recorder()])
    fit(trainer, BATCHES, callbacks=[Sets()])
    fit(trainer, BATCHES, callbacks=[NonFinite()])
    fit(trainer, BATCHES)  # known

    assert [
        FIRST,
        "a callback acts on batches",
        "a callback sets sgd/learning_rate at each step",
        "callbacks watch for what is not finite in another way",
    ] == reasons(trainer)
    assert 4 == len(passes)


def test_two_changes_are_both_told():
    trainer = Trainer(perceptron())
    fit(trainer)
    fit(trainer, BATCHES, callbacks=[Recorder()])

    assert [FIRST, "a callback acts on batches and the data was shuffled arrays and is tf.data.Dataset"] == reasons(
        trainer
    )


def test_a_step_that_runs_eagerly_is_never_traced():
    trainer = Trainer(perceptron(), run_eagerly=True)
    fit(trainer, validation_data=(X, Y))
    trainer.predict(X, verbose=0)

    assert () == trainer.report().traces


def test_replicas_that_are_given_batches_one_by_one_are_counted_too(passes, two_replicas):
    with two_replicas.scope():
        trainer = Trainer(perceptron())
    fit(trainer, BATCHES, callbacks=[Recorder()])

    assert len(passes) == len(reasons(trainer)) > 0

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Supervised, Task, Trainer
from engine.callbacks import LossHistory, TensorBoard
from tests.helpers import NUM_CLASSES, assert_bit_equal, classifier, perceptron, samples

X, Y = samples(43, shape=(4,))
BATCH = (tf.constant(X[:8]), tf.constant(Y[:8]))
SPEC = tuple(tf.TensorSpec((None, *leaf.shape[1:]), leaf.dtype) for leaf in BATCH)


class TwoPlayers(Task):
    """What `fit` cannot express: two models that take turns, each with an optimizer of its own; nothing compiled."""

    def __init__(self):
        keras.utils.set_random_seed(2)
        self.model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
        self.judge = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        self.optimizers = {}
        for name, model in (("model", self.model), ("judge", self.judge)):
            self.optimizers[name] = keras.optimizers.Adam(0.01)
            self.optimizers[name].build(model.trainable_variables)

    def _losses(self, x):
        real, made = tf.reduce_mean(self.judge(x)), tf.reduce_mean(self.judge(self.model(x)))
        return {"model": -made, "judge": tf.nn.softplus(made) + tf.nn.softplus(-real)}

    def train_step(self, batch):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        with tf.GradientTape(persistent=True) as tape:
            losses = self._losses(x)
        for name, model in (("model", self.model), ("judge", self.judge)):
            weights = model.trainable_weights
            self.optimizers[name].apply_gradients(zip(tape.gradient(losses[name], weights), weights, strict=True))
        return losses

    def test_step(self, batch):
        return self._losses(keras.utils.unpack_x_y_sample_weight(batch)[0])

    def predict_step(self, batch):
        return self.model(keras.utils.unpack_x_y_sample_weight(batch)[0])

    def build(self, spec, phase):
        """All is built already."""

    def check_targets(self, targets):
        """There are none."""

    def results(self, phase):
        return {}

    def live_metrics(self, phase):
        return []

    def publish(self, means):
        """There is no metric object."""

    def ingredients(self):
        return []

    def finish(self):
        """No weights are averaged."""


@pytest.mark.parametrize("optimizer", [None, "sgd"])
def test_a_task_of_ones_own_is_trained_evaluated_and_run(tmp_path, optimizer):
    """As its steps called one by one by hand; its model need not be compiled, and callbacks do not ask for it."""
    by_hand, task = TwoPlayers(), TwoPlayers()
    if optimizer is not None:
        task.model.compile(optimizer)
    step = tf.function(by_hand.train_step, input_signature=[(tf.TensorSpec((None, 4)),)])
    batches = tf.data.Dataset.from_tensor_slices(X).batch(8).repeat(2)
    expected = [{name: float(value) for name, value in step((batch,)).items()} for batch in batches]
    trainer, losses = Trainer(task), LossHistory()
    callbacks = [losses, TensorBoard(tmp_path, write_graph=False)]
    history = trainer.fit(
        X, batch_size=8, epochs=2, shuffle=False, validation_data=batches, callbacks=callbacks, verbose=0
    )

    assert {name: [values[name] for values in expected] for name in ("judge", "model")} == losses.batches
    assert ["judge", "model", "val_judge", "val_model"] == sorted(history.history)
    assert_bit_equal([v.numpy() for v in by_hand.judge.variables], [v.numpy() for v in task.judge.variables])
    assert {name: history.history[f"val_{name}"][-1] for name in ("judge", "model")} == trainer.evaluate(
        batches, verbose=0
    )
    np.testing.assert_allclose(trainer.predict(X, verbose=0), task.model(X), rtol=1e-6)  # a graph may fuse kernels


def test_a_step_creates_no_variable_once_the_task_is_built():
    """A compiled loop must find them all: those of model, optimizer, metrics and several losses."""
    model = keras.Sequential([keras.layers.Dense(3), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)])
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["acc", "sparse_categorical_crossentropy"],
    )
    task = Supervised(model)
    task.build(SPEC, "train")
    created = []

    with tf.variable_creator_scope(lambda create, **named: created.append(named) or create(**named)):
        values = task.train_step(BATCH)
    assert [] == created
    assert {"acc", "sparse_categorical_crossentropy", "loss"} == set(values)


def test_building_changes_nothing_that_is_trained():
    """Neither weights, nor dropout's seeds, nor metrics: the model is asked for shapes only."""
    model = classifier()
    before = [variable.numpy() for variable in model.variables]
    x, y = samples()
    spec = tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in (x, y))
    for phase in ("train", "test", "train"):
        Supervised(model).build(spec, phase)

    assert_bit_equal(before, [variable.numpy() for variable in model.variables])


def test_a_step_returns_what_this_batch_adds_and_leaves_means_alone():
    """Value and weight of each mean; the metric objects are written by `publish` only."""
    task = Supervised(perceptron(weighted_metrics=["accuracy"]))
    weights = tf.constant(np.linspace(0, 1, 8), tf.float32)
    batch = (*BATCH, weights)
    task.build((*SPEC, tf.TensorSpec((None,))), "test")
    values = {name: (float(value), float(weight)) for name, (value, weight) in task.test_step(batch).items()}
    is_hit = np.argmax(task.model(BATCH[0]), -1) == Y[:8]

    assert (8.0, 8.0) == (values["loss"][1], values["accuracy"][1])
    assert np.mean(is_hit) == values["accuracy"][0]
    np.testing.assert_allclose(
        values["weighted_accuracy"], (np.average(is_hit, weights=weights), sum(weights)), rtol=1e-6
    )
    assert all(float(value) == 0 for value in task.model.get_metrics_result().values())


class NoTraining(keras.Model):
    """Its call has no argument `training`; layers that need it learn of it from Keras."""

    def __init__(self):
        super().__init__()
        self.parts = [keras.layers.Dropout(0.5, seed=1), keras.layers.Dense(NUM_CLASSES, activation="softmax")]

    def call(self, x):
        return self.parts[1](self.parts[0](x))


def test_a_model_whose_call_does_not_ask_for_training_trains_as_in_keras():
    runs = []
    for make in (lambda model: model.fit, lambda model: Trainer(model).fit):
        keras.utils.set_random_seed(1)
        model = NoTraining()
        model.compile("sgd", "sparse_categorical_crossentropy")
        make(model)(X, Y, epochs=2, shuffle=False, verbose=0)
        runs.append(model.get_weights())

    assert_bit_equal(*runs)


def test_another_trace_is_due_when_a_step_would_be_made_of_other_things():
    model = perceptron()
    task = Supervised(model)
    task.build(SPEC, "train")

    def has_changed(change):
        before = task.ingredients()
        change()
        after = task.ingredients()
        return len(before) != len(after) or any(a is not b for a, b in zip(before, after, strict=True))

    assert not has_changed(lambda: task.train_step(BATCH))
    assert not has_changed(lambda: setattr(model.optimizer, "learning_rate", 0.5))
    assert has_changed(lambda: setattr(model.layers[0], "trainable", False))
    assert has_changed(lambda: setattr(model, "optimizer", keras.optimizers.SGD()))
    assert has_changed(lambda: model.compile("sgd", "mse"))

import attrs
import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import ConfigError, StepError, Supervised, Task, Trainer, losses
from engine.callbacks import LossHistory, SwapEMAWeights, TensorBoard
from tests.helpers import NUM_CLASSES, Recorder, assert_bit_equal, classifier, perceptron, samples

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


def small(optimizer=None, *, name="small"):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)], name=name)
    if optimizer is not None:
        model.compile(optimizer)
    return model


@attrs.define(eq=False)
class Holder(Task):
    """A task with something of every kind among its attributes."""

    model: keras.Model
    teacher: keras.Model = attrs.field(factory=lambda: small("adam", name="teacher"))
    own: keras.optimizers.Optimizer = attrs.field(factory=lambda: keras.optimizers.Adam(name="own"))
    layer: keras.layers.Layer = attrs.field(factory=lambda: keras.layers.Dense(2))
    metric: keras.metrics.Metric = attrs.field(factory=lambda: keras.metrics.Mean(name="own_mean"))
    seeds: keras.random.SeedGenerator = attrs.field(factory=lambda: keras.random.SeedGenerator(1))
    generator: tf.random.Generator = attrs.field(factory=lambda: tf.random.Generator.from_seed(1))
    of_keras: keras.Variable = attrs.field(factory=lambda: keras.Variable(1.0))
    of_tensorflow: tf.Variable = attrs.field(factory=lambda: tf.Variable(2.0))
    listed: list = attrs.field(factory=lambda: [small(name="first"), {"second": tf.Variable(3.0)}])
    named: dict = attrs.field(factory=lambda: {"head": (small("sgd", name="head"), keras.layers.Dropout(0.5))})
    rate: float = 0.1
    words: str = "none of these has variables"
    kind: type = keras.layers.Dense
    nothing: None = None
    _private: keras.Variable = attrs.field(factory=lambda: keras.Variable(4.0))

    def train_step(self, batch):
        raise NotImplementedError


def test_whatever_has_variables_among_its_attributes_is_a_part():
    """In lists, tuples and dicts too, with the optimizer that a model was compiled with; a frozen part is none less."""
    task = Holder(small("sgd"))
    task.born_later = keras.layers.Dense(3)
    task.layer.build((None, 4))

    assert [
        "model", "model.optimizer", "teacher", "teacher.optimizer", "own", "layer", "metric", "seeds", "generator",
        "of_keras", "of_tensorflow", "listed.0", "listed.1.second", "named.head.0", "named.head.0.optimizer",
        "named.head.1", "_private", "born_later",
    ] == list(task.parts())  # fmt: skip
    assert task.parts()["teacher.optimizer"] is task.teacher.optimizer


def test_every_variable_of_every_part_is_named_once():
    """Where a generator stands, the total of a metric, the seed of a dropout; names differ where paths are the same."""
    task = Holder(small("sgd"))
    task.build((tf.TensorSpec((None, 4)),), "train")
    task.layer.build((None, 4))
    names = task.named_variables()
    wanted = [
        *task.model.variables,
        *task.model.optimizer.variables,
        *task.teacher.variables,
        *task.teacher.optimizer.variables,
        *task.layer.variables,
        *task.metric.variables,
        task.seeds.state,
        task.generator.state,
        task.of_keras,
        task.of_tensorflow,
        *task.listed[0].variables,
        task.listed[1]["second"],
        *task.named["head"][0].variables,
        *task.named["head"][1].variables,
        task._private,
    ]

    assert set(map(id, wanted)) <= set(map(id, names.values()))
    assert len(names) == len({id(variable) for variable in names.values()})
    assert "of_tensorflow/0/Variable:0" in names
    assert "model/0/small/dense/kernel" in names


X4 = X[:6]


def stepping(returned):
    """A task whose step returns what a function makes of its batch."""

    @attrs.define(eq=False)
    class Returning(Task):
        model: keras.Model

        def train_step(self, batch):
            return returned(keras.utils.unpack_x_y_sample_weight(batch)[0])

    return Returning(small("sgd"))


EXPECTED_SCALAR = (
    "where a name and a scalar were expected, or a name and a pair of a scalar and its weight. Reduce it in the step, "
    "for example with tf.reduce_mean."
)
EXPECTED_DICT = 'where a flat dict of scalar tensors was expected, such as {"loss": loss}.'
WRONG = {
    "no dict": (lambda x: tf.reduce_mean(x), "A step returned SymbolicTensor, " + EXPECTED_DICT),
    "nothing": (lambda x: None, "A step returned NoneType, " + EXPECTED_DICT),
    "a list": (lambda x: [tf.reduce_mean(x)], "A step returned list, " + EXPECTED_DICT),
    "no scalar": (lambda x: {"loss": x}, "A step or a metric returned 'loss' with shape (None, 4), " + EXPECTED_SCALAR),
    "None": (lambda x: {"loss": None}, "A step or a metric returned 'loss' with NoneType 'None', " + EXPECTED_SCALAR),
    "an array": (
        lambda x: {"loss": np.zeros(2)},
        "A step or a metric returned 'loss' with ndarray '[0. 0.]', " + EXPECTED_SCALAR,
    ),
    "NumPy's number": (
        lambda x: {"loss": np.float32(1)},
        "A step or a metric returned 'loss' with float32 '1.0', " + EXPECTED_SCALAR,
    ),
    "words": (
        lambda x: {"loss": tf.constant("low")},
        "A step or a metric returned 'loss' with shape (), " + EXPECTED_SCALAR,
    ),
    "a dict": (
        lambda x: {"loss": {"a": tf.reduce_mean(x)}},
        "A step or a metric returned 'loss' with dict ",
    ),
    "a triple": (
        lambda x: {"loss": (tf.reduce_mean(x), 1.0, 2.0)},
        "A step or a metric returned 'loss' with tuple ",
    ),
    "no name": (lambda x: {1: tf.reduce_mean(x)}, "A step or a metric returned 1 with shape (), " + EXPECTED_SCALAR),
}


@pytest.mark.parametrize(("returned", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_return_of_a_step_is_refused_in_words_before_the_first_step(returned, words):
    recorder = Recorder()
    with pytest.raises(StepError) as error:
        Trainer(stepping(returned)).fit(X4, verbose=0, callbacks=[recorder])

    assert str(error.value).startswith(words)
    assert [] == recorder.calls


def test_a_symbolic_tensor_of_keras_is_refused_in_words():
    """As of a model that is called on its own inputs."""
    task = stepping(lambda x: {"loss": keras.Input(())})
    with pytest.raises(StepError, match="returned 'loss' with KerasTensor"):
        Trainer(task).fit(X4, verbose=0)


def test_on_replicas_a_wrong_return_is_refused_in_the_same_words(two_replicas):
    with two_replicas.scope():
        task = stepping(lambda x: {"loss": x})
    with pytest.raises(StepError, match="returned 'loss' with shape"):
        Trainer(task).fit(X4, verbose=0)


def test_a_scalar_may_be_a_variable_a_number_or_have_a_weight():
    """And (value, None) stands for the epoch so far."""
    task = stepping(
        lambda x: {
            "loss": tf.reduce_mean(x[:, 0]),
            "number": 2.0,
            "variable": tf.Variable(3.0) if tf.executing_eagerly() else tf.constant(3.0),
            "weighted": (tf.reduce_max(x[:, 0]), tf.reduce_max(x[:, 0]) ** 2),
            "standing": (tf.reduce_min(x[:, 0]), None),
        }
    )
    x = np.arange(24, dtype="float32").reshape(6, 4)
    history = Trainer(task).fit(x, batch_size=4, shuffle=False, verbose=0).history

    expected = {
        "loss": x[:, 0].mean(),
        "number": 2.0,
        "variable": 3.0,
        "weighted": (x[3, 0] ** 3 + x[5, 0] ** 3) / (x[3, 0] ** 2 + x[5, 0] ** 2),
        "standing": x[4, 0],
    }
    assert expected.keys() == history.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(history[name], [value], rtol=1e-6, err_msg=name)


def test_other_names_from_another_step_are_refused_in_words():
    """Which only a step that runs eagerly can return."""
    seen = []

    def returned(x):
        seen.append(x)
        return {"loss": tf.reduce_mean(x)} | ({"late": tf.reduce_mean(x)} if len(seen) > 1 else {})

    with pytest.raises(StepError) as error:
        Trainer(stepping(returned), run_eagerly=True).fit(X4, batch_size=2, verbose=0)

    assert (
        "A step returned 'late', 'loss', and the one before it 'loss'. Return the same names from every step; for a "
        "value that some steps do not have, a pair (value, weight) with weight 0."
    ) == str(error.value)


def test_a_value_of_the_step_that_is_called_like_a_norm_is_refused():
    @attrs.define(eq=False)
    class Clash(Task):
        model: keras.Model

        def train_step(self, batch):
            x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
            with losses.Total() as total:
                total.add("data", total.call(self.model, x) ** 2)
            total.minimize(self.model, log_norm=True)
            return total.logs() | {"gradient_norm": total.value}

    with pytest.raises(StepError, match=r"both called 'gradient_norm'\. Rename one of them"):
        Trainer(Clash(small("sgd")), accumulate=2).fit(X4, batch_size=2, verbose=0)


@attrs.define(eq=False)
class Squares(Task):
    """The smallest task with a test step."""

    model: keras.Model
    other: keras.Model | None = None
    optimizer: keras.optimizers.Optimizer | None = None
    seen: keras.metrics.Metric = attrs.field(factory=lambda: keras.metrics.Sum(name="seen"))

    def _loss(self, x):
        with losses.Total() as total:
            outputs = total.call(self.model, x)
            total.add("data", (outputs - 1) ** 2)
            if self.other is not None:
                total.add("other", (total.call(self.other, x) + 1) ** 2)
        return total

    def train_step(self, batch):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        total = self._loss(x)
        total.minimize(self.model)
        if self.other is not None:
            total.minimize(self.other.trainable_weights, self.optimizer)
        self.seen.update_state(tf.ones(tf.shape(x)[:1]))
        return total.logs() | {"seen": (self.seen.result(), None)}

    def test_step(self, batch):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        self.seen.update_state(tf.ones(tf.shape(x)[:1]))
        return self._loss(x).logs() | {"seen": (self.seen.result(), None)}


CALLS = {
    "evaluate": lambda trainer, history: trainer.evaluate(X4, callbacks=[history], verbose=0),
    "validation_data": lambda trainer, history: trainer.fit(X4, validation_data=(X4,), callbacks=[history], verbose=0),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_without_a_test_step_there_is_no_evaluation(call):
    """Said before the first step, in words."""
    task, history = stepping(lambda x: {"loss": tf.reduce_mean(x)}), Recorder()
    with pytest.raises(StepError) as error:
        call(Trainer(task), history)

    assert (
        "Returning has no test_step, which evaluate and validation_data need. Write one that returns the scalars of a "
        "batch, or leave validation_data out."
    ) == str(error.value)
    assert [] == history.calls


def test_metrics_of_a_task_begin_anew_with_each_epoch_and_each_evaluation():
    """And those of training go on behind a validation in the middle of it."""
    trainer = Trainer(Squares(small("sgd")))
    history = trainer.fit(X[:10], batch_size=4, epochs=3, validation_data=(X[:7],), verbose=0).history

    assert [10.0] * 3 == history["seen"]
    assert [7.0] * 3 == history["val_seen"]
    assert 5.0 == trainer.evaluate(X[:5], verbose=0)["seen"]


def averaged(momentum=0.5):
    return keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=momentum)


def test_averages_take_the_place_of_the_weights_of_every_model_when_training_is_over():
    """Of models that were compiled, and of those that an optimizer of the task trains."""
    task = Squares(small(averaged()), small(name="other"), averaged(0.8))
    raw = []

    def look(batch, logs=None):
        raw.append([*task.model.get_weights(), *task.other.get_weights()])

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=look)
    Trainer(task).fit(X[:12], batch_size=4, epochs=2, shuffle=False, callbacks=[callback], verbose=0)
    momenta, expected = [0.5, 0.5, 0.8, 0.8], raw[0]
    for weights in raw[1:]:
        expected = [m * old + (1 - m) * new for m, old, new in zip(momenta, expected, weights, strict=True)]

    assert 6 == len(raw)
    for average, given in zip(expected, [*task.model.get_weights(), *task.other.get_weights()], strict=True):
        np.testing.assert_allclose(given, average, rtol=1e-5)
    assert np.abs(task.model.get_weights()[0] - raw[-1][0]).max() > 1e-3


def test_an_optimizer_that_has_made_no_update_leaves_the_weights():
    """Its averages are zeros."""

    @attrs.define(eq=False)
    class Idle(Squares):
        idle: keras.Model = attrs.field(factory=lambda: small(averaged(), name="idle"))

    task = Idle(small("sgd"))
    before = task.idle.get_weights()
    Trainer(task).fit(X4, verbose=0)

    assert_bit_equal(before, task.idle.get_weights())


def test_averages_go_to_the_weights_that_they_are_of_though_others_are_frozen_since():
    """Keras pairs the averages with what is trainable now: the second layer would get those of the first."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(4)])
    model.compile(averaged(), "mse")
    trainer = Trainer(model)
    trainer.fit(X, X, epochs=2, verbose=0)
    first = model.layers[0].get_weights()
    model.layers[0].trainable = False
    trainer.fit(X, X, epochs=2, verbose=0)
    averages = [average.numpy() for average in model.optimizer._model_variables_moving_average]

    assert_bit_equal(averages, model.get_weights())
    for expected, given in zip(first, model.layers[0].get_weights(), strict=True):
        np.testing.assert_allclose(given, expected, rtol=1e-6)


def test_a_task_is_validated_with_averages_if_they_are_swapped_in():
    """Those of the end of an epoch, which at the end of the last are the model's for good."""
    histories = []
    for callbacks in ([SwapEMAWeights()], []):
        keras.utils.set_random_seed(1)
        trainer = Trainer(Squares(small(averaged(0.9))))
        history = trainer.fit(X, epochs=2, batch_size=8, validation_data=(X,), callbacks=callbacks, verbose=0).history
        histories.append(history)
        score = trainer.evaluate(X, verbose=0)["loss"]
    swapped, own = histories

    assert own["loss"] == swapped["loss"]
    assert abs(own["val_loss"][-1] - swapped["val_loss"][-1]) > 1e-3
    np.testing.assert_allclose(swapped["val_loss"][-1], score, rtol=1e-6)


def test_replicas_do_not_build_a_model_inside_a_step(two_replicas):
    """TensorFlow's own error speaks of placeholders."""
    with two_replicas.scope():
        model = keras.Sequential([keras.layers.Dense(1)], name="loose")
        model.compile("sgd")
    with pytest.raises(ConfigError) as error:
        Trainer(Squares(model)).fit(X4, verbose=0)

    assert (
        "The model 'loose' of Squares is not built, and inside a step the 2 replicas cannot make its weights. Begin it "
        "with keras.Input(shape), or call it once, inside `with strategy.scope():`."
    ) == str(error.value)


def test_replicas_train_a_model_that_was_never_called_and_has_its_weights(two_replicas):
    """One that is made of others, which are built."""

    class Outer(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = small()

        def call(self, x):
            return self.inner(x)

    with two_replicas.scope():
        model = Outer()
        model.compile("sgd")
        task = Squares(model)
    before = model.get_weights()
    Trainer(task).fit(X4, verbose=0)

    assert np.abs(before[0] - model.get_weights()[0]).max() > 0

"""The promise: a try leaves no trace; a training behind it or around it is to the bit as if it had not been."""

import contextlib
import functools
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from keras.src.backend.common import global_state  # no public way leads to Keras's own generator

from engine import Callback, ConfigError, Trainer
from engine.callbacks import BatchSizeFinder, LearningRateFinder
from tests.helpers import NUM_CLASSES, assert_bit_equal, samples
from tests.strategies import examples, trainings
from tests.test_overrides import Adversaries

X, _ = samples(43, shape=(4,))  # six batches of at most 8
Y = X[:, :NUM_CLASSES].argmax(1)  # which can be learnt, so that there is a rate to be found
BATCH_SIZE = 8


def begin():
    """No layer names used up, and every generator at one and the same place."""
    keras.utils.clear_session(free_memory=False)
    seed()


def seed():
    """Every generator at one and the same place."""
    keras.utils.set_random_seed(4)
    tf.random.get_global_generator().reset_from_seed(4)
    keras.random.normal((1,))


def generators():
    """Where each global generator stands."""
    own = global_state.get_global_attribute("global_seed_generator")
    arrays = [np.random.get_state()[1], own.state.numpy(), tf.random.get_global_generator().state.numpy()]
    return [random.getstate(), np.random.get_state()[2:], *(array.tolist() for array in arrays)]


def all_variables(model):
    optimizer = model.optimizer.variables if model.optimizer is not None else []
    return [*model.variables, *model.metrics_variables, *optimizer]


def values_of(model):
    """Every variable that there is: weights, seeds, metrics and optimizer."""
    return [variable.numpy() for variable in all_variables(model)]


def layers(*, lazy=False):
    """A layer of every kind that keeps something."""
    return [
        *([] if lazy else [keras.Input((4,))]),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(NUM_CLASSES, activation="softmax"),
    ]


def compiled(model, optimizer=None, **arguments):
    arguments = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]} | arguments
    model.compile(optimizer or keras.optimizers.Adam(0.01), **arguments)
    return model


class Lazy(keras.Model):
    """Built when it is first called."""

    def __init__(self):
        super().__init__()
        self.body = keras.Sequential(layers(lazy=True))

    def call(self, x, training=False):
        return self.body(x, training=training)


class OwnStep(keras.Model):
    """No model that can be called: its weights, its metric's variables and its optimizer's are made by its step."""

    def __init__(self):
        super().__init__()
        self.body = keras.Sequential(layers(lazy=True))
        self.loss_of_epoch, self.score = keras.metrics.Mean(name="loss"), keras.metrics.F1Score(name="score")

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            outputs = self.body(x, training=True)
            loss = keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, outputs))
        weights = self.body.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self.loss_of_epoch.update_state(loss)
        self.score.update_state(keras.ops.one_hot(y, NUM_CLASSES), outputs)
        return {"loss": self.loss_of_epoch.result()}


def own_step():
    model = OwnStep()
    model.compile("adam")
    return model


AVERAGED = {"use_ema": True, "ema_overwrite_frequency": 5}
SCALED = {"dynamic_growth_steps": 3}
ACCUMULATED = {"momentum": 0.9, "gradient_accumulation_steps": 4}
MODELS = {
    "adam": lambda: compiled(
        keras.Sequential(layers()), metrics=["accuracy", keras.metrics.MeanIoU(NUM_CLASSES, sparse_y_pred=False)]
    ),
    "averages of weights": lambda: compiled(
        keras.Sequential(layers()),
        keras.optimizers.AdamW(0.01, **AVERAGED),
        loss="categorical_crossentropy",
        metrics=[keras.metrics.AUC(num_thresholds=20)],
    ),
    "scaled loss": lambda: compiled(
        keras.Sequential(layers()), keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), **SCALED)
    ),
    "accumulated": lambda: compiled(keras.Sequential(layers()), keras.optimizers.SGD(0.1, **ACCUMULATED)),
    "no shape until the first batch": lambda: compiled(keras.Sequential(layers(lazy=True))),
    "subclassed": lambda: compiled(Lazy()),
    "made by its own step": lambda: own_step(),
}
LAZY = ["no shape until the first batch", "subclassed", "made by its own step"]


def targets_of(name):
    return np.eye(NUM_CLASSES, dtype="float32")[Y] if name == "averages of weights" else Y


def search_rates(trainer, x, y):
    with contextlib.suppress(ConfigError):  # of 20 steps with dropout not every search comes to something
        LearningRateFinder(1e-4, 1.0, steps=20).search(trainer.fit, x, y, batch_size=BATCH_SIZE)


def search_sizes(trainer, x, y):
    BatchSizeFinder(4, 8, steps=2).search(trainer.fit, x, y)


def transact(trainer, x, y):
    """What a user may do with a model: all three runs where there are three, and changes by hand."""
    with trainer.transaction():
        trainer.fit(x, y, batch_size=5, epochs=2, verbose=0)
        if not isinstance(trainer.model, OwnStep):
            trainer.evaluate(x, y, verbose=0)
            trainer.predict(x, verbose=0)
        for variable in trainer.model.trainable_variables:
            variable.assign(variable * 2.0)
        trainer.model.optimizer.learning_rate = 7.0
        random.random(), np.random.random(3), keras.random.normal((2,)), tf.random.get_global_generator().normal([2])


TRIES = {"a search for a rate": search_rates, "a search for a size": search_sizes, "a transaction": transact}


class Tries(Callback):
    """Does something in hooks, at the second call of each."""

    def __init__(self, run, hooks, *, acts):
        super().__init__()
        self.acts_on_batches, self.calls, self.run = acts, dict.fromkeys(hooks, 0), run
        for hook in hooks:
            setattr(self, hook, functools.partial(self._count, hook))

    def _count(self, hook, *arguments, **named):
        self.calls[hook] += 1
        if self.calls[hook] == 2:
            self.run()


def nothing(trainer, x, y):
    """Happens."""


def train(trainer, x, y, *, inside=nothing, hooks=("on_train_batch_end",), acts=True):
    """What a training comes to in which something happens in hooks."""
    callback = Tries(lambda: inside(trainer, x, y), hooks, acts=acts)
    history = trainer.fit(x, y, batch_size=BATCH_SIZE, epochs=3, verbose=0, callbacks=[callback]).history

    assert min(callback.calls.values()) >= 2
    return history, values_of(trainer.model), generators()


def assert_equal_runs(expected, given, *, is_lazy=False):
    """The history, every variable, and every generator, but for Python's where building a model has asked it."""
    assert expected[0] == given[0]
    assert_bit_equal(expected[1], given[1])
    assert expected[2][is_lazy:] == given[2][is_lazy:]


def try_inside(trainer, x, y):
    """Also an evaluation and a prediction that nothing is put back around."""
    if not isinstance(trainer.model, OwnStep):
        trainer.evaluate(x[:9], y[:9], verbose=0)
        trainer.predict(x[:9], verbose=0)
    transact(trainer, x, y)


@pytest.mark.filterwarnings("ignore:.*layer 'own_step':UserWarning", "ignore:Layer 'own_step':UserWarning")
@pytest.mark.parametrize(
    ("name", "tries"),
    [
        ("adam", [*TRIES]),
        ("averages of weights", ["a transaction"]),
        ("scaled loss", ["a search for a rate"]),
        ("accumulated", ["a search for a size"]),
        ("no shape until the first batch", ["a search for a rate"]),
        ("subclassed", ["a search for a size", "a transaction"]),
        ("made by its own step", ["a transaction", "a search for a rate"]),
    ],
)
def test_a_training_behind_tries_and_around_them_is_as_if_there_had_been_none(name, tries):
    """Weights, seeds, optimizer, metrics, history and generators; also of a model that the first try has built."""
    runs = []
    for chosen, inside in (((), nothing), (tries, try_inside)):
        begin()
        trainer = Trainer(MODELS[name](), steps_per_execution=4)
        for what in chosen:
            TRIES[what](trainer, X, targets_of(name))
        kinds = (False, True) if name == "adam" else (True,)
        runs.append([train(trainer, X, targets_of(name), inside=inside, acts=acts) for acts in kinds])

    for straight, tried in zip(*runs, strict=True):
        assert_equal_runs(straight, tried, is_lazy=name in LAZY)


@pytest.fixture(scope="module")
def trained():
    """Trains as `train` does, with one Trainer that begins anew every time: tracing takes seconds."""
    trainer = Trainer(MODELS["adam"](), steps_per_execution=4)
    trainer.fit(X, Y, verbose=0)
    values = values_of(trainer.model)

    def run(**how):
        seed()
        for variable, value in zip(all_variables(trainer.model), values, strict=True):
            variable.assign(value)
        return train(trainer, X, Y, **how)

    return run


@pytest.mark.shares_models
@pytest.mark.parametrize(
    ("what", "hooks"),
    [
        ("a search for a rate", ["on_epoch_begin", "on_train_batch_end"]),
        ("a search for a size", ["on_train_batch_begin", "on_epoch_end"]),
        ("a transaction", ["on_epoch_begin", "on_train_batch_begin", "on_train_batch_end", "on_epoch_end"]),
    ],
)
def test_a_try_in_whatever_hook_ends_by_itself_and_not_the_training(trained, what, hooks):
    """In a callback that acts."""
    expected = trained(hooks=hooks)

    assert_equal_runs(expected, trained(inside=TRIES[what], hooks=hooks))


NOT_SEARCHED = {"two of them", "rmsprop, scheduled"}  # have several rates, or one that cannot be set


def search(trainer, training, data):
    if training.compiled.optimizer in NOT_SEARCHED:
        BatchSizeFinder(4, 4, steps=1).search(trainer.fit, **data)
    else:
        finder = LearningRateFinder(1e-4, 0.1, steps=20)
        trainer.fit(**data, batch_size=training.run.batch_size, epochs=20, callbacks=[finder], verbose=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")  # of outputs without a loss
@examples(2, shrinks=False)
@given(trainings("functional"))
def test_whatever_is_trained_tries_in_front_and_inside_leave_no_trace(training):
    x, y, sample_weight = training.data(training.run.num_samples)
    samples_given = {"x": x, "y": y, "sample_weight": sample_weight}
    runs = []
    for is_tried in (False, True):
        begin()
        model = training.model()
        tf.random.get_global_generator().reset_from_seed(4)
        keras.random.normal((1,))
        trainer = Trainer(model, steps_per_execution=training.run.steps_per_execution)

        def run(trainer=trainer, is_tried=is_tried):
            if is_tried:
                search(trainer, training, samples_given)
                with trainer.transaction():
                    trainer.evaluate(**samples_given, verbose=0)

        run()
        history = trainer.fit(
            **samples_given,
            batch_size=training.run.batch_size,
            epochs=2,
            class_weight=training.class_weight,
            callbacks=[Tries(run, ["on_epoch_begin"], acts=True)],
            verbose=0,
        ).history
        runs.append((history, values_of(model), generators()))

    assert_equal_runs(*runs)


def test_under_model_fit_searches_leave_the_training_behind_them_as_it_would_have_been():
    """What Keras makes only as it trains, such as an optimizer's moments, is as good as new behind them."""
    name, histories, found = "averages of weights", [], []
    for tries in ((), (search_rates, search_sizes)):
        begin()
        model = MODELS[name]()
        for run in tries:
            run(model, X, targets_of(name))
        fitted = model.fit(X, targets_of(name), batch_size=BATCH_SIZE, epochs=2, shuffle=False, verbose=0)
        histories.append(fitted.history)
        found.append(values_of(model))

    assert histories[0] == histories[1]
    assert_bit_equal(*found)


def test_under_model_fit_a_search_in_a_trained_model_changes_no_variable_and_no_generator():
    begin()
    model = MODELS["adam"]()
    model.fit(X, Y, verbose=0)
    expected = values_of(model), generators()
    for search in (search_rates, search_sizes):
        search(model, X, Y)

        assert_bit_equal(expected[0], values_of(model))
        assert expected[1] == generators()


@pytest.fixture(scope="module")
def trainer():
    """One that has trained, for the tests that look at the block alone."""
    trainer = Trainer(MODELS["adam"]())
    trainer.fit(X, Y, verbose=0)
    return trainer


def test_an_error_inside_comes_out_and_everything_is_undone_all_the_same(trainer):
    expected = values_of(trainer.model)
    for error in (ValueError("mine"), StopIteration("mine"), KeyboardInterrupt("mine"), GeneratorExit("mine")):

        def run(error=error):
            with trainer.transaction():
                trainer.fit(X, Y, verbose=0)
                raise error

        with pytest.raises(type(error)) as caught:
            run()

        assert error is caught.value
        assert_bit_equal(expected, values_of(trainer.model))


def test_one_inside_another_undoes_its_own_part_alone(trainer):
    before = values_of(trainer.model)
    with trainer.transaction():
        trainer.fit(X, Y, verbose=0)
        between = values_of(trainer.model)
        with trainer.transaction():
            trainer.fit(X, Y, verbose=0)
        behind = values_of(trainer.model)
    after = values_of(trainer.model)

    assert_bit_equal(between, behind)
    assert_bit_equal(before, after)
    assert any((left != right).any() for left, right in zip(before, between, strict=True))


def test_what_the_inner_one_has_built_the_outer_one_knows_as_well():
    trainer = Trainer(MODELS["subclassed"]())
    with trainer.transaction():
        with trainer.transaction():
            trainer.fit(X, Y, verbose=0)
        built = values_of(trainer.model)
        trainer.fit(X, Y, verbose=0)

    assert_bit_equal(built, values_of(trainer.model))
    assert 0 == int(trainer.model.optimizer.iterations)


def test_one_that_has_ended_knows_of_nothing_that_is_built_later():
    trainer = Trainer(MODELS["subclassed"]())
    with trainer.transaction():
        pass
    trainer.fit(X, Y, batch_size=BATCH_SIZE, verbose=0)

    assert 6 == int(trainer.model.optimizer.iterations)


def test_a_warning_that_is_taken_for_an_error_undoes_no_less():
    """As `python -W error` has it."""
    trainer = Trainer(MODELS["subclassed"]())
    other = keras.Variable(1.0)
    trainer.model.other = other

    def run():
        with trainer.transaction():
            other.assign(2.0)
            trainer.model(X[:1])

    with pytest.raises(UserWarning, match="built inside the transaction"):
        run()

    assert 1.0 == float(other)


def test_a_model_built_inside_by_somebody_else_is_told_of():
    """Its first weights are not known; what the Trainer builds is."""
    model = MODELS["subclassed"]()
    match = r"built inside the transaction, and not by its Trainer"
    with pytest.warns(UserWarning, match=match), Trainer(model).transaction():
        model(X[:1])


@pytest.mark.parametrize("run", ["evaluate", "predict"])
def test_an_evaluation_or_a_prediction_that_builds_the_model_is_undone_too(run):
    begin()
    expected = MODELS["subclassed"]()
    expected(X[:1])
    begin()
    model = MODELS["subclassed"]()
    trainer = Trainer(model)
    with trainer.transaction():
        getattr(trainer, run)(*([X, Y] if run == "evaluate" else [X]), verbose=0)
        for variable in model.weights:
            variable.assign(variable + 1.0)

    assert_bit_equal([v.numpy() for v in expected.weights], [v.numpy() for v in model.weights])


def test_optimizers_that_a_model_keeps_for_itself_are_put_back_as_well():
    """As an adversarial model has them, an optimizer for each side."""
    runs = []
    for is_tried in (False, True):
        begin()
        model = Adversaries()
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.01), keras.optimizers.Adam(0.02), loss)
        trainer, data = Trainer(model), tf.data.Dataset.from_tensor_slices(X).batch(8)
        if is_tried:
            with trainer.transaction():
                trainer.fit(data, verbose=0)
        trainer.fit(data, verbose=0)
        optimizers = (model.judge_optimizer, model.maker_optimizer)
        runs.append([*values_of(model), *(v.numpy() for own in optimizers for v in own.variables)])

    assert_bit_equal(*runs)


def test_what_is_compiled_anew_inside_is_told_of():
    """The optimizer from before is not put back: what it had is lost, and the new one keeps what it has learnt."""
    trainer = Trainer(MODELS["adam"]())
    trainer.fit(X, Y, verbose=0)
    with pytest.warns(UserWarning, match="transaction"), trainer.transaction():
        compiled(trainer.model)


def test_two_replicas_are_put_back_both(two_replicas):
    """A training behind a transaction, dropout and statistics included."""
    runs = []
    for is_tried in (False, True):
        begin()
        with two_replicas.scope():
            model = MODELS["adam"]()
        trainer = Trainer(model)
        if is_tried:
            with trainer.transaction():
                trainer.fit(X[:40], Y[:40], batch_size=5, verbose=0)
        history = trainer.fit(X[:40], Y[:40], batch_size=BATCH_SIZE, epochs=2, verbose=0).history
        runs.append((history, values_of(model), generators()))

    assert_equal_runs(*runs)

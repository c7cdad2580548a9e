"""The promise: steps that are accumulated update as one step on all their samples, whatever is lost and learnt.

The judge is one batch as large as the steps together, given to `model.fit`, or to a Trainer that does not accumulate.
Batch statistics and draws (BatchNormalization, Dropout) are each step's own, and sums over a batch are no means: these
are not drawn, and the difference that BatchNormalization makes is told by a test of its own.
"""

import functools
from contextlib import nullcontext

import attrs
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from engine import Checkpointer, ConfigError, Every, StepError, Trainer, losses
from engine.callbacks import NonFinite
from tests.helpers import assert_bit_equal, samples, weights_of
from tests.networks import Penalty
from tests.runs import Cut, Cuts, assert_same, seen
from tests.strategies import examples, trainings

NO_MEANS = {"batch normalisation", "dropout", "gru", "mean by weight", "model", "noise", "object", "sum"}
L = keras.layers


@pytest.fixture
def float64():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


class Densely:
    """Before an optimizer of Keras's: the sparse gradient of an embedding is added up row by row.

    Keras clips and squares its entries one by one where a token comes twice, so that `fit` takes another step than
    the gradient says. What is accumulated is dense: see the test of it below.
    """

    def apply(self, grads, trainable_variables=None):
        super().apply([None if g is None else tf.convert_to_tensor(g) for g in grads], trainable_variables)


class Adam(Densely, keras.optimizers.Adam):
    pass


class SGD(Densely, keras.optimizers.SGD):
    pass


def furthest(expected, found):
    """How far arrays are from what they should be, relative to the largest entry of all of them."""
    largest = max(np.abs(array).max() for array in expected)
    assert np.isfinite(largest)
    return max(np.abs(one - other).max() for one, other in zip(expected, found, strict=True)) / max(largest, 1e-30)


def by(optimizer, training):
    """A training's model with another optimizer, and without metrics."""
    heads = [attrs.evolve(head, metrics=(), weighted_metrics=()) for head in training.network.heads]
    model = attrs.evolve(training, network=attrs.evolve(training.network, heads=tuple(heads))).model()
    model.optimizer = optimizer
    return model


def finite(training, num_samples):
    """The data of a training, no sequence without a first token: Keras pools a masked one to 0 / 0."""
    x, y, sample_weight = training.data(num_samples)

    def begun(leaf):
        return np.maximum(leaf, np.arange(leaf.shape[1]) == 0) if leaf.dtype.kind == "i" else leaf

    return {"x": keras.tree.map_structure(begun, x), "y": y, "sample_weight": sample_weight}


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")  # of outputs without a loss
@pytest.mark.parametrize("kind", ["sequential", "functional"])
@examples(4)
@given(data=st.data())
def test_the_gradient_of_accumulated_steps_is_that_of_one_batch_of_all_their_samples(kind, data):
    """To 1e-6 of the largest entry, in float32, over all weights together; the judge is `model.fit`.

    The gradient is read from the optimizer's momentum, which the first update sets to it, and not from the weights,
    where a small gradient would drown in their rounding. Up to four steps, the last of them ragged or missing.
    """
    training = data.draw(trainings(kind, NO_MEANS), label="training")
    batch_size = training.run.batch_size
    num_samples = data.draw(st.integers(1, 4 * batch_size), label="samples")
    theirs, ours = (by(keras.optimizers.SGD(1.0, momentum=0.9), training) for _ in range(2))
    arguments = finite(training, num_samples) | {"class_weight": training.class_weight, "shuffle": False, "verbose": 0}
    theirs.run_eagerly = True
    theirs.fit(**arguments, batch_size=num_samples)
    Trainer(ours, accumulate=4, run_eagerly=True).fit(**arguments, batch_size=batch_size)
    expected, found = ([m.numpy() for m in model.optimizer.momentums] for model in (theirs, ours))

    assert furthest(expected, found) <= 1e-6
    assert 1 == ours.optimizer.iterations.numpy()


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")  # of outputs without a loss
@pytest.mark.usefixtures("float64")
@examples(2, shrinks=False)
@given(data=st.data())
def test_epochs_of_accumulated_steps_train_as_epochs_of_larger_batches(data):
    """By Adam, to 1e-6; in float64, for Adam divides by gradients that may be as small as rounding is."""
    training = data.draw(trainings("functional", NO_MEANS), label="training")
    steps, num_samples = data.draw(st.integers(2, 4), label="steps"), data.draw(st.integers(1, 40), label="samples")
    batch_size = training.run.batch_size
    arguments = finite(training, num_samples) | {"class_weight": training.class_weight, "shuffle": False, "verbose": 0}
    weights = []
    for accumulate, size in ((1, steps * batch_size), (steps, batch_size)):
        model = by(Adam(0.01), training)
        trainer = Trainer(model, accumulate=accumulate, run_eagerly=True)
        trainer.fit(**arguments, batch_size=size, epochs=2)
        weights.append([weight.numpy() for weight in model.trainable_weights])

    assert furthest(*weights) <= 1e-6


NUM_SAMPLES, BATCH_SIZE, STEPS, TOKENS = 23, 3, 4, 5  # eight steps, the last of two samples: updates of 12 and of 11


def rich(optimizer):
    """A masked output with weights for each step, another without a mask; every kind of penalty."""
    keras.utils.set_random_seed(3)
    tokens = keras.Input((STEPS,), dtype="int32")
    embedded = L.Embedding(TOKENS, 4, mask_zero=True, embeddings_regularizer="l2")(tokens)
    hidden = L.Dense(4, activation="tanh", activity_regularizer="l2")(embedded)
    steps = L.Dense(3, activation="softmax", kernel_regularizer="l1", name="steps")(hidden)
    whole = L.Dense(2, name="whole")(Penalty()(L.GlobalAveragePooling1D()(hidden)))
    model = keras.Model(tokens, [steps, whole])
    loss = [keras.losses.SparseCategoricalCrossentropy(ignore_class=1), "mse"]
    model.compile(optimizer, loss, loss_weights=[1.5, 0.7])
    return model


def rich_data():
    random = np.random.default_rng(1)
    tokens = random.integers(0, TOKENS, (NUM_SAMPLES, STEPS))
    tokens[:, 0] = np.maximum(tokens[:, 0], 1)
    y = (random.integers(0, 3, (NUM_SAMPLES, STEPS)), random.normal(size=(NUM_SAMPLES, 2)).astype("float32"))
    weights = (random.uniform(0, 2, (NUM_SAMPLES, STEPS)), random.uniform(0, 2, NUM_SAMPLES))
    return tokens, y, tuple(weight.astype("float32") for weight in weights)


def rich_arrays(batch_size=BATCH_SIZE):
    x, y, sample_weight = rich_data()
    return {"x": x, "y": y, "sample_weight": sample_weight, "batch_size": batch_size, "shuffle": False}


def clipped_sgd(clipping):
    return SGD(0.1, momentum=0.5, **clipping)


@functools.cache
def by_one_batch(epochs=2, **clipping):
    """The weights when `model.fit` has trained on batches as large as four steps."""
    model = rich(clipped_sgd(clipping))
    model.run_eagerly = True
    model.fit(**rich_arrays(4 * BATCH_SIZE), epochs=epochs, verbose=0)
    return model.get_weights()


def assert_near(expected, given):
    """Equal but for the order of sums, which four updates carry on."""
    for one, other in zip(expected, given, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


WAYS = {
    "eagerly": {"run_eagerly": True},
    "by XLA": {"jit_compile": True},
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_however_steps_are_run_updates_are_those_of_larger_batches(way):
    """`iterations`, and with it every schedule, counts updates."""
    model = rich(clipped_sgd({}))
    Trainer(model, accumulate=4, **way).fit(**rich_arrays(), epochs=2, verbose=0)

    assert 4 == model.optimizer.iterations.numpy()
    assert_near(by_one_batch(), model.get_weights())


def test_an_embedding_learns_by_its_whole_gradient_where_fit_squares_it_in_parts():
    """Of a token twice in a batch Keras's Adam takes the sum of the squares for the square of the sum."""
    tokens, y = np.array([[0, 1], [1, 1], [2, 1], [1, 0]]), np.arange(4.0)[:, None]
    found = []
    for optimizer, batch_size in ((Adam, 4), (keras.optimizers.Adam, 4), (keras.optimizers.Adam, 1)):
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((2,), dtype="int32"), L.Embedding(3, 4), L.Flatten(), L.Dense(1)])
        model.compile(optimizer(0.01), "mse")
        trainer = Trainer(model, accumulate=4 // batch_size, run_eagerly=True)
        trainer.fit(tokens, y, batch_size=batch_size, epochs=2, shuffle=False, verbose=0)
        found.append(model.get_weights()[0])
    whole, in_parts, accumulated = found

    np.testing.assert_allclose(accumulated, whole, rtol=0, atol=1e-6)
    assert np.abs(whole - in_parts).max() > 1e-3


def test_data_of_unknown_length_is_accumulated_to_its_end():
    """In blocks of three, over whose ends windows of four go."""
    data = tf.data.Dataset.from_tensor_slices(rich_data()).filter(lambda *sample: True)
    model = rich(clipped_sgd({}))
    Trainer(model, accumulate=4, steps_per_execution=3).fit(data.batch(BATCH_SIZE), epochs=2, verbose=0)

    assert 4 == model.optimizer.iterations.numpy()
    assert_near(by_one_batch(), model.get_weights())


def test_an_update_never_goes_over_the_end_of_an_epoch():
    """Of three steps each, on data that goes on from epoch to epoch."""
    x, y = samples(36, shape=(4,))
    weights = []
    for accumulate, batch_size, steps in ((4, 2, 3), (1, 6, 1)):
        model = dense(keras.optimizers.SGD(0.1))
        data = tf.data.Dataset.from_tensor_slices((x, keras.utils.to_categorical(y, 3))).batch(batch_size).repeat()
        Trainer(model, accumulate=accumulate).fit(data, steps_per_epoch=steps, epochs=4, verbose=0)
        assert 4 == model.optimizer.iterations.numpy()
        weights.append(model.get_weights())

    assert_near(*weights)


def dense(optimizer, *layers):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), *layers, L.Dense(3, kernel_regularizer="l2")])
    model.compile(optimizer, "mse")
    return model


def dense_data():
    x, y = samples(NUM_SAMPLES, shape=(4,))
    return {"x": x, "y": keras.utils.to_categorical(y, 3), "batch_size": BATCH_SIZE, "shuffle": False}


CLIPPED = {
    "a norm each": {"clipnorm": 0.1},
    "one norm": {"global_clipnorm": 0.2},
    "values": {"clipvalue": 0.03},
}


@pytest.mark.parametrize("clipping", CLIPPED.values(), ids=CLIPPED.keys())
def test_gradients_are_clipped_when_they_are_complete(clipping):
    """Once for all steps of an update; clipped one by one they would add up to another gradient."""
    model = rich(clipped_sgd(clipping))
    Trainer(model, accumulate=4, run_eagerly=True).fit(**rich_arrays(), verbose=0)
    expected, unclipped = by_one_batch(epochs=1, **clipping), by_one_batch(epochs=1)

    assert_near(expected, model.get_weights())
    assert furthest(expected, unclipped) > 1e-3


def test_two_replicas_accumulate_as_one_trains_on_larger_batches(two_replicas):
    """Each adds up its own; their sum is clipped. How else it may be clipped is in the tests of `descent.py`."""
    clipping = CLIPPED["one norm"]
    with two_replicas.scope():
        model = rich(clipped_sgd(clipping))
    Trainer(model, accumulate=4).fit(**rich_arrays(), epochs=2, verbose=0)

    assert 4 == model.optimizer.iterations.numpy()
    assert_near(by_one_batch(**clipping), model.get_weights())


def test_batch_normalization_alone_makes_a_difference_unless_it_is_frozen():
    """It normalizes by the statistics of the step that it sees, and four small batches have not those of one large."""
    differences = {}
    for is_trainable in (True, False):
        weights = []
        for accumulate in (4, 1):
            layer = L.BatchNormalization(trainable=is_trainable)
            model = dense(keras.optimizers.SGD(0.1), layer)
            arguments = dense_data() | {"batch_size": BATCH_SIZE * (4 // accumulate)}
            Trainer(model, accumulate=accumulate, run_eagerly=True).fit(**arguments, verbose=0)
            weights.append(model.get_weights())
        differences[is_trainable] = furthest(*weights)

    assert differences[True] > 1e-2
    assert differences[False] <= 1e-6


def trainer_of(directory, **arguments):
    """A new Trainer that logs norms, as another process would make it."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(7)
    model = dense(keras.optimizers.Adam(0.01, use_ema=True), L.Dense(4, "relu"), L.Dropout(0.3, seed=2))
    saved = directory and Checkpointer(directory, every=Every(steps=3), background=False)
    return Trainer(model, seed=3, accumulate=4, report_gradients=True, checkpoints=saved, **arguments)


def trained(directory, *, how=(), **arguments):
    trainer = trainer_of(directory)
    data = dense_data() | {"shuffle": True}
    history = trainer.fit(**data, verbose=0, callbacks=list(how), **({"epochs": 2} | arguments))
    return seen(trainer.model, history)


@functools.cache
def whole():
    """What a run comes to that is never cut; it is not saved either."""
    return trained(None)


class Cutting(Cuts):
    """Cuts, and has nothing that a checkpoint must hold."""

    def get_state(self):
        return {}

    def set_state(self, state):
        """Nothing."""


def test_a_run_that_is_cut_between_two_updates_goes_on_with_what_was_added_up(tmp_path):
    """Bit by bit: an error behind step 10 leaves what was saved behind step 9, the first of four of epoch 2."""
    with pytest.raises(Cut):
        trained(tmp_path, how=[Cutting(10, how="error")])

    assert_same(whole(), trained(tmp_path, resume=True))


def test_a_run_that_max_steps_ended_between_two_updates_goes_on_as_if_it_had_not(tmp_path):
    """What an end in the middle of an epoch has updated with is taken back."""
    firsts = [trained(tmp_path, max_steps=max_steps, resume=True) for max_steps in (2, 10)]

    assert_same(firsts[1], trained(tmp_path, max_steps=10, resume=True))
    for num_updates, first in zip((1, 3), firsts, strict=True):
        assert num_updates == next(v for name, v in first["variables"].items() if "iteration" in name)
    assert_same(whole(), trained(tmp_path, resume=True))


def test_a_run_is_not_taken_up_with_another_number_of_steps(tmp_path):
    trained(tmp_path, max_steps=2)
    other = Trainer(trainer_of(tmp_path).model, seed=3, checkpoints=Checkpointer(tmp_path))

    with pytest.raises(ValueError, match="accumulate"):
        other.fit(**dense_data(), epochs=2, verbose=0, resume=True)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_fit_begins_with_nothing_added_up(request, replicas):
    """Though an error has ended the one before it between two updates."""
    fits = []
    for is_cut in (False, True):
        if replicas == 2:
            with request.getfixturevalue("two_replicas").scope():
                model = dense(keras.optimizers.SGD(0.1))
        else:
            model = dense(keras.optimizers.SGD(0.1))
        trainer, weights = Trainer(model, accumulate=4), model.get_weights()
        if is_cut:
            with pytest.raises(Cut):
                trainer.fit(**dense_data(), verbose=0, callbacks=[Cutting(2, how="error")])
            assert_bit_equal(weights, model.get_weights())
        trainer.fit(**dense_data(), verbose=0)
        fits.append(model.get_weights())

    assert_bit_equal(*fits)


def test_a_step_that_is_left_out_is_in_no_sum():
    """`NonFinite("skip")` puts back what was added up before it, as if the batch had not been there."""
    data = dense_data() | {"batch_size": 2}
    found = []
    for is_bad in (False, True):
        model = dense(keras.optimizers.SGD(0.1))
        arguments = data | (
            {"x": np.insert(data["x"], [6, 6], np.inf, 0), "y": np.insert(data["y"], [6, 6], 0, 0)} if is_bad else {}
        )
        fit = Trainer(model, accumulate=4, report_gradients=True).fit
        with pytest.warns(UserWarning, match="1 of 13 steps were not finite") if is_bad else nullcontext():
            history = fit(**arguments, verbose=0, callbacks=[NonFinite("skip")]).history
        found.append((weights_of(model), history))
    (weights, history), (other_weights, other_history) = found

    assert_bit_equal(weights, other_weights)
    assert history == other_history


def test_the_norms_in_the_logs_are_those_of_updates():
    """Of whole gradients, before they are clipped, the last of an epoch included; steps between updates have none."""
    histories = []
    for accumulate in (4, 1):
        model = rich(clipped_sgd({"global_clipnorm": 0.2}))
        trainer = Trainer(model, accumulate=accumulate, report_gradients=True, run_eagerly=True)
        arguments = rich_arrays(BATCH_SIZE * (4 // accumulate))
        histories.append(trainer.fit(**arguments, verbose=0).history["gradient_norm"])
    by_steps, by_batches = histories

    assert min(by_batches) > 0.2
    # Of two updates an epoch, averaged evenly; those of larger batches are averaged by their 12 and 11 samples.
    np.testing.assert_allclose(by_steps, by_batches, rtol=0.05)


class OwnStep(keras.Sequential):
    """A model that takes its gradients itself."""

    def train_step(self, data):
        return super().train_step(data)


def own_step():
    model = OwnStep([keras.Input((4,)), L.Dense(3)])
    model.compile("sgd", "mse")
    return model


def update_twice(model, batch):
    x, y = batch
    for _ in range(2):
        with losses.Total() as total:
            total.compare("data", "mse", y, total.call(model, x))
        total.minimize(model)
    return total.logs()


def summed():
    return keras.losses.MeanSquaredError(reduction="sum", name="whole")


REFUSALS = {
    "by Keras too": (
        lambda: dense(keras.optimizers.SGD(gradient_accumulation_steps=2, name="mine")),
        {},
        ConfigError,
        "accumulate=4, and the optimizer 'mine' has gradient_accumulation_steps=2 of its own. Give one of them; "
        "accumulate also weighs a ragged last batch right.",
    ),
    "a train_step of its own": (
        own_step,
        {},
        StepError,
        "accumulate=4, but the train step updates nothing through engine.losses, so that there is nothing to add up. "
        "Write it with `losses.Total` and its `minimize`, or leave accumulate out.",
    ),
    "two updates of the same weights": (
        lambda: dense("sgd"),
        {"step": update_twice},
        StepError,
        "accumulate=4, but the step updates the same weights more than once, and the second time would need what the "
        "first has changed. Leave accumulate out, or minimize once.",
    ),
    "a sum": (
        lambda: keras.Sequential([keras.Input((4,)), L.Dense(3)]),
        {"optimizer": "sgd", "loss": summed()},
        ConfigError,
        "loss 'whole' has reduction='sum', of which the shares of the 4 accumulated steps do not add up to the loss of "
        "the whole batch. Use reduction='sum_over_batch_size'.",
    ),
    "no number": (
        lambda: dense("sgd"),
        {"accumulate": 0},
        ConfigError,
        "accumulate=0: expected a whole number, at least 1.",
    ),
}


@pytest.mark.parametrize(("make", "arguments", "kind", "words"), REFUSALS.values(), ids=REFUSALS.keys())
def test_what_cannot_be_added_up_is_refused_in_words(make, arguments, kind, words):
    """Before the first step."""
    with pytest.raises(kind) as error:
        Trainer(make(), **({"accumulate": 4} | arguments)).fit(**dense_data(), verbose=0)

    assert words == str(error.value)

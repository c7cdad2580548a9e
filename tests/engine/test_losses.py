import contextlib
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras.src.losses.losses import LossFunctionWrapper  # what `compile` makes of a function

from engine import Trainer
from engine.errors import ConfigError, DataError
from engine.losses import (
    Total,
    Updates,
    check_share,
    check_target_shapes,
    check_target_values,
    of_samples,
    outputs_of,
    terms_of,
)
from engine.supervised import Supervised
from tests.helpers import assert_bit_equal, weights_of
from tests.strategies import examples

NUM_SAMPLES = 6  # unlike every other length below, so that nothing fits by accident
SPARSE = "sparse_categorical_crossentropy"
ELEMENTWISE = ["mean_squared_error", "mean_absolute_error", "binary_crossentropy", "huber", "poisson"]
SHAPES = [(), (1,), (3,), (5,), (1, 1), (1, 3), (3, 1), (3, 3), (5, 3), (5, 1), (3, 5), (5, 3, 1), (5, 3, 3), (1, 5, 3)]


def spec(*shape, dtype="float32"):
    return tf.TensorSpec((None, *shape), dtype)


def is_refused(loss, y, y_pred):
    try:
        check_target_shapes(loss, y, y_pred)
    except DataError:
        return True
    return False


def value_of(loss, y, y_pred):
    """What Keras makes of it, as it calls the losses that a model was compiled with; None if it fails."""
    compiled = loss if isinstance(loss, keras.Loss) else LossFunctionWrapper(keras.losses.get(loss))
    try:
        return float(compiled(y, y_pred))
    except (ValueError, tf.errors.InvalidArgumentError):
        return None


def mistaken(loss, pairs, in_one_to_one, *, dtype="float32"):
    """The pairs of shapes that are accepted though Keras makes something else of them, or refused though it does not.

    Meant is the loss of targets in the very shape that goes with the predictions, one to one.
    """
    generator, found = np.random.default_rng(0), []
    for shape, expected in pairs:
        y = generator.uniform(0.1, 0.9, (NUM_SAMPLES, *shape)).astype("float32")
        y = generator.integers(0, 3, y.shape) if dtype == "int64" else y
        y_pred = generator.uniform(0.1, 0.9, (NUM_SAMPLES, *expected)).astype("float32")
        one_to_one = (NUM_SAMPLES, *in_one_to_one(expected))
        meant = value_of(loss, y.reshape(one_to_one), y_pred) if y.size == np.prod(one_to_one) else None
        value = value_of(loss, y, y_pred)
        is_meant = meant is not None and value is not None and np.isclose(meant, value, rtol=1e-6)
        if is_meant == is_refused(loss, spec(*shape, dtype=dtype), spec(*expected)):
            found.append((shape, expected))
    return found


@pytest.mark.parametrize("loss", ELEMENTWISE)
def test_targets_are_accepted_exactly_where_keras_compares_them_one_to_one(loss):
    """What is refused would fail in Keras, or be broadcast in silence; what is accepted gives the loss meant."""
    assert [] == mistaken(loss, itertools.product(SHAPES, SHAPES), lambda expected: expected)


def test_class_numbers_are_accepted_exactly_where_keras_takes_one_a_prediction():
    outputs = [(3,), (5, 3), (3, 3), (5, 3, 3), (1, 3), (1, 5, 3)]

    assert [] == mistaken(SPARSE, itertools.product(SHAPES, outputs), lambda expected: expected[:-1], dtype="int64")


@pytest.mark.parametrize(
    ("loss", "given", "expected", "words"),
    [
        (
            "mse",
            (1,),
            (3,),
            "y has shape (None, 1), but the loss 'mean_squared_error' compares it with predictions of shape (None, 3) "
            "and expects targets of shape (None, 3). "
            "Reshape the targets, or change the units of the model's last layer.",
        ),
        (
            SPARSE,
            (3,),
            (3,),
            f"y has shape (None, 3), but the loss '{SPARSE}' compares it with predictions of shape (None, 3) and "
            "expects targets of shape (None,). One-hot targets go with 'categorical_crossentropy'; class numbers are "
            "np.argmax(y, axis=-1).",
        ),
        (
            SPARSE,
            (7,),
            (3,),
            f"y has shape (None, 7), but the loss '{SPARSE}' compares it with predictions of shape (None, 3) and "
            "expects targets of shape (None,). Reshape the targets, or change the units of the model's last layer.",
        ),
        (
            "categorical_crossentropy",
            (),
            (3,),
            "y has shape (None,), but the loss 'categorical_crossentropy' compares it with predictions of shape "
            "(None, 3) and expects targets of shape (None, 3). Class numbers go with "
            "'sparse_categorical_crossentropy'; one-hot is keras.utils.to_categorical(y).",
        ),
    ],
)
def test_targets_of_the_wrong_shape_are_refused_in_words(loss, given, expected, words):
    with pytest.raises(DataError) as error:
        check_target_shapes(loss, spec(*given), spec(*expected))

    assert words == str(error.value)


@pytest.mark.parametrize(
    ("loss", "y", "y_pred", "beginning"),
    [
        ("mse", [spec(3), spec(1)], [spec(3), spec(3)], "y[1] has shape (None, 1)"),
        ("mse", {"b": spec(3), "a": spec(1)}, {"b": spec(3), "a": spec(3)}, "y['a'] has shape (None, 1)"),
        (["mse", SPARSE], [spec(3), spec(2)], [spec(3), spec(3)], f"y[1] has shape (None, 2), but the loss '{SPARSE}'"),
        (
            {"b": SPARSE, "a": "mae"},
            {"b": spec(), "a": spec()},
            {"b": spec(3), "a": spec(3)},
            "y['a'] has shape (None,), but the loss 'mean_absolute_error'",
        ),
        ({"b": None, "a": "mae"}, {"b": spec(), "a": spec()}, {"b": spec(3), "a": spec(3)}, "y['a'] has shape (None,)"),
    ],
)
def test_each_of_several_outputs_is_compared_with_its_own_targets(loss, y, y_pred, beginning):
    with pytest.raises(DataError) as error:
        check_target_shapes(loss, y, y_pred)

    assert str(error.value).startswith(beginning)


@pytest.mark.parametrize(
    ("loss", "y", "y_pred"),
    [
        ("mse", None, spec(3)),
        ("mse", [spec(3), None], [spec(3), spec(3)]),
        (None, spec(1), spec(3)),
        ([None, "mse"], [spec(1), spec(3)], [spec(3), spec(3)]),
        ("mse", [spec(1)], [spec(3), spec(3)]),
        (["mse", "mae"], spec(3), spec(3)),
    ],
    ids=["no targets", "no targets of one", "no loss", "no loss of one", "fewer targets", "two losses of one output"],
)
def test_what_cannot_be_paired_is_left_to_keras(loss, y, y_pred):
    assert not is_refused(loss, y, y_pred)


def test_targets_by_name_go_with_a_list_of_outputs_as_in_keras():
    """A functional model's outputs may be a list while its targets are named: the names say which is which."""
    inputs = keras.Input((2,))
    outputs = [keras.layers.Dense(3, name="wide")(inputs), keras.layers.Dense(1, name="narrow")(inputs)]
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse", run_eagerly=True)
    y = {"wide": np.zeros((4, 3)), "narrow": np.zeros((4, 1))}

    assert np.isfinite(model.evaluate(np.ones((4, 2)), y, verbose=0)[0])
    assert not is_refused(model.loss, {name: spec(*target.shape[1:]) for name, target in y.items()}, [spec(3), spec(1)])


OF_KERAS = [
    "mse",
    "MSE",
    "mean_squared_error",
    "MeanSquaredError",
    "kld",
    "kl_divergence",
    "log_cosh",
    "bce",
    keras.losses.mean_squared_error,
    *(
        getattr(keras.losses, name)
        for name in (
            "BinaryCrossentropy",
            "BinaryFocalCrossentropy",
            "CategoricalCrossentropy",
            "CategoricalFocalCrossentropy",
            "CategoricalGeneralizedCrossEntropy",
            "CategoricalHinge",
            "CosineSimilarity",
            "Hinge",
            "Huber",
            "KLDivergence",
            "LogCosh",
            "MeanAbsoluteError",
            "MeanAbsolutePercentageError",
            "MeanSquaredError",
            "MeanSquaredLogarithmicError",
            "Poisson",
            "SquaredHinge",
        )
    ),
]


@pytest.mark.parametrize("loss", OF_KERAS)
def test_a_loss_of_keras_is_known_by_every_one_of_its_names(loss):
    loss = loss() if isinstance(loss, type) else loss

    assert is_refused(loss, spec(1), spec(3))
    assert not is_refused(loss, spec(3), spec(3))


@pytest.mark.parametrize(
    "loss", [SPARSE, keras.losses.sparse_categorical_crossentropy, keras.losses.SparseCategoricalCrossentropy]
)
def test_class_numbers_are_known_by_every_name_of_their_loss(loss):
    loss = loss() if isinstance(loss, type) else loss

    assert is_refused(loss, spec(3), spec(3))
    assert not is_refused(loss, spec(), spec(3))


class Custom(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(y_pred, axis=-1)


class Changed(keras.losses.MeanSquaredError):
    def call(self, y_true, y_pred):
        return keras.ops.mean(y_pred, axis=-1)


def mean_squared_error(y_true, y_pred):
    """Called like one of Keras's, and another."""
    return keras.ops.mean(y_pred, axis=-1)


@pytest.mark.parametrize(
    "make",
    [
        Custom,
        Changed,
        lambda: mean_squared_error,
        lambda: lambda y, y_pred: y_pred,
        lambda: "ce",
        lambda: "crossentropy",
        keras.losses.Dice,
        keras.losses.CTC,
    ],
    ids=["loss", "subclass", "namesake", "lambda", "ce", "crossentropy", "Dice", "CTC"],
)
def test_a_loss_that_is_not_known_is_left_alone(make):
    loss = make()
    check_target_values(loss, np.array([[np.nan], [99.0]]), spec(3))

    assert not is_refused(loss, spec(1), spec(3))


@pytest.mark.parametrize(
    ("loss", "y", "words"),
    [
        (
            "mse",
            np.array([[0.0, 1.0, 2.0], [0.0, np.nan, np.inf]]),
            "y is not finite: y[1, 1] is nan, the first of 2. "
            "One such target makes every weight NaN. Remove or fill these samples.",
        ),
        (
            SPARSE,
            np.array([0, 2, 3, 7]),
            "y holds the class 3 at y[2], but the model has 3 outputs, for the classes 0 to 2. "
            "Number the classes from 0, or give the last layer more units.",
        ),
        (
            SPARSE,
            np.array([[0], [-1]]),
            "y holds the class -1 at y[1, 0], but the model has 3 outputs, for the classes 0 to 2. "
            "Number the classes from 0, or give the last layer more units.",
        ),
        (
            [None, SPARSE],
            [np.array([np.nan]), np.array([5])],
            "y[1] holds the class 5 at y[0], but the model has 3 outputs, for the classes 0 to 2. "
            "Number the classes from 0, or give the last layer more units.",
        ),
    ],
)
def test_target_values_that_cannot_be_learnt_are_refused_in_words(loss, y, words):
    with pytest.raises(DataError) as error:
        check_target_values(loss, y, [spec(3), spec(3)] if isinstance(y, list) else spec(3))

    assert words == str(error.value)


@examples(200)
@given(st.lists(st.integers(-2, 5), min_size=1, max_size=6), st.sampled_from(["int8", "int64", "float32"]))
def test_class_numbers_are_accepted_exactly_where_there_is_an_output_for_them(classes, dtype):
    y = np.array(classes, dtype)
    try:
        check_target_values(SPARSE, y, spec(3))
        is_accepted = True
    except DataError:
        is_accepted = False

    assert is_accepted == set(classes).issubset({0, 1, 2})


@pytest.mark.parametrize("ignored", [-1, 255])
def test_a_class_that_the_loss_ignores_needs_no_output(ignored):
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=ignored)
    y = np.array([0, ignored, 2])
    value = value_of(loss, y, np.full((3, 3), 1 / 3, "float32"))
    check_target_values(loss, y, spec(3))

    assert np.isfinite(value)


def test_an_output_of_unknown_width_takes_any_class():
    check_target_shapes(SPARSE, spec(), tf.TensorSpec((None, None)))
    check_target_values(SPARSE, np.array([0, 99]), tf.TensorSpec((None, None)))


@pytest.mark.parametrize(
    ("reduction", "is_weighted"), [("sum", False), ("none", False), (None, True), ("mean_with_sample_weight", True)]
)
def test_a_loss_whose_shares_do_not_add_up_is_refused_in_words(two_replicas, reduction, is_weighted):
    loss = keras.losses.MeanSquaredError(reduction=reduction, name="mine")
    check_share(loss, accumulate=1, is_weighted=is_weighted)  # one replica
    with two_replicas.scope(), pytest.raises(ConfigError) as error:
        check_share([None, {"a": "mse", "b": loss}], accumulate=1, is_weighted=is_weighted)

    assert (
        f"loss 'mine' has reduction={reduction!r}, of which the shares of the 2 replicas do not add up to the loss of "
        "the whole batch. Use reduction='sum_over_batch_size'."
    ) == str(error.value)


@pytest.mark.parametrize("loss", [None, "mse", keras.losses.mean_squared_error, ["mse", None], {"a": "mse"}])
def test_every_other_loss_may_be_shared(two_replicas, loss):
    with two_replicas.scope():
        check_share(loss, accumulate=1)


def regression(**arguments):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.1))])
    model.compile(keras.optimizers.SGD(1.0), **({"loss": "mse"} | arguments))
    return model


def step_of(model, x, y, weight, size):
    """(what the weights lose at a rate of 1: the gradients of the whole batch, loss of these samples)."""
    before = [tf.identity(v) for v in model.trainable_weights]
    with Updates().step(size):
        with Total() as total:
            loss = of_samples(model.compute_loss(x, y, model(x, training=True), weight, training=True))
            total.add("data", loss)
        total.minimize(model)
    return [old - new for old, new in zip(before, model.trainable_weights, strict=True)], loss


DATA = np.random.default_rng(0)
X = tf.constant(DATA.normal(size=(7, 4)), tf.float32)
Y = tf.constant(DATA.normal(size=(7, 3)), tf.float32)
WEIGHT = tf.constant(DATA.uniform(0.1, 3, 7), tf.float32)


@pytest.mark.parametrize("first", [0, 1, 3, 4, 6, 7])
@pytest.mark.parametrize(
    ("reduction", "weight"),
    [
        ("sum_over_batch_size", None),
        ("sum_over_batch_size", WEIGHT),
        ("mean", WEIGHT),
        ("mean_with_sample_weight", None),
    ],
    ids=["plain", "weighted", "mean", "unweighted"],
)
def test_gradients_summed_over_replicas_are_those_of_the_whole_batch(two_replicas, first, weight, reduction):
    """Of every loss that is not refused, however the samples are shared, and of the penalties beside it."""
    loss = keras.losses.MeanSquaredError(reduction=reduction)
    with two_replicas.scope():
        check_share(loss, accumulate=1, is_weighted=weight is not None)
    alone = regression(loss=loss)
    expected, expected_loss = step_of(alone, X, Y, weight, tf.constant(7))
    with two_replicas.scope():
        shared = regression(loss=loss)

    @tf.function
    def step(cuts):
        def on_replica():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            x, y = (array[cuts[replica] : cuts[replica + 1]] for array in (X, Y))
            own = None if weight is None else weight[cuts[replica] : cuts[replica + 1]]
            gradients, value = step_of(shared, x, y, own, tf.shape(x)[0])
            return gradients, value * tf.cast(tf.shape(x)[0], tf.float32)

        gradients, total = two_replicas.run(on_replica)
        return [two_replicas.experimental_local_results(g)[0] for g in gradients], two_replicas.reduce(
            "SUM", total, axis=None
        )

    gradients, total = step(tf.constant([0, first, 7]))

    # Not bit-equal: sums of other parts, in another order.
    for whole, parts in zip(expected, gradients, strict=True):
        np.testing.assert_allclose(whole, parts, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(expected_loss, total / 7, rtol=1e-5)


def test_without_replicas_a_loss_stays_the_same_tensor():
    loss = tf.constant(0.3)

    assert of_samples(loss) is loss


class Squares(keras.layers.Layer):
    """Hands its input on, and adds the mean of its squares."""

    def call(self, inputs):
        self.add_loss(keras.ops.cast(keras.ops.mean(keras.ops.square(inputs)), "float32"))
        return inputs


class SmallOutputs(keras.Model):
    """A model that adds a loss itself, beside those of its parts."""

    def __init__(self, *, name="small"):
        super().__init__(name=name)
        self.penalty = Squares(name="squares")
        self.dense = keras.layers.Dense(3, kernel_regularizer="l2", activity_regularizer="l1", name="dense")

    def call(self, inputs):
        outputs = self.dense(self.penalty(inputs))
        self.add_loss(0.1 * keras.ops.mean(keras.ops.abs(outputs)))
        return outputs


KIND = tf.constant([0, 2, 1, 1, 0, 2, 2])
SIZE = tf.constant(DATA.normal(size=(7, 1)), tf.float32)


def with_every_term(**compile_arguments):
    """Two outputs with weights, three weight regularizers, an activity regularizer and a loss that a layer adds."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(
        5,
        kernel_regularizer=keras.regularizers.L2(0.1),
        bias_regularizer="l1",
        activity_regularizer="l1",
        name="hidden",
    )(inputs)
    hidden = Squares(name="squares")(hidden)
    kind = keras.layers.Dense(3, activation="softmax", kernel_regularizer="l1", name="kind")(hidden)
    size = keras.layers.Dense(1, name="size")(hidden)
    model = keras.Model(inputs, {"size": size, "kind": kind})
    # Nothing is learnt, so that every batch of an epoch can be computed from the same weights.
    arguments = {"optimizer": keras.optimizers.SGD(0.0), "loss": {"size": "mse", "kind": SPARSE}}
    model.compile(loss_weights={"size": 0.5, "kind": 2.0}, **(arguments | compile_arguments))
    return model


def computed_by_hand(model, x, kind, size, weight):
    """The terms of one batch for `with_every_term`, in NumPy."""
    w, b, w_kind, b_kind, w_size, b_size = (variable.numpy() for variable in model.trainable_weights)
    hidden = x @ w + b
    scores = np.exp(hidden @ w_kind + b_kind)
    of_kind = -np.log((scores / scores.sum(-1, keepdims=True))[np.arange(len(x)), kind])
    of_size = np.mean((hidden @ w_size + b_size - size) ** 2, axis=-1)
    kind_loss, size_loss = np.mean(of_kind * weight), np.mean(of_size * weight)
    return {
        "kind_loss": kind_loss,
        "size_loss": size_loss,
        "loss/data": 2.0 * kind_loss + 0.5 * size_loss,
        "loss/data/kind": 2.0 * kind_loss,
        "loss/data/size": 0.5 * size_loss,
        "loss/regularization": 0.1 * np.sum(w**2) + 0.01 * np.sum(np.abs(b)) + 0.01 * np.sum(np.abs(w_kind)),
        "loss/hidden": 0.01 * np.sum(np.abs(hidden)) / len(x),  # which Keras divides by the samples
        "loss/squares": np.mean(hidden**2),
    }


def added_up(logs, prefix=""):
    """The sum of a loss's terms; those of single outputs are in `loss/data` already."""
    first = f"{prefix}loss/"
    return sum(value for name, value in logs.items() if name.startswith(first) and "/" not in name[len(first) :])


def test_the_terms_of_a_loss_are_what_one_computes_by_hand():
    """In training and in validation, with weights, and with a last batch that is smaller than the others."""
    model, parts = with_every_term(), [part.numpy() for part in (X, KIND, SIZE, WEIGHT)]
    model(X)
    means = {}
    for begin, size in ((0, 4), (4, 3)):
        batch = computed_by_hand(model, *(part[begin : begin + size] for part in parts))
        means = {name: means.get(name, 0.0) + value * size / 7 for name, value in batch.items()}
    expected = means | {"loss": sum(means[f"loss/{name}"] for name in ("data", "regularization", "hidden", "squares"))}
    y, weights = {"kind": KIND, "size": SIZE}, {"kind": WEIGHT, "size": WEIGHT}
    trainer = Trainer(model, report_terms=True)
    history = trainer.fit(X, y, 4, sample_weight=weights, validation_data=(X, y, weights), verbose=0).history

    assert {*expected, *(f"val_{name}" for name in expected)} == set(history)
    for name, value in expected.items():
        np.testing.assert_allclose(history[name], [value], rtol=1e-5, err_msg=name)  # NumPy's sums in another order
        np.testing.assert_allclose(history[f"val_{name}"], [value], rtol=1e-5, err_msg=name)


def test_terms_are_named_after_what_adds_them():
    """Right after the loss is computed, and without a Trainer."""
    model = with_every_term()
    total = model.compute_loss(X, {"kind": KIND, "size": SIZE}, model(X, training=True))
    outputs = outputs_of(model)
    terms = terms_of(model, total, outputs)

    assert {"kind", "size"} == set(outputs)
    assert {
        "loss/data",
        "loss/data/kind",
        "loss/data/size",
        "loss/regularization",
        "loss/hidden",
        "loss/squares",
    } == set(terms)
    np.testing.assert_allclose(total, added_up(terms), rtol=1e-6)
    np.testing.assert_allclose(terms["loss/data"], sum(outputs.values()), rtol=1e-6)


def test_a_small_data_loss_is_not_lost_in_a_large_rest():
    """As the difference of two large numbers it would be 0."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(1e6))])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.ones((8, 4), "float32")
    y = model.predict(x, verbose=0) + 0.01
    history = Trainer(model, report_terms=True).fit(x, y, verbose=0).history

    np.testing.assert_allclose(history["loss/data"], [1e-4], rtol=1e-3)  # float32 targets
    assert history["loss/regularization"][0] > 1e4


def sequential(*layers, loss="mse"):
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile(keras.optimizers.Adam(0.01), loss)
    return model


def subclassed():
    model = SmallOutputs()
    model.compile("adam", "mse")
    return model


def shared():
    """A layer that is called twice."""
    inputs = keras.Input((4,))
    layer = keras.layers.Dense(4, activity_regularizer="l2", kernel_regularizer="l2", name="twice")
    model = keras.Model(inputs, keras.layers.Dense(3)(layer(layer(inputs))))
    model.compile("adam", "mse")
    return model


def partly_frozen():
    frozen = keras.layers.Dense(4, kernel_regularizer="l2", name="frozen")
    frozen.trainable = False
    return sequential(frozen, keras.layers.Dense(3, kernel_regularizer="l1"))


def of_lists():
    """Two losses for one output, none for another."""
    inputs = keras.Input((4,))
    outputs = [keras.layers.Dense(3, name=name)(inputs) for name in ("tail", "head", "unused")]
    model = keras.Model(inputs, outputs)
    model.compile("adam", [["mse", "mae"], "mse", None], loss_weights=[[1.0, 0.5], 2.0, 1.0])
    return model


def in_half(policy):
    """Layers that compute with 16 bits, and an optimizer that scales the loss."""
    policy = keras.DTypePolicy(policy)
    dense = keras.layers.Dense(5, kernel_regularizer="l2", name="half", dtype=policy)
    model = sequential(dense, Squares(dtype=policy, name="squares"), keras.layers.Dense(3))
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)), "mse")
    return model


DATA_ALONE = {"loss/data"}
TERMS = {
    "one loss": (lambda: sequential(keras.layers.Dense(3)), DATA_ALONE),
    "a weight": (
        lambda: sequential(keras.layers.Dense(3, kernel_regularizer="l2")),
        {"loss/regularization"} | DATA_ALONE,
    ),
    "the model itself": (
        subclassed,
        {"loss/regularization", "loss/dense", "loss/squares", "loss/small"} | DATA_ALONE,
    ),
    "a model inside": (
        lambda: sequential(keras.layers.Dropout(0.5), SmallOutputs(name="inner")),
        {"loss/regularization", "loss/dense", "loss/squares", "loss/inner"} | DATA_ALONE,
    ),
    "two of one name": (
        lambda: sequential(SmallOutputs(name="inner"), Squares(name="squares"), Squares(name="other")),
        {"loss/regularization", "loss/dense", "loss/squares", "loss/inner", "loss/other"} | DATA_ALONE,
    ),
    "a layer called twice": (shared, {"loss/regularization", "loss/twice"} | DATA_ALONE),
    "a frozen layer": (partly_frozen, {"loss/regularization"} | DATA_ALONE),
    "lists of losses": (of_lists, {"loss/data/tail", "loss/data/head"} | DATA_ALONE),
    "float16": (lambda: in_half("mixed_float16"), {"loss/regularization", "loss/squares"} | DATA_ALONE),
    "bfloat16": (lambda: in_half("mixed_bfloat16"), {"loss/regularization", "loss/squares"} | DATA_ALONE),
}


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")  # of the output without a loss
@pytest.mark.parametrize(("make", "names"), TERMS.values(), ids=TERMS)
def test_every_term_is_named_and_they_add_up(make, names):
    """In every epoch, of training and of validation; what is trained is bit by bit what is trained without."""
    histories, weights = [], []
    for report_terms in (True, False):
        keras.utils.clear_session(free_memory=False)  # so that names without numbers are given again
        keras.utils.set_random_seed(1)
        model = make()
        y = [Y] * 3 if make is of_lists else Y
        trainer = Trainer(model, seed=2, report_terms=report_terms)
        histories.append(trainer.fit(X, y, 4, 2, validation_data=(X, y), verbose=0).history)
        weights.append(weights_of(model))
    with_terms, without = histories

    assert_bit_equal(*weights)
    assert {*without, *names, *(f"val_{name}" for name in names)} == set(with_terms)
    assert without == {name: with_terms[name] for name in without}
    for prefix in ("", "val_"):
        for epoch in range(2):
            logs = {name: values[epoch] for name, values in with_terms.items()}
            np.testing.assert_allclose(logs[f"{prefix}loss"], added_up(logs, prefix), rtol=1e-6)


def test_the_terms_under_replicas_are_those_of_the_whole_batch(two_replicas):
    """Of each replica's samples, however many it has, the regularizers counted once."""
    x, y = X.numpy(), {"kind": KIND.numpy(), "size": SIZE.numpy()}
    weights = {"kind": WEIGHT.numpy(), "size": WEIGHT.numpy()}
    histories = []
    for scope in (contextlib.nullcontext(), two_replicas.scope()):
        with scope:
            model = with_every_term(optimizer=keras.optimizers.SGD(0.01))
        trainer = Trainer(model, report_terms=True)
        data = {"batch_size": 4, "shuffle": False, "sample_weight": weights, "validation_data": (x, y, weights)}
        histories.append(trainer.fit(x, y, epochs=2, verbose=0, **data).history)
    one, two = histories

    assert list(one) == list(two)
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=1e-5, err_msg=name)  # sums of other parts, in another order
    for epoch in range(2):
        for prefix in ("", "val_"):
            logs = {name: values[epoch] for name, values in two.items()}
            np.testing.assert_allclose(logs[f"{prefix}loss"], added_up(logs, prefix), rtol=1e-6)


class OwnTrainStep(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


class OwnTestStep(keras.Sequential):
    def test_step(self, data):
        return super().test_step(data)


@pytest.mark.parametrize(("kind", "phase", "run"), [(OwnTrainStep, "train", "fit"), (OwnTestStep, "test", "evaluate")])
def test_terms_are_refused_of_a_step_that_computes_its_loss_itself(kind, phase, run):
    model = kind([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    with pytest.raises(ConfigError) as error:
        getattr(Trainer(model, report_terms=True), run)(X, Y, verbose=0)

    assert (
        f"report_terms=True, but {kind.__name__} has a {phase}_step of its own, which computes its loss itself. Return "
        "the terms from it, or override compute_loss instead."
    ) == str(error.value)


def test_terms_are_refused_of_a_task():
    with pytest.raises(ConfigError) as error:
        Trainer(Supervised(regression()), report_terms=True)

    assert ("report_terms=True beside an engine.Task, which returns what it likes to be logged.") == str(error.value)

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras.src.losses.losses import LossFunctionWrapper  # what `compile` makes of a function

from engine.errors import ConfigError, DataError
from engine.losses import (
    check_replicable,
    check_target_shapes,
    check_target_values,
    num_replicas,
    of_samples,
    share_of_batch,
)
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


@pytest.mark.parametrize("loss", OF_KERAS, ids=str)
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
    check_replicable(loss, is_weighted=is_weighted)  # one replica
    with two_replicas.scope(), pytest.raises(ConfigError) as error:
        check_replicable([None, {"a": "mse", "b": loss}], is_weighted=is_weighted)

    assert (
        f"loss 'mine' has reduction={reduction!r}, of which the shares of the 2 replicas do not add up to the loss of "
        "the whole batch. Use reduction='sum_over_batch_size'."
    ) == str(error.value)


@pytest.mark.parametrize("loss", [None, "mse", keras.losses.mean_squared_error, ["mse", None], {"a": "mse"}])
def test_every_other_loss_may_be_shared(two_replicas, loss):
    with two_replicas.scope():
        check_replicable(loss)


def regression(**arguments):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.1))])
    model.compile("sgd", **({"loss": "mse"} | arguments))
    return model


def step_of(model, x, y, weight, size):
    """(gradients, loss of these samples) as a train step has them."""
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True), weight, training=True)
        scaled = share_of_batch(loss, size)
    return tape.gradient(scaled, model.trainable_weights), of_samples(loss)


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
        check_replicable(loss, is_weighted=weight is not None)
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
        return [two_replicas.reduce("SUM", g, axis=None) for g in gradients], two_replicas.reduce(
            "SUM", total, axis=None
        )

    gradients, total = step(tf.constant([0, first, 7]))

    # Not bit-equal: sums of other parts, in another order.
    for whole, parts in zip(expected, gradients, strict=True):
        np.testing.assert_allclose(whole, parts, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(expected_loss, total / 7, rtol=1e-5)


def test_equal_shares_leave_a_loss_as_keras_has_it(two_replicas):
    """Bit-equal: where every replica has as many samples, nothing is weighed anew."""

    def on_replica():
        loss = tf.constant(0.3)
        return share_of_batch(loss, tf.constant(4)), of_samples(loss)

    shared, own = two_replicas.run(tf.function(on_replica))

    assert [np.float32(0.3)] * 2 == [value.numpy() for value in two_replicas.experimental_local_results(shared)]
    assert [np.float32(0.6)] * 2 == [value.numpy() for value in two_replicas.experimental_local_results(own)]


def test_without_replicas_a_loss_stays_the_same_tensor():
    loss = tf.constant(0.3)

    assert share_of_batch(loss, tf.constant(4)) is loss
    assert of_samples(loss) is loss
    assert 1 == num_replicas()


def test_replicas_are_counted_in_a_scope(two_replicas):
    with two_replicas.scope():
        assert 2 == num_replicas()

"""`losses.Total` against totals computed by hand: every term, and the gradients, which at a rate of 1 weights lose."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import losses
from engine.errors import ConfigError, StepError
from tests.networks import Penalty

RANDOM = np.random.default_rng(0)
SIZE = 5
X, Z, Y = (tf.constant(RANDOM.normal(size=(SIZE, 4)), tf.float32) for _ in range(3))
ROUNDING = 1e-5  # sums in another order, relative to the largest entry


def lost_by(weights, update):
    """What an update at a rate of 1 takes from weights: their gradients, but for rounding."""
    before = [tf.convert_to_tensor(weight).numpy() for weight in weights]
    update()
    return [old - tf.convert_to_tensor(new).numpy() for old, new in zip(before, weights, strict=True)]


def assert_close(expected, given):
    for one, other in zip(expected, given, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=ROUNDING * np.abs(one).max())


class Pair:
    """Two models that share a layer; the second has a frozen layer too."""

    def __init__(self):
        shared = keras.layers.Dense(
            4,
            kernel_regularizer=keras.regularizers.L2(0.1),
            activity_regularizer=keras.regularizers.L1(0.2),
            name="both",
        )
        frozen = keras.layers.Dense(4, kernel_regularizer="l2", activity_regularizer="l2", name="frozen")
        head = keras.layers.Dense(2, bias_regularizer=keras.regularizers.L1(0.3), name="head")
        self.first = keras.Sequential([keras.Input((4,)), shared, Penalty(name="penalty")])
        self.second = keras.Sequential([keras.Input((4,)), frozen, shared, head])
        frozen.trainable = False
        for model in (self.first, self.second):
            model.compile(keras.optimizers.SGD(1.0, name="mine"))
            model.optimizer.build(model.trainable_weights)
            for weight in model.weights:
                weight.assign(RANDOM.normal(size=weight.shape))
        self.kernel, self.bias, self.head_kernel, self.head_bias = self.second.trainable_weights
        self.frozen_kernel, self.frozen_bias = frozen.weights

    def terms_by_hand(self):
        """Every summand in plain arithmetic."""
        both = [x @ self.kernel + self.bias for x in (X, Z, X @ self.frozen_kernel + self.frozen_bias)]
        outputs = both[2] @ self.head_kernel + self.head_bias
        return {
            "data": tf.reduce_mean((both[0] - Y) ** 2),
            "likeness": 0.5 * tf.reduce_mean(tf.abs(both[0] - both[1])),
            "both": 0.2 * sum(tf.reduce_sum(tf.abs(values)) for values in both) / SIZE,
            "penalty": 0.01 * sum(tf.reduce_mean(values**2) for values in both[:2]),
            "frozen": 0.01 * tf.reduce_sum((X @ self.frozen_kernel + self.frozen_bias) ** 2) / SIZE,
            "regularization": 0.1 * tf.reduce_sum(self.kernel**2) + 0.3 * tf.reduce_sum(tf.abs(self.head_bias)),
            "spread": 2.0 * tf.reduce_mean(tf.math.reduce_std(outputs, axis=1)),
        }

    def total(self):
        """The first model called twice, the second once."""
        with losses.Total() as total:
            one, other = total.call(self.first, X), total.call(self.first, Z)
            outputs = total.call(self.second, X)
            total.compare("data", "mse", Y, one)
            total.compare("likeness", keras.losses.MeanAbsoluteError(), one, other, weight=0.5)
            total.add("spread", tf.math.reduce_std(outputs, axis=1), weight=2.0)
        return total


def test_one_model_called_twice_and_another_once_add_up_to_what_is_computed_by_hand():
    """`add_loss` and activity terms count at each call, a regularizer once, though two models share its weight."""
    pair = Pair()
    with tf.GradientTape() as tape:
        terms = pair.terms_by_hand()
        expected = tf.add_n(list(terms.values()))
    weights = [pair.kernel, pair.bias, pair.head_kernel, pair.head_bias]
    gradients = tape.gradient(expected, weights)
    total = pair.total()
    logs = total.logs()
    given = lost_by(weights, lambda: total.minimize(pair.second))

    assert {"loss", *(f"loss/{name}" for name in terms)} == set(logs)
    for name, value in terms.items():
        np.testing.assert_allclose(logs[f"loss/{name}"], value, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-6)
    np.testing.assert_allclose(total.value, expected, rtol=1e-6)
    assert_close([gradient.numpy() for gradient in gradients], given)


def test_each_model_is_updated_alone_and_what_is_frozen_stays():
    """The gradients of both are taken where the forward pass was, though the first update comes before the second."""
    pair = Pair()
    with tf.GradientTape() as tape:
        expected = tf.add_n(list(pair.terms_by_hand().values()))
    of_first, of_head = [pair.kernel, pair.bias], [pair.head_kernel, pair.head_bias]
    gradients = tape.gradient(expected, [*of_first, *of_head])
    frozen = [pair.frozen_kernel.numpy(), pair.frozen_bias.numpy()]
    total = pair.total()

    assert_close(gradients[:2], lost_by(of_first, lambda: total.minimize(pair.first)))
    assert_close(gradients[2:], lost_by(of_head, lambda: total.minimize(of_head, keras.optimizers.SGD(1.0))))
    np.testing.assert_array_equal(frozen[0], pair.frozen_kernel)
    np.testing.assert_array_equal(frozen[1], pair.frozen_bias)


def test_a_weight_that_is_listed_twice_is_updated_once():
    """As in the weights of two models that share a layer."""
    pair, again = Pair(), Pair()
    for own, other in zip(again.second.weights, pair.second.weights, strict=True):
        own.assign(other)
    weights, others = ([p.kernel, p.bias, p.head_kernel, p.head_bias] for p in (pair, again))
    once = lost_by(weights, lambda: pair.total().minimize(weights, keras.optimizers.SGD(1.0)))
    twice = lost_by(
        others,
        lambda: again.total().minimize(
            again.first.trainable_weights + again.second.trainable_weights, keras.optimizers.SGD(1.0)
        ),
    )

    assert_close(once, twice)


@pytest.mark.parametrize("is_shared", [True, False], ids=["one tape", "two tapes"])
def test_totals_that_are_open_together_each_have_their_own_gradients(is_shared):
    pair = Pair()
    weights = pair.first.trainable_weights
    with tf.GradientTape(persistent=True) as tape:
        outputs = X @ pair.kernel + pair.bias
        squares, product = tf.reduce_mean(outputs**2), tf.reduce_mean(outputs * Y)
    with losses.Total("up") as up, losses.Total("down", tape=up if is_shared else None) as down:
        outputs = pair.first(X, training=True)
        up.add("squares", outputs**2)
        down.add("product", tf.reduce_mean(outputs * Y))
    by_up, by_down = (
        lost_by(weights, lambda total=total: total.minimize(weights, keras.optimizers.SGD(1.0))) for total in (up, down)
    )

    assert ["up", "up/squares", "down", "down/product"] == [*up.logs(), *down.logs()]
    assert_close(tape.gradient(squares, weights), by_up)
    assert_close(tape.gradient(product, weights), by_down)


STEPS, CLASSES = 3, 4
MASK = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0], [1, 1, 1]], bool)
LABELS = RANDOM.integers(0, CLASSES, (SIZE, STEPS))
OUTPUTS = RANDOM.dirichlet(np.ones(CLASSES), (SIZE, STEPS)).astype("float32")
WEIGHTS = RANDOM.uniform(0.1, 3, (SIZE, STEPS)).astype("float32")
ENTROPIES = -np.log(np.take_along_axis(OUTPUTS, LABELS[..., None], -1)[..., 0])


def own_loss(y, y_pred):
    return keras.losses.sparse_categorical_crossentropy(y, y_pred)


@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        "SparseCategoricalCrossentropy",
        keras.losses.sparse_categorical_crossentropy,
        keras.losses.SparseCategoricalCrossentropy(),
        own_loss,
    ],
    ids=["name", "class name", "function", "object", "own"],
)
@pytest.mark.parametrize("is_masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("is_weighted", [False, True], ids=["even", "weighted"])
def test_a_loss_of_keras_however_it_is_named_is_the_mean_over_what_counts(loss, is_masked, is_weighted):
    """Weights multiply, and are not divided by: the mean is over the entries that the mask leaves."""
    outputs, counts = tf.constant(OUTPUTS), MASK if is_masked else np.ones_like(MASK)
    if is_masked:
        outputs._keras_mask = tf.constant(MASK)
    weights = WEIGHTS if is_weighted else None
    expected = np.sum(ENTROPIES * (1 if weights is None else weights) * counts) / np.sum(counts)
    with losses.Total() as total:
        total.compare("data", loss, LABELS, outputs, weights, weight=0.5)

    np.testing.assert_allclose(total.value, 0.5 * expected, rtol=1e-6)
    np.testing.assert_allclose(total.logs()["loss/data"], 0.5 * expected, rtol=1e-6)


def test_a_class_that_is_ignored_does_not_count():
    loss, counts = keras.losses.SparseCategoricalCrossentropy(ignore_class=2), LABELS != 2
    with losses.Total() as total:
        total.compare("data", loss, LABELS, tf.constant(OUTPUTS))

    np.testing.assert_allclose(total.value, np.sum(ENTROPIES * counts) / np.sum(counts), rtol=1e-6)


def test_terms_of_16_bits_are_added_up_in_32():
    """A mean taken by hand of a layer's outputs has the layer's precision, unlike Keras's losses."""
    with losses.Total() as total:
        total.add("of each sample", tf.fill([SIZE], tf.constant(60_000, tf.float16)))  # whose sum has no 16 bits
        total.add("whole", 0.5)

    assert tf.float32 == total.value.dtype
    assert 60_000.5 == total.value


def test_a_model_without_anything_to_train_is_left_alone():
    pair = Pair()
    pair.second.trainable = False
    lost = lost_by(pair.second.weights, lambda: pair.total().minimize(pair.second))

    assert [0.0] * len(lost) == [np.abs(array).max() for array in lost]


def inside(misuse):
    """Misuses a total with a term, its block still open."""
    with losses.Total() as total:
        total.add("data", tf.ones(()))
        misuse(total)


def closed():
    """A total with a term, its block over."""
    with losses.Total() as total:
        total.add("data", tf.ones(()))
    return total


def minimized_in_the_block_of_its_lender():
    with losses.Total("first") as first:
        with losses.Total("second", tape=first) as second:
            second.add("data", tf.ones(()))
        second.minimize([], keras.optimizers.SGD())


def recorded_on_a_closed_tape():
    with losses.Total("second", tape=closed()):
        raise AssertionError("it opened")


def with_a_term_named_like_a_layer():
    with losses.Total() as total:
        total.add("both", tf.ones(()))
        total.call(Pair().first, X)


def named_like_a_layer_that_added():
    with losses.Total() as total:
        total.call(Pair().first, X)
        total.add("both", tf.ones(()))


OUTSIDE = (
    "loss.{} was called outside of its `with` block, where no gradient is recorded. Call it inside "
    "`with losses.Total('loss') as ...:`."
)
NO_TERM = "loss.{}: there is no term. Give it one with compare, add or call."
INSIDE = "{}.minimize was called inside the `with` block, on whose tape it would be recorded. Call it behind the block."
MISUSES = {
    "added outside": (lambda: losses.Total().add("data", tf.ones(())), StepError, OUTSIDE.format("add")),
    "compared outside": (
        lambda: losses.Total().compare("data", "mse", Y, X),
        StepError,
        OUTSIDE.format("compare"),
    ),
    "added behind the block": (lambda: closed().add("more", tf.ones(())), StepError, OUTSIDE.format("add")),
    "called behind the block": (lambda: closed().call(Pair().first, X), StepError, OUTSIDE.format("call")),
    "minimized inside": (lambda: inside(lambda total: total.minimize(Pair().first)), StepError, INSIDE.format("loss")),
    "minimized inside its lender": (minimized_in_the_block_of_its_lender, StepError, INSIDE.format("second")),
    "a closed tape": (
        recorded_on_a_closed_tape,
        StepError,
        "second is to be recorded on the tape of loss, which is not open. Open that first: "
        "`with losses.Total('loss') as ...:` around this one.",
    ),
    "one name twice": (
        lambda: inside(lambda total: total.add("data", tf.ones(()))),
        StepError,
        "loss has a term called 'data' already. Give each term a name of its own.",
    ),
    "named like a layer": (
        with_a_term_named_like_a_layer,
        StepError,
        "loss has a term called 'both', and so is a layer called that adds to the loss. Give the term another name.",
    ),
    "named like a layer, afterwards": (
        named_like_a_layer_that_added,
        StepError,
        "loss has a term called 'both' already. Give each term a name of its own.",
    ),
    "nothing to minimize": (lambda: losses.Total().minimize(Pair().first), StepError, NO_TERM.format("minimize")),
    "nothing to log": (lambda: losses.Total().logs(), StepError, NO_TERM.format("logs")),
    "no value": (lambda: losses.Total().value, StepError, NO_TERM.format("value")),
    "a list without an optimizer": (
        lambda: closed().minimize(Pair().first.trainable_weights),
        ConfigError,
        "minimize got a list of weights and no optimizer. Give it: minimize(weights, optimizer).",
    ),
    "a model without an optimizer": (
        lambda: closed().minimize(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)], name="bare")),
        ConfigError,
        "minimize got the model 'bare', which has no optimizer. Compile it with one, "
        "bare.compile(keras.optimizers.Adam()), or give it: minimize(model, optimizer).",
    ),
    "a layer without an optimizer": (
        lambda: closed().minimize(keras.layers.Dense(1, name="bare")),
        ConfigError,
        "minimize got the model 'bare', which has no optimizer. Compile it with one, "
        "bare.compile(keras.optimizers.Adam()), or give it: minimize(model, optimizer).",
    ),
    "an optimizer of another model": (
        lambda: closed().minimize(Pair().second.trainable_weights, Pair().first.optimizer),
        ConfigError,
        "There are weights to train that the optimizer 'mine' was not built for. A model whose layers were unfrozen "
        "since it was compiled must be compiled again; a step that trains weights of several models by one optimizer "
        "must have it as an attribute: minimize(weights, self.optimizer).",
    ),
    "no loss": (
        lambda: inside(lambda total: total.compare("more", None, Y, X)),
        ConfigError,
        "loss=None: expected a keras.losses.Loss, a function of (y_true, y_pred), or its name.",
    ),
}


@pytest.mark.parametrize(("misuse", "kind", "words"), MISUSES.values(), ids=MISUSES.keys())
def test_a_misuse_is_refused_in_words(misuse, kind, words):
    with pytest.raises(kind) as error:
        misuse()

    assert words == str(error.value)


def test_a_loss_that_keras_does_not_know_is_named():
    with pytest.raises(ConfigError, match="loss='nmse': Keras knows no such loss"):
        inside(lambda total: total.compare("more", "nmse", Y, X))

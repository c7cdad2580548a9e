"""One update from the gradients of two replicas: what one optimizer makes of their sum, clipped once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import ConfigError, Trainer, losses
from engine.losses.descent import descend, scale_of
from tests.helpers import NUM_CLASSES, samples

RANDOM = np.random.default_rng(0)
SHAPES = [(4, 3), (3,), (2,)]
GRADIENTS = [RANDOM.normal(size=(2, *shape)).astype("float32") for shape in SHAPES]  # of each replica
SGD = keras.optimizers.SGD
CLIPPINGS = {
    "not": {},
    "a norm each": {"clipnorm": 0.5},
    "one norm": {"global_clipnorm": 0.7},
    "values": {"clipvalue": 0.2},
}
SCALINGS = {
    "plain": lambda clipping: SGD(1.0, **clipping),
    "scaled by a constant": lambda clipping: SGD(1.0, loss_scale_factor=64.0, **clipping),
    "scaled for float16": lambda clipping: keras.optimizers.LossScaleOptimizer(
        SGD(1.0, **clipping), initial_scale=128.0, dynamic_growth_steps=1
    ),
}


@pytest.mark.parametrize("make", SCALINGS.values(), ids=SCALINGS.keys())
@pytest.mark.parametrize("clipping", CLIPPINGS.values(), ids=CLIPPINGS.keys())
def test_gradients_of_replicas_are_summed_then_clipped_then_applied(two_replicas, make, clipping):
    """As one optimizer would clip their sum; the norm is that of the sum, unscaled, before it is clipped."""
    sums = [gradients.sum(0) for gradients in GRADIENTS]
    alone, own = SGD(1.0, **clipping), [keras.Variable(np.zeros(shape, "float32")) for shape in SHAPES]
    alone.apply(sums, own)
    with two_replicas.scope():
        weights = [keras.Variable(np.zeros(shape, "float32")) for shape in (*SHAPES, (5,))]
        optimizer = make(clipping)
        optimizer.build(weights)

    @tf.function
    def update():
        def on_replica():
            scale = scale_of(optimizer)
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            scaled = [tf.constant(pair)[index] * (1.0 if scale is None else scale) for pair in GRADIENTS]
            return descend(optimizer, [*scaled, None], weights, wants_norm=True)  # the last is not depended on

        return two_replicas.run(on_replica)

    with pytest.warns(UserWarning, match="Gradients do not exist"):
        norms = two_replicas.experimental_local_results(update())

    for expected, weight in zip(own, weights, strict=False):
        np.testing.assert_allclose(weight.numpy(), expected.numpy(), rtol=1e-5, atol=1e-7)
    assert 0 == np.abs(weights[-1].numpy()).max()
    norm = np.sqrt(sum(np.sum(np.square(gradient)) for gradient in sums))
    np.testing.assert_allclose([float(own) for own in norms], [norm, norm], rtol=1e-6)


def classifier(optimizer, *, frozen=False):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(5, "tanh", trainable=not frozen), keras.layers.Dense(NUM_CLASSES, "softmax")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


X, Y = samples(8, shape=(4,))


def norm_by_hand(model):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(Y, model(X)))
    return tf.linalg.global_norm(tape.gradient(loss, model.trainable_weights)).numpy()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_compiled_model_reports_the_norm_of_what_it_learns_from(frozen, accumulate):
    """Of the weights that are trainable alone, before clipping."""
    model = classifier(SGD(0.1, clipnorm=0.01), frozen=frozen)
    expected = norm_by_hand(model)
    trainer = Trainer(model, report_gradients=True, accumulate=accumulate, run_eagerly=True)
    history = trainer.fit(X, Y, 8 // accumulate, shuffle=False, verbose=0).history

    np.testing.assert_allclose(history["gradient_norm"], [expected], rtol=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_replicas_report_the_norm_of_one(two_replicas, accumulate):
    expected = norm_by_hand(classifier("sgd"))
    with two_replicas.scope():
        model = classifier(SGD(0.1, global_clipnorm=0.01))
    trainer = Trainer(model, report_gradients=True, accumulate=accumulate)
    history = trainer.fit(X, Y, 8 // accumulate, shuffle=False, verbose=0).history

    np.testing.assert_allclose(history["gradient_norm"], [expected], rtol=1e-5)


def test_each_total_logs_its_own_norm():
    """Called after the total, but for that of "loss", as a compiled model calls its."""
    models = [classifier(SGD(0.1)), classifier(SGD(0.1))]
    expected = [norm_by_hand(model) for model in models]
    logs = {}
    for name, model in zip(("loss", "other_loss"), models, strict=True):
        with losses.Total(name) as total:
            total.compare("data", "sparse_categorical_crossentropy", Y, total.call(model, X))
        total.minimize(model, log_norm=True)
        logs |= total.logs()

    np.testing.assert_allclose([logs["gradient_norm"], logs["other_loss/gradient_norm"]], expected, rtol=1e-5)


def test_norms_are_refused_of_a_step_that_takes_its_gradients_itself():
    class OwnStep(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data)

    model = OwnStep([keras.Input((4,)), keras.layers.Dense(NUM_CLASSES, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ConfigError) as error:
        Trainer(model, report_gradients=True).fit(X, Y, verbose=0)

    assert (
        "report_gradients=True, but OwnStep has a train_step of its own, which takes its gradients itself. Write it "
        "with losses.Total and minimize(..., log_norm=True)."
    ) == str(error.value)


def test_several_optimizers_in_one_that_clip_are_refused_on_replicas(two_replicas):
    """Keras would clip each replica's own gradients."""
    with two_replicas.scope():
        parts = keras.optimizers.OptimizerMap(SGD(0.1, clipnorm=1.0, name="clips"), {"none": SGD(0.1)})
        model = classifier(keras.optimizers.MultiOptimizer(parts))
    with pytest.raises(ConfigError) as error:
        Trainer(model).fit(X, Y, verbose=0)

    assert (
        "A MultiOptimizer with a part that clips ('clips') cannot be used on 2 replicas: Keras would clip each "
        "replica's own gradients before they are summed. Leave the clipping out, or write a Task that minimizes with "
        "each optimizer."
    ) == str(error.value)

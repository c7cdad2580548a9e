"""The promise of `test_equal_to_fit.py` on models, data and blocks that Hypothesis draws."""

import keras
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Trainer
from tests.helpers import NUM_CLASSES, assert_bit_equal, in_engine_order, weights_of

LAYERS = {
    "dense": lambda: keras.layers.Dense(6, activation="tanh", kernel_regularizer="l2"),
    "activity": lambda: keras.layers.Dense(5, activation="relu", activity_regularizer="l1"),
    "batch normalisation": keras.layers.BatchNormalization,
    "layer normalisation": keras.layers.LayerNormalization,
    "dropout": lambda: keras.layers.Dropout(0.4),
    "noise": lambda: keras.layers.GaussianNoise(0.1),
    "recurrent": lambda: keras.Sequential([keras.layers.Reshape((-1, 1)), keras.layers.GRU(4)]),
}
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adam, clipped": lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.5),
    "adamw, averaged": lambda: keras.optimizers.AdamW(0.01, use_ema=True, ema_momentum=0.8),
    "rmsprop, scheduled": lambda: keras.optimizers.RMSprop(keras.optimizers.schedules.ExponentialDecay(0.01, 3, 0.7)),
    "accumulated": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
}
METRICS = {
    "none": lambda: None,
    "means": lambda: ["accuracy", "sparse_categorical_crossentropy"],
}


def build(layers, optimizer, metrics):
    keras.utils.set_random_seed(5)
    body = [LAYERS[name]() for name in layers]
    model = keras.Sequential([keras.Input((4,)), *body, keras.layers.Dense(NUM_CLASSES, activation="softmax")])
    model.compile(OPTIMIZERS[optimizer](), "sparse_categorical_crossentropy", metrics=METRICS[metrics]())
    return model


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    layers=st.lists(st.sampled_from(sorted(LAYERS)), max_size=3),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    metrics=st.sampled_from(["none", "means"]),
    num_samples=st.integers(1, 40),
    batch_size=st.integers(1, 17),
    epochs=st.integers(1, 3),
    steps_per_execution=st.sampled_from([1, 2, 5, "auto"]),
)
def test_weights_are_bit_equal(layers, optimizer, metrics, num_samples, batch_size, epochs, steps_per_execution):
    """Whatever is trained on whatever, in blocks of any length: the weights of fit, and its history."""
    generator = np.random.default_rng(num_samples)
    x = generator.normal(size=(num_samples, 4)).astype("float32")
    y = generator.integers(0, NUM_CLASSES, num_samples)
    theirs, ours = build(layers, optimizer, metrics), build(layers, optimizer, metrics)
    dataset = in_engine_order(x, y, batch_size=batch_size, seed=3, epochs=epochs)
    expected = theirs.fit(dataset, epochs=epochs, shuffle=False, verbose=0).history
    trainer = Trainer(ours, seed=3, steps_per_execution=steps_per_execution)
    given = trainer.fit(x, y, batch_size=batch_size, epochs=epochs, verbose=0).history

    assert_bit_equal(weights_of(theirs), weights_of(ours))
    assert list(expected) == list(given)
    for name, values in expected.items():
        np.testing.assert_allclose(given[name], values, rtol=1e-6, atol=1e-7, err_msg=name)  # float64 sums

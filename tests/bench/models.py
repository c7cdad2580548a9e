"""The dense models, by Keras on any backend."""

import keras

LOSS = "sparse_categorical_crossentropy"


def dense() -> keras.Model:
    """784-16-10: so little arithmetic that the loop itself is measured."""
    layers = [keras.Input((784,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(10, "softmax")]
    return keras.Sequential(layers)


def dropout() -> keras.Model:
    """784-512-10 with dropout."""
    layers = [keras.layers.Dense(512, activation="relu"), keras.layers.Dropout(0.5), keras.layers.Dense(10, "softmax")]
    return keras.Sequential([keras.Input((784,)), *layers])


def compiled(model: keras.Model, steps_per_execution: int = 1) -> keras.Model:
    """The model, compiled as all contestants are."""
    model.compile("adam", LOSS, metrics=["accuracy"], steps_per_execution=steps_per_execution)
    return model

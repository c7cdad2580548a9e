"""Models, data and callbacks that several test files use."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engine import Callback
from engine.data.order import order

NUM_SAMPLES, BATCH_SIZE, NUM_CLASSES = 43, 8, 3  # six batches an epoch, the last of three samples


def samples(num_samples: int = NUM_SAMPLES, shape: tuple[int, ...] = (6, 6, 1)) -> tuple[Any, Any]:
    """Random images and class numbers, always the same ones."""
    generator = np.random.default_rng(0)
    return generator.normal(size=(num_samples, *shape)).astype("float32"), generator.integers(
        0, NUM_CLASSES, num_samples
    )


def classifier(*, loss: Any = "sparse_categorical_crossentropy", **compile_arguments: Any) -> keras.Model:
    """A small model with a layer of every kind that could make two loops differ."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([
        keras.Input((6, 6, 1)),
        keras.layers.Conv2D(4, 3, activation="relu", kernel_regularizer="l2"),
        keras.layers.BatchNormalization(),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(NUM_CLASSES, activation="softmax"),
    ])  # fmt: skip
    arguments = {"optimizer": keras.optimizers.Adam(1e-2), "metrics": ["accuracy"]} | compile_arguments
    model.compile(loss=loss, **arguments)
    return model


def perceptron(**compile_arguments: Any) -> keras.Model:
    """The smallest model that learns, for tests about the loop and not about the arithmetic."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(NUM_CLASSES, activation="softmax")])
    arguments = {"optimizer": "sgd", "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    model.compile(**(arguments | compile_arguments))
    return model


def in_engine_order(x: Any, y: Any, *, batch_size: int, seed: int, epochs: int) -> tf.data.Dataset:
    """A dataset that gives `model.fit` the very batches, in the very order, that the Trainer makes of arrays."""
    orders = iter([order(seed, epoch, len(x)) for epoch in range(epochs)])

    def batches() -> Iterator[tuple[Any, Any]]:
        rows = next(orders)
        for begin in range(0, len(x), batch_size):
            yield x[rows[begin : begin + batch_size]], y[rows[begin : begin + batch_size]]

    signature = tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in (x, y))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(-(-len(x) // batch_size)))


def as_datasets(*, x: Any, y: Any, batch_size: int, validation_data: Any = None, **arguments: Any) -> dict[str, Any]:
    """Arguments of `fit` with the very batches of arrays that are not shuffled, for a model that is fitted often.

    Of arrays, Keras makes pipelines in every fit, which takes four fifths of the time of a small one.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False

    def batches(pair: Any) -> tf.data.Dataset | None:
        if pair is None:
            return None
        return tf.data.Dataset.from_tensor_slices(tuple(pair)).batch(batch_size).with_options(options)

    return {"x": batches((x, y)), "validation_data": batches(validation_data), **arguments}


def weights_of(model: keras.Model) -> list[Any]:
    """Every variable of the model and its optimizer, dropout's seeds included."""
    return [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]


def assert_bit_equal(expected: list[Any], given: list[Any]) -> None:
    """Compares arrays bit by bit."""
    assert len(expected) == len(given)
    for left, right in zip(expected, given, strict=True):
        np.testing.assert_array_equal(left, right)


def arrays_of(batch: Any) -> list[Any]:
    """The arrays that a batch consists of: of ragged and sparse tensors, all that make them up."""
    leaves = [leaf for leaf in keras.tree.flatten(batch) if leaf is not None]
    return [tf.convert_to_tensor(part).numpy() for part in tf.nest.flatten(leaves, expand_composites=True)]


def batches_of(walk: Any, first: int = 0) -> list[list[Any]]:
    """The batches of a pass from one of them on, as `arrays_of` gives them."""
    found: list[list[Any]] = []
    while (batch := walk.take(first + len(found))) is not None:
        found.append(arrays_of(batch))
    return found


class Recorder(keras.callbacks.Callback):
    """Writes down every hook call: its name, its number and the names in its logs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []


def _recording(hook: str) -> Any:
    def record(self: Recorder, *arguments: Any, **named: Any) -> None:
        logs = named.get("logs", arguments[-1] if arguments and not isinstance(arguments[-1], int) else None)
        numbers = tuple(argument for argument in arguments if isinstance(argument, int))
        self.calls.append((hook, *numbers, " ".join(logs or {})))

    return record


HOOKS = [
    f"on_{phase}_{moment}"
    for phase in ("train", "test", "predict", "epoch", "train_batch", "test_batch", "predict_batch")
    for moment in ("begin", "end")
]
for _hook in HOOKS:
    setattr(Recorder, _hook, _recording(_hook))


class Observer(Recorder, Callback):
    """A Recorder of the engine's kind, which only looks, so that it is told of whole blocks."""

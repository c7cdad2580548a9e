"""The loop one would write by hand: the steps of an epoch in one graph, Keras's metrics updated, nothing delivered."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.bench.samples import BATCH_SIZE


def over_dataset(model: keras.Model, x: Any, y: Any) -> Callable[[], Any]:
    """An epoch over a shuffled `tf.data` pipeline."""
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(1024).batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)
    step, metrics = _step_of(model, x[:1])

    @tf.function  # type: ignore[untyped-decorator]
    def epoch(iterator: Any, steps: Any) -> None:
        for _ in tf.range(steps):
            step(*next(iterator))

    steps = tf.constant(len(x) // BATCH_SIZE)
    return lambda: (epoch(iter(dataset), steps), [float(metric.result()) for metric in metrics])


def over_arrays(model: keras.Model, x: Any, y: Any) -> Callable[[], Any]:
    """An epoch over arrays that lie on the device, gathered in the loop."""
    inputs, targets, length = tf.constant(x), tf.constant(y), len(x)
    step, metrics = _step_of(model, x[:1])

    @tf.function  # type: ignore[untyped-decorator]
    def epoch(order: Any, steps: Any) -> None:
        for number in tf.range(steps):
            rows = order[number * BATCH_SIZE : (number + 1) * BATCH_SIZE]
            step(tf.gather(inputs, rows), tf.gather(targets, rows))

    steps, generator = tf.constant(length // BATCH_SIZE), np.random.default_rng(0)
    return lambda: (
        epoch(tf.constant(generator.permutation(length)), steps),
        [float(metric.result()) for metric in metrics],
    )


def _step_of(model: keras.Model, sample: Any) -> tuple[Callable[[Any, Any], None], list[keras.metrics.Metric]]:
    """One step of the training, and the metrics that it updates."""
    model(sample)  # builds it
    model.optimizer.build(model.trainable_variables)
    mean_loss, accuracy = keras.metrics.Mean(), keras.metrics.SparseCategoricalAccuracy()

    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            predictions = model(x, training=True)
            loss = model.compute_loss(x, y, predictions)
        variables = model.trainable_variables
        model.optimizer.apply(tape.gradient(loss, variables), variables)
        mean_loss.update_state(loss)
        accuracy.update_state(y, predictions)

    return step, [mean_loss, accuracy]

"""Distillation by a Task; `zoo.Distillation` does more."""

import attrs
import keras
import tensorflow as tf

from engine import Checkpointer, Every, Task, Trainer, losses


@attrs.define(eq=False)
class Distillation(Task):
    model: keras.Model
    teacher: keras.Model
    temperature: float = 2.0
    label_weight: float = 0.1

    def train_step(self, batch):
        total, values = self.compare(batch, training=True)
        total.minimize(self.model)
        return total.logs() | values

    def test_step(self, batch):
        total, values = self.compare(batch, training=False)
        return total.logs() | values

    def compare(self, batch, *, training):
        images, labels = batch
        taught = self.teacher(images, training=False)
        with losses.Total() as total:
            learnt = total.call(self.model, images, training=training)
            pair = self.softened(taught), self.softened(learnt)
            total.compare("teacher", "kl_divergence", *pair, weight=(1 - self.label_weight) * self.temperature**2)
            total.compare("labels", "sparse_categorical_crossentropy", labels, learnt, weight=self.label_weight)
        agreement = tf.cast(tf.argmax(learnt, axis=-1) == tf.argmax(taught, axis=-1), tf.float32)
        accuracy = keras.metrics.sparse_categorical_accuracy(labels, learnt)
        return total, {"agreement": tf.reduce_mean(agreement), "accuracy": tf.reduce_mean(accuracy)}

    def softened(self, probabilities):
        return tf.nn.softmax(tf.math.log(tf.maximum(probabilities, 1e-37)) / self.temperature)


def train(student, teacher, data, validation_data, directory, *, epochs=30):
    student.compile(keras.optimizers.Adam(1e-3))
    checkpoints = Checkpointer(directory, every=Every(steps=100))
    trainer = Trainer(Distillation(student, teacher), checkpoints=checkpoints, seed=1)
    return trainer.fit(*data, batch_size=64, epochs=epochs, validation_data=validation_data, resume=True)

"""Distillation by a `compute_loss` of its own in `model.fit`."""

import keras
from keras import ops


class Distiller(keras.Model):
    def __init__(self, student, teacher, temperature=2.0, label_weight=0.1):
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.teacher.trainable = False
        self.temperature = temperature
        self.label_weight = label_weight
        self.means = {name: keras.metrics.Mean(name) for name in ("loss/teacher", "loss/labels", "agreement")}
        self.built = True  # BackupAndRestore asks; both networks are

    def call(self, images, training=False):
        return self.student(images, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        taught = self.teacher(x, training=False)
        divergence = keras.losses.kl_divergence(self.softened(taught), self.softened(y_pred))
        soft = (1 - self.label_weight) * self.temperature**2 * divergence
        hard = self.label_weight * keras.losses.sparse_categorical_crossentropy(y, y_pred)
        agreement = ops.argmax(y_pred, axis=-1) == ops.argmax(taught, axis=-1)
        for mean, values in zip(self.means.values(), (soft, hard, agreement), strict=True):
            mean.update_state(values)
        return ops.mean(soft + hard)

    def softened(self, probabilities):
        return ops.softmax(ops.log(ops.maximum(probabilities, 1e-37)) / self.temperature)


def train(student, teacher, data, validation_data, directory, *, epochs=30):
    model = Distiller(student, teacher)
    model.compile(keras.optimizers.Adam(1e-3), metrics=["accuracy"])
    backup = keras.callbacks.BackupAndRestore(directory, save_freq=100)
    return model.fit(*data, batch_size=64, epochs=epochs, validation_data=validation_data, callbacks=[backup])

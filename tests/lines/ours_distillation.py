"""Distillation by `zoo.Distillation`."""

import keras

from engine import Checkpointer, Every, Trainer
from zoo import Distillation


def train(student, teacher, data, validation_data, directory, *, epochs=30):
    student.compile(keras.optimizers.Adam(1e-3))
    checkpoints = Checkpointer(directory, every=Every(steps=100))
    trainer = Trainer(Distillation(student, teacher), checkpoints=checkpoints, seed=1)
    return trainer.fit(*data, batch_size=64, epochs=epochs, validation_data=validation_data, resume=True)

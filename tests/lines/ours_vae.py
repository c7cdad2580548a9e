"""A variational auto-encoder by `zoo.VariationalInference`."""

import keras

from engine import Checkpointer, Every, Trainer
from zoo import VariationalInference


def train(model, images, validation_images, directory, *, epochs=50):
    model.compile(keras.optimizers.Adam(1e-3))
    trainer = Trainer(VariationalInference(model), checkpoints=Checkpointer(directory, every=Every(steps=100)), seed=1)
    return trainer.fit(images, batch_size=64, epochs=epochs, validation_data=(validation_images,), resume=True)

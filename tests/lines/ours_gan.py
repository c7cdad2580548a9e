"""A GAN by `zoo.GAN`."""

import keras

from engine import Checkpointer, Every, Trainer
from zoo import GAN


def train(generator, critic, images, directory, *, epochs=80):
    for network in (generator, critic):
        network.compile(keras.optimizers.Adam(1e-3, beta_1=0.5))
    trainer = Trainer(GAN(generator, critic), checkpoints=Checkpointer(directory, every=Every(steps=100)), seed=1)
    return trainer.fit(images, batch_size=64, epochs=epochs, resume=True)

"""Contrastive learning by `zoo.SimCLR`."""

import keras

from engine import Checkpointer, Every, Trainer
from zoo import SimCLR


def train(encoder, network, views, images, directory, *, epochs=50):
    network.compile(keras.optimizers.Adam(1e-3))
    task = SimCLR(network, encoder, views=views)
    trainer = Trainer(task, checkpoints=Checkpointer(directory, every=Every(steps=100)), seed=1)
    return trainer.fit(images, batch_size=256, epochs=epochs, resume=True)

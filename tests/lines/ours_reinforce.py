"""REINFORCE by `zoo.Reinforce`."""

import keras

from engine import Checkpointer, Every, Trainer
from zoo import Reinforce


def train(policy, baseline, arena, seeds, validation_seeds, directory, *, epochs=10):
    for network in (policy, baseline):
        network.compile(keras.optimizers.Adam(3e-3))
    checkpoints = Checkpointer(directory, every=Every(steps=100))
    trainer = Trainer(Reinforce(policy, baseline, arena=arena), checkpoints=checkpoints, seed=1)
    return trainer.fit(seeds, batch_size=10, epochs=epochs, validation_data=(validation_seeds,), resume=True)

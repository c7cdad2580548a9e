"""PPO by `zoo.PPO`."""

import keras

from engine import Checkpointer, Every, Trainer
from zoo import PPO


def train(policy, value, arena, seeds, validation_seeds, directory, *, epochs=10):
    policy.compile(keras.optimizers.Adam(1e-3))
    value.compile(keras.optimizers.Adam(3e-3))
    checkpoints = Checkpointer(directory, every=Every(steps=100))
    trainer = Trainer(PPO(policy, value, arena=arena), checkpoints=checkpoints, seed=1)
    return trainer.fit(seeds, batch_size=10, epochs=epochs, validation_data=(validation_seeds,), resume=True)

"""REINFORCE by a Task, whose data are the seeds of episodes; `zoo.Reinforce` does more."""

import attrs
import keras
import tensorflow as tf

from engine import Checkpointer, Every, Task, Trainer, losses
from zoo import Arena
from zoo.episodes import rewards_to_go


@attrs.define(eq=False)
class Reinforce(Task):
    model: keras.Model
    baseline: keras.Model
    optimizer: keras.optimizers.Optimizer
    arena: Arena
    discount: float = 0.99

    def train_step(self, batch):
        seeds, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        episodes = self.arena.play(self.model, seeds)
        worth = rewards_to_go(episodes.rewards, episodes.lengths, discount=self.discount)
        with losses.Total() as total:
            logits = total.call(self.model, episodes.observations)
            surprise = worth - total.call(self.baseline, episodes.observations)[:, 0]
            rarity = tf.nn.sparse_softmax_cross_entropy_with_logits(episodes.actions, logits)
            total.add("policy", rarity * standardized(tf.stop_gradient(surprise)))
            total.add("baseline", tf.square(surprise))
        # They share no weights: one optimizer does.
        total.minimize(self.model.trainable_weights + self.baseline.trainable_weights, self.optimizer)
        return outcome(episodes) | total.logs()

    def test_step(self, batch):
        seeds, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        return outcome(self.arena.play(self.model, seeds, greedy=True))


def standardized(values):
    return (values - tf.reduce_mean(values)) / (tf.math.reduce_std(values) + 1e-7)


def outcome(episodes):
    returns, lengths = episodes.returns, tf.cast(episodes.lengths, tf.float32)
    extremes = {"lowest_return": tf.reduce_min(returns), "highest_return": tf.reduce_max(returns)}
    return {"return": tf.reduce_mean(returns), "length": tf.reduce_mean(lengths), **extremes}


def train(policy, baseline, arena, seeds, validation_seeds, directory, *, epochs=10):
    task = Reinforce(policy, baseline, keras.optimizers.Adam(3e-3), arena)
    trainer = Trainer(task, checkpoints=Checkpointer(directory, every=Every(steps=100)), seed=1)
    return trainer.fit(seeds, batch_size=10, epochs=epochs, validation_data=(validation_seeds,), resume=True)

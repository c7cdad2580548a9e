"""PPO by a Task, whose data are the seeds of episodes; `zoo.PPO` does more."""

import attrs
import keras
import tensorflow as tf

from engine import Checkpointer, Every, Task, Trainer, losses
from zoo import Arena
from zoo.episodes import rewards_to_go


@attrs.define(eq=False)
class PPO(Task):
    model: keras.Model
    value: keras.Model
    arena: Arena
    discount: float = 0.99
    trace: float = 0.98
    clip: float = 0.2
    num_updates: int = 6

    def train_step(self, batch):
        seeds, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        episodes = self.arena.play(self.model, seeds)
        played = log_probability(self.model(episodes.observations), episodes.actions)
        advantage, worth = self.judge(episodes)
        for _ in range(self.num_updates):
            with losses.Total("policy_loss") as policy, losses.Total("value_loss") as value:
                logits = policy.call(self.model, episodes.observations)
                ratio = tf.exp(log_probability(logits, episodes.actions) - played)
                clipped = tf.clip_by_value(ratio, 1 - self.clip, 1 + self.clip)
                policy.add("clipped", -tf.minimum(ratio * advantage, clipped * advantage))
                expected = value.call(self.value, episodes.observations)[:, 0]
                value.add("squared_error", tf.square(worth - expected))
            policy.minimize(self.model)
            value.minimize(self.value)
        return outcome(episodes) | policy.logs() | value.logs()

    def test_step(self, batch):
        seeds, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        return outcome(self.arena.play(self.model, seeds, greedy=True))

    def judge(self, episodes):
        before, after = (self.value(seen)[:, 0] for seen in (episodes.observations, episodes.next_observations))
        surprise = episodes.rewards + self.discount * tf.where(episodes.is_over, 0.0, after) - before
        advantage = rewards_to_go(surprise, episodes.lengths, discount=self.discount * self.trace)
        standardized = (advantage - tf.reduce_mean(advantage)) / (tf.math.reduce_std(advantage) + 1e-7)
        return standardized, before + advantage


def log_probability(logits, actions):
    return -tf.nn.sparse_softmax_cross_entropy_with_logits(actions, logits)


def outcome(episodes):
    returns, lengths = episodes.returns, tf.cast(episodes.lengths, tf.float32)
    extremes = {"lowest_return": tf.reduce_min(returns), "highest_return": tf.reduce_max(returns)}
    return {"return": tf.reduce_mean(returns), "length": tf.reduce_mean(lengths), **extremes}


def train(policy, value, arena, seeds, validation_seeds, directory, *, epochs=10):
    policy.compile(keras.optimizers.Adam(1e-3))
    value.compile(keras.optimizers.Adam(3e-3))
    checkpoints = Checkpointer(directory, every=Every(steps=100))
    trainer = Trainer(PPO(policy, value, arena), checkpoints=checkpoints, seed=1)
    return trainer.fit(seeds, batch_size=10, epochs=epochs, validation_data=(validation_seeds,), resume=True)

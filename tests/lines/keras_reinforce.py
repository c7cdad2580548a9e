"""REINFORCE by a `train_step` of its own in `model.fit`, whose data are the seeds of episodes."""

import keras
import tensorflow as tf

from zoo.episodes import rewards_to_go


class Reinforce(keras.Model):
    def __init__(self, policy, baseline, arena, discount=0.99):
        super().__init__()
        self.policy = policy
        self.baseline = baseline
        self.arena = arena
        self.discount = discount
        names = ("return", "length", "lowest_return", "highest_return", "loss", "loss/policy", "loss/baseline")
        self.means = {name: keras.metrics.Mean(name) for name in names}
        self.built = True  # BackupAndRestore asks; both networks are

    def train_step(self, seeds):
        episodes = self.arena.play(self.policy, seeds)
        worth = rewards_to_go(episodes.rewards, episodes.lengths, discount=self.discount)
        with tf.GradientTape() as tape:
            logits = self.policy(episodes.observations, training=True)
            surprise = worth - self.baseline(episodes.observations, training=True)[:, 0]
            rarity = tf.nn.sparse_softmax_cross_entropy_with_logits(episodes.actions, logits)
            policy_loss = tf.reduce_mean(rarity * standardized(tf.stop_gradient(surprise)))
            baseline_loss = tf.reduce_mean(tf.square(surprise))
            loss = policy_loss + baseline_loss  # they share no weights: one optimizer does
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        return self.count(episodes, {"loss": loss, "loss/policy": policy_loss, "loss/baseline": baseline_loss})

    def test_step(self, seeds):
        return self.count(self.arena.play(self.policy, seeds, greedy=True), {})

    def count(self, episodes, values):
        returns, lengths = episodes.returns, tf.cast(episodes.lengths, tf.float32)
        values |= {"return": tf.reduce_mean(returns), "length": tf.reduce_mean(lengths)}
        values |= {"lowest_return": tf.reduce_min(returns), "highest_return": tf.reduce_max(returns)}
        for name, value in values.items():
            self.means[name].update_state(value, sample_weight=tf.size(returns))
        return {name: self.means[name].result() for name in values}


def standardized(values):
    return (values - tf.reduce_mean(values)) / (tf.math.reduce_std(values) + 1e-7)


def train(policy, baseline, arena, seeds, validation_seeds, directory, *, epochs=10):
    model = Reinforce(policy, baseline, arena)
    model.compile(keras.optimizers.Adam(3e-3))
    backup = keras.callbacks.BackupAndRestore(directory, save_freq=100)
    return model.fit(seeds, batch_size=10, epochs=epochs, validation_data=validation_seeds, callbacks=[backup])

"""PPO by a `train_step` of its own in `model.fit`, whose data are the seeds of episodes."""

import keras
import tensorflow as tf

from zoo.episodes import rewards_to_go


class PPO(keras.Model):
    def __init__(self, policy, value, arena, discount=0.99, trace=0.98, clip=0.2, num_updates=6):
        super().__init__()
        self.policy = policy
        self.value = value
        self.arena = arena
        self.discount = discount
        self.trace = trace
        self.clip = clip
        self.num_updates = num_updates
        names = ("return", "length", "lowest_return", "highest_return", "policy_loss", "value_loss")
        self.means = {name: keras.metrics.Mean(name) for name in names}
        self.built = True  # BackupAndRestore asks; both networks are

    def compile(self, policy_optimizer, value_optimizer):
        super().compile()
        self.policy_optimizer = policy_optimizer
        self.value_optimizer = value_optimizer
        policy_optimizer.build(self.policy.trainable_variables)  # unbuilt, it would be left out of what is loaded
        value_optimizer.build(self.value.trainable_variables)

    def train_step(self, seeds):
        episodes = self.arena.play(self.policy, seeds)
        played = log_probability(self.policy(episodes.observations), episodes.actions)
        advantage, worth = self.judge(episodes)
        for _ in range(self.num_updates):
            with tf.GradientTape(persistent=True) as tape:
                logits = self.policy(episodes.observations, training=True)
                ratio = tf.exp(log_probability(logits, episodes.actions) - played)
                clipped = tf.clip_by_value(ratio, 1 - self.clip, 1 + self.clip)
                policy_loss = -tf.reduce_mean(tf.minimum(ratio * advantage, clipped * advantage))
                expected = self.value(episodes.observations, training=True)[:, 0]
                value_loss = tf.reduce_mean(tf.square(worth - expected))
            weights = self.policy.trainable_weights
            self.policy_optimizer.apply(tape.gradient(policy_loss, weights), weights)
            weights = self.value.trainable_weights
            self.value_optimizer.apply(tape.gradient(value_loss, weights), weights)
        return self.count(episodes, {"policy_loss": policy_loss, "value_loss": value_loss})

    def test_step(self, seeds):
        return self.count(self.arena.play(self.policy, seeds, greedy=True), {})

    def judge(self, episodes):
        before, after = (self.value(seen)[:, 0] for seen in (episodes.observations, episodes.next_observations))
        surprise = episodes.rewards + self.discount * tf.where(episodes.is_over, 0.0, after) - before
        advantage = rewards_to_go(surprise, episodes.lengths, discount=self.discount * self.trace)
        standardized = (advantage - tf.reduce_mean(advantage)) / (tf.math.reduce_std(advantage) + 1e-7)
        return standardized, before + advantage

    def count(self, episodes, values):
        returns, lengths = episodes.returns, tf.cast(episodes.lengths, tf.float32)
        values |= {"return": tf.reduce_mean(returns), "length": tf.reduce_mean(lengths)}
        values |= {"lowest_return": tf.reduce_min(returns), "highest_return": tf.reduce_max(returns)}
        for name, value in values.items():
            self.means[name].update_state(value, sample_weight=tf.size(returns))
        return {name: self.means[name].result() for name in values}


def log_probability(logits, actions):
    return -tf.nn.sparse_softmax_cross_entropy_with_logits(actions, logits)


def train(policy, value, arena, seeds, validation_seeds, directory, *, epochs=10):
    model = PPO(policy, value, arena)
    model.compile(keras.optimizers.Adam(1e-3), keras.optimizers.Adam(3e-3))
    backup = keras.callbacks.BackupAndRestore(directory, save_freq=100)
    return model.fit(seeds, batch_size=10, epochs=epochs, validation_data=validation_seeds, callbacks=[backup])

"""A GAN by a `train_step` of its own in `model.fit`."""

import keras
import tensorflow as tf

LOSS = keras.losses.BinaryCrossentropy(from_logits=True)


class GAN(keras.Model):
    def __init__(self, generator, critic, penalty=0.1):
        super().__init__()
        self.generator = generator
        self.critic = critic
        self.penalty = penalty
        self.seeds = keras.random.SeedGenerator(1)
        names = ("critic_loss", "critic_loss/real", "critic_loss/fake", "critic_loss/slope", "generator_loss")
        self.means = {name: keras.metrics.Mean(name) for name in names}
        self.built = True  # BackupAndRestore asks; both networks are

    def compile(self, generator_optimizer, critic_optimizer):
        super().compile()
        self.generator_optimizer = generator_optimizer
        self.critic_optimizer = critic_optimizer
        generator_optimizer.build(self.generator.trainable_variables)  # unbuilt, it would be left out of what is loaded
        critic_optimizer.build(self.critic.trainable_variables)

    def train_step(self, images):
        size = tf.shape(images)[0]
        noise = keras.random.normal((size, self.generator.input_shape[-1]), seed=self.seeds)
        with tf.GradientTape(persistent=True) as tape:
            fakes = self.generator(noise, training=True)
            with tf.GradientTape() as inner:
                inner.watch(images)
                on_real = self.critic(images, training=True)
            slopes = tf.reduce_sum(inner.gradient(on_real, images) ** 2, axis=(1, 2, 3))
            slope = self.penalty / 2 * tf.reduce_mean(slopes)
            on_fake = self.critic(fakes, training=True)
            real, fake = LOSS(tf.ones_like(on_real), on_real), LOSS(tf.zeros_like(on_fake), on_fake)
            critic_loss = real + fake + slope
            generator_loss = LOSS(tf.ones_like(on_fake), on_fake)
        weights = self.critic.trainable_weights
        self.critic_optimizer.apply(tape.gradient(critic_loss, weights), weights)
        weights = self.generator.trainable_weights
        self.generator_optimizer.apply(tape.gradient(generator_loss, weights), weights)
        for mean, value in zip(self.means.values(), (critic_loss, real, fake, slope, generator_loss), strict=True):
            mean.update_state(value, sample_weight=size)
        return {name: mean.result() for name, mean in self.means.items()}


def train(generator, critic, images, directory, *, epochs=80):
    model = GAN(generator, critic)
    model.compile(keras.optimizers.Adam(1e-3, beta_1=0.5), keras.optimizers.Adam(1e-3, beta_1=0.5))
    backup = keras.callbacks.BackupAndRestore(directory, save_freq=100)
    return model.fit(images, batch_size=64, epochs=epochs, callbacks=[backup])

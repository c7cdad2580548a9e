"""Contrastive learning by a `train_step` of its own in `model.fit`."""

import keras
import tensorflow as tf


class SimCLR(keras.Model):
    def __init__(self, network, views, temperature=0.2):
        super().__init__()
        self.network = network
        self.views = views
        self.temperature = temperature
        self.seeds = keras.random.SeedGenerator(1)
        self.means = {name: keras.metrics.Mean(name) for name in ("loss", "found")}
        self.built = True  # BackupAndRestore asks; the network is

    def train_step(self, images):
        with tf.GradientTape() as tape:
            first, second = (self.network(self.views(images, self.seeds), training=True) for _ in range(2))
            loss, found = nt_xent(first, second, self.temperature)
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        for mean, value in zip(self.means.values(), (loss, found), strict=True):
            mean.update_state(value, sample_weight=tf.shape(images)[0])
        return {name: mean.result() for name, mean in self.means.items()}


def nt_xent(first, second, temperature):
    both = tf.math.l2_normalize(tf.concat([first, second], axis=0), axis=1)
    size = tf.shape(both)[0]
    cosines = tf.linalg.set_diag(tf.matmul(both, both, transpose_b=True), tf.fill([size], -float("inf")))
    partners = tf.roll(tf.range(size), size // 2, axis=0)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(partners, cosines / temperature)
    found = tf.argmax(cosines, axis=1, output_type=tf.int32) == partners
    return tf.reduce_mean(loss), tf.reduce_mean(tf.cast(found, tf.float32))


def train(network, views, images, directory, *, epochs=50):
    model = SimCLR(network, views)
    model.compile(keras.optimizers.Adam(1e-3))
    backup = keras.callbacks.BackupAndRestore(directory, save_freq=100)
    return model.fit(images, batch_size=256, epochs=epochs, callbacks=[backup])

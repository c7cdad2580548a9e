"""Contrastive learning by a Task; `zoo.SimCLR` does more."""

import attrs
import keras
import tensorflow as tf

from engine import Checkpointer, Every, Task, Trainer, losses


@attrs.define(eq=False)
class SimCLR(Task):
    model: keras.Model
    views: object
    temperature: float = 0.2
    seeds: keras.random.SeedGenerator = attrs.field(factory=lambda: keras.random.SeedGenerator(1))

    def train_step(self, batch):
        images, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        with losses.Total() as total:
            first, second = (total.call(self.model, self.views(images, self.seeds)) for _ in range(2))
            loss, found = nt_xent(first, second, self.temperature)
            total.add("nt_xent", loss)
        total.minimize(self.model)
        return total.logs() | {"found": found}


def nt_xent(first, second, temperature):
    both = tf.math.l2_normalize(tf.concat([first, second], axis=0), axis=1)
    size = tf.shape(both)[0]
    cosines = tf.linalg.set_diag(tf.matmul(both, both, transpose_b=True), tf.fill([size], -float("inf")))
    partners = tf.roll(tf.range(size), size // 2, axis=0)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(partners, cosines / temperature)
    found = tf.argmax(cosines, axis=1, output_type=tf.int32) == partners
    return tf.reduce_mean(loss), tf.reduce_mean(tf.cast(found, tf.float32))


def train(network, views, images, directory, *, epochs=50):
    network.compile(keras.optimizers.Adam(1e-3))
    trainer = Trainer(SimCLR(network, views), checkpoints=Checkpointer(directory, every=Every(steps=100)), seed=1)
    return trainer.fit(images, batch_size=256, epochs=epochs, resume=True)

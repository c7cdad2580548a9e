"""A variational auto-encoder in a Trainer, which needs no Task for it: it names the terms of a loss itself."""

import keras
from keras import ops

from engine import Checkpointer, Every, Trainer


class VariationalAutoencoder(keras.Model):
    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, images, training=False):
        mean, log_variance = ops.split(self.encoder(images), 2, axis=-1)
        divergence = ops.sum(ops.square(mean) + ops.exp(log_variance) - 1 - log_variance, axis=-1) / 2
        self.add_loss(ops.mean(divergence))
        noise = keras.random.normal(ops.shape(mean), seed=self.seeds if training else 0)
        return self.decoder(mean + ops.exp(log_variance / 2) * noise)


def reconstruction(images, pictures):
    return ops.sum(ops.binary_crossentropy(images, pictures), axis=(1, 2, 3))


def train(encoder, decoder, images, validation_images, directory, *, epochs=50):
    model = VariationalAutoencoder(encoder, decoder)
    model.compile(keras.optimizers.Adam(1e-3), reconstruction)
    trainer = Trainer(model, checkpoints=Checkpointer(directory, every=Every(steps=100)), seed=1, report_terms=True)
    validation = validation_images, validation_images
    return trainer.fit(images, images, batch_size=64, epochs=epochs, validation_data=validation, resume=True)

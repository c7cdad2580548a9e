"""A generative adversarial network: one network makes pictures, another tells them from real ones.

```python
import keras
from engine import Trainer
from zoo import GAN, small_critic, small_generator

generator, critic = small_generator((28, 28, 1)), small_critic((28, 28, 1))
generator.compile(keras.optimizers.Adam(1e-3, beta_1=0.5))
critic.compile(keras.optimizers.Adam(1e-3, beta_1=0.5))
trainer = Trainer(GAN(generator, critic))
trainer.fit(images, batch_size=64, epochs=80)  # float32, (image, 28, 28, 1), in [0, 1]
pictures = trainer.predict(noise)  # float32, (picture, 64), standard normal
```

Goodfellow et al., "Generative Adversarial Networks", [arXiv 1406.2661](https://arxiv.org/abs/1406.2661), with the loss
of its section 3 that does not saturate: the generator makes the critic's error as likely as it can. Without more, a
critic that is good enough to teach something soon knows too much, and nothing converges; so its slope at real images
is kept small, the penalty R1 of Mescheder et al., [arXiv 1801.04406](https://arxiv.org/abs/1801.04406), section 4.1.
The networks are those of Radford et al., [arXiv 1511.06434](https://arxiv.org/abs/1511.06434), made small, and
normalised by groups of channels: statistics of a batch would differ from replica to replica.
"""

import math
from typing import Any

import attrs
import keras
import tensorflow as tf
from attrs.validators import ge

from engine import Task, losses, replicas
from zoo.arguments import ImageShape, check_count, check_sides

LOSS = keras.losses.BinaryCrossentropy(from_logits=True)


@attrs.define(eq=False)
class GAN(Task):
    """Trains a generator and its critic, each by an optimizer of its own, both in one step.

    The logs are `critic_loss` with its terms `critic_loss/real`, `critic_loss/fake` and `critic_loss/slope`, and
    `generator_loss` with `generator_loss/fooling`. Where the critic can only guess, they are 2 log 2 = 1.39 and
    log 2 = 0.69.

    Attributes:
        model: The generator: from noise, `(batch, size)`, to images. Compiled with an optimizer.
        critic: From images to one logit each, more than 0 for real ones. Compiled with an optimizer.
        penalty: How much the critic's slope at real images counts: the gamma of Mescheder et al., at least 0.
        seeds: Where the noise comes from.

    Examples:
        >>> Trainer(GAN(generator, critic)).fit(images, batch_size=64, epochs=80)
    """

    model: keras.Model
    critic: keras.Model
    penalty: float = attrs.field(default=0.1, kw_only=True, validator=ge(0))
    seeds: keras.random.SeedGenerator = attrs.field(factory=lambda: keras.random.SeedGenerator(1), kw_only=True)

    def train_step(self, batch: Any) -> dict[str, Any]:
        """One update of the critic and one of the generator, on the same fakes."""
        images, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        size = self.model.input_shape[-1]
        noise = replicas.drawn(lambda number: keras.random.normal((number, size), seed=self.seeds), tf.shape(images)[0])

        with losses.Total("critic_loss") as critic, losses.Total("generator_loss") as generator:
            fakes = generator.call(self.model, noise)  # (B, H, W, C)
            with tf.GradientTape() as tape:
                tape.watch(images)
                on_real = critic.call(self.critic, images)  # (B, 1)
            slopes = tape.gradient(on_real, images)  # (B, H, W, C)
            on_fake = critic.call(self.critic, fakes)  # (B, 1)
            critic.compare("real", LOSS, tf.ones_like(on_real), on_real)
            critic.compare("fake", LOSS, tf.zeros_like(on_fake), on_fake)
            critic.add("slope", tf.reduce_sum(slopes**2, axis=(1, 2, 3)), weight=self.penalty / 2)
            generator.compare("fooling", LOSS, tf.ones_like(on_fake), on_fake)
        critic.minimize(self.critic)
        generator.minimize(self.model)
        return critic.logs() | generator.logs()


def small_generator(image_shape: ImageShape = (28, 28, 1), *, noise_size: int = 64) -> keras.Model:
    """A network from noise to images: 237,345 parameters at 28x28x1.

    Args:
        image_shape: `(height, width, channels)`, both sides multiples of 4.
        noise_size: Numbers that an image is made from, at least 1.

    Returns:
        An uncompiled model from `(batch, noise_size)` to `(batch, *image_shape)`, float32, in [0, 1].

    Raises:
        ValueError: An argument is out of its limits.
    """
    height, width, channels = check_sides("image_shape", image_shape, multiple=4)
    check_count("noise_size", noise_size, example=64)
    small = (height // 4, width // 4, 64)
    return keras.Sequential(
        [
            keras.Input((noise_size,), name="noise"),  # (B, noise_size)
            keras.layers.Dense(math.prod(small)),  # (B, H/4 · W/4 · 64)
            keras.layers.Reshape(small),  # (B, H/4, W/4, 64)
            keras.layers.GroupNormalization(8),  # (B, H/4, W/4, 64)
            keras.layers.LeakyReLU(0.2),  # (B, H/4, W/4, 64)
            keras.layers.Conv2DTranspose(32, 4, strides=2, padding="same"),  # (B, H/2, W/2, 32)
            keras.layers.GroupNormalization(8),  # (B, H/2, W/2, 32)
            keras.layers.LeakyReLU(0.2),  # (B, H/2, W/2, 32)
            keras.layers.Conv2DTranspose(channels, 4, strides=2, padding="same"),  # (B, H, W, C)
            keras.layers.Activation("sigmoid", dtype="float32"),  # (B, H, W, C)
        ],
        name="generator",
    )


def small_critic(image_shape: ImageShape = (28, 28, 1)) -> keras.Model:
    """A network from images to how real they are: 435,041 parameters at 28x28x1.

    Args:
        image_shape: `(height, width, channels)`, both sides multiples of 4.

    Returns:
        An uncompiled model from `(batch, *image_shape)` to logits `(batch, 1)`, float32.

    Raises:
        ValueError: The shape is another one.
    """
    check_sides("image_shape", image_shape, multiple=4)
    return keras.Sequential(
        [
            keras.Input(image_shape, name="images"),  # (B, H, W, C)
            keras.layers.Conv2D(32, 4, strides=2, padding="same"),  # (B, H/2, W/2, 32)
            keras.layers.LeakyReLU(0.2),  # (B, H/2, W/2, 32)
            keras.layers.Conv2D(64, 4, strides=2, padding="same"),  # (B, H/4, W/4, 64)
            keras.layers.LeakyReLU(0.2),  # (B, H/4, W/4, 64)
            keras.layers.Flatten(),  # (B, H/4 · W/4 · 64)
            keras.layers.Dense(128),  # (B, 128)
            keras.layers.LeakyReLU(0.2),  # (B, 128)
            keras.layers.Dense(1, dtype="float32"),  # (B, 1)
        ],
        name="critic",
    )

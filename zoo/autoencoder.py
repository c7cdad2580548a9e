"""A variational auto-encoder: pictures pressed into a few numbers, and pictures made from such numbers.

```python
import keras
from engine import Trainer
from zoo import VariationalAutoencoder, VariationalInference

model = VariationalAutoencoder((28, 28, 1), code_size=16)
model.compile(keras.optimizers.Adam(1e-3))
Trainer(VariationalInference(model)).fit(images, batch_size=64, epochs=50)  # float32, (image, 28, 28, 1), in [0, 1]
pictures = model.decoder(keras.random.normal((10, 16)))  # pictures that never were
```

```text
images > encoder > mean, variance > code = mean + deviation · noise > decoder > pictures
                        └── add_loss: what the code tells
```

Kingma and Welling, "Auto-Encoding Variational Bayes", [arXiv 1312.6114](https://arxiv.org/abs/1312.6114). The loss is
the negative of the bound on log p(image), equation 10, in nats an image: how badly the picture is made again from the
code, and how far the code's distribution is from the one that it is to be drawn from.
"""

import math
from collections.abc import Callable
from typing import Any

import attrs
import keras
import tensorflow as tf

from engine import Task, losses, replicas
from zoo.arguments import ImageShape, check_count, check_sides


@keras.saving.register_keras_serializable(package="zoo")
class Gaussian(keras.layers.Layer):
    """A code drawn from a normal distribution of each sample's own, at the price of what it tells.

    What it adds to `losses` is the divergence of that distribution from the standard normal one (the paper's
    appendix B), in nats, the mean over the samples.
    """

    def call(self, mean: tf.Tensor, log_variance: tf.Tensor, noise: tf.Tensor | None = None) -> tf.Tensor:
        """Draws by the paper's reparameterization, so that gradients flow through the draw.

        Args:
            mean: float32, `(batch, size)`.
            log_variance: The logarithm of the variance, likewise.
            noise: Standard normal numbers, likewise; None gives the means.

        Returns:
            The codes, `(batch, size)`.
        """
        told = (keras.ops.square(mean) + keras.ops.exp(log_variance) - 1 - log_variance) / 2  # (B, size)
        self.add_loss(keras.ops.mean(keras.ops.sum(told, axis=-1)))
        return mean if noise is None else mean + keras.ops.exp(log_variance / 2) * noise


@keras.saving.register_keras_serializable(package="zoo")
class VariationalAutoencoder(keras.Model):
    """Pictures to codes and back; `encoder` and `decoder` can be used alone.

    Args:
        image_shape: `(height, width, channels)`, both sides multiples of 4.
        code_size: Numbers in a code, at least 1.
        **base: `name` and `trainable`, as for every Keras model. Its layers follow Keras's global dtype policy.

    Raises:
        ValueError: A number is not a whole number of at least 1, or a side cannot be halved twice.
    """

    def __init__(self, image_shape: ImageShape = (28, 28, 1), code_size: int = 16, **base: Any) -> None:
        shape = check_sides("image_shape", image_shape, multiple=4)
        check_count("code_size", code_size, example=16)
        super().__init__(**base)
        self.image_shape = shape
        self.code_size = code_size
        self.encoder = _encoder(shape, 2 * code_size)
        self.divergence = Gaussian(name="divergence", dtype="float32")  # half precision would lose small divergences
        self.decoder = _decoder(shape, code_size)
        self.build((None, *shape))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Nothing is left to build: encoder and decoder know their inputs, and the code has no weights."""

    def call(self, images: tf.Tensor, noise: tf.Tensor | None = None) -> tf.Tensor:
        """Makes pictures again from their codes.

        Args:
            images: float32, `(batch, height, width, channels)`, in [0, 1].
            noise: Standard normal numbers to draw the codes by, `(batch, code_size)`; None takes their means.

        Returns:
            Pictures like the images.
        """
        mean, log_variance = keras.ops.split(self.encoder(images), 2, axis=-1)  # (B, code_size) each
        return self.decoder(self.divergence(mean, log_variance, noise))  # (B, H, W, C)

    def get_config(self) -> dict[str, Any]:
        """The arguments that build this model again."""
        return {**super().get_config(), "image_shape": self.image_shape, "code_size": self.code_size}


@attrs.define(eq=False)
class VariationalInference(Task):
    """Trains a variational auto-encoder on pictures alone; labels and weights of samples are left unused.

    The logs are `loss`, `loss/reconstruction` and `loss/divergence`, in nats an image, of one draw a code.

    Attributes:
        model: Compiled with an optimizer.
        seeds: Where the noise of training comes from. Evaluation draws the same noise each time, so that two
            evaluations differ by the weights only.

    Examples:
        >>> Trainer(VariationalInference(model)).fit(images, validation_data=(others,), epochs=50)
    """

    model: VariationalAutoencoder
    seeds: keras.random.SeedGenerator = attrs.field(factory=lambda: keras.random.SeedGenerator(1), kw_only=True)

    def train_step(self, batch: Any) -> dict[str, Any]:
        """Reconstructs from codes that are drawn, and learns from it."""
        total = self._bound(batch, lambda shape: keras.random.normal(shape, seed=self.seeds), training=True)
        total.minimize(self.model)
        return total.logs()

    def test_step(self, batch: Any) -> dict[str, Any]:
        """Reconstructs from codes that are drawn."""
        return self._bound(batch, lambda shape: tf.random.stateless_normal(shape, seed=(0, 0)), training=False).logs()

    def _bound(self, batch: Any, draw: Callable[[Any], tf.Tensor], *, training: bool) -> losses.Total:
        images, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        noise = replicas.drawn(lambda number: draw((number, self.model.code_size)), tf.shape(images)[0])
        with losses.Total() as total:
            pictures = total.call(self.model, images, noise, training=training)  # and the divergence that it adds
            total.add("reconstruction", nats(images, pictures))
        return total


def nats(images: tf.Tensor, pictures: tf.Tensor) -> tf.Tensor:
    """How badly each picture tells its image: the cross-entropy of all its pixels, in nats.

    Args:
        images: `(batch, height, width, channels)`, in [0, 1].
        pictures: The probability of each pixel to be white, likewise.

    Returns:
        One number an image, `(batch,)`. Of grey images it cannot be 0, however good the picture is.
    """
    return keras.ops.sum(keras.ops.binary_crossentropy(images, pictures), axis=(1, 2, 3))


def _encoder(image_shape: ImageShape, num_outputs: int) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input(image_shape, name="images"),  # (B, H, W, C)
            keras.layers.Conv2D(32, 4, strides=2, padding="same", activation="relu"),  # (B, H/2, W/2, 32)
            keras.layers.Conv2D(64, 4, strides=2, padding="same", activation="relu"),  # (B, H/4, W/4, 64)
            keras.layers.Flatten(),  # (B, H/4 · W/4 · 64)
            keras.layers.Dense(num_outputs, dtype="float32"),  # (B, num_outputs)
        ],
        name="encoder",
    )


def _decoder(image_shape: ImageShape, code_size: int) -> keras.Model:
    height, width, channels = image_shape
    small = (height // 4, width // 4, 64)
    return keras.Sequential(
        [
            keras.Input((code_size,), name="codes"),  # (B, code_size)
            keras.layers.Dense(math.prod(small), activation="relu"),  # (B, H/4 · W/4 · 64)
            keras.layers.Reshape(small),  # (B, H/4, W/4, 64)
            keras.layers.Conv2DTranspose(32, 4, strides=2, padding="same", activation="relu"),  # (B, H/2, W/2, 32)
            keras.layers.Conv2DTranspose(channels, 4, strides=2, padding="same"),  # (B, H, W, C)
            keras.layers.Activation("sigmoid", dtype="float32"),  # (B, H, W, C)
        ],
        name="decoder",
    )

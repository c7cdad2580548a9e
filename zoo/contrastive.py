"""Features without labels: SimCLR's encoder, projection head, loss and task.

```python
encoder = small_encoder((28, 28, 1))
network = with_projection_head(encoder)
network.compile(keras.optimizers.Adam(1e-3))
trainer = Trainer(SimCLR(network, encoder))
trainer.fit(images, batch_size=256, epochs=100)  # no labels
features = trainer.predict(images)  # (image, feature), for a linear classifier
```

From Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations",
[arXiv 2002.05709](https://arxiv.org/abs/2002.05709): two random views of each image, an encoder, a head that projects
its features, and a loss that pulls the two views together and away from all others of the batch.

The paper's: the order of the parts, the loss, a head of two layers that is thrown away after the training. Ours: a
small network for small images, which keeps where things are in the image; and GroupNormalization for the paper's
BatchNormalization, whose statistics would let images of a batch know of one another.
"""

import attrs
import keras
import tensorflow as tf
from attrs.validators import gt

from engine import Task, losses, replicas
from zoo.arguments import Shape, check_count
from zoo.augmentation import RandomViews


@attrs.define(eq=False)
class SimCLR(Task):
    """Trains an encoder to know two views of one image among those of all others.

    A step's logs are `loss`, and `found`: the share of views whose nearest one, of all in the batch, is the other
    view of the same image. `predict` gives the encoder's features.

    Attributes:
        model: What is trained: the encoder and a projection head in a row, compiled with an optimizer.
        encoder: The part of it whose features are wanted.
        views: What draws a view of an image.
        temperature: What similarities are divided by: the lower, the more the nearest others count. Above 0.
        seeds: Where the views' random numbers come from.

    Raises:
        ValueError: The encoder is no part of the model.
    """

    model: keras.Model
    encoder: keras.Model = attrs.field()
    views: RandomViews = attrs.field(factory=RandomViews, kw_only=True)
    temperature: float = attrs.field(default=0.5, validator=gt(0), kw_only=True)
    seeds: keras.random.SeedGenerator = attrs.field(factory=lambda: keras.random.SeedGenerator(1), kw_only=True)

    @encoder.validator
    def _check_part(self, attribute: "attrs.Attribute[keras.Model]", encoder: keras.Model) -> None:
        if not {id(weight) for weight in encoder.weights} <= {id(weight) for weight in self.model.weights}:
            raise ValueError(
                f"encoder was given as {encoder.name!r}, which is no part of the model {self.model.name!r}, so that it "
                "would stay untrained. Build the model on it: model = with_projection_head(encoder)."
            )

    def train_step(self, batch: tf.Tensor) -> dict[str, tf.Tensor]:
        """Two views of each image, their projections, the loss, an update."""
        images, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        with losses.Total() as total:
            first = total.call(self.model, self.views(images, self.seeds))  # (B, D)
            second = total.call(self.model, self.views(images, self.seeds))  # (B, D)
            total.add("nt_xent", nt_xent(first, second, temperature=self.temperature))
        total.minimize(self.model)
        return total.logs() | {"found": tf.reduce_mean(found(first, second))}

    def predict_step(self, batch: tf.Tensor) -> tf.Tensor:
        """The features."""
        images, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        return self.encoder(images, training=False)


def nt_xent(first: tf.Tensor, second: tf.Tensor, *, temperature: float) -> tf.Tensor:
    """The normalised, temperature-scaled cross-entropy of the paper's equation 1, for each image.

    For a view i, its partner j and all views k of the batch, those of other replicas among them,

    ```text
    loss(i) = -log( exp(cos(i, j) / temperature) / sum of exp(cos(i, k) / temperature) over k != i )
    ```

    Args:
        first: Projections of one view of each image, `(batch, size)`.
        second: Those of the other one.
        temperature: Above 0.

    Returns:
        The mean of an image's two losses, float32, `(batch,)`.
    """
    cosines, partners = compare(first, second)
    both = tf.nn.sparse_softmax_cross_entropy_with_logits(partners, cosines / temperature)  # (2B,)
    return tf.add_n(tf.split(both, 2)) / 2  # (B,)


def found(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Which share of an image's two views, 0, 1/2 or 1, is nearest to its partner, float32, `(batch,)`."""
    cosines, partners = compare(first, second)
    both = tf.cast(tf.argmax(cosines, axis=1, output_type=tf.int32) == partners, tf.float32)  # (2B,)
    return tf.add_n(tf.split(both, 2)) / 2  # (B,)


def compare(first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Compares every view of this replica's B images with every view of the whole batch's N.

    Returns:
        The cosines, float32, `(2B, 2N)`, -inf where a view would be compared with itself; and for each row the
        column of the same image's other view, int32, `(2B,)`.
    """
    first, second = (tf.math.l2_normalize(tf.cast(view, tf.float32), axis=1) for view in (first, second))  # (B, D)
    everyone = tf.concat([replicas.gathered(first), replicas.gathered(second)], axis=0)  # (2N, D)
    cosines = tf.matmul(tf.concat([first, second], axis=0), everyone, transpose_b=True)  # (2B, 2N)
    whole = tf.shape(everyone)[0] // 2
    rows = replicas.drawn(tf.range, tf.shape(first)[0])  # (B,), where these images stand in the whole batch
    selves, partners = tf.concat([rows, rows + whole], axis=0), tf.concat([rows + whole, rows], axis=0)  # (2B,)
    is_self = tf.one_hot(selves, 2 * whole, on_value=True, off_value=False)  # (2B, 2N)
    return tf.where(is_self, -float("inf"), cosines), partners


def small_encoder(input_shape: Shape, *, width: int = 16, name: str = "small_encoder") -> keras.Model:
    """Three convolutions of stride 2, each normalised for each image by itself, and their outputs in a row.

    Args:
        input_shape: `(height, width, channels)` of an image.
        width: Channels of the first convolution, a multiple of 8; the next have twice and four times as many.
        name: The model's name.

    Returns:
        A model, built and not compiled, from images to features: 1,024 of them for 28x28 pixels and a width of 16.

    Raises:
        ValueError: `width` is no multiple of 8.
    """
    check_count("width", width, example=16)
    if width % 8:
        raise ValueError(f"width was given as {width}, but must be a multiple of 8, for 8 groups of channels.")
    images = x = keras.Input(input_shape, name="images")
    for filters in (width, 2 * width, 4 * width):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)  # (B, H/2, W/2, filters)
        x = keras.layers.ReLU()(keras.layers.GroupNormalization(8)(x))  # (B, H/2, W/2, filters)
    return keras.Model(images, keras.layers.Flatten(name="features")(x), name=name)  # (B, features)


def with_projection_head(
    encoder: keras.Model, *, width: int = 128, size: int = 64, name: str = "contrastive"
) -> keras.Model:
    """Puts two dense layers on an encoder: their outputs are compared, so that its features need not be alike.

    Args:
        encoder: A model, built, from images to features, `(batch, features)`.
        width: Units of the first layer, which has a ReLU.
        size: Units of the second.
        name: The model's name.

    Returns:
        A model, built and not compiled, of the encoder's own weights and those of the head.
    """
    check_count("width", width, example=128)
    check_count("size", size, example=64)
    head = [keras.layers.Dense(width, activation="relu", name="hidden"), keras.layers.Dense(size, name="projection")]
    return keras.Sequential([encoder, *head], name=name)

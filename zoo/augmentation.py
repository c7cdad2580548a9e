"""Random views of images: the same picture turned, stretched, moved, covered and noisy, another way each time.

```python
views = RandomViews(rotation=15, shift=0.1)
seeds = keras.random.SeedGenerator(1)
first, second = views(images, seeds), views(images, seeds)
```
"""

import math

import attrs
import keras
import tensorflow as tf
from attrs.validators import and_, ge, le, lt

from engine import replicas


@attrs.frozen(kw_only=True)
class RandomViews:
    """How far a view may be from its image. Each image is drawn for by itself; at 0, nothing of that kind is done.

    The defaults suit digits, which must not be mirrored, nor turned until a 6 is a 9.

    Attributes:
        rotation: The most that an image is turned either way, in degrees, up to 180.
        zoom: The most that each side is stretched by itself: 0.2 is to between 1 / 1.2 and 1.2 of its length.
        shear: The most that a row slides against the next one, in pixels.
        shift: The most that an image is moved along each side, as a share of it.
        cut_out: The height and width of a box that is blacked out, as shares of the image's, under 1. Its middle
            may be anywhere, so that a part of the box may lie outside.
        noise: The standard deviation of what is added to each pixel.
    """

    rotation: float = attrs.field(default=25.0, validator=and_(ge(0), le(180)))
    zoom: float = attrs.field(default=0.3, validator=ge(0))
    shear: float = attrs.field(default=0.3, validator=ge(0))
    shift: float = attrs.field(default=0.1, validator=and_(ge(0), le(1)))
    cut_out: float = attrs.field(default=0.0, validator=and_(ge(0), lt(1)))
    noise: float = attrs.field(default=0.1, validator=ge(0))

    def __call__(self, images: tf.Tensor, seeds: keras.random.SeedGenerator) -> tf.Tensor:
        """Draws one view of each image. Replicas draw together, so that two give what one would.

        Args:
            images: float32, (batch, height, width, channels), 0 is black.
            seeds: Where the random numbers come from; it moves on by two draws.

        Raises:
            ValueError: The images are of another type or rank, or have a side that is not known when tracing.
        """
        _check(images)
        size, shape = tf.shape(images)[0], images.shape[1:]
        draws = replicas.drawn(lambda number: keras.random.uniform((number, 8), -1, 1, seed=seeds), size)  # (B, 8)
        noise = replicas.drawn(lambda number: keras.random.normal((number, *shape), seed=seeds), size)  # (B, H, W, C)
        moved = keras.ops.image.affine_transform(images, self._transforms(draws[:, :6], *shape[:2]))  # (B, H, W, C)
        uncovered = _outside_box(draws[:, 6:], self.cut_out, *shape[:2])  # (B, H, W, 1)
        return moved * uncovered + self.noise * noise

    def _transforms(self, draws: tf.Tensor, height: int, width: int) -> tf.Tensor:
        """The matrices that say which pixel of an image each pixel of its view shows, `(B, 8)`."""
        angle, shear, log_x, log_y, move_x, move_y = tf.unstack(draws, axis=1)  # each (B,), in [-1, 1]
        cosine, sine = tf.cos(angle * math.radians(self.rotation)), tf.sin(angle * math.radians(self.rotation))
        shear = shear * self.shear
        scale_x, scale_y = (1 + self.zoom) ** log_x, (1 + self.zoom) ** log_y
        x_by_x, x_by_y = scale_x * cosine, scale_x * (shear * cosine - sine)
        y_by_x, y_by_y = scale_y * sine, scale_y * (shear * sine + cosine)
        # The middle stays where it is, but for the shift.
        middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
        x = middle_x + move_x * self.shift * width - x_by_x * middle_x - x_by_y * middle_y
        y = middle_y + move_y * self.shift * height - y_by_x * middle_x - y_by_y * middle_y
        zero = tf.zeros_like(x)
        return tf.stack([x_by_x, x_by_y, x, y_by_x, y_by_y, y, zero, zero], axis=1)  # (B, 8)


def _check(images: tf.Tensor) -> None:
    shape = images.shape
    if not images.dtype.is_floating or shape.rank != 4 or None in shape[1:]:
        raise ValueError(
            f"images was given as {images.dtype.name} of shape {tuple(shape) if shape.rank else shape}, but must be "
            "floating-point, (batch, height, width, channels), with a height, width and channels that are known when "
            "the step is traced. Scale the pixels to [0, 1], and batch images of one size."
        )


def _outside_box(draws: tf.Tensor, side: float, height: int, width: int) -> tf.Tensor:
    """1 outside a box whose middle is drawn, 0 within, `(B, H, W, 1)`."""
    middle_x, middle_y = draws[:, 0, None] * width / 2, draws[:, 1, None] * height / 2  # (B, 1), 0 is the image's
    columns = tf.range(width, dtype=draws.dtype) - (width - 1) / 2  # (W,)
    rows = tf.range(height, dtype=draws.dtype) - (height - 1) / 2  # (H,)
    in_columns = tf.abs(columns - middle_x) < side * width / 2  # (B, W)
    in_rows = tf.abs(rows - middle_y) < side * height / 2  # (B, H)
    is_inside = in_rows[:, :, None, None] & in_columns[:, None, :, None]  # (B, H, W, 1)
    return 1 - tf.cast(is_inside, draws.dtype)

"""The three modules of the small Inception, as Keras layers that nest, save and load.

```python
import keras
from zoo import ConvModule, DownsampleModule, InceptionModule

images = keras.Input((28, 28, 1))
x = ConvModule(96, 3)(images)  # (B, 28, 28, 96)
x = InceptionModule(32, 48)(x)  # (B, 28, 28, 80)
x = DownsampleModule(80)(x)  # (B, 13, 13, 160)
```

From Zhang et al., "Understanding deep learning requires rethinking generalization",
[arXiv 1611.03530](https://arxiv.org/abs/1611.03530), figure 3. Images are float32 of shape
`(batch, height, width, channels)`. `training` reaches every batch normalisation: True takes the
statistics of the batch and updates the running ones, False takes the running ones, None is False
unless Keras is training.
"""

from typing import Any

import keras
import tensorflow as tf

from zoo.arguments import Shape, check_count


@keras.saving.register_keras_serializable(package="zoo")
class ConvModule(keras.layers.Layer):
    """Convolution, batch normalisation, ReLU.

    It has 6 weights, 4 of them trainable: kernel and bias; scale, offset and the two running
    statistics of the normalisation. The bias has no effect while training, since the normalisation
    takes the mean away; it is kept because the parameter counts of the paper and the texts hold it.

    Args:
        filters: Channels that come out, at least 1.
        kernel_size: Height and width of the kernel in pixels; one number for both.
        strides: Pixels from one position of the kernel to the next; one number for both sides.
        padding: `"same"` or `"valid"`, as in `keras.layers.Conv2D`.
        momentum: How much of the running mean and variance a step leaves, 0 to 1. Keras's 0.99 needs some
            hundreds of steps to follow; take 0.9 for a training of fewer.
        **base: `name`, `dtype` and `trainable`, as for every Keras layer.

    Raises:
        ValueError: An argument is out of its limits.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: str = "same",
        *,
        momentum: float = 0.99,
        **base: Any,
    ) -> None:
        check_count("filters", filters, example=32)
        super().__init__(**base)
        inherited = {"dtype": self.dtype_policy, "trainable": self.trainable}
        self.convolution = keras.layers.Conv2D(filters, kernel_size, strides, padding, name="convolution", **inherited)
        self.normalization = keras.layers.BatchNormalization(momentum=momentum, name="normalization", **inherited)

    def build(self, input_shape: Shape) -> None:
        """Creates the weights: kernel, bias, scale, offset, running mean, running variance."""
        self.convolution.build(input_shape)
        self.normalization.build(self.convolution.compute_output_shape(input_shape))

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Maps `(B, H, W, C)` to `(B, H', W', filters)`; `"same"` and stride 1 keep H and W."""
        x = self.convolution(images)  # (B, H', W', filters)
        x = self.normalization(x, training=training)  # (B, H', W', filters)
        return keras.ops.relu(x)  # (B, H', W', filters)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The shape that `call` gives, batch included."""
        return tuple(self.convolution.compute_output_shape(input_shape))

    def get_config(self) -> dict[str, Any]:
        """The arguments that build this layer again."""
        own = {
            "filters": self.convolution.filters,
            "kernel_size": self.convolution.kernel_size,
            "strides": self.convolution.strides,
            "padding": self.convolution.padding,
            "momentum": self.normalization.momentum,
        }
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="zoo")
class InceptionModule(keras.layers.Layer):
    """A 1x1 and a 3x3 `ConvModule` side by side, their channels joined.

    Args:
        filters_1x1: Channels from the 1x1 convolution, at least 1.
        filters_3x3: Channels from the 3x3 convolution, at least 1.
        momentum: Of the batch normalisations, see `ConvModule`.
        **base: `name`, `dtype` and `trainable`, as for every Keras layer.

    Raises:
        ValueError: A number of filters is not a whole number of at least 1.
    """

    def __init__(self, filters_1x1: int, filters_3x3: int, *, momentum: float = 0.99, **base: Any) -> None:
        check_count("filters_1x1", filters_1x1, example=32)
        check_count("filters_3x3", filters_3x3, example=32)
        super().__init__(**base)
        self.filters_1x1 = filters_1x1
        self.filters_3x3 = filters_3x3
        self.momentum = momentum

        inherited = {"dtype": self.dtype_policy, "trainable": self.trainable, "momentum": momentum}
        self.conv_1x1 = ConvModule(filters_1x1, 1, name="conv_1x1", **inherited)
        self.conv_3x3 = ConvModule(filters_3x3, 3, name="conv_3x3", **inherited)

    def build(self, input_shape: Shape) -> None:
        """Creates the weights of the 1x1 convolution, then those of the 3x3 one."""
        self.conv_1x1.build(input_shape)
        self.conv_3x3.build(input_shape)

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Maps `(B, H, W, C)` to `(B, H, W, filters_1x1 + filters_3x3)`, the 1x1 channels first."""
        narrow = self.conv_1x1(images, training=training)  # (B, H, W, filters_1x1)
        wide = self.conv_3x3(images, training=training)  # (B, H, W, filters_3x3)
        return keras.ops.concatenate([narrow, wide], axis=-1)  # (B, H, W, filters_1x1 + filters_3x3)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The shape that `call` gives, batch included."""
        return (*input_shape[:-1], self.filters_1x1 + self.filters_3x3)

    def get_config(self) -> dict[str, Any]:
        """The arguments that build this layer again."""
        own = {"filters_1x1": self.filters_1x1, "filters_3x3": self.filters_3x3, "momentum": self.momentum}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="zoo")
class DownsampleModule(keras.layers.Layer):
    """Halves the image: a 3x3 `ConvModule` beside a 3x3 max pool, both of stride 2 and *valid*.

    Args:
        filters: Channels from the convolution, at least 1; the pool adds those that came in.
        momentum: Of the batch normalisation, see `ConvModule`.
        **base: `name`, `dtype` and `trainable`, as for every Keras layer.

    Raises:
        ValueError: `filters` is not a whole number of at least 1.
    """

    def __init__(self, filters: int, *, momentum: float = 0.99, **base: Any) -> None:
        check_count("filters", filters, example=80)
        super().__init__(**base)
        self.filters = filters
        self.momentum = momentum

        inherited = {"dtype": self.dtype_policy, "trainable": self.trainable}
        self.conv = ConvModule(filters, 3, 2, "valid", momentum=momentum, name="conv", **inherited)
        self.pool = keras.layers.MaxPooling2D(3, 2, "valid", name="pool", **inherited)

    def build(self, input_shape: Shape) -> None:
        """Creates the weights of the convolution; the pool has none."""
        self.conv.build(input_shape)

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Maps `(B, H, W, C)` to `(B, H', W', filters + C)`, H' = (H - 1) // 2, W' likewise."""
        convolved = self.conv(images, training=training)  # (B, H', W', filters)
        pooled = self.pool(images)  # (B, H', W', C)
        return keras.ops.concatenate([convolved, pooled], axis=-1)  # (B, H', W', filters + C)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The shape that `call` gives, batch included."""
        *rest, channels = self.pool.compute_output_shape(input_shape)
        return (*rest, self.filters + channels)

    def get_config(self) -> dict[str, Any]:
        """The arguments that build this layer again."""
        return {**super().get_config(), "filters": self.filters, "momentum": self.momentum}

"""The small Inception: one class, and its two configurations, the paper's and a shorter one.

```python
import keras
from zoo import small_inception

model = small_inception(num_classes=10)
model.compile(keras.optimizers.Adam(5e-5), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.build_graph((28, 28, 1)).summary()
model.fit(x_train, y_train, batch_size=32, epochs=10)  # images: float32, (batch, 28, 28, 1), in [0, 1]
```

The network is the small Inception of Zhang et al., "Understanding deep learning requires rethinking
generalization", [arXiv 1611.03530](https://arxiv.org/abs/1611.03530), figure 3.

The paper's: the three modules, the order of the stages and every number of filters in
`paper_inception`. At 28x28x3 its convolutions and its head hold 1,649,402 parameters, the number in
the paper's table 1, which leaves batch normalisation out of the count.

Ours: the softmax within the model; *valid* padding where the image is halved, as in the teaching
texts this family is rebuilt from (28x28 becomes 13x13, then 6x6); a mean over the whole image that
is left, so that images of any size from 7x7 are taken; and `small_inception`, the texts' network.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from zoo.arguments import Shape, check_count
from zoo.modules import ConvModule, DownsampleModule, InceptionModule

Stage: TypeAlias = int | tuple[int, int]


@keras.saving.register_keras_serializable(package="zoo")
class Inception(keras.Model):
    """A convolution, stages, a mean over the image, a softmax.

    ```text
    images > ConvModule 3x3 > stage > ... > stage > mean over height and width > Dense, softmax
    ```

    A saved model remembers whether it is frozen (`trainable`), but not which of its modules are: to
    keep a partly frozen network, save the graph that `build_graph` gives.

    Args:
        num_classes: Width of the softmax, at least 1.
        stages: What stands between the first convolution and the mean, in order: a pair
            `(filters_1x1, filters_3x3)` is an `InceptionModule`, a single number of filters is a
            `DownsampleModule`.
        stem_filters: Channels from the first convolution, at least 1.
        momentum: Of the batch normalisations, see `ConvModule`.
        **base: `name`, `dtype` and `trainable`, as for every Keras model.

    Raises:
        ValueError: A number is not a whole number of at least 1, or a stage is neither a number nor
            a pair of them.
    """

    def __init__(
        self,
        num_classes: int,
        stages: Sequence[Stage],
        *,
        stem_filters: int = 96,
        momentum: float = 0.99,
        **base: Any,
    ) -> None:
        check_count("num_classes", num_classes, example=10)
        check_count("stem_filters", stem_filters, example=96)
        super().__init__(**base)
        self.num_classes = num_classes
        self.stages = [_stage(position, stage) for position, stage in enumerate(stages)]
        self.stem_filters = stem_filters
        self.momentum = momentum

        inherited = {"dtype": self.dtype_policy, "trainable": self.trainable}
        self.stem = ConvModule(stem_filters, 3, momentum=momentum, name="stem", **inherited)
        self.trunk = [
            _module(stage, momentum=momentum, name=f"stage_{position}", **inherited)
            for position, stage in enumerate(self.stages)
        ]
        self.pool = keras.layers.GlobalAveragePooling2D(name="pool", **inherited)
        # In half precision the probabilities would not sum to 1.
        float32 = {**inherited, "dtype": "float32"}
        self.head = keras.layers.Dense(num_classes, activation="softmax", name="head", **float32)

    def build(self, input_shape: Shape) -> None:
        """Creates the weights in the order of the stages.

        Args:
            input_shape: `(batch, height, width, channels)`; only the channels must be known.
        """
        shape = input_shape
        for layer in (self.stem, *self.trunk, self.pool, self.head):
            layer.build(shape)
            shape = layer.compute_output_shape(shape)

    # There is no compute_output_shape: from it Keras would take the outputs for the compute dtype,
    # and in half precision they are float32.
    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Maps images `(B, H, W, C)` to probabilities `(B, num_classes)`, float32."""
        x = self.stem(images, training=training)  # (B, H, W, stem_filters)
        for module in self.trunk:
            x = module(x, training=training)  # (B, H', W', C')
        x = self.pool(x)  # (B, C')
        return self.head(x)  # (B, num_classes)

    def build_graph(self, input_shape: Shape) -> keras.Model:
        """This network as a Functional model, for `summary()` and `keras.utils.plot_model`.

        The two share their layers, so training one trains both. The graph is not compiled.

        Args:
            input_shape: `(height, width, channels)` without the batch; None leaves a side open.

        Returns:
            A Functional model from `(batch, *input_shape)` to `(batch, num_classes)`.
        """
        if not self.built:
            self.build((None, *input_shape))
        images = keras.Input(input_shape, name="images")
        return keras.Model(images, self.call(images), name=f"{self.name}_graph")

    def get_config(self) -> dict[str, Any]:
        """The arguments that build this model again."""
        own = {
            "num_classes": self.num_classes,
            "stages": list(self.stages),
            "stem_filters": self.stem_filters,
            "momentum": self.momentum,
        }
        return {**super().get_config(), **own}


def paper_inception(
    num_classes: int = 10,
    *,
    momentum: float = 0.99,
    name: str = "paper_inception",
    dtype: str | keras.DTypePolicy | None = None,
) -> Inception:
    """The network of the paper's figure 3: 1,652,826 trainable parameters at 28x28x3.

    Args:
        num_classes: Width of the softmax, at least 1.
        momentum: Of the batch normalisations, see `ConvModule`.
        name: The model's name.
        dtype: A dtype policy such as `"mixed_bfloat16"`; None takes Keras's global one.

    Returns:
        A model, neither built nor compiled, of images `(batch, height, width, channels)`.
    """
    first: list[Stage] = [(32, 32), (32, 48), 80]
    second: list[Stage] = [(112, 48), (96, 64), (80, 80), (48, 96), 96]
    third: list[Stage] = [(176, 160), (176, 160)]
    return Inception(num_classes, [*first, *second, *third], momentum=momentum, name=name, dtype=dtype)


def small_inception(
    num_classes: int = 10,
    *,
    momentum: float = 0.99,
    name: str = "small_inception",
    dtype: str | keras.DTypePolicy | None = None,
) -> Inception:
    """The paper's network up to its second halving, with one module less: 584,938 trainable parameters.

    The count is at 28x28x1; with the 1,792 running statistics of its batch normalisations the model
    holds 586,730 numbers.

    Args:
        num_classes: Width of the softmax, at least 1.
        momentum: Of the batch normalisations, see `ConvModule`.
        name: The model's name.
        dtype: A dtype policy such as `"mixed_bfloat16"`; None takes Keras's global one.

    Returns:
        A model, neither built nor compiled, of images `(batch, height, width, channels)`.
    """
    first: list[Stage] = [(32, 32), (32, 48), 80]
    second: list[Stage] = [(112, 48), (96, 64), (80, 80), 96]
    return Inception(num_classes, [*first, *second], momentum=momentum, name=name, dtype=dtype)


def _stage(position: int, stage: object) -> Stage:
    match stage:
        case int():
            return stage
        case [int(filters_1x1), int(filters_3x3)]:  # a list too: JSON makes one of a pair
            return filters_1x1, filters_3x3
    raise ValueError(
        f"stages[{position}] was given as {stage!r}, but must be a number of filters (for a "
        "DownsampleModule) or a pair of them (for an InceptionModule). Pass for example 80 or (32, 48)."
    )


def _module(stage: Stage, **base: Any) -> keras.layers.Layer:
    if isinstance(stage, int):
        return DownsampleModule(stage, **base)
    return InceptionModule(*stage, **base)

"""One small convolutional network, built in the three ways that Keras knows.

```python
import keras
from zoo import ConvNet, functional_cnn, sequential_cnn

model = sequential_cnn(num_classes=10)  # or functional_cnn(num_classes=10), or ConvNet(num_classes=10)
model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, batch_size=128)  # images: float32, (batch, 28, 28, 3), in [0, 1]; one-hot labels
```

```text
images > Conv2D 32, stride 2, ReLU > MaxPool 3 > BatchNorm > Conv2D 64, ReLU > BatchNorm > Dropout
       > global pooling > Dense, softmax
```

The source texts leave the softmax out and still train with a loss that expects probabilities
(`from_logits=False`): their networks reach 0.17 to 0.25 accuracy on MNIST. Here it is in the model.
As in the texts, the Sequential and the Functional model pool by the maximum and the subclassed one
by the mean. All hold 20,426 parameters at 3 channels and 10 classes, and take images from 19x19.
"""

from typing import Any

import keras
import tensorflow as tf

from zoo.arguments import Shape, check_count


def sequential_cnn(
    num_classes: int = 10, input_shape: Shape = (28, 28, 3), *, dropout: float = 0.3
) -> keras.Sequential:
    """The network as a list of layers, with a global *max* pooling.

    Args:
        num_classes: Width of the softmax, at least 1.
        input_shape: `(height, width, channels)` without the batch; None leaves a side open.
        dropout: Fraction of the features set to zero while training, at least 0 and at most 1.

    Returns:
        A built, uncompiled model from `(batch, *input_shape)` to `(batch, num_classes)`.

    Raises:
        ValueError: An argument is out of its limits, or the image is too small for the network.
    """
    check_count("num_classes", num_classes, example=10)
    return keras.Sequential(
        [
            keras.Input(input_shape, name="images"),  # (B, 28, 28, 3)
            keras.layers.Conv2D(32, 3, strides=2, activation="relu"),  # (B, 13, 13, 32)
            keras.layers.MaxPooling2D(3),  # (B, 4, 4, 32)
            keras.layers.BatchNormalization(),  # (B, 4, 4, 32)
            keras.layers.Conv2D(64, 3, activation="relu"),  # (B, 2, 2, 64)
            keras.layers.BatchNormalization(),  # (B, 2, 2, 64)
            keras.layers.Dropout(dropout),  # (B, 2, 2, 64)
            keras.layers.GlobalMaxPooling2D(),  # (B, 64)
            keras.layers.Dense(num_classes, activation="softmax", dtype="float32"),  # (B, num_classes)
        ],
        name="sequential_cnn",
    )


def functional_cnn(num_classes: int = 10, input_shape: Shape = (28, 28, 3), *, dropout: float = 0.3) -> keras.Model:
    """The network as a graph from a symbolic input to its output, with a global *max* pooling.

    Args:
        num_classes: Width of the softmax, at least 1.
        input_shape: `(height, width, channels)` without the batch; None leaves a side open.
        dropout: Fraction of the features set to zero while training, at least 0 and at most 1.

    Returns:
        A built, uncompiled model from `(batch, *input_shape)` to `(batch, num_classes)`.

    Raises:
        ValueError: An argument is out of its limits, or the image is too small for the network.
    """
    check_count("num_classes", num_classes, example=10)
    images = keras.Input(input_shape, name="images")  # (B, 28, 28, 3)
    x = keras.layers.Conv2D(32, 3, strides=2, activation="relu")(images)  # (B, 13, 13, 32)
    x = keras.layers.MaxPooling2D(3)(x)  # (B, 4, 4, 32)
    x = keras.layers.BatchNormalization()(x)  # (B, 4, 4, 32)
    x = keras.layers.Conv2D(64, 3, activation="relu")(x)  # (B, 2, 2, 64)
    x = keras.layers.BatchNormalization()(x)  # (B, 2, 2, 64)
    x = keras.layers.Dropout(dropout)(x)  # (B, 2, 2, 64)
    x = keras.layers.GlobalMaxPooling2D()(x)  # (B, 64)
    x = keras.layers.Dense(num_classes, activation="softmax", dtype="float32")(x)  # (B, num_classes)
    return keras.Model(images, x, name="functional_cnn")


@keras.saving.register_keras_serializable(package="zoo")
class ConvNet(keras.Model):
    """The network as a class with a `call` of its own, with a global *average* pooling.

    Args:
        num_classes: Width of the softmax, at least 1.
        dropout: Fraction of the features set to zero while training, at least 0 and at most 1.
        **base: `name`, `dtype` and `trainable`, as for every Keras model.

    Raises:
        ValueError: An argument is out of its limits.
    """

    def __init__(self, num_classes: int = 10, *, dropout: float = 0.3, **base: Any) -> None:
        check_count("num_classes", num_classes, example=10)
        super().__init__(**base)
        self.num_classes = num_classes
        self.dropout = dropout

        inherited = {"dtype": self.dtype_policy, "trainable": self.trainable}
        self.conv_1 = keras.layers.Conv2D(32, 3, strides=2, activation="relu", **inherited)
        self.pool_1 = keras.layers.MaxPooling2D(3, **inherited)
        self.norm_1 = keras.layers.BatchNormalization(**inherited)
        self.conv_2 = keras.layers.Conv2D(64, 3, activation="relu", **inherited)
        self.norm_2 = keras.layers.BatchNormalization(**inherited)
        self.drop = keras.layers.Dropout(dropout, **inherited)
        self.pool_2 = keras.layers.GlobalAveragePooling2D(**inherited)
        # In half precision the probabilities would not sum to 1.
        float32 = {**inherited, "dtype": "float32"}
        self.head = keras.layers.Dense(num_classes, activation="softmax", **float32)

    def build(self, input_shape: Shape) -> None:
        """Creates the weights in the order of the network.

        Args:
            input_shape: `(batch, height, width, channels)`; only the channels must be known.
        """
        features = (self.conv_1, self.pool_1, self.norm_1, self.conv_2, self.norm_2)
        shape = input_shape
        for layer in (*features, self.drop, self.pool_2, self.head):
            layer.build(shape)
            shape = layer.compute_output_shape(shape)

    # There is no compute_output_shape: from it Keras would take the outputs for the compute dtype,
    # and in half precision they are float32.
    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Maps images `(B, H, W, C)` to probabilities `(B, num_classes)`, float32.

        Args:
            images: float32, `(batch, height, width, channels)`, in [0, 1].
            training: True normalises by the batch's statistics and drops features, False does
                neither, None is False unless Keras is training.

        Returns:
            Probabilities: float32, `(batch, num_classes)`, that sum to 1 over the classes.
        """
        x = self.conv_1(images)  # (B, 13, 13, 32)
        x = self.pool_1(x)  # (B, 4, 4, 32)
        x = self.norm_1(x, training=training)  # (B, 4, 4, 32)
        x = self.conv_2(x)  # (B, 2, 2, 64)
        x = self.norm_2(x, training=training)  # (B, 2, 2, 64)
        x = self.drop(x, training=training)  # (B, 2, 2, 64)
        x = self.pool_2(x)  # (B, 64)
        return self.head(x)  # (B, num_classes)

    def get_config(self) -> dict[str, Any]:
        """The arguments that build this model again."""
        return {**super().get_config(), "num_classes": self.num_classes, "dropout": self.dropout}

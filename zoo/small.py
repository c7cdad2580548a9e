"""Two small classifiers of images: one with convolutions, one without.

```python
import keras
from zoo import dense_classifier, strided_cnn

model = strided_cnn(num_classes=10)  # or dense_classifier(num_classes=10, units=32)
model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, epochs=10)  # images: float32, (batch, 28, 28, 1), in [0, 1]
```

The first learns scikit-learn's digits to 0.98 in seconds on a CPU; the second is what can be had for a tenth of the
arithmetic.
"""

from collections.abc import Sequence

import keras

from zoo.arguments import Shape, check_count


def strided_cnn(
    num_classes: int = 10,
    input_shape: Shape = (28, 28, 1),
    *,
    filters: Sequence[int] = (32, 64, 128),
    dropout: float = 0.5,
    momentum: float | None = 0.9,
) -> keras.Sequential:
    """Convolutions that each halve the image, and a softmax on what is left of it, pixel by pixel.

    With three convolutions at 28x28x1 and 10 classes: 114,058 parameters. The layers are called `convolution_1`,
    `normalization_1` and so on, `flat`, `dropout`, `head`.

    Args:
        num_classes: Width of the softmax, at least 1.
        input_shape: `(height, width, channels)` without the batch.
        filters: Channels from each convolution, in order.
        dropout: Fraction of the features set to zero while training, at least 0 and at most 1.
        momentum: Of the batch normalisations; 0.9 follows in a training of a few hundred steps. None: there are none.

    Returns:
        A built, uncompiled model from `(batch, *input_shape)` to `(batch, num_classes)`.

    Raises:
        ValueError: An argument is out of its limits.
    """
    check_count("num_classes", num_classes, example=10)
    layers: list[keras.layers.Layer] = [keras.Input(input_shape, name="images")]  # (B, 28, 28, 1)
    for number, channels in enumerate(filters, 1):  # (B, 14, 14, 32), (B, 7, 7, 64), (B, 4, 4, 128)
        check_count(f"filters[{number - 1}]", channels, example=32)
        layers.append(keras.layers.Conv2D(channels, 3, 2, "same", activation="relu", name=f"convolution_{number}"))
        if momentum is not None:
            layers.append(keras.layers.BatchNormalization(momentum=momentum, name=f"normalization_{number}"))
    layers += [
        keras.layers.Flatten(name="flat"),  # (B, 2048)
        keras.layers.Dropout(dropout, name="dropout"),  # (B, 2048)
        # In half precision the probabilities would not sum to 1.
        keras.layers.Dense(num_classes, activation="softmax", name="head", dtype="float32"),  # (B, num_classes)
    ]
    return keras.Sequential(layers, name="strided_cnn")


def dense_classifier(num_classes: int = 10, input_shape: Shape = (28, 28, 1), *, units: int = 32) -> keras.Sequential:
    """One hidden layer: 25,450 parameters at 28x28x1, 32 units and 10 classes.

    Args:
        num_classes: Width of the softmax, at least 1.
        input_shape: `(height, width, channels)` without the batch.
        units: Width of the hidden layer, at least 1.

    Returns:
        A built, uncompiled model from `(batch, *input_shape)` to `(batch, num_classes)`.

    Raises:
        ValueError: A number is not a whole number of at least 1.
    """
    check_count("num_classes", num_classes, example=10)
    check_count("units", units, example=32)
    return keras.Sequential(
        [
            keras.Input(input_shape, name="images"),  # (B, 28, 28, 1)
            keras.layers.Flatten(),  # (B, 784)
            keras.layers.Dense(units, activation="relu"),  # (B, units)
            # In half precision the probabilities would not sum to 1.
            keras.layers.Dense(num_classes, activation="softmax", dtype="float32"),  # (B, num_classes)
        ],
        name="dense_classifier",
    )

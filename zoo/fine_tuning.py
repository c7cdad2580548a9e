"""Fine-tuning: what a network has learnt on many images, taken to a task with few.

```python
import keras
from engine import Trainer
from zoo import fine_tuned

model = fine_tuned(trained, num_classes=5)  # the trained network's layers, frozen, and a new head
model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
Trainer(model).fit(few_images, labels, epochs=30)  # the head alone learns

model.unfreeze(from_layer="stage_1")
model.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy")  # a smaller step, and a new optimizer
Trainer(model).fit(few_images, labels, epochs=30)  # the last layers learn with it
```

```text
fine_tuned              unfreeze("stage_1")

stem       frozen       stem       frozen
stage_0    frozen       stage_0    frozen
stage_1    frozen       stage_1    learns, its batch normalisation in inference mode
head       learns       head       learns
```

These are the two stages of Keras's own guide, "Transfer learning & fine-tuning". In one thing this differs: the guide
keeps batch normalisation in inference mode by `base(images, training=False)` in a Functional model. In Keras 3.15 a
`fit` overrules that, and the running statistics move. Here a model with a `call` of its own says it, which holds.
"""

from typing import Any

import keras
import tensorflow as tf

from zoo.arguments import Shape, check_count


@keras.saving.register_keras_serializable(package="zoo")
class FineTuned(keras.Model):
    """Features that were learnt elsewhere, and a head for a new task.

    Whatever is trained, the features run in inference mode: their batch normalisations keep the statistics of
    the many images they were learnt on, their dropouts drop nothing. A saved model remembers what is frozen.

    Args:
        features: A Functional or Sequential model from images to features, `(batch, features)`. The model is taken
            as it is: what is frozen in it, stays frozen.
        num_classes: Width of the softmax, at least 1.
        **base: `name`, `dtype` and `trainable`, as for every Keras model.

    Raises:
        ValueError: `num_classes` is not a whole number of at least 1.
    """

    def __init__(self, features: keras.Model, num_classes: int, **base: Any) -> None:
        check_count("num_classes", num_classes, example=10)
        super().__init__(**base)
        self.num_classes = num_classes
        self.features = features
        # A few images move random weights in a few directions only; what is left of them is noise. From zero, a new
        # head on frozen features told 0.749 of the test images, from Keras's random weights 0.707 (one image a class).
        # In half precision the probabilities would not sum to 1.
        self.head = keras.layers.Dense(
            num_classes, activation="softmax", kernel_initializer="zeros", name="head", dtype="float32"
        )

    def build(self, input_shape: Shape) -> None:
        """Creates the weights of the head; the features have theirs.

        Args:
            input_shape: `(batch, height, width, channels)`, as the features take them.
        """
        self.head.build(self.features.compute_output_shape(input_shape))

    # There is no compute_output_shape: from it Keras would take the outputs for the compute dtype,
    # and in half precision they are float32.
    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Maps images `(B, H, W, C)` to probabilities `(B, num_classes)`, float32."""
        x = self.features(images, training=False)  # (B, features)
        return self.head(x)  # (B, num_classes)

    def freeze(self) -> None:
        """Lets the head alone learn. Compile afterwards."""
        self.features.trainable = False

    def unfreeze(self, from_layer: str) -> None:
        """Lets the features learn from one layer on; those before it are frozen. Compile afterwards.

        Args:
            from_layer: The name of the first layer that learns, one of `[layer.name for layer in features.layers]`.

        Raises:
            ValueError: There is no such layer.
        """
        names = [layer.name for layer in self.features.layers]
        if from_layer not in names:
            raise ValueError(
                f"from_layer was given as {from_layer!r}, but must be the name of one of the features' layers: "
                f"{', '.join(names)}."
            )
        self.features.trainable = True  # of a frozen model no layer learns, whatever the layer says
        for position, layer in enumerate(self.features.layers):
            layer.trainable = position >= names.index(from_layer)

    def get_config(self) -> dict[str, Any]:
        """The arguments that build this model again."""
        own = {"features": keras.saving.serialize_keras_object(self.features), "num_classes": self.num_classes}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "FineTuned":
        """The model that `get_config` described."""
        features = keras.saving.deserialize_keras_object(config.pop("features"), custom_objects=custom_objects)
        return cls(features, **config)


def fine_tuned(trained: keras.Model, num_classes: int, *, name: str = "fine_tuned") -> FineTuned:
    """The layers of a trained classifier up to its last one, copied and frozen, below a new head.

    Args:
        trained: A Functional or Sequential model whose last layer is its head; of a model with a `call` of its own
            the graph, such as `zoo.Inception.build_graph` gives. It is copied, and stays as it is.
        num_classes: Width of the new softmax, at least 1.
        name: The model's name.

    Returns:
        A built, uncompiled model from images to `(batch, num_classes)`, of which the head alone learns.

    Raises:
        ValueError: `trained` has no graph of layers, or not one input; or `num_classes` is no whole number of at
            least 1.
    """
    if len(getattr(trained, "inputs", [])) != 1:  # models with a call of their own have no such list
        raise ValueError(
            f"trained was given as {trained!r}, but must be a Functional or Sequential model of one input, whose "
            "layers can be told from its head. Of a zoo.Inception take model.build_graph((height, width, channels))."
        )
    copy = keras.models.clone_model(trained)
    copy.set_weights(trained.get_weights())
    features = keras.Model(copy.inputs[0], copy.layers[-1].input, name="features")
    model = FineTuned(features, num_classes, name=name)
    model.build((None, *trained.input_shape[1:]))
    model.freeze()
    return model

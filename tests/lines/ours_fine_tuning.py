"""Fine-tuning: a head on frozen features, then the last features with it, at a smaller rate."""

import keras

from engine import Checkpointer, Every, Trainer


def train(features, num_classes, data, validation_data, directory, *, from_layer, epochs=30):
    features.trainable = False
    probabilities = keras.layers.Dense(num_classes, activation="softmax")(features.output)
    model = keras.Model(features.inputs, probabilities)
    head = fit(model, 1e-2, data, validation_data, directory / "head", epochs=epochs)
    features.trainable, names = True, [layer.name for layer in features.layers]
    for position, layer in enumerate(features.layers):
        is_normalization = isinstance(layer, keras.layers.BatchNormalization)  # which stays in inference mode
        layer.trainable = position >= names.index(from_layer) and not is_normalization
    return head, fit(model, 1e-4, data, validation_data, directory / "features", epochs=epochs)


def fit(model, rate, data, validation_data, directory, *, epochs):
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    trainer = Trainer(model, checkpoints=Checkpointer(directory, every=Every(steps=100)), seed=1)
    return trainer.fit(*data, batch_size=32, epochs=epochs, validation_data=validation_data, resume=True)

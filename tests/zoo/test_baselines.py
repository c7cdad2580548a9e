import json

import keras
import numpy as np
import pytest

from zoo import ConvNet, functional_cnn, sequential_cnn


def images(*shape):
    return np.random.default_rng(0).random(shape, dtype="float32")


def conv_net(num_classes=10, input_shape=(28, 28, 3), **options):
    """`ConvNet`, built as the other two are."""
    model = ConvNet(num_classes, **options)
    model.build((None, *input_shape))
    return model


every_way = pytest.mark.parametrize("make", [sequential_cnn, functional_cnn, conv_net])


@every_way
def test_the_three_ways_have_the_same_parameters(make):
    model = make(num_classes=10)

    assert 20_426 == model.count_params()
    assert 20_234 == sum(int(np.prod(w.shape)) for w in model.trainable_weights)


@every_way
def test_the_three_ways_have_the_same_weights_in_the_same_order(make):
    normalisation = [(32,)] * 4, [(64,)] * 4
    expected = [
        (3, 3, 3, 32),
        (32,),
        *normalisation[0],
        (3, 3, 32, 64),
        (64,),
        *normalisation[1],
        (64, 5),
        (5,),
    ]

    assert expected == [w.shape for w in make(num_classes=5).weights]


def test_the_sequential_and_the_functional_way_are_one_network():
    sequential, functional = sequential_cnn(), functional_cnn()
    functional.set_weights(sequential.get_weights())
    x = images(4, 28, 28, 3)

    assert np.array_equal(sequential(x), functional(x))


def test_the_subclassed_way_differs_in_its_pooling_alone():
    """The mean and the maximum of one single feature are the same."""
    functional, subclassed = functional_cnn(10, (19, 19, 3)), conv_net(10, (19, 19, 3))
    subclassed.set_weights(functional.get_weights())
    functional_large = functional_cnn(10, (28, 28, 3))
    functional_large.set_weights(functional.get_weights())
    one, four = images(4, 19, 19, 3), images(4, 28, 28, 3)

    assert np.array_equal(functional(one), subclassed(one))
    assert not np.array_equal(functional_large(four), subclassed(four))


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (19, 19, 2), (20, 41, 4)])
@pytest.mark.parametrize("num_classes", [2, 10])
@every_way
def test_every_size_gives_one_probability_a_class(make, shape, num_classes):
    probabilities = make(num_classes, shape)(images(3, *shape)).numpy()

    assert (3, num_classes) == probabilities.shape
    assert "float32" == probabilities.dtype
    assert (probabilities >= 0).all()
    # Not bit-equal: the sum of rounded quotients.
    np.testing.assert_allclose(np.ones(3), probabilities.sum(axis=1), rtol=1e-6)


@every_way
def test_training_moves_the_running_statistics_of_both_normalisations(make):
    model = make(dropout=0.0)
    x = images(4, 28, 28, 3)
    resting = model(x, training=False).numpy()
    before = [w.numpy() for w in model.weights if "moving" in w.name]
    trained = model(x, training=True).numpy()
    after = [w.numpy() for w in model.weights if "moving" in w.name]

    assert not np.array_equal(resting, trained)
    assert 4 == len(before)
    assert not any(map(np.array_equal, before, after))


@every_way
def test_training_drops_features_and_inference_does_not(make):
    """With the normalisations frozen, nothing but the dropout is left to differ."""
    model = make(dropout=0.5)
    for layer in model.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    x = images(4, 28, 28, 3)

    assert not np.array_equal(model(x, training=True), model(x, training=True))
    assert np.array_equal(model(x, training=False), model(x, training=False))


@every_way
def test_the_network_learns_with_a_loss_on_probabilities(make):
    """The softmax in the head is what the source texts miss."""
    labels = np.arange(64) % 2
    x = images(64, 19, 19, 3) * 0.5 + labels[:, None, None, None].astype("float32") * 0.5
    model = make(2, (19, 19, 3))
    model.compile(keras.optimizers.Adam(0.01), "categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, keras.utils.to_categorical(labels), batch_size=16, epochs=4, verbose=0).history

    assert history["loss"][0] > history["loss"][-1]
    assert history["accuracy"][-1] > 0.9


@every_way
def test_loading_restores_a_trained_model_to_the_bit(make, tmp_path):
    x, y = images(8, 28, 28, 3), np.arange(8) % 10
    model = make()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert all(map(np.array_equal, model.get_weights(), loaded.get_weights()))
    assert np.array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))
    assert len(model.optimizer.variables) == len(loaded.optimizer.variables)
    assert all(map(np.array_equal, model.optimizer.variables, loaded.optimizer.variables))


@pytest.mark.parametrize(
    "model",
    [ConvNet(), ConvNet(3, dropout=0.5, name="mine", dtype="mixed_bfloat16", trainable=False)],
    ids=["as it is", "all arguments"],
)
def test_the_subclassed_model_comes_back_from_its_configuration(model):
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    again = keras.saving.deserialize_keras_object(config)

    assert "zoo>ConvNet" == config["registered_name"]
    assert model.get_config() == again.get_config()


def test_a_frozen_subclassed_model_is_still_frozen_after_loading(tmp_path):
    """Its normalisations too: a running statistic that moves has not been frozen."""
    model = conv_net()
    model.trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before = loaded.get_weights()
    loaded(images(4, 28, 28, 3), training=True)

    assert [] == loaded.trainable_weights
    assert all(map(np.array_equal, before, loaded.get_weights()))


@every_way
def test_half_precision_ends_in_float32_probabilities(make, policy):
    policy("mixed_bfloat16")
    model = make()

    assert "float32" == model(images(2, 28, 28, 3)).dtype
    assert "float32" == model(keras.Input((28, 28, 3))).dtype
    assert "bfloat16" == model.layers[-2].compute_dtype


@every_way
def test_a_bad_number_of_classes_is_refused_in_words(make):
    with pytest.raises(ValueError, match=r"^num_classes was given as 0, .* for example num_classes=10\.$"):
        make(num_classes=0)


@every_way
def test_a_dropout_above_one_is_refused(make):
    with pytest.raises(ValueError, match=r"Expected a float value between 0 and 1. Received: rate=1.5"):
        make(dropout=1.5)


@every_way
def test_an_image_below_19x19_is_refused(make):
    with pytest.raises(ValueError, match="Computed output size would be zero or negative"):
        make(10, (18, 18, 3))

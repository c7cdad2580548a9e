import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from zoo import Inception, paper_inception, small_inception


def images(*shape):
    return np.random.default_rng(0).random(shape, dtype="float32")


def tiny(num_classes=3, **base):
    return Inception(num_classes, [(2, 3), 4, (3, 2)], stem_filters=4, **base)


def count(weights):
    return sum(int(np.prod(w.shape)) for w in weights)


def stirred(model, x):
    """The model with running statistics that are not the initial ones."""
    model(x, training=True)
    return model


@pytest.mark.parametrize(
    ("make", "channels", "trainable", "statistics"),
    [
        (small_inception, 1, 584_938, 1_792),
        (small_inception, 3, 586_666, 1_792),
        (paper_inception, 3, 1_652_826, 3_424),
    ],
)
def test_the_networks_have_the_parameters_of_the_texts(make, channels, trainable, statistics):
    model = make(num_classes=10)
    model.build((None, 28, 28, channels))

    assert trainable == count(model.trainable_weights)
    assert statistics == count(model.non_trainable_weights)
    assert trainable + statistics == model.count_params()


def test_without_batch_normalisation_the_count_is_that_of_the_papers_table_1():
    model = paper_inception(num_classes=10)
    model.build((None, 28, 28, 3))

    assert 1_649_402 == count(w for w in model.weights if "normalization" not in w.path)


def test_the_small_network_halves_28_to_13_to_6():
    graph = small_inception().build_graph((28, 28, 1))

    assert [
        ("stem", (None, 28, 28, 96)),
        ("stage_0", (None, 28, 28, 64)),
        ("stage_1", (None, 28, 28, 80)),
        ("stage_2", (None, 13, 13, 160)),
        ("stage_3", (None, 13, 13, 160)),
        ("stage_4", (None, 13, 13, 160)),
        ("stage_5", (None, 13, 13, 160)),
        ("stage_6", (None, 6, 6, 256)),
        ("pool", (None, 256)),
        ("head", (None, 10)),
    ] == [(layer.name, layer.output.shape) for layer in graph.layers[1:]]


def test_the_papers_network_goes_on_after_the_second_halving():
    graph = paper_inception().build_graph((28, 28, 3))

    assert [(None, 6, 6, 240), (None, 6, 6, 336), (None, 6, 6, 336), (None, 336), (None, 10)] == [
        layer.output.shape for layer in graph.layers[-5:]
    ]


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (7, 7, 2), (11, 20, 4)])
@pytest.mark.parametrize("num_classes", [2, 10])
def test_every_size_gives_one_probability_a_class(shape, num_classes):
    probabilities = small_inception(num_classes)(images(2, *shape)).numpy()

    assert (2, num_classes) == probabilities.shape
    assert "float32" == probabilities.dtype
    assert (probabilities >= 0).all()
    # Not bit-equal: the sum of rounded quotients.
    np.testing.assert_allclose(np.ones(2), probabilities.sum(axis=1), rtol=1e-6)


def test_training_normalises_by_the_batch_everywhere():
    model = tiny()
    x = images(4, 9, 9, 2)
    resting = model(x, training=False).numpy()
    before = [w.numpy() for w in model.weights if "moving" in w.name]
    trained = model(x, training=True).numpy()
    after = [w.numpy() for w in model.weights if "moving" in w.name]

    assert not np.array_equal(resting, trained)
    assert 12 == len(before)
    assert not any(map(np.array_equal, before, after))


def test_a_gradient_reaches_every_trainable_weight():
    """All but the convolutions' biases: a normalisation takes every constant away."""
    model = tiny()
    x, y = images(8, 9, 9, 2), np.arange(8) % 3
    with tf.GradientTape() as tape:
        loss = keras.losses.sparse_categorical_crossentropy(y, model(x, training=True))
    gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
    reached = {w.path for w, g in zip(model.trainable_weights, gradients, strict=True) if np.abs(g).max() > 1e-5}

    assert {w.path for w in model.trainable_weights if "convolution/bias" not in w.path} == reached


def test_the_graph_is_made_of_the_models_own_weights():
    model = tiny()
    graph = model.build_graph((9, 9, 2))

    assert 26 + 12 == len(model.weights)
    assert list(map(id, model.weights)) == list(map(id, graph.weights))


@pytest.mark.parametrize("training", [False, True])
def test_the_graph_computes_what_the_model_computes(training):
    model = tiny()
    graph = model.build_graph((9, 9, 2))
    x = images(4, 9, 9, 2)

    assert np.array_equal(model(x, training=training), graph(x, training=training))


def test_training_the_graph_trains_the_model():
    model = tiny()
    x = images(8, 9, 9, 2)
    before = model.predict(x, verbose=0)
    graph = model.build_graph((9, 9, 2))
    graph.compile("adam", "sparse_categorical_crossentropy")
    graph.train_on_batch(x, np.arange(8) % 3)
    after = model.predict(x, verbose=0)

    assert not np.array_equal(before, after)
    assert np.array_equal(graph.predict(x, verbose=0), after)


def test_a_graph_of_a_built_model_may_leave_its_sides_open():
    model = tiny()
    small, large = images(2, 9, 9, 2), images(2, 12, 15, 2)
    expected = [model(small).numpy(), model(large).numpy()]
    graph = model.build_graph((None, None, 2))

    assert np.array_equal(expected[0], graph(small))
    assert np.array_equal(expected[1], graph(large))


@pytest.mark.parametrize(
    "make",
    [
        small_inception,
        paper_inception,
        lambda: tiny(name="other", dtype="mixed_bfloat16", trainable=False),
    ],
    ids=["small", "paper", "half precision and frozen"],
)
def test_a_model_comes_back_from_its_configuration(make):
    model = make()
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    again = keras.saving.deserialize_keras_object(config)

    assert "zoo>Inception" == config["registered_name"]
    assert model.get_config() == again.get_config()


@pytest.mark.parametrize(("make", "shape"), [(tiny, (9, 9, 2)), (small_inception, (28, 28, 1))])
def test_loading_restores_a_model_to_the_bit(make, shape, tmp_path):
    x = images(4, *shape)
    model = stirred(make(), x)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert all(map(np.array_equal, model.get_weights(), loaded.get_weights()))
    assert np.array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))


def test_a_loaded_model_trains_on_as_the_saved_one_does(tmp_path):
    x, y = images(4, 9, 9, 2), np.arange(4) % 3
    model = tiny()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.reset_metrics()
        each.train_on_batch(x, y)

    assert all(map(np.array_equal, model.get_weights(), loaded.get_weights()))
    assert model.train_on_batch(x, y) == loaded.train_on_batch(x, y)


def test_a_saved_model_keeps_its_precision_where_the_policy_is_another(tmp_path, policy):
    policy("mixed_bfloat16")
    x = images(4, 9, 9, 2)
    model = stirred(tiny(), x)
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    policy("float32")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert "bfloat16" == loaded.stem.compute_dtype
    assert np.array_equal(expected, loaded.predict(x, verbose=0))


def test_a_frozen_model_is_still_frozen_after_loading(tmp_path):
    """Its normalisations too: a running statistic that moves has not been frozen."""
    x = images(4, 9, 9, 2)
    model = stirred(tiny(), x)
    model.trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before = loaded.get_weights()
    loaded(x, training=True)

    assert [] == loaded.trainable_weights
    assert all(map(np.array_equal, before, loaded.get_weights()))


def test_loading_restores_a_graph_to_the_bit_and_which_modules_are_frozen(tmp_path):
    x = images(4, 9, 9, 2)
    model = stirred(tiny(), x)
    model.stem.trainable = False
    graph = model.build_graph((9, 9, 2))
    graph.save(tmp_path / "graph.keras")
    loaded = keras.models.load_model(tmp_path / "graph.keras")

    assert np.array_equal(graph.predict(x, verbose=0), loaded.predict(x, verbose=0))
    assert ["stem"] == [layer.name for layer in loaded.layers if not layer.trainable]
    assert 26 - 4 == len(loaded.trainable_weights)


def test_half_precision_ends_in_float32_probabilities():
    """The symbolic type as well: a loss in a Functional model is chosen by it."""
    model = tiny(dtype="mixed_bfloat16")
    symbolic = model(keras.Input((9, 9, 2)))
    probabilities = model(images(2, 9, 9, 2))

    assert "float32" == symbolic.dtype
    assert "float32" == probabilities.dtype
    assert "bfloat16" == model.trunk[0].conv_3x3.convolution.compute_dtype
    # Not bit-equal: the sum of rounded quotients.
    np.testing.assert_allclose(np.ones(2), probabilities.numpy().sum(axis=1), rtol=1e-6)


def test_a_strategy_trains_the_model_as_no_strategy_does():
    x, y = images(8, 9, 9, 2), np.arange(8) % 3
    plain = tiny()
    plain.compile("sgd", "sparse_categorical_crossentropy")
    expected = plain.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0).history
    keras.utils.set_random_seed(0)
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        model = tiny()
        model.compile("sgd", "sparse_categorical_crossentropy")

    assert expected == model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0).history


@pytest.mark.parametrize("stage", [(32,), (1, 2, 3), "32", 3.0, None])
def test_a_stage_that_is_neither_a_number_nor_a_pair_is_refused_in_words(stage):
    message = (
        f"stages[1] was given as {stage!r}, but must be a number of filters (for a DownsampleModule) "
        "or a pair of them (for an InceptionModule). Pass for example 80 or (32, 48)."
    )

    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Inception(10, [(32, 32), stage])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small_inception(0), r"^num_classes was given as 0.* for example num_classes=10\.$"),
        (lambda: paper_inception(num_classes=-1), r"^num_classes was given as -1"),
        (lambda: Inception(10, [], stem_filters=0), r"^stem_filters was given as 0"),
        (lambda: Inception(10, [(32, 0)]), r"^filters_3x3 was given as 0"),
        (lambda: Inception(10, [0]), r"^filters was given as 0"),
    ],
)
def test_a_number_below_one_is_refused_by_the_name_of_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_image_below_7x7_is_refused():
    with pytest.raises(ValueError, match="Computed output size would be zero or negative"):
        small_inception().build((None, 6, 6, 1))


def test_the_momentum_asked_for_reaches_every_normalisation_and_is_saved():
    model = small_inception(momentum=0.9)
    model.build((None, 28, 28, 1))
    again = Inception.from_config(model.get_config())
    kinds = keras.layers.BatchNormalization
    momenta = [layer.momentum for m in (model, again) for layer in m._flatten_layers() if isinstance(layer, kinds)]

    assert [0.9] * 2 * 13 == momenta

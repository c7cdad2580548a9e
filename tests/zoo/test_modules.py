import json

import keras
import numpy as np
import pytest

from zoo import ConvModule, DownsampleModule, InceptionModule

MODULES = {
    "conv": lambda **base: ConvModule(4, 3, **base),
    "strided conv": lambda **base: ConvModule(4, (3, 2), (2, 1), "valid", **base),
    "inception": lambda **base: InceptionModule(2, 3, **base),
    "downsample": lambda **base: DownsampleModule(4, **base),
}
every_module = pytest.mark.parametrize("make", MODULES.values(), ids=MODULES.keys())


def images(*shape):
    return np.random.default_rng(0).random(shape, dtype="float32")


def moving_statistics(layer):
    return [w.numpy() for w in layer.weights if "moving" in w.name]


def all_equal(left, right):
    return len(left) == len(right) and all(map(np.array_equal, left, right))


@pytest.mark.parametrize(
    ("module", "weights", "trainable"),
    [(ConvModule(4, 3), 6, 4), (InceptionModule(2, 3), 12, 8), (DownsampleModule(4), 6, 4)],
    ids=["conv", "inception", "downsample"],
)
def test_a_module_has_six_weights_a_convolution_of_which_four_train(module, weights, trainable):
    module.build((None, 9, 9, 2))

    assert weights == len(module.weights)
    assert trainable == len(module.trainable_weights)


def test_a_conv_module_names_its_weights_in_order():
    module = ConvModule(4, 3, name="stem")
    module.build((None, 9, 9, 2))

    assert [
        "stem/convolution/kernel",
        "stem/convolution/bias",
        "stem/normalization/gamma",
        "stem/normalization/beta",
        "stem/normalization/moving_mean",
        "stem/normalization/moving_variance",
    ] == [w.path for w in module.weights]


def test_modules_nest_and_their_weights_are_tracked():
    class Outer(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = [InceptionModule(2, 3), DownsampleModule(4)]

        def call(self, x):
            for layer in self.inner:
                x = layer(x)
            return x

    outer = Outer()
    outer(images(1, 9, 9, 2))

    assert 18 == len(outer.weights)
    assert 12 == len(outer.trainable_weights)


@pytest.mark.parametrize("shape", [(9, 9, 1), (28, 28, 3), (13, 10, 2)])
@every_module
def test_the_announced_shape_is_the_shape_that_comes(make, shape):
    module = make()
    announced = module.compute_output_shape((5, *shape))

    assert announced == module(images(5, *shape)).shape


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (ConvModule(4, 3), (None, None, 28, 4)),
        (InceptionModule(2, 3), (None, None, 28, 5)),
        (DownsampleModule(4), (None, None, 13, 7)),
    ],
    ids=["conv", "inception", "downsample"],
)
def test_an_open_side_stays_open(module, expected):
    assert expected == module.compute_output_shape((None, None, 28, 3))


def test_a_fresh_conv_module_is_the_positive_part_of_its_scaled_convolution():
    """Running mean 0 and variance 1 leave of the normalisation a division by sqrt(1 + epsilon)."""
    module = ConvModule(4, 3)
    x = images(2, 9, 9, 2)
    outputs = module(x).numpy()
    convolved = keras.ops.conv(x, module.weights[0], padding="same") / np.sqrt(1 + 1e-3)

    # Not bit-equal: the layer fuses the division into a multiplication.
    np.testing.assert_allclose(np.maximum(convolved, 0), outputs, rtol=1e-5, atol=1e-6)


def test_an_inception_module_joins_the_1x1_channels_before_the_3x3_ones():
    module = InceptionModule(2, 3)
    x = images(2, 9, 9, 2)
    outputs = module(x).numpy()

    assert np.array_equal(module.conv_1x1(x), outputs[..., :2])
    assert np.array_equal(module.conv_3x3(x), outputs[..., 2:])


def test_a_downsample_module_keeps_the_maxima_of_its_input_behind_the_convolution():
    module = DownsampleModule(4)
    x = images(2, 9, 9, 2)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2]

    assert np.array_equal(windows.max(axis=(-1, -2)), module(x)[..., 4:])


@every_module
def test_training_normalises_by_the_batch_and_moves_the_running_statistics(make):
    module = make()
    x = images(4, 9, 9, 2)
    resting = module(x, training=False).numpy()
    before = moving_statistics(module)
    trained = module(x, training=True).numpy()

    assert not np.array_equal(resting, trained)
    assert not any(map(np.array_equal, before, moving_statistics(module)))


@every_module
def test_inference_leaves_every_weight_alone(make):
    module = make()
    x = images(4, 9, 9, 2)
    module(x, training=True)
    before = module.get_weights()
    module(x, training=False)
    module(x)

    assert all_equal(before, module.get_weights())


@every_module
def test_a_module_comes_back_from_its_configuration(make):
    module = make(name="mine", dtype="mixed_bfloat16", trainable=False)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(module)))
    again = keras.saving.deserialize_keras_object(config)

    assert type(module) is type(again)
    assert module.get_config() == again.get_config()
    assert f"zoo>{type(module).__name__}" == config["registered_name"]


@every_module
def test_a_module_in_a_saved_model_predicts_the_same_to_the_bit(make, tmp_path):
    inputs = keras.Input((9, 9, 2))
    model = keras.Model(inputs, make()(inputs))
    x = images(4, 9, 9, 2)
    model(x, training=True)  # statistics that are not the initial ones
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert np.array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))


@every_module
def test_a_frozen_module_is_still_frozen_after_loading(make, tmp_path):
    """Its normalisations too: a running statistic that moves has not been frozen."""
    inputs = keras.Input((9, 9, 2))
    module = make()
    model = keras.Model(inputs, module(inputs))
    module.trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before = loaded.get_weights()
    loaded(images(4, 9, 9, 2), training=True)

    assert [] == loaded.trainable_weights
    assert all_equal(before, loaded.get_weights())


@every_module
def test_half_precision_computes_in_bfloat16_on_float32_weights(make):
    module = make(dtype="mixed_bfloat16")
    outputs = module(images(2, 9, 9, 2))

    assert "bfloat16" == outputs.dtype
    assert {"float32"} == {w.dtype for w in module.weights}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: ConvModule(0, 3), "filters"),
        (lambda: InceptionModule(-1, 3), "filters_1x1"),
        (lambda: InceptionModule(2, 0), "filters_3x3"),
        (lambda: DownsampleModule(0), "filters"),
    ],
)
def test_filters_below_one_are_refused_by_the_name_of_the_argument(make, name):
    with pytest.raises(ValueError, match=f"^{name} was given as .* at least 1"):
        make()


def test_an_argument_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match=r"keyword arguments passed to ConvModule: {'stride': 2}"):
        ConvModule(4, 3, stride=2)

import numpy as np
import pytest

from zoo import dense_classifier, strided_cnn


def images(*shape):
    return np.random.default_rng(0).random(shape, dtype="float32")


def test_the_networks_have_the_parameters_of_their_docstrings():
    assert 114_058 == strided_cnn().count_params()
    assert 114_058 - 4 * (32 + 64 + 128) == strided_cnn(momentum=None).count_params()
    assert 25_450 == dense_classifier().count_params()


@pytest.mark.parametrize("make", [strided_cnn, dense_classifier])
def test_every_size_gives_one_probability_a_class(make):
    probabilities = make(3, (9, 12, 2))(images(4, 9, 12, 2)).numpy()

    assert (4, 3) == probabilities.shape
    # Not bit-equal: the sum of rounded quotients.
    np.testing.assert_allclose(np.ones(4), probabilities.sum(axis=1), rtol=1e-6)


@pytest.mark.parametrize("make", [strided_cnn, dense_classifier])
def test_half_precision_ends_in_float32_probabilities(make, policy):
    policy("mixed_bfloat16")

    assert "float32" == make()(images(2, 28, 28, 1)).dtype


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: strided_cnn(0), r"^num_classes was given as 0"),
        (lambda: strided_cnn(filters=(8, 0)), r"^filters\[1\] was given as 0"),
        (lambda: dense_classifier(0), r"^num_classes was given as 0"),
        (lambda: dense_classifier(units=0), r"^units was given as 0.* for example units=32\.$"),
    ],
)
def test_a_number_below_one_is_refused_by_the_name_of_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()

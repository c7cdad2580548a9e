import re

import pytest

from zoo.arguments import check_count, check_sides


@pytest.mark.parametrize("value", [0, -3, 2.0, "8", None, True])
def test_a_count_that_is_no_whole_number_of_at_least_1_is_refused_in_words(value):
    """An error says what was given, what was expected and how to fix it."""
    message = (
        f"filters was given as {value!r}, but must be a whole number (int) of at least 1. "
        "Pass one, for example filters=32."
    )

    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_count("filters", value, example=32)


def test_one_is_the_smallest_count():
    assert check_count("filters", 1, example=32) is None


@pytest.mark.parametrize("value", [(28, 28), (28, 28, 0), (28, 30, 1), (26, 28, 1), (28.0, 28, 1), (None, 28, 1), 28])
def test_a_shape_whose_sides_are_no_multiples_is_refused_in_words(value):
    message = (
        f"image_shape was given as {value!r}, but must be (height, width, channels), whole numbers of at least 1, both "
        "sides multiples of 4. Pass for example image_shape=(28, 28, 1), and pad or resize the images to it."
    )

    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_sides("image_shape", value, multiple=4)


@pytest.mark.parametrize("value", [(4, 8, 1), [28, 28, 3]])
def test_a_shape_whose_sides_are_multiples_passes_as_a_tuple(value):
    assert tuple(value) == check_sides("image_shape", value, multiple=4)

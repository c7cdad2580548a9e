import re

import pytest

from zoo.arguments import check_count


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

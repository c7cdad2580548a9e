"""The page `docs/design/lines-of-code.md` says what is so, and what it compares does the same."""

import numpy as np
import pytest

from tests.lines.cases import CASES, Setting, run
from tests.lines_page import PAGE, SHIPPED, TRAININGS, lines_of, page

SLOW = ("vae", "fine_tuning", "reinforce", "ppo")  # to trace
# Where a Trainer names the terms of a loss, by where they come from.
OTHER_NAMES = {"vae": {"divergence", "reconstruction", "val_divergence", "val_reconstruction"}}
NAMES = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in TRAININGS]
SOURCE = '''"""A module.

Of two paragraphs.
"""

import os
from pathlib import (
    Path,
)

LIMIT = 3  # a comment beside code


# A comment of its own.
@decorated
def function(argument):
    """A docstring."""

    return [
        argument,  # and one inside
        """text
        in two lines""",
    ]


class Empty:
    """Nothing else."""
'''


def test_the_page_is_up_to_date():
    assert page() == PAGE.read_text(), "Write it anew: python -m tests.lines_page"


@pytest.mark.parametrize(
    ("names", "lines"),
    [(None, 1 + 7 + 1), (["LIMIT"], 1), (["function"], 7), (["Empty"], 1), (["Empty", "LIMIT"], 2)],
    ids=["all", "a constant", "a function with its decorator", "a class", "several"],
)
def test_blank_lines_comments_docstrings_and_imports_are_not_counted(names, lines):
    assert lines == lines_of(SOURCE, names)


def test_a_name_that_is_not_there_is_an_error():
    with pytest.raises(KeyError, match="missing"):
        lines_of(SOURCE, ["missing"])


def test_every_training_has_a_case():
    assert [*TRAININGS] == [case.__name__ for case in CASES]
    assert SHIPPED.keys() <= TRAININGS.keys()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_counted_trains_alike_here_and_in_keras(name, tmp_path):
    """From the same weights to the same weights, and by the way the same logs, but for what terms are called.

    Not to the bit: rows come in another order, and sums of them in another order too.
    """
    settings = [Setting(tool, tmp_path / tool, steps=1, epochs=2, is_one_image=True) for tool in ("keras", "ours")]
    (expected, weights), (history, own) = (run(name, setting) for setting in settings)
    shared = expected.keys() & history.keys()

    assert expected.keys() - shared == OTHER_NAMES.get(name, set())
    for key in shared:
        # The loss of a policy is near 0, and a mean of what is not.
        np.testing.assert_allclose(expected[key], history[key], rtol=1e-5, atol=1e-6)
    for theirs, ours in zip(weights, own, strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-6)

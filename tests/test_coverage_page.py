"""The page `docs/design/coverage.md` says what is so: every parameter has a line, every line a test that exists."""

import inspect
import re
from pathlib import Path

import keras
import pytest

from engine import Trainer
from tests.coverage_page import PAGE, PARAMETERS, page

TESTS = Path(__file__).parent


def test_the_page_is_up_to_date():
    assert page() == PAGE.read_text(), "Write it anew: python -m tests.coverage_page"


@pytest.mark.parametrize("method", PARAMETERS)
def test_every_parameter_has_a_line(method):
    """Keras's own too, so that none of them is forgotten here."""
    ours = Trainer.__init__ if method == "Trainer" else getattr(Trainer, method)
    theirs = set() if method == "Trainer" else set(inspect.signature(getattr(keras.Model, method)).parameters)
    names = set(inspect.signature(ours).parameters) | theirs

    assert names - {"self", "kwargs"} == set(PARAMETERS[method])


def test_every_line_has_a_test_that_exists():
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.endswith("| test |")]
    named = [re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", line.rpartition(" | ")[2]) for line in lines]

    assert all(named)
    for file, test in {pair for pairs in named for pair in pairs}:
        assert f"def {test or 'test_'}" in (TESTS / file).read_text(), f"{file}::{test}"

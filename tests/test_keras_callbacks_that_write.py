"""The promise of `test_keras_callbacks.py` for those of Keras's own callbacks that write: files, or to a server."""

import pytest

from tests.as_in_keras import WRITING, assert_as_in_keras, params
from tests.callback_cases import CASES

pytestmark = [pytest.mark.slow, pytest.mark.shares_models]  # some 300 fits


@pytest.mark.parametrize("case", params([case for case in CASES if case.callback in WRITING]))
def test_it_writes_in_a_fit_what_it_writes_in_that_of_keras(case, tmp_path):
    assert_as_in_keras(case, tmp_path)

"""The guide's programs run as they stand, and print what the page says."""

import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parent.parent / "docs/guide"


@pytest.mark.parametrize("page", ["tasks.md"])
def test_the_programs_of_a_page_run_and_print_what_it_says(page, capsys):
    """All blocks of a page, one after the other; a comment below a `print` is what it prints."""
    blocks = re.findall(r"```python\n(.*?)```", (GUIDE / page).read_text(), re.DOTALL)

    exec(compile("\n".join(blocks), page, "exec"), {"__name__": "guide"})

    expected = [line.removeprefix("# ") for block in blocks for line in block.splitlines() if line.startswith("# ")]
    assert expected
    assert expected == capsys.readouterr().out.splitlines()

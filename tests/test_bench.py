"""The benchmarks run: the cheap ones, on a few steps. What they measure is for `make bench` to say."""

import pytest

from tests.bench import page
from tests.bench.__main__ import CASES, main

CHEAP = ("callbacks", "epochs", "inference")


@pytest.mark.parametrize("name", CHEAP)
def test_a_case_runs_and_shows_its_tables(name, capsys):
    written = page.PAGE.read_text()
    main(["--only", name, "--tiny", "--rounds", "1"])
    shown = capsys.readouterr().out

    assert "| Trainer |" in shown
    assert shown.endswith(f"{page.machine()}\n")
    assert written == page.PAGE.read_text()


def test_every_case_has_its_place_on_the_page(tmp_path):
    copy = tmp_path / "benchmarks.md"
    copy.write_text(page.PAGE.read_text())
    for name in CASES:
        page.write(name, f"of {name}", copy)
        page.write(name, f"anew, of {name}", copy)

    text = copy.read_text()
    assert [1] * len(CASES) == [text.count(f"\nanew, of {name}\n") for name in CASES]
    assert 0 == text.count("\nof ")


def test_a_section_without_a_place_is_refused(tmp_path):
    copy = tmp_path / "benchmarks.md"
    copy.write_text("nothing")

    with pytest.raises(ValueError, match=r"benchmarks.md has no place for 'loops': put <!-- bench: loops: begin -->"):
        page.write("loops", "text", copy)

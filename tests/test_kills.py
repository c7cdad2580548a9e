"""The promise: a training killed with SIGKILL at any moment, started again, ends with the bits of one never killed.

`tests/kills.py` does the killing; `docs/design/kills.log` holds 200 of its kills. Here are a few, for every change.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path):
    """In a process of its own, which forks before anything of TensorFlow has run; with callbacks and long blocks."""
    which = ["--kills", "3", "--seed", "7", "--first", "17", "--log", str(tmp_path / "log")]
    command = [sys.executable, "tests/kills.py", *which]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    head, _, _, *kills = (tmp_path / "log").read_text().splitlines()

    assert len(kills) >= 3
    assert all(kill.endswith(" equal") for kill in kills)
    assert f": {len(kills)} equal to the bit." in head

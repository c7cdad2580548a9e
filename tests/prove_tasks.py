"""Kills a training of every kind of step by SIGKILL, resumes it, and compares the two bit by bit.

```bash
python -m tests.prove_tasks                 # all of `tests.task_cases`, some 30 s each
python -m tests.prove_tasks "a GAN" PPO     # these
```
"""

import functools
import sys
from pathlib import Path
from typing import Any

from engine import Checkpointer, Every, Trainer, prove_resume
from tests.task_cases import CASES, trainer_of


def make_trainer(name: str, directory: Path) -> Trainer:
    """Saves with every second step, so that steps are done again."""
    return trainer_of(CASES[name], checkpoints=Checkpointer(directory, every=Every(steps=2)))


def make_data(name: str) -> dict[str, Any]:
    """Two epochs of four steps or more."""
    return CASES[name].data() | {"epochs": 2, "verbose": 0}


def proof(name: str) -> str:
    """What came of it; a ResumeError names what differs."""
    return str(prove_resume(functools.partial(make_trainer, name), functools.partial(make_data, name), cut_at=7))


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        print(f"{case}: {proof(case)}", flush=True)

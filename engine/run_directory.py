"""`RunDirectory`: where a fit is saved, opened and locked, and what of an earlier one it goes on from.

```python
with RunDirectory.open(Checkpointer("runs/mnist"), plan, resume=True) as directory:
    directory.found   # the newest whole checkpoint; None: the run begins
```
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs

from engine.cadence import Plan
from engine.checkpoint import Checkpointer, Saved, Store
from engine.errors import CheckpointError, ConfigError
from engine.record import Record


@attrs.frozen(eq=False)
class RunDirectory:
    """The directory of a run, which nobody else writes to until the fit is over.

    Attributes:
        checkpoints: What the user chose.
        store: The directory.
        found: What to go on from; None: the run begins.
    """

    checkpoints: Checkpointer
    store: Store
    found: Saved | None

    @classmethod
    @contextmanager
    def open(cls, checkpoints: Checkpointer | None, plan: Plan, *, resume: bool) -> Iterator["RunDirectory | None"]:
        """Opens a directory and looks for what to go on from; gives None where nothing shall be saved.

        Raises:
            ConfigError: `resume` without checkpoints.
            CheckpointError: The directory is in use, or what it holds cannot be gone on from, or must not be lost.
        """
        if checkpoints is None:
            if resume:
                raise ConfigError(
                    "resume=True, but this fit saves nothing that could be resumed. Give the Trainer a directory: "
                    'Trainer(model, checkpoints=Checkpointer("runs/mine")). A try, such as a fit inside a transaction, '
                    "is never saved."
                )
            yield None
            return
        with checkpoints.open() as store:
            found = None if store.is_empty() else _found_in(store, plan)
            if not resume and found is not None and found.step > 0:
                raise CheckpointError(
                    f"{checkpoints.directory} holds an earlier run up to step {found.step}, which this one would mix "
                    "with its own. Give fit(resume=True) to go on with that run, or another directory to begin anew."
                )
            yield cls(checkpoints, store, found if resume else None)

    def seed(self, given: int | None, drawn: int) -> int:
        """The seed of the run: as given, or what the run that goes on here once drew, or what was drawn now."""
        if given is not None or self.found is None:
            return drawn if given is None else given
        seed = self.record(self.found).run.get("seed")
        return seed if isinstance(seed, int) and 0 <= seed < 1 << 63 else drawn

    @staticmethod
    def record(found: Saved) -> Record:
        """The plain half of what was found."""
        return Record.of_facts(found.facts, found.path)


def _found_in(store: Store, plan: Plan) -> Saved | None:
    """The newest checkpoint, unless it is an end and the plan goes further."""
    found = store.newest()
    if found is None or not found.is_final:
        return found
    standing = RunDirectory.record(found).standing
    progress = standing.progress
    if standing.is_inside:  # with another limit, the last epoch is not over
        progress = attrs.evolve(progress, epoch=progress.epoch - 1)
    return found if standing.is_stopped or plan.is_over(progress) else store.newest(is_final=False)


def checked(checkpoints: Any) -> Checkpointer | None:
    """What a user gave as `checkpoints`, if it is one."""
    if checkpoints is None or isinstance(checkpoints, Checkpointer):
        return checkpoints
    raise ConfigError(
        f"checkpoints={checkpoints!r}: expected a Checkpointer, such as Checkpointer('runs/mine'), or None."
    )

"""A save is killed between every two of its system calls, and in the middle of every write.

The system is asked through Python's `os` alone, so that a process which kills itself before its k-th call, for every
k there is, has been killed everywhere.
"""

import itertools
import os
import shutil
import signal

import attrs
import pytest

from engine.checkpoint import Saved
from tests.checkpoints import (
    forked,
    hidden_in,
    open_store,
    saved_number,
    small_snapshot,
    steps_in,
    was_killed,
    watched,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@attrs.frozen
class Case:
    """A save.

    Attributes:
        before: The saves that came before it: pairs of a number and a step; a negative step is a final one's.
        save: The save that is killed.
        keep: How many it leaves.
        old: The number that is found until it is done.
        steps: What is left when it is done.
    """

    before: tuple[tuple[int, int], ...]
    save: tuple[int, int]
    keep: int | None
    old: int
    steps: tuple[str, ...]


CASES = {
    "into an empty directory": Case((), (1, 10), 3, 0, ("10",)),
    "over older steps, with a rotation": Case(((1, 10), (2, 20)), (3, 30), 1, 2, ("30",)),
    "of the only step that is there": Case(((1, 10),), (2, 10), 1, 1, ("10",)),
    "of the end of a run": Case(((1, 10), (2, -10), (3, 20)), (4, -20), 3, 3, ("10", "20", "20-final")),
}


def save(directory, case_save, keep):
    number, step = case_save
    with open_store(directory, keep=keep) as store:
        store.save(small_snapshot(number), step=abs(step), is_final=step < 0)


def kill_at(point):
    def act(number, name):
        if number == point:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def killed_at(point, work):
    """Does the work in another process that is killed there; whether it was, before it was done."""

    def watched_work():
        with watched(kill_at(point)):
            work()

    return was_killed(forked(watched_work))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_save_that_is_killed_anywhere_leaves_the_old_one_or_the_new(case, tmp_path):
    """Never an error, never a warning, never a mixture; whatever is there is whole, once the directory was opened."""
    before = tmp_path / "before"
    for each in case.before:
        save(before, each, None)
    before.mkdir(exist_ok=True)
    found = []
    for point in itertools.count(1):
        directory = shutil.copytree(before, tmp_path / "now")
        is_killed = killed_at(point, lambda directory=directory: save(directory, case.save, case.keep))
        found.append(saved_number(directory))

        for folder in directory.glob("step-*"):
            Saved.open(folder).verify()
        assert [] == hidden_in(directory), point
        if not is_killed:
            break
        shutil.rmtree(directory)

    new = case.save[0]
    assert {case.old, new} == set(found)
    assert sorted(found, key=[case.old, new].index) == found  # once it is there, it is there for good
    assert list(case.steps) == steps_in(directory)
    assert 40 < len(found)


def test_a_kill_while_the_leftovers_of_a_kill_are_cleared_away_does_no_harm(tmp_path):
    """Killed where the old one was out of the way and the new one not yet in its place, and then again, anywhere."""
    case, before = CASES["of the only step that is there"], tmp_path / "before"
    for each in case.before:
        save(before, each, None)
    renames = itertools.count(1)

    def kill(number, name):
        if name == "rename" and next(renames) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def first():
        with watched(kill):
            save(before, case.save, case.keep)

    assert was_killed(forked(first))
    assert 2 == len(hidden_in(before))

    for point in itertools.count(1):
        directory = shutil.copytree(before, tmp_path / "now")
        is_killed = killed_at(point, lambda directory=directory: open_store(directory).close())

        assert case.old == saved_number(directory), point
        assert [] == hidden_in(directory), point
        if not is_killed:
            break
        shutil.rmtree(directory)

    assert 10 < point


def test_all_is_on_the_disk_before_it_has_its_name_and_its_name_before_anything_is_removed(tmp_path):
    """What a kill cannot show and a power cut would: four files and the directory, the name, and only then the old."""
    save(tmp_path, (1, 10), None)
    with open_store(tmp_path, keep=1) as store, watched(lambda number, name: None) as calls:
        store.save(small_snapshot(2), step=20)

    order = [name for name in calls if name in ("mkdir", "fsync", "rename", "unlink", "rmdir")]
    writing = ["mkdir", *["fsync"] * 5, "rename", "fsync"]
    removing = ["rename", "fsync", *["unlink"] * 4, "rmdir"]
    assert [*writing, *removing] == order

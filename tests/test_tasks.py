"""The promise for every kind of step: cut and resumed it ends with the same bits, and two replicas train as one."""

import functools
import shutil

import numpy as np
import pytest

from engine import Checkpointer, Every
from tests.task_cases import CASES, seen, trainer_of

NAMES = [name for name in CASES if f"{name}, accumulated" not in CASES]
RUN = {"epochs": 2, "verbose": 0}


def train(name, directory, **arguments):
    checkpoints = Checkpointer(directory, every=Every(steps=2), keep=None, background=False)
    trainer = trainer_of(CASES[name], checkpoints=checkpoints)
    return trainer, trainer.fit(**CASES[name].data(), **RUN, **arguments)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing stops, made once: its checkpoints, all that can be seen of it, and its Trainer and history."""

    @functools.cache
    def run(name):
        directory = tmp_path_factory.mktemp("whole")
        trainer, history = train(name, directory)
        return directory, seen(trainer, history), trainer, history.history

    return run


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_is_cut_and_resumed_ends_with_the_same_bits(name, whole, tmp_path):
    """Cut in the middle of the second epoch: what it has saved is what the whole run had saved up to there."""
    directory, expected, uncut, _ = whole(name)
    for step in (0, 2, 4, 6):
        shutil.copytree(directory / f"step-{step:012d}", tmp_path / f"step-{step:012d}")
    trainer, history = train(name, tmp_path, resume=True)
    given = seen(trainer, history)

    assert uncut.report().fit.blocks.steps == 6 + trainer.report().fit.blocks.steps
    assert expected.keys() == given.keys()
    for part, value in expected.items():
        np.testing.assert_equal(given[part], value, err_msg=part)


@pytest.mark.parametrize("name", NAMES)
def test_two_replicas_train_as_one(name, whole, two_replicas):
    """Not bit-equal: each half of a batch is summed first."""
    _, _, uncut, history = whole(name)
    trainer = trainer_of(CASES[name], strategy=two_replicas)
    shared_history = trainer.fit(**CASES[name].data(), **RUN).history

    for own, shared in zip(uncut.model.get_weights(), trainer.model.get_weights(), strict=True):
        np.testing.assert_allclose(shared, own, rtol=1e-5, atol=1e-6)
    assert history.keys() == shared_history.keys()
    for part, values in history.items():
        np.testing.assert_allclose(shared_history[part], values, rtol=1e-5, atol=1e-6, err_msg=part)

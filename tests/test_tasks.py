"""The promise for every kind of step: cut and resumed it ends with the same bits, and two replicas train as one."""

import numpy as np
import pytest

from engine import Checkpointer, Every
from tests.runs import Cut, Cuts
from tests.task_cases import CASES, seen, trainer_of

TASKS = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


class Cutting(Cuts):
    """Cuts, and has nothing that a checkpoint must hold."""

    def get_state(self):
        return {}

    def set_state(self, state):
        """Nothing."""


def train(case, directory, *, cut=None, resume=False):
    trainer = trainer_of(case, checkpoints=Checkpointer(directory, every=Every(steps=2), background=False))
    cuts = [] if cut is None else [Cutting(cut, how="error")]
    history = trainer.fit(**case.data(), epochs=2, verbose=0, resume=resume, callbacks=cuts)
    return seen(trainer, history)


@TASKS
def test_a_run_that_is_cut_and_resumed_ends_with_the_same_bits(case, tmp_path):
    """Cut by an error, in the middle of the second epoch, a step behind the last checkpoint."""
    whole = train(case, tmp_path / "whole")
    with pytest.raises(Cut):
        train(case, tmp_path / "cut", cut=7)

    resumed = train(case, tmp_path / "cut", resume=True)

    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        np.testing.assert_equal(resumed[name], value, err_msg=name)


@TASKS
def test_two_replicas_train_as_one(case, two_replicas):
    """Not bit-equal: each half of a batch is summed first."""
    found = []
    for strategy in (None, two_replicas):
        trainer = trainer_of(case, strategy=strategy)
        history = trainer.fit(**case.data(), epochs=2, verbose=0)
        found.append((trainer.model.get_weights(), history.history))

    (weights, history), (shared_weights, shared_history) = found
    for own, shared in zip(weights, shared_weights, strict=True):
        np.testing.assert_allclose(shared, own, rtol=1e-5, atol=1e-6)
    assert history.keys() == shared_history.keys()
    for name, values in history.items():
        np.testing.assert_allclose(shared_history[name], values, rtol=1e-5, atol=1e-6, err_msg=name)

"""The promise: each of our callbacks, cut and taken up in new objects, ends as one that was never stopped.

To the bit: variables, history, what the callback shows, its files. Cut by Ctrl-C, where the run is saved at once, or by
an error, where it goes on from a checkpoint that lies behind; in the middle of an epoch and at its end.
"""

import contextlib
import itertools
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Checkpointer, ConfigError, Every, Trainer, callbacks
from engine.callbacks import CSVLogger, LearningRateFinder, LossHistory, ModelCheckpoint, Timer
from tests.event_files import make_old
from tests.resumed_cases import CASES, SEARCHES, VALIDATED, Case, X, Y, fit
from tests.runs import Cut, Cuts, assert_same, network
from tests.strategies import examples

pytestmark = [
    pytest.mark.filterwarnings("ignore:This run will be saved, but"),  # Cuts keeps nothing
    pytest.mark.filterwarnings("ignore:.* steps were not finite and were left out"),
]


class CutsValidation(Cuts):
    """Ends a run by Ctrl-C in the middle of a validation, which a resumed run begins again."""

    def __init__(self, step):
        super().__init__(None)
        self.validated_at = step

    def on_test_batch_end(self, batch, logs=None):
        if self.step >= self.validated_at and batch == 1:
            os.kill(os.getpid(), signal.SIGINT)


ORACLES: dict[str, Any] = {}


def test_every_callback_of_ours_has_a_case():
    kinds = {name for name in callbacks.__all__ if isinstance(getattr(callbacks, name), type)}

    assert kinds == SEARCHES | {name.split()[0] for name in CASES}
    assert kinds - SEARCHES == {type(case.make(Path())).__name__ for case in CASES.values()}


def oracle(name, directory):
    """How the training ends that nothing stops; made once."""
    if name not in ORACLES:
        ORACLES[name], _ = fit(CASES[name], directory / "whole")
    return ORACLES[name]


def cut_and_resume(case, directory, *cuts, blocks=("auto", 3), resumed=None):
    """Cuts a training again and again, each time with everything new, `resumed` in the end if that is not as it was."""
    path, steps = directory / "cut", itertools.cycle(blocks)
    checkpoints = Checkpointer(directory / "checkpoints", every=Every(steps=4))
    for number, cut in enumerate(cuts):
        with contextlib.suppress(KeyboardInterrupt, Cut):
            fit(case, path, steps=next(steps), checkpoints=checkpoints, cut=cut, resume=number > 0)
        make_old(path)
    return fit(resumed or case, path, steps=next(steps), checkpoints=checkpoints, resume=True)


@pytest.mark.parametrize("name", CASES)
def test_cut_and_taken_up_it_ends_as_one_that_was_never_stopped(name, tmp_path):
    """By Ctrl-C, in the middle of a validation where there are any; then by an error, behind the last checkpoint.

    So that it goes on in mid-epoch, and from an epoch's end. The other cases of a callback are cut by an error alone.
    """
    is_validated = VALIDATED.items() <= CASES[name].fit.items()
    cuts = (CutsValidation(7), Cuts(17, how="error")) if is_validated else (Cuts(9), Cuts(14, how="error"))
    is_other = " " in name
    given_, _ = cut_and_resume(CASES[name], tmp_path, *cuts[is_other:])

    assert_same(oracle(name, tmp_path), given_)


def several(path, order=range(7)):
    """Ours and Keras's own, in any order; none of them adds to the logs, which the order would decide."""
    made = [
        CSVLogger(path / "ours.csv", by="batch"),
        LossHistory(),
        ModelCheckpoint(path / "ours-{step}.weights.h5", save_weights_only=True, save_freq=5, keep_last=2),
        keras.callbacks.CSVLogger(path / "keras.csv"),
        keras.callbacks.CSVLogger(path / "appended.csv", append=True),
        keras.callbacks.EarlyStopping("loss", patience=2, mode="max", restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(
            path / "{epoch}-{batch}.weights.h5", "loss", save_best_only=True, save_weights_only=True, save_freq=4
        ),
    ]
    return [made[index] for index in order]


@given(st.permutations(range(7)), st.integers(1, 17), st.sampled_from(["signal", "error"]))
@examples(2, shrinks=False)
def test_several_together_end_as_if_they_had_never_stopped_wherever_they_stand_now(order, step, how):
    case = Case(several, fit=VALIDATED)
    changed = Case(lambda path: several(path, order), fit=VALIDATED)
    with tempfile.TemporaryDirectory() as directory:
        if "several" not in ORACLES:
            ORACLES["several"] = fit(case, Path(directory) / "whole")
        resumed = cut_and_resume(case, Path(directory), Cuts(step, how=how), resumed=changed)
    (expected, _), (ended, those) = ORACLES["several"], resumed
    numbers = np.argsort(order)

    assert [6, 2] == [those[numbers[1]].losses.size // 3, int(those[numbers[5]].stopped_epoch)]
    assert_same(
        {name: value for name, value in expected.items() if name != "attributes"},
        {name: value for name, value in ended.items() if name != "attributes"},
    )
    assert_same(
        dict(enumerate(expected["attributes"])), {i: ended["attributes"][number] for i, number in enumerate(numbers)}
    )


def test_times_of_both_processes_are_counted(tmp_path):
    timers = []
    case = Case(lambda path: timers.append(Timer(verbose=0)) or timers[-1])
    cut_and_resume(case, tmp_path, Cuts(8), blocks=[1])
    cut, resumed = timers

    assert 24 == resumed.timings.calls["train steps"]
    assert 8 <= cut.timings.calls["train steps"] < 24
    assert cut.whole_secs < resumed.whole_secs
    assert sum(resumed.timings.seconds.values()) <= resumed.whole_secs


def test_a_search_is_neither_saved_nor_resumed(tmp_path):
    """It ends as one of a Trainer that saves nothing."""
    rates = []
    for checkpoints in (None, Checkpointer(tmp_path)):
        keras.utils.set_random_seed(1)
        trainer = Trainer(network(), steps_per_execution=3, checkpoints=checkpoints, seed=1)
        rates.append(LearningRateFinder(1e-4, 1.0, 30).search(trainer.fit, X, Y))

    assert rates[0] == rates[1]
    assert [] == list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="resume=True"):
        trainer.fit(X, Y, verbose=0, callbacks=[LearningRateFinder()], resume=True)

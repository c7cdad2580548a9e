"""The judge of the tests of Keras's own callbacks: a case, trained by Keras and by Trainers, and all that can be seen.

```python
@pytest.mark.parametrize("case", params(CASES))
def test_it_does_in_a_fit_what_it_does_in_that_of_keras(case, tmp_path):
    assert_as_in_keras(case, tmp_path)
```
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import pytest

from tests.callback_runs import Case, Room, in_turn, run, side
from tests.observed import are_alike, assert_alike

NAMES = sorted(
    name
    for name, kind in vars(keras.callbacks).items()
    if isinstance(kind, type) and issubclass(kind, keras.callbacks.Callback)
)
WRITING = {"BackupAndRestore", "CSVLogger", "ModelCheckpoint", "OrbaxCheckpoint", "RemoteMonitor", "TensorBoard"}
NEEDED = {"OrbaxCheckpoint": "orbax.checkpoint", "RemoteMonitor": "requests"}  # by Keras, which installs neither


def params(cases: Sequence[Case]) -> list[Any]:
    """A pytest parameter for each case, with its blocks."""
    return [pytest.param(case, id=case.name) for case in in_turn(cases)]


def assert_as_in_keras(case: Case, directory: Path) -> None:
    """Whatever can be seen of a case is the same; and that it is a case of its parameter can be seen."""
    pytest.importorskip(NEEDED.get(case.callback, "keras"))
    with _alike_in_every_run():
        expected = run(side(case.model, "keras"), case, Room(directory / "keras"))

        assert case.error == (expected["error"] and expected["error"][0]), expected["error"]
        if case.parameter is not None:
            default = _effects_of(case.without(), directory / "default")
            assert case.is_effective != are_alike(default, expected["effects"])
        for steps in case.blocks:
            ours = run(side(case.model, steps), case, Room(directory / str(steps)))
            assert_alike(expected, ours, f"blocks of {steps}: ")


def _effects_of(case: Case, directory: Path) -> dict[str, Any]:
    """What Keras does in a case; cases that are one without their parameters are trained once."""
    what = (case.callback, case.given(Room(Path("DIR"))), case.model, case.fit, case.train, case.others, case.but)
    for other, effects in _without_parameters:
        if other == what:
            return effects
    effects = run(side(case.model, "keras"), case, Room(directory))["effects"]
    _without_parameters.append((what, effects))
    return effects


_without_parameters: list[tuple[Any, dict[str, Any]]] = []


@contextlib.contextmanager
def _alike_in_every_run() -> Iterator[None]:
    """Keras's bar is drawn every 50 ms at most; here at every batch. And no proxy stands before this machine."""
    defaults = [0 if value == 0.05 else value for value in keras.utils.Progbar.__init__.__defaults__]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.utils.Progbar.__init__, "__defaults__", tuple(defaults))
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield

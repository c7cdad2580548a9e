"""Where the time of a training went."""

import functools
import time
from typing import Any

from engine.columns import Logs
from engine.hooks import Callback, SavedState
from engine.hooks.reading import is_number
from engine.timings import Timings

_NAMES = {"train steps": "training steps", "test steps": "validation steps", "validation": "validation, the rest"}
_BATCH_HOOKS = [f"on_{phase}_batch_{moment}" for phase in ("train", "test") for moment in ("begin", "end")]


class Timer(Callback):
    """Prints where the time of a training went: its steps, its validations, and each callback.

    A Trainer measures that anyway: `trainer.report()` says it without this callback, and says more. This one prints it,
    goes on counting in a run that is resumed, and works under `model.fit` too.

    ```text
    training steps                     8.41 s   84.1 %     1875 calls
    callbacks/TensorBoard              0.61 s    6.1 %     3771 calls
    validation steps                   0.52 s    5.2 %       12 calls
    callbacks/History                  0.00 s    0.0 %       24 calls
    everything else                    0.46 s    4.6 %
    whole                             10.00 s  100.0 %
    ```

    A call of the steps is one block of them. Under `model.fit` the callbacks cannot be told apart: they are part of
    everything else, and a call of the steps is one batch. Validation steps are those of any evaluation inside the fit.

    Args:
        verbose: 1: print the table when the training ends; 0: only keep it.

    Attributes:
        whole_secs: Length of the last training, in seconds.

    Examples:
        >>> timer = Timer()
        >>> trainer.fit(x, y, callbacks=[timer])
        >>> timer.timings.seconds["callbacks/TensorBoard"]
        0.61
    """

    def __init__(self, verbose: int = 1) -> None:
        super().__init__()
        self.verbose = verbose
        self.whole_secs = 0.0
        self._timings = Timings()  # of the training up to its end, or up to where it was taken up
        self._run: tuple[Timings, Timings] | None = None  # what the run writes down, and what it had when that began
        self._begun_secs = self._batch_secs = 0.0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begins anew."""
        self._timings = Timings()
        self._run = None if self.run_timings is None else (self.run_timings, self.run_timings.copy())
        self._begun_secs = time.perf_counter()
        for hook in _BATCH_HOOKS:
            self.__dict__.pop(hook, None)
        if not self.in_trainer:  # which times its blocks itself, and should not call a hook for every step
            self.__dict__.update({hook: functools.partial(self._tick, hook) for hook in _BATCH_HOOKS})

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Prints the table."""
        self._timings, self._run = self.timings, None
        self.whole_secs = time.perf_counter() - self._begun_secs
        if self.verbose:
            print(self.to_text())

    def get_state(self) -> dict[str, Any]:
        """The times so far."""
        seconds, calls = self.timings.seconds, self.timings.calls
        return {"seconds": seconds, "calls": calls, "whole_secs": time.perf_counter() - self._begun_secs}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from these times, without the time for which the run was interrupted."""
        saved = SavedState.of(self, state)
        seconds, calls = (saved.value(name, _are_numbers, "numbers by their names") for name in ("seconds", "calls"))
        whole_secs = saved.number("whole_secs")
        if seconds.keys() != calls.keys():
            raise saved.error(f"has calls of {sorted(calls)}", f"those of {sorted(seconds)}")
        self._timings = Timings()
        for name in seconds:
            spent = self._timings.of(name)
            spent.seconds, spent.calls = seconds[name], calls[name]
        self.whole_secs, self._begun_secs = whole_secs, time.perf_counter() - whole_secs

    @property
    def timings(self) -> Timings:
        """Seconds and calls by name, of the training under way or the last one."""
        if self._run is None:
            return self._timings
        now, before = self._run
        return self._timings + (now - before)

    def to_text(self) -> str:
        """The table: seconds, their share of the whole, and calls; the most expensive first."""
        whole = self.whole_secs or time.perf_counter() - self._begun_secs
        timings = self.timings
        rows = sorted(timings.spent.items(), key=lambda row: -row[1].seconds)
        lines = [f"{_line(_NAMES.get(name, name), spent.seconds, whole)} {spent.calls:8} calls" for name, spent in rows]
        rest = whole - timings.total_secs()
        return "\n".join([*lines, _line("everything else", rest, whole), _line("whole", whole, whole)])

    def _tick(self, hook: str, *arguments: Any, **named: Any) -> None:
        """Under `model.fit`, notes the begin of a batch, and adds its time at its end."""
        _, phase, _, moment = hook.split("_")
        if moment == "begin":
            self._batch_secs = time.perf_counter()
        else:
            self._timings.of(f"{phase} steps").add(time.perf_counter() - self._batch_secs, 0)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_number, value.values()))


def _line(name: str, seconds: float, whole_secs: float) -> str:
    return f"{name:<32} {seconds:8.2f} s {100 * seconds / whole_secs:6.1f} %"

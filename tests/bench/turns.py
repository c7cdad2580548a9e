"""Contestants that take turns."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
from tqdm import tqdm

Run = Callable[[], float]  # one round; returns the seconds that count


@attrs.frozen
class Effort:
    """How much is measured.

    Attributes:
        rounds: How often each contestant runs, after once that does not count.
        is_tiny: Only what it takes to see that a case runs at all.
        jax: A Python with Keras and JAX, if it exists.
        lightning: A Python with PyTorch Lightning, if it exists.
    """

    rounds: int = 5
    is_tiny: bool = False
    jax: Path = Path(".venv-jax/bin/python")
    lightning: Path = Path(".venv-lightning/bin/python")

    def of(self, number: int, tiny: int = 2) -> int:
        """The number, or where all is tiny, the other one."""
        return tiny if self.is_tiny else number


@attrs.frozen
class Times:
    """The seconds of each round of one contestant."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)

    def spread(self, unit: float = 1.0, digits: int = 3) -> str:
        """The least and the most, in a unit of so many seconds."""
        return f"{min(self.seconds) / unit:.{digits}f} to {max(self.seconds) / unit:.{digits}f}"


def timed(call: Callable[[], Any]) -> Run:
    """A round that is one call."""

    def run() -> float:
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin

    return run


def take_turns(runs: Mapping[str, Run], effort: Effort, title: str) -> dict[str, Times]:
    """The times of each contestant; each round begins with another of them."""
    for run in tqdm(runs.values(), f"{title}, warming up", leave=False):
        run()
    names = list(runs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in tqdm(range(effort.rounds), title):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(runs[name]())
    return {name: Times(values) for name, values in seconds.items()}

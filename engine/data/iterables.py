"""Python generators, PyTorch's `DataLoader` and grain: read from their beginning, batch after batch."""

import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from engine.data.batches import BATCHES_FOR_SPEC, spec_of, targets_of
from engine.data.feed import Feed, Pipelines
from engine.data.kinds import is_of_torch
from engine.data.skipping import skip
from engine.data.source import Pass, Resumption, Source, readable
from engine.errors import DataError


class LoaderSource(Source):
    """Whatever begins anew each time it is iterated over: a PyTorch `DataLoader`, grain's three kinds.

    Args:
        loader: Yields batches.
        finish: Makes a batch of arrays of what is yielded.
        pipelines: Those of earlier sources, to be used again.
    """

    cure = (
        "Give the loader more workers: num_workers of a PyTorch DataLoader, worker_count of grain's, mp_prefetch() of "
        "its datasets."
    )

    def __init__(self, loader: Iterable[Any], finish: Callable[[Any], Any], pipelines: Pipelines) -> None:
        self._loader, self._finish, self._pipelines = loader, finish, pipelines
        self.length = _length_of(loader)
        if self.length == 0:
            raise DataError(f"The {type(loader).__name__} is empty: it has 0 batches. Give at least one.")
        self.is_endless = self.length == sys.maxsize  # grain's word for repeated without a count
        self.length = None if self.is_endless else self.length
        first = list(map(finish, itertools.islice(loader, BATCHES_FOR_SPEC)))
        self.spec, self.targets = spec_of(first), targets_of(first[0])

    @property
    def caveat(self) -> str | None:  # type: ignore[override]
        """Grain decides every order by seeds; PyTorch by generators that go on from pass to pass."""
        if not is_of_torch(self._loader):
            return None
        return (
            "A PyTorch DataLoader that shuffles draws its order from a random generator of PyTorch's, whose place is "
            "not saved: a resumed run may see its samples in another order. Give arrays or a keras.utils.PyDataset, or "
            "a sampler whose order is the same each time."
        )

    def open(self, index: int, position: int = 0) -> Pass:
        """The loader, begun anew; batches before `position` are read and dropped at once."""
        batches = functools.partial(iter, self._loader)
        if position:
            begun = skip(batches(), position)
            batches = functools.partial(iter, begun)
        return Feed(lambda: map(self._finish, batches()), self.spec, self._pipelines).open(position)

    def reopen(self, walk: Pass, index: int, position: int, state: dict[str, Any]) -> Pass:
        """The loader, begun anew; of a pass that has ended nothing is read."""
        return walk if state["is_exhausted"] else self.open(index, position)

    def facts(self) -> dict[str, Any]:
        """What the loader's batches are."""
        length = None if self.is_endless else self.length
        return {"kind": type(self._loader).__name__, "length": length, "spec": readable(self.spec)}


class IteratorSource(Source):
    """A Python generator or any other iterator. It goes on where it stands, and never begins anew.

    Args:
        iterator: Yields batches.
        finish: Makes a batch of arrays of what is yielded.
        pipelines: Those of earlier sources, to be used again.
    """

    length = None
    resumption = Resumption.NONE
    cure = (
        "A generator makes its batches one after the other, in one thread: make them in a keras.utils.PyDataset with "
        "workers=4, or in a tf.data.Dataset with num_parallel_calls, or give arrays."
    )

    def __init__(self, iterator: Iterator[Any], finish: Callable[[Any], Any], pipelines: Pipelines) -> None:
        self._iterator, self._finish, self._pipelines = iterator, finish, pipelines
        self._first = list(map(finish, itertools.islice(iterator, BATCHES_FOR_SPEC)))
        self.spec, self.targets = spec_of(self._first), targets_of(self._first[0])
        self._walk: Pass | None = None

    @property
    def caveat(self) -> str | None:  # type: ignore[override]
        """A run that is resumed gets another iterator."""
        return (
            f"A {type(self._iterator).__name__} can be read only once: a resumed run reads a new one from its "
            "beginning up to where the run stood, and is the same only if that one gives the same batches. Seed what "
            "it draws, or give a keras.utils.PyDataset."
        )

    def open(self, index: int, position: int = 0) -> Pass:
        """The one pass there is, which goes on from epoch to epoch."""
        if self._walk is None:
            batches = itertools.chain(self._first[position:], map(self._finish, self._iterator))
            self._walk = Feed(lambda: batches, self.spec, self._pipelines).open(position)
        return self._walk

    def facts(self) -> dict[str, Any]:
        """What the batches are."""
        return {"kind": "iterator", "spec": readable(self.spec)}

    def reopen(self, walk: Pass, index: int, position: int, state: dict[str, Any]) -> Pass:
        """The one pass, behind the batches that another run used of its own."""
        skip(self._iterator, max(0, position - len(self._first)))
        self._walk = None
        return self.open(index, position)


def _length_of(loader: Any) -> int | None:
    """Batches that a loader says it has; None: it does not say."""
    try:
        return len(loader)
    except TypeError:
        return None

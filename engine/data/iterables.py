"""Python generators, PyTorch's `DataLoader` and grain: read from their beginning, batch after batch."""

import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from engine.data.batches import BATCHES_FOR_SPEC, spec_of, targets_of
from engine.data.feed import Feed, Pipelines
from engine.data.source import Pass, Resumption, Source
from engine.errors import DataError


class LoaderSource(Source):
    """Whatever begins anew each time it is iterated over: a PyTorch `DataLoader`, grain's three kinds.

    Args:
        loader: Yields batches.
        finish: Makes a batch of arrays of what is yielded.
        pipelines: Those of earlier sources, to be used again.
    """

    def __init__(self, loader: Iterable[Any], finish: Callable[[Any], Any], pipelines: Pipelines) -> None:
        self._loader, self._finish, self._pipelines = loader, finish, pipelines
        self.length = _length_of(loader)
        if self.length == 0:
            raise DataError(f"The {type(loader).__name__} is empty: it has 0 batches. Give at least one.")
        self.is_endless = self.length == sys.maxsize  # grain's word for repeated without a count
        self.length = None if self.is_endless else self.length
        first = list(itertools.islice(self._batches(), BATCHES_FOR_SPEC))
        self.spec, self.targets = spec_of(first), targets_of(first[0])

    def open(self, index: int, position: int = 0) -> Pass:
        """The loader, begun anew."""
        return Feed(functools.partial(self._batches, position), self.spec, self._pipelines).open()

    def _batches(self, position: int = 0) -> Iterator[Any]:
        return map(self._finish, itertools.islice(self._loader, position, None))


class IteratorSource(Source):
    """A Python generator or any other iterator. It goes on where it stands, and never begins anew.

    Args:
        iterator: Yields batches.
        finish: Makes a batch of arrays of what is yielded.
        pipelines: Those of earlier sources, to be used again.
    """

    length = None
    resumption = Resumption.NONE

    def __init__(self, iterator: Iterator[Any], finish: Callable[[Any], Any], pipelines: Pipelines) -> None:
        batches = map(finish, iterator)
        first = list(itertools.islice(batches, BATCHES_FOR_SPEC))
        self.spec, self.targets = spec_of(first), targets_of(first[0])
        self._feed = Feed(lambda: itertools.chain(first, batches), self.spec, pipelines)

    @functools.cached_property
    def _walk(self) -> Pass:
        return self._feed.open()

    def open(self, index: int, position: int = 0) -> Pass:
        """The one pass there is, which goes on from epoch to epoch."""
        return self._walk


def _length_of(loader: Any) -> int | None:
    """Batches that a loader says it has; None: it does not say."""
    try:
        return len(loader)
    except TypeError:
        return None

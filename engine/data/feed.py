"""Batches that Python code makes, brought into the compiled loop.

A `Feed` asks for them ahead of the loop, in a thread of `tf.data`. An error in the user's code ends the
data and is kept, so that the steps before it count and the error itself, not TensorFlow's words about it,
comes out of `fit`.

```python
feed = Feed(lambda: iter(batches), spec_of(batches[:2]))
walk = feed.open()
```
"""

import collections
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from engine.data.batches import fitting
from engine.data.chunks import Spares
from engine.data.datasets import DatasetPass, pull_next, without_autotune
from engine.data.resident import Copies
from engine.data.source import Pass
from engine.errors import DataError

Leaves = tuple[Any, ...]  # the parts of a batch that are not None

_BATCHES_AHEAD = 2
_BATCHES_KEPT = 8  # more than reading was seen to run ahead of the loop: `_BATCHES_AHEAD`, and one in each stage


class Pipelines:
    """One `tf.data` pipeline for batches of each kind, used again by every pass over such batches.

    TensorFlow keeps some 30 KB of every `from_generator`, and all that it calls, for the life of the process: made anew
    for each pass, they would pile up, the user's data with them.

    Attributes:
        copies: Of arrays that need no pipeline.
        spares: Memory for what is gathered of such arrays.
    """

    def __init__(self) -> None:
        self.copies = Copies()
        self.spares = Spares()
        self._kept: dict[Any, tf.data.Dataset] = {}
        self._starting: Callable[[], Iterable[Leaves] | None] = lambda: None

    def of(self, spec: Any) -> tf.data.Dataset:
        """The pipeline of batches like `spec`, whose iterators each read what was started last."""
        key = tuple((path, leaf) for path, leaf in keras.tree.flatten_with_path(spec))
        if key not in self._kept:
            leaf_specs = tuple(leaf for _, leaf in key if leaf is not None)
            own = weakref.ref(self)
            flat = tf.data.Dataset.from_generator(lambda: _begin(own()), output_signature=leaf_specs)
            packed = flat.map(lambda *leaves: _packed(spec, leaves)).prefetch(_BATCHES_AHEAD)
            self._kept[key] = without_autotune(packed)
        return self._kept[key]

    def start(self, batches: Iterable[Leaves]) -> None:
        """Lets the iterator that is asked for its first batch next read these."""
        self._starting = weakref.ref(batches)

    def begin(self) -> Iterator[Leaves]:
        """Called by TensorFlow for each iterator, when it is asked for its first batch."""
        batches = self._starting()
        return iter(() if batches is None else batches)


class Feed:
    """Batches of Python, as passes of which each begins them anew.

    Args:
        batches: Begins the batches, each as `to_batch` makes it; called when the first of them is wanted.
        spec: What each batch looks like.
        pipelines: Those of earlier feeds, to be used again.
    """

    def __init__(self, batches: Callable[[], Iterator[Any]], spec: Any, pipelines: Pipelines | None = None) -> None:
        self._batches, self._spec = batches, spec
        self._pipelines = Pipelines() if pipelines is None else pipelines

    def open(self, first: int = 0) -> "FeedPass":
        """A pass over the batches, each dealt to the replicas where there are several.

        Args:
            first: Where in its pass the first of them stands.

        Raises:
            DataError: Several replicas, and parts that are None.
        """
        has_replicas = tf.distribute.get_strategy().num_replicas_in_sync > 1
        if has_replicas and None in keras.tree.flatten(self._spec):
            raise DataError("A part of each batch is None, which tf.distribute cannot deal to replicas. Give arrays.")
        # What deals to replicas may ask for a batch before it is asked for one, and so gets a pipeline of its own.
        return FeedPass(self._batches, self._spec, Pipelines() if has_replicas else self._pipelines, first)


class FeedPass(Pass):
    """One walk over batches of Python; when nobody holds it any more, their making ends."""

    def __init__(self, batches: Callable[[], Iterator[Any]], spec: Any, pipelines: Pipelines, first: int) -> None:
        self._making, self._pipelines = _Making(batches, spec, first), pipelines
        weakref.finalize(self, self._making.close)
        pipelines.start(self._making)
        self._walk = DatasetPass.over(pipelines.of(spec))

    pull = staticmethod(pull_next)  # the same function, so that nothing is traced twice

    def cursor(self, position: int) -> Any:
        """The iterator."""
        self._pipelines.start(self._making)
        return self._walk.cursor(position)

    def signature(self) -> Any:
        """The iterator, which is its own spec."""
        return self._walk.signature()

    def take(self, position: int) -> Any:
        """The next batch, or None at the end of the data."""
        self._pipelines.start(self._making)
        return self._walk.take(position)

    def ahead(self) -> Pass:
        """This pass, which keeps the last few batches that were made from now on."""
        self._making.keep()
        return self

    def peek(self, position: int) -> Any:
        """The parts of the batch at `position`, which is made now if need be, and given to the loop later."""
        return self._making.look(position)

    @property
    def error(self) -> BaseException | None:  # type: ignore[override]
        """What the user's own code raised."""
        return self._making.error


class _Making:
    """The making of batches: in a thread of TensorFlow, which holds it longer than anybody needs it.

    Args:
        begin: Begins the batches.
        spec: What each looks like.
        first: Where in its pass the first of them stands.
    """

    def __init__(self, begin: Callable[[], Iterator[Any]], spec: Any, first: int) -> None:
        self.error: BaseException | None = None
        self._begin = begin
        self._is_closed = self._has_ended = False
        self._batches: Iterator[Any] | None = None
        self._spec = spec
        self._number = first - 1  # of the batch made last
        self._looked_at: collections.deque[Leaves] = collections.deque()  # made already, for the loop to read next
        self._kept: collections.deque[tuple[int, Leaves]] = collections.deque(maxlen=0)
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Leaves]:
        """The leaves of each batch that are not None, up to the last, or to an error."""
        while (leaves := self._next()) is not None:
            yield leaves

    def keep(self) -> None:
        """Lets `look` know what is made from now on."""
        self._kept = collections.deque(maxlen=_BATCHES_KEPT)

    def look(self, number: int) -> Leaves | None:
        """The leaves of the batch with this number; None where there is none, or it was read long ago."""
        with self._lock:
            while self._number < number and (leaves := self._make()) is not None:
                self._looked_at.append(leaves)
            return next((leaves for made, leaves in self._kept if made == number), None)

    def close(self) -> None:
        """Lets go of the user's code: at once, or as soon as the batch that is being made is done."""
        self._is_closed = True
        if self._lock.acquire(blocking=False):
            batches, self._batches, self._begin = self._batches, None, _nothing
            self._lock.release()
            if isinstance(batches, Generator):  # an iterator of the user's own goes on elsewhere
                batches.close()

    def _next(self) -> Leaves | None:
        with self._lock:
            leaves = self._looked_at.popleft() if self._looked_at else self._make()
        self._close_if_wanted()
        return leaves

    def _make(self) -> Leaves | None:
        """The next batch's leaves, or None at the end; called with the lock held."""
        if self._is_closed or self._has_ended:
            return None
        try:
            if self._batches is None:
                self._batches = self._begin()
            self._number += 1
            leaves = tuple(fitting(self._number, next(self._batches), self._spec))
        except StopIteration:
            self._has_ended = True
            return None
        except BaseException as error:
            self._has_ended, self.error = True, error
            return None
        self._kept.append((self._number, leaves))
        return leaves

    def _close_if_wanted(self) -> None:
        if self._is_closed:  # while the batch was being made
            self.close()


def _nothing() -> Iterator[Any]:
    return iter(())


def _begin(pipelines: Pipelines | None) -> Iterator[Leaves]:
    return iter(()) if pipelines is None else pipelines.begin()


def _packed(spec: Any, leaves: Leaves) -> Any:
    following = iter(leaves)
    return keras.tree.map_structure(lambda leaf: None if leaf is None else next(following), spec)

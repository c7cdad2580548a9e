"""`keras.utils.PyDataset`: batches by number, made by as many workers as it asks for.

```text
epoch
├── on_epoch_begin        once, before the first batch is asked for
├── dataset[i]            in the order of (seed, epoch), ahead of the loop, in threads or processes
└── on_epoch_end          once, after the last batch was used
```

A dataset that changes itself in those hooks is brought to where it was by calling them again, once for each epoch of
the run that is resumed. That is right if they count on nothing but the dataset's own attributes, a seeded generator of
its own for example. Whatever they count on, this is right as well:

```python
class Batches(keras.utils.PyDataset):
    def get_state(self):         # called between two steps; gives what json can write
        return {"order": self.order}

    def set_state(self, state):  # called where a run is resumed, after the first hook
        self.order = state["order"]
```
"""

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import keras

from engine.data.batches import BATCHES_FOR_SPEC, spec_of, targets_of
from engine.data.feed import Feed, Pipelines
from engine.data.order import order
from engine.data.source import Pass, Resumption, Source, readable
from engine.errors import DataError

_HOOKS = ("on_epoch_begin", "on_epoch_end")


@runtime_checkable
class Resumable(Protocol):
    """A dataset that says what it needs to be as it was."""

    def get_state(self) -> Any:
        """What `json` can write."""

    def set_state(self, state: Any) -> None:
        """Takes what `get_state` gave."""


class PyDatasetSource(Source):
    """Batches that a `keras.utils.PyDataset` makes.

    Args:
        dataset: May change between epochs, its number of batches included.
        finish: Makes a batch of arrays of what the dataset gives.
        shuffle: Whether each pass takes the batches in an order of its own; one without an end never does.
        seed: With a pass's number, it decides the order.
        pipelines: Those of earlier sources, to be used again.
    """

    resumption = Resumption.EXACT
    cure = (
        "Make the PyDataset with more workers, super().__init__(workers=4); with use_multiprocessing=True too where "
        "Python itself does the work. Or give arrays."
    )

    def __init__(
        self,
        dataset: keras.utils.PyDataset,
        finish: Callable[[Any], Any],
        *,
        shuffle: bool | str,
        seed: int,
        pipelines: Pipelines,
    ) -> None:
        self._dataset, self._finish, self._shuffle, self._seed = dataset, finish, bool(shuffle), seed
        self._pipelines = pipelines
        self._num_begun = self._num_ended = 0  # epochs that the dataset was told of
        self.is_endless = self.length is None
        if self.length == 0:
            raise DataError("The PyDataset is empty: it has 0 batches. Give at least one.")
        seen = range(BATCHES_FOR_SPEC if self.length is None else min(BATCHES_FOR_SPEC, self.length))
        first = [finish(dataset[i]) for i in seen]
        self.spec, self.targets = spec_of(first), targets_of(first[0])

    @property
    def length(self) -> int | None:  # type: ignore[override]
        """Batches in the pass that would begin now; None: it never ends."""
        return self._dataset.num_batches  # type: ignore[no-any-return]

    def open(self, index: int, position: int = 0) -> Pass:
        """The pass in the order that (seed, index) decides."""
        return Feed(functools.partial(self._batches, index, position), self.spec, self._pipelines).open(position)

    def begin_epoch(self) -> None:
        """Tells the dataset."""
        self._num_begun += 1
        self._dataset.on_epoch_begin()

    def end_epoch(self) -> None:
        """Tells the dataset, which may change itself here."""
        self._num_ended += 1
        self._dataset.on_epoch_end()

    @property
    def caveat(self) -> str | None:  # type: ignore[override]
        """What hooks of the dataset's own may do."""
        kind, plain = type(self._dataset), keras.utils.PyDataset
        own = [name for name in _HOOKS if getattr(kind, name) is not getattr(plain, name)]
        if not own or isinstance(self._dataset, Resumable):
            return None
        return (
            f"{kind.__name__} has {' and '.join(own)} of its own, which a resumed run calls again for "
            "each epoch before; what they take from elsewhere, such as NumPy's global random generator, may differ "
            "then. Let them use the dataset's own attributes only, or give it get_state() and set_state(state)."
        )

    def facts(self) -> dict[str, Any]:
        """What the dataset's batches are."""
        return {
            "kind": "PyDataset",
            "length": self.length,
            "shuffle": self._shuffle,
            "spec": readable(self.spec),
        }

    def state(self) -> dict[str, Any]:
        """The seed, and what the dataset was told; its own state, if it has one."""
        own = {"dataset": self._dataset.get_state()} if isinstance(self._dataset, Resumable) else {}
        return {"seed": self._seed, "epochs_begun": self._num_begun, "epochs_ended": self._num_ended, **own}

    def resume(self, state: dict[str, Any]) -> None:
        """Tells the dataset of the epochs that it has not been told of, or gives it the state it had."""
        self._seed = state["seed"]
        if isinstance(self._dataset, Resumable):
            self._dataset.set_state(state["dataset"])
            self._num_begun, self._num_ended = state["epochs_begun"], state["epochs_ended"]
        while self._num_ended < state["epochs_ended"] or self._num_begun < state["epochs_begun"]:
            if self._num_begun == self._num_ended:
                self.begin_epoch()
            else:
                self.end_epoch()

    def _batches(self, index: int, position: int) -> Iterator[Any]:
        numbers: Iterable[int] = itertools.count(position)
        if self.length is not None:
            numbers = order(self._seed, index, self.length) if self._shuffle else range(self.length)
            numbers = map(int, itertools.islice(numbers, position, None))
        return (self._finish(batch) for batch in self._read(numbers))

    def _read(self, numbers: Iterable[int]) -> Iterator[Any]:
        dataset = self._dataset
        if dataset.use_multiprocessing and dataset.workers > 0:
            # A pool for each pass: its processes hold the dataset as it was when the pass began.
            pool: Executor = ProcessPoolExecutor(dataset.workers, initializer=_hold, initargs=(dataset,))
            return _ahead(pool, _held_batch, numbers, dataset.max_queue_size)
        if dataset.workers > 1:
            return _ahead(ThreadPoolExecutor(dataset.workers), dataset.__getitem__, numbers, dataset.max_queue_size)
        return (dataset[number] for number in numbers)  # where map() would take a StopIteration for the end


def _ahead(pool: Executor, read: Callable[[int], Any], numbers: Iterable[int], most: int) -> Iterator[Any]:
    """What `read` makes of the numbers, in their order, up to `most` of them in the making at once."""
    following, waiting = iter(numbers), collections.deque[Future[Any]]()
    try:
        while True:
            wanted = max(1, most) - len(waiting)
            waiting.extend(pool.submit(read, number) for number in itertools.islice(following, wanted))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


_held: Any = None  # in a worker process, the dataset that it reads from


def _hold(dataset: Any) -> None:
    global _held
    _held = dataset


def _held_batch(number: int) -> Any:
    return _held[number]

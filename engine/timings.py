"""Where the time of a run goes, by name: written down always, at the price of a look at the clock on either side.

```python
timings = Timings()
with timings.measure("validation"):         # less what is written down under other names meanwhile
    timings.of("callbacks/Mine").add(0.2, timings.num_blocks)
timings.seconds["validation"], timings.calls["validation"]
```
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import attrs


@attrs.define(eq=False)
class Spent:
    """What one thing has taken.

    Attributes:
        seconds: On a monotonic clock.
        calls: How many times it was done.
        stops: How many times the loop stood still for it; whatever is done between two blocks is one time.
    """

    seconds: float = 0.0
    calls: int = 0
    stops: int = 0
    _last_stop: int = -1

    def add(self, seconds: float, num_blocks: int) -> None:
        """Adds one call, after so many blocks."""
        self.seconds += seconds
        self.calls += 1
        if self._last_stop != num_blocks:
            self.stops += 1
            self._last_stop = num_blocks


@attrs.define(eq=False)
class Timings:
    """Where the time of a run goes.

    Attributes:
        spent: Name -> what it has taken; nothing is in two of them.
        blocks: Kind of steps -> length of a block -> how many there were.
        waited_secs: Kind of steps -> seconds of them in which the loop waited for data, where that is known.
        first_step_secs: From the beginning until the first block of steps was done; None: none is.
        num_blocks: How many blocks of any kind have been run.
    """

    spent: dict[str, Spent] = attrs.field(factory=dict)
    blocks: dict[str, Counter[int]] = attrs.field(factory=dict)
    waited_secs: dict[str, float] = attrs.field(factory=dict)
    first_step_secs: float | None = None
    num_blocks: int = 0
    _begun_secs: float = attrs.field(init=False, factory=time.perf_counter)
    _ended_secs: float | None = attrs.field(init=False, default=None)

    @property
    def seconds(self) -> dict[str, float]:
        """Name -> seconds."""
        return {name: spent.seconds for name, spent in self.spent.items()}

    @property
    def calls(self) -> dict[str, int]:
        """Name -> how many times."""
        return {name: spent.calls for name, spent in self.spent.items()}

    @property
    def whole_secs(self) -> float:
        """From the beginning to the end, or until now."""
        return (self._ended_secs or time.perf_counter()) - self._begun_secs

    def end(self) -> None:
        """Ends the whole."""
        self._ended_secs = time.perf_counter()

    def of(self, name: str) -> Spent:
        """What `name` has taken, to be added to."""
        return self.spent.setdefault(name, Spent())

    def total_secs(self) -> float:
        """All that is written down."""
        return sum(spent.seconds for spent in self.spent.values())

    def copy(self) -> "Timings":
        """What is written down by now."""
        return Timings({name: attrs.evolve(spent) for name, spent in self.spent.items()})

    def __add__(self, other: "Timings") -> "Timings":
        """What both of them have written down."""
        return self._with(other, 1)

    def __sub__(self, earlier: "Timings") -> "Timings":
        """What was written down since an earlier copy; a name of which nothing was is left out."""
        return self._with(earlier, -1)

    def _with(self, other: "Timings", sign: int) -> "Timings":
        found = self.copy()
        for name, spent in other.spent.items():
            own = found.of(name)
            own.seconds, own.calls = own.seconds + sign * spent.seconds, own.calls + sign * spent.calls
        return Timings({name: spent for name, spent in found.spent.items() if spent.calls})

    def take_rest(self, name: str) -> None:
        """Gives a name all the time since the beginning that no other has taken."""
        self.of(name).add(self.whole_secs - self.total_secs(), self.num_blocks)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Adds the time inside, an error's too, less what other names have taken of it."""
        begin, others = time.perf_counter(), self.total_secs()
        try:
            yield
        finally:
            inside = self.total_secs() - others
            self.of(name).add(time.perf_counter() - begin - inside, self.num_blocks)

    def add_block(self, kind: str, *, steps: int, seconds: float, waited_secs: float | None) -> None:
        """Adds a block of steps; one of none, where the data has ended, is time but no block.

        Args:
            kind: "train", "test" or "predict".
            steps: How many.
            seconds: How long they took, callbacks left out.
            waited_secs: How much of that the loop waited for data; None: nobody can tell.
        """
        spent = self.of(f"{kind} steps")
        if waited_secs is not None:
            self.waited_secs[kind] = self.waited_secs.get(kind, 0.0) + waited_secs
        if not steps:
            spent.seconds += seconds
            return
        spent.add(seconds, self.num_blocks)
        self.num_blocks += 1
        self.blocks.setdefault(kind, Counter())[steps] += 1
        if self.first_step_secs is None:
            self.first_step_secs = self.whole_secs

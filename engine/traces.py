"""Every trace of a Trainer's compiled loops, and what made it necessary.

```python
with traces.noting("train", loop, occasion, timings):
    loop.trace(pull, signature)       # which may find what it needs traced already
traces.noted[-1].reason               # "the data's spec changed from float32 (8, 4) to float32 (8, 5)"
```
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs

from engine.data import Reader
from engine.loop import Loop, PredictLoop
from engine.timings import Timings

_FIRST = {"train": "the first step of training", "test": "the first step of an evaluation", "predict": "the first step"}


@attrs.frozen
class Trace:
    """One trace of a compiled loop.

    Attributes:
        phase: "train", "test" or "predict".
        reason: Why what was there already would not do.
        seconds: How long it took; None: it was inside a block of steps, where nobody can tell.
    """

    phase: str
    reason: str
    seconds: float | None


@attrs.frozen(kw_only=True)
class Occasion:
    """All that a trace depends on, in words and numbers that outlive it.

    Attributes:
        num_changes: How often what the steps are made from had changed by then.
        scheduled: Variables that get a value of their own before each step.
        guard: What is looked at behind a step.
        is_given: Whether a callback acts on batches, so that each is given to the loop by itself.
        xla: What XLA compiles.
        kind: Of data.
        spec: Of a batch.
    """

    num_changes: int
    scheduled: tuple[str, ...] = ()
    guard: tuple[Any, ...] = ()
    is_given: bool = False
    xla: str = ""
    kind: str = ""
    spec: str = ""

    @classmethod
    def of(cls, loop: Loop | PredictLoop, reader: Reader, *, num_changes: int, is_given: bool = False) -> "Occasion":
        """What tracing this loop for this data depends on."""
        own: dict[str, Any] = {}
        if isinstance(loop, Loop):
            guard = loop.guard
            looks = guard and (guard.halts, guard.leaves_out, len(guard.watched), len(guard.restored))
            scheduled = tuple(str(getattr(variable, "path", variable.name)) for variable in loop.scheduled)
            xla = "whole blocks" if loop.fuses else "single steps" if loop.jit_compile else "nothing"
            own = {"scheduled": scheduled, "guard": looks or (), "xla": xla}
        spec = ", ".join(reader.source.facts()["spec"].values())
        return cls(num_changes=num_changes, is_given=is_given, kind=_kind_of(reader), spec=spec, **own)

    def differences(self, other: "Occasion") -> list[str]:
        """The names of what is not the same."""
        mine, theirs = (attrs.asdict(occasion, recurse=False) for occasion in (self, other))
        return [name for name in mine if mine[name] != theirs[name]]


@attrs.define(eq=False)
class Traces:
    """Every trace of a Trainer's loops.

    Attributes:
        noted: In their order.
        changes: What has changed of that from which the steps are made, each time that something had.
    """

    noted: list[Trace] = attrs.field(factory=list)
    changes: list[str] = attrs.field(factory=list)
    _occasions: dict[str, list[Occasion]] = attrs.field(init=False, factory=dict)

    @contextmanager
    def noting(self, phase: str, loop: Loop | PredictLoop, occasion: Occasion, timings: Timings) -> Iterator[None]:
        """Notes a trace, if there is one inside; the time inside is "tracing" all the same."""
        begin, before = time.perf_counter(), loop.num_traces
        with timings.measure("tracing"):
            yield
        if loop.num_traces > before:
            self.note(phase, occasion, time.perf_counter() - begin)

    def note(self, phase: str, occasion: Occasion, seconds: float | None) -> None:
        """Notes a trace that took so long; its reason is what sets it apart from the one most like it."""
        earlier = self._occasions.setdefault(phase, [])
        nearest = min(reversed(earlier), key=lambda other: len(occasion.differences(other)), default=None)
        self.noted.append(Trace(phase, self._reason(phase, occasion, nearest), seconds))
        earlier.append(occasion)

    def _reason(self, phase: str, now: Occasion, before: Occasion | None) -> str:
        if before is None:
            return _FIRST[phase]
        names = ", ".join(now.scheduled)
        reasons = {
            "num_changes": self.changes[-1] if self.changes else "",
            "scheduled": f"a callback sets {names} at each step" if names else "no callback sets a variable any more",
            "guard": "callbacks watch for what is not finite in another way",
            "is_given": "a callback acts on batches" if now.is_given else "no callback acts on batches any more",
            "xla": f"XLA compiles {now.xla}, where it compiled {before.xla}",
            "kind": f"the data was {before.kind} and is {now.kind}",
            "spec": f"the data's spec changed from {before.spec} to {now.spec}",
        }
        different = [reasons[name] for name in now.differences(before)]
        return " and ".join(different) or "a batch came in another form than before"


def _kind_of(reader: Reader) -> str:
    """What the loop reads from: arrays on the device come with an order or without one."""
    facts = reader.source.facts()
    if facts["kind"] != "arrays":
        return str(facts["kind"])
    if not reader.walk.is_certain:
        return "arrays read batch by batch"
    return "shuffled arrays" if facts["shuffle"] else "arrays as they stand"

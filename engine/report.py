"""`Report`: where the time of a Trainer went, as values and as a table.

```python
trainer.fit(x, y, epochs=3, validation_data=(x_val, y_val))
report = trainer.report()
print(report)                       # a table
report.fit.waited_secs              # of the training steps, in which the loop waited for data
[trace.reason for trace in report.traces]
```
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from engine.importing import IMPORT
from engine.timings import Timings
from engine.traces import Trace

_STEPS = {"fit": "train", "evaluate": "test", "predict": "predict"}  # the kind of steps that a call is there for
_CALLBACKS = "callbacks/"


@attrs.frozen(kw_only=True)
class Blocks:
    """The blocks of steps that were run.

    Attributes:
        number: How many.
        steps: Of all of them together.
        shortest: Steps of the shortest.
        median: Steps of the one in the middle.
        longest: Steps of the longest.
    """

    number: int = 0
    steps: int = 0
    shortest: int = 0
    median: int = 0
    longest: int = 0

    @classmethod
    def of(cls, lengths: Counter[int]) -> "Blocks":
        """Blocks of these lengths, each with how many there are."""
        every = sorted(lengths.elements())
        if not every:
            return cls()
        middle = every[len(every) // 2]
        return cls(number=len(every), steps=sum(every), shortest=every[0], median=middle, longest=every[-1])

    def __str__(self) -> str:
        """Their number, and their lengths if they differ."""
        if self.shortest == self.longest:
            return f"{_counted(self.number, 'block')} of {_counted(self.longest, 'step')}"
        lengths = f"{self.shortest}, {self.median}, {self.longest}"
        return f"{_counted(self.number, 'block')} of steps (shortest, median, longest: {lengths})"


@attrs.frozen(kw_only=True)
class CallbackTime:
    """What one callback has taken.

    Attributes:
        name: Its class; from the second of a class on with a number.
        seconds: In all its hooks, in which the loop stands still.
        calls: Of its hooks.
        stops: How many times the loop stood still for it: whatever it does between two blocks is one time.
    """

    name: str
    seconds: float
    calls: int
    stops: int


@attrs.frozen(kw_only=True)
class RunReport:
    """Where the time of one `fit`, `evaluate` or `predict` went: seconds that do not overlap, and their whole.

    Attributes:
        kind: "fit", "evaluate" or "predict".
        whole_secs: From the call to its return, to its error, or until now.
        opening_secs: Opening the data, building the model, finding a checkpoint to go on from.
        tracing_secs: Tracing steps, and looking whether they are traced.
        steps_secs: The call's own steps, of training in a fit. TensorFlow makes a graph ready in the first of them.
        waited_secs: How much of that a fit waited for data; None: it waits for nothing (arrays on the device), or
            nobody can tell (where there is a GPU; in `evaluate` and `predict`, where pulling runs ahead of the steps).
        validation_secs: Validations in a fit: their steps and all around them but tracing and callbacks.
        saving_secs: Standing still while the run is saved.
        callbacks: Each callback, the most expensive first.
        first_step_secs: From the call until the first block of steps was done; None: none is.
        blocks: The blocks of the call's own steps.
        num_validations: How many there were.
        num_saves: How often the loop stood still for saving.
    """

    kind: str
    whole_secs: float
    opening_secs: float
    tracing_secs: float
    steps_secs: float
    waited_secs: float | None
    validation_secs: float
    saving_secs: float
    callbacks: tuple[CallbackTime, ...]
    first_step_secs: float | None
    blocks: Blocks
    num_validations: int
    num_saves: int

    @classmethod
    def of(cls, kind: str, timings: Timings) -> "RunReport":
        """What the timings say."""
        seconds, calls, steps = timings.seconds, timings.calls, _STEPS[kind]
        callbacks = [
            CallbackTime(
                name=name.removeprefix(_CALLBACKS), seconds=spent.seconds, calls=spent.calls, stops=spent.stops
            )
            for name, spent in timings.spent.items()
            if name.startswith(_CALLBACKS) and spent.calls
        ]
        validation_secs = seconds.get("validation", 0.0) + (seconds.get("test steps", 0.0) if kind == "fit" else 0.0)
        return cls(
            kind=kind,
            whole_secs=timings.whole_secs,
            opening_secs=seconds.get("opening", 0.0),
            tracing_secs=seconds.get("tracing", 0.0),
            steps_secs=seconds.get(f"{steps} steps", 0.0),
            waited_secs=timings.waited_secs.get(steps),
            validation_secs=validation_secs,
            saving_secs=seconds.get("saving", 0.0),
            callbacks=tuple(sorted(callbacks, key=lambda callback: -callback.seconds)),
            first_step_secs=timings.first_step_secs,
            blocks=Blocks.of(timings.blocks.get(steps, Counter())),
            num_validations=calls.get("validation", 0),
            num_saves=calls.get("saving", 0),
        )

    @property
    def rest_secs(self) -> float:
        """What is in none of the parts: the loop between the blocks."""
        parts = self.opening_secs + self.tracing_secs + self.steps_secs + self.validation_secs + self.saving_secs
        return self.whole_secs - parts - sum(callback.seconds for callback in self.callbacks)

    def __str__(self) -> str:
        """The table: seconds, their share of the whole, and how many times."""
        first = "" if self.first_step_secs is None else f"; the first block done after {self.first_step_secs:.2f} s"
        lines = [
            f"{self.kind}: {self.whole_secs:.2f} s, {_counted(self.blocks.steps, 'step')}{first}",
            self._line("opening data, building the model", self.opening_secs),
            self._line("tracing", self.tracing_secs),
            self._line("steps", self.steps_secs, str(self.blocks)),
        ]
        if self.waited_secs is not None:
            lines.append(self._line("  of that, waiting for data", self.waited_secs))
        if self.num_validations:
            lines.append(self._line("validation", self.validation_secs, _counted(self.num_validations, "time")))
        if self.num_saves:
            lines.append(self._line("saving", self.saving_secs, _counted(self.num_saves, "time")))
        lines += [
            self._line(f"callbacks/{own.name}", own.seconds, f"{_counted(own.calls, 'call')}, {own.stops} stops")
            for own in self.callbacks
        ]
        return "\n".join([*lines, self._line("everything else", self.rest_secs), self._line("whole", self.whole_secs)])

    def _line(self, name: str, seconds: float, times: str = "") -> str:
        share = 100 * seconds / self.whole_secs
        return f"{name:<32} {seconds:8.2f} s {share:6.1f} %  {times}".rstrip()


@attrs.frozen(kw_only=True)
class Report:
    """Where the time of a Trainer went; `print` it, or read its values.

    Attributes:
        fit: The last `fit`, as far as it came; None: there was none.
        evaluate: The last `evaluate`.
        predict: The last `predict`.
        traces: Of every step that was traced since the Trainer was made, each with its reason.
        import_secs: Of `import engine`, in this process.
        keras_secs: How much of that Keras and TensorFlow took; next to nothing if they were imported before.
    """

    fit: RunReport | None
    evaluate: RunReport | None
    predict: RunReport | None
    traces: tuple[Trace, ...]
    import_secs: float
    keras_secs: float

    def __str__(self) -> str:
        """The tables of all that was called, and the traces."""
        runs = [str(run) for run in (self.fit, self.evaluate, self.predict) if run is not None]
        if not runs:
            return "Nothing was run yet: call fit, evaluate or predict."
        lines = [f"  {trace.phase:<8} {_shown(trace.seconds):>8}  {trace.reason}" for trace in self.traces]
        traces = "\n".join([f"{_counted(len(lines), 'trace')} since the Trainer was made", *lines])
        imports = f"import engine: {self.import_secs:.2f} s, of that Keras and TensorFlow {self.keras_secs:.2f} s"
        return "\n\n".join([*runs, traces, imports])


@attrs.define(eq=False)
class Reports:
    """What a Trainer knows of the time of its last calls."""

    _last: dict[str, Timings] = attrs.field(init=False, factory=dict)

    @contextmanager
    def observe(self, kind: str) -> Iterator[Timings]:
        """The timings of one `fit`, `evaluate` or `predict`, from here on; one inside another is the last only so long.

        Args:
            kind: Which of the three.
        """
        timings = self._last[kind] = Timings()
        try:
            yield timings
        finally:
            timings.end()
            self._last[kind] = timings

    def report(self, traces: list[Trace]) -> Report:
        """Of the last calls, and these traces."""
        runs = {kind: RunReport.of(kind, self._last[kind]) if kind in self._last else None for kind in _STEPS}
        return Report(**runs, traces=tuple(traces), import_secs=IMPORT.whole_secs, keras_secs=IMPORT.keras_secs)


def _shown(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f} s"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

"""Data that comes more slowly than the model could take it, told from what blocks of steps say of their waiting.

```python
watch = SlowInput()
watch.after(steps=40, seconds=1.2, waited_secs=0.5)  # "waited for data 42 % of the last 1.2 s (12 of 30 ms a step)"
```
"""

import attrs


@attrs.define(eq=False, kw_only=True)
class SlowInput:
    """Says once that a loop waits for its data for too long.

    Attributes:
        most_share: Of the time of the steps, more than this is too long.
        window_secs: So many seconds of steps are looked at together, at least. The first of such windows does not
            count: a graph is made ready in it, buffers are filled, and `tf.data` finds out how many threads it needs.
    """

    most_share: float = 0.1
    window_secs: float = 1.0
    _num_windows: int = attrs.field(init=False, default=0)
    _steps: int = attrs.field(init=False, default=0)
    _secs: float = attrs.field(init=False, default=0.0)
    _waited_secs: float = attrs.field(init=False, default=0.0)
    _has_told: bool = attrs.field(init=False, default=False)

    def after(self, *, steps: int, seconds: float, waited_secs: float) -> str | None:
        """What to say after a block of steps; None: nothing.

        Args:
            steps: How many.
            seconds: How long they took.
            waited_secs: How much of that the loop waited for data.
        """
        if self._has_told:
            return None
        self._steps, self._secs = self._steps + steps, self._secs + seconds
        self._waited_secs += waited_secs
        if self._secs < self.window_secs or not self._steps:
            return None
        self._num_windows += 1
        self._has_told = self._num_windows > 1 and self._waited_secs > self.most_share * self._secs
        found = self._found() if self._has_told else None
        self._steps, self._secs, self._waited_secs = 0, 0.0, 0.0
        return found

    def _found(self) -> str:
        waited, whole = (_milliseconds(seconds / self._steps) for seconds in (self._waited_secs, self._secs))
        return (
            f"waited for data {100 * self._waited_secs / self._secs:.0f} % of the last {self._secs:.1f} s "
            f"({waited} of {whole} ms a step)"
        )


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f}" if seconds >= 0.01 else f"{1000 * seconds:.2g}"

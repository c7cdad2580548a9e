"""How long `import engine` took, for `trainer.report()`: from where `engine/backend.py` imports this to the last line.

```python
IMPORT.whole_secs, IMPORT.keras_secs   # 2.1, 2.0: seconds, once `import engine` is done
```
"""

import time

import attrs


@attrs.define
class Import:
    """The one import of this package in a process.

    Attributes:
        keras_secs: Seconds until Keras was there, and TensorFlow with it; none to speak of where it was there before.
        whole_secs: Seconds in all; 0 until it is over.
    """

    keras_secs: float = 0.0
    whole_secs: float = 0.0
    _begun_secs: float = attrs.field(init=False, factory=time.perf_counter)

    def note_keras(self) -> None:
        """Notes that Keras is there."""
        self.keras_secs = time.perf_counter() - self._begun_secs

    def end(self) -> None:
        """Notes that all of it is done."""
        self.whole_secs = time.perf_counter() - self._begun_secs


IMPORT = Import()

"""What takes long to let go of is let go of in a thread of its own.

Whoever drops the last reference to an iterator of a dataset with autotuning on, which is the default, waits until the
autotuner has slept out: up to as long again as the iterator has lived (docs/design/decisions.md, 8). TensorFlow does so
without the interpreter's lock, so that a thread can wait in the place of the training.

```python
owned = [iter(dataset)]
empty_later(walk, owned)  # as soon as nobody has `walk` any more, wherever that is
```
"""

import threading
import weakref
from typing import Any

THREAD = "engine lets go of an iterator"


def empty_later(owner: Any, owned: list[Any]) -> None:
    """Empties `owned` in a thread as soon as nobody has `owner` any more; there must be no other way to what is in it.

    The thread holds back no exit of the process. There are few of them at a time: each lives at most about as long as
    what it lets go of has lived.
    """
    weakref.finalize(owner, _empty, owned).atexit = False  # the end of the process lets go of everything by itself


def _empty(owned: list[Any]) -> None:
    threading.Thread(target=owned.clear, name=THREAD, daemon=True).start()

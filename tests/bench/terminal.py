"""A terminal that nobody looks at, so that bars are drawn as they are for people."""

import contextlib
import os
import pty
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def terminal() -> Iterator[None]:
    """Both outputs go to a terminal of their own, whose other end is read and dropped."""
    reading, writing = pty.openpty()
    reader = threading.Thread(target=_drop, args=(reading,))
    reader.start()
    with os.fdopen(writing, "w") as outputs, contextlib.redirect_stdout(outputs), contextlib.redirect_stderr(outputs):
        yield
    reader.join()
    os.close(reading)


def _drop(reading: int) -> None:
    with contextlib.suppress(OSError):  # which is how the end of a terminal reads
        while os.read(reading, 1 << 16):
            pass

"""A contestant in a process of its own that waits for its turn: one line in, the name of a run; one line out, seconds.

Everything here is Python's own, so that an environment with other packages can import it.

```python
serve({"Keras": lambda: model.fit(x, y)})  # in the process

with Server(python, "tests.bench.keras_on_jax", "1875") as server:
    seconds = server.run("Keras")
```
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def serve(runs: Mapping[str, Callable[[], Any]]) -> None:
    """Runs what each line of the standard input names, until it ends; whatever else is printed goes elsewhere."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(list(runs)), file=answers, flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        runs[line.rstrip("\n")]()
        print(json.dumps(time.perf_counter() - begin), file=answers, flush=True)


class Server:
    """The other end: a process of another Python that runs a module, as a context manager.

    Args:
        python: The interpreter.
        module: Calls `serve`.
        arguments: What the module is called with.
        environment: Variables beside this process's own.

    Attributes:
        names: The runs that there are.
    """

    def __init__(self, python: Path, module: str, *arguments: str, environment: Mapping[str, str]) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            cwd=ROOT,
            env=os.environ | dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.names: list[str] = self._answer()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def run(self, name: str) -> float:
        """Seconds that one round took, measured there."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._module} ended with {self._process.wait()} instead of answering.")
        return json.loads(line)

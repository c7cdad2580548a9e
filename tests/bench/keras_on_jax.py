"""Keras on JAX in a process of its own: `python -m tests.bench.keras_on_jax STEPS STEPS_PER_EXECUTION...`."""

import sys
from collections.abc import Callable
from typing import Any

from tests.bench.models import compiled, dense
from tests.bench.samples import BATCH_SIZE, samples
from tests.bench.serving import serve


def main() -> None:
    """Serves `model.fit` of the smallest dense model, at each of the numbers of steps an execution."""
    steps, *executions = map(int, sys.argv[1:])
    data = samples((784,), steps)
    serve({str(number): _fit(number, data) for number in executions})


def _fit(steps_per_execution: int, data: Any) -> Callable[[], Any]:
    model = compiled(dense(), steps_per_execution)
    return lambda: model.fit(*data, batch_size=BATCH_SIZE, verbose=0)


if __name__ == "__main__":
    main()

"""What the cases train on; Keras need not be there."""

from typing import Any

import numpy as np

BATCH_SIZE = 32


def samples(shape: tuple[int, ...], steps: int, batch_size: int = BATCH_SIZE) -> tuple[Any, Any]:
    """Random inputs, float32, (samples, *shape), and class numbers of ten, int64, for so many full batches."""
    generator = np.random.default_rng(0)
    x = generator.random((steps * batch_size, *shape), dtype="float32")
    return x, generator.integers(0, 10, len(x))

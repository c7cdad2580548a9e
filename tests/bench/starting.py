"""A fresh process up to its first step: `python -m tests.bench.starting Trainer dense` prints the seconds as JSON."""

import json
import sys
import time

BEGIN = time.perf_counter()

import keras  # noqa: E402  what is measured

KERAS = time.perf_counter()

import engine  # noqa: E402

ENGINE = time.perf_counter()

from tests.bench.models import compiled, dense  # noqa: E402
from tests.bench.samples import BATCH_SIZE, samples  # noqa: E402
from zoo import small_inception  # noqa: E402

MODELS = {"dense": (dense, (784,)), "Inception": (small_inception, (28, 28, 1))}


class First(keras.callbacks.Callback):
    """Notes when the first step is done."""

    def __init__(self) -> None:
        super().__init__()
        self.done_secs = 0.0

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Notes the time once."""
        self.done_secs = self.done_secs or time.perf_counter()


def main() -> None:
    """Fits for a few steps."""
    loop, name = sys.argv[1:]
    make, shape = MODELS[name]
    x, y = samples(shape, 4)
    model, first = compiled(make()), First()
    fit = model.fit if loop == "fit" else engine.Trainer(model).fit
    chosen = engine.callbacks.observe(first) if loop == "Trainer, looking" else first
    begin = time.perf_counter()
    fit(x, y, batch_size=BATCH_SIZE, verbose=0, callbacks=[chosen])
    seconds = {"keras": KERAS - BEGIN, "engine": ENGINE - KERAS, "first step": first.done_secs - begin}
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()

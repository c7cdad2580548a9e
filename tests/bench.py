"""Milliseconds a step beside `model.fit`, as a table: `make bench` writes it into `docs/benchmarks.md`.

All contestants of a case run in one process, one after the other, round after round, so that what the
machine does otherwise hits them alike. What counts is the ratio of the medians.

```bash
make bench
.venv/bin/python tests/bench.py --rounds 9 --no-write
```
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from engine import Trainer
from engine.callbacks import LossHistory
from zoo import small_inception

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
BATCH_SIZE = 32


@attrs.frozen
class Case:
    """A model, how many steps a round takes, and how `model.fit` is run beside the Trainer.

    Attributes:
        name: What the table calls it.
        make: Builds the model, not compiled.
        shape: Of one sample.
        steps: Steps of a round.
        steps_per_execution: Those that `model.fit` is tried with.
    """

    name: str
    make: Callable[[], keras.Model]
    shape: tuple[int, ...]
    steps: int
    steps_per_execution: tuple[int, ...] = (1, 32, 128)


def dense() -> keras.Model:
    """784-16-10: so little arithmetic that the loop itself is measured."""
    layers = [keras.Input((784,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(10, "softmax")]
    return keras.Sequential(layers)


def dropout() -> keras.Model:
    """784-512-10 with dropout."""
    layers = [keras.layers.Dense(512, activation="relu"), keras.layers.Dropout(0.5), keras.layers.Dense(10, "softmax")]
    return keras.Sequential([keras.Input((784,)), *layers])


CASES = (
    Case("784-16-10 dense", dense, (784,), steps=1875),
    Case("784-512-10 dense, dropout", dropout, (784,), steps=600),
    Case("small Inception, 28x28x1", small_inception, (28, 28, 1), steps=25, steps_per_execution=(1, 32)),
)


def contestants(case: Case) -> dict[str, Callable[[], Any]]:
    """Name -> one epoch of the case's steps, compiled and warmed up by its first call."""
    generator = np.random.default_rng(0)
    x = generator.random((case.steps * BATCH_SIZE, *case.shape), dtype="float32")
    y = generator.integers(0, 10, len(x))

    def compiled(steps_per_execution: int = 1) -> keras.Model:
        keras.utils.set_random_seed(1)
        model = case.make()
        loss = "sparse_categorical_crossentropy"
        model.compile("adam", loss, metrics=["accuracy"], steps_per_execution=steps_per_execution)
        return model

    def keras_run(steps: int) -> Callable[[], Any]:
        model = compiled(steps)
        return lambda: model.fit(x, y, batch_size=BATCH_SIZE, verbose=0)

    trainer = Trainer(compiled())
    runs: dict[str, Callable[[], Any]] = {
        "Trainer": lambda: trainer.fit(x, y, batch_size=BATCH_SIZE, verbose=0, callbacks=[LossHistory()])
    }
    for steps in case.steps_per_execution:
        runs["model.fit" if steps == 1 else f"model.fit, steps_per_execution={steps}"] = keras_run(steps)
    return runs


def measure(case: Case, rounds: int) -> dict[str, list[float]]:
    """Contestant -> milliseconds a step of each round."""
    runs = contestants(case)
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in tqdm(range(rounds), desc=case.name):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - begin) / case.steps * 1e3)
    return times


def table(results: dict[str, dict[str, list[float]]]) -> str:
    """The measurements as a Markdown table, with what they were made on."""
    lines = ["| model, batch 32 | loop | ms a step | spread | times as long as the Trainer |", "|---|---|---|---|---|"]
    for case, times in results.items():
        ours = statistics.median(times["Trainer"])
        for name, values in times.items():
            median = statistics.median(values)
            spread = f"{min(values):.3f} to {max(values):.3f}"
            lines.append(f"| {case} | {name} | {median:.3f} | {spread} | {median / ours:.2f} |")
    rounds = len(next(iter(next(iter(results.values())).values())))
    cores, gpus = len(os.sched_getaffinity(0)), len(tf.config.list_physical_devices("GPU"))
    machine = f"{platform.machine()}, {cores} cores, {gpus} GPUs"
    versions = f"TensorFlow {tf.__version__}, Keras {keras.__version__}, Python {platform.python_version()}"
    notes = (
        f"{machine}; {versions}. Medians of {rounds} rounds, alternating in one process, whole calls of `fit` timed."
    )
    return "\n".join([*lines, "", notes])


def write(text: str, page: Path = PAGE) -> None:
    """Puts the table in the place that is kept for it."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Measures every case and shows the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each contestant runs (default: 5)")
    parser.add_argument("--no-write", action="store_true", help="leave docs/benchmarks.md as it is")
    options = parser.parse_args()
    text = table({case.name: measure(case, options.rounds) for case in CASES})
    print(text)
    if not options.no_write:
        write(text)


if __name__ == "__main__":
    main()

"""The start: from the call of `fit` to the first step done, and what `import engine` takes beyond `import keras`."""

import json
import os
import statistics
import subprocess
import sys

from tests.bench.page import table
from tests.bench.serving import ROOT
from tests.bench.turns import Effort, Times, take_turns

LOOPS = {
    "Trainer, looking": "Trainer, a callback that looks",
    "Trainer": "Trainer, blocks of one step",
    "fit": "`model.fit`",
}
IMPORT_SECS = 0.2


def measure(effort: Effort) -> str:
    """A table of both models, and one of the imports; each round is a process of its own."""
    imports: dict[str, list[float]] = {"keras": [], "engine": []}

    def start(loop: str, model: str) -> float:
        command = [sys.executable, "-m", "tests.bench.starting", loop, model]
        # Where this is set, Python compiles TensorFlow's sources anew in each process: 7 s.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        seconds = json.loads(done.stdout)
        for name, values in imports.items():
            values.append(seconds[name])
        return float(seconds["first step"])

    models = ["dense"] if effort.is_tiny else ["dense", "Inception"]
    loops = list(LOOPS)[: effort.of(len(LOOPS), 1)]
    rows = []
    for model in models:
        runs = {loop: lambda loop=loop, model=model: start(loop, model) for loop in loops}
        times = take_turns(runs, effort, f"start, {model}")
        rows += [_row(model, loop, times) for loop in loops]
    keras_secs, beyond = (statistics.median(values) for values in imports.values())
    verdict = "won" if beyond < IMPORT_SECS else "lost"
    return "\n\n".join([
        table("model | loop | s to the first step | spread | times as long as `model.fit`", rows),
        f"`import engine` takes {beyond:.2f} s beyond the {keras_secs:.2f} s of `import keras` "
        f"(least: {min(imports['engine']):.2f} s), required less than {IMPORT_SECS}: {verdict}.",
        f"Medians of {effort.rounds} fresh processes each, in turns.",
    ])  # fmt: skip


def _row(model: str, loop: str, times: dict[str, Times]) -> tuple[str, ...]:
    own = times[loop]
    ratio = f"{own.median / times['fit'].median:.2f}" if "fit" in times else ""
    return model, LOOPS[loop], f"{own.median:.2f}", own.spread(digits=2), ratio

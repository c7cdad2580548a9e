"""Which trainings end as if they had not been killed: `python -m tests.lines.resumed [NAME ...]`.

Each is run three times by this package and three times by Keras, in processes of their own: whole, killed after 140 of
the 150 steps of its last epoch, and resumed. What is compared, to the bit: the weights, and the last epoch's logs.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.lines.cases import CASES, Setting, run

FORK = multiprocessing.get_context("fork")  # one import serves all


def main():
    for tool in ("ours", "keras"):
        for name in sys.argv[1:] or (case.__name__ for case in CASES):
            with tempfile.TemporaryDirectory() as directory:
                print(tool, name, *try_it(tool, name, Path(directory)), sep="\t", flush=True)


def try_it(tool, name, directory):
    train(tool, name, directory / "whole", None)
    train(tool, name, directory / "cut", 150 + 140)
    train(tool, name, directory / "cut", None)
    whole, again = (np.load(directory / run / "end.npz") for run in ("whole", "cut"))
    for kind in ("weights", "logs"):
        names = [key for key in whole.files if key.startswith(kind)]
        is_same = all(np.array_equal(whole[key], again[key]) for key in names)
        yield f"{kind}: {'the same' if is_same else 'others'}"
    yield f"{again['epochs']} of {whole['epochs']} epochs in the history"


def train(tool, name, directory, kill_after):
    directory.mkdir(exist_ok=True)
    process = FORK.Process(target=train_here, args=(tool, name, directory, kill_after))
    process.start()
    process.join()
    if process.exitcode != (-signal.SIGKILL if kill_after else 0):
        raise SystemExit(f"{tool} {name}, to be killed after {kill_after} steps, ended with {process.exitcode}")


def train_here(tool, name, directory, kill_after):
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        history, weights = run(name, Setting(tool, directory / "saved", 150, 2, kill_after))
    numbered = {f"weights/{index}": weight for index, weight in enumerate(weights)}
    logs = {f"logs/{key}": values[-1] for key, values in history.items()}
    np.savez(directory / "end.npz", epochs=len(next(iter(history.values()))), **numbered, **logs)


if __name__ == "__main__":
    main()

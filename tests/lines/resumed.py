"""Which trainings end as if they had not been killed in the middle of an epoch; `python -m tests.lines.resumed` tries.

Each is run three times by this package and three times by Keras, in processes of their own: whole, killed after 140 of
the 150 steps of its last epoch, and resumed. What is compared, to the bit: the weights, and the last epoch's logs.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.lines.cases import CASES, Setting, run


def main():
    for tool in ("ours", "keras"):
        for name in (case.__name__ for case in CASES):
            with tempfile.TemporaryDirectory() as directory:
                print(tool, name, *try_it(tool, name, Path(directory)), sep="\t", flush=True)


def try_it(tool, name, directory):
    train(tool, name, directory / "whole", 0)
    train(tool, name, directory / "cut", 150 + 140)
    train(tool, name, directory / "cut", 0)
    whole, again = (np.load(directory / run / "end.npz") for run in ("whole", "cut"))
    for kind in ("weights", "logs"):
        names = [key for key in whole.files if key.startswith(kind)]
        is_same = all(np.array_equal(whole[key], again[key]) for key in names)
        yield f"{kind}: {'the same' if is_same else 'others'}"
    yield f"{again['epochs']} of {whole['epochs']} epochs after the kill"


def train(tool, name, directory, kill_after):
    directory.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.lines.resumed", tool, name, str(directory), str(kill_after)]
    code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    if code != (-9 if kill_after else 0):
        raise SystemExit(f"{' '.join(command)} ended with {code}")


def train_here(tool, name, directory, kill_after):
    path = Path(directory)
    history, weights = run(name, Setting(tool, path / "saved", 150, 2, int(kill_after) or None))
    numbered = {f"weights/{index}": weight for index, weight in enumerate(weights)}
    logs = {f"logs/{key}": values[-1] for key, values in history.items()}
    np.savez(path / "end.npz", epochs=len(next(iter(history.values()))), **numbered, **logs)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train_here(*sys.argv[1:])
    else:
        main()

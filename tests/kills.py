"""Kills trainings with SIGKILL at random moments, and holds what comes of them to trainings that nobody killed.

A run is started, killed, started again with the same command, killed again ..., and at last left to end. It must then
have ended with the very bits of one that never stopped: variables, random generators, history, states of callbacks, the
bytes of the CSV file, and each step once in TensorBoard. Moments are drawn from the wall clock: within a step, a
validation, a save, between two saves; one in ten while the process still builds its model or takes up its checkpoint;
three in ten are made to fall inside the save that comes next.

Importing TensorFlow takes some ten seconds. It is done once here, and nothing else is: each training is a fork of that,
a process of its own that begins TensorFlow's threads and devices itself.

```bash
.venv/bin/python tests/kills.py --kills 200 --seed 1
```
"""

import argparse
import itertools
import json
import mmap
import multiprocessing
import os
import platform
import random
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import keras
import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tqdm import tqdm

from engine import Callback, Checkpointer, Every, Trainer
from engine.callbacks import CSVLogger, EarlyStopping, LossHistory, ReduceLROnPlateau, TensorBoard
from engine.hooks.states import get_states
from engine.proof.looks import looks_of_run, text_of

LOG = Path(__file__).parent.parent / "docs" / "design" / "kills.log"
SOURCES, BLOCKS, CALLBACKS = ("arrays", "PyDataset", "tf.data", "generator"), (1, 3, "auto"), ("none", "many")
NUM_SAMPLES, BATCH_SIZE, EPOCHS = 75, 8, 16  # ten batches an epoch, the last of three samples
KILLS_A_RUN = 4


@attrs.frozen(kw_only=True)
class Case:
    """A training, and how it is saved.

    Attributes:
        source: What kind of data.
        block: `steps_per_execution`.
        callbacks: "none" or "many".
        every: Steps between two saves.
        background: Whether files are written beside the training.
        steps_per_epoch: As for `fit`.
    """

    source: str
    block: int | str
    callbacks: str
    every: int
    background: bool
    steps_per_epoch: int | None

    def __str__(self) -> str:
        way = "background" if self.background else "foreground"
        by = "all" if self.steps_per_epoch is None else self.steps_per_epoch
        saving = f"every {self.every:2} {way} epoch {by!s:3}"
        return f"{self.source:9} block {self.block!s:4} callbacks {self.callbacks:4} {saving}"


@attrs.define(kw_only=True)
class Kill:
    """One kill.

    Attributes:
        case: Of which training.
        moment: When the process was killed, in words.
        inside_save: Whether it was writing a checkpoint.
        step: Steps that it had told its callbacks of; None: it had not begun to train.
        resumed_from: Steps done where the next process went on; None: it did not come to train.
        is_equal: Whether the run ended as one that nobody killed.
        told: What differs, or what went wrong.
    """

    case: Case
    moment: str
    inside_save: bool
    step: int | None
    resumed_from: int | None = None
    is_equal: bool = False
    told: str = ""

    @property
    def redone(self) -> int | None:
        """Steps that were done twice."""
        return None if self.step is None or self.resumed_from is None else max(0, self.step - self.resumed_from)

    def __str__(self) -> str:
        save = "in a save" if self.inside_save else "-"
        ways = f"step {_or_dash(self.step):>3} from {_or_dash(self.resumed_from):>3} redone {_or_dash(self.redone):>2}"
        return f"{self.case} | {self.moment:31} {save:9} {ways} {'equal' if self.is_equal else 'DIFFERS ' + self.told}"


class Pulse(Callback):
    """Tells the parent process, through shared memory, its first step and its last."""

    def __init__(self, memory: mmap.mmap) -> None:
        super().__init__()
        self._memory = memory

    def get_state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Tells the step."""
        if not any(self._memory[:8]):
            self._memory[:8] = struct.pack("q", self.step)
        self._memory[8:] = struct.pack("q", self.step)


def drawn(rng: random.Random, number: int) -> Case:
    """A case: kinds of data, blocks and callbacks in turn, the rest at random."""
    source, block, callbacks = list(itertools.product(SOURCES, BLOCKS, CALLBACKS))[number % 24]
    steps_per_epoch = rng.choice([4, 10]) if source == "generator" else rng.choice([None, None, 4])
    return Case(
        source=source,
        block=block,
        callbacks=callbacks,
        every=rng.choice([1, 3, 7, 16]),
        background=rng.random() < 0.7,
        steps_per_epoch=steps_per_epoch,
    )


def samples() -> tuple[Any, Any]:
    """Vectors and two classes."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(NUM_SAMPLES, 6)).astype("float32")
    return x, (x[:, :1] + generator.normal(size=(NUM_SAMPLES, 1)) > 0).astype("float32")


class Batches(keras.utils.PyDataset):
    """The samples, batch by batch."""

    def __len__(self) -> int:
        return -(-NUM_SAMPLES // BATCH_SIZE)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        x, y = samples()
        rows = slice(BATCH_SIZE * index, BATCH_SIZE * (index + 1))
        return x[rows], y[rows]


def endless() -> Iterator[tuple[Any, Any]]:
    """Batches for ever, no two alike."""
    generator = np.random.default_rng(1)
    x, y = samples()
    while True:
        rows = generator.integers(0, NUM_SAMPLES, BATCH_SIZE)
        yield x[rows], y[rows]


def data(source: str) -> dict[str, Any]:
    """The data as `fit` gets it."""
    x, y = samples()
    if source == "arrays":
        return {"x": x, "y": y, "batch_size": BATCH_SIZE}
    if source == "PyDataset":
        return {"x": Batches()}
    if source == "tf.data":
        return {"x": tf.data.Dataset.from_tensor_slices((x, y)).shuffle(NUM_SAMPLES, seed=5).batch(BATCH_SIZE)}
    return {"x": endless()}


def model() -> keras.Model:
    """With dropout, batch normalisation, and a metric that holds state."""
    layers = [
        keras.layers.Dense(16, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
    made = keras.Sequential([keras.Input((6,)), *layers])
    made.compile("adam", "binary_crossentropy", metrics=["accuracy", keras.metrics.AUC(name="auc")])
    return made


def callbacks(case: Case, folder: Path) -> list[Any]:
    """The callbacks of a case, fresh."""
    if case.callbacks == "none":
        return []
    return [
        EarlyStopping("val_loss", patience=12, restore_best_weights=True),
        ReduceLROnPlateau("val_auc", patience=1),
        LossHistory(),
        CSVLogger(folder / "log.csv"),
        TensorBoard(folder / "logs"),
    ]


def train(case: Case, folder: Path, memory: mmap.mmap) -> None:
    """The script that is killed: what a user would start again with the same command."""
    random.seed(os.getpid())  # as in any new process, nothing is as it was in the one before
    np.random.seed(os.getpid() % 2**32)
    if not any((folder / "checkpoints").glob("step-*")):
        keras.utils.set_random_seed(1)  # so that two runs begin alike; where one goes on, nothing is seeded
        tf.random.set_seed(None)
        tf.random.set_global_generator(tf.random.Generator.from_seed(1))
    checkpoints = Checkpointer(
        folder / "checkpoints", every=Every(steps=case.every), background=case.background, keep_best="val_loss"
    )
    own = callbacks(case, folder)
    trainer = Trainer(model(), steps_per_execution=case.block, checkpoints=checkpoints)
    history = trainer.fit(
        **data(case.source),
        epochs=EPOCHS,
        steps_per_epoch=case.steps_per_epoch,
        validation_data=samples(),
        callbacks=[*own, Pulse(memory)],
        verbose=0,
        resume=True,
    )
    (folder / "outcome.json").write_text(json.dumps(outcome(trainer.model, history.history, own, folder)))


def outcome(trained: keras.Model, history: dict[str, Any], own: list[Any], folder: Path) -> dict[str, str]:
    """All that a run has come to, as texts."""
    found = looks_of_run(trained, [], history)
    for state in get_states(own):
        found |= {f"{state['callback']}: {key}": str(text_of(value)) for key, value in state["state"].items()}
    if (folder / "log.csv").exists():
        found["the CSV file"] = (folder / "log.csv").read_text()
    for path in sorted((folder / "logs").glob("*/")):
        shown = EventAccumulator(str(path), size_guidance={"scalars": 0}, purge_orphaned_data=True).Reload()
        for tag in shown.Tags()["scalars"]:
            points = [(event.step, "any" if "per_second" in tag else event.value) for event in shown.Scalars(tag)]
            found[f"TensorBoard's {path.name} {tag}"] = str(points)
    return found


@attrs.frozen(kw_only=True)
class Aim:
    """When to kill.

    Attributes:
        secs: After the first step of the process.
        from_start: Whether these count from its start instead.
        at_save: Whether to wait for the next save from there on, and kill inside it.
    """

    secs: float
    from_start: bool
    at_save: bool

    @classmethod
    def drawn(cls, rng: random.Random, begun: float, ended: float) -> "Aim":
        """A moment of a process that takes so many seconds to its first step, and then to its last."""
        from_start = rng.random() < 0.1
        secs = rng.uniform(0, begun if from_start else 2 * ended / KILLS_A_RUN)
        return cls(secs=secs, from_start=from_start, at_save=not from_start and rng.random() < 0.3)

    def __str__(self) -> str:
        since = "its start" if self.from_start else "a step"
        return f"{1000 * self.secs:4.0f} ms after {since}{', next save' if self.at_save else ''}"


@attrs.define
class Process:
    """A training in a fork of this process."""

    pid: int
    memory: mmap.mmap
    begun: float

    @classmethod
    def start(cls, case: Case, folder: Path) -> "Process":
        """Starts it, or goes on where one was killed."""
        memory = mmap.mmap(-1, 16)
        begun = time.monotonic()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                warnings.simplefilter("ignore")  # a generator is read again, and says so
                os.setsid()
                train(case, folder, memory)
                status = 0
            except BaseException:
                (folder / "error.txt").write_text(traceback.format_exc())
            finally:
                os._exit(status)
        return cls(pid, memory, begun)

    def steps(self) -> tuple[int, int]:
        """The first step that it has done, and the last; 0 stands for none."""
        first, last = struct.unpack("qq", self.memory[:])
        return first, last

    def is_saving(self, checkpoints: Path) -> bool:
        """Whether it is writing a checkpoint, or was when it was killed."""
        return any(checkpoints.glob(f".*.saving-{self.pid}-*"))

    def is_over(self) -> bool:
        """Whether it has ended by itself."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid and status:
            raise ChildProcessError(f"the training ended with the status {status}")
        return bool(pid)

    def kill(self) -> None:
        """With SIGKILL: it is not asked. TensorBoard orders files by their second, so that the next begins after it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def is_killed(process: Process, aim: Aim, checkpoints: Path) -> bool:
    """Waits for the moment and kills; False: it was over before."""
    while not aim.from_start and not process.steps()[0]:
        if process.is_over():
            return False
        time.sleep(0.0005)
    moment = time.monotonic() + aim.secs
    while time.monotonic() < moment or (aim.at_save and not process.is_saving(checkpoints)):
        if process.is_over():
            return False
        time.sleep(0.0002)
    if process.is_over():
        return False
    process.kill()
    return True


def run(numbered: tuple[int, int, int]) -> list[Kill]:
    """One training that nobody kills, and one that is killed again and again, so many times at most; the kills."""
    seed, number, most = numbered
    rng = random.Random(f"{seed} {number}")
    case = drawn(rng, number)
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        whole, cut = Path(folder, "whole"), Path(folder, "cut")
        whole.mkdir()
        cut.mkdir()
        kills: list[Kill] = []
        try:
            begun, ended = _left_alone(case, whole)
            _killed(case, cut, rng, kills, most=most, secs=(begun, ended))
            told = differing(whole, cut)
        except Exception as error:
            errors = [path.read_text() for path in (whole / "error.txt", cut / "error.txt") if path.exists()]
            told = " | ".join([repr(error), *errors]).replace("\n", " / ")
            kills = kills or [Kill(case=case, moment="none", inside_save=False, step=None)]
        for kill in kills:
            kill.is_equal, kill.told = not told, told
    return kills


def _left_alone(case: Case, folder: Path) -> tuple[float, float]:
    """Trains to the end; returns the seconds until the first step was done, and those until the last was."""
    process = Process.start(case, folder)
    while not process.steps()[0] and not process.is_over():
        time.sleep(0.001)
    begun = time.monotonic()
    while not process.is_over():
        time.sleep(0.005)
    return begun - process.begun, time.monotonic() - begun


def _killed(
    case: Case, folder: Path, rng: random.Random, kills: list[Kill], *, most: int, secs: tuple[float, float]
) -> None:
    """Trains to the end with kills on the way, which are added to `kills`."""
    is_over, checkpoints = False, folder / "checkpoints"
    while not is_over:
        process, aim = Process.start(case, folder), Aim.drawn(rng, *secs)
        if len(kills) >= most:
            while not process.is_over():
                time.sleep(0.005)
            is_over = True
        else:
            is_over = not is_killed(process, aim, checkpoints)
        first, last = process.steps()
        if kills and kills[-1].resumed_from is None and first:
            kills[-1].resumed_from = first - 1
        if not is_over:
            inside = process.is_saving(checkpoints)
            kills.append(Kill(case=case, moment=str(aim), inside_save=inside, step=last or None))


def differing(whole: Path, cut: Path) -> str:
    """The names of what differs between two runs that have ended."""
    one, other = (json.loads((folder / "outcome.json").read_text()) for folder in (whole, cut))
    return "; ".join(name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name))


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)


def summary(kills: list[Kill]) -> str:
    """What all of it comes to."""
    redone = [(kill.redone, kill.case) for kill in kills if kill.redone is not None]
    most, worst = max(redone, key=lambda pair: pair[0], default=(0, kills[0].case))
    beyond = sum(steps > case.every for steps, case in redone)
    return (
        f"{len(kills)} kills, {sum(kill.inside_save for kill in kills)} of them inside a save, "
        f"{sum(kill.step is None for kill in kills)} before the first step of their process: "
        f"{sum(kill.is_equal for kill in kills)} equal to the bit. Steps redone at worst: {most}, in a run saved "
        f"every {worst.every}. In {beyond} cases they were more than lie between two saves: the last one was under way."
    )


def where(options: argparse.Namespace) -> str:
    """How to do it again, and what it was done on."""
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    versions = f"TensorFlow {tf.__version__}, Keras {keras.__version__}, Python {platform.python_version()}"
    return f"tests/kills.py --kills {options.kills} --seed {options.seed} --jobs {options.jobs}; {machine}; {versions}."


def main() -> None:
    """Kills, writes the log, and says what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="how many at least (default: 200)")
    parser.add_argument("--seed", type=int, default=1, help="of the cases and the moments (default: 1)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default: 0)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once (default: 2)")
    parser.add_argument("--log", type=Path, default=LOG, help=f"where to write a line a kill (default: {LOG.name})")
    options = parser.parse_args()
    kills: list[Kill] = []
    numbers = itertools.count(options.first)
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool, tqdm(total=options.kills, unit="kill") as bar:
        while (left := options.kills - len(kills)) > 0:
            most = min(left, KILLS_A_RUN)
            batch = [(options.seed, next(numbers), most) for _ in range(-(-left // most))]
            for found in pool.imap_unordered(run, batch):
                kills += found
                bar.update(len(found))
    text = summary(kills)
    options.log.write_text("\n".join([text, where(options), "", *map(str, kills), ""]), encoding="utf-8")
    print(text)
    sys.exit(not all(kill.is_equal for kill in kills))


if __name__ == "__main__":
    main()

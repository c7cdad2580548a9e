"""The promise: a reader that is resumed gives, bit for bit, all batches that the first would have given from there."""

import itertools
import json
import re
import subprocess
import sys

import attrs
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from engine.data import Reader, open_source
from engine.data.fingerprint import fingerprint_of
from engine.errors import DataError
from tests import pipelines
from tests.helpers import arrays_of, assert_bit_equal
from tests.strategies import counts, examples
from tests.test_every_data_kind import ENDLESS, KINDS, W, X, Y

EPOCHS = 3
CHANGING = "that changes itself"  # between passes: within one, it would depend on how far reading is ahead


class Reshuffled(keras.utils.PyDataset):
    """Deals its samples anew behind each epoch, by a generator of its own, and loses one batch each time."""

    def __init__(self):
        super().__init__()
        self.generator, self.numbers = np.random.default_rng(1), np.arange(20)

    @property
    def num_batches(self):
        return len(self.numbers) // 2

    def __getitem__(self, index):
        return self.numbers[2 * index : 2 * index + 2]

    def on_epoch_end(self):
        self.numbers = self.generator.permutation(self.numbers)[2:]


class Stateful(Reshuffled):
    """Deals its samples anew by NumPy's global generator, but says how they lie."""

    def on_epoch_end(self):
        self.numbers = np.random.permutation(self.numbers)

    def get_state(self):
        return self.numbers.tolist()

    def set_state(self, state):
        self.numbers = np.array(state)


SHUFFLED = {
    f"{kind}, shuffled": lambda folder, make=make: make((X, Y, W), folder) | {"shuffle": True}
    for kind, (_, make) in KINDS.items()
    if kind in ("arrays", "h5py", "ragged tensor", "PyDataset", "PyDataset of threads")
}
SOURCES = (
    {kind: lambda folder, make=make: make((X, Y, W), folder) for kind, (_, make) in KINDS.items()}
    | SHUFFLED
    | {
        "arrays in shuffled batches": lambda folder: {"x": X, "batch_size": 5, "shuffle": "batch"},
        f"PyDataset {CHANGING}": lambda folder: {"x": Reshuffled(), "shuffle": True},
        f"PyDataset with a state, {CHANGING}": lambda folder: {"x": Stateful(), "shuffle": True},
    }
)


@attrs.frozen
class Cut:
    """Where a reader is left: behind how many batches of which epoch; None: behind the epoch's end."""

    epoch: int
    batch: int | None


def cuts():
    return st.builds(Cut, st.integers(0, EPOCHS - 2), st.none() | st.integers(0, 7))


def epochs_of(reader, start):
    """The batches of each epoch from there on, as arrays, taken one by one."""
    for epoch in range(start, EPOCHS):
        reader.begin_epoch(epoch)
        yield from rest_of_epoch(reader)


def rest_of_epoch(reader, done=0):
    while not reader.is_exhausted and done != reader.steps_per_epoch:
        batch = reader.take()
        reader.advance(0 if batch is None else 1, ended=batch is None)
        if batch is not None:
            done += 1
            yield arrays_of(batch)
    reader.end_epoch()


def read_up_to(reader, cut):
    """Batches that were read of the epoch in which the reader is left; None: it is left behind that epoch."""
    for epoch in range(cut.epoch + 1):
        reader.begin_epoch(epoch)
        if epoch < cut.epoch or cut.batch is None:
            list(rest_of_epoch(reader))
    if cut.batch is None:
        return None
    done = 0
    while done < cut.batch and not reader.is_exhausted and done != reader.steps_per_epoch:
        batch = reader.take()
        reader.advance(0 if batch is None else 1, ended=batch is None)
        done += batch is not None
    return done


def later(reader, cut, done):
    """Every batch from where the reader stands."""
    here = [] if done is None else rest_of_epoch(reader, done)
    return [*here, *epochs_of(reader, cut.epoch + 1)]


def read_and_resumed(arguments, cut, steps_per_epoch):
    """Two readers at one place, the second of which was brought there by the state of the first."""
    first = Reader(open_source(**arguments(), seed=1), steps_per_epoch=steps_per_epoch, is_saved=True)
    done = read_up_to(first, cut)
    np.random.seed(5)
    second = Reader(open_source(**arguments(), seed=2), steps_per_epoch=steps_per_epoch, is_saved=True)
    if done is not None:
        second.begin_epoch(cut.epoch)
    second.resume(first.state())
    return first, second, done


@pytest.mark.parametrize("kind", SOURCES)
def test_a_resumed_reader_gives_what_would_have_followed(kind, tmp_path):
    """Wherever it was left, whatever an epoch is; and both say beforehand what comes."""

    steps = counts(8) if ENDLESS in kind else st.none() if CHANGING in kind else st.none() | counts(8)

    @examples(2 if "processes" in kind else 3)  # starting a process takes longer than reading
    @given(cuts(), steps)
    def check(cut, steps_per_epoch):
        first, second, done = read_and_resumed(lambda: SOURCES[kind](tmp_path), cut, steps_per_epoch)
        said = first.fingerprint(), second.fingerprint()
        place = first.state()
        np.random.seed(6)
        expected = later(first, cut, done)
        np.random.seed(6)
        found = later(second, cut, done)

        assert len(expected) > 0
        assert_bit_equal(list(itertools.chain(*expected)), list(itertools.chain(*found)))
        assert said[0] == said[1]
        assert said[0] in (None, fingerprint_of(expected[0]))
        assert said[0] is not None or place["is_exhausted"] or place["length"] is None

    check()


@pytest.mark.slow
def test_pipelines_go_on_in_another_process(tmp_path):
    """Every one of `tests.pipelines`, left within its second pass."""
    file = tmp_path / "written.json"
    tf.compat.v1.set_random_seed(None)  # as it is in another process
    pipelines.leave(file)
    command = [sys.executable, "-m", "tests.pipelines", "resume", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stderr
    assert len(json.loads(file.read_text())) > 20
    assert "[]" == done.stdout.splitlines()[-1]


class Counting(keras.utils.PyDataset):
    """Many batches, of which it counts those that it made."""

    def __init__(self, num_batches):
        super().__init__()
        self.num_asked, self.length = 0, num_batches

    @property
    def num_batches(self):
        return self.length

    def __getitem__(self, index):
        self.num_asked += 1
        return np.array([index])


@pytest.mark.parametrize("position", [10, 100_000])
def test_a_resume_makes_no_batch_again_where_the_order_is_ours(position):
    """Whatever the place: it makes what describes the data, and what is read ahead."""
    dataset = Counting(200_000)
    reader = Reader(open_source(dataset, shuffle=True, seed=1), is_saved=True)
    reader.begin_epoch(0)
    state = reader.state() | {"position": position, "num_used": position}
    reader.resume(state)
    expected = Reader(open_source(dataset, shuffle=True, seed=1)).source.open(0, position).take(position)
    before = dataset.num_asked
    found = reader.take()

    assert_bit_equal(arrays_of(expected), arrays_of(found))
    assert dataset.num_asked - before <= 6


OTHERS = {
    "arrays": lambda: {"x": X + 1, "y": Y, "batch_size": 8},
    "dataset": lambda: {"x": KINDS["dataset"][1]((X + 1, Y, W), None)["x"]},
    "PyDataset": lambda: {"x": KINDS["PyDataset"][1]((X + 1, Y, W), None)["x"]},
    f"iterator {ENDLESS}": lambda: {"x": KINDS[f"iterator {ENDLESS}"][1]((X + 1, Y, W), None)["x"]},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_data_has_another_fingerprint(kind, tmp_path):
    readers = [Reader(open_source(**SOURCES[kind](tmp_path)), is_saved=True) for _ in range(2)]
    other = Reader(open_source(**OTHERS[kind]()), is_saved=True)
    readers[0].advance(2, ended=False)
    for reader in (readers[1], other):
        reader.resume(readers[0].state())
    found = readers[1].fingerprint()

    assert found is not None
    assert re.fullmatch("[0-9a-f]{64}", found)
    assert found != other.fingerprint()


def failing(after):
    """A generator that fails to make one of its batches, and says so."""
    yield from ((np.full(2, number),) for number in range(after))
    raise KeyError("no such sample")


class Failing(Counting):
    """A PyDataset that fails to make one of its batches, as long as it `fails`."""

    fails = True

    def __getitem__(self, index):
        if self.fails and index == 3:
            raise KeyError("no such sample")
        return np.full(2, index)


@pytest.mark.parametrize("make", [lambda: failing(3), lambda: Failing(6)], ids=["generator", "PyDataset"])
def test_a_batch_that_could_not_be_made_is_the_next(make):
    """The state behind the error is that before the batch; a resumed run comes to the same one."""
    first = Reader(open_source(make()), is_saved=True)
    first.begin_epoch(0)
    with pytest.raises(KeyError, match="no such sample"):
        read_all(first)
    said = first.fingerprint()
    second = Reader(open_source(make()), is_saved=True)
    second.begin_epoch(0)
    second.resume(first.state())

    assert said is None
    assert (3, False) == (second.position, second.is_exhausted)
    with pytest.raises(KeyError, match="no such sample"):
        read_all(second)
    assert 3 == second.position


def read_all(reader):
    list(rest_of_epoch(reader))
    reader.raise_error()


def test_a_batch_that_can_be_made_again_is_made():
    first = Reader(open_source(Failing(6)))
    first.begin_epoch(0)
    list(rest_of_epoch(first))
    mended = Failing(6)
    mended.fails = False
    second = Reader(open_source(mended))
    second.begin_epoch(0)
    second.resume(first.state())

    assert_bit_equal([np.full(2, number) for number in (3, 4, 5)], list(itertools.chain(*rest_of_epoch(second))))


def test_data_that_ends_before_the_place_is_refused_in_words():
    first, second = (
        Reader(open_source(iter([(np.zeros(1),)] * num_batches)), steps_per_epoch=9) for num_batches in (9, 5)
    )
    first.advance(7, ended=False)

    with pytest.raises(DataError, match="The data ended 2 batches before the place where the run is to go on"):
        second.resume(first.state())


CAVEATS = {
    "arrays": None,
    "h5py": None,
    "PyDataset": None,
    f"PyDataset {CHANGING}": "Reshuffled has on_epoch_end of its own, which a resumed run calls again",
    f"PyDataset with a state, {CHANGING}": None,
    "dataset": None,
    "grain DataLoader": None,
    f"generator {ENDLESS}": "A generator can be read only once: a resumed run reads a new one",
    f"iterator {ENDLESS}": "A cycle can be read only once",
}


@pytest.mark.parametrize("kind", CAVEATS)
def test_what_may_differ_is_said(kind, tmp_path):
    expected, found = CAVEATS[kind], open_source(**SOURCES[kind](tmp_path)).caveat

    assert expected is None if found is None else found.startswith(expected)


@pytest.mark.parametrize("kind", SOURCES)
def test_facts_and_states_can_be_written_as_json(kind, tmp_path):
    reader = Reader(open_source(**SOURCES[kind](tmp_path)))
    facts, state = reader.source.facts(), reader.state()

    assert facts == json.loads(json.dumps(facts))
    assert state == json.loads(json.dumps(state))

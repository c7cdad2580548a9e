import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Callback, Every, Task, Trainer
from engine.cadence import Pace
from engine.callbacks import Timer
from engine.data import Reader, open_source
from engine.hooks import Hooks
from engine.loops import Loops
from engine.phase import Phase
from engine.progress import Progress
from tests.helpers import assert_bit_equal, perceptron, samples, weights_of
from tests.test_one_trace import CountsTraces

X = np.arange(43, dtype="float32")[:, None]  # six batches of 8, the last of three
MEANS = [3.5, 7.5, 11.5, 15.5, 19.5, 21.0]  # of all samples so far, after each batch


class Listens(Callback):
    """Notes what it is told, and where the weights stood then."""

    def __init__(self, count=None, *, acts=False):
        super().__init__()
        self.acts_on_batches = acts
        self.count, self.ends, self.begins = count, [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.begins.append((batch, int(self.count)))

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append((batch, int(self.count), self.step, self.samples, self.step_logs["mean"], logs["mean"]))


class Counts(Task):
    """Counts its steps, and how often they are traced; its loop is made of whatever stands in `made_from`."""

    def __init__(self):
        self.model = keras.Sequential([keras.layers.Identity()])
        self.count, self.traces = tf.Variable(0), 0
        self.made_from = [self.count]

    def train_step(self, batch):
        self.traces += 1
        self.count.assign_add(1)
        return {"mean": tf.reduce_mean(batch)}

    def test_step(self, batch):
        return {"mean": tf.reduce_mean(batch)}

    def predict_step(self, batch):
        return batch

    def ingredients(self):
        return self.made_from


def phase_of(*callbacks, pace=None):
    task = Counts()
    for callback in callbacks:
        callback.count = task.count
    strategy = tf.distribute.get_strategy()
    loops = Loops(task=task, strategy=strategy, jit_compile=False, run_eagerly=False)
    pace = Pace(steps=4, target_seconds=0.0) if pace is None else pace
    return Phase("train", task, loops, reader_of().source.spec, Hooks([*callbacks], task.model), pace)


def reader_of(kind="arrays"):
    if kind == "arrays":
        return Reader(open_source(X, batch_size=8))
    dataset = tf.data.Dataset.from_tensor_slices(X).batch(8)
    return Reader(open_source(dataset if kind == "dataset" else dataset.filter(lambda _: True)))


def run(phase, reader, limits):
    """The steps of each block, until the data ends."""
    progress, steps, limits = Progress(), [], [*limits]
    while not reader.is_exhausted:
        before = progress
        progress = phase.block(reader, progress, limits.pop(0) if limits else None)
        steps.append(progress.step - before.step)
    return steps, progress


@pytest.mark.parametrize("kind", ["arrays", "dataset", "unknown length"])
@pytest.mark.parametrize(
    ("limits", "expected"), [([], [4, 2]), ([3], [3, 3]), ([1, 9], [1, 4, 1]), ([2, 2, 2], [2, 2, 2])]
)
def test_a_block_is_as_long_as_the_pace_the_limit_and_the_data_let_it(kind, limits, expected):
    """Where only asking tells that the data has ended, a block without a step may follow."""
    phase = phase_of()
    steps, progress = run(phase, reader_of(kind), limits)

    assert expected == [length for length in steps if length]
    assert (6, 6, 43) == (progress.step, progress.batch, progress.samples)
    assert {"mean": MEANS[-1]} == phase.logs()
    assert progress.seconds > 0


@pytest.mark.parametrize("kind", ["arrays", "unknown length"])
def test_those_who_look_are_told_of_a_block_when_it_is_over(kind):
    looks = Listens()
    run(phase_of(looks), reader_of(kind), [])

    assert [(0, 4), (1, 4), (2, 4), (3, 4), (4, 6), (5, 6)] == looks.begins
    assert [end[:2] for end in looks.ends] == looks.begins
    assert [(1, 8), (2, 16), (3, 24), (4, 32), (5, 40), (6, 43)] == [end[2:4] for end in looks.ends]
    assert [3.5, 11.5, 19.5, 27.5, 35.5, 41.0] == [end[4] for end in looks.ends]
    assert MEANS == [end[5] for end in looks.ends]


@pytest.mark.parametrize("kind", ["arrays", "unknown length"])
def test_those_who_act_are_called_before_and_after_their_very_step(kind):
    """Whatever the pace and the limit are; those who look, beside them, as well."""
    looks, acts = Listens(), Listens(acts=True)
    steps, _ = run(phase_of(looks, acts), reader_of(kind), [5])

    assert [1] * 6 == [length for length in steps if length]
    assert [(batch, batch) for batch in range(6)] == acts.begins == looks.begins
    assert [(batch, batch + 1) for batch in range(6)] == [end[:2] for end in acts.ends]
    assert acts.ends == looks.ends
    assert MEANS == [end[5] for end in acts.ends]


def test_means_begin_anew_when_they_are_told_to():
    phase = phase_of()
    run(phase, reader_of(), [])
    phase.reset()

    assert {} == phase.logs()
    run(phase, reader_of(), [])
    assert {"mean": MEANS[-1]} == phase.logs()


class IsSlow(Callback):
    """Looks at each batch for longer than half of what a block may take."""

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.06)


def test_blocks_are_shorter_where_a_callback_looks_slowly():
    """Steps of microseconds would soon be many in a block."""
    phase, reader, progress = phase_of(IsSlow(), pace=Pace()), reader_of(), Progress()
    reader.begin_epoch(0)
    for _ in range(3):
        progress = phase.block(reader, progress, None)

        assert 1 == phase.pace.steps
    assert 3 == progress.step


def test_the_pace_follows_the_blocks_and_an_empty_one_leaves_it():
    phase, reader = phase_of(pace=Pace()), reader_of("unknown length")
    paces = []
    while not reader.is_exhausted:
        phase.block(reader, Progress(), None)
        paces.append(phase.pace.steps)
    at_the_end = phase.block(reader, Progress(), None)

    assert 4 >= paces[0]  # from one step, at most fourfold
    assert paces[-1] == phase.pace.steps
    assert (0, 0) == (at_the_end.step, at_the_end.samples)


def test_a_loop_is_made_anew_when_what_it_is_made_from_has_changed_and_only_then():
    """`renew` is called at the beginning of each epoch: it must cost nothing where nothing has changed."""
    phase = phase_of()
    traces, loops = [], []
    for change in (False, False, True, False):
        phase.task.made_from = [tf.Variable(0)] if change else phase.task.made_from
        phase.renew(reader_of())
        run(phase, reader_of(), [])
        traces.append(phase.task.traces)
        loops.append(phase.loop)

    assert [1, 1, 2, 2] == traces
    assert loops[0] is loops[1] is not loops[2] is loops[3]


class Snapshots(Callback):
    """The weights and the optimizer as they are in the batch hook of each step, or of some."""

    def __init__(self, every=None, *, acts=False):
        super().__init__()
        self.acts_every, self.acts_on_batches = every, acts
        self.found = {}

    def on_train_batch_end(self, batch, logs=None):
        if self.acts_on_batches or self.step % self.acts_every.steps == 0:
            self.found[self.step] = weights_of(self.model)


def blocks_of(length, stops, num_steps):
    """Steps at which a block ends, for blocks of a length that are cut at each stop."""
    ends = [0]
    while ends[-1] < num_steps:
        ends.append(min(ends[-1] + length, *(stop for stop in [*stops, num_steps] if stop > ends[-1])))
    return ends[1:]


@pytest.mark.parametrize("cadences", [(1,), (4,), (7,), (100,), (4, 7)])
@pytest.mark.parametrize("steps_per_execution", [1, 5])
def test_where_it_is_due_a_callback_sees_the_model_as_it_stands_after_that_very_step(cadences, steps_per_execution):
    """Over three epochs of six steps; other blocks are as long as ever, and there is one trace."""
    everywhere, some = Snapshots(acts=True), [Snapshots(Every(steps=steps)) for steps in cadences]
    x, y = samples(43, shape=(4,))
    model, timer = CountsTraces(), Timer(verbose=0)
    for callbacks in ([everywhere], [*some, timer]):
        keras.utils.set_random_seed(0)
        model = CountsTraces()
        model.compile("adam", "sparse_categorical_crossentropy")
        trainer = Trainer(model, seed=1, steps_per_execution=steps_per_execution)
        trainer.fit(x, y, batch_size=8, epochs=3, callbacks=callbacks, verbose=0)
    stops = [stop for steps in (*cadences, 6) for stop in range(steps, 19, steps)]

    for steps, snapshots in zip(cadences, some, strict=True):
        assert list(range(steps, 19, steps)) == list(snapshots.found)
        for step, weights in snapshots.found.items():
            assert_bit_equal(everywhere.found[step], weights)
    assert 1 == model.traces["train"]
    assert len(blocks_of(steps_per_execution, stops, 18)) == timer.timings.calls["train steps"]


@pytest.mark.parametrize("every", [Every(epochs=1), Every(seconds=1000.0)])
def test_where_steps_do_not_decide_it_blocks_are_as_long_as_ever(every):
    x, y = samples(43, shape=(4,))
    callback, timer = Callback(), Timer(verbose=0)
    callback.acts_every = every
    Trainer(perceptron(), steps_per_execution=6).fit(x, y, batch_size=8, callbacks=[callback, timer], verbose=0)

    assert 1 == timer.timings.calls["train steps"]

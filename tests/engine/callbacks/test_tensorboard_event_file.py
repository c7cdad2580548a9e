"""Event files as TensorBoard's own reader finds them."""

import time

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from engine import Trainer
from engine.block import Block
from engine.callbacks import TensorBoard
from engine.callbacks.tensorboard.event_file import EventFile, Points
from engine.callbacks.tensorboard.scalars import points_of, scalars
from engine.columns import Columns
from tests.helpers import perceptron, samples

NUMBERS = st.floats(width=32, allow_nan=False)
TAGS = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4, unique=True)


@st.composite
def points(draw):
    """Points of any number of steps and tags, steps and times not in order, every length of every number."""
    steps = draw(st.lists(st.integers(0, 2**40), max_size=6))
    wall_times = draw(st.lists(st.floats(0, 4e9), min_size=len(steps), max_size=len(steps)))
    some = st.lists(NUMBERS, min_size=len(steps), max_size=len(steps))
    return Points(steps, wall_times, {tag: draw(some) for tag in draw(TAGS)})


def made_one_by_one(points):
    """The same events, each made by itself."""
    for i, (step, wall_time) in enumerate(zip(points.steps, points.wall_times, strict=True)):
        values = [Summary.Value(tag=tag, simple_value=own[i]) for tag, own in points.scalars.items()]
        yield Event(step=step, wall_time=wall_time, summary=Summary(value=values)).SerializeToString()


@settings(max_examples=100, deadline=None)
@given(points())
def test_tensorboard_reads_the_bytes_of_events_that_were_made_one_by_one(tmp_path_factory, points):
    folder = tmp_path_factory.mktemp("run")
    file = EventFile.create(str(folder))
    file.add(points.events())
    file.close()
    (path,) = folder.iterdir()
    version, *records = RawEventFileLoader(str(path)).Load()

    assert "brain.Event:2" == Event.FromString(version).file_version
    assert list(made_one_by_one(points)) == records


def test_each_of_many_files_made_at_once_stands_behind_those_before_it(tmp_path):
    """TensorBoard reads the files of a folder in the order of their names."""
    for number in range(20):
        file = EventFile.create(str(tmp_path / "runs" / "train"), ".end")
        file.add([Event(step=number)])
        file.close()
    files = sorted(str(path) for path in (tmp_path / "runs" / "train").iterdir())
    steps = [Event.FromString(list(RawEventFileLoader(path).Load())[-1]).step for path in files]

    assert list(range(20)) == steps
    assert all(path.endswith(".end") for path in files)


def test_what_was_written_last_can_be_read_once_it_was_flushed(tmp_path):
    file = EventFile.create(str(tmp_path))
    (path,) = tmp_path.iterdir()
    file.add(Event(step=step) for step in range(3))
    file.flush()
    found = [Event.FromString(record).step for record in RawEventFileLoader(str(path)).Load()]
    file.close()

    assert [0, 0, 1, 2] == found


def test_a_file_that_cannot_be_made_is_an_error_at_once(tmp_path):
    (tmp_path / "file").write_text("no folder")

    with pytest.raises((OSError, tf.errors.OpError)):
        EventFile.create(str(tmp_path / "file" / "run"))


def block_of(num_steps, first_step):
    """A block with a scalar and a value that is an array."""
    values = np.random.default_rng(0).normal(size=(num_steps, 3))
    columns = Columns(("loss", "f1"), (True, False), ((), (2,)))
    return Block(columns, 0, first_step, 0, sizes=[8] * num_steps, running=-values, values=values, seconds=2.0)


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 50), st.integers(0, 12))
def test_the_points_of_a_block_are_those_of_its_steps(num_steps, first_step, every):
    """Every so many steps of the run, with the tags and values that each step by itself would have."""
    block = block_of(num_steps, first_step)
    found = points_of("batch_", block, block.steps, every=every)
    due = [step for step in block.replay() if every and step.step % every == 0]
    expected = [{value.tag: value.simple_value for value in scalars("batch_", step.step_logs)} for step in due]

    assert [step.step for step in due] == list(found.steps)
    assert expected == [{value.tag: value.simple_value for value in event.summary.value} for event in found.events()]


@pytest.mark.parametrize("num_steps", [1, 5])
def test_the_time_of_a_block_is_shared_out_evenly_among_its_steps(num_steps):
    block = block_of(num_steps, 7)
    before = time.time()
    found = points_of("batch_", block, block.steps, every=1)
    after = time.time()

    assert before <= found.wall_times[-1] <= after
    np.testing.assert_allclose(np.diff(found.wall_times), [2.0 / num_steps] * (num_steps - 1), atol=1e-6)


def test_the_steps_of_a_training_follow_one_another_in_time(tmp_path):
    """Blocks of four: no step of one is said to be done before the last one of the block before it."""
    x, y = samples(76, shape=(4,))
    begun = time.time()
    Trainer(perceptron(), steps_per_execution=4).fit(x, y, 8, 2, verbose=0, callbacks=[TensorBoard(tmp_path)])
    (path,) = (tmp_path / "train").iterdir()
    events = [Event.FromString(record) for record in RawEventFileLoader(str(path)).Load()]
    times = [own.wall_time for own in events if any(value.tag == "batch_loss" for value in own.summary.value)]

    assert 20 == len(times)
    assert sorted(times) == times
    assert begun < times[0] < times[-1] < time.time()

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.block import Block
from engine.columns import Columns


@settings(max_examples=200, derandomize=True)
@given(st.lists(st.integers(1, 64), max_size=9), st.integers(0, 99), st.integers(0, 9999), st.permutations("abc"))
def test_each_step_has_its_numbers_and_names_whatever_the_order_of_the_columns(sizes, batch, step, names):
    """Indices go on from the block's first; values stand under their own names, which are sorted."""
    columns = {name: np.arange(len(sizes)) + 100.0 * ord(name) for name in names}
    values = np.stack([columns[name] for name in names], axis=1)
    faults = [f"of step {i}" for i in range(len(sizes))]
    data = {"sizes": sizes, "running": values / 2, "values": values, "faults": faults}
    block = Block(Columns(tuple(names)), batch, step, 1000, **data)
    found = list(block.replay())

    assert [(batch + i, step + i + 1, 1000 + sum(sizes[: i + 1])) for i in range(len(sizes))] == [f[:3] for f in found]
    assert faults == [f.fault for f in found]
    for i, (*_, logs, own, _) in enumerate(found):
        assert {name: columns[name][i] / 2 for name in "abc"} == logs
        assert {name: columns[name][i] for name in "abc"} == own
        assert ["a", "b", "c"] == list(logs) == list(own)


def counting(sizes):
    """A block with a value that is an array, (steps, 2), and a scalar, (steps,), every number another one."""
    values = np.arange(3.0 * len(sizes)).reshape(-1, 3)
    columns = Columns(("loss", "f1"), (True, False), ((), (2,)))
    return Block(columns, 5, 70, 1000, sizes=np.array(sizes), running=-values, values=values)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=9), st.data())
def test_the_arrays_hold_what_the_steps_hold_also_of_a_block_cut_short(sizes, data):
    """Step i of each array is what a batch hook is given behind step i."""
    num_steps = data.draw(st.integers(1, len(sizes)))
    block = counting(sizes).first(num_steps)
    replayed = list(block.replay())

    assert num_steps == len(block) == len(replayed)
    assert [(step.batch, step.step, step.samples) for step in replayed] == list(
        zip(block.batches, block.steps, block.samples, strict=True)
    )
    for name in ("f1", "loss"):
        np.testing.assert_array_equal([step.logs[name] for step in replayed], block.logs[name])
        np.testing.assert_array_equal([step.step_logs[name] for step in replayed], block.step_logs[name])
        np.testing.assert_array_equal(replayed[-1].logs[name], block.last_logs[name])
        np.testing.assert_array_equal(replayed[-1].step_logs[name], block.last_step_logs[name])
    assert ["f1", "loss"] == list(block.logs) == list(block.step_logs) == list(block.last_logs)
    assert float is type(block.last_logs["loss"])


def test_no_callback_can_change_a_block_for_the_others():
    block = counting([32, 8])
    for arrays in (block.logs, block.step_logs):
        with pytest.raises(ValueError, match="read-only"):
            arrays["loss"][0] = 7.0
        del arrays["loss"]

    assert [0.0, 3.0] == block.step_logs["loss"].tolist()

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.timings import Spent, Timings

NAMES = st.sampled_from(["a", "b", "c"])
SECONDS = st.integers(0, 1000).map(lambda number: number / 8)  # whose sums are exact


@given(st.lists(st.tuples(SECONDS, st.integers(0, 3))))
def test_what_is_done_between_two_blocks_is_one_stop(calls):
    """However many calls it takes: those of the same number of blocks, one after the other, are one."""
    calls = sorted(calls, key=lambda call: call[1])
    spent = Spent()
    for seconds, num_blocks in calls:
        spent.add(seconds, num_blocks)

    assert sum(seconds for seconds, _ in calls) == spent.seconds
    assert len(calls) == spent.calls
    assert len({num_blocks for _, num_blocks in calls}) == spent.stops


@given(st.recursive(NAMES.map(lambda name: (name, [])), lambda inner: st.tuples(NAMES, st.lists(inner, max_size=3))))
def test_nothing_is_measured_twice_however_measures_are_nested(tree):
    timings = Timings()

    def visit(name, inner):
        with timings.measure(name):
            for branch in inner:
                visit(*branch)

    visit(*tree)
    timings.end()

    assert all(spent.seconds >= 0 for spent in timings.spent.values())
    assert timings.total_secs() <= timings.whole_secs


def test_an_error_is_measured_up_to_where_it_rose():
    timings = Timings()
    with pytest.raises(ValueError, match="mine"), timings.measure("outer"), timings.measure("inner"):
        raise ValueError("mine")

    assert {"outer": 1, "inner": 1} == timings.calls


def test_the_rest_makes_the_sum_the_whole():
    timings = Timings()
    timings.of("known").add(-0.5, 0)  # so that the rest is no small number
    timings.take_rest("rest")

    assert 0 <= timings.total_secs() <= timings.whole_secs
    assert timings.seconds["rest"] >= 0.5


@given(st.lists(st.tuples(NAMES, SECONDS)), st.lists(st.tuples(NAMES, SECONDS)))
def test_what_was_added_since_a_copy_is_their_difference(before, after):
    timings, alone = Timings(), Timings()
    for name, seconds in before:
        timings.of(name).add(seconds, 0)
    copied = timings.copy()
    for name, seconds in after:
        timings.of(name).add(seconds, 0)
        alone.of(name).add(seconds, 0)

    since = timings - copied

    assert (alone.seconds, alone.calls) == (since.seconds, since.calls)
    assert (timings.seconds, timings.calls) == ((copied + since).seconds, (copied + since).calls)


@given(st.lists(st.tuples(st.sampled_from(["train", "test"]), st.integers(0, 5), SECONDS, st.none() | SECONDS)))
def test_blocks_are_counted_by_their_lengths_and_waits_are_summed(blocks):
    """The call that finds the end of the data takes time, but is no block."""
    timings = Timings()
    for kind, steps, seconds, waited_secs in blocks:
        timings.add_block(kind, steps=steps, seconds=seconds, waited_secs=waited_secs)

    assert sum(bool(steps) for _, steps, _, _ in blocks) == timings.num_blocks
    assert any(steps for _, steps, _, _ in blocks) == (timings.first_step_secs is not None)
    for kind in ("train", "test"):
        own = [block[1:] for block in blocks if block[0] == kind]
        waits = [waited for _, _, waited in own if waited is not None]

        assert sum(seconds for _, seconds, _ in own) == timings.seconds.get(f"{kind} steps", 0)
        assert sorted(steps for steps, _, _ in own if steps) == sorted(
            timings.blocks[kind].elements() if kind in timings.blocks else ()
        )
        assert (sum(waits) if waits else None) == timings.waited_secs.get(kind)

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.cadence import AtEpochs, Every, Pace, Plan, cadence_of
from engine.errors import ConfigError
from engine.progress import Progress
from tests.strategies import block_lengths, cadences, counts, examples, plans, progresses, walks

STEP_SECS = 0.25  # exact in binary, so that clocks add up however a run is cut
MOST_STEPS = 1 << 16


def visit(plan, length, blocks, start=Progress()):  # noqa: B008  (frozen)
    """The stops of a fit: wherever something but the next block happens, what that is, and how far the fit is then.

    `length` batches are in the data; blocks are as long as `blocks` says, in turn, but for what cuts them short.
    """
    progress, blocks = start, itertools.cycle(blocks)
    while not plan.is_over(progress):
        before, until = progress, plan.steps_until_stop(progress)
        steps = min(next(blocks), length - before.batch, length if until is None else until)
        assert steps > 0, "from every point short of the end, at least one step may be run"
        progress = before.advance(steps=steps, seconds=steps * STEP_SECS)
        happens = ["validate"] if plan.is_validation_due(before, progress) else []
        if plan.is_epoch_over(progress) or plan.is_cut(progress) or progress.batch == length:
            happens += ["validate"] if plan.is_validation_due(progress, progress.next_epoch()) else []
            happens += ["end of epoch"]
            progress = progress.next_epoch()
        if happens:
            yield happens, progress


def validations(stops):
    return [progress for happens, progress in stops for event in happens if event == "validate"]


@examples(2000)
@given(plans(with_seconds=False), counts(), block_lengths())
def test_a_run_visits_the_same_stops_whatever_its_blocks(plan, length, blocks):
    """A block never runs past anything that is due, so that its length changes nothing."""
    assert list(visit(plan, length, [1])) == list(visit(plan, length, blocks))


@examples(2000)
@given(plans(), counts(), counts(20), st.data())
def test_a_resumed_run_visits_the_same_stops(plan, length, block, data):
    """Stopping at any stop and resuming there changes nothing that follows."""
    stops = list(visit(plan, length, [block]))
    assume(stops)
    i = data.draw(st.integers(0, len(stops) - 1))

    assert stops[i + 1 :] == list(visit(plan, length, [block], start=stops[i][1]))


@examples(1000)
@given(plans(with_seconds=False), counts(), block_lengths())
def test_a_run_is_as_long_as_planned(plan, length, blocks):
    """As many steps as the epochs have, or max_steps; an epoch that is cut short counts as one."""
    per_epoch = min(length, plan.steps_per_epoch or length)
    steps = min(plan.epochs * per_epoch, plan.max_steps or math.inf)
    stops = list(visit(plan, length, blocks))
    _, end = stops[-1] if stops else ([], Progress())

    assert steps == end.step
    assert math.ceil(steps / per_epoch) == end.epoch


@examples(1000)
@given(plans(with_seconds=False), counts(), block_lengths())
def test_every_due_step_is_hit_exactly_once(plan, length, blocks):
    stops = list(visit(plan, length, blocks))
    _, end = stops[-1] if stops else ([], Progress())
    cadence = plan.validation
    if cadence is None:
        due = []
    elif isinstance(cadence, AtEpochs):
        due = sorted(epoch for epoch in cadence.epochs if epoch <= end.epoch)
    elif cadence.epochs:
        due = list(range(cadence.epochs, end.epoch + 1, cadence.epochs))
    else:
        due = list(range(cadence.steps, end.step + 1, cadence.steps))
    is_of_steps = isinstance(cadence, Every) and cadence.steps is not None

    assert due == [progress.step if is_of_steps else progress.epoch for progress in validations(stops)]


@examples(500)
@given(st.builds(Every, seconds=st.sampled_from([0.5, 1.0, 2.5])), counts(8), counts(40))
def test_seconds_are_due_at_the_first_blocks_end_behind_them(every, block, num_blocks):
    plan = Plan(epochs=1, validation=every)
    blocks_secs = block * STEP_SECS
    passed = {math.ceil(n * every.seconds / blocks_secs) for n in range(1, 400)}

    assert [n * block for n in sorted(passed) if n <= num_blocks] == [
        progress.step for progress in validations(visit(plan, num_blocks * block, [block]))
    ]


@examples(500)
@given(st.builds(Every, steps=counts()), progresses())
def test_steps_until_due_is_the_first_advance_that_is_due(every, progress):
    """Fewer steps are not due, exactly so many are."""
    steps = every.steps_until_due(progress)

    assert 1 <= steps <= every.steps
    assert not any(every.is_due(progress, progress.advance(steps=fewer)) for fewer in range(steps))
    assert every.is_due(progress, progress.advance(steps=steps))


@examples(1000)
@given(cadences(), walks(3))
def test_due_on_a_way_is_due_on_one_of_its_parts(cadence, walk):
    """Looking in between neither loses what is due nor invents it."""
    begin, middle, end = walk

    assert cadence.is_due(begin, end) == (cadence.is_due(begin, middle) or cadence.is_due(middle, end))


@examples(200)
@given(cadences(), progresses())
def test_nothing_is_due_where_nothing_was_done(cadence, progress):
    assert not cadence.is_due(progress, progress)


@pytest.mark.parametrize("cadence", [Every(epochs=2), Every(seconds=0.5), AtEpochs(frozenset([1]))])
def test_only_a_cadence_of_steps_cuts_a_block(cadence):
    assert cadence.steps_until_due(Progress(step=3)) is None
    assert Plan(epochs=1, validation=cadence).steps_until_stop(Progress(step=3)) is None


@pytest.mark.parametrize(
    ("plan", "progress", "steps"),
    [
        (Plan(epochs=2), Progress(batch=25, step=25), None),
        (Plan(epochs=2, steps_per_epoch=100), Progress(batch=95, step=95), 5),
        (Plan(epochs=2, max_steps=97), Progress(batch=95, step=95), 2),
        (Plan(epochs=2, steps_per_epoch=100, validation=Every(steps=30)), Progress(batch=25, step=25), 5),
        (Plan(epochs=2, steps_per_epoch=100, validation=Every(steps=30)), Progress(batch=95, step=95), 5),
        (Plan(epochs=2, steps_per_epoch=100, validation=Every(steps=30)), Progress(epoch=1, step=100), 20),
    ],
)
def test_a_block_goes_up_to_the_nearest_stop(plan, progress, steps):
    assert steps == plan.steps_until_stop(progress)


@pytest.mark.parametrize(
    ("plan", "progress"),
    [
        (Plan(epochs=0), Progress()),
        (Plan(epochs=2), Progress(epoch=2)),
        (Plan(epochs=2), Progress(epoch=5)),
        (Plan(epochs=2, max_steps=3), Progress(step=3)),
        (Plan(epochs=2, max_seconds=1.5), Progress(seconds=1.5)),
        (Plan(epochs=2, max_seconds=0.0), Progress()),
    ],
)
def test_a_plan_is_over_with_its_epochs_its_steps_or_its_time(plan, progress):
    assert plan.is_over(progress)


def test_only_limits_cut_a_plan_and_not_the_end_of_its_epochs():
    assert not Plan(epochs=2).is_cut(Progress(epoch=2, step=100, seconds=100.0))
    assert not Plan(epochs=2, max_steps=3, max_seconds=1.5).is_over(Progress(epoch=1, step=2, seconds=1.25))


def test_an_epoch_of_unknown_length_is_never_over_by_the_plan():
    assert not Plan(epochs=2).is_epoch_over(Progress(batch=10_000))
    assert not Plan(epochs=2, steps_per_epoch=5).is_epoch_over(Progress(batch=4))
    assert Plan(epochs=2, steps_per_epoch=5).is_epoch_over(Progress(batch=5))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "Every takes exactly one of epochs, steps and seconds, but none was given."),
        (
            {"epochs": 1, "steps": 2},
            "Every takes exactly one of epochs, steps and seconds, but {'epochs': 1, 'steps': 2} was given.",
        ),
        ({"steps": 0}, "Every(steps=0): steps must be greater than 0."),
        ({"epochs": -1}, "Every(epochs=-1): epochs must be greater than 0."),
        ({"seconds": 0.0}, "Every(seconds=0.0): seconds must be greater than 0."),
        ({"steps": 2.5}, "Every(steps=2.5): steps must be a number, and epochs and steps whole."),
        ({"epochs": True}, "Every(epochs=True): epochs must be a number, and epochs and steps whole."),
        ({"seconds": "60"}, "Every(seconds='60'): seconds must be a number, and epochs and steps whole."),
    ],
)
def test_every_says_what_is_wrong_with_it(given, words):
    with pytest.raises(ConfigError) as error:
        Every(**given)

    assert words == str(error.value)


@pytest.mark.parametrize("seconds", [math.nan, -math.nan])
def test_a_cadence_that_would_never_be_due_is_refused(seconds):
    with pytest.raises(ConfigError, match="seconds must be"):
        Every(seconds=seconds)


@pytest.mark.parametrize(
    ("frequency", "cadence"),
    [
        (3, Every(epochs=3)),
        (Every(steps=500), Every(steps=500)),
        ([1, 5, 10], AtEpochs(frozenset([1, 5, 10]))),
        ((2,), AtEpochs(frozenset([2]))),
        ({2, 4}, AtEpochs(frozenset([2, 4]))),
        (range(1, 4), AtEpochs(frozenset([1, 2, 3]))),
    ],
)
def test_a_validation_freq_means_what_it_means_in_keras(frequency, cadence):
    assert cadence == cadence_of(frequency)


@pytest.mark.parametrize("frequency", [0, -2, True, [], (), None, 1.5, "epoch"])
def test_any_other_validation_freq_is_refused_in_words(frequency):
    with pytest.raises(ConfigError) as error:
        cadence_of(frequency)

    assert (
        f"validation_freq={frequency!r}: expected a number of epochs, a list of epochs counted from 1, "
        "or an Every, such as Every(steps=500)."
    ) == str(error.value)


@pytest.mark.parametrize("frequency", [["1"], [1.5], [None]])
def test_a_list_of_what_are_no_epochs_is_refused_before_training(frequency):
    with pytest.raises(ConfigError, match="validation_freq"):
        cadence_of(frequency)


@examples(500)
@given(counts(1000), st.lists(st.tuples(counts(1000), st.floats(0, 10)), max_size=10))
def test_a_pace_grows_at_most_fourfold_and_never_stands_still(steps, blocks):
    pace = Pace(steps=steps)
    for block, seconds in blocks:
        after = pace.after(steps=block, seconds=seconds)

        assert 1 <= after.steps <= min(4 * pace.steps, MOST_STEPS)
        pace = after


@examples(500)
@given(st.floats(1e-7, 10), st.floats(0.01, 10), counts(1000))
def test_a_pace_finds_the_most_steps_that_fit_the_target(step_secs, target_secs, first):
    """Where every step takes equally long, blocks come to take as long as wanted, within the bounds."""
    pace = Pace(steps=first, target_seconds=target_secs)
    for _ in range(12):
        pace = pace.after(steps=pace.steps, seconds=pace.steps * step_secs)
    most = target_secs / step_secs

    assert 1 == pace.steps or pace.steps <= most * (1 + 1e-9)  # rounding of the products
    assert MOST_STEPS == pace.steps or most * (1 - 1e-9) < pace.steps + 1


@examples(100)
@given(counts(), counts(), st.floats(0, 10))
def test_a_pace_without_a_target_is_fixed(steps, block, seconds):
    pace = Pace(steps=steps, target_seconds=0.0)

    assert pace == pace.after(steps=block, seconds=seconds)


def test_a_block_without_a_step_says_nothing_about_the_pace():
    assert Pace(steps=8) == Pace(steps=8).after(steps=0, seconds=5.0)


def test_a_clock_that_has_not_moved_lets_the_pace_grow():
    assert Pace(steps=32) == Pace(steps=8).after(steps=8, seconds=0.0)

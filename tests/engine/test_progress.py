import attrs
import pytest
from hypothesis import given

from engine.progress import Progress
from tests.strategies import examples, progresses, quarters


@examples(200)
@given(progresses(), progresses(), progresses(), quarters(), quarters())
def test_two_advances_are_one_of_both_together(start, first, second, first_secs, second_secs):
    """Progress only adds up: it does not matter how the steps were cut into blocks."""
    twice = start.advance(steps=first.step, samples=first.samples, seconds=first_secs).advance(
        steps=second.step, samples=second.samples, seconds=second_secs
    )

    assert twice == start.advance(
        steps=first.step + second.step, samples=first.samples + second.samples, seconds=first_secs + second_secs
    )


@examples(100)
@given(progresses())
def test_the_end_of_an_epoch_resets_the_batches_and_nothing_else(progress):
    assert attrs.evolve(progress, epoch=progress.epoch + 1, batch=0) == progress.next_epoch()


def test_an_advance_counts_in_the_epoch_and_in_the_run():
    progress = Progress().advance(steps=7, samples=224, seconds=0.5).next_epoch().advance(steps=2, samples=64)

    assert Progress(epoch=1, batch=2, step=9, samples=288, seconds=0.5) == progress


def test_progress_is_a_fact_that_nobody_changes():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Progress().step = 1


@pytest.mark.parametrize("name", ["epoch", "batch", "step", "samples", "seconds"])
def test_no_count_is_below_zero(name):
    with pytest.raises(ValueError, match=f"'{name}' must be >= 0"):
        Progress(**{name: -1})

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.slow_input import SlowInput


@st.composite
def blocks(draw, *, least, most):
    """Blocks of steps that wait for such shares of their time."""
    steps, seconds = draw(st.integers(1, 50)), draw(st.floats(0.01, 0.5))
    return {"steps": steps, "seconds": seconds, "waited_secs": seconds * draw(st.floats(least, most))}


def told(given_blocks):
    watch = SlowInput()
    return [message for block in given_blocks if (message := watch.after(**block)) is not None]


@given(st.lists(blocks(least=0, most=0.099), max_size=40))
def test_who_waits_less_than_a_tenth_hears_nothing(given_blocks):
    assert [] == told(given_blocks)


@given(st.lists(blocks(least=0.101, most=1), max_size=60))
def test_who_waits_more_hears_of_it_once_when_the_second_second_is_over(given_blocks):
    """The first is left out: a graph is made ready in it, and buffers are filled."""
    windows, secs = 0, 0.0
    for block in given_blocks:
        secs += block["seconds"]
        if secs >= 1:
            windows, secs = windows + 1, 0.0

    assert (windows >= 2) == len(told(given_blocks))


@pytest.mark.parametrize(
    ("steps", "seconds", "waited_secs", "figures"),
    [
        (1, 0.25, 0.2, "80 % of the last 1.0 s (200 of 250 ms a step)"),
        (10, 0.3, 0.129, "43 % of the last 1.2 s (13 of 30 ms a step)"),
        (1000, 0.6, 0.3, "50 % of the last 1.2 s (0.3 of 0.6 ms a step)"),
        (1, 2.0, 2.0, "100 % of the last 2.0 s (2000 of 2000 ms a step)"),
    ],
)
def test_the_figures_are_those_of_the_window(steps, seconds, waited_secs, figures):
    block = {"steps": steps, "seconds": seconds, "waited_secs": waited_secs}

    assert [f"waited for data {figures}"] == told([block] * 8)


def test_a_wait_at_the_beginning_alone_is_not_told():
    slow, fast = ({"steps": 1, "seconds": 0.6, "waited_secs": waited} for waited in (0.6, 0.0))

    assert [] == told([slow, slow, *[fast] * 5])


def test_each_window_counts_for_itself():
    """A late slow-down is told, however long all went well before."""
    slow, fast = ({"steps": 1, "seconds": 0.5, "waited_secs": waited} for waited in (0.5, 0.0))

    assert ["waited for data 100 % of the last 1.0 s (500 of 500 ms a step)"] == told([*[fast] * 100, slow, slow])

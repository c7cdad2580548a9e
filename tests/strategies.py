"""Hypothesis strategies that several tests use, and how often a law is tried."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from engine.cadence import AtEpochs, Cadence, Every, Plan
from engine.progress import Progress


def examples(number: int) -> settings:
    """Tries a law on so many examples, always the same ones, however long they take."""
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],  # a busy machine is no failure
    )


def counts(most: int = 12) -> SearchStrategy[int]:
    """How many there are of something, at least one."""
    return st.integers(1, most)


def quarters(most: int = 40) -> SearchStrategy[float]:
    """Seconds that floats add up without rounding."""
    return st.integers(0, most).map(lambda number: number / 4)


def progresses() -> SearchStrategy[Progress]:
    """Any point of a run."""
    number = st.integers(0, 50)
    return st.builds(Progress, epoch=number, batch=number, step=number, samples=number, seconds=quarters())


def walks(length: int = 3) -> SearchStrategy[list[Progress]]:
    """Points of one run, one after the other."""
    deltas = st.tuples(st.integers(0, 20), st.booleans(), quarters())

    def walk(start: Progress, moves: list[tuple[int, bool, float]]) -> list[Progress]:
        points = [start]
        for steps, is_over, seconds in moves:
            point = points[-1].advance(steps=steps, seconds=seconds)
            points.append(point.next_epoch() if is_over else point)
        return points

    return st.builds(walk, progresses(), st.lists(deltas, min_size=length - 1, max_size=length - 1))


def cadences(*, with_seconds: bool = True) -> SearchStrategy[Cadence]:
    """Every of each kind, and lists of epochs."""
    clock = [st.builds(Every, seconds=quarters().filter(bool))] if with_seconds else []
    return st.one_of(
        st.builds(Every, steps=counts()),
        st.builds(Every, epochs=counts(4)),
        st.builds(AtEpochs, st.frozensets(counts(8), min_size=1)),
        *clock,
    )


def plans(*, with_seconds: bool = True) -> SearchStrategy[Plan]:
    """Plans of up to six epochs."""
    return st.builds(
        Plan,
        epochs=st.integers(0, 6),
        steps_per_epoch=st.none() | counts(),
        validation=st.none() | cadences(with_seconds=with_seconds),
        max_steps=st.none() | counts(50),
        max_seconds=st.none() | quarters() if with_seconds else st.none(),
    )


def block_lengths() -> SearchStrategy[list[int]]:
    """Lengths of blocks, to be taken in turn."""
    return st.lists(counts(20), min_size=1, max_size=6)

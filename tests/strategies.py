"""Hypothesis strategies that several tests use, and how often a law is tried.

The environment variable `ENGINE_EXAMPLES` multiplies how often, for a run as long as one likes:

```text
ENGINE_EXAMPLES=10 python -m pytest tests/test_equal_to_fit_drawn.py
```
"""

import math
import os
from collections.abc import Collection
from typing import Any

import attrs
import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from numpy.typing import NDArray

from engine.cadence import AtEpochs, Cadence, Every, Plan
from engine.checkpoint.arrays import DTYPES
from engine.progress import Progress
from tests.networks import (
    KINDS,
    LAYERS,
    OPTIMIZERS,
    STRUCTURES,
    Branch,
    Compiled,
    Head,
    Network,
    Run,
    Training,
)


def examples(number: int, *, shrinks: bool = True) -> settings:
    """Tries a law on so many examples (times `ENGINE_EXAMPLES`), always the same ones, however long they take.

    Args:
        number: How many.
        shrinks: Whether a failing example is made smaller, which takes hundreds of tries.
    """
    return settings(
        max_examples=number * int(os.environ.get("ENGINE_EXAMPLES", "1")),
        deadline=None,
        derandomize=True,
        database=None,
        phases=[phase for phase in Phase if shrinks or phase not in (Phase.shrink, Phase.explain)],
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


@st.composite
def stored_arrays(draw: DrawFn, most: int = 6) -> NDArray[Any]:
    """Arrays of every type that checkpoints hold, with any bits; some of no dimension, some empty, some strided."""
    dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
    shape = draw(st.lists(st.integers(0, most), max_size=4))
    size = math.prod(shape) * dtype.itemsize
    raw = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    array = (raw & 1 if dtype.kind == "b" else raw).view(dtype).reshape(shape)
    return array.T if draw(st.booleans()) else array


def facts() -> SearchStrategy[dict[str, Any]]:
    """Facts as checkpoints hold them: Python's plain values, NumPy's scalars and arrays, nested."""
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**4096) + 1, 2**4096 - 1),
        st.floats(),
        st.text(st.characters(exclude_categories=())),
        stored_arrays(2),
        stored_arrays(2).filter(np.size).map(lambda array: array.reshape(-1)[0]),
    )
    keys = st.text() | st.sampled_from(["$", "$$", "$tuple", "$$float", "$array"])
    return st.dictionaries(
        keys,
        st.recursive(
            leaves,
            lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner),
            max_leaves=8,
        ),
        max_size=4,
    )


@st.composite
def networks(draw: DrawFn, kind: str, without: Collection[str] = ()) -> Network:
    """Models of one or two inputs and up to three outputs, one of which has a loss at least.

    Args:
        draw: Hypothesis's own.
        kind: "sequential", "functional" or "subclassed".
        without: Names of layers and losses that are not drawn.
    """
    most = 1 if kind == "sequential" else 3
    branches = draw(st.lists(_branches(without), min_size=1, max_size=min(most, 2)))
    has_steps = any(branch.kind != "vector" for branch in branches)
    kinds = [kind for kind in sorted(KINDS) if has_steps or kind != "steps"]
    heads = draw(
        st.lists(st.sampled_from(kinds).flatmap(lambda kind: _heads(kind, without)), min_size=1, max_size=most)
    )
    if all(head.loss is None for head in heads):
        heads[0] = attrs.evolve(heads[0], loss=draw(st.sampled_from(_left(KINDS[heads[0].kind].losses, without))))
    is_single = len(heads) == 1 and (kind == "sequential" or draw(st.booleans()))
    several = sorted(set(STRUCTURES) - {"single"})
    outputs = "single" if is_single else draw(st.sampled_from(several))
    return Network(kind, tuple(branches), tuple(heads), draw(st.sampled_from(["list", "dict"])), outputs)


@st.composite
def trainings(draw: DrawFn, kind: str, without: Collection[str] = ()) -> Training:
    """Networks, with every form in which Keras lets their losses, metrics and weights be given; a few steps each.

    Args:
        draw: Hypothesis's own.
        kind: Of the network: "sequential", "functional" or "subclassed".
        without: Names of layers and losses that are not drawn.
    """
    network = draw(networks(kind, without))
    heads, forms, are_named = network.heads, ["like the outputs", "flat"], ["like the outputs"]
    if network.kind == "functional" and network.outputs in ("single", "list", "tuple"):
        forms, are_named = [*forms, "by name"], [*are_named, "by name"]
    if len({head.kind for head in heads}) == 1 and heads[0].loss is not None:
        forms.append("one for all")
    weights = ["none", "of outputs"]
    if all(head.kind != "steps" for head in heads):  # Keras cannot multiply (samples, steps) with (samples,)
        weights.append("of samples")
    if network.outputs == "single" and heads[0].kind in ("binary", "classes", "one-hot"):
        weights.append("of classes")
    # Keras fails where one of two optimizers has nothing to learn.
    optimizers = [name for name in sorted(OPTIMIZERS) if name != "two of them" or heads[0].loss is not None]
    compiled = st.builds(
        Compiled,
        losses=st.sampled_from(forms),
        has_loss_weights=st.booleans(),
        metrics=st.sampled_from(are_named),
        optimizer=st.sampled_from(optimizers),
    )
    run = st.builds(
        Run,
        feed=st.sampled_from(["shuffled arrays", "arrays", "dataset"]),
        weights=st.sampled_from(weights),
        num_samples=counts(30),
        num_held_out=st.sampled_from([0, 5, 8]),
        batch_size=st.integers(2, 17),
        epochs=counts(3),
        steps_per_execution=st.sampled_from([1, 2, 5, "auto"]),
    )
    return Training(network, draw(compiled), draw(run))


def _branches(without: Collection[str]) -> SearchStrategy[Branch]:
    return st.sampled_from(sorted(LAYERS)).flatmap(
        lambda kind: st.builds(Branch, st.just(kind), _some(_left(LAYERS[kind], without), most=2))
    )


def _heads(kind: str, without: Collection[str]) -> SearchStrategy[Head]:
    return st.builds(
        Head,
        kind=st.just(kind),
        loss=st.sampled_from([*_left(KINDS[kind].losses, without), None]),
        loss_weight=quarters(8).filter(bool),
        metrics=_some(KINDS[kind].metrics, most=2),
        weighted_metrics=_some(KINDS[kind].metrics, most=1),
    )


def _left(names: Collection[str], without: Collection[str]) -> list[str]:
    return [name for name in sorted(names) if name not in without]


def _some(names: Collection[str], *, most: int) -> SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(sorted(names)), max_size=most, unique=True).map(tuple)

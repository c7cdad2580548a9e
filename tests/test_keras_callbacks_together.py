"""The promise of `test_keras_callbacks.py` for several of Keras's own callbacks at once, in any order."""

import tempfile
from pathlib import Path

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.callback_cases import HOOKS
from tests.callback_runs import BLOCKS, Case, Room, run, side
from tests.observed import assert_alike
from tests.strategies import examples

pytestmark = [pytest.mark.slow, pytest.mark.shares_models]

RATES = st.sampled_from([lambda epoch, rate: rate / 2, lambda epoch, rate: rate * 1.5])
MONITORS = st.sampled_from(["loss", "val_loss", "val_accuracy"])
TOGETHER = {
    "CSVLogger": lambda room, draw: {"filename": room.path / "log.csv"},
    "EarlyStopping": lambda room, draw: {
        "monitor": draw(MONITORS),
        "patience": draw(st.integers(0, 3)),
        "restore_best_weights": draw(st.booleans()),
    },
    "History": lambda room, draw: {},
    "LambdaCallback": lambda room, draw: {
        hook: room.noting(hook) for hook in draw(st.sets(st.sampled_from(HOOKS), min_size=1))
    },
    "LearningRateScheduler": lambda room, draw: {"schedule": draw(RATES), "verbose": 1},
    "ModelCheckpoint": lambda room, draw: {
        "filepath": room.path / "{epoch}.weights.h5",
        "monitor": draw(MONITORS),
        "save_best_only": draw(st.booleans()),
        "save_weights_only": True,
    },
    "ReduceLROnPlateau": lambda room, draw: {
        "monitor": draw(MONITORS),
        "patience": draw(st.integers(1, 2)),
        "cooldown": draw(st.integers(0, 1)),
    },
    "SwapEMAWeights": lambda room, draw: {"swap_on_epoch": draw(st.booleans())},
    "TensorBoard": lambda room, draw: {
        "log_dir": room.path / "logs",
        "histogram_freq": draw(st.integers(0, 2)),
        "update_freq": draw(st.sampled_from(["epoch", 2])),
    },
    "TerminateOnNaN": lambda room, draw: {},
}


@st.composite
def several(draw):
    """Two to five callbacks in any order, and a model whose optimizer they go with."""
    model = draw(st.sampled_from(["plain", "averaging", "many optimizers", "loss scaled"]))
    names = [name for name in TOGETHER if model == "averaging" or name != "SwapEMAWeights"]
    chosen = draw(st.lists(st.sampled_from(names), min_size=2, max_size=5, unique=True))
    blank = Room(Path("DIR"))
    keywords = {name: TOGETHER[name](blank, draw) for name in chosen}
    return model, keywords


def placed(keywords, room):
    """Keywords drawn for no room in particular, for this one."""
    return {
        name: room.noting(name)
        if name.startswith("on_")
        else room.path / value.name
        if isinstance(value, Path)
        else value
        for name, value in keywords.items()
    }


@given(several())
@examples(6)
def test_several_together_do_in_a_trainer_what_they_do_in_fit(drawn):
    """What one of them puts into the logs, the weights or the learning rate, those behind it see."""
    model, (first, *rest) = drawn[0], drawn[1].items()
    case = Case(
        first[0],
        None,
        lambda room: placed(first[1], room),
        model=model,
        others=lambda room: [getattr(keras.callbacks, name)(**placed(keywords, room)) for name, keywords in rest],
    )
    with tempfile.TemporaryDirectory() as directory:
        expected = run(side(model, "keras"), case, Room(Path(directory, "keras")))

        assert expected["error"] is None
        for steps in BLOCKS:
            assert_alike(
                expected, run(side(model, steps), case, Room(Path(directory, str(steps)))), f"blocks of {steps}: "
            )

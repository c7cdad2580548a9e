"""One training with a callback, by `model.fit` or by a Trainer, and all that can be seen of it afterwards.

```python
case = Case("EarlyStopping", "patience", lambda room: {"patience": 2})
expected = run(side("plain", "keras"), case, Room(tmp_path / "theirs"))
given = run(side("plain", 3), case, Room(tmp_path / "ours"))
assert_alike(expected, given)
```
"""

import contextlib
import copy
import functools
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import keras
import numpy as np

from engine import Trainer
from tests.helpers import as_datasets, perceptron, samples, weights_of
from tests.observed import attributes_of, files_of, words_of

X, Y = samples(46, shape=(4,))
X, Y, HELD_OUT = X[:36], Y[:36], (X[36:], Y[36:])  # five batches of at most 8, the last of four
Block = Literal[1, 3, "auto"]
BLOCKS: tuple[Block, ...] = (1, 3, "auto")  # steps_per_execution of the Trainer
By = Literal["keras"] | Block
Make = Callable[[], Any]


@attrs.define(eq=False)
class Side:
    """A model and who trains it: Keras, or a Trainer with blocks of some length.

    Attributes:
        kind: Which of `MODELS` it is.
        by: Who trains it.
        model: Compiled and built.
        runner: What has `fit`, `evaluate` and `predict`: the model or a Trainer of it.
    """

    kind: str
    by: By
    model: keras.Model = attrs.field(init=False)
    runner: Any = attrs.field(init=False)
    _start: list[Any] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Makes the model anew, never trained and its optimizer not built, as a new process would."""
        keras.utils.clear_session(free_memory=False)  # layers get the same names on all sides
        with precision_of(self.kind):
            self.model = MODELS[self.kind]()
        self.runner = self.model if self.by == "keras" else Trainer(self.model, steps_per_execution=self.by)

    def keep_start(self) -> None:
        """Builds the optimizer, and keeps what `restore` goes back to."""
        self.model.optimizer.build(self.model.trainable_variables)
        self._start = weights_of(self.model)

    def restore(self) -> None:
        """Puts everything back to where it began, as if in a new process; the steps stay traced."""
        for variable, value in zip((*self.model.variables, *self.model.optimizer.variables), self._start, strict=True):
            variable.assign(value)
        self.model._initial_epoch = None  # Keras keeps what BackupAndRestore set: "Differences from Keras", Control
        self.model.__dict__.pop("history", None)

    def fit(self, callbacks: Any, **arguments: Any) -> Any:
        chosen = {"x": X, "y": Y, "batch_size": 8, "validation_data": HELD_OUT}
        chosen |= {"epochs": 6, "shuffle": False, "verbose": 0} | arguments
        if self.by == "keras" and chosen["x"] is X:
            chosen = as_datasets(**chosen)
        return self.runner.fit(**chosen, callbacks=callbacks)


@attrs.define(eq=False)
class Room:
    """Where one training leaves its files and notes.

    Attributes:
        path: A directory of its own.
        model: What is trained.
        notes: What callbacks have noted, in order.
        states: The plain attributes of the callback under test at the end of every epoch.
    """

    path: Path
    model: keras.Model = attrs.field(default=None)
    notes: list[Any] = attrs.field(factory=list)
    states: list[Any] = attrs.field(factory=list)

    def noting(self, hook: str) -> Callable[..., None]:
        """A hook that notes that it was called, with what, and where the optimizer stood."""

        def note(*arguments: Any, **named: Any) -> None:
            *numbers, logs = (*arguments, *named.values())
            logs = {name: value if isinstance(value, float) else np.asarray(value) for name, value in logs.items()}
            self.notes.append((hook, *numbers, logs, int(self.model.optimizer.iterations), *rates_of(self.model)))

        return note


class Watch(keras.callbacks.Callback):
    """Notes what the callbacks before it have made of the model; it has no batch hook, so that blocks stay long."""

    def __init__(self, room: Room, subjects: list[Any]) -> None:
        super().__init__()
        self.room, self.subjects = room, subjects

    def _note(self, hook: str, logs: Any) -> None:
        is_stopped, weights = self.model.stop_training, self.model.get_weights()
        self.room.notes.append((hook, dict(logs or {}), rates_of(self.model), is_stopped, weights))

    def on_train_begin(self, logs: Any = None) -> None:
        self.room.notes.append(("params", self.params))
        self._note("on_train_begin", logs)

    def on_train_end(self, logs: Any = None) -> None:
        self._note("on_train_end", logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._note(f"on_epoch_begin {epoch}", logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._note(f"on_epoch_end {epoch}", logs)
        self.room.states.append([attributes_of(subject, self.room.path) for subject in self.subjects])

    def on_test_begin(self, logs: Any = None) -> None:
        self._note("on_test_begin", logs)

    def on_test_end(self, logs: Any = None) -> None:
        self._note("on_test_end", logs)

    def on_predict_begin(self, logs: Any = None) -> None:
        self._note("on_predict_begin", logs)

    def on_predict_end(self, logs: Any = None) -> None:
        self._note("on_predict_end", logs)


def rates_of(model: keras.Model) -> list[float]:
    """The learning rate, or those of all optimizers in one."""
    return [float(own.learning_rate) for own in getattr(model.optimizer, "optimizers", [model.optimizer])]


def once(side: Side, room: Room, make: Make, **arguments: Any) -> Any:
    """One fit."""
    return side.fit(make(), **arguments)


def twice(side: Side, room: Room, make: Make, **arguments: Any) -> Any:
    """Two fits with the very same callbacks."""
    callbacks = make()
    side.fit(callbacks, **arguments)
    return side.fit(callbacks, **arguments)


def from_new(side: Side, room: Room, make: Make, *, times: int = 1, **arguments: Any) -> Any:
    """A script run so many times: a model that was never trained, its optimizer not built, and new callbacks."""
    for _ in range(times):
        side.renew()
        room.model = side.model
        history = side.fit(make(), **arguments)
    return history


def evaluated(side: Side, room: Room, make: Make, **arguments: Any) -> None:
    """An evaluation after a short training."""
    side.fit(None, epochs=2)
    callbacks = make()
    room.notes.append(
        side.runner.evaluate(*HELD_OUT, 4, callbacks=callbacks, return_dict=True, **{"verbose": 0} | arguments)
    )
    for callback in callbacks if isinstance(callbacks, list) else []:
        if isinstance(callback, keras.callbacks.TensorBoard):
            callback._close_writers()  # Keras leaves it open after an evaluation


def predicted(side: Side, room: Room, make: Make, **arguments: Any) -> None:
    """A prediction after a short training."""
    side.fit(None, epochs=2)
    room.notes.append(side.runner.predict(HELD_OUT[0], 4, callbacks=make(), **{"verbose": 0} | arguments))


def forget_endings(room: Room) -> None:
    """Drops what was noted of `on_train_end` after an error, where Keras does not call it.

    "Differences from Keras", Control: every callback gets `on_train_end`, once, on every way out.
    """
    while room.notes and room.notes[-1][0] == "on_train_end":
        room.notes.pop()


@attrs.frozen
class Case:
    """A callback with a parameter that is not its default, and the same without it.

    Attributes:
        callback: Its name in `keras.callbacks`.
        parameter: Which one is tried; None: what is tried is the callback itself, or `also`.
        given: Makes all keywords of the callback, the one that is tried among them.
        instead: The value to compare a required parameter's with; see `is_required`.
        also: What is tried, if it is no parameter, or not the only case of its parameter.
        model: Which of `MODELS` is trained.
        others: Makes callbacks that stand behind it.
        fit: Arguments of `fit`.
        train: `once`, `twice` or another way to train.
        is_effective: Whether the parameter does anything that can be seen.
        but: Effects that are not compared, because Keras's loop is wrong there: see "Differences from Keras".
        blocks: Of the Trainers; those without any are given some by `in_turn`.
    """

    callback: str
    parameter: str | None
    given: Callable[[Room], dict[str, Any]] = lambda room: {}
    instead: Callable[[Room], Any] | None = None
    also: str = ""
    model: str = "plain"
    others: Callable[[Room], list[Any]] = lambda room: []
    fit: dict[str, Any] = attrs.field(factory=dict)
    train: Callable[..., Any] = once
    error: str | None = None
    is_effective: bool = True
    but: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()

    @property
    def name(self) -> str:
        """Under which tests report it."""
        return f"{self.callback}({self.parameter or ''})" + (f", {self.also}" if self.also else "")

    def without(self) -> "Case":
        """The same with the parameter's default, or with another value where there is no default."""

        def keywords(room: Room) -> dict[str, Any]:
            given = self.given(room)
            if self.instead is not None:
                return given | {self.parameter: self.instead(room)}
            if self.parameter in ("kwargs", "params"):
                named = getattr(keras.callbacks, self.callback).__init__.__code__.co_varnames
                return {name: value for name, value in given.items() if name in named}
            return {name: value for name, value in given.items() if name != self.parameter}

        return attrs.evolve(self, given=keywords, instead=None)

    def callbacks(self, room: Room) -> Any:
        """What is given to `fit`."""
        subject = getattr(keras.callbacks, self.callback)(**self.given(room))
        if self.callback == "CallbackList":
            return subject
        others = self.others(room)
        return [subject, *others, Watch(room, [subject, *others])]


def in_turn(cases: Sequence[Case]) -> list[Case]:
    """The cases, each with blocks: those of a callback take turns, but for models that have blocks of their own.

    Callbacks with fewer cases than there are blocks have all of them in each.
    """
    taken: dict[str, list[Case]] = {}
    for case in cases:
        if not case.blocks and case.model not in BLOCK_OF:
            taken.setdefault(case.callback, []).append(case)

    def blocks_of(case: Case) -> tuple[Block, ...]:
        if case.blocks or case.model in BLOCK_OF:
            return case.blocks or (BLOCK_OF[case.model],)
        turn = taken[case.callback].index(case) % len(BLOCKS)
        return BLOCKS if len(taken[case.callback]) < len(BLOCKS) else (BLOCKS[turn],)

    return [attrs.evolve(case, blocks=blocks_of(case)) for case in cases]


def run(side: Side, case: Case, room: Room) -> dict[str, Any]:
    """Trains, and returns all that can be seen of it: `effects`, `states` (of the callbacks), and the `error`."""
    room.path.mkdir()
    side.restore()
    side = copy.copy(side)  # a way to train may give it another model
    room.model = side.model
    printed, error, history = io.StringIO(), None, None
    with contextlib.redirect_stdout(printed), precision_of(case.model):
        try:
            history = case.train(side, room, lambda: case.callbacks(room), **case.fit)
        except Exception as raised:
            error = (type(raised).__name__, str(raised).replace(str(room.path), "DIR"))
            forget_endings(room)
        files = files_of(room.path)
    effects: dict[str, Any] = {
        "history": None if history is None else history.history,
        "epochs": None if history is None else history.epoch,
        "weights": weights_of(side.model),
        "notes": room.notes,
        "printed": words_of(printed.getvalue(), room.path),
        "files": files,
    }
    effects = {name: effect for name, effect in effects.items() if name not in case.but}
    return {"effects": effects, "states": room.states, "error": error}


def ema() -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(1.0, momentum=0.9, use_ema=True, ema_momentum=0.7)


def many() -> keras.optimizers.Optimizer:
    kernels, biases = keras.optimizers.SGD(1.0, 0.9, name="slow"), keras.optimizers.Adam(0.1, name="fast")
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(default_optimizer=kernels, optimizer_map={".*bias": biases})
    )


def embedding(**compile_arguments: Any) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([
        keras.Input((4,)), keras.layers.Embedding(5, 3), keras.layers.Flatten(), keras.layers.Dense(3, "softmax"),
    ])  # fmt: skip
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@contextlib.contextmanager
def precision_of(kind: str) -> Iterator[None]:
    """Keras set to the precision of a model, in which it has to be made and loaded."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16" if kind.startswith("loss scaled") else policy)
    yield
    keras.config.set_dtype_policy(policy)


MODELS: dict[str, Callable[[], keras.Model]] = {
    "plain": lambda: perceptron(optimizer=keras.optimizers.SGD(1.0, momentum=0.9)),  # its curves go up and down
    "averaging": lambda: perceptron(optimizer=ema()),
    "many optimizers": lambda: perceptron(optimizer=many()),
    "loss scaled": lambda: perceptron(optimizer=keras.optimizers.SGD(0.5, momentum=0.9)),
    "loss scaled and averaging": lambda: perceptron(optimizer=ema()),
    "a schedule": lambda: perceptron(
        optimizer=keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(1.0, 5, 0.5))
    ),
    "embedding": embedding,
}


# Of the models with few cases, so that they are traced once.
BLOCK_OF: dict[str, Block] = {
    "averaging": "auto",
    "many optimizers": 1,
    "loss scaled": 3,
    "loss scaled and averaging": "auto",
    "a schedule": 1,
    "embedding": 3,
}


@functools.cache
def side(kind: str, by: By) -> Side:
    """One for all: traced once, so that a fit takes milliseconds; `Side.restore` makes it as good as new."""
    made = Side(kind, by)
    made.keep_start()
    return made

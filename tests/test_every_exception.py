"""The promise: an error of a callback, whatever it is and wherever it rises, comes out as it is and closes all."""

import csv
import io
import os
import sys

import keras
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tqdm import tqdm

from engine import Callback, Trainer
from engine.callbacks import TensorBoard, Timer
from tests.helpers import HOOKS, NUM_CLASSES, assert_bit_equal, perceptron, samples, weights_of

pytestmark = pytest.mark.shares_models

X, Y = samples(22, shape=(4,))  # three batches of at most 8
SETTERS = ["set_params", "set_model"]
IN_FIT = [hook for hook in HOOKS if "predict" not in hook]
IN_EVALUATE = [hook for hook in HOOKS if "test" in hook]
IN_PREDICT = [hook for hook in HOOKS if "predict" in hook]
RUNS = {"fit": IN_FIT, "evaluate": IN_EVALUATE, "predict": IN_PREDICT}
PLACES = [(run, hook) for run, hooks in RUNS.items() for hook in hooks]
NAMES = ["front", "middle", "behind"]


class OwnError(Exception):
    """Somebody's own kind."""


class PrunedError(Exception):
    """Like optuna's: cannot be made again from its message alone."""

    def __init__(self, trial, *, value):
        super().__init__(f"{trial}: {value}")
        self.trial = trial


ERRORS = {
    "ValueError": lambda: ValueError("mine"),
    "own": lambda: OwnError("mine"),
    "StopIteration": lambda: StopIteration("mine"),
    "StopAsyncIteration": lambda: StopAsyncIteration("mine"),
    "GeneratorExit": lambda: GeneratorExit("mine"),
    "OutOfRangeError": lambda: tf.errors.OutOfRangeError(None, None, "mine"),
    "ResourceExhaustedError": lambda: tf.errors.ResourceExhaustedError(None, None, "mine"),
    "KeyboardInterrupt": lambda: KeyboardInterrupt("mine"),
    "SystemExit": lambda: SystemExit(3),
    "MemoryError": lambda: MemoryError("mine"),
    "pruned": lambda: PrunedError(7, value=0.5),
}


class Witness(Callback):
    """Tells a list of every hook that it gets, and raises from one, `after` so many calls of it."""

    def __init__(self, name, calls, *, hook=None, error=None, after=0, acts=False):
        super().__init__()
        self.name, self.calls, self.acts_on_batches = name, calls, acts
        self.hook, self.error, self.left, self.context = hook, error, after, KeyError("was handled just then")

    def reach(self, hook):
        self.calls.append((self.name, hook))
        if hook != self.hook:
            return
        self.left -= 1
        if self.left < 0:
            try:
                raise self.context
            except KeyError:
                raise self.error from self.context

    def set_params(self, params):
        super().set_params(params)
        self.reach("set_params")

    def set_model(self, model):
        super().set_model(model)
        self.reach("set_model")


def _reaching(hook):
    return lambda self, *arguments, **named: self.reach(hook)


for _hook in (*HOOKS, "on_exception"):
    setattr(Witness, _hook, _reaching(_hook))


@pytest.fixture(scope="module")
def trainers():
    """One for each length of blocks: traced once, so that a run takes milliseconds."""
    return {steps: Trainer(perceptron(), steps_per_execution=steps) for steps in (1, "auto")}


def call(trainer, run, callbacks, **arguments):
    arguments = {"batch_size": 8, "verbose": 0, "callbacks": callbacks} | arguments
    if run == "fit":
        return trainer.fit(X, Y, validation_data=(X, Y), **arguments)
    return trainer.evaluate(X, Y, **arguments) if run == "evaluate" else trainer.predict(X, **arguments)


def fail(trainer, run, error, callbacks, **arguments):
    with pytest.raises(type(error)) as caught:
        call(trainer, run, callbacks, **arguments)

    assert error is caught.value
    return error


def closings(run, hook):
    """Who must be told what, in order, of an error in a hook of the one in the middle."""
    phase = "predict" if run == "predict" else "test"
    begun = NAMES[:2] if hook.endswith(("_test_begin", "_predict_begin")) else NAMES
    nested = [(name, f"on_{phase}_end") for name in begun] if f"_{phase}_" in hook else []
    told = [] if hook == "on_train_end" else [(name, "on_exception") for name in NAMES]
    first = [*nested, *told] if hook.endswith(f"_{phase}_end") else [*told, *nested]
    return [*first, *([(name, "on_train_end") for name in NAMES] if run == "fit" else [])]


def closings_seen(calls, hook):
    """What was told from the error on, of what closes; validations that ended before it are left out."""
    last = max(index for index, call in enumerate(calls) if call == ("middle", hook))
    begin = last if hook.endswith("begin") or "batch" in hook else calls.index(("front", hook))
    ends = ("on_exception", "on_train_end", "on_test_end", "on_predict_end")
    return [call for call in calls[begin:] if call[1] in ends]


@pytest.mark.parametrize(("run", "hook"), PLACES)
def test_the_very_error_comes_out_and_everybody_is_closed_once(trainers, run, hook):
    """Each kind of error, raised by one that looks, in blocks of one step and longer ones, or by one that acts."""
    for steps, acts in ((1, False), ("auto", False), ("auto", True)):
        for make in ERRORS.values():
            calls, error = [], make()
            middle = Witness("middle", calls, hook=hook, error=error, acts=acts)
            fail(trainers[steps], run, error, [Witness("front", calls), middle, Witness("behind", calls)])

            assert closings(run, hook) == closings_seen(calls, hook)
            assert [f"Raised in {hook} of the callback Witness."] == error.__notes__
            assert middle.context is error.__context__ is error.__cause__


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("hook", SETTERS)
def test_an_error_before_anything_has_begun_ends_nothing_that_never_began(trainers, run, hook):
    for make in ERRORS.values():
        calls, error = [], make()
        callbacks = [Witness("front", calls), Witness("middle", calls, hook=hook, error=error), Witness("behind", [])]
        fail(trainers["auto"], run, error, callbacks)

        assert [("front", "set_params"), ("front", "set_model"), ("middle", "set_params")] == calls[:3]
        assert not [call for call in calls if call[1] not in ("set_params", "set_model", "on_exception")]
        assert callbacks[1].context is error.__context__ is error.__cause__


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("hook", SETTERS)
def test_an_error_before_anything_has_begun_is_named_too(trainers, run, hook):
    error = OwnError("mine")
    fail(trainers["auto"], run, error, [Witness("middle", [], hook=hook, error=error)])

    assert [f"Raised in {hook} of the callback Witness."] == getattr(error, "__notes__", [])


ENDINGS = ["its end", "an error in a hook", "an error in a setter", "an error at the door"]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_callback_is_out_of_the_run_whatever_ended_it(trainers, run, ending):
    """`model.fit` may use it next, and it must not take that for a Trainer's."""
    callback, hook = Callback(), {"an error in a hook": RUNS[run][0], "an error in a setter": "set_model"}.get(ending)
    if ending == "its end":
        call(trainers["auto"], run, [callback])
    elif hook is not None:
        error = OwnError("mine")
        fail(trainers["auto"], run, error, [callback, Witness("middle", [], hook=hook, error=error)])
    else:
        targets = [] if run == "predict" else [Y]
        with pytest.raises(ValueError, match=r"x|shape"):
            getattr(trainers["auto"], run)(X[:, :3], *targets, verbose=0, callbacks=[callback])

    assert not callback.in_trainer


@pytest.mark.parametrize(("run", "hook"), PLACES)
def test_a_timer_that_wraps_every_hook_changes_nothing_of_it(trainers, run, hook):
    for kind in ("StopIteration", "GeneratorExit", "OutOfRangeError", "pruned"):
        calls, error = [], ERRORS[kind]()
        middle = Witness("middle", calls, hook=hook, error=error)
        callbacks = [Timer(verbose=0), Witness("front", calls), middle, Witness("behind", calls)]
        fail(trainers["auto"], run, error, callbacks)

        assert closings(run, hook) == closings_seen(calls, hook)
        assert [f"Raised in {hook} of the callback Witness."] == error.__notes__


CLOSING = {
    "on_exception of two": ("on_epoch_end", {"front": "on_exception", "behind": "on_exception"}),
    "on_train_end of two": ("on_epoch_end", {"front": "on_train_end", "behind": "on_train_end"}),
    "one of each": ("on_train_batch_end", {"front": "on_train_end", "behind": "on_exception"}),
    "on_test_end": ("on_test_batch_end", {"front": "on_test_end", "behind": "on_test_end"}),
    "of a normal end": ("on_train_end", {"behind": "on_train_end"}),
    "of an evaluation's normal end": ("on_test_end", {"behind": "on_test_end"}),
}


@pytest.mark.parametrize("case", CLOSING)
def test_of_several_errors_the_first_comes_out_and_the_others_are_noted_on_it(trainers, case):
    """Also where a later one is Ctrl-C, or StopIteration; everybody is closed all the same."""
    hook, closers = CLOSING[case]
    for kind in ("own", "KeyboardInterrupt", "StopIteration"):
        calls, first = [], ValueError("first")
        later = {name: ERRORS[kind]() for name in closers}
        callbacks = [
            Witness(name, calls, hook=closers.get(name), error=later.get(name))
            if name != "middle"
            else Witness(name, calls, hook=hook, error=first)
            for name in NAMES
        ]
        fail(trainers["auto"], "fit", first, callbacks)
        noted = {note for note in first.__notes__ if note.startswith("A callback failed as well")}
        expected = {f"A callback failed as well while it was closed: {error!r}" for error in later.values()}

        assert closings("fit", hook) == closings_seen(calls, hook)
        assert f"Raised in {hook} of the callback Witness." == first.__notes__[0]
        assert expected == noted
        assert 1 + len(later) == len(first.__notes__)


AFTER = {"on_epoch": 1, "on_test_begin": 1, "on_test_end": 1, "on_train_batch": 4, "on_test_batch": 4}  # second epoch


def calls_before(hook):
    return next((count for prefix, count in AFTER.items() if hook.startswith(prefix)), 0)


def epochs_ended(hook):
    """Epochs whose end was told to those in front and to those behind."""
    if hook in ("on_train_begin", *SETTERS):
        return 0, 0
    return {"on_epoch_end": (2, 1), "on_train_end": (2, 2)}.get(hook, (1, 1))


def open_files(folder):
    """What this process holds open of a folder."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # the listing's own
            continue
        if path.startswith(str(folder)):
            found.append(path)
    return found


def events_of(folder):
    """The events of a folder's files, read by TensorBoard; TensorFlow, which refuses half a record, finds as many."""
    files = sorted(str(path) for path in folder.rglob("events.out*"))
    events = [event for file in files for event in EventFileLoader(file).Load()]

    assert sum(1 for _ in tf.data.TFRecordDataset(files)) == len(events) if files else not events
    return events


def epochs_in(folder):
    """Points of the training's curve of the loss, an epoch each."""
    return sum(value.tag == "epoch_loss" for event in events_of(folder / "train") for value in event.summary.value)


class Screen(io.StringIO):
    """A terminal, on which a bar is drawn."""

    def isatty(self):
        return True


@pytest.mark.parametrize("hook", [*SETTERS, *IN_FIT])
@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "StopIteration"])
def test_files_are_whole_and_closed_and_no_bar_is_left(trainers, tmp_path, monkeypatch, capsys, hook, kind):
    """Those of writers in front and behind; the second of two epochs fails where the hook has any."""
    writers = {name: _writers_in(tmp_path / name) for name in ("front", "behind")}
    middle = Witness("middle", [], hook=hook, error=ERRORS[kind](), after=calls_before(hook))
    callbacks = [writers["front"], middle, writers["behind"]]
    monkeypatch.setattr(sys, "stderr", Screen())
    fail(trainers["auto"], "fit", middle.error, callbacks, epochs=2, verbose=1)

    assert [] == open_files(tmp_path)
    assert not tqdm._instances
    for folder, epochs in zip((tmp_path / "front", tmp_path / "behind"), epochs_ended(hook), strict=True):
        assert epochs == epochs_in(folder / "ours") == epochs_in(folder / "theirs")
        lines = list(csv.DictReader((folder / "log.csv").read_text().splitlines())) if epochs else []
        assert [str(epoch) for epoch in range(epochs)] == [line["epoch"] for line in lines]
        assert all(float(line["val_loss"]) > 0 and None not in line for line in lines)


def _writers_in(folder):
    folder.mkdir()
    return [
        keras.callbacks.CSVLogger(str(folder / "log.csv")),
        TensorBoard(folder / "ours", write_graph=False),
        keras.callbacks.TensorBoard(str(folder / "theirs"), write_graph=False),
    ]


@pytest.mark.parametrize("run", ["evaluate", "predict"])
def test_no_bar_is_left_of_an_evaluation_or_a_prediction_either(trainers, monkeypatch, capsys, run):
    for hook in [*SETTERS, *RUNS[run]]:
        middle = Witness("middle", [], hook=hook, error=OwnError("mine"))
        monkeypatch.setattr(sys, "stderr", Screen())
        fail(trainers["auto"], run, middle.error, [middle], verbose=1)

        assert not tqdm._instances


def regularised():
    """What a half-done training could spoil: weights, momentum, dropout's seed, statistics, a metric with state."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([
        keras.Input((4,)),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(NUM_CLASSES, activation="softmax"),
    ])  # fmt: skip
    union = keras.metrics.MeanIoU(NUM_CLASSES, sparse_y_pred=False, name="union")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy", union])
    return model


def next_fit(trainer):
    """What a fit comes to, which is undone."""
    with trainer.transaction():
        history = trainer.fit(X, Y, batch_size=8, validation_data=(X, Y), verbose=0).history
        return history, weights_of(trainer.model)


def test_after_a_failed_run_in_a_transaction_the_same_trainer_trains_as_a_fresh_one():
    """Bit by bit, though both draw the order of the samples from NumPy's generator."""
    keras.utils.set_random_seed(2)
    expected_history, expected_weights = next_fit(Trainer(regularised()))
    keras.utils.set_random_seed(2)
    trainer = Trainer(regularised())
    for run, hooks in RUNS.items():
        for hook in (*SETTERS, *hooks):
            after = calls_before(hook) if run == "fit" else 0
            middle = Witness("middle", [], hook=hook, error=OwnError("mine"), after=after)
            with pytest.raises(OwnError), trainer.transaction():
                call(trainer, run, [middle], **({"epochs": 2} if run == "fit" else {}))
            history, weights = next_fit(trainer)

            assert expected_history == history, (run, hook)
            assert_bit_equal(expected_weights, weights)


def test_a_failed_fit_outside_a_transaction_leaves_its_steps_and_nothing_half_done(trainers):
    """The weights are those of the steps done; metrics are free for the next evaluation."""
    failed, trainer = perceptron(), Trainer(perceptron(), seed=3, steps_per_execution=1)
    middle = Witness("middle", [], hook="on_train_batch_end", error=OwnError("mine"), after=1)
    with pytest.raises(OwnError):
        Trainer(failed, seed=3, steps_per_execution=1).fit(X, Y, batch_size=8, verbose=0, callbacks=[middle])
    trainer.fit(X, Y, batch_size=8, verbose=0, max_steps=2)
    expected = trainer.evaluate(X, Y, verbose=0)

    assert_bit_equal(weights_of(trainer.model), weights_of(failed))
    assert expected == Trainer(failed).evaluate(X, Y, verbose=0)

"""Where the time went: nothing is counted twice, and what is said was counted otherwise as well."""

import re
import time
import warnings
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Callback, Checkpointer, Every, Trainer
from engine.callbacks import LossHistory
from engine.report import Blocks
from tests.helpers import Recorder, perceptron, samples

X, Y = samples(43, shape=(4,))  # six batches of 8
FIT = {"batch_size": 8, "verbose": 0}
BATCH_SECS = 0.02


class Sleeps(Callback):
    def on_epoch_begin(self, epoch, logs=None):
        time.sleep(0.05)

    def get_state(self):
        return {}


class Looks(Callback):
    """Listens to every batch, but lets blocks be as long as they are."""

    def on_train_batch_end(self, batch, logs=None):
        pass

    def get_state(self):
        return {}


class Slow(keras.utils.PyDataset):
    """Batches that take twenty milliseconds each; as many as make more than two seconds."""

    def __init__(self, batches=110):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        time.sleep(BATCH_SECS)
        return X[:8], Y[:8]


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)


def parts_of(run):
    """Every part of the whole."""
    callbacks = [callback.seconds for callback in run.callbacks]
    return [run.opening_secs, run.tracing_secs, run.steps_secs, run.validation_secs, run.saving_secs, *callbacks]


def seconds_in(text):
    """The table's rows: name -> seconds."""
    rows = re.findall(r"^(\S.*?|  of that, .*?)\s+(-?[\d.]+) s\s+-?[\d.]+ %", text, re.MULTILINE)
    return {name: float(seconds) for name, seconds in rows}


def told_of_waiting(record):
    return [str(warning.message) for warning in record if "waited for data" in str(warning.message)]


KINDS = {
    "arrays": lambda epochs: {"x": X, "y": Y, "batch_size": 8},
    "a dataset": lambda epochs: {"x": dataset()},
    "a dataset of unknown length": lambda epochs: {"x": dataset().filter(lambda *_: True)},
    "an iterator": lambda epochs: {"x": iter([(X[:8], Y[:8])] * 6 * epochs), "steps_per_epoch": 6},
}


@pytest.fixture(scope="module")
def trainer():
    return Trainer(perceptron(), steps_per_execution=4)


def test_before_anything_was_run_the_report_is_empty():
    report = Trainer(perceptron()).report()

    assert (None, None, None, ()) == (report.fit, report.evaluate, report.predict, report.traces)
    assert "Nothing was run yet: call fit, evaluate or predict." == str(report)


def test_the_import_is_in_it_and_how_much_of_that_is_of_keras(trainer):
    trainer.fit(X, Y, **FIT)
    report = trainer.report()

    assert 0 < report.keras_secs < report.import_secs
    assert report == trainer.report()  # nothing goes on counting
    assert re.search(r"\nimport engine: \d+\.\d\d s, of that Keras and TensorFlow \d+\.\d\d s$", str(report))


@settings(max_examples=8, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    epochs=st.integers(1, 3),
    validates=st.booleans(),
    callbacks=st.lists(st.sampled_from([Looks, LossHistory, Recorder, Sleeps]), max_size=3, unique=True),
)
def test_the_parts_never_exceed_the_whole(trainer, kind, epochs, validates, callbacks):
    validation = {"validation_data": (X, Y)} if validates else {}
    listeners = [make() for make in callbacks]
    begin = time.perf_counter()
    trainer.fit(**KINDS[kind](epochs), epochs=epochs, callbacks=listeners, verbose=0, **validation)
    seconds = time.perf_counter() - begin
    run = trainer.report().fit

    assert all(part >= 0 for part in parts_of(run))
    assert sum(parts_of(run)) <= run.whole_secs <= seconds
    assert run.rest_secs >= 0
    assert 0 < run.first_step_secs < run.whole_secs
    assert 6 * epochs == run.blocks.steps
    assert (epochs if validates else 0) == run.num_validations
    assert (kind == "arrays") == (run.waited_secs is None)
    assert run.waited_secs is None or 0 <= run.waited_secs <= run.steps_secs


def test_blocks_calls_and_stops_are_counted(trainer):
    """Two blocks an epoch; a validation and the hooks of an epoch's ends stand between the same two blocks."""
    first, second = Looks(), Looks()
    trainer.fit(X, Y, epochs=3, callbacks=[first, second], **FIT)
    report = trainer.report().fit
    looks = {callback.name: (callback.calls, callback.stops) for callback in report.callbacks}

    assert Blocks(number=6, steps=18, shortest=2, median=4, longest=4) == report.blocks
    # set_params, set_model, on_train_begin, on_train_end; an epoch's begin and end; batches. Before the first block,
    # and behind each of the six.
    assert (4 + 3 * 2 + 18, 7) == looks["Looks"] == looks["Looks 2"]


def test_a_callback_that_acts_makes_the_loop_wait_behind_each_step(trainer):
    trainer.fit(X, Y, epochs=2, callbacks=[Recorder()], **FIT)
    report = trainer.report().fit

    assert Blocks(number=12, steps=12, shortest=1, median=1, longest=1) == report.blocks
    assert [13] == [callback.stops for callback in report.callbacks if callback.name == "Recorder"]


def test_what_a_callback_spends_is_its_own(trainer):
    trainer.fit(X, Y, epochs=2, callbacks=[Sleeps(), Looks()], **FIT)
    report = trainer.report().fit

    assert "Sleeps" == report.callbacks[0].name
    assert 0.1 <= report.callbacks[0].seconds <= report.whole_secs
    assert [callback.seconds for callback in report.callbacks] == sorted(
        (callback.seconds for callback in report.callbacks), reverse=True
    )


def test_saving_is_counted(tmp_path):
    trainer = Trainer(perceptron(), checkpoints=Checkpointer(tmp_path / "run", every=Every(steps=3)))
    trainer.fit(X, Y, epochs=1, **FIT)
    report = trainer.report().fit

    assert 4 == report.num_saves  # the beginning, steps 3 and 6, and the end
    assert 0 < report.saving_secs < report.whole_secs


def test_each_kind_of_call_has_a_report_of_its_own():
    trainer = Trainer(perceptron(), steps_per_execution=3)
    trainer.fit(X, Y, epochs=2, **FIT)
    fitted = trainer.report()
    trainer.evaluate(X, Y, batch_size=8, verbose=0)
    trainer.predict(X, batch_size=8, verbose=0)
    report = trainer.report()

    assert (None, None) == (fitted.evaluate, fitted.predict)
    assert fitted.fit == report.fit
    for run in (report.evaluate, report.predict):
        assert Blocks(number=2, steps=6, shortest=3, median=3, longest=3) == run.blocks
        assert 0 <= sum(parts_of(run)) <= run.whole_secs
        assert 0 == run.validation_secs


def test_an_evaluation_by_a_callback_is_the_time_of_that_callback(trainer):
    class Evaluates(Callback):
        def on_epoch_end(self, epoch, logs=None):
            trainer.evaluate(X, Y, batch_size=8, verbose=0)
            self.report = trainer.report()

    callback = Evaluates()
    trainer.fit(X, Y, epochs=1, callbacks=[callback], **FIT)
    report = trainer.report()
    own = {callback.name: callback.seconds for callback in report.fit.callbacks}

    assert "Evaluates" in own
    assert callback.report.evaluate.whole_secs <= own["Evaluates"] <= report.fit.whole_secs
    assert 6 == callback.report.fit.blocks.steps  # of a fit under way
    assert callback.report.fit.whole_secs < report.fit.whole_secs


def test_after_an_error_the_report_is_of_as_far_as_the_fit_came(trainer):
    class Fails(Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                time.sleep(0.05)
                raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        trainer.fit(X, Y, epochs=5, callbacks=[Fails()], **FIT)
    failed = trainer.report().fit
    with pytest.raises(ValueError, match="0 samples"):
        trainer.fit(X[:0], Y[:0], **FIT)
    unopened = trainer.report().fit

    assert 12 == failed.blocks.steps
    assert 0.05 <= failed.callbacks[0].seconds <= failed.whole_secs
    assert sum(parts_of(failed)) <= failed.whole_secs
    assert (0, None) == (unopened.blocks.number, unopened.first_step_secs)
    assert "fit: 0.00 s, 0 steps\n" in str(unopened)


def test_the_table_sums_to_the_whole_and_fits_a_screen(trainer, tmp_path):
    trainer.checkpoints = Checkpointer(tmp_path / "run")
    callbacks = [Sleeps(), Looks(), LossHistory()]
    trainer.fit(dataset(), epochs=2, callbacks=callbacks, validation_data=(X, Y), verbose=0)
    trainer.checkpoints = None
    text = str(trainer.report().fit)
    rows = seconds_in(text)
    whole = rows.pop("whole")
    waiting = rows.pop("  of that, waiting for data")

    assert {"opening data, building the model", "tracing", "steps", "validation", "saving", "everything else"} | {
        f"callbacks/{name}" for name in ("Sleeps", "Looks", "LossHistory", "History")
    } == set(rows)
    assert abs(whole - sum(rows.values())) <= 0.006 * len(rows)  # each is rounded
    assert waiting <= rows["steps"]
    assert re.match(r"fit: \d+\.\d\d s, 12 steps; the first block done after \d+\.\d\d s\n", text)
    assert max(map(len, text.splitlines())) <= 120


@given(st.lists(st.integers(1, 100), min_size=1))
def test_blocks_are_told_by_their_shortest_middle_and_longest(lengths):
    blocks = Blocks.of(Counter(lengths))

    assert (len(lengths), sum(lengths), min(lengths), max(lengths)) == (
        blocks.number,
        blocks.steps,
        blocks.shortest,
        blocks.longest,
    )
    assert np.sort(lengths)[len(lengths) // 2] == blocks.median


@pytest.mark.parametrize("callbacks", [(), (Recorder,)], ids=["blocks", "single steps"])
def test_input_slower_than_the_model_is_told_once_with_the_figure_and_the_cure(callbacks):
    """In the compiled loop, and where a callback acts on batches and each is asked for by itself."""
    trainer = Trainer(perceptron())
    with pytest.warns(UserWarning, match="waited for data") as record:
        trainer.fit(Slow(), epochs=1, callbacks=[make() for make in callbacks], verbose=0)
    (message,) = told_of_waiting(record)

    assert int(re.search(r"^The loop waited for data (\d+) % of the last 1\.\d s \(", message)[1]) > 50
    assert message.endswith(
        "the input pipeline is slower than the model. Make the PyDataset with more workers, "
        "super().__init__(workers=4); with use_multiprocessing=True too where Python itself does the work. Or give "
        "arrays."
    )
    assert trainer.report().fit.waited_secs > 60 * BATCH_SECS


def test_input_as_fast_as_the_model_is_not_told_of():
    keras.utils.set_random_seed(1)
    wide = [keras.layers.Dense(2000, activation="relu") for _ in range(3)]
    model = keras.Sequential([keras.Input((4,)), *wide, keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    trainer = Trainer(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.fit(dataset().repeat(), steps_per_epoch=30, verbose=0)

    assert trainer.report().fit.waited_secs < 0.1 * trainer.report().fit.steps_secs

"""Steps, hooks, samples and validations are exactly as many as were asked for, whatever the data and the blocks.

Every batch tells which samples it holds: a sample's target is its number, and the loss is the target.
"""

import functools
import io
import itertools
import re
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Callback, Every, Trainer
from engine.callbacks import LossHistory
from tests.helpers import Observer, Recorder
from tests.oracle import assert_same_logs

pytestmark = pytest.mark.shares_models

NUMBERS = np.arange(43, dtype="float32")[:, None]
BATCHES = [NUMBERS[begin : begin + 8] for begin in range(0, 43, 8)]  # six, the last of three


class Counts(keras.metrics.Metric):
    """Counts its updates, whatever the batch holds, and the samples: a batch that never was would show."""

    def __init__(self):
        super().__init__(name="counts")
        self.batches = self.add_weight(name="batches", initializer="zeros")
        self.samples = self.add_weight(name="samples", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.batches.assign_add(1.0)
        self.samples.assign_add(tf.cast(tf.shape(y_true)[0], tf.float32))

    def result(self):
        return {"batches": self.batches.value, "samples": self.samples.value}


def counting():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", lambda y_true, y_pred: y_true + 0.0 * y_pred, metrics=[Counts()])
    return model


def with_blocks(*cases):
    """Each case with a Trainer whose blocks are three steps, and with one of another length in turn."""
    lengths = itertools.cycle([1, 7, "auto"])
    return [(length, *case) for case in cases for length in (3, next(lengths))]


@functools.cache
def trainer_of(steps):
    """One for all tests, so that steps are traced seldom; the model never changes, as its gradients are zero."""
    return Trainer(counting(), steps_per_execution=steps)


@pytest.fixture(params=[1, 3, 7, "auto"], ids=lambda steps: f"blocks of {steps}")
def trainer(request):
    return trainer_of(request.param)


@functools.cache
def in_keras():
    """Keras's, likewise."""
    return counting()


class Acts(LossHistory):
    acts_on_batches = True


def dataset(batches=BATCHES):
    """Batches of any sizes; their number is known."""
    rows = tf.RaggedTensor.from_row_lengths(np.concatenate(batches), [len(batch) for batch in batches])
    return tf.data.Dataset.from_tensor_slices(rows).map(lambda row: (tf.ensure_shape(row, (None, 1)),) * 2)


def unknown(batches=BATCHES):
    return dataset(batches).filter(lambda *_: True)


def generator(batches=BATCHES):
    return ((batch, batch) for batch in batches)


def varying(*lengths):
    """A dataset that has another number of batches each time it is read."""
    left = iter(lengths)
    spec = (tf.TensorSpec((None, 1)),) * 2
    return tf.data.Dataset.from_generator(lambda: generator(BATCHES[: next(left)]), output_signature=spec)


class Batches(keras.utils.PyDataset):
    def __init__(self, length):
        super().__init__()
        self.length = length

    @property
    def num_batches(self):
        return self.length

    def __getitem__(self, index):
        return (BATCHES[index % 6],) * 2


def cycle(*lengths):
    """Epochs of these lengths, taken one after another from the batches over and over again."""
    ends = np.cumsum(lengths)
    return [
        [BATCHES[index % 6] for index in range(end - length, end)] for end, length in zip(ends, lengths, strict=True)
    ]


CASES = {
    "arrays": (lambda: (NUMBERS, NUMBERS), {"epochs": 2, "batch_size": 8, "shuffle": False}, cycle(6, 6)),
    "arrays in parts": (
        lambda: (NUMBERS, NUMBERS),
        {"epochs": 4, "batch_size": 8, "steps_per_epoch": 3, "shuffle": False},
        cycle(3, 3, 3, 3),
    ),
    "dataset": (lambda: (dataset(),), {"epochs": 2}, cycle(6, 6)),
    "dataset in parts": (lambda: (dataset(),), {"epochs": 4, "steps_per_epoch": 2}, cycle(2, 2, 2, 2)),
    "repeated": (lambda: (dataset().repeat(),), {"epochs": 3, "steps_per_epoch": 5}, cycle(5, 5, 5)),
    "repeated twice": (lambda: (dataset().repeat(2),), {"epochs": 2}, cycle(12, 12)),
    "batches of any sizes": (
        lambda: (dataset(np.split(NUMBERS, [1, 2, 20])),),
        {"epochs": 2},
        [np.split(NUMBERS, [1, 2, 20])] * 2,
    ),
    "unknown length": (lambda: (unknown(),), {"epochs": 2}, cycle(6, 6)),
    "unknown length in parts": (lambda: (unknown(),), {"epochs": 4, "steps_per_epoch": 3}, cycle(3, 3, 3, 3)),
    "unknown length, repeated": (lambda: (unknown().repeat(),), {"epochs": 3, "steps_per_epoch": 5}, cycle(5, 5, 5)),
    "another length each epoch": (
        lambda: (varying(3, 6, 1, 5),),
        {"epochs": 4},
        [BATCHES[:3], BATCHES, BATCHES[:1], BATCHES[:5]],
    ),
    "generator": (lambda: (generator(),), {}, cycle(6)),
    "generator in parts": (lambda: (generator(),), {"epochs": 3, "steps_per_epoch": 2}, cycle(2, 2, 2)),
    "endless generator": (
        lambda: (generator(BATCHES[index % 6] for index in range(sys.maxsize)),),
        {"epochs": 3, "steps_per_epoch": 5},
        cycle(5, 5, 5),
    ),
    "PyDataset": (lambda: (Batches(6),), {"epochs": 2, "shuffle": False}, cycle(6, 6)),
    "endless PyDataset": (lambda: (Batches(None),), {"epochs": 2, "steps_per_epoch": 5}, cycle(5, 5)),
    "later epochs": (lambda: (dataset(),), {"epochs": 5, "initial_epoch": 3}, cycle(6, 6)),
    "max_steps in an epoch": (lambda: (dataset(),), {"epochs": 9, "max_steps": 10}, cycle(6, 4)),
    "max_steps at its end": (lambda: (unknown(),), {"epochs": 9, "max_steps": 12}, cycle(6, 6)),
    "max_steps beyond the end": (lambda: (unknown(),), {"epochs": 2, "max_steps": 13}, cycle(6, 6)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("trainer", "case", "callback"),
    with_blocks(*((case, LossHistory) for case in CASES)) + [(3, case, Acts) for case in CASES],
    indirect=["trainer"],
)
def test_steps_samples_and_hooks_are_those_of_the_data(trainer, case, callback):
    """By the optimizer's count, by a metric that counts every update, by the hooks and by which samples they had."""
    make, arguments, epochs = CASES[case]
    losses, hooks, before = callback(), Observer(), int(trainer.model.optimizer.iterations)
    history = trainer.fit(*make(), callbacks=[losses, hooks], verbose=0, **arguments).history
    expected = [call for epoch in epochs for index in range(len(epoch)) for call in (("begin", index), ("end", index))]
    called = [(call[0].rpartition("_")[2], call[1]) for call in hooks.calls if "train_batch" in call[0]]

    assert sum(map(len, epochs)) == int(trainer.model.optimizer.iterations) - before
    assert [len(epoch) for epoch in epochs] == history["batches"]
    assert [sum(map(len, epoch)) for epoch in epochs] == history["samples"]
    assert expected == called
    np.testing.assert_allclose(losses.losses, [batch.mean() for epoch in epochs for batch in epoch], rtol=1e-6)
    np.testing.assert_allclose(history["loss"], [np.concatenate(epoch).mean() for epoch in epochs], rtol=1e-6)


VALIDATIONS = {
    "arrays": (lambda: (NUMBERS, NUMBERS), {"validation_batch_size": 8}, 6),
    "some of the arrays": (lambda: (NUMBERS, NUMBERS), {"validation_batch_size": 8, "validation_steps": 4}, 4),
    "dataset": (dataset, {}, 6),
    "some of a dataset": (dataset, {"validation_steps": 5}, 5),
    "unknown length": (unknown, {}, 6),
    "endless": (lambda: unknown().repeat(), {"validation_steps": 5}, 5),
    "PyDataset": (lambda: Batches(6), {}, 6),
}


@pytest.mark.parametrize(("trainer", "kind"), with_blocks(*((kind,) for kind in VALIDATIONS)), indirect=["trainer"])
def test_every_validation_begins_at_the_first_batch_and_has_as_many_as_were_asked_for(trainer, kind):
    make, arguments, length = VALIDATIONS[kind]
    hooks = Observer()
    arguments = arguments | {"epochs": 2, "validation_data": make(), "callbacks": [hooks], "verbose": 0}
    history = trainer.fit(dataset(), **arguments).history

    assert [*range(length)] * 2 == [call[1] for call in hooks.calls if call[0] == "on_test_batch_end"]
    assert [length] * 2 == history["val_batches"]
    assert [sum(map(len, BATCHES[:length]))] * 2 == history["val_samples"]
    np.testing.assert_allclose(history["val_loss"], [np.concatenate(BATCHES[:length]).mean()] * 2, rtol=1e-6)


def batches_of(fit, **arguments):
    """The mean of the numbers in every batch, as an acting callback sees them."""
    sizes = []
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: sizes.append((batch, logs["samples"])))
    history = fit(NUMBERS, NUMBERS, callbacks=[note], shuffle=False, verbose=0, **arguments).history
    return sizes, history["val_loss"] if "val_loss" in history else history["loss"]


@pytest.mark.parametrize("steps", [1, 4, 5, 6, 7, 43])
def test_without_a_batch_size_arrays_are_cut_into_the_steps_asked_for_as_in_keras(steps):
    """ceil(samples / steps) in a batch, which may make fewer batches; then both say so."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        expected = batches_of(in_keras().fit, steps_per_epoch=steps)
    is_short = any("ran out of data" in str(warning.message) for warning in said)
    trainer = trainer_of("auto")

    if is_short:
        with pytest.raises(ValueError, match=f"steps_per_epoch={steps}"):
            batches_of(trainer.fit, steps_per_epoch=steps)
    else:
        assert expected == batches_of(trainer.fit, steps_per_epoch=steps)


@pytest.mark.parametrize("share", [0.02, 0.1, 1 / 3, 0.5, 0.97])
def test_a_validation_split_takes_the_samples_that_keras_takes(share):
    expected = batches_of(in_keras().fit, validation_split=share, batch_size=8)

    assert expected == batches_of(trainer_of("auto").fit, validation_split=share, batch_size=8)


def test_an_epoch_that_the_data_cuts_short_is_said_and_the_next_begins_the_data_anew(trainer):
    hooks = Observer()
    with pytest.warns(UserWarning, match="2 of 4 steps of epoch 2") as said:
        history = trainer.fit(dataset(), epochs=3, steps_per_epoch=4, callbacks=[hooks], verbose=0).history

    assert 1 == len(said)
    assert [4, 2, 4] == history["batches"]
    np.testing.assert_allclose(history["loss"], [NUMBERS[:32].mean(), NUMBERS[32:].mean(), NUMBERS[:32].mean()])
    assert [0, 1, 2, 3, 0, 1, 0, 1, 2, 3] == [call[1] for call in hooks.calls if call[0] == "on_train_batch_end"]


@pytest.mark.parametrize("blocks", [1, 3, 7])
def test_max_seconds_ends_training_with_the_first_block_after_them(blocks):
    """The hooks of the epoch and of training are called all the same."""
    hooks = Observer()
    Trainer(counting(), steps_per_execution=blocks).fit(
        dataset(), epochs=4, max_seconds=1e-9, callbacks=[hooks], verbose=0
    )

    assert min(blocks, 6) == sum(call[0] == "on_train_batch_end" for call in hooks.calls)
    assert ["on_epoch_end", "on_train_end"] == [call[0] for call in hooks.calls[-2:]]


class Validations(Callback):
    """At how many steps each validation began."""

    def __init__(self):
        super().__init__()
        self.begun = []

    def on_train_begin(self, logs=None):
        self.before = int(self.model.optimizer.iterations)

    def on_test_begin(self, logs=None):
        self.begun.append(int(self.model.optimizer.iterations) - self.before)


ALWAYS, NEVER = [6, 12, 18, 24], []
FREQUENCIES = [
    (1, ALWAYS), (2, [12, 24]), (3, [18]), (5, NEVER), ([1, 4], [6, 24]), ([2], [12]),  # which Keras knows too
    ((9,), NEVER), ({3}, [18]), (Every(epochs=1), ALWAYS), (Every(epochs=3), [18]),
    (Every(steps=6), ALWAYS), (Every(steps=4), [4, 8, 12, 16, 20, 24]), (Every(steps=10), [10, 20]),
    (Every(steps=25), NEVER), (Every(seconds=3600.0), NEVER),
]  # fmt: skip


@pytest.mark.parametrize(("trainer", "frequency", "expected"), with_blocks(*FREQUENCIES), indirect=["trainer"], ids=str)
def test_validations_come_at_the_steps_at_which_they_are_due(trainer, frequency, expected):
    validations = Validations()
    arguments = {"epochs": 4, "validation_data": dataset(), "validation_freq": frequency, "verbose": 0}
    history = trainer.fit(dataset(), callbacks=[validations], **arguments).history

    assert expected == validations.begun
    assert [6] * 4 == history["batches"]
    assert len({step // 6 - (step % 6 == 0) for step in expected}) == len(history.get("val_batches", []))


@pytest.mark.parametrize("frequency", [frequency for frequency, _ in FREQUENCIES[:6]], ids=str)
def test_whole_epochs_are_counted_as_in_keras(frequency):
    """But for the order of names in the logs: Keras leaves those from one metric together."""
    theirs, ours = Recorder(), Recorder()
    arguments = {"epochs": 4, "validation_data": dataset(), "validation_freq": frequency, "verbose": 0}
    expected = in_keras().fit(dataset(), shuffle=False, callbacks=[theirs], **arguments).history
    given = trainer_of("auto").fit(dataset(), callbacks=[ours], **arguments).history

    assert [call[:-1] for call in theirs.calls] == [call[:-1] for call in ours.calls]
    assert_same_logs(dict(sorted(expected.items())), dict(sorted(given.items())))


NO_EPOCH = [{"epochs": 0}, {"epochs": 3, "initial_epoch": 3}, {"epochs": 2, "initial_epoch": 5}]


@pytest.mark.parametrize("arguments", NO_EPOCH, ids=str)
def test_no_epoch_at_all_is_a_fit_with_a_beginning_and_an_end(arguments):
    theirs, ours, models = Recorder(), Recorder(), (counting(), counting())
    models[1].set_weights(models[0].get_weights())
    models[0].fit(dataset(), shuffle=False, callbacks=[theirs], verbose=0, **arguments)
    history = Trainer(models[1]).fit(dataset(), callbacks=[ours], validation_data=dataset(), verbose=0, **arguments)

    assert theirs.calls == ours.calls
    assert {} == history.history
    assert 0 == int(models[1].optimizer.iterations)


@pytest.fixture
def caps():
    """Keras set to run little, for debugging."""
    keras.config.set_max_epochs(2)
    keras.config.set_max_steps_per_epoch(3)
    yield
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)


CAPPED = [{"epochs": 5}, {"epochs": 5, "steps_per_epoch": 4}, {"epochs": 1, "steps_per_epoch": 2}]


@pytest.mark.parametrize("arguments", CAPPED, ids=str)
@pytest.mark.filterwarnings("ignore:Limiting", "ignore:.*shuffle=True")
def test_the_caps_of_keras_config_hold(caps, arguments):
    """For training, validation, evaluation and prediction, as in Keras."""
    results = []
    for is_ours in (False, True):
        trainer, hooks = trainer_of("auto") if is_ours else in_keras(), Recorder()
        trainer.fit(dataset().repeat(), callbacks=[hooks], validation_data=dataset(), verbose=0, **arguments)
        trainer.evaluate(dataset(), callbacks=[hooks], verbose=0)
        trainer.predict(dataset(), callbacks=[hooks], verbose=0)
        results.append([call[:2] if isinstance(call[1], int) else call[:1] for call in hooks.calls])

    assert results[0] == results[1]


def test_a_cap_is_said(caps):
    with (
        pytest.warns(UserWarning, match="^Limiting epochs to 2"),
        pytest.warns(UserWarning, match="steps_per_epoch to 3"),
    ):
        trainer_of("auto").fit(dataset(), epochs=3, verbose=0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


LINE = re.compile(
    r"Epoch \d/2: 6 steps in [\d.]+ s, [\d.]+ samples/s, batches=6, loss=21, samples=43, val_batches=6, .*"
)


@pytest.mark.parametrize("verbose", [0, 1, 2, "auto"])
@pytest.mark.parametrize("is_terminal", [False, True])
def test_what_is_said_goes_where_it_was_asked_for(verbose, is_terminal, capsys, monkeypatch):
    """Lines to the output; bars to the error output, if that is a terminal; nothing at all for 0."""
    errors = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    trainer = trainer_of("auto")
    trainer.fit(dataset(), epochs=2, validation_data=dataset(), verbose=verbose)
    fitted = capsys.readouterr().out.splitlines()
    trainer.evaluate(dataset(), verbose=verbose)
    trainer.predict(dataset(), verbose=verbose)
    rest = capsys.readouterr().out.splitlines()

    assert (0 if verbose == 0 else 2) == len(fitted)
    assert all(LINE.fullmatch(line) for line in fitted)
    assert ([] if verbose == 0 else ["Evaluate", "Predict"]) == [line.partition(":")[0] for line in rest]
    assert (is_terminal and verbose in (1, "auto")) == bool(errors.getvalue())

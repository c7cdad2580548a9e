import contextlib
import csv

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Callback, ConfigError, Every, Trainer
from engine.callbacks import LossHistory
from tests.helpers import NUM_CLASSES, Recorder, assert_bit_equal, perceptron, samples, weights_of

pytestmark = pytest.mark.shares_models

X, Y = samples(43, shape=(4,))  # six batches of at most 8
DATASET = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
RTOL = 1e-6  # ours sums in float64, Keras in float32


def fit(fit, callbacks=(), **arguments):
    return fit(X, Y, **({"batch_size": 8, "shuffle": False, "callbacks": [*callbacks], "verbose": 0} | arguments))


def assert_equal_histories(expected, given):
    assert expected.epoch == given.epoch
    assert list(expected.history) == list(given.history)
    for name, values in expected.history.items():
        np.testing.assert_allclose(given.history[name], values, rtol=RTOL, err_msg=name)


@pytest.fixture(scope="module")
def trained():
    """A model of each loop, traced once; for tests that only look at the hooks."""
    return perceptron(), Trainer(perceptron())


class Stops(keras.callbacks.Callback):
    """Stops the training from one hook, the second time that it is called."""

    def __init__(self, hook, on_call):
        super().__init__()
        self.calls_left = on_call
        setattr(self, hook, self._stop)

    def _stop(self, *arguments, **named):
        self.calls_left -= 1
        if not self.calls_left:
            self.model.stop_training = True


@pytest.mark.parametrize(
    ("hook", "on_call"),
    [
        ("on_train_begin", 1),
        ("on_epoch_begin", 2),
        ("on_train_batch_begin", 3),
        ("on_train_batch_end", 3),
        ("on_train_batch_end", 12),
        ("on_test_begin", 1),
        ("on_test_batch_end", 2),
        ("on_test_end", 1),
        ("on_epoch_end", 2),
        ("on_train_end", 1),
    ],
)
def test_stop_training_takes_effect_where_keras_lets_it(trained, hook, on_call):
    theirs, ours = Recorder(), Recorder()
    for run, recorder in zip((trained[0].fit, trained[1].fit), (theirs, ours), strict=True):
        fit(run, [Stops(hook, on_call), recorder], epochs=3, validation_data=(X[:16], Y[:16]))

    assert theirs.calls == ours.calls


@pytest.mark.parametrize(("initial_epoch", "epochs"), [(0, 0), (0, 2), (2, 4), (3, 3), (5, 2)])
def test_epochs_are_counted_as_keras_counts_them(trained, initial_epoch, epochs):
    """`epochs` is where training ends, not how many there are; none at all still begins and ends."""
    theirs, ours = Recorder(), Recorder()
    expected = fit(trained[0].fit, [theirs], initial_epoch=initial_epoch, epochs=epochs)
    given = fit(trained[1].fit, [ours], initial_epoch=initial_epoch, epochs=epochs)

    assert theirs.calls == ours.calls
    assert expected.epoch == given.epoch


@pytest.mark.parametrize("steps_per_execution", [1, 4, "auto"])
def test_max_steps_ends_after_the_first_steps_of_the_same_training(steps_per_execution):
    """In the middle of the second epoch, which is ended like any other."""
    runs = []
    for max_steps in (None, 8):
        losses, recorder = LossHistory(), Recorder()
        callbacks = [losses, recorder] if steps_per_execution == 1 else [losses]
        trainer = Trainer(perceptron(), steps_per_execution=steps_per_execution)
        history = fit(trainer.fit, callbacks, epochs=3, max_steps=max_steps, validation_data=(X, Y))
        runs.append((losses.losses.tolist(), history, recorder))
    (whole, _, _), (cut, history, recorder) = runs

    assert whole[:8] == cut
    assert [0, 1] == history.epoch
    assert 2 == len(history.history["val_loss"])
    if recorder.calls:
        assert ["on_epoch_end", "on_train_end"] == [call[0] for call in recorder.calls[-2:]]


def test_max_seconds_ends_with_the_block_in_which_the_time_ran_out(trained):
    losses = LossHistory()
    history = fit(trained[1].fit, [losses], epochs=1000, max_seconds=1e-9)

    assert 1 == len(losses.losses)
    assert [0] == history.epoch


@pytest.mark.parametrize("max_seconds", [0, -1.0, "3", float("nan"), True])
def test_max_seconds_that_make_no_sense_are_refused_at_the_door(trained, max_seconds):
    recorder = Recorder()

    with pytest.raises(ConfigError, match="max_seconds"):
        fit(trained[1].fit, [recorder], max_seconds=max_seconds)
    assert [] == recorder.calls


@pytest.mark.parametrize("validation_freq", [1, 2, 3, 7, [1, 4], (2,), {3}, range(2, 5)])
def test_validation_falls_due_in_the_epochs_in_which_keras_has_it(trained, validation_freq):
    arguments = {"epochs": 5, "validation_data": (X[:8], Y[:8]), "validation_freq": validation_freq}
    theirs, ours = Recorder(), Recorder()
    keras_freq = validation_freq if isinstance(validation_freq, int) else list(validation_freq)  # all that it takes
    fit(trained[0].fit, [theirs], **(arguments | {"validation_freq": keras_freq}))
    fit(trained[1].fit, [ours], **arguments)

    assert theirs.calls == ours.calls


def with_auc():
    return perceptron(loss="categorical_crossentropy", metrics=["accuracy", keras.metrics.AUC(name="auc")])


@pytest.mark.parametrize("steps_per_execution", [1, 4, "auto"])
def test_validation_within_an_epoch_leaves_the_training_untouched_to_the_bit(steps_per_execution):
    """Steps, running means, a metric with state and weights are those of a training without validation."""
    targets = keras.utils.to_categorical(Y, NUM_CLASSES)
    runs = []
    for validation in ({}, {"validation_data": (X[::-1], targets), "validation_freq": Every(steps=4)}):
        model, losses, tests = with_auc(), LossHistory(), []
        tested = keras.callbacks.LambdaCallback(on_test_end=lambda logs, tests=tests: tests.append(logs))
        trainer = Trainer(model, steps_per_execution=steps_per_execution)
        arguments = {"batch_size": 8, "epochs": 2, "shuffle": False, "callbacks": [losses, tested], "verbose": 0}
        history = trainer.fit(X, targets, **arguments, **validation).history
        runs.append((weights_of(model), history, losses.batches, tests, model.get_metrics_result()))
    (weights, history, batches, _, results), (same_weights, validated, same_batches, tests, same_results) = runs

    assert_bit_equal(weights, same_weights)
    assert batches == same_batches
    assert history == {name: values for name, values in validated.items() if not name.startswith("val_")}
    assert 3 == len(tests)  # after the steps 4, 8 and 12
    assert [tests[0]["auc"], tests[2]["auc"]] == validated["val_auc"]
    assert_bit_equal([*map(np.asarray, results.values())], [*map(np.asarray, same_results.values())])


@pytest.mark.parametrize(("steps_per_execution", "is_length_known"), [(1, True), (3, True), (64, True), (3, False)])
def test_steps_per_epoch_are_never_exceeded_and_the_data_goes_on(steps_per_execution, is_length_known):
    """Keras runs six steps where five were asked for, if it takes three in a call."""
    theirs, ours, losses = perceptron(), perceptron(), LossHistory()
    endless = DATASET.repeat()
    expected = theirs.fit(endless, steps_per_epoch=5, epochs=3, shuffle=False, verbose=0)
    endless = endless if is_length_known else DATASET.repeat(4).filter(lambda *_: True)
    trainer = Trainer(ours, steps_per_execution=steps_per_execution)
    given = trainer.fit(endless, steps_per_epoch=5, epochs=3, callbacks=[losses], verbose=0)

    assert 15 == len(losses.losses) == int(ours.optimizer.iterations)
    assert_bit_equal(weights_of(theirs), weights_of(ours))
    assert_equal_histories(expected, given)


@pytest.mark.parametrize("steps_per_execution", [1, 64])
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_data_of_unknown_length_trains_and_validates_as_data_of_known_length(steps_per_execution, run_eagerly):
    """Blocks that end with the data, with a step left over, and with none."""
    unknown = DATASET.filter(lambda *_: True)
    runs = []
    for dataset in (DATASET, unknown):
        model = perceptron()
        trainer = Trainer(model, steps_per_execution=steps_per_execution, run_eagerly=run_eagerly)
        history = trainer.fit(dataset, epochs=2, validation_data=dataset, verbose=0)
        runs.append((weights_of(model), history.history, trainer.evaluate(dataset, verbose=0)))

    assert_bit_equal(runs[0][0], runs[1][0])
    assert runs[0][1:] == runs[1][1:]


class AtTheEnd(keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        self.weights = self.model.get_weights()


@pytest.mark.parametrize("swap", [False, True])
def test_averaged_weights_take_their_place_before_the_end_as_in_keras(swap):
    """With SwapEMAWeights too, which validates with the averages and trains with the weights themselves."""
    runs = []
    for make in (lambda model: model.fit, lambda model: Trainer(model).fit):
        model, at_the_end = perceptron(optimizer=keras.optimizers.Adam(0.1, use_ema=True, ema_momentum=0.7)), AtTheEnd()
        callbacks = [keras.callbacks.SwapEMAWeights(), at_the_end] if swap else [at_the_end]
        runs.append((fit(make(model), callbacks, epochs=3, validation_data=(X, Y)), weights_of(model), at_the_end))
    (expected, weights, theirs), (given, same_weights, ours) = runs

    assert_bit_equal(weights, same_weights)
    assert_bit_equal(theirs.weights, ours.weights)
    assert_equal_histories(expected, given)


def kerass_callbacks(directory, calls):
    """Keras's callbacks that steer by epochs, tuned so that each of them has something to do in ten epochs."""
    callbacks = keras.callbacks
    return [
        callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
        callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=0.02),
        callbacks.EarlyStopping("val_accuracy", patience=3, restore_best_weights=True),
        callbacks.ModelCheckpoint(
            f"{directory}/{{epoch}}.weights.h5", "val_accuracy", save_best_only=True, save_weights_only=True
        ),
        callbacks.ModelCheckpoint(
            f"{directory}/batch{{batch}}of{{epoch}}.weights.h5", save_freq=5, save_weights_only=True
        ),
        callbacks.CSVLogger(f"{directory}/log.csv"),
        callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: calls.append((epoch, sorted(logs)))),
    ]


def files_of(directory):
    """Each file's content: weights, or the words of a table."""
    found = {}
    for path in sorted(directory.iterdir()):
        if path.suffix == ".h5":
            model = perceptron(optimizer=keras.optimizers.Adam())
            model.optimizer.build(model.trainable_variables)
            model.load_weights(path)
            found[path.name] = weights_of(model)
    return found


def test_kerass_own_callbacks_do_what_they_do_under_model_fit(tmp_path):
    """History, learning rates, files and weights, of all of them together."""
    runs = []
    for name, make in (("theirs", lambda model: model.fit), ("ours", lambda model: Trainer(model).fit)):
        model, calls, directory = perceptron(optimizer=keras.optimizers.Adam(0.05)), [], tmp_path / name
        directory.mkdir()
        history = fit(make(model), kerass_callbacks(directory, calls), epochs=10, validation_data=(X[:20], Y[:20]))
        with open(directory / "log.csv") as file:
            table = list(csv.reader(file))
        runs.append((history, weights_of(model), calls, files_of(directory), table))
    (expected, weights, calls, files, table), (given, same_weights, same_calls, same_files, same_table) = runs

    assert_equal_histories(expected, given)
    assert_bit_equal(expected.history["learning_rate"], given.history["learning_rate"])
    assert len(expected.epoch) < 10  # stopped early
    assert_bit_equal(weights, same_weights)
    assert calls == same_calls
    assert list(files) == list(same_files)
    for name, content in files.items():
        assert_bit_equal(content, same_files[name])
    assert table[0] == same_table[0]
    np.testing.assert_allclose(np.array(same_table[1:], float), np.array(table[1:], float), rtol=RTOL)


@pytest.mark.parametrize("raise_error", [False, True])
def test_terminate_on_nan_ends_with_the_step_that_it_ends_with_in_keras(raise_error):
    x = np.where(np.arange(43)[:, None] == 20, np.inf, X).astype("float32")  # in the third batch
    is_refused = pytest.raises(RuntimeError, match="at batch 2") if raise_error else contextlib.nullcontext()
    calls = []
    for make in (lambda model: model.fit, lambda model: Trainer(model).fit):
        recorder = Recorder()
        with is_refused:
            make(perceptron())(
                x, Y, 8, callbacks=[keras.callbacks.TerminateOnNaN(raise_error), recorder], shuffle=False, verbose=0
            )
        calls.append([call for call in recorder.calls if call[0] != "on_train_end"])  # Keras never ends it on an error

    assert calls[0] == calls[1]


class Interrupts(Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def test_backup_and_restore_goes_on_where_an_interrupted_fit_was(tmp_path):
    """The whole training and the interrupted and resumed one end with the same bits, shuffled as they are."""
    backup, recorder = tmp_path / "backup", Recorder()
    arguments = {"epochs": 4, "shuffle": True}

    def model():
        return perceptron(optimizer=keras.optimizers.Adam(0.05))

    whole, first, second = model(), model(), model()
    fit(Trainer(whole, seed=5).fit, **arguments)
    with pytest.raises(KeyboardInterrupt):
        fit(Trainer(first, seed=5).fit, [keras.callbacks.BackupAndRestore(backup), Interrupts()], **arguments)
    is_kept = (backup / "latest.weights.h5").exists()
    trainer = Trainer(second, seed=5)
    history = fit(trainer.fit, [keras.callbacks.BackupAndRestore(backup), recorder], **arguments)

    assert is_kept
    assert [2, 3] == history.epoch == [call[1] for call in recorder.calls if call[0] == "on_epoch_begin"]
    assert_bit_equal(weights_of(whole), weights_of(second))
    assert not backup.exists()
    assert [0, 1] == fit(trainer.fit, epochs=2).epoch

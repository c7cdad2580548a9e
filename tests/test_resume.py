"""The promise: a run that was cut and taken up again ends with the very bits of one that never stopped."""

import contextlib
import copy
import itertools
import os
import pickle
import resource
import shutil
import tempfile
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from engine import Callback, Checkpointer, CheckpointError, ConfigError, Every, SaveError, Trainer
from engine.callbacks import EarlyStopping, LossHistory, TensorBoard
from engine.variables import parts_of_variable
from tests.runs import BATCH_SIZE, SOURCES, Cut, Cuts, Run, arrays, assert_same, network
from tests.strategies import examples

VALIDATION = {"validation_data": arrays(19, seed=1)}
ORACLES = {}

pytestmark = [
    pytest.mark.filterwarnings("ignore:This run will be saved, but"),
    pytest.mark.filterwarnings("ignore:The data ended after"),  # six batches are no whole number of epochs of four
]


def whole(run):
    """How the run ends if nothing stops it and nobody saves it; made once."""
    key = repr((run.source, run.arguments, run.callbacks))
    if key not in ORACLES:
        alone = Run(run.source, None, run.steps_per_execution, run.arguments, run.callbacks)
        ORACLES[key] = alone.fit(alone.trainer(None))
    return ORACLES[key]


def cut_and_resume(run, directory, cut):
    """Cuts a run and takes it up again with everything new, as another process would."""
    with contextlib.suppress(KeyboardInterrupt, Cut):
        run.fit(run.trainer(directory), cut=cut)
    return run.fit(run.trainer(directory), cut=Cuts(None), resume=True)


def runs():
    """Any source, block length, cadence and way of saving."""
    cadences = st.one_of(
        st.builds(Every, epochs=st.integers(1, 2)),
        st.builds(Every, steps=st.integers(1, 9)),
        st.just(Every(seconds=0.001)),
    )
    arguments = st.fixed_dictionaries({}, optional={"steps_per_epoch": st.sampled_from([4, 6])})
    arguments = st.one_of(arguments, arguments.map(lambda given: given | VALIDATION))
    arguments = st.one_of(
        arguments, arguments.map(lambda given: given | VALIDATION | {"validation_freq": Every(steps=4)})
    )
    return st.builds(
        Run,
        st.sampled_from([*SOURCES]),
        cadences,
        st.sampled_from([1, 3, 5, "auto"]),
        arguments,
        st.just(list),
        st.booleans(),
    )


@examples(3, shrinks=False)
@given(runs(), st.integers(1, 18), st.sampled_from(["signal", "error"]))
def test_a_cut_run_ends_as_if_it_had_never_stopped(run, step, how):
    """Whatever the data, the blocks, the cadence, and wherever it was cut: to the bit."""
    with tempfile.TemporaryDirectory() as directory:
        resumed = cut_and_resume(run, directory, Cuts(step, how=how))

    assert_same(whole(run), resumed)


def test_saving_changes_nothing(tmp_path):
    run = Run(every=Every(steps=1), arguments=VALIDATION)

    assert_same(whole(run), run.fit(run.trainer(tmp_path)))


@pytest.mark.parametrize("source", SOURCES)
def test_a_run_may_be_cut_again_and_again(source, tmp_path):
    run = Run(source, Every(steps=2))
    for step in (4, 13):
        with contextlib.suppress(KeyboardInterrupt):
            run.fit(run.trainer(tmp_path), cut=Cuts(step), resume=True)
    resumed = run.fit(run.trainer(tmp_path), resume=True)

    assert_same(whole(run), resumed)


def test_a_signal_loses_no_step(tmp_path):
    """It is saved where it ended, whatever the cadence: no step is done twice."""
    run, steps = Run(every=Every(epochs=10), steps_per_execution=1), []
    with pytest.raises(KeyboardInterrupt):
        run.fit(run.trainer(tmp_path), cut=Cuts(8))
    trainer = run.trainer(tmp_path)
    counted = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))
    trainer.fit(*arrays(), batch_size=BATCH_SIZE, epochs=3, verbose=0, callbacks=[counted, Cuts(None)], resume=True)

    assert [2, 3, 4, 5, *range(6)] == steps


def test_an_error_of_the_data_is_saved_at_the_batch_that_failed(tmp_path):
    """The batches before it count; a resumed run begins with that one."""

    class Fails(keras.utils.PyDataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            if index == 4 and not is_mended:
                raise OSError("the disk is away")
            x, y = arrays()
            return x[8 * index : 8 * index + 8], y[8 * index : 8 * index + 8]

    is_mended, steps = False, []
    fit = {"shuffle": False, "verbose": 0, "epochs": 2}
    with pytest.raises(OSError, match="the disk is away"):
        Run(every=Every(epochs=5)).trainer(tmp_path).fit(Fails(), **fit)
    is_mended = True
    counted = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))
    trainer = Run(every=Every(epochs=5)).trainer(tmp_path)
    trainer.fit(Fails(), callbacks=[counted], resume=True, **fit)

    assert [4, 5, *range(6)] == steps
    assert 12 == int(trainer.model.optimizer.iterations)


class TestAFinishedRun:
    """It is given back as it ended."""

    def test_nothing_is_trained_and_no_hook_is_called(self, tmp_path):
        run = Run(arguments=VALIDATION, callbacks=lambda: [EarlyStopping("val_loss", restore_best_weights=True)])
        ended = run.fit(run.trainer(tmp_path))

        class Watches(Callback):
            def on_train_begin(self, logs=None):
                raise AssertionError("called")

            on_epoch_begin = on_train_end = on_train_begin

        trainer = run.trainer(tmp_path)
        early = EarlyStopping("val_loss", restore_best_weights=True)
        history = trainer.fit(
            *arrays(),
            batch_size=BATCH_SIZE,
            epochs=3,
            verbose=0,
            callbacks=[early, Watches()],
            resume=True,
            **VALIDATION,
        )

        assert ended["history"] == history.history
        assert min(history.history["val_loss"]) == early.best
        for (name, value), own in zip(ended["variables"].items(), trainer.model.variables, strict=False):
            np.testing.assert_array_equal(value, own.numpy(), err_msg=name)

    def test_twice_is_as_once(self, tmp_path):
        run = Run()
        ended = run.fit(run.trainer(tmp_path))

        for _ in range(2):
            assert_same(ended, run.fit(run.trainer(tmp_path), resume=True))

    def test_more_may_be_asked_for(self, tmp_path):
        """It goes on, and ends as a run that was as long from the beginning."""
        run, longer, more = Run(), Run(every=None), {"epochs": 5, "max_steps": 20}
        run.fit(run.trainer(tmp_path))

        assert_same(longer.fit(longer.trainer(None), **more), run.fit(run.trainer(tmp_path), **more, resume=True))

    @pytest.mark.parametrize("max_steps", [8, 14])
    def test_more_steps_may_be_asked_for_in_mid_epoch(self, max_steps, tmp_path):
        """In the second epoch, and in the third, which is the last."""
        run = Run()
        run.fit(run.trainer(tmp_path), max_steps=max_steps)

        assert_same(whole(run), run.fit(run.trainer(tmp_path), resume=True))

    def test_what_early_stopping_has_ended_stays_ended(self, tmp_path):
        def callbacks():
            return [EarlyStopping("loss", mode="max")]

        run = Run(callbacks=callbacks)
        ended = run.fit(run.trainer(tmp_path))
        again = run.fit(run.trainer(tmp_path), epochs=9, resume=True)

        assert 2 == len(ended["epochs"])
        assert_same(ended, again)


class TestAnotherRun:
    """It is refused, with all that differs, and nothing is changed."""

    def fit(self, directory, model=None, seed=None, **arguments):
        keras.utils.set_random_seed(1)
        trainer = Trainer(model or network(), checkpoints=Checkpointer(directory), seed=seed)
        arguments = {"batch_size": 8, "verbose": 0} | arguments
        trainer.fit(*arrays(arguments.pop("num_samples", 43)), **arguments)
        return trainer

    @pytest.fixture(scope="class")
    @classmethod
    def earlier(cls, tmp_path_factory):
        """The directory of a run that has been saved, for tests that take a copy."""
        directory = tmp_path_factory.mktemp("earlier") / "run"
        cls().fit(directory, seed=4)
        return directory

    def wider(self):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        return model

    def slower(self):
        model = network()
        model.optimizer.learning_rate = 0.5
        return model

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"batch_size": 16}, "batch_size: 8 in the checkpoint, 16 here"),
            ({"num_samples": 40}, "43 in the checkpoint, 40 here"),
            ({"seed": 5}, "seed: 4 in the checkpoint, 5 here"),
            ({"shuffle": False}, "shuffle: True in the checkpoint, False here"),
            ({"steps_per_epoch": 3}, "steps_per_epoch: None in the checkpoint, 3 here"),
            ({"class_weight": {1: 2.0}}, "class_weight: None in the checkpoint"),
            ({"validation_split": 0.3}, "validation: None in the checkpoint"),
            ({"model": "wider"}, "model/0/"),
            ({"model": "slower"}, "learning_rate: 0.0[0-9]* in the checkpoint, 0.5 here"),
        ],
    )
    def test_what_differs_is_listed(self, changed, words, earlier, tmp_path):
        shutil.copytree(earlier, tmp_path, dirs_exist_ok=True)
        changed = {"seed": 4, "epochs": 3} | changed
        model = {"wider": self.wider, "slower": self.slower}.get(changed.pop("model", None), network)()
        before = [variable.numpy() for variable in model.variables]
        with pytest.raises(CheckpointError, match=words):
            self.fit(tmp_path, model, resume=True, **changed)

        for expected, own in zip(before, model.variables, strict=True):
            np.testing.assert_array_equal(expected, own.numpy())

    def test_a_seed_that_was_drawn_is_taken_over(self, tmp_path):
        self.fit(tmp_path, epochs=1)
        np.random.seed(99)
        trainer = self.fit(tmp_path, epochs=2, resume=True)
        straight = self.fit(tmp_path / "straight", epochs=2)

        for expected, own in zip(straight.model.variables, trainer.model.variables, strict=True):
            np.testing.assert_array_equal(expected.numpy(), own.numpy())

    def test_without_resume_nothing_is_overwritten(self, tmp_path):
        self.fit(tmp_path)
        with pytest.raises(CheckpointError, match=r"holds an earlier run up to step 6.*resume=True"):
            self.fit(tmp_path)

    def test_a_beginning_alone_is_no_run(self, tmp_path):
        """One that failed at its first step may be mended and begun again."""

        class Fails(Callback):
            def on_train_batch_end(self, batch, logs=None):
                raise Cut

        with pytest.raises(Cut):
            self.fit(tmp_path, callbacks=[Fails()])
        self.fit(tmp_path, batch_size=16)

    def test_other_data_is_found_out(self, tmp_path):
        """The next batch is not the one that came there."""
        run = Run(every=Every(steps=2))
        with pytest.raises(KeyboardInterrupt):
            run.fit(run.trainer(tmp_path), cut=Cuts(8))
        x, y = arrays()
        with pytest.raises(CheckpointError, match="is not the batch that came there"):
            run.fit(run.trainer(tmp_path), x=x + 1, y=y, resume=True)

    def test_what_is_not_strict_only_warns(self, tmp_path):
        self.fit(tmp_path)
        trainer = Trainer(network(), checkpoints=Checkpointer(tmp_path, strict=False))
        with (
            pytest.warns(UserWarning, match="batch_size: 8 in the checkpoint, 16 here"),
            pytest.warns(UserWarning, match="is not the batch that came there"),
        ):
            trainer.fit(*arrays(), batch_size=16, epochs=2, verbose=0, resume=True)


def test_resume_without_a_directory_is_refused():
    with pytest.raises(ConfigError, match="resume=True, but this fit saves nothing"):
        Trainer(network()).fit(*arrays(), verbose=0, resume=True)


def test_an_empty_directory_is_a_beginning(tmp_path):
    run = Run()

    assert_same(whole(run), run.fit(run.trainer(tmp_path), resume=True))


def test_a_fit_inside_a_fit_is_refused(tmp_path):
    trainer = Run(every=None).trainer(None)
    inner = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: trainer.fit(*arrays(), verbose=0))
    with pytest.raises(ConfigError, match="fit was called while a fit of the same Trainer is running"):
        trainer.fit(*arrays(), verbose=0, callbacks=[inner])


def test_the_best_is_kept(tmp_path):
    """Whenever a value is the best yet it is saved, whatever the cadence, and stays when others go."""
    trainer = Trainer(
        network(), checkpoints=Checkpointer(tmp_path, every=Every(steps=5), keep=1, keep_best="val_loss"), seed=1
    )
    losses = LossHistory()
    history = trainer.fit(*arrays(), batch_size=8, epochs=6, verbose=0, callbacks=[losses], **VALIDATION)
    best = 6 * (1 + int(np.argmin(history.history["val_loss"])))

    assert f"step-{best:012d}" in {path.name for path in tmp_path.iterdir()}


def test_two_replicas_go_on_as_two(tmp_path, two_replicas):
    """Each with statistics and seeds of its own."""

    def fit(directory, step=None, **arguments):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(7)
        with two_replicas.scope():
            model = network()
        saved = None if directory is None else Checkpointer(directory, every=Every(epochs=1))
        trainer = Trainer(model, checkpoints=saved, steps_per_execution=3, seed=1)
        cut = [] if step is None else [Cuts(step)]
        history = trainer.fit(*arrays(), batch_size=8, epochs=3, verbose=0, callbacks=cut, **arguments)
        parts = [part.numpy() for variable in model.variables for part in parts_of_variable(variable)]
        return parts, [variable.numpy() for variable in model.optimizer.variables], history.history

    expected = fit(None)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, 8)

    np.testing.assert_equal(fit(tmp_path, resume=True), expected)


def test_a_run_in_a_thread_says_that_no_signal_reaches_it(tmp_path):
    run, found = Run(), []

    def fit():
        with pytest.warns(UserWarning, match="fit runs in a thread, where Python lets nobody handle signals"):
            found.append(run.fit(run.trainer(tmp_path)))

    thread = threading.Thread(target=fit)
    thread.start()
    thread.join()

    np.testing.assert_equal(found[0]["variables"], whole(run)["variables"])


def test_where_a_run_goes_on_is_said(tmp_path, capsys):
    run = Run(every=Every(steps=4), steps_per_execution=4)
    with pytest.raises(KeyboardInterrupt):
        run.fit(run.trainer(tmp_path), cut=Cuts(8))
    run.fit(run.trainer(tmp_path), verbose=2, resume=True)
    run.fit(run.trainer(tmp_path), verbose=2, resume=True)
    printed = capsys.readouterr().out

    assert f"Going on with the run in {tmp_path}: 8 steps are done, next is batch 3 of epoch 2." in printed
    assert f"The run in {tmp_path} has come to its end at step 18: there is nothing to train." in printed


class TestErrorsOfTensorFlow:
    """Nobody knows how many steps of the block were done: nothing is saved there, what was saved before stands."""

    def broken(self, at, error):
        x, y = arrays()

        def look(x, y, number):
            with tf.control_dependencies(
                [tf.debugging.assert_none_equal(number, tf.constant(at, tf.int64), message=error)]
            ):
                return tf.identity(x), y

        rows = tf.data.Dataset.from_tensor_slices((x, y, np.arange(len(x))))
        return rows.map(look).batch(8)

    def test_the_data(self, tmp_path):
        """The error says where it came from; a resumed run on mended data ends as if it had never been broken."""
        run = Run("tf.data", Every(steps=2), 2)
        with pytest.raises(tf.errors.InvalidArgumentError, match="the row is broken") as caught:
            run.fit(run.trainer(tmp_path), x=self.broken(30, "the row is broken"))
        mended = self.broken(-1, "")
        resumed = run.fit(run.trainer(tmp_path), x=mended, resume=True)
        alone = Run("tf.data", None, 2)

        assert "a block of steps that began with batch 3 of epoch 1" in caught.value.__notes__[0]
        assert_same(alone.fit(alone.trainer(None), x=mended), resumed)

    def test_no_memory(self, tmp_path):
        """As TensorFlow says it of a Python function in the graph; its own allocator would wait for ten seconds."""

        def allocate(inputs):
            raise MemoryError("there is no more")

        class Large(keras.layers.Layer):
            def call(self, inputs):
                return tf.ensure_shape(tf.numpy_function(allocate, [inputs], tf.float32), inputs.shape)

        model = keras.Sequential([keras.Input((4,)), Large(), keras.layers.Dense(3)])
        model.compile("sgd", "mse")
        before = [variable.numpy() for variable in model.variables]
        with pytest.raises(tf.errors.ResourceExhaustedError) as caught:
            Trainer(model, checkpoints=Checkpointer(tmp_path)).fit(*arrays(), verbose=0)

        assert "Give a smaller batch_size." in caught.value.__notes__[0]
        assert ["step-000000000000"] == [path.name for path in tmp_path.glob("step-*")]
        for expected, own in zip(before, model.variables, strict=True):
            np.testing.assert_array_equal(expected, own.numpy())


def test_a_trainer_cannot_be_pickled():
    for send in (pickle.dumps, copy.deepcopy):
        with pytest.raises(ConfigError, match="A Trainer cannot be pickled or copied"):
            send(Trainer(network()))


def test_a_disk_that_fills_up_ends_the_run_between_two_blocks(tmp_path):
    """The error comes out of fit, callbacks are closed, and the run goes on when there is room again."""
    run, closed = Run(every=Every(steps=2), steps_per_execution=2), []

    class Fills(Callback):
        """No file may grow any more, as on a full disk."""

        def get_state(self):
            return {}

        def set_state(self, state):
            """Nothing is kept."""

        def on_train_batch_end(self, batch, logs=None):
            if self.step == 7:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

        def on_train_end(self, logs=None):
            closed.append(self.step)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(SaveError, match="could not be written"):
            run.fit(run.trainer(tmp_path), cut=Fills())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    resumed = run.fit(run.trainer(tmp_path), cut=Cuts(None), resume=True)

    assert len(closed) == 1
    assert_same(whole(run), resumed)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before_it(tmp_path):
    run = Run(every=Every(steps=3), steps_per_execution=3)
    with contextlib.suppress(Cut):
        run.fit(run.trainer(tmp_path), cut=Cuts(10, how="error"))
    damaged = tmp_path / "step-000000000009" / "variables.bin"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    with pytest.warns(UserWarning, match=r"step-000000000009.*variables\.bin"):
        resumed = run.fit(run.trainer(tmp_path), cut=Cuts(None), resume=True)

    assert_same(whole(run), resumed)


def test_a_directory_that_cannot_be_used_is_refused_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("no directory")
    run = Run()
    trainer = run.trainer(tmp_path / "file" / "checkpoints")
    with pytest.raises(CheckpointError, match="cannot be saved in"):
        run.fit(trainer)

    assert not int(trainer.model.optimizer.iterations)


def test_other_versions_are_said(tmp_path, monkeypatch):
    run = Run()
    run.fit(run.trainer(tmp_path), epochs=1)
    monkeypatch.setattr(keras, "__version__", "3.0.0")
    with pytest.warns(
        UserWarning, match=r"written by other versions.*keras: '3.15.\d' in the checkpoint, '3.0.0' here"
    ):
        run.fit(run.trainer(tmp_path), resume=True)


def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    """Backwards too, and by years."""
    run = Run(every=Every(steps=4), callbacks=lambda: [TensorBoard(tmp_path / "logs")])
    jumps = itertools.cycle([1e9, 5e8, 2e9, 1.5e9])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    with pytest.raises(KeyboardInterrupt):
        run.fit(run.trainer(tmp_path / "run"), cut=Cuts(8))
    os.utime(tmp_path / "run" / "step-000000000004", (3e9, 3e9))  # as if it were the newest
    resumed = run.fit(run.trainer(tmp_path / "run"), cut=Cuts(None), resume=True)

    assert_same(whole(Run()), resumed)


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory):
    """The directory of a run of one epoch, to be read."""
    run, directory = Run(), tmp_path_factory.mktemp("saved") / "run"
    run.fit(run.trainer(directory), epochs=1)
    return directory


@pytest.mark.parametrize(
    ("forge", "words"),
    [
        (lambda facts: facts["standing"]["progress"].update(step=10**18), "progress"),
        (lambda facts: facts["standing"]["progress"].update(seconds=float("nan")), "progress"),
        (lambda facts: facts["standing"].update(is_inside="yes"), "is_inside"),
        (lambda facts: facts.update(more=1), "more"),
        (lambda facts: facts.pop("callbacks"), "callbacks"),
        (lambda facts: facts.update(pace_steps=0), "invalid value"),
        (lambda facts: facts["generators"].update(python=(1, 2)), "ValueError"),
        (lambda facts: facts["data"].update(arrays=["gone"]), "the array 'data/gone' is not there"),
        (lambda facts: facts["means"].pop("totals"), "KeyError"),
    ],
)
def test_a_forged_record_is_refused_and_nothing_is_changed(forge, words, saved_run, tmp_path):
    """Whole, with the right sums, by somebody who knows the format: what a run would believe is looked at first."""
    run = Run()
    with Checkpointer(saved_run).open() as store:
        saved = store.newest(is_final=False)
        snapshot = saved.read(saved.variables)
    forge(snapshot.facts)
    with Checkpointer(tmp_path / "forged").open() as store:
        store.save(snapshot, step=saved.step)
    trainer = run.trainer(tmp_path / "forged")
    before = [variable.numpy() for variable in trainer.model.variables]
    with pytest.raises(CheckpointError, match=f"does not hold what a run of this version is made of.*{words}"):
        run.fit(trainer, resume=True)

    for expected, own in zip(before, trainer.model.variables, strict=True):
        np.testing.assert_array_equal(expected, own.numpy())


def test_a_try_is_not_saved(tmp_path):
    """Neither before a run nor inside it."""
    run = Run()
    trainer = run.trainer(tmp_path)

    def tries(epoch, logs):
        if epoch == 1:
            with trainer.transaction():
                trainer.fit(*arrays(), batch_size=BATCH_SIZE, verbose=0)

    with trainer.transaction():
        trainer.fit(*arrays(), batch_size=BATCH_SIZE, verbose=0)
        with pytest.raises(ConfigError, match="A try, such as a fit inside a transaction, is never saved"):
            trainer.fit(*arrays(), verbose=0, resume=True)
    before = list(tmp_path.iterdir())
    given = run.fit(trainer, cut=keras.callbacks.LambdaCallback(on_epoch_end=tries))

    assert [] == before
    assert_same(whole(run), given)

"""`prove_resume` on runs that are right, and on runs with a fault planted in each thing that a checkpoint must hold."""

import csv
import sys
import types
from functools import partial
from pathlib import Path

import attrs
import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Callback, Checkpointer, ConfigError, EngineError, Every, ResumeError, Trainer, prove_resume
from engine.callbacks import CSVLogger, EarlyStopping
from engine.proof import CutReport
from engine.proof.evidence import Log
from engine.proof.processes import Sent, run_in_process
from engine.proof.script import Part, Script
from tests.helpers import classifier, samples

X, Y = samples()
STEPS = 6  # of an epoch


def make_trainer():
    """Of a model with a seed, statistics and real state in a metric."""
    return trainer_of(keras.layers.BatchNormalization, ["accuracy", Largest])()


def make_saving_trainer(directory):
    checkpoints = Checkpointer(directory / "checkpoints", every=Every(epochs=1), background=False)
    return Trainer(make_trainer().model, steps_per_execution=3, checkpoints=checkpoints)


def make_data(**arguments):
    return {"x": X, "y": Y, "batch_size": 8, "epochs": 4} | arguments


class Largest(keras.metrics.Metric):
    """A metric with real state."""

    def __init__(self):
        super().__init__(name="largest")
        self.most = self.add_variable((), "zeros", name="most")

    def update_state(self, targets, outputs, sample_weight=None):
        self.most.assign(keras.ops.maximum(self.most, keras.ops.max(outputs)))

    def result(self):
        return self.most + 0.0

    def reset_state(self):
        self.most.assign(0.0)


class Epochs(Largest):
    """A metric that counts in Python, where no checkpoint sees it."""

    def __init__(self):
        super().__init__()
        self.epochs = 0

    def result(self):
        return self.most + float(self.epochs)

    def reset_state(self):
        super().reset_state()
        self.epochs += 1


class Patience(keras.callbacks.Callback):
    """Stops the training, and cannot tell how near it is to that."""

    def __init__(self):
        super().__init__()
        self.wait = 0

    def on_epoch_end(self, epoch, logs=None):
        self.wait += 1
        self.model.stop_training = self.wait == 4


class KeptPatience(Patience):
    """The same, mended."""

    def get_state(self):
        return {"wait": self.wait}

    def set_state(self, state):
        self.wait = state["wait"]


class Blink(keras.layers.Layer):
    """A dropout that keeps its seed outside of Keras's variables."""

    def __init__(self):
        super().__init__(name="blink")
        self.draws = tf.random.Generator.from_seed(7)

    def call(self, inputs, training=False):
        return inputs * tf.round(self.draws.uniform(tf.shape(inputs))) if training else inputs


class Flicker(keras.layers.Layer):
    """A dropout whose seed is inside an operation of TensorFlow, where nobody at all can see it."""

    def call(self, inputs, training=False):
        return inputs * tf.round(tf.random.uniform(tf.shape(inputs), seed=3)) if training else inputs


class Reseeds(Callback):
    """Takes a state up wrongly: it sets a seed that is not its own."""

    def get_state(self):
        return {"kept": 1}

    def set_state(self, state):
        layer = self.model.get_layer("dropout")
        layer.seed_generator.state.assign([9, 9])


class Wanders(keras.utils.PyDataset):
    """Comes in another order from its second epoch on, as nobody gave it a seed."""

    def __init__(self):
        super().__init__()
        self.order = np.arange(len(X))

    def __len__(self):
        return len(X) // 8

    def __getitem__(self, index):
        rows = self.order[8 * index : 8 * index + 8]
        return X[rows], Y[rows]

    def on_epoch_end(self):
        self.order = np.random.default_rng().permutation(len(X))


class Jumps(Wanders):
    """Comes in another order in each process."""

    def __init__(self):
        super().__init__()
        self.on_epoch_end()


def trainer_of(layer, metrics=()):
    """A function that makes a Trainer of a model with this layer."""

    def make():
        keras.utils.set_random_seed(1)
        layers = [layer(), keras.layers.Dropout(0.3), keras.layers.Dense(3, "softmax")]
        model = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(), *layers])
        own = [metric if isinstance(metric, str) else metric() for metric in metrics]
        model.compile("adam", "sparse_categorical_crossentropy", metrics=own)
        return Trainer(model, steps_per_execution=3)

    return make


def batches():
    for begin in range(0, 8 * len(X), 8):
        rows = np.arange(begin, begin + 8) % len(X)
        yield X[rows], Y[rows]


def prove(make_trainer, make_data, cut_at=14, how="exception"):
    return prove_resume(make_trainer, make_data, cut_at=cut_at, how=how)


def refusal(make_trainer, make_data, cut_at=14):
    """The lines in which a proof says that the runs differ."""
    with pytest.raises(ResumeError) as caught:
        prove(make_trainer, make_data, cut_at)
    return str(caught.value).splitlines()


def test_a_run_that_is_right_is_proved_wherever_it_is_cut():
    """In any order at an epoch's end, within one and at the last step."""
    cut_at = [14, 6, 24]
    words = (
        "Cut by exception at step 6 and resumed from step 3: 3 steps done again.\n"
        "Cut by exception at step 14 and resumed from step 12: 2 steps done again.\n"
        "Cut by exception at step 24 and resumed from step 21: 3 steps done again."
    )
    proof = prove(make_trainer, partial(make_data, callbacks=[]), cut_at)

    assert (24, 4) == (proof.steps, proof.epochs)
    assert sorted(cut_at) == [cut.at for cut in proof.cuts]
    assert all(cut.at - cut.steps_redone == cut.resumed_from for cut in proof.cuts)
    assert all(proof.compared.values())
    assert proof == attrs.evolve(proof)
    assert f"Equal to the bit: 24 steps in 4 epochs.\n{words}" == str(proof).rpartition("\nCompared: ")[0]


@pytest.mark.parametrize(
    "make_data",
    [
        lambda: make_data(callbacks=[EarlyStopping("loss", patience=1), KeptPatience()], validation_split=0.3),
        lambda: (X, Y, np.linspace(1, 2, len(X))),
        lambda: tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(43, seed=5).repeat(3).batch(8),
        lambda: {"x": batches(), "steps_per_epoch": 9, "epochs": 2},
        lambda: make_data(
            callbacks=keras.callbacks.CallbackList([keras.callbacks.ReduceLROnPlateau("loss")]),
            class_weight={0: 2.0},
            steps_per_epoch=4,
            shuffle="batch",
        ),
    ],
    ids=["callbacks", "weighted", "dataset", "generator", "callback list, weights"],
)
def test_whatever_fit_takes_is_proved(make_data):
    proof = prove(make_trainer, make_data, cut_at=2 if isinstance(make_data(), tuple) else 5)

    assert all(proof.compared.values())


def test_a_function_with_a_parameter_gets_the_directory_of_the_run(tmp_path):
    """So that the Trainer saves by its own cadence, and callbacks write where no other run does."""

    def make_own_data(directory):
        return make_data(callbacks=[CSVLogger(directory / "log.csv"), Reader(directory / "log.csv")])

    class Reader(keras.callbacks.Callback):
        """Looks at the file at the end; prove_resume compares what it keeps."""

        def __init__(self, path):
            super().__init__()
            self.path, self.lines = path, []

        def on_epoch_end(self, epoch, logs=None):
            with self.path.open() as file:
                self.lines = list(csv.reader(file))

    proof = prove(make_saving_trainer, make_own_data)

    assert (CutReport(at=14, resumed_from=12, steps_redone=2),) == proof.cuts


def test_a_trainer_keeps_its_own_cadence(tmp_path):
    checkpoints = Checkpointer(tmp_path / "own", every=Every(steps=4))
    proof = prove(lambda: Trainer(make_trainer().model, checkpoints=checkpoints), make_data)

    assert (CutReport(at=14, resumed_from=12, steps_redone=2),) == proof.cuts
    assert not (tmp_path / "own").exists()


@pytest.mark.slow
def test_a_process_is_killed_and_another_goes_on():
    proof = prove(make_saving_trainer, make_data, how="sigkill")

    assert ("sigkill", 24) == (proof.how, proof.steps)
    assert (CutReport(at=14, resumed_from=12, steps_redone=2),) == proof.cuts


@pytest.mark.slow
def test_a_process_that_is_asked_to_end_saves_at_that_very_step(tmp_path):
    part = Part(
        directory=tmp_path / "run", log=tmp_path / "log", cut_at=4, how="sigterm", every=Every(steps=20), seed=1
    )
    is_over = run_in_process(Script(make_trainer, make_data), part)
    with Checkpointer(tmp_path / "run").open() as store:
        saved = store.newest()

    assert not is_over
    assert [1, 2, 3, 4] == [moment.step for moment in Log(tmp_path / "log").moments()]
    assert 4 == saved.step


def test_functions_are_found_by_the_file_where_their_module_has_no_name_elsewhere(tmp_path, monkeypatch):
    """As pytest makes up names for modules of tests."""
    (tmp_path / "script.py").write_text("def make():\n    return 17\n")
    module = types.ModuleType("made.up.script")
    module.__file__ = str(tmp_path / "script.py")
    monkeypatch.setitem(sys.modules, "made.up.script", module)
    exec(compile(Path(module.__file__).read_text(), module.__file__, "exec"), vars(module))
    monkeypatch.setitem(sys.modules, "made", types.ModuleType("made"))
    sent = Sent.of(Script(module.make, module.make))
    monkeypatch.delitem(sys.modules, "made.up.script")
    monkeypatch.delitem(sys.modules, "made")
    found = sent.open()

    assert (17, 17) == (found.make_trainer(), found.make_data())
    assert found.make_data is not module.make


def test_generators_and_names_are_as_they_were():
    """Behind a proof that cuts before anything but the beginning was saved."""
    keras.utils.set_random_seed(3)
    expected = np.random.random(), keras.layers.Dense(2).name
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    proof = prove(make_trainer, lambda: (X, Y), cut_at=1)

    assert "Cut by exception at step 1 and resumed from step 0: 1 step done again." in str(proof)
    assert all(proof.compared.values())
    assert expected == (np.random.random(), keras.layers.Dense(2).name)


def test_other_data_is_told_of_where_the_run_goes_on():
    first, *_ = refusal(make_trainer, lambda: {"x": Jumps(), "shuffle": False, "epochs": 2}, cut_at=3)

    assert first.startswith("The run that was cut at step 3 cannot be resumed. CheckpointError: Batch ")
    assert "the data, its order or what is done to it has changed" in first


def test_data_in_another_order_is_told_of_where_it_begins():
    """The first epoch is the same, the second is not: the batch's fingerprint tells that it is the data."""
    first, second, *_ = refusal(make_trainer, lambda: {"x": Wanders(), "shuffle": False, "epochs": 2}, cut_at=3)

    assert first.startswith("Step 6 (batch 1 of epoch 2): the loss of the step is ")
    assert "; the data came in another order: the batch after step 6 has the fingerprint " in first
    assert "The run was cut at step 3 and resumed from step 2." == second


def test_a_seed_outside_of_variables_is_told_of():
    first, *rest = refusal(trainer_of(Blink), make_data)

    assert first.startswith("Step 12 (batch 6 of epoch 2): the loss of the step is ")
    assert first.endswith("; layer 'blink': the seed in draws is [7, 0, 0], was [764935, 0, 0].")
    assert "What differed before that step:" in rest


def test_a_seed_that_nobody_can_see_is_told_of_as_such():
    first, *rest = refusal(trainer_of(Flicker), make_data)

    assert first.endswith("where no checkpoint sees it, outside of Keras's variables.")
    assert any("RandomUniform" in line for line in rest)


def test_a_seed_that_is_restored_wrongly_is_told_of():
    first, *_ = refusal(make_trainer, lambda: make_data(callbacks=[Reseeds()]))

    assert first.startswith("Step 12 (batch 6 of epoch 2): the loss of the step is ")
    assert "; Dropout's seed of layer 'dropout' is [9, 9], was [" in first


def test_a_metric_that_counts_in_python_is_told_of():
    first, *_ = refusal(trainer_of(keras.layers.Flatten, [Epochs]), make_data)

    assert "The end of epoch 2: metric 'largest': epochs is 2, was 3." == first


def test_a_callback_that_cannot_tell_its_patience_is_told_of():
    first, _, *rest = refusal(make_trainer, lambda: make_data(callbacks=[Patience()], epochs=9))

    assert "The end of epoch 2: callback Patience: wait is 1, was 2." == first
    assert any("the run is over, was going on" in line or "the run is going on, was over" in line for line in rest)
    assert any(line.startswith("- Patience cannot tell what a checkpoint must hold") for line in rest)


def test_an_attribute_that_tells_the_time_is_no_difference():
    """It differs between any two runs, before the cut too."""
    clock = iter(range(1000))

    class Clock(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.time = next(clock)

        def get_state(self):
            return {}

        def set_state(self, state):
            pass

    class Told(Clock):
        get_state = set_state = None

    assert prove(make_trainer, lambda: make_data(callbacks=[Clock(), Told()])).compared


def test_an_error_of_the_users_own_is_not_called_a_difference():
    def fail():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        prove(make_trainer, fail)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cut_at": 0}, "cut_at=0: expected a step, counted from 1, or several of them."),
        ({"cut_at": []}, "cut_at=[]: expected a step"),
        ({"cut_at": 3.5}, "cut_at=3.5: expected a step"),
        ({"cut_at": 25}, "cut_at=25, but the run ends after 24 steps. Cut it before."),
        ({"how": "politely"}, "how='politely': expected one of sigkill, sigterm, exception."),
        ({"make_data": lambda: (X, Y, X, Y)}, "make_data returned a tuple of 4: expected (x, y)"),
        ({"make_data": lambda: {"inputs": X}}, "make_data returned a dict with 'inputs', which fit does not take"),
        ({"make_data": lambda: make_data(resume=True)}, "make_data returned a dict with 'resume'"),
        ({"make_trainer": classifier}, "make_trainer returned a Sequential: expected an engine.Trainer."),
        ({"make_trainer": lambda directory: Trainer(classifier())}, "but its Trainer does not save there."),
        ({"how": "sigkill", "make_data": lambda: (X, Y)}, "cannot be sent to another process"),
        ({"how": "sigterm", "make_data": eval("lambda: 1", {})}, 'or give how="exception"'),
    ],
)
def test_what_cannot_be_proved_is_refused_in_words(changes, words):
    arguments = {"make_trainer": make_trainer, "make_data": make_data, "cut_at": 3, "how": "exception"} | changes

    with pytest.raises(ConfigError) as caught:
        prove_resume(arguments.pop("make_trainer"), arguments.pop("make_data"), **arguments)

    assert words in str(caught.value)


def failing_data():
    raise ValueError("row 17 has no label")


@pytest.mark.slow
def test_an_error_in_another_process_is_told_of():
    with pytest.raises(EngineError) as caught:
        prove(make_trainer, failing_data, how="sigkill")

    assert "A process of the proof failed. ValueError: row 17 has no label" == str(caught.value)

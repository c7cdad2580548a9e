"""The promise: what a callback from elsewhere may rely on under `model.fit`, it may rely on here.

Hand-written callbacks, as other people write them: no base class, half a base class, hooks that are attributes. The
judge is `model.fit` with the same callback wherever Keras takes it; `tests/thirdparty` does the same with packages.
"""

import abc
import copy
import functools
import inspect
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Callback, Trainer
from engine.callbacks import observe
from engine.hooks import Hooks
from tests.helpers import (
    HOOKS,
    NUM_CLASSES,
    Observer,
    Recorder,
    as_datasets,
    assert_bit_equal,
    perceptron,
    samples,
    weights_of,
)
from tests.oracle import assert_same_logs

pytestmark = pytest.mark.shares_models

X, Y = samples(22, shape=(4,))  # three batches of at most 8
ARGUMENTS = {"batch_size": 8, "epochs": 2, "shuffle": False, "validation_data": (X[:10], Y[:10]), "verbose": 0}
FIT_HOOKS = [hook for hook in HOOKS if "predict" not in hook]
ALIASES = ["on_batch_begin", "on_batch_end"]
BEGUN = {"train": ("on_train_begin", "on_epoch_begin", "on_train_batch_begin"), "test": ("on_test_begin",)}


@keras.saving.register_keras_serializable("tests")
class CountsTraces(keras.layers.Layer):
    """Counts how often Python goes through it in training."""

    traces = 0

    def call(self, x, training=False):
        self.traces += bool(training)
        return x


def counted():
    """A perceptron whose first layer counts."""
    model = keras.Sequential([keras.Input((4,)), CountsTraces(), *perceptron().layers])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Twins:
    """A model for Keras and its twin in a Trainer, made once; every run begins with the same weights."""

    def __init__(self):
        self.theirs, self.ours = counted(), counted()
        self.trainer = Trainer(self.ours, steps_per_execution=4)
        for model in (self.theirs, self.ours):
            model.optimizer.build(model.trainable_variables)
        self._start = weights_of(self.theirs)
        self.ours.layers[0].traces = 0  # those of building it

    def begin_anew(self):
        for model in (self.theirs, self.ours):
            variables = (*model.variables, *model.optimizer.variables)
            for variable, value in zip(variables, self._start, strict=True):
                variable.assign(value)

    def fit(self, make_callbacks, **arguments):
        """What Keras, and what the Trainer makes of callbacks that are made anew for each; returns the callbacks."""
        self.begin_anew()
        theirs, ours = make_callbacks(), make_callbacks()
        self.theirs.fit(callbacks=theirs, **as_datasets(x=X, y=Y, **(ARGUMENTS | arguments)))
        self.trainer.fit(X, Y, callbacks=ours, **(ARGUMENTS | arguments))
        return theirs, ours

    def fit_ours(self, callbacks, **arguments):
        """For what Keras does not take, such as an object that lacks a hook."""
        self.begin_anew()
        return self.trainer.fit(X, Y, callbacks=callbacks, **(ARGUMENTS | arguments))

    def evaluate_and_predict(self, make_callbacks):
        """The same for the other two entrances: callbacks and results of both."""
        self.begin_anew()
        found = []
        for judged in (self.theirs, self.trainer):
            callbacks = make_callbacks()
            scores = judged.evaluate(X, Y, batch_size=8, callbacks=callbacks, verbose=0, return_dict=True)
            outputs = judged.predict(X, batch_size=8, callbacks=callbacks, verbose=0)
            found.append((callbacks, scores, outputs))
        return found


@pytest.fixture(scope="module")
def twins():
    return Twins()


def noting(calls, name):
    """A hook that notes that it was called, and with which number."""

    def hook(*arguments, **named):
        calls.append((name, *(argument for argument in arguments if isinstance(argument, int))))

    return hook


# 1. Duck-typed dispatch, per instance; both names of the batch hooks, once each.


class SetsHook(keras.callbacks.Callback):
    """Gives itself a hook, that of the very moment included, whenever another hook is called; as tqdm.keras does."""

    def __init__(self, moment, hook):
        super().__init__()
        self.calls = []
        self._times = 0

        def set_hook(*arguments, **named):
            self._times += 1
            setattr(self, hook, noting(self.calls, f"{hook} of time {self._times}"))

        if moment == "__init__":
            set_hook()
        else:
            setattr(self, moment, set_hook)


class SetsHookAndLooks(SetsHook, Callback):
    """The same, but it is told of whole blocks."""


SETTINGS = [
    (moment, hook)
    for phase, moments in BEGUN.items()
    for moment in ("__init__", "set_model", *moments)
    for hook in (f"on_{phase}_batch_end", f"on_{phase}_batch_begin", *(ALIASES if phase == "train" else ()))
    if moment.replace("_train", "") != hook.replace("_train", "")
]


@pytest.mark.parametrize(("moment", "hook"), SETTINGS)
def test_a_hook_that_a_callback_gives_itself_is_called_from_then_on(twins, moment, hook):
    theirs, ours = twins.fit(lambda: [SetsHook(moment, hook)])
    looks = SetsHookAndLooks(moment, hook)
    twins.fit_ours([looks])

    assert theirs[0].calls
    assert theirs[0].calls == ours[0].calls
    if moment != "on_train_batch_begin":  # the batches of a block are begun when it has ended
        assert theirs[0].calls == looks.calls


@pytest.mark.parametrize("moment", ["on_test_begin", "on_predict_begin"])
@pytest.mark.parametrize("kind", [SetsHook, SetsHookAndLooks])
def test_a_hook_set_as_an_evaluation_or_prediction_begins_is_called_in_it(twins, kind, moment):
    (theirs, _, _), (ours, _, _) = twins.evaluate_and_predict(
        lambda: [kind(moment, moment.replace("begin", "batch_end"))]
    )

    assert theirs[0].calls
    assert theirs[0].calls == ours[0].calls


def callback_with(methods, bases=(keras.callbacks.Callback,)):
    """A callback of a class with just these methods, each of which notes its call."""

    class Notes(*bases):
        def __init__(self):
            super().__init__()
            self.calls = []

    def noted(name):
        return lambda self, *arguments, **named: noting(self.calls, name)(*arguments, **named)

    for name in methods:
        setattr(Notes, name, noted(name))
    return Notes()


@pytest.mark.parametrize("end", ["begin", "end"])
@pytest.mark.parametrize("has_old", [False, True])
@pytest.mark.parametrize("has_new", [False, True])
@pytest.mark.parametrize("is_attribute", [False, True])
def test_either_name_of_a_batch_hook_is_called_as_often_as_by_keras(twins, end, has_old, has_new, is_attribute):
    names = [f"on_batch_{end}"] * has_old + [f"on_train_batch_{end}"] * has_new

    def make():
        callback = callback_with(() if is_attribute else names)
        for name in names if is_attribute else ():
            setattr(callback, name, noting(callback.calls, name))
        return [callback]

    theirs, ours = twins.fit(make)

    assert (6 if names else 0) == len(theirs[0].calls)
    assert theirs[0].calls == ours[0].calls


@pytest.fixture(scope="module")
def keras_calls(twins):
    """What Keras calls in a fit: name of the hook and number, the older names included."""
    theirs, _ = twins.fit(lambda: [callback_with(FIT_HOOKS), callback_with(ALIASES)])
    return theirs[0].calls + theirs[1].calls


@pytest.mark.parametrize("hook", [*FIT_HOOKS, *ALIASES])
def test_a_class_with_one_method_and_no_base_class_is_a_callback(twins, keras_calls, hook):
    alone = callback_with([hook], bases=(object,))
    twins.fit_ours([alone])

    assert alone.calls
    assert [call for call in keras_calls if call[0] == hook] == alone.calls


class PassedArguments(keras.callbacks.Callback):
    """Notes how it is called: how many arguments by position, which by name."""

    def __init__(self):
        super().__init__()
        self.calls = []
        for hook in HOOKS:
            setattr(self, hook, functools.partial(self._note, hook))

    def _note(self, hook, *arguments, **named):
        self.calls.append((hook, len(arguments), *named))


def test_hooks_are_called_with_arguments_by_position_and_by_name_as_keras_does(twins):
    """`def on_train_batch_end(self, batch, **kwargs)` finds its logs in kwargs; one with `*, logs` is called at all."""
    theirs, ours = twins.fit(lambda: [PassedArguments()])
    (theirs_too, _, _), (ours_too, _, _) = twins.evaluate_and_predict(lambda: [PassedArguments()])

    assert theirs[0].calls == ours[0].calls
    assert theirs_too[0].calls == ours_too[0].calls


class Mixin:
    """Hooks that come from beside Keras's class, as swanlab's and mlflow's do."""

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("mixin", epoch, sorted(logs)))

    def on_batch_end(self, batch, logs=None):
        self.calls.append(("mixin batch", batch))


class Safe(type):
    """A metaclass that wraps every method, as mlflow's does."""

    def __new__(cls, name, bases, attributes):
        for key, value in attributes.items():
            if inspect.isfunction(value):

                @functools.wraps(value)
                def safe(*arguments, _method=value, **named):
                    return _method(*arguments, **named)

                attributes[key] = safe
        return super().__new__(cls, name, bases, attributes)


class Notes(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.calls = []


class MixinInFront(Mixin, abc.ABC, Notes):
    pass


class MixinBehind(Notes, Mixin):
    """Keras's empty hooks come first, and so the mixin's are never called."""


class Wrapped(Notes, metaclass=Safe):
    on_epoch_end, on_batch_end = Mixin.on_epoch_end, Mixin.on_batch_end


class WrappedSkipsInit(keras.callbacks.Callback, metaclass=Safe):
    on_epoch_end, on_batch_end = Mixin.on_epoch_end, Mixin.on_batch_end

    def __init__(self):
        self.calls = []

    def on_train_begin(self, logs=None):
        self.calls.append((self.model.name is not None, self.params.get("epochs"), self.params.get("samples")))


class PassesOn(Notes):
    """Calls the empty hook of the base class, which calls the older name."""

    on_batch_end = Mixin.on_batch_end

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(("own", batch))
        super().on_train_batch_end(batch, logs)


class AsFunctions(Notes):
    """Hooks that are no plain methods."""

    begun: ClassVar[list[int]] = []
    on_epoch_begin = staticmethod(lambda epoch, logs=None: AsFunctions.begun.append(epoch))

    @classmethod
    def on_train_batch_begin(cls, batch, logs=None):
        cls.begun.append(batch)

    def __init__(self):
        super().__init__()
        self.begun.clear()
        self.on_train_batch_end = functools.partial(Mixin.on_batch_end, self)

    def on_train_end(self, logs=None):
        self.calls += self.begun
        self.begun.clear()


class Falsy(Notes):
    """A container without contents, which `if callback` would pass over."""

    on_epoch_end, on_batch_end = Mixin.on_epoch_end, Mixin.on_batch_end

    def __len__(self):
        return 0


class Proxy:
    """Hands everything on to another callback; no hook is found by looking at its class."""

    def __init__(self):
        self._inner = MixinInFront()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.__dict__["_inner"], name)


KINDS = [MixinInFront, MixinBehind, Wrapped, WrappedSkipsInit, PassesOn, AsFunctions, Falsy, Proxy]


@pytest.mark.parametrize("kind", KINDS)
def test_oddly_made_callbacks_are_called_as_by_keras(twins, kind):
    theirs, ours = twins.fit(lambda: [kind()])

    assert (kind is MixinBehind) == (theirs[0].calls == [])
    assert theirs[0].calls == ours[0].calls


class LegacyBase:
    """What `tf_keras.callbacks.Callback` is: another class than Keras 3's, with empty hooks marked the same way."""

    _supports_tf_logs = False

    def __init__(self):
        self.validation_data = None
        self.model = None
        self._chief_worker_only = None

    def set_params(self, params):
        self.params = params

    def set_model(self, model):
        self.model = model

    def _implements_train_batch_hooks(self):
        return True


def _empty_hook(older):
    def hook(self, index_or_logs=None, logs=None):
        if older:
            getattr(self, older)(index_or_logs, logs=logs)

    hook._is_default = True
    return hook


for _hook in (*HOOKS, *ALIASES):
    setattr(LegacyBase, _hook, _empty_hook(_hook.replace("_train", "") if "train_batch" in _hook else None))


@pytest.mark.parametrize("hook", [*FIT_HOOKS, *ALIASES])
def test_a_callback_on_the_base_class_of_an_older_keras_is_called_as_one_of_keras(twins, keras_calls, hook):
    """As Ray's are; and one without a batch hook is not taken to have one."""
    callback = callback_with([hook], bases=(LegacyBase,))
    twins.fit_ours([callback])

    assert [call for call in keras_calls if call[0] == hook] == callback.calls
    assert ("batch" in hook) == any(Hooks([callback], twins.ours).listens(phase) for phase in ("train", "test"))


class RateOfNextStep:
    """A batch hook that acts."""

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        self.model.optimizer.learning_rate = 0.01 * (batch + 1)


class ActingCheckpoint(RateOfNextStep, keras.callbacks.ModelCheckpoint):
    pass


class ActingTensorBoard(RateOfNextStep, keras.callbacks.TensorBoard):
    pass


class ActingBackup(RateOfNextStep, keras.callbacks.BackupAndRestore):
    pass


class ActingBar(RateOfNextStep, keras.callbacks.ProgbarLogger):
    pass


@pytest.mark.parametrize("kind", [ActingCheckpoint, ActingTensorBoard, ActingBackup, ActingBar])
def test_a_subclass_of_keras_own_callbacks_that_acts_in_a_batch_hook_does_so_between_the_steps(twins, tmp_path, kind):
    """Keras's own only look, but what a user adds to them may act."""
    path = {ActingCheckpoint: ["{epoch}.keras"], ActingTensorBoard: ["logs"], ActingBackup: ["backup"], ActingBar: []}
    arguments = [str(tmp_path / name) for name in path[kind]]
    twins.fit(lambda: [kind(*arguments)])

    assert_bit_equal(weights_of(twins.theirs), weights_of(twins.ours))


# 2. set_params, then set_model, before any hook; params can be asked; the optimizer is the live one.


class Setters(keras.callbacks.Callback):
    """Notes the order in which it is set up and begun, and what it finds."""

    def __init__(self):
        super().__init__()
        self.calls, self.optimizers = [], []

    def set_params(self, params):
        super().set_params(params)
        self.calls.append(("params", dict(params)))

    def set_model(self, model):
        super().set_model(model)
        self.calls.append(("model", self.params is not None))

    def on_train_begin(self, logs=None):
        self.calls.append(("begin", self.params.get("epochs"), self.params.get("nb_epoch", "none")))

    on_test_begin = on_predict_begin = on_train_begin

    def on_train_batch_end(self, batch, logs=None):
        self.optimizers.append(self.model.optimizer)


@pytest.mark.parametrize("verbose", [0, 1, 2, "auto"])
def test_params_are_set_then_the_model_before_any_hook_with_what_keras_puts_in_them(twins, verbose, capfd):
    theirs, ours = twins.fit(lambda: [Setters()], verbose=verbose)
    params = {name: value for call in theirs[0].calls if call[0] == "params" for name, value in call[1].items()}

    assert [("params", params), ("model", True), ("begin", 2, "none")] == ours[0].calls[:3]
    assert twins.ours.optimizer is ours[0].optimizers[0]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras says so of every dataset of unknown length
def test_params_of_data_of_unknown_length_and_of_the_other_entrances_are_those_of_keras(twins):
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).filter(lambda *_: True)
    found = []
    for judged in (twins.theirs, twins.trainer):
        callbacks = [Setters() for _ in range(3)]
        judged.fit(dataset, callbacks=callbacks[:1], shuffle=False, verbose=0)
        judged.evaluate(X, Y, callbacks=callbacks[1:2], verbose=0)
        judged.predict(X, callbacks=callbacks[2:], verbose=0)
        found.append([callback.params for callback in callbacks])

    assert found[0] == found[1]


# 3. Logs are a fresh plain dict of floats; what a callback does to them harms nobody.


class Types(keras.callbacks.Callback):
    """Keeps the logs of every hook as they were handed over."""

    def __init__(self):
        super().__init__()
        self.seen = []
        for hook in HOOKS:
            setattr(self, hook, functools.partial(self._keep, hook))

    def _keep(self, hook, *arguments, **named):
        logs = named.get("logs", arguments[-1])
        self.seen.append((hook, logs, dict(logs), [type(value) for value in logs.values()]))


class TypesSeenInBlocks(Types, Callback):
    """The same, told of whole blocks."""


@pytest.mark.parametrize("kind", [Types, TypesSeenInBlocks])
def test_logs_are_in_every_hook_a_plain_dict_of_their_own_with_python_floats(twins, kind):
    theirs, ours = twins.fit(lambda: [kind()])

    assert all(type(logs) is dict for _, logs, _, _ in ours[0].seen)
    assert all({float} >= set(types) for _, _, _, types in ours[0].seen)
    assert len({id(logs) for _, logs, _, _ in ours[0].seen}) == len(ours[0].seen)
    for (hook, _, expected, _), (_, logs, given, _) in zip(theirs[0].seen, ours[0].seen, strict=True):
        if hook != "on_test_batch_begin":
            assert_same_logs(expected, given)
        assert given == logs, "nobody wrote into it later"


def test_outputs_of_a_predicted_batch_are_in_the_logs_and_those_of_keras(twins):
    (theirs, _, expected), (ours, _, given) = twins.evaluate_and_predict(lambda: [Types()])
    parts = [
        [logs["outputs"] for hook, _, logs, _ in callbacks[0].seen if hook == "on_predict_batch_end"]
        for callbacks in (theirs, ours)
    ]

    np.testing.assert_array_equal(expected, given)
    assert_bit_equal([np.asarray(part) for part in parts[0]], [np.asarray(part) for part in parts[1]])


class Vandal(keras.callbacks.Callback):
    """Clears and scribbles over all that it is handed, arrays included."""

    def __init__(self):
        super().__init__()
        for hook in HOOKS:
            setattr(self, hook, self._destroy)

    @staticmethod
    def _destroy(*arguments, **named):
        logs = named.get("logs", arguments[-1])
        for value in logs.values():
            if isinstance(value, np.ndarray) and value.flags.writeable:
                value[...] = -1.0
        logs.clear()
        logs["graffito"] = -1.0


class VandalOfBlocks(Vandal, Callback):
    """The same, told of whole blocks."""


@pytest.mark.parametrize("kind", [Vandal, VandalOfBlocks])
def test_a_callback_that_scribbles_on_its_logs_harms_only_those_behind_it_in_the_same_hook(twins, kind):
    twins.fit(lambda: [[Recorder(), kind()]])
    expected, given = twins.theirs.history.history, twins.ours.history.history
    (_, _, undisturbed), _ = twins.evaluate_and_predict(list)
    (_, expected_scores, _), (_, scores, outputs) = twins.evaluate_and_predict(lambda: [kind()])

    assert {"graffito": [-1.0, -1.0]} == expected == given
    assert_same_logs(expected_scores, scores)
    np.testing.assert_array_equal(undisturbed, outputs)


@pytest.mark.parametrize("kind", [Vandal, VandalOfBlocks])
def test_scribbled_logs_of_one_hook_are_whole_again_in_the_next(kind):
    """A value that is an array belongs to the hook as well."""
    metrics = ["accuracy", keras.metrics.F1Score(name="f1")]
    arguments = ARGUMENTS | {"validation_data": (X[:10], np.eye(NUM_CLASSES)[Y[:10]])}
    seen = []
    for vandals in ([], [kind()]):
        model = perceptron(loss="categorical_crossentropy", metrics=metrics)
        types = TypesSeenInBlocks()
        trainer = Trainer(model, steps_per_execution=4)
        trainer.fit(X, np.eye(NUM_CLASSES)[Y], callbacks=[types, *vandals], **arguments)
        seen.append([(hook, logs) for hook, _, logs, _ in types.seen])

    for (hook, expected), (_, given) in zip(*seen, strict=True):
        assert list(expected) == list(given), hook
        for name, value in expected.items():
            if np.ndim(value) == 0:  # the arrays were scribbled on after they had been handed over
                assert value == given[name], hook


# 4. The optimizer is current in a batch hook, however many steps an execution has.


class ReadsOptimizer(keras.callbacks.Callback):
    """What trackers read at every batch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        optimizer = self.model.optimizer
        self.seen.append((batch, int(optimizer.iterations.numpy()), float(optimizer.learning_rate.numpy())))


RATES = {"constant": lambda: 0.5, "schedule": lambda: keras.optimizers.schedules.ExponentialDecay(0.5, 2, 0.5)}


@pytest.mark.parametrize(("rate", "steps_per_execution"), [("constant", "auto"), ("schedule", 1), ("schedule", 2)])
def test_iterations_and_learning_rate_are_current_in_the_hook_of_every_batch(rate, steps_per_execution):
    """Keras with one step in an execution is the judge; with more it calls the hook for the last of them only."""
    theirs, ours = ReadsOptimizer(), ReadsOptimizer()
    perceptron(optimizer=keras.optimizers.SGD(RATES[rate]())).fit(X, Y, callbacks=[theirs], **ARGUMENTS)
    model = perceptron(optimizer=keras.optimizers.SGD(RATES[rate]()))
    Trainer(model, steps_per_execution=steps_per_execution).fit(X, Y, callbacks=[ours], **ARGUMENTS)

    assert [(0, 1), (1, 2), (2, 3), (0, 4), (1, 5), (2, 6)] == [seen[:2] for seen in theirs.seen]
    assert theirs.seen == ours.seen


def test_an_observed_callback_reads_the_optimizer_as_it_is_at_the_end_of_a_block(twins):
    """That is the price of `observe`: indices and logs are those of the batch, the optimizer's values are not."""
    reads = observe(ReadsOptimizer())
    twins.fit_ours([reads], epochs=1)

    assert [(0, 3), (1, 3), (2, 3)] == [seen[:2] for seen in reads.seen]


# 5. Stopping, and setting the learning rate.


def stops_in(what, hook, time=1):
    """A Recorder and a callback with this one hook, in which it stops."""
    left = [time]

    def stop(*arguments, **named):
        left[0] -= 1
        if left[0] == 0:
            setattr(callback.model, what, True)

    callback = keras.callbacks.Callback()
    setattr(callback, hook, stop)
    return [Recorder(), callback]


STOPS = [("stop_training", hook, time) for hook in FIT_HOOKS if hook != "on_train_end" for time in (1, 2)]
STOPS += [("stop_evaluating", hook, time) for hook in FIT_HOOKS if "_test_" in hook for time in (1, 2)]


@pytest.mark.parametrize(("what", "hook", "time"), STOPS)
def test_a_stop_in_any_hook_of_a_fit_ends_what_it_ends_in_keras(twins, what, hook, time):
    theirs, ours = twins.fit(lambda: stops_in(what, hook, time))

    assert theirs[0].calls == ours[0].calls
    assert_bit_equal(weights_of(twins.theirs), weights_of(twins.ours))


@pytest.mark.parametrize(
    ("what", "hook"), [("stop_training", hook) for hook in ("on_train_begin", "on_epoch_begin", "on_epoch_end")]
)
def test_a_stop_between_batches_needs_no_batch_hook(twins, what, hook):
    """Nobody listens to batches here, so that blocks are long; Keras looks at the flag after each of its steps."""
    twins.fit(lambda: stops_in(what, hook)[1:])

    assert_bit_equal(weights_of(twins.theirs), weights_of(twins.ours))
    assert_same_logs(twins.theirs.history.history, twins.ours.history.history)


PASSES = [("stop_evaluating", f"on_test_{moment}") for moment in ("begin", "batch_begin", "batch_end", "end")]
PASSES += [("stop_predicting", f"on_predict_{moment}") for moment in ("begin", "batch_begin", "batch_end", "end")]


@pytest.mark.parametrize(("what", "hook"), PASSES)
@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_stop_in_any_hook_of_an_evaluation_or_prediction_ends_it_as_in_keras(twins, what, hook, is_recorded):
    found = twins.evaluate_and_predict(lambda: stops_in(what, hook)[0 if is_recorded else 1 :])
    (theirs, expected_scores, expected), (ours, scores, outputs) = found

    assert_same_logs(expected_scores, scores)
    np.testing.assert_array_equal(expected, outputs)
    if is_recorded:
        assert theirs[0].calls == ours[0].calls


class SetsRate(keras.callbacks.Callback):
    """Gives the learning rate a new value whenever one hook is called."""

    def __init__(self, hook, way):
        super().__init__()
        rates = iter(np.linspace(0.01, 1.0, 20).tolist())
        ways = {
            "attribute": lambda rate: setattr(self.model.optimizer, "learning_rate", rate),
            "assign": lambda rate: self.model.optimizer.learning_rate.assign(rate),
        }
        setattr(self, hook, lambda *arguments, **named: ways[way](next(rates)))


RATE_HOOKS = ["on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_batch_end", "on_test_end", "on_epoch_end"]


@pytest.mark.parametrize("way", ["attribute", "assign"])
@pytest.mark.parametrize("hook", RATE_HOOKS)
def test_a_learning_rate_set_in_any_hook_is_that_of_the_next_step_without_another_trace(twins, hook, way):
    twins.fit(lambda: [SetsRate(hook, way)])

    assert_bit_equal(weights_of(twins.theirs), weights_of(twins.ours))
    assert 1 == twins.ours.layers[0].traces


# 6. The model can be used inside a hook.


class UsesModel(keras.callbacks.Callback):
    """Calls in every hook, once, all that other people's callbacks call, and keeps what comes of it."""

    def __init__(self, directory):
        super().__init__()
        self.results = []
        self._directory = directory
        for hook in HOOKS:
            setattr(self, hook, functools.partial(self._use, hook))

    def _use(self, hook, *arguments, **named):
        path, model, lines = self._directory / hook, self.model, []
        if hook in [result[0] for result in self.results]:
            return
        weights = model.get_weights()
        model.summary(print_fn=lambda line, **_: lines.append(line))
        model.save(f"{path}.keras")
        model.save_weights(f"{path}.weights.h5")
        scores = model.evaluate(X[:9], Y[:9], verbose=0, return_dict=True)
        outputs = model.predict(X[:9], verbose=0)
        model.set_weights([np.zeros_like(weight) for weight in weights])
        model.load_weights(f"{path}.weights.h5")
        assert_bit_equal(weights, model.get_weights())
        model.set_weights(weights)
        self.results.append((hook, weights, scores, outputs, len(lines), model.count_params(), model.to_json()))


class UsesModelAfterBlocks(UsesModel, Callback):
    """The same, told of whole blocks."""


@pytest.mark.parametrize("kind", [UsesModel, UsesModelAfterBlocks])
def test_the_model_can_be_used_in_every_hook_and_the_training_goes_on_as_if_nobody_had(twins, tmp_path, kind):
    """Keras evaluates on the metrics that it trains with, and so its own curves are no judge here: a plain fit is."""
    twins.fit(list)
    expected, expected_weights = twins.ours.history.history, weights_of(twins.ours)
    callback = kind(tmp_path)
    twins.fit_ours([callback])

    assert set(FIT_HOOKS) == {result[0] for result in callback.results}
    assert_bit_equal(expected_weights, weights_of(twins.ours))
    assert expected == twins.ours.history.history


def test_what_the_model_gives_inside_a_hook_is_what_it_gives_under_keras(twins, tmp_path):
    directories = [tmp_path / name for name in ("theirs", "ours")]
    for directory in directories:
        directory.mkdir()
    made = iter(directories)
    theirs, ours = twins.fit(lambda: [UsesModel(next(made))])
    for expected, given in zip(theirs[0].results, ours[0].results, strict=True):
        assert expected[0] == given[0]
        assert_bit_equal(expected[1], given[1])
        assert_same_logs(expected[2], given[2])
        np.testing.assert_array_equal(expected[3], given[3])
        assert expected[4:6] == given[4:6]
    saved = keras.saving.load_model(directories[1] / "on_epoch_end.keras")
    (at_epoch_end,) = (result for result in ours[0].results if result[0] == "on_epoch_end")

    assert_bit_equal(at_epoch_end[1], saved.get_weights())
    assert 3 == int(saved.optimizer.iterations)


def test_the_model_can_be_used_in_every_hook_of_an_evaluation_and_a_prediction(twins, tmp_path):
    (_, expected_scores, expected), _ = twins.evaluate_and_predict(list)
    _, (callbacks, scores, outputs) = twins.evaluate_and_predict(lambda: [UsesModel(tmp_path)])

    assert {hook for hook in HOOKS if "test" in hook or "predict" in hook} == {
        result[0] for result in callbacks[0].results
    }
    assert_same_logs(expected_scores, scores)
    np.testing.assert_array_equal(expected, outputs)


class SetsWeights(keras.callbacks.Callback):
    """Halves the weights whenever one hook is called: what averaging, pruning and clipping callbacks do."""

    def __init__(self, hook):
        super().__init__()
        setattr(self, hook, self._halve)

    def _halve(self, *arguments, **named):
        self.model.set_weights([weight / 2 for weight in self.model.get_weights()])


@pytest.mark.parametrize("hook", [*FIT_HOOKS, *ALIASES])
def test_weights_set_in_a_hook_are_those_of_the_next_step(twins, hook):
    twins.fit(lambda: [SetsWeights(hook)])

    assert_bit_equal(weights_of(twins.theirs), weights_of(twins.ours))
    assert_same_logs(twins.theirs.history.history, twins.ours.history.history)


# 7. Exceptions keep their own type and are never taken for the end of the data.


class Pruned(Exception):  # noqa: N818 - as optuna names its own
    """Cannot be made anew from its message alone, as any wrapper would have to."""

    def __init__(self, epoch, *, score):
        super().__init__(f"epoch {epoch}")
        self.epoch, self.score = epoch, score


class RaisesPlainly:
    """No base class, one hook that raises."""

    def __init__(self, hook, error):
        self._error = error
        setattr(self, hook, self._raise)

    def _raise(self, *arguments, **named):
        raise self._error


ERRORS = {
    "an error with arguments of its own": lambda: Pruned(3, score=0.5),
    "StopIteration": lambda: StopIteration("mine"),
    "OutOfRangeError": lambda: tf.errors.OutOfRangeError(None, None, "mine"),
    "KeyboardInterrupt": lambda: KeyboardInterrupt("mine"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_from_any_hook_comes_out_as_it_went_in_and_the_next_fit_is_unharmed(twins, name):
    twins.fit(list)
    expected, expected_weights = twins.ours.history.history, weights_of(twins.ours)
    for hook in [*FIT_HOOKS, *ALIASES]:
        error = ERRORS[name]()
        with pytest.raises(type(error)) as caught:
            twins.fit_ours([RaisesPlainly(hook, error)])
        frames = [frame.name for frame in caught.traceback]
        twins.fit_ours(None)

        assert error is caught.value, hook
        assert error.__cause__ is None
        assert "_raise" in frames
        assert expected == twins.ours.history.history, hook
        assert_bit_equal(expected_weights, weights_of(twins.ours))


@pytest.mark.parametrize("setter", ["set_params", "set_model"])
def test_an_error_while_a_callback_is_set_up_comes_out_as_it_went_in(twins, setter):
    error = Pruned(0, score=0.0)
    with pytest.raises(Pruned) as caught:
        twins.fit_ours([RaisesPlainly(setter, error)])

    assert error is caught.value


class OtherOnException(keras.callbacks.Callback):
    """A method of this name, but of another library's meaning, with other arguments."""

    def on_exception(self, trainer, module, exception):
        """Never right to call with one argument."""


def test_a_method_of_the_same_name_but_another_meaning_hides_no_error(twins):
    with pytest.raises(Pruned) as caught:
        twins.fit_ours([OtherOnException(), RaisesPlainly("on_epoch_end", Pruned(1, score=0.1))])

    assert 1 == caught.value.epoch


# 8. Copies, and every form of a list of callbacks.


@pytest.mark.parametrize("is_used", [False, True])
@pytest.mark.parametrize("kind", [MixinInFront, WrappedSkipsInit, Falsy, Recorder])
def test_copies_of_callbacks_are_called_as_the_originals(twins, kind, is_used):
    """keras-tuner copies them for every trial, also such as have been used and hold a model."""
    original = kind()
    if is_used:
        twins.fit_ours([original], epochs=1)
    copied = copy.deepcopy(original)
    expected = list(original.calls)
    twins.fit_ours([copied], epochs=1)
    another = kind()
    twins.fit_ours([another], epochs=1)

    assert expected == original.calls
    assert expected + another.calls == copied.calls


FORMS = {
    "one alone": lambda callbacks: callbacks[0],
    "a list": list,
    "a tuple": tuple,
    "a nest": lambda callbacks: [callbacks[:1], (callbacks[1:], [[]])],
    "a ready list": keras.callbacks.CallbackList,
    "a ready list with a history": lambda callbacks: keras.callbacks.CallbackList(callbacks, add_history=True),
    "one twice": lambda callbacks: [callbacks[0], callbacks[0]],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_list_that_keras_takes_is_taken(twins, form):
    """Keras is given the nest and the single one flat, and a ready list with its model, as it wants them."""
    flat = {"one alone": 1}.get(form, 2)
    expected, given = [Recorder() for _ in range(flat)], [Recorder() for _ in range(2)]
    twins.begin_anew()
    twins.theirs.fit(X, Y, callbacks=[expected[0]] * 2 if form == "one twice" else expected, **ARGUMENTS)
    history = twins.trainer.fit(X, Y, callbacks=FORMS[form](given), **ARGUMENTS)

    assert isinstance(history, keras.callbacks.History)
    for theirs, ours in zip(expected, given, strict=False):
        assert theirs.calls == ours.calls


class MonitorsItsOwn(keras.callbacks.EarlyStopping):
    """Computes a value, puts it into the logs, and stops by it: the usual way to stop by a metric of one's own."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_mine"] = float(epoch)
        super().on_epoch_end(epoch, logs)


def test_a_callback_may_monitor_what_it_puts_into_the_logs_itself(twins):
    theirs, ours = twins.fit(lambda: [MonitorsItsOwn("val_mine", mode="min", patience=1)], epochs=4)

    assert 1 == theirs[0].stopped_epoch
    assert theirs[0].stopped_epoch == ours[0].stopped_epoch


def test_keras_own_bar_takes_the_place_of_the_default_one(twins, capfd):
    """As in Keras; two bars at once would write over each other."""
    twins.fit_ours([keras.callbacks.ProgbarLogger()], verbose=1, epochs=1)
    output = capfd.readouterr()

    assert "3/3" in output.out
    assert "3 steps in" not in output.out + output.err


# 9. A real History.


@pytest.mark.parametrize("is_given", [False, True])
def test_the_history_is_one_of_keras_and_the_one_that_was_given(twins, is_given):
    given = keras.callbacks.History()
    history = twins.fit_ours([given] if is_given else None)

    assert type(history) is keras.callbacks.History
    assert is_given == (history is given)
    assert history is twins.ours.history
    assert [0, 1] == history.epoch
    assert twins.ours is history.model
    assert {"verbose": 0, "epochs": 2, "steps": 3} == history.params


def test_observers_see_what_recorders_see(twins):
    """The rows of this page hold for both kinds: told of each batch, and told of whole blocks."""
    recorder, observer = Recorder(), Observer()
    twins.fit_ours([recorder])
    twins.fit_ours([observer])

    assert recorder.calls == observer.calls

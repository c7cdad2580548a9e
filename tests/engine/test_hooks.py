import copy
import io

import keras
import pytest
import tensorflow as tf
from tqdm.keras import TqdmCallback

from engine import Callback, ConfigError, Trainer
from engine.callbacks import LossHistory, ProgressBar, TensorBoard
from engine.hooks import Hooks
from tests.helpers import HOOKS, Observer, Recorder, perceptron, samples

pytestmark = pytest.mark.shares_models

X, Y = samples(22, shape=(4,))  # three batches of at most 8
FIT_HOOKS = [hook for hook in HOOKS if "predict" not in hook]
ERRORS = [ValueError, StopIteration, GeneratorExit, KeyboardInterrupt, SystemExit]


@pytest.fixture(scope="module")
def trainer():
    """One for all: traced once, so that a fit takes milliseconds."""
    return Trainer(perceptron())


@pytest.fixture(scope="module")
def keras_model():
    return perceptron()


def train(fit, callbacks, **arguments):
    return fit(X, Y, **({"batch_size": 8, "validation_data": (X, Y), "callbacks": callbacks, "verbose": 0} | arguments))


class Duck:
    """No base class, and only some of the hooks."""

    def __init__(self):
        self.calls = []

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("on_epoch_begin", epoch, ""))

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(("on_train_batch_end", batch, " ".join(logs)))


class SkipsInit(keras.callbacks.Callback):
    """Never calls Callback.__init__, so that it has neither params nor model until they are set."""

    def __init__(self):
        self.calls = []

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("on_epoch_begin", epoch, ""))

    def on_train_batch_end(self, batch, logs=None):
        assert self.model is not None
        assert self.params["epochs"] == 2
        self.calls.append(("on_train_batch_end", batch, " ".join(logs)))


class HooksAsAttributes(keras.callbacks.Callback):
    """Its hooks are closures, the last of them set only when training begins."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.on_epoch_begin = lambda epoch, logs=None: self.calls.append(("on_epoch_begin", epoch, ""))

    def on_train_begin(self, logs=None):
        self.on_train_batch_end = lambda batch, logs=None: self.calls.append(
            ("on_train_batch_end", batch, " ".join(logs))
        )


@pytest.mark.parametrize("kind", [Duck, SkipsInit, HooksAsAttributes])
def test_any_object_with_hooks_is_a_callback(trainer, kind):
    recorder, callback = Recorder(), kind()
    train(trainer.fit, [recorder, callback], epochs=2)

    assert [call for call in recorder.calls if call[0] in ("on_epoch_begin", "on_train_batch_end")] == callback.calls


class Legacy(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.calls = []

    def on_batch_begin(self, batch, logs=None):
        self.calls.append(("begin", batch))

    def on_batch_end(self, batch, logs=None):
        self.calls.append(("end", batch))


class LegacyAndNew(Legacy):
    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(("train end", batch))


class LegacyThroughNew(Legacy):
    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(("train end", batch))
        super().on_train_batch_end(batch, logs)


@pytest.mark.parametrize("kind", [Legacy, LegacyAndNew, LegacyThroughNew])
def test_the_older_names_of_the_batch_hooks_are_called_as_often_as_by_keras(trainer, keras_model, kind):
    theirs, ours = kind(), kind()
    train(keras_model.fit, [theirs])
    train(trainer.fit, [ours])

    assert theirs.calls == ours.calls


def test_callbacks_may_be_one_a_nest_or_a_ready_list_and_keep_their_order(trainer):
    def named(name, order):
        return keras.callbacks.LambdaCallback(on_train_begin=lambda logs: order.append(name))

    for wrap in (lambda a, b, c: [a, [b, (c,)]], lambda a, b, c: keras.callbacks.CallbackList([a, [b, c]])):
        order = []
        train(trainer.fit, wrap(*(named(name, order) for name in "abc")))

        assert list("abc") == order
    alone = Duck()
    train(trainer.fit, alone)
    train(trainer.fit, None)

    assert 4 == len(alone.calls)


def test_a_ready_list_keeps_its_own_history_and_bar(trainer, capfd):
    ready = keras.callbacks.CallbackList([Legacy()], add_history=True, add_progbar=True, epochs=1, steps=3, verbose=1)
    history = train(trainer.fit, ready, verbose=1)
    output = capfd.readouterr()

    assert ready._history is history
    assert "3/3" in output.out
    assert "Epoch" not in output.err


def test_params_are_set_before_the_model():
    """Some callbacks of other people read their params in set_model."""
    order = []

    class Setters:
        set_params = staticmethod(lambda params: order.append(params))
        set_model = staticmethod(lambda model: order.append(model))

    Hooks.of([Setters()], model="model", params={"epochs": 1})

    assert [{"epochs": 1}, "model"] == order


class Looks(Callback):
    def on_train_batch_end(self, batch, logs=None):
        """Looks only."""


class Acts(Looks):
    acts_on_batches = True


LISTENING_AND_ACTING = [
    (Duck(), True, True),
    (Looks(), True, False),
    (Acts(), True, True),
    (Callback(), False, False),
    (LossHistory(), True, False),
    (ProgressBar(), True, False),
    (TensorBoard(), True, False),
    (Legacy(), True, True),
    (keras.callbacks.History(), False, False),
    (keras.callbacks.EarlyStopping(), False, False),
    (keras.callbacks.CSVLogger("log.csv"), False, False),
    (keras.callbacks.ProgbarLogger(), True, False),
    (keras.callbacks.TerminateOnNaN(), True, True),
    (keras.callbacks.ModelCheckpoint("{epoch}.keras"), True, False),
    (keras.callbacks.ModelCheckpoint("{epoch}.keras", save_freq=5), True, True),
    (keras.callbacks.BackupAndRestore("backup"), True, False),
    (keras.callbacks.BackupAndRestore("backup", save_freq=5), True, True),
    (keras.callbacks.TensorBoard("logs"), True, False),
    (keras.callbacks.TensorBoard("logs", update_freq="batch"), True, True),
    (keras.callbacks.TensorBoard("logs", update_freq=5), True, True),
    (keras.callbacks.LambdaCallback(on_epoch_end=print), False, False),
    (keras.callbacks.LambdaCallback(on_train_batch_end=print), True, True),
]


def test_who_listens_to_batches_and_who_acts_on_them():
    """Acting is the safe answer for a stranger; Keras's own act only where they save or write between batches."""
    for callback, listens, acts in LISTENING_AND_ACTING:
        hooks = Hooks([callback], None)
        described = (type(callback).__name__, vars(callback).get("save_freq"), vars(callback).get("update_freq"))

        assert (listens, acts) == (hooks.listens("train"), hooks.acts("train")), described


def test_an_acting_callback_changes_the_very_next_step(trainer):
    """A learning rate of 0 set after the first step leaves the weights as that step left them."""

    class Freezes(Acts):
        def on_train_batch_end(self, batch, logs=None):
            self.weights = getattr(self, "weights", self.model.get_weights())
            self.model.optimizer.learning_rate = 0.0

    freezes, rate = Freezes(), float(trainer.model.optimizer.learning_rate)
    train(trainer.fit, [freezes])
    trainer.model.optimizer.learning_rate = rate

    assert all((a == b).all() for a, b in zip(freezes.weights, trainer.model.get_weights(), strict=True))


class Fails(Callback):
    """Raises from one hook."""

    def __init__(self, hook, error, *, acts):
        super().__init__()
        self.acts_on_batches = acts
        setattr(self, hook, self._fail)
        self.error = error

    def _fail(self, *arguments, **named):
        raise self.error


class Closes(Observer):
    """Notes how it is closed."""

    def __init__(self):
        super().__init__()
        self.errors = []

    def on_exception(self, error):
        self.errors.append(error)
        self.calls.append(("on_exception",))


@pytest.mark.parametrize("hook", FIT_HOOKS)
def test_an_error_from_any_hook_goes_its_way_unchanged_and_closes_every_callback_once(trainer, hook):
    """Its own type and identity, also where StopIteration or OutOfRangeError might pass for the end of the data."""
    for error in (*(kind("mine") for kind in ERRORS), tf.errors.OutOfRangeError(None, None, "mine")):
        for acts in (True, False):
            front, back = Closes(), Closes()
            with pytest.raises(type(error)) as caught:
                train(trainer.fit, [front, Fails(hook, error, acts=acts), back])

            assert error is caught.value
            for closes in (front, back):
                endings = [call[0] for call in closes.calls if call[0] in ("on_exception", "on_train_end")]
                assert (["on_exception"] if hook != "on_train_end" else []) + ["on_train_end"] == endings


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if "test" in hook or "predict" in hook])
def test_an_error_from_any_hook_of_evaluate_and_predict_goes_its_way_unchanged(trainer, hook):
    run = trainer.predict if "predict" in hook else lambda x, **named: trainer.evaluate(x, Y, **named)
    for error in (ValueError("mine"), StopIteration("mine"), tf.errors.OutOfRangeError(None, None, "mine")):
        with pytest.raises(type(error)) as caught:
            run(X, callbacks=[Fails(hook, error, acts=True)], verbose=0)

        assert error is caught.value


def test_an_error_while_closing_is_noted_on_the_first_one(trainer):
    class FailsToClose(Duck):
        def on_train_end(self, logs=None):
            raise OSError("disk full")

    behind = Closes()
    with pytest.raises(ValueError, match="mine") as caught:
        train(trainer.fit, [FailsToClose(), Fails("on_epoch_end", ValueError("mine"), acts=False), behind])

    assert [
        "Raised in on_epoch_end of the callback Fails.",
        "A callback failed as well while it was closed: OSError('disk full')",
    ] == caught.value.__notes__
    assert "on_train_end" == behind.calls[-1][0]


def test_copies_of_callbacks_work_even_of_used_ones(trainer):
    """As keras-tuner makes them of a user's callbacks for every trial."""
    original = [LossHistory(), keras.callbacks.EarlyStopping("loss", patience=5)]
    for _ in range(2):
        copied = copy.deepcopy(original)
        train(trainer.fit, copied, validation_data=None)

        assert (3,) == copied[0].losses.shape
        assert not original[0].batches
    train(trainer.fit, original, validation_data=None)
    again = copy.deepcopy(original[0])

    assert original[0].batches == again.batches


def test_tqdms_own_callback_works(trainer, keras_model):
    """Written for Keras by other people: hooks as attributes, params read with defaults, a size asked of the logs."""
    screens = []
    for fit in (keras_model.fit, trainer.fit):
        screens.append(io.StringIO())
        train(fit, [TqdmCallback(verbose=2, file=screens[-1], mininterval=0, miniters=1)], epochs=2)
    words = [{word for word in ("2/2", "3/3", "val_loss") if word in screen.getvalue()} for screen in screens]

    assert words[0] == words[1]
    assert words[0] >= {"2/2", "val_loss"}


def adds_score(epoch, logs):
    logs["score"] = 1.0


NAMES = ["accuracy", "loss"]
EARLY = keras.callbacks.EarlyStopping
MONITORS = {
    "a name in the logs": ([EARLY("loss")], None),
    "the learning rate": ([EARLY("learning_rate", mode="max")], None),
    "a checkpoint that saves every time": ([keras.callbacks.ModelCheckpoint("w.keras", monitor="val_loss")], None),
    "a checkpoint of the best": ([keras.callbacks.ModelCheckpoint("w.keras", save_best_only=True)], "monitors 'val_l"),
    "no name at all": ([EARLY("score")], "EarlyStopping monitors 'score', .*'accuracy', 'loss'. Choose one of these"),
    "behind what adds nothing": ([LossHistory(), EARLY("score")], "monitors 'score'"),
    "behind a lambda": ([keras.callbacks.LambdaCallback(on_epoch_end=adds_score), EARLY("score", mode="max")], None),
    "in front of a lambda": ([EARLY("score"), keras.callbacks.LambdaCallback(on_epoch_end=adds_score)], "monitors"),
}


@pytest.mark.parametrize("case", MONITORS)
def test_a_monitor_is_refused_only_if_no_log_can_ever_hold_it(case):
    callbacks, message = MONITORS[case]
    hooks = Hooks(callbacks, None)
    if message is None:
        hooks.check_monitors(NAMES)
        return

    with pytest.raises(ConfigError, match=message):
        hooks.check_monitors(NAMES)


@pytest.mark.parametrize("given", [{"a": 1}, [object()], "early_stopping", [EARLY]])
def test_what_is_no_callback_is_refused_instead_of_never_being_called(trainer, given):
    with pytest.raises(ConfigError, match="callback"):
        train(trainer.fit, given)

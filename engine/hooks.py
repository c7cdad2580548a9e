"""The callback list: who listens, who acts, and the replay of a block of steps.

Keras's hooks and their order are the whole system:

```text
on_train_begin
└── on_epoch_begin
    ├── on_train_batch_begin ── step ── on_train_batch_end        for every batch, with its true index
    ├── on_test_begin ─ (on_test_batch_begin ─ step ─ on_test_batch_end) ─ on_test_end
    └── on_epoch_end
on_train_end                                                      once, however the training ended
```

Any object with some of these methods is a callback. One that only looks at batches is told of a block of
steps afterwards, batch by batch; one that acts on them (`acts_on_batches`) gets blocks of one step.

```python
class Spikes(engine.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.step_logs["loss"] > 10 * logs["loss"]:  # this step's value beside the running mean
            print("spike at step", self.step)
```
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import attrs
import keras
import tensorflow as tf

from engine.columns import Logs
from engine.errors import ConfigError
from engine.replay import Replay

Phase = Literal["train", "test", "predict"]


class Callback(keras.callbacks.Callback):
    """A `keras.callbacks.Callback` that also knows each step's own values.

    Attributes:
        acts_on_batches: True: a batch hook changes the run (stops it, sets a learning rate), so that it is
            called between the very steps. That costs the compiled loop its length. False: it only looks.
        step_logs: In a batch hook, the values of this one step. Empty under `model.fit`.
        step: In a train batch hook, the number of the step in the whole run, from 1.
        samples: In a train batch hook, samples trained on in the whole run.
        step_graph: The graph of a train step, once training begins; None under `model.fit` or if it runs eagerly.
    """

    acts_on_batches: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.step_logs: Logs
        self.step: int
        self.samples: int
        self.step_graph: tf.Graph | None
        self.forget_run()

    def on_exception(self, error: BaseException) -> None:
        """Called on every way out that is not a normal end, Ctrl-C included; in a fit, before `on_train_end`."""

    def forget_run(self) -> None:
        """Keeps nothing of a run that is over; a Trainer calls it then."""
        self.step_logs, self.step, self.samples, self.step_graph = {}, 0, 0, None


@attrs.define(eq=False)
class Hooks:
    """The callbacks of one fit, evaluate or predict.

    Attributes:
        callbacks: In the order in which they are called.
        model: What they see as their model.
    """

    callbacks: list[Any]
    model: keras.Model
    _listeners: dict[str, list[tuple[Any, Callable[..., Any]]]] = attrs.field(init=False, factory=dict)

    @classmethod
    def of(cls, callbacks: Any, *, model: keras.Model, params: dict[str, Any], defaults: Sequence[Any] = ()) -> "Hooks":
        """Takes what a user gave as callbacks: one, a nested list, or a `keras.callbacks.CallbackList`.

        Args:
            callbacks: See above; None: none.
            model: Given to each callback.
            params: Given to each callback, before the model: epochs, steps, verbose.
            defaults: Callbacks to put behind the user's, unless there is one of that kind.
        """
        given = list(_flatten(callbacks))
        for callback in given:
            _refuse_hookless(callback)
        given += [default for default in defaults if not any(isinstance(own, type(default)) for own in given)]
        hooks = cls(given, model)
        for callback in given:
            for name, value in (("set_params", params), ("set_model", model)):
                setter = getattr(callback, name, None)
                if setter is not None:
                    setter(value)
        return hooks

    def call(self, hook: str, *arguments: Any) -> None:
        """Calls `hook` of every callback that has it, with one fresh dict of logs as the last argument."""
        *others, logs = arguments
        logs = dict(logs)
        for callback in self.callbacks:
            method = getattr(callback, hook, None)
            if method is not None:
                method(*others, logs)

    def acts(self, phase: Phase) -> bool:
        """Whether a callback changes the run between batches, so that each must be a block of its own."""
        return any(_acts(callback) for end in ("begin", "end") for callback, _ in self._who(f"on_{phase}_batch_{end}"))

    def listens(self, phase: Phase) -> bool:
        """Whether anybody wants to be told of batches."""
        return any(self._who(f"on_{phase}_batch_{end}") for end in ("begin", "end"))

    def batch_begin(self, phase: Phase, batch: int) -> None:
        """Tells the listeners that a batch is about to begin."""
        for _, method in self._who(f"on_{phase}_batch_begin"):
            method(batch, {})

    def batch_end(self, phase: Phase, batch: int, logs: dict[str, Any]) -> None:
        """Tells the listeners that a batch is done."""
        for _, method in self._who(f"on_{phase}_batch_end"):
            method(batch, logs)

    def replay(self, phase: Phase, replay: Replay, *, begun: bool = False) -> None:
        """Tells the listeners of a block of steps, batch by batch, as if each had just been done.

        Args:
            phase: "train" or "test".
            replay: What happened.
            begun: Whether `on_*_batch_begin` has been called already.
        """
        ours = [callback for callback, _ in self._who(f"on_{phase}_batch_end") if isinstance(callback, Callback)]
        for batch, step, samples, logs, step_logs in replay.batches():
            if not begun:
                self.batch_begin(phase, batch)
            for callback in ours:
                callback.step_logs = step_logs
                if phase == "train":
                    callback.step, callback.samples = step, samples
            self.batch_end(phase, batch, logs)

    def history(self) -> keras.callbacks.History:
        """The History among the callbacks."""
        return next(callback for callback in self.callbacks if isinstance(callback, keras.callbacks.History))

    def set_step_graph(self, graph: tf.Graph | None) -> None:
        """Shows the graph of a train step to the callbacks that know what to do with one."""
        for callback in self.callbacks:
            if isinstance(callback, Callback):
                callback.step_graph = graph

    def refresh(self) -> None:
        """Looks anew at who listens: callbacks may set their hooks as they begin."""
        self._listeners.clear()

    def close(self, logs: Logs) -> None:
        """Calls `on_train_end` of every callback, whatever the others do; the first error is raised at the end."""
        errors = self._call_all("on_train_end", lambda: dict(logs), self.callbacks, BaseException)
        self.forget_run()
        if errors:
            raise errors[0]

    def abort(self, error: BaseException, logs: Logs) -> None:
        """Tells every callback of an error, then closes it; errors in closing are noted on the first.

        Keras's BackupAndRestore deletes its backup as it closes, so that it alone is left open.
        """
        left = [own for own in self.callbacks if not isinstance(own, keras.callbacks.BackupAndRestore)]
        told = self._call_all("on_exception", lambda: error, left)
        for second in (*told, *self._call_all("on_train_end", lambda: dict(logs), left)):
            error.add_note(f"A callback failed as well while it was closed: {second!r}")
        self.forget_run()

    def fail(self, error: BaseException) -> None:
        """Tells every callback of an error in an evaluation or prediction; what trains goes on, or closes them."""
        for second in self._call_all("on_exception", lambda: error, self.callbacks):
            error.add_note(f"A callback failed as well while it was told: {second!r}")

    def forget_run(self) -> None:
        """Lets no callback take values of this run for those of the next, which may be another loop's."""
        for callback in self.callbacks:
            if isinstance(callback, Callback):
                callback.forget_run()

    @staticmethod
    def _call_all(
        hook: str,
        argument: Callable[[], Any],
        callbacks: Sequence[Any],
        caught: type[BaseException] = Exception,  # a second Ctrl-C ends an abort at once
    ) -> list[BaseException]:
        errors: list[BaseException] = []
        for callback in callbacks:
            method = getattr(callback, hook, None)
            try:
                if method is not None:
                    method(argument())
            except caught as error:
                errors.append(error)
        return errors

    def check_monitors(self, names: Sequence[str]) -> None:
        """Refuses a callback that monitors what no log will ever hold.

        Args:
            names: What `on_epoch_end` logs will be called.

        Raises:
            ConfigError: Unless a callback in front of it may add names of its own to the logs.
        """
        known = {*names, "learning_rate"}
        for callback in self.callbacks:
            monitor = getattr(callback, "monitor", None)
            if isinstance(monitor, str) and monitor not in known and _uses_monitor(callback):
                raise ConfigError(
                    f"{type(callback).__name__} monitors {monitor!r}, but the logs of this training hold "
                    f"{', '.join(map(repr, sorted(names)))}. {_hint(monitor, names)}"
                )
            if _may_add_logs(callback):
                return

    def _who(self, hook: str) -> list[tuple[Any, Callable[..., Any]]]:
        if hook not in self._listeners:
            found = ((callback, _listening(callback, hook)) for callback in self.callbacks)
            self._listeners[hook] = [(callback, method) for callback, method in found if method is not None]
        return self._listeners[hook]


def _flatten(callbacks: Any) -> Any:
    """The callbacks of any nest of lists, in order."""
    if callbacks is None:
        return
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    if isinstance(callbacks, (list, tuple)):
        for callback in callbacks:
            yield from _flatten(callback)
    else:
        yield callbacks


def _refuse_hookless(callback: Any) -> None:
    hooks = (name for name in dir(callback) if name.startswith(("on_", "set_model", "set_params")))
    has_hooks = any(callable(getattr(callback, name, None)) for name in hooks)
    if isinstance(callback, type) or not has_hooks:
        raise ConfigError(
            f"callbacks holds {callback!r}, which would never be called: it is no object with hooks such as "
            "on_epoch_end. Give instances, for example callbacks=[EarlyStopping()]."
        )


def _listening(callback: Any, hook: str) -> Callable[..., Any] | None:
    """The method to call for a batch hook; None if the callback has none of its own.

    `on_batch_begin` and `on_batch_end` are Keras's older names of the two train hooks.
    """
    for name in (hook, hook.replace("_train", "")):
        method = getattr(callback, name, None)
        # Keras marks the empty methods of its base class, and so does tf_keras.
        if method is not None and not getattr(method, "_is_default", False):
            return method  # type: ignore[no-any-return]
    return None


def _acts(callback: Any) -> bool:
    """Whether a callback that listens to batches also acts on them: unknown ones are taken to."""
    if isinstance(callback, Callback):
        return callback.acts_on_batches
    if isinstance(callback, (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore)):
        return bool(callback.save_freq != "epoch")
    if isinstance(callback, keras.callbacks.TensorBoard):
        return bool(callback.update_freq != "epoch")
    return not isinstance(callback, keras.callbacks.ProgbarLogger)


def _uses_monitor(callback: Any) -> bool:
    """Whether a missing monitor would matter: a checkpoint that saves every time looks at none."""
    return bool(getattr(callback, "save_best_only", True))


def _may_add_logs(callback: Any) -> bool:
    """Whether a callback may write names of its own into the logs of an epoch for those behind it."""
    method = getattr(callback, "on_epoch_end", None)
    is_known = type(callback).__module__.startswith(("keras.", "engine."))
    return method is not None and (isinstance(callback, keras.callbacks.LambdaCallback) or not is_known)


def _hint(monitor: str, names: Sequence[str]) -> str:
    if monitor.startswith("val_") and not any(name.startswith("val_") for name in names):
        return "Give validation_data to fit, or monitor a training value."
    return "Choose one of these names."

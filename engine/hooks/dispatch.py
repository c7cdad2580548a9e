"""`Hooks`: the callbacks of one fit, evaluate or predict, and every call of a hook."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any, Literal

import attrs
import keras
import tensorflow as tf

from engine.block import Block
from engine.columns import Logs
from engine.hooks.acting import acts, listening
from engine.hooks.callback import Callback, StepSchedule, Watch
from engine.hooks.given import as_callbacks
from engine.hooks.monitors import check_monitors
from engine.hooks.replay import Listener, Replay
from engine.hooks.span import Span, note_on
from engine.hooks.states import caveats, get_states, set_states
from engine.progress import Progress
from engine.timings import Spent, Timings

Phase = Literal["train", "test", "predict"]


@attrs.define(eq=False)
class Hooks:
    """The callbacks of one fit, evaluate or predict.

    Attributes:
        callbacks: In the order in which they are called.
        model: What they see as their model.
        timings: Where the time that each of them takes is written down.
        raised_in: The callback whose hook has raised last; None: none has.
    """

    callbacks: list[Any]
    model: keras.Model
    timings: Timings = attrs.field(factory=Timings)
    raised_in: Any = attrs.field(init=False, default=None)
    _told_of: BaseException | None = attrs.field(init=False, default=None)
    _spent: dict[int, Spent] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        seen: Counter[str] = Counter()
        for callback in self.callbacks:
            kind = type(callback).__name__
            seen[kind] += 1
            name = kind if seen[kind] == 1 else f"{kind} {seen[kind]}"
            self._spent[id(callback)] = self.timings.of(f"callbacks/{name}")

    @classmethod
    def of(
        cls,
        callbacks: Any,
        *,
        model: keras.Model,
        params: dict[str, Any],
        defaults: Sequence[Any] = (),
        variables: Callable[[], list[Any]] | None = None,
        timings: Timings | None = None,
    ) -> "Hooks":
        """Takes what a user gave as callbacks: one, a nested list, or a `keras.callbacks.CallbackList`.

        Args:
            callbacks: See above; None: none.
            model: Given to each callback.
            params: Given to each callback, before the model: epochs, steps, verbose.
            defaults: Callbacks to put behind the user's, unless there is one of that kind.
            variables: Gives every variable that the run may change, if these are more than the model's own.
            timings: Where to write down the time; None: new ones.
        """
        given = as_callbacks(callbacks)
        if isinstance(callbacks, keras.callbacks.CallbackList):
            params = params | (callbacks.params or {})  # as in Keras, what a ready list was made with stands
        given += [default for default in defaults if not any(isinstance(own, type(default)) for own in given)]
        hooks = cls(given, model, Timings() if timings is None else timings)
        hooks._introduce(params, variables)
        return hooks

    def __enter__(self) -> "Hooks":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.forget_run()

    def _introduce(self, params: dict[str, Any], variables: Callable[[], list[Any]] | None) -> None:
        for callback in self._ours():
            callback.join_run(variables, self.timings)
        try:
            for callback in self.callbacks:
                for name, value in (("set_params", params), ("set_model", self.model)):
                    setter = getattr(callback, name, None)
                    if setter is not None:
                        self.tell(name, [(callback, setter)], value)
        except BaseException:
            self.forget_run()
            raise

    def call(self, hook: str, *arguments: Any) -> None:
        """Calls `hook` of every callback that has it, with one fresh dict of logs as the last argument."""
        *others, logs = arguments
        self.tell(hook, self.having(hook), *others, dict(logs))

    def span(self, phase: Literal["test", "predict"]) -> "Span":
        """What lies between `on_<phase>_begin` and `on_<phase>_end`; see `Span`."""
        return Span(self, phase)

    def acts(self, phase: Phase) -> bool:
        """Whether a callback changes the run between batches, so that each must be a block of its own."""
        return any(acts(callback) for callback in self._listeners(phase))

    def steps_until_act(self, progress: Progress) -> int | None:
        """Steps until a callback needs the model as it stands then (`acts_every`); None: nothing known lies ahead."""
        cadences = (own.acts_every for own in self._ours() if own.acts_every is not None)
        ahead = [steps for cadence in cadences if (steps := cadence.steps_until_due(progress)) is not None]
        return min(ahead, default=None)

    def step_schedules(self) -> list[StepSchedule]:
        """Variables that callbacks want to have a value of their own at every training step."""
        return [schedule for own in self._ours() for schedule in own.step_schedules()]

    def watch(self) -> Watch | None:
        """What shall happen behind a training step that is not finite; None: nothing."""
        found: Watch | None = None
        for watch in (own.watch for own in self._ours()):
            found = watch if found is None else found | watch if watch is not None else found
        return found

    def listens(self, phase: Phase) -> bool:
        """Whether anybody wants to be told of batches."""
        return any(True for _ in self._listeners(phase))

    def batch_begin(self, phase: Phase, batch: int) -> None:
        """Tells the listeners that a batch is about to begin."""
        hook = f"on_{phase}_batch_begin"
        self.tell(hook, self.who(hook), batch, logs={})

    def batch_end(self, phase: Phase, batch: int, logs: dict[str, Any]) -> None:
        """Tells the listeners that a batch is done."""
        hook = f"on_{phase}_batch_end"
        self.tell(hook, self.who(hook), batch, logs=logs)

    def replay(self, phase: Literal["train", "test"], block: Block, *, begun: bool = False) -> None:
        """Tells the listeners of a block of steps; see `Replay`.

        Args:
            phase: Of what.
            block: What happened.
            begun: Whether `on_*_batch_begin` has been called already.
        """
        Replay(self, phase, block).run(begun=begun)

    def stand(self, progress: Progress) -> None:
        """Tells our callbacks how far the training has come, for the hooks that follow."""
        for callback in self._ours():
            callback.step, callback.samples = progress.step, progress.samples

    def history(self) -> keras.callbacks.History:
        """The History among the callbacks."""
        return next(callback for callback in self.callbacks if isinstance(callback, keras.callbacks.History))

    def set_step_graph(self, graph: tf.Graph | None) -> None:
        """Shows the graph of a train step to the callbacks that know what to do with one."""
        for callback in self._ours():
            callback.step_graph = graph

    def end(self, hook: str, logs: Logs) -> None:
        """Calls the hook of every callback, whatever the others do; the first error is raised at the end."""
        errors = self.each(hook, self.callbacks, logs)
        if errors:
            note_on(errors[0], errors[1:])
            raise errors[0]

    def close(self, logs: Logs) -> None:
        """Ends a training: `on_train_end` of every callback."""
        self.end("on_train_end", logs)

    def abort(self, error: BaseException, logs: Logs) -> None:
        """Tells every callback of an error, then closes it; errors in closing are noted on the first.

        Two callbacks take an end for a success, and are left as they are: Keras's BackupAndRestore would delete its
        backup, and TensorBoard's for hyper-parameters would call the session a success.
        """
        self.fail(error)
        left = [callback for callback in self.callbacks if not _takes_an_end_for_success(callback)]
        note_on(error, self.each("on_train_end", left, logs))

    def fail(self, error: BaseException) -> None:
        """Tells every callback of an error, once, before anything is closed."""
        if error is not self._told_of:
            self._told_of = error
            note_on(error, self.each("on_exception", self.callbacks, error))

    def forget_run(self) -> None:
        """Lets no callback take values of this run for those of the next, which may be another loop's."""
        for callback in self._ours():
            callback.forget_run()

    def get_states(self) -> list[dict[str, Any]]:
        """What a checkpoint must hold of the callbacks; see `states.py`."""
        return get_states(self.callbacks)

    def set_states(self, states: list[dict[str, Any]]) -> None:
        """Gives the callbacks back what `get_states` gave, after `on_train_begin` or without any hook."""
        set_states(self.callbacks, states)

    def caveats(self) -> list[str]:
        """What a run that is resumed will not have back of its callbacks, in sentences for people."""
        return caveats(self.callbacks)

    def check_monitors(self, names: Sequence[str]) -> None:
        """Refuses a callback that monitors what no log will ever hold; `names` are what `on_epoch_end` logs hold."""
        check_monitors(self.callbacks, names)

    def tell(self, hook: str, listeners: Sequence[Listener], *arguments: Any, **logs: Any) -> None:
        """Calls these methods of callbacks, and times them; an error gets a note of where it came from."""
        callback, num_blocks, begin = None, self.timings.num_blocks, perf_counter()
        try:
            for callback, method in listeners:
                method(*arguments, **logs)
                now = perf_counter()
                self._spent[id(callback)].add(now - begin, num_blocks)  # one look at the clock and 0.2 µs a hook
                begin = now
        except BaseException as error:
            self._spent[id(callback)].add(perf_counter() - begin, num_blocks)
            self.raised_in = callback
            error.add_note(f"Raised in {hook} of the callback {type(callback).__name__}.")
            raise

    def each(self, hook: str, callbacks: Sequence[Any], argument: Any) -> list[BaseException]:
        """Calls the hook of each of the callbacks, whatever the others do; returns the errors."""
        argument = dict(argument) if isinstance(argument, dict) else argument
        errors: list[BaseException] = []
        for listener in self.having(hook, callbacks):
            try:
                self.tell(hook, [listener], argument)
            except BaseException as error:  # Ctrl-C too: it ends this hook, the others are closed all the same
                errors.append(error)
        return errors

    def _ours(self) -> list[Callback]:
        return [callback for callback in self.callbacks if isinstance(callback, Callback)]

    def having(self, hook: str, callbacks: Sequence[Any] | None = None) -> list[Listener]:
        """Those of the callbacks that have the hook, one of their own or Keras's empty one, and their methods."""
        found = ((own, getattr(own, hook, None)) for own in (self.callbacks if callbacks is None else callbacks))
        return [(callback, method) for callback, method in found if method is not None]

    def who(self, hook: str) -> list[Listener]:
        """The callbacks told by a batch or block hook, and their methods as they are now: some set them on the way."""
        found = ((callback, listening(callback, hook)) for callback in self.callbacks)
        return [(callback, method) for callback, method in found if method is not None]

    def _listeners(self, phase: Phase) -> Iterator[Any]:
        hooks = [f"on_{phase}_{moment}" for moment in ("batch_begin", "batch_end", "block_end")]
        return (own for own in self.callbacks if any(listening(own, hook) is not None for hook in hooks))


def _takes_an_end_for_success(callback: Any) -> bool:
    is_of_hparams = type(callback).__module__.startswith("tensorboard.plugins.hparams")
    return is_of_hparams or isinstance(callback, keras.callbacks.BackupAndRestore)

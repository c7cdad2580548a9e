"""`Callback`: a `keras.callbacks.Callback` that knows each step's own values."""

from collections.abc import Callable
from typing import Any

import attrs
import keras
import tensorflow as tf

from engine.block import Block
from engine.cadence import Every
from engine.columns import Logs
from engine.errors import ConfigError
from engine.timings import Timings

_OF_A_RUN = (
    *("step_logs", "step", "samples", "not_finite", "step_graph", "in_trainer"),
    *("run_timings", "_run_variables", "_run_outside"),
)

StepSchedule = tuple[keras.Variable, Callable[[int], float]]


@attrs.frozen
class Watch:
    """What the compiled loop shall do behind a training step whose loss is not finite.

    Attributes:
        halts: Whether the block of steps ends there, so that the next hook stands behind that very step.
        undoes: Whether every variable is put back as it was before the step, which costs a copy of each a step.
        leaves_out: Whether the step is left out of the means of its epoch.
        weights: Whether the model's variables must be finite as well, which costs a look at each a step.
    """

    halts: bool = True
    undoes: bool = False
    leaves_out: bool = False
    weights: bool = False

    def __or__(self, other: "Watch") -> "Watch":
        """What two callbacks together want."""
        mine, theirs = attrs.astuple(self), attrs.astuple(other)
        return Watch(*(left or right for left, right in zip(mine, theirs, strict=True)))


class Callback(keras.callbacks.Callback):
    """A `keras.callbacks.Callback` that also knows each step's own values.

    Attributes:
        acts_on_batches: True: a batch hook changes the run (stops it, sets a learning rate), so that it is
            called between the very steps. That costs the compiled loop its length. False: it only looks.
        acts_every: Where a batch hook needs the model as it stands after that very step, but not at every
            step: a block of steps ends wherever this is due, and is no shorter elsewhere. None: nowhere.
        leaves_no_trace: True: the fit is a try, and a Trainer undoes at its end all that it has changed.
        watch: What the loop shall do behind a training step that is not finite; None: nothing.
        not_finite: In a train batch hook, what such a step left behind: "loss", or the path of the first variable;
            None: all is finite, or nobody watches.
        run_timings: Where the time of the run has gone so far; None under `model.fit`, and outside of a run.
        step_logs: In a batch hook, the values of this one step. Empty under `model.fit`.
        step: In the hooks of a fit, the steps done in the whole run, that of a batch hook included. 0 under
            `model.fit`.
        samples: In the hooks of a fit, the samples trained on in the whole run. 0 under `model.fit`.
        in_trainer: Whether a Trainer calls the hooks, from `set_model` on; False under `model.fit`.
        step_graph: The graph of a train step, once training begins; None under `model.fit` or if it runs eagerly.
    """

    acts_on_batches: bool = False
    acts_every: Every | None = None
    leaves_no_trace: bool = False
    watch: Watch | None = None

    def __init__(self) -> None:
        super().__init__()
        self.step_logs: Logs
        self.step: int
        self.samples: int
        self.in_trainer: bool
        self.not_finite: str | None
        self.run_timings: Timings | None
        self._run_variables: Callable[[], list[keras.Variable]] | None
        self.step_graph: tf.Graph | None
        self._run_outside: dict[str, Any] | None
        self._begin_run()

    def on_train_block_end(self, block: Block) -> None:
        """Called by a Trainer behind a block of steps, in place of the two batch hooks around each of them.

        For what only looks: a hundred steps as arrays cost what a few cost as dicts. It comes where the hook behind the
        block's last batch would; if a hook raises before that, with the steps replayed until then. `step` and `samples`
        are those of its end. A callback that acts on batches gets blocks of one step.

        `model.fit` does not call it: for that, write `on_train_batch_end` as well. If a subclass defines only a batch
        hook, it gets every batch, and its base class no block.

        Args:
            block: The steps; see `engine.hooks.Block`.

        Examples:
            >>> def on_train_block_end(self, block):
            ...     self.peak = max(self.peak, block.step_logs["loss"].max())
        """

    def on_test_block_end(self, block: Block) -> None:
        """Called by a Trainer behind a block of an evaluation; see `on_train_block_end`.

        Args:
            block: The steps, counted from the beginning of the evaluation.
        """

    # As Keras marks its own, so that one that is overridden can be told from an empty one.
    on_train_block_end._is_default = on_test_block_end._is_default = True  # type: ignore[attr-defined]

    def on_exception(self, error: BaseException) -> None:
        """Called on every way out that is not a normal end, Ctrl-C included; in a fit, before `on_train_end`."""

    def step_schedules(self) -> list[StepSchedule]:
        """Variables that shall have a value of their own at every training step, such as a learning rate.

        A Trainer asks after `set_model`, before it compiles the loop, and again before each block; it assigns the
        values inside the loop, so that blocks keep their length. Under `model.fit` nobody asks: do it in
        `on_train_batch_begin` there.

        Returns:
            Pairs of a scalar variable, and a function that gives its value for a step, counted from 0 over the whole
            run. It is called in plain Python before a step, and perhaps again where a block has ended early, so that
            it should depend on the step alone.
        """
        return []

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint must hold of this callback, so that a resumed run goes on as if it had never stopped.

        Asked between blocks of steps, as often as is wished, and before `on_train_end`; it must change nothing.

        Returns:
            A dict with strings for keys, of None, bools, numbers, strings, and lists and dicts of these; at its top
            level there may be NumPy arrays as well, which nobody will write to: another thread may save them.
        """
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes up a state that `get_state` gave, perhaps in another process.

        Called after `on_train_begin`, in which callbacks begin anew, and, if the run goes on in the middle of an epoch,
        after `on_epoch_begin` of that one too; variables have been restored by then. Of a run that is over already it
        is called alone, without any hook, so that what it has found can be read.

        Args:
            state: What `get_state` gave. It comes from a file: see `engine.hooks.SavedState` for how to look at it.
        """

    def variables(self) -> list[keras.Variable]:
        """Every variable that the run may change: of the model, its optimizer and its metrics; of what is built.

        Raises:
            ConfigError: Under `model.fit`, the model is not built yet; a Trainer builds it before it calls a hook.
        """
        if self._run_variables is not None:
            return self._run_variables()
        if not self.model.built:
            raise ConfigError(
                f"{type(self).__name__} must know every weight before the first step, but model.fit has not built the "
                f"model {self.model.name!r} yet. Build it: call it once, or begin it with keras.Input."
            )
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is not None and not optimizer.built:
            optimizer.build(self.model.trainable_variables)  # as model.fit does in its first step
        return [*self.model.variables, *self.model.metrics_variables, *(optimizer.variables if optimizer else [])]

    def join_run(self, variables: Callable[[], list[keras.Variable]] | None, timings: Timings) -> None:
        """Begins a run in a Trainer, which calls this before `set_model`, also for callbacks that skip `__init__`."""
        given = vars(self)
        outer = {name: given[name] for name in _OF_A_RUN} if given.get("in_trainer") else None
        self._begin_run()
        self.in_trainer, self._run_variables, self.run_timings, self._run_outside = True, variables, timings, outer

    def forget_run(self) -> None:
        """Keeps nothing of a run that is over; one that goes on around it, a fit around an evaluation, counts again."""
        outer = self._run_outside
        self._begin_run()
        for name, value in (outer or {}).items():
            setattr(self, name, value)

    def _begin_run(self) -> None:
        self.step_logs, self.step, self.samples, self.not_finite, self.run_timings = {}, 0, 0, None, None
        self.step_graph, self.in_trainer, self._run_variables, self._run_outside = None, False, None, None

"""The compiled loops of a task, kept from call to call until what they are made from changes."""

import functools
import operator
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import attrs
import keras
import tensorflow as tf

from engine.execution import Execution, Xla
from engine.hooks import Watch
from engine.loop import Guard, Loop, PredictLoop, batch_size, compiled
from engine.task import Phase, StepValues, Task, is_optimizer
from engine.traces import Traces


@attrs.define(eq=False, kw_only=True)
class Loops:
    """Makes each loop when it is first asked for.

    A model compiled anew, or with other weights trainable, gets new ones; Keras goes on with the old.

    Attributes:
        task: Whose steps are compiled.
        strategy: Where the replicas are.
        jit_compile: Whether XLA compiles the step; None: as the model was compiled.
        run_eagerly: Whether steps run as plain Python, though the model may not be compiled so.
        chosen: How steps are executed, if that was measured or is what a run began with; None: as asked for.
        traces: What was traced, and why.
    """

    task: Task
    strategy: tf.distribute.Strategy
    jit_compile: bool | None
    run_eagerly: bool
    chosen: Execution | None = None
    traces: Traces = attrs.field(init=False, factory=Traces)
    _kept: dict[Hashable, Any] = attrs.field(init=False, factory=dict)
    _ingredients: list[Any] = attrs.field(init=False, factory=list)

    def of(self, phase: Phase, *, scheduled: Sequence[Any] = (), watch: Watch | None = None) -> Loop:
        """The loop of the task's train or test step.

        Args:
            phase: "train" or "test".
            scheduled: Variables that get a value of their own before each step.
            watch: What to do behind a step that is not finite; None: nothing.
        """
        step = {"train": self._train_step, "test": self._test_step}[phase]
        behind = {"train": self.task.updates.apply_if_due, "test": dict}[phase]
        results = functools.partial(self.task.results, phase)

        def make() -> Loop:
            with self.strategy.scope():
                self.task.updates.prepare()
            guard = self._guard(watch)
            how = self._arguments() | {"fuses": self.execution.xla is Xla.BLOCK, "times_data": phase == "train"}
            return Loop(step, results, behind=behind, **how, scheduled=scheduled, guard=guard)

        # The first trace may have made variables, which a guard puts back too.
        guarded = 0 if watch is None else len(self.task.variables())
        loop: Loop = self._keep((phase, tuple(map(id, scheduled)), watch, guarded), make)
        return loop

    def flush(self) -> dict[str, tuple[float, float]]:
        """Updates with the gradients of the steps since the last update, if there are any: an epoch is over.

        Returns:
            The norms of gradients that are to be logged: name -> (norm, weight), with weight 0 without an update.
        """
        if self.task.updates.accumulate == 1:
            return {}
        with self.strategy.scope():
            pairs = self._keep("flush", lambda: compiled(lambda: self.task.updates.flush(), eager=self.is_eager))()
        return {name: (float(norm), float(weight)) for name, (norm, weight) in pairs.items()}  # waits for the device

    def _train_step(self, batch: Any) -> StepValues:
        with self.task.updates.step(batch_size(batch)):
            return self.task.train_step(batch)

    def _test_step(self, batch: Any) -> StepValues:
        with self.task.updates.step(batch_size(batch)):
            return self.task.test_step(batch)

    def of_prediction(self) -> PredictLoop:
        """The loop of the task's predict step."""
        loop: PredictLoop = self._keep("predict", lambda: PredictLoop(self.task.predict_step, **self._arguments()))
        return loop

    def _guard(self, watch: Watch | None) -> Guard | None:
        if watch is None:
            return None
        floats = [v for part in self.task.layers() for v in part.variables if tf.as_dtype(v.dtype).is_floating]
        return Guard(
            watched=floats if watch.weights else (),
            restored=self.task.variables() if watch.undoes else (),
            halts=watch.halts,
            leaves_out=watch.leaves_out,
        )

    def _keep(self, name: Hashable, make: Callable[[], Any]) -> Any:
        current = self.task.ingredients()
        if len(current) != len(self._ingredients) or not all(map(operator.is_, current, self._ingredients)):
            self._kept.clear()
            self.task.updates.forget()
            self.traces.changes.append(_change(self._ingredients, current))
        self._ingredients = current
        key = (name, self.execution.xla)
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    @property
    def execution(self) -> Execution:
        """How steps are executed: as chosen, else as the Trainer was told, else as the model was compiled.

        Steps that run eagerly, or on several replicas, XLA compiles none of.
        """
        jit_compile = self.task.model.jit_compile if self.jit_compile is None else self.jit_compile
        asked = Execution(xla=Xla.STEP if jit_compile else Xla.OFF)
        execution = asked if self.chosen is None else self.chosen
        can_compile = self.allows_xla and not self.is_eager
        return execution if can_compile else attrs.evolve(execution, xla=Xla.OFF)

    @property
    def is_eager(self) -> bool:
        """Whether steps run as plain Python: because the Trainer was told so, or the model was compiled so."""
        return bool(self.task.model.run_eagerly or self.run_eagerly)

    @property
    def allows_xla(self) -> bool:
        """Whether XLA may be asked: it cannot compile the sums over several replicas."""
        return bool(self.strategy.num_replicas_in_sync == 1)

    def _arguments(self) -> dict[str, Any]:
        """What every loop is made with."""
        jit_compile = self.execution.xla is Xla.STEP
        return {"strategy": self.strategy, "jit_compile": jit_compile, "run_eagerly": self.is_eager}


def _change(before: Sequence[Any], now: Sequence[Any]) -> str:
    """What has changed of the ingredients, for people."""
    known = {id(entry) for entry in before} & {id(entry) for entry in now}
    changed = [entry for entry in (*before, *now) if id(entry) not in known]
    if any(map(is_optimizer, changed)) or not changed:
        return "the model was compiled anew"
    if any(isinstance(entry, keras.optimizers.schedules.LearningRateSchedule) for entry in changed):
        return "another schedule sets the learning rate"
    are_weights = all(isinstance(entry, keras.Variable) for entry in changed)
    return "other weights are trainable" if are_weights else "the model was compiled anew"

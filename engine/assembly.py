"""`Assembly`: puts a fit, an evaluation or a prediction together, and takes back what a try has changed."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import attrs

from engine.arguments import pace_of, steps_of
from engine.caveats import warn_of_caveats
from engine.columns import Logs
from engine.data import Reader, Source
from engine.description import described
from engine.errors import CheckpointError, ConfigError
from engine.evaluation import Evaluation
from engine.execution import Execution
from engine.hooks import Hooks
from engine.loops import Loops
from engine.optimizers import optimizer_of
from engine.phase import Phase
from engine.prediction import Prediction
from engine.run_directory import RunDirectory
from engine.saving import Saving
from engine.state import State
from engine.task import Task
from engine.timings import Timings
from engine.traces import Occasion
from engine.tuning import Tuning, measure, why_not, worth_trying

_FLAGS = ("stop_training", "stop_evaluating", "stop_predicting")


@attrs.define(eq=False)
class Assembly:
    """Puts together what a Trainer runs.

    Attributes:
        task: What is trained.
        loops: Its compiled steps.
        steps_per_execution: As given to the Trainer.
        jit_compile: As given to the Trainer.
    """

    task: Task
    loops: Loops
    steps_per_execution: int | str | None
    jit_compile: bool | str | None
    _transactions: list[State] = attrs.field(init=False, factory=list)

    def phase(self, kind: Literal["train", "test"], source: Source, hooks: Hooks) -> Phase:
        """A phase of training or testing, the model built for its data and the data checked against the model."""
        pace = pace_of(self.steps_per_execution, self.task.model)
        try:
            phase = Phase(kind, self.task, self.loops, source.spec, hooks, pace)
        finally:
            self.cover()  # also what an error has left half built
        if source.targets is not None:
            self.task.check_targets(source.targets)
        return phase

    def training(self, reader: Reader, hooks: Hooks) -> Phase:
        """The phase of a fit, its step traced."""
        phase = self.phase("train", reader.source, hooks)
        phase.trace(reader)
        self.cover()
        return phase

    @contextmanager
    def executing_as_in(self, directory: RunDirectory | None) -> Iterator[None]:
        """Has steps executed as in the run that goes on here; should that turn out to be another run, as before."""
        before = self.loops.chosen
        if directory is not None and directory.found is not None:
            self.loops.chosen = directory.record(directory.found).execution
        try:
            yield
        except CheckpointError:
            self.loops.chosen = before
            raise

    def source(self, open_data: Callable[..., Source], *, announces: bool) -> Source:
        """The data of a fit; with `jit_compile="auto"`, how steps are executed is measured on it, if nobody has yet.

        Args:
            open_data: Opens the data; called with `streams`, whether arrays are read batch by batch.
            announces: Whether what was measured is printed.
        """
        if self.jit_compile == "auto" and self.loops.chosen is None and not self._transactions:
            if (reason := why_not(open_data(streams=self.loops.execution.streams))) is not None:
                warnings.warn(f"jit_compile='auto' has no effect: steps run as a graph. {reason}", stacklevel=3)
            else:
                tuning = self.tuning(open_data, rounds=5)
                if announces:
                    print(tuning, flush=True)
        return open_data(streams=self.loops.execution.streams)

    def tuning(self, open_data: Callable[..., Source], *, rounds: int) -> Tuning:
        """Measures every way to execute the steps that is worth trying, and keeps the fastest for all that follows."""
        before = self.loops.chosen
        if self.loops.is_eager:
            raise ConfigError("tune measures what is compiled, but steps run eagerly here. Leave run_eagerly out.")
        hooks = Hooks.of(None, model=self.task.model, params={}, timings=Timings())

        def reader(execution: Execution) -> Reader:
            return Reader(open_data(streams=execution.streams), self.loops.strategy)

        def training(execution: Execution, reader: Reader) -> Phase:
            self.loops.chosen = execution
            return self.training(reader, hooks)

        source = open_data(streams=False)
        if (reason := why_not(source)) is not None:
            raise ConfigError(reason)
        executions = worth_trying(source, can_compile=self.loops.allows_xla)
        try:
            with self.transaction():
                tuning = measure(reader, training, executions, rounds=rounds)
        except BaseException:
            self.loops.chosen = before
            raise
        self.loops.chosen = tuning.best
        return tuning

    def saving(
        self,
        directory: RunDirectory,
        train: Phase,
        reader: Reader,
        evaluation: Evaluation | None,
        choices: dict[str, Any],
        score: Callable[[Logs], float | None],
    ) -> Saving:
        """What saves a fit, and where it goes on from; says now what could not be taken up again exactly.

        Args:
            directory: Where to.
            train: The phase of the fit.
            reader: Where its batches come from.
            evaluation: What validates.
            choices: Arguments of the fit that must be the same where it goes on.
            score: What a checkpoint with these logs is worth.

        Raises:
            CheckpointError: What was found is of another run.
        """
        validation = None if evaluation is None else evaluation.source
        run = {
            "task": self.task.facts(),
            "data": reader.source.facts(),
            "validation": None if evaluation is None else evaluation.source.facts() | {"steps": evaluation.steps},
            "jit_compile": self.task.model.jit_compile if self.jit_compile is None else self.jit_compile,
            "replicas": self.loops.strategy.num_replicas_in_sync,
            **({} if (steps := self.task.updates.accumulate) == 1 else {"accumulate": steps}),
            **choices,
        }
        warn_of_caveats(reader.source, validation, train.hooks, train.loop.graph)
        return Saving(
            directory=directory,
            run=described(run),
            task=self.task,
            train=train,
            reader=reader,
            validation=validation,
            score=score,
        )

    def evaluation(self, source: Source, hooks: Hooks, steps: int | None, name: str) -> Evaluation:
        """An evaluation, its step traced; `name` is what the caller calls `steps`."""
        steps_of(source, steps, name)
        phase = self.phase("test", source, hooks)
        phase.trace(Reader(source, self.loops.strategy))
        self.cover()  # a step that the model brings may make variables as it is traced
        return Evaluation(self.task, phase, source, steps)

    def prediction(self, source: Source, hooks: Hooks, steps: int | None) -> Prediction:
        """A prediction, its step traced."""
        loop, reader, traces = self.loops.of_prediction(), Reader(source, self.loops.strategy), self.loops.traces
        occasion = Occasion.of(loop, reader, num_changes=len(traces.changes))
        with traces.noting("predict", loop, occasion, hooks.timings):
            loop.trace(reader.walk.pull, reader.walk.signature())
        self.cover()
        return Prediction(loop, hooks, reader, pace_of(self.steps_per_execution, self.task.model), steps)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See `Trainer.transaction`."""
        state, model = State.of(self.task.variables()), self.task.model
        optimizer, flags = optimizer_of(model), {name: getattr(model, name, False) for name in _FLAGS}
        self._transactions.append(state)
        try:
            yield
        finally:
            self._transactions.remove(state)
            state.restore()
            for name, value in flags.items():
                setattr(model, name, value)
        if len(state.variables) < len(self.task.variables()) and optimizer_of(model) is optimizer:
            _warn(
                "The model was built inside the transaction, and not by its Trainer: what was made then stays as it "
                "is. Build the model before, by calling it once."
            )
        if optimizer_of(model) is not optimizer:
            _warn(
                "The model was compiled inside the transaction, which is not undone: it has the new optimizer, and "
                "what that has learned. Compile it before, or again."
            )

    @property
    def num_transactions(self) -> int:
        """How many transactions are open, one in the other."""
        return len(self._transactions)

    def cover(self) -> None:
        """Lets open transactions know what has been built, before it changes."""
        for state in self._transactions:
            state.cover(self.task.variables())


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)  # where the `with` block ends

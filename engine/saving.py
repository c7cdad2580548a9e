"""`Saving`: a fit's dealings with its checkpoints, which are all that it changes as arrays and plain values.

```text
fit(resume=True)
├── variables take their saved values         so that on_train_begin sees the model that it belongs to
├── on_train_begin
├── on_epoch_begin, and all that begins with an epoch     only if it was saved inside one
├── all is restored, over what these hooks have done      variables, generators, means, data, callbacks
└── the next block of steps
```
"""

import platform
import warnings
from collections.abc import Callable
from typing import Any

import attrs
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from engine.checkpoint import ArraySpec, Saved, Snapshot, Store
from engine.columns import Logs
from engine.data import Reader, Source
from engine.description import differences
from engine.errors import CheckpointError
from engine.metrics import RunningMeans
from engine.phase import Phase
from engine.record import CallbackPart, Part, Record, Standing, foreign
from engine.run_directory import RunDirectory
from engine.state import Generators
from engine.task import Task
from engine.variables import parts_of_variable


@attrs.define(eq=False, kw_only=True)
class Saving:
    """Saves a fit, and takes it up again.

    Attributes:
        directory: Where to, and what to go on from.
        run: What must be the same for a run that goes on from a checkpoint of this one.
        task: What is trained.
        train: The compiled train step and who is told.
        reader: Where the batches come from.
        validation: The data to validate on; None: none.
        score: What a checkpoint with these logs is worth, more being better; None: nothing is known of it.
    """

    directory: RunDirectory
    run: dict[str, Any]
    task: Task
    train: Phase
    reader: Reader
    validation: Source | None
    score: Callable[[Logs], float | None]
    standing: Standing | None = attrs.field(init=False, default=None)
    _record: Record | None = attrs.field(init=False, default=None)
    _snapshot: Snapshot | None = attrs.field(init=False, default=None)
    _generators: Generators = attrs.field(init=False)
    _best: float | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        if self.directory.found is not None:
            self._open(self.directory.found)

    @property
    def store(self) -> Store:
        """Where to."""
        return self.directory.store

    @property
    def is_finished(self) -> bool:
        """Whether what was found is the end of the run, and not only the furthest that it came."""
        return self.directory.found is not None and self.directory.found.is_final

    def greeting(self) -> str | None:
        """What a person wants to know when a run goes on; None: this one begins."""
        if self.standing is None:
            return None
        progress, directory = self.standing.progress, self.directory.checkpoints.directory
        if self.is_finished:
            return f"The run in {directory} has come to its end at step {progress.step}: there is nothing to train."
        return (
            f"Going on with the run in {directory}: {progress.step} steps are done, "
            f"next is batch {progress.batch + 1} of epoch {progress.epoch + 1}."
        )

    def save(
        self, standing: Standing, fresh: Logs, *, states: list[dict[str, Any]] | None = None, is_final: bool = False
    ) -> None:
        """Copies all that the run changes, and has it written.

        Args:
            standing: Where the fit stands.
            fresh: Logs of what was measured here and now, for the score.
            states: Of the callbacks, if they were asked before; None: they are asked now.
            is_final: Whether the run has come to its end.
        """
        score = self.score(fresh)
        self._best = score if self.is_best(fresh) else self._best
        extras: dict[str, NDArray[Any]] = {}
        states = self.train.hooks.get_states() if states is None else states
        record = Record(
            run=self.run,
            versions=_versions(),
            standing=standing,
            means=self.train.means.facts(),
            execution=self.train.loops.execution,
            pace_steps=self.train.pace.steps,
            best_score=self._best,
            data=Part.of(self.reader.state(), "data", extras),
            validation=None if self.validation is None else Part.of(self.validation.state(), "validation", extras),
            fingerprint=None if is_final else self.reader.fingerprint(),
            generators=Generators.now().facts(),
            callbacks=[
                CallbackPart(state["callback"], Part.of(state["state"], f"callbacks/{index}", extras))
                for index, state in enumerate(states)
            ],
        )
        variables = {name: np.array(variable.numpy()) for name, variable in self._variables().items()}
        snapshot = Snapshot(variables=variables, extras=extras, facts=record.facts())
        self.store.save(snapshot, step=standing.progress.step, is_final=is_final, score=score)

    def is_best(self, fresh: Logs) -> bool:
        """Whether a checkpoint with these logs would be the best of the run."""
        score = self.score(fresh)
        return score is not None and (self._best is None or score > self._best)

    def restore_variables(self) -> None:
        """Gives every variable its saved value."""
        assert self._snapshot is not None
        for name, variable in self._variables().items():
            variable.assign(self._snapshot.variables[name])

    def restore(self) -> None:
        """Puts everything back where it stood, the callbacks last."""
        assert self._record is not None
        record, snapshot = self._record, self._snapshot
        assert snapshot is not None
        self.restore_variables()
        self.train.means = RunningMeans.of_facts(record.means)
        if self.train.pace.target_seconds:
            self.train.pace = attrs.evolve(self.train.pace, steps=record.pace_steps)
        if not self.is_finished:
            if self.validation is not None and record.validation is not None:
                self.validation.resume(record.validation.state("validation", snapshot.extras))
            self.reader.resume(record.data.state("data", snapshot.extras))
            self._check_fingerprint(record)
        self.train.hooks.set_states([
            {"callback": part.callback, "state": part.state.state(f"callbacks/{index}", snapshot.extras)}
            for index, part in enumerate(record.callbacks)
        ])  # fmt: skip
        self._generators.restore()
        self._snapshot = None  # it may be as large as the model

    def _open(self, found: Saved) -> None:
        """Reads what was found, if it is of this run; nothing is changed yet."""
        self._record = RunDirectory.record(found)
        expected = {name: _spec_of(variable) for name, variable in self._variables().items()}
        told = [*differences(self._record.run, self.run), *_differences_of_variables(found.variables, expected)]
        if told and found.step == 0:
            return  # another run, of which nothing is lost
        if told:
            self._tell(
                f"Checkpoint {found.path} is of another run:\n  " + "\n  ".join(told[:20]) + "\nMake it the same, or "
                "give another directory. Checkpointer(strict=False) goes on with what the checkpoint holds, if its "
                "variables fit.",
                can_go_on=found.variables == expected,
            )
        changed = differences(self._record.versions, _versions())
        if changed:
            warnings.warn(
                f"Checkpoint {found.path} was written by other versions, so that the last bits may differ from there "
                f"on: {'; '.join(changed)}.",
                stacklevel=3,
            )
        self._snapshot = found.read(expected)
        self.standing, self._best = self._record.standing, self._record.best_score
        self._look_through(found, self._record)

    def _look_through(self, found: Saved, record: Record) -> None:
        """Refuses what could not be restored, before anything is."""
        if lost := record.extras() - found.extras.keys():
            raise foreign(found.path, f"the array {min(lost)!r} is not there")
        try:
            RunningMeans.of_facts(record.means)
            self._generators = Generators.of_facts(record.generators)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise foreign(found.path, repr(error)) from error

    def _check_fingerprint(self, record: Record) -> None:
        if record.fingerprint is None:
            return
        own = self.reader.fingerprint()
        if own is not None and own != record.fingerprint:
            progress = record.standing.progress
            self._tell(
                f"Batch {progress.batch + 1} of epoch {progress.epoch + 1}, with which this run goes on, is not the "
                "batch that came there when the checkpoint was written: the data, its order or what is done to it has "
                "changed. Give the same data, or begin anew in another directory. Checkpointer(strict=False) goes on "
                "with the new data.",
                can_go_on=True,
            )

    def _tell(self, message: str, *, can_go_on: bool) -> None:
        if self.directory.checkpoints.strict or not can_go_on:
            raise CheckpointError(message)
        warnings.warn(message, stacklevel=4)

    def _variables(self) -> dict[str, Any]:
        """Every variable by name, as each replica holds it."""
        found: dict[str, Any] = {}
        for name, variable in self.task.named_variables().items():
            parts = parts_of_variable(variable)
            numbered = {f"{name}/replica-{index}": part for index, part in enumerate(parts)}
            found |= numbered if len(parts) > 1 else {name: parts[0]}
        return found


def _spec_of(variable: Any) -> ArraySpec:
    return ArraySpec(tuple(variable.shape), tf.as_dtype(variable.dtype).name)


def _differences_of_variables(saved: dict[str, ArraySpec], own: dict[str, ArraySpec]) -> list[str]:
    shown = [
        {name: f"{spec.dtype} {tuple(spec.shape)}" for name, spec in specs.items()} | dict.fromkeys(others, "nothing")
        for specs, others in ((saved, own.keys() - saved.keys()), (own, saved.keys() - own.keys()))
    ]
    return differences(*shown)


def _versions() -> dict[str, str]:
    return {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
    }

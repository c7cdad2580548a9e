"""One fit, from `on_train_begin` to `on_train_end`, whatever happens between them.

```text
run
├── on_train_begin
├── epoch, until the plan is over or model.stop_training
│   ├── on_epoch_begin
│   ├── block, until the epoch is over          the plan says how many steps until something is due
│   │   ├── validate, if due
│   │   └── save, if due
│   ├── validate, if due
│   ├── on_epoch_end
│   └── save, if due                            last of all
└── on_train_end                                after on_exception, if there was one
```

Between two blocks a fit *rests*: whatever ends it there, Ctrl-C, SIGTERM or data that raises, is saved first.
"""

import warnings
from typing import Any

import attrs

from engine.cadence import Plan
from engine.columns import Logs
from engine.data import Reader, Resumption
from engine.errors import DataError, SaveError
from engine.evaluation import Evaluation
from engine.interrupts import Interrupts
from engine.phase import Phase
from engine.progress import Progress
from engine.record import Standing
from engine.saving import Saving
from engine.task import Task


@attrs.define(eq=False, kw_only=True)
class Fit:
    """Everything that one call of `Trainer.fit` works with.

    Attributes:
        task: The model and its train step.
        plan: How long, and what is due when.
        train: The compiled train step and who is told.
        reader: Where the batches come from.
        evaluation: What validates; None: nothing does.
        progress: How far this fit has come.
        saving: What saves it, and where it goes on from; None: nothing does.
        interrupts: Ctrl-C and SIGTERM, obeyed between blocks.
        logs: Of the last epoch that ended.
    """

    task: Task
    plan: Plan
    train: Phase
    reader: Reader
    evaluation: Evaluation | None
    progress: Progress
    saving: Saving | None = None
    interrupts: Interrupts = attrs.field(factory=Interrupts)
    logs: Logs = attrs.field(init=False, factory=dict)
    _validated: Logs = attrs.field(init=False, factory=dict)
    _is_inside: bool = attrs.field(init=False, default=False)  # of an epoch
    _rest: Standing | None = attrs.field(init=False, default=None)  # where it stands, while nothing is half done
    _asked: Progress = attrs.field(init=False, factory=Progress)  # when it was last asked whether saving is due
    _saved_step: int | None = attrs.field(init=False, default=None)  # of the last checkpoint
    _was_cut: bool = attrs.field(init=False, default=False)  # inside an epoch, by a limit of steps or seconds

    def run(self) -> None:
        """Trains to the end of the plan; an error closes every callback and goes on its way unchanged."""
        if self.saving is not None and self.interrupts.is_deaf:
            warnings.warn(
                "fit runs in a thread, where Python lets nobody handle signals: Ctrl-C and SIGTERM end the process "
                "without a last save. What Checkpointer(every=...) saves is there. Call fit from the main thread.",
                stacklevel=4,
            )
        with self.interrupts:
            if self.saving is not None and self.saving.is_finished:
                self._take_up_end(self.saving)
            else:
                self._run()

    def _run(self) -> None:
        self.train.hooks.timings.take_rest("opening")
        try:
            is_stopped = self._begin()
            while not is_stopped and (self._is_inside or not self._is_over()):
                self._run_epoch()
                is_stopped = self.task.model.stop_training
                if not is_stopped:
                    self.interrupts.raise_noted()
            states = [] if self.saving is None else self.train.hooks.get_states()  # before they close
            self._save({}, states)  # where the run goes on if more epochs are asked for
            if self.plan.epochs > 0:
                self.task.finish()
        except BaseException as error:
            self._save_before_leaving(error)
            self.train.hooks.abort(error, self.logs)
            raise
        self.train.hooks.close(self.logs)
        if self.saving is not None:
            self._save_end(self.saving, states)

    def _begin(self) -> bool:
        """Begins, or goes on from where it was saved; returns whether it had been stopped there."""
        model, hooks = self.task.model, self.train.hooks
        saved = None if self.saving is None else self.saving.standing
        model.stop_training, model.history = False, hooks.history()
        if self.saving is not None and saved is not None:
            self.saving.restore_variables()
            self.progress = saved.progress
        hooks.stand(self.progress)
        hooks.call("on_train_begin", {})
        if self.saving is not None and saved is not None:
            self._take_up(self.saving, saved)
            return saved.is_stopped and not saved.is_inside
        # BackupAndRestore says here where it has restored to. Keras leaves it standing, so that a later
        # fit of the same model would begin there too.
        if model._initial_epoch:
            self.progress = attrs.evolve(self.progress, epoch=model._initial_epoch)
            model._initial_epoch = None
        self.task.updates.reset()  # of gradients that an earlier fit was cut off from
        self._come_to_rest()
        self._save({})  # the first weights, which nobody may have given a seed, and where the logs begin
        return False

    def _take_up(self, saving: Saving, saved: Standing) -> None:
        """Goes on where a run was saved: what the hooks have begun is overwritten with what was."""
        if saved.is_inside:
            self._begin_epoch()
        saving.restore()
        self._asked, self.logs, self._validated = saved.progress, saved.logs, saved.validated
        self._saved_step = saved.progress.step
        self.task.model.stop_training = saved.is_stopped
        if saved.is_inside:
            self._rest = saved
            self._validate_if(saved.is_validation_due)

    def _take_up_end(self, saving: Saving) -> None:
        """Puts everything where it was when the run was over; no hook is called."""
        assert saving.standing is not None
        self.progress, self.logs = saving.standing.progress, saving.standing.logs
        self.train.hooks.stand(self.progress)
        self.task.model.history = self.train.hooks.history()
        saving.restore()
        self.task.model.stop_training = saving.standing.is_stopped

    def _is_over(self) -> bool:
        return self.plan.is_over(self.progress) or self._is_data_used_up()

    def _run_epoch(self) -> None:
        is_resumed = self._is_inside
        if not is_resumed:
            self._begin_epoch()
        self._run_blocks(is_over=is_resumed and self._is_epoch_over())
        self._end_epoch()

    def _begin_epoch(self) -> None:
        epoch, hooks = self.progress.epoch, self.train.hooks
        self._validated, self._is_inside, self._rest = {}, True, None
        self.train.reset()
        self.reader.begin_epoch(epoch)
        hooks.call("on_epoch_begin", epoch, {})
        self.train.renew(self.reader)
        self.task.reset_metrics()  # after the hook, which may have evaluated

    def _run_blocks(self, *, is_over: bool) -> None:
        while not is_over:
            self._rest, before = None, self.progress
            limit = 1 if self.task.model.stop_training else self.plan.steps_until_stop(before)
            self.progress = self.train.block(self.reader, before, limit)
            self.train.hooks.stand(self.progress)
            is_due = self.plan.is_validation_due(before, self.progress)
            self._come_to_rest(is_validation_due=is_due)
            self.reader.raise_error()  # behind the steps before it, which are done
            self.interrupts.raise_noted()
            if is_due:
                self._validate_if(is_due)
                self._come_to_rest()
            is_over = self._is_epoch_over()
            if not is_over:
                self._save_if_due(self._validated if is_due else {})
            elif self._is_cut_inside():  # more steps may be asked for, before which the epoch has not ended
                self._was_cut = True
                self._save({})

    def _is_epoch_over(self) -> bool:
        return (
            self.task.model.stop_training
            or self.plan.is_epoch_over(self.progress)
            or self.plan.is_cut(self.progress)
            or self._has_data_ended()
        )

    def _end_epoch(self) -> None:
        epoch, after = self.progress.epoch, self.progress.next_epoch()
        self.reader.end_epoch()
        self.train.flush()
        self.task.publish(self.train.means)
        self._validate_if(self.plan.is_validation_due(self.progress, after))
        self._rest = None
        self.logs = dict(sorted((self.train.logs() | self._validated).items()))  # as Keras sorts them
        self.train.hooks.call("on_epoch_end", epoch, self.logs)
        self.progress, self._is_inside = after, False
        self._come_to_rest()
        self._save_if_due(self.logs)

    def _come_to_rest(self, *, is_validation_due: bool = False) -> None:
        """Notes that all is whole here, for whoever saves; nobody pays for it otherwise."""
        if self.saving is not None:
            self._rest = self._standing(is_validation_due=is_validation_due)

    def _standing(self, *, is_validation_due: bool = False) -> Standing:
        return Standing(
            progress=self.progress,
            is_inside=self._is_inside,
            is_validation_due=is_validation_due,
            is_stopped=bool(self.task.model.stop_training),
            validated=self._validated,
            logs=self.logs,
        )

    def _is_cut_inside(self) -> bool:
        """Whether only max_steps or max_seconds ends the epoch."""
        return self.plan.is_cut(self.progress) and not (
            self.task.model.stop_training or self.plan.is_epoch_over(self.progress) or self.reader.is_exhausted
        )

    def _save_if_due(self, fresh: Logs) -> None:
        """Saves if it is time to, or if what was just measured is the best yet."""
        if self.saving is None:
            return
        self.saving.store.raise_error()  # of a save in the background, here where everything is whole
        before, self._asked = self._asked, self.progress
        if self.saving.is_best(fresh) or self.plan.is_saving_due(before, self.progress):
            self._save(fresh)

    def _save(self, fresh: Logs, states: list[dict[str, Any]] | None = None) -> None:
        """Saves where the fit stands, unless that was done already and nothing was measured since."""
        if self.saving is None or self._rest is None:
            return
        if self.progress.step != self._saved_step or self.saving.is_best(fresh):
            self._saved_step = self.progress.step
            with self.train.hooks.timings.measure("saving"):
                self.saving.save(self._rest, fresh, states=states)

    def _save_before_leaving(self, error: BaseException) -> None:
        """Saves a fit that ends between two blocks; what goes wrong in that is noted on the error."""
        if self.saving is None or isinstance(error, SaveError):
            return
        try:
            self._save({})
            with self.train.hooks.timings.measure("saving"):
                self.saving.store.wait()
        except BaseException as other:  # a second Ctrl-C too: the callbacks are closed all the same
            error.add_note(f"The run could not be saved where it ended: {other!r}")

    def _save_end(self, saving: Saving, states: list[dict[str, Any]]) -> None:
        """Saves what the run has come to, which is what a resume of it gives back."""
        is_stopped = not self.plan.is_over(self.progress)
        end = attrs.evolve(self._standing(), is_stopped=is_stopped, is_inside=self._was_cut)
        with self.train.hooks.timings.measure("saving"):
            saving.save(end, {}, states=states, is_final=True)
            saving.store.wait()

    def _has_data_ended(self) -> bool:
        """Whether the epoch ends because the data does; says so if that is sooner than was asked for."""
        progress, wanted = self.progress, self.plan.steps_per_epoch
        if not self.reader.is_exhausted:
            return False
        if progress.step == 0:
            raise DataError("The data gave no batch: there is nothing to train on. Give at least one.")
        if progress.batch == 0:
            self._warn_of_no_batch()
            self.task.model.stop_training = True
        elif wanted is not None and progress.batch < wanted:
            warnings.warn(
                f"The data ended after {progress.batch} of {wanted} steps of epoch {progress.epoch + 1}; the next "
                "epoch begins it anew. Use dataset.repeat(), or fewer steps_per_epoch.",
                stacklevel=2,
            )
        return True

    def _is_data_used_up(self) -> bool:
        """Whether the next epoch is known to have no batch, since the data can be read only once."""
        is_used_up = self.reader.is_exhausted and self.reader.source.resumption is Resumption.NONE
        if is_used_up:
            self._warn_of_no_batch()
        return is_used_up

    def _warn_of_no_batch(self) -> None:
        warnings.warn(
            f"The data gave no batch in epoch {self.progress.epoch + 1}, so that training ends here. Data that can "
            "be read only once, such as a generator, needs one epoch or steps_per_epoch.",
            stacklevel=2,
        )

    def _validate_if(self, is_due: bool) -> None:
        if is_due and self.evaluation is not None:
            with self.train.hooks.timings.measure("validation"):
                self._validated = self.evaluation.run_beside_training(self.interrupts)

"""The outer loop: `Trainer.fit`, `evaluate` and `predict`.

```text
fit
├── open the data, build the model, trace the step, check     errors come here, before step 1
├── on_train_begin
├── for each epoch
│   ├── on_epoch_begin
│   ├── blocks of steps until something is due (Plan)         phase.py
│   ├── validate, if due                                      on_test_begin ... on_test_end
│   └── on_epoch_end
├── averaged weights take their place (optimizer EMA)
└── on_train_end
```

```python
trainer = Trainer(model)
history = trainer.fit(x_train, y_train, epochs=3, validation_data=(x_val, y_val))
scores = trainer.evaluate(x_test, y_test)
```
"""

import functools
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engine import losses
from engine.arguments import (
    accumulation_of,
    at_least,
    capped,
    capped_steps,
    check_jit,
    check_shares,
    is_verbose,
    open_validation,
    pace_of,
    positive_seconds,
    steps_of,
    strategy_of,
    task_of,
    warn_of_pixels,
)
from engine.assembly import Assembly
from engine.cadence import Every, Plan, cadence_of
from engine.callbacks.monitor import score_of
from engine.callbacks.progress_bar import ProgressBar
from engine.checkpoint import Checkpointer
from engine.data import ClassWeight, Pipelines, Reader, open_source, split_tail
from engine.errors import ConfigError
from engine.evaluation import Evaluation
from engine.fitting import Fit
from engine.hooks import Hooks, has_bar, leaves_no_trace
from engine.loops import Loops
from engine.metrics import in_keras_order
from engine.progress import Progress
from engine.report import Report, Reports
from engine.run_directory import RunDirectory, checked
from engine.stepped import StepFunction
from engine.task import Task
from engine.timings import Timings
from engine.tuning import Tuning

Verbose = bool | int | str


class Trainer:
    """Trains, evaluates and runs a model: `model.fit(...)` becomes `Trainer(model).fit(...)`.

    Args:
        task: A `keras.Model`, compiled or compiled here from the keywords; a `keras.layers.Layer`, compiled
            here; or an `engine.Task`.
        optimizer: As for `model.compile`, together with the next four; only for what is not compiled yet.
        loss: See `optimizer`.
        metrics: See `optimizer`.
        loss_weights: See `optimizer`.
        weighted_metrics: See `optimizer`.
        steps_per_execution: Steps in one call of the compiled loop: a number, or "auto" (about 100 ms of
            them). None: what the model was compiled with if that is more than 1, otherwise "auto". Results
            and hooks are the same for all of them.
        jit_compile: Whether XLA compiles the step; None: as the model was compiled; "auto": the first `fit` measures
            it, as `tune` does.
        run_eagerly: True: steps run as plain Python, for debugging.
        accumulate: Steps that an update takes its gradients from: their update is that of one batch as large as
            theirs together, also where the last is smaller. `optimizer.iterations` and schedules count updates.
            BatchNormalization still sees each batch by itself.
        strategy: Where to train; None: the one in whose scope the model was made.
        checkpoints: Where and when `fit` saves the run; None: it is not saved.
        seed: With an epoch's number, it decides the order of the samples. None: drawn from NumPy's global
            generator at each `fit`, which `keras.utils.set_random_seed` seeds.
        report_terms: True: the logs also hold what `loss` is the sum of: `loss/data` (of each output:
            `loss/data/<output>`), `loss/regularization`, and `loss/<layer>` for `add_loss` and activity
            regularizers.
        report_gradients: True: the logs also hold `gradient_norm`, the norm of all gradients together, summed over
            the replicas and before clipping.
        step: A function of (model, batch) that trains the model on a batch, in place of what `fit` does, and
            returns this step's scalars: see `engine.losses` for how to write one, and `engine.Task` for more.

    Raises:
        ConfigError: An argument is wrong, or two do not go together.

    Examples:
        >>> trainer = Trainer(model, seed=1)
        >>> history = trainer.fit(x_train, y_train, epochs=3)
        >>> history.history["loss"]
        [0.31, 0.14, 0.1]
    """

    def __init__(
        self,
        task: keras.Model | keras.layers.Layer | Task,
        *,
        optimizer: Any = None,
        loss: Any = None,
        metrics: Any = None,
        loss_weights: Any = None,
        weighted_metrics: Any = None,
        steps_per_execution: int | str | None = None,
        jit_compile: bool | str | None = None,
        run_eagerly: bool = False,
        accumulate: int = 1,
        strategy: tf.distribute.Strategy | None = None,
        checkpoints: Checkpointer | None = None,
        seed: int | None = None,
        report_terms: bool = False,
        report_gradients: bool = False,
        step: StepFunction | None = None,
    ) -> None:
        compile_arguments = {
            "optimizer": optimizer,
            "loss": loss,
            "metrics": metrics,
            "loss_weights": loss_weights,
            "weighted_metrics": weighted_metrics,
        }
        reports = {"report_terms": report_terms, "report_gradients": report_gradients}
        self._task = task_of(task, compile_arguments, step=step, run_eagerly=run_eagerly, reports=reports)
        self._task.updates.accumulate = accumulation_of(accumulate, self._task)
        self._strategy = strategy_of(self._task, strategy)
        check_jit(jit_compile, run_eagerly=run_eagerly, strategy=self._strategy)
        pace_of(steps_per_execution, self.model)  # an impossible one is refused here
        always = bool(jit_compile) if jit_compile in (True, False) else None
        loops = Loops(task=self._task, strategy=self._strategy, jit_compile=always, run_eagerly=run_eagerly)
        self._assembly = Assembly(self._task, loops, steps_per_execution, jit_compile)
        self._pipelines = Pipelines()
        self._reports = Reports()
        self._seed = None if seed is None else at_least(0, "seed", seed)
        self._checkpoints = checked(checkpoints)
        self._fits: list[int] = []  # that are running: how many transactions were open when each began

    def __getstate__(self) -> None:
        raise ConfigError(
            "A Trainer cannot be pickled or copied: it holds compiled functions. Make it where it is needed, from the "
            "code that makes its model; a run goes on elsewhere with fit(resume=True)."
        )

    @property
    def model(self) -> keras.Model:
        """The Keras model that is trained."""
        return self._task.model

    @property
    def checkpoints(self) -> Checkpointer | None:
        """Where and when `fit` saves the run; another one counts from the next fit on."""
        return self._checkpoints

    @checkpoints.setter
    def checkpoints(self, checkpoints: Checkpointer | None) -> None:
        self._checkpoints = checked(checkpoints)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Verbose = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | str = True,
        class_weight: ClassWeight | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Collection[int] | Every = 1,
        *,
        resume: bool = False,
        max_steps: int | None = None,
        max_seconds: float | None = None,
    ) -> keras.callbacks.History:
        """Trains the model; Keras's parameters in Keras's order, with Keras's defaults.

        Args:
            x: Arrays with samples along the first axis, in any nest of lists, tuples and dicts; or a batched
                `tf.data.Dataset` of (inputs, targets) or (inputs, targets, sample_weights).
            y: Targets, if `x` is no dataset.
            batch_size: Samples in a step; None: 32. Not beside a dataset.
            epochs: The epoch at which training ends, counted from 0 (`initial_epoch` does not add to it).
            verbose: 0: silent; 1 or "auto": a progress bar; 2: one line an epoch.
            callbacks: `keras.callbacks.Callback` objects, or anything with such hooks, in a list or nested.
            validation_split: The last part of the arrays, 0 to 1, to validate on instead of training on.
            validation_data: (x, y), (x, y, sample_weight) or a dataset, to validate on.
            shuffle: Whether arrays take a new order each epoch; "batch" moves whole batches.
            class_weight: Class number -> weight of its samples; multiplies `sample_weight` if both are given.
            sample_weight: Weight of each sample.
            initial_epoch: The epoch to begin with.
            steps_per_epoch: Batches in an epoch; None: until the data ends. The data goes on from epoch to
                epoch then, and begins anew where it has ended.
            validation_steps: Batches of each validation; None: until its data ends.
            validation_batch_size: Samples in a batch of validation; None: `batch_size`.
            validation_freq: Validate every so many epochs, at the end of the epochs listed (from 1), or as an
                `Every` says.
            resume: Whether to go on from the newest whole checkpoint, to end with the very bits of a run that was
                never stopped. Where there is none, the run begins; one that has come to its end is given back as it
                ended, and no hook is called. More `epochs` or `max_steps` than before may be asked for.
            max_steps: Training ends after this many steps, in the middle of an epoch if need be.
            max_seconds: Training ends with the first block after so many seconds of it.

        Returns:
            The `keras.callbacks.History`: `history.history` maps each name to its value of every epoch.

        Raises:
            ConfigError: An argument is wrong.
            DataError: The data is empty, endless, or does not fit the model.
            CheckpointError: The directory holds another run, is in use, or nothing whole. All three come before step 1.
            SaveError: The run could not be saved; it comes between two blocks of steps.

        Examples:
            >>> trainer.fit(x, y, epochs=10, validation_split=0.1, callbacks=[EarlyStopping(patience=2)])
        """
        is_search = leaves_no_trace(callbacks)
        is_try = is_search or self._assembly.num_transactions > 0
        checkpoints = None if is_try else self._checkpoints
        epochs = capped("epochs", at_least(0, "epochs", epochs), keras.config.max_epochs()) or 0
        steps_per_epoch = capped_steps("steps_per_epoch", steps_per_epoch)
        plan = Plan(
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,  # without it an epoch is over when its data is
            validation=None if validation_data is None and not validation_split else cadence_of(validation_freq),
            saving=None if checkpoints is None else checkpoints.every,
            max_steps=None if max_steps is None else at_least(1, "max_steps", max_steps),
            max_seconds=positive_seconds("max_seconds", max_seconds),
        )
        with (
            self._only_fit(is_search=is_search),
            self._reports.observe("fit") as timings,
            RunDirectory.open(checkpoints, plan, resume=resume) as directory,
            self._assembly.executing_as_in(directory),
            self.transaction() if is_search else nullcontext(),
        ):
            if validation_split and validation_data is None:
                (x, y, sample_weight), validation_data = split_tail(x, y, sample_weight, validation_split)
            seed = self._draw_seed() if directory is None else directory.seed(self._seed, self._draw_seed())
            open_data = functools.partial(
                open_source,
                x,
                y,
                sample_weight,
                batch_size=batch_size,
                steps=steps_per_epoch,
                shuffle=shuffle,
                seed=seed,
                class_weight=class_weight,
                are_class_numbers=losses.takes_class_numbers(self.model.loss),
                pipelines=self._pipelines,
            )
            source = self._assembly.source(open_data, announces=is_verbose(verbose))
            check_shares(source, self._strategy)
            warn_of_pixels(source.spec, self.model)
            steps = steps_of(source, steps_per_epoch, "steps_per_epoch")
            with self._hooks(callbacks, verbose, timings, epochs=epochs, steps=steps, is_fit=True) as hooks:
                initial_epoch = at_least(0, "initial_epoch", initial_epoch)
                reader = Reader(source, self._strategy, steps_per_epoch, initial_epoch, is_saved=directory is not None)
                train = self._assembly.training(reader, hooks)
                evaluation = None
                if validation_data is not None:
                    size = validation_batch_size or batch_size
                    evaluation = self._validation(validation_data, hooks, batch_size=size, steps=validation_steps)
                hooks.set_step_graph(train.loop.graph)
                names = [*train.loop.columns.names, *(evaluation.log_names() if evaluation else ())]
                if train.loop.columns.names:  # known as soon as the step is traced, but not where it runs eagerly
                    hooks.check_monitors(names)
                saving = None
                if directory is not None:
                    choices = {
                        "seed": seed,
                        "steps_per_epoch": steps_per_epoch,
                        "class_weight": class_weight,
                        "validation_freq": str(plan.validation),
                    }
                    score = score_of(directory.checkpoints.keep_best, self.model, names)
                    saving = self._assembly.saving(directory, train, reader, evaluation, choices, score)
                    if is_verbose(verbose) and (greeting := saving.greeting()):
                        print(greeting, flush=True)
                Fit(
                    task=self._task,
                    plan=plan,
                    train=train,
                    reader=reader,
                    evaluation=evaluation,
                    progress=Progress(epoch=reader.index),
                    saving=saving,
                ).run()
                return hooks.history()

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Verbose = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = True,
    ) -> Any:
        """Evaluates the model.

        Args:
            x: As for `fit`.
            y: As for `fit`.
            batch_size: Samples in a step; None: 32.
            verbose: 0: silent; otherwise a progress bar.
            sample_weight: Weight of each sample.
            steps: Batches to evaluate; None: all.
            callbacks: As for `fit`; their `on_test_*` hooks are called.
            return_dict: False: Keras's list, loss first, or a single number where there is but one.

        Returns:
            Name -> value, sorted by name.

        Raises:
            ConfigError: An argument is wrong.
            DataError: The data is empty, endless, or does not fit the model.

        Examples:
            >>> trainer.evaluate(x_test, y_test)
            {'accuracy': 0.991, 'loss': 0.0286}
        """
        steps = capped_steps("steps", steps)
        with self._reports.observe("evaluate") as timings:
            source = open_source(x, y, sample_weight, batch_size=batch_size, steps=steps, pipelines=self._pipelines)
            with self._hooks(callbacks, verbose, timings, epochs=1, steps=steps_of(source, steps, "steps")) as hooks:
                evaluation = self._assembly.evaluation(source, hooks, steps, "steps")
                timings.take_rest("opening")
                logs = evaluation.run()
        return logs if return_dict else in_keras_order(logs, self.model.metrics)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Verbose = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """Runs the model on all samples.

        Args:
            x: As for `fit`; of a dataset's batches, the inputs.
            batch_size: Samples in a step; None: 32.
            verbose: 0: silent; otherwise a progress bar.
            steps: Batches to run; None: all.
            callbacks: As for `fit`; their `on_predict_*` hooks are called.

        Returns:
            NumPy arrays in the model's own output structure, (samples, ...).

        Raises:
            ConfigError: An argument is wrong.
            DataError: The data is empty or endless.

        Examples:
            >>> trainer.predict(x_test).shape
            (10000, 10)
        """
        steps = capped_steps("steps", steps)
        with self._reports.observe("predict") as timings:
            source = open_source(x, batch_size=batch_size, steps=steps, pipelines=self._pipelines)
            with self._hooks(callbacks, verbose, timings, epochs=1, steps=steps_of(source, steps, "steps")) as hooks:
                prediction = self._assembly.prediction(source, hooks, steps)
                timings.take_rest("opening")
                return prediction.run()

    def tune(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Verbose = "auto",
        *,
        shuffle: bool | str = True,
        class_weight: ClassWeight | None = None,
        sample_weight: Any = None,
        rounds: int = 5,
    ) -> Tuning:
        """Measures how the steps of a training run fastest here, and has all later steps run so.

        What is tried: the step as a graph, compiled by XLA, or a whole block of steps compiled by XLA (arrays only);
        arrays on the device, or read batch by batch. Nothing of the run is changed by it: weights, generators and
        optimizer are as before. XLA rounds otherwise, so that the way is in the checkpoints of a run, and a resume
        repeats it.

        Args:
            x: As for `fit`: the data, or some of it that has a few batches.
            y: As for `fit`.
            batch_size: As for `fit`.
            verbose: 0: silent; otherwise the table is printed.
            shuffle: As for `fit`.
            class_weight: As for `fit`.
            sample_weight: As for `fit`.
            rounds: How often each way is run, a quarter of a second at a time, in turns.

        Returns:
            What was measured, as values and as a table (`print`).

        Raises:
            ConfigError: An argument is wrong, a fit is running, steps run eagerly, or the data gives something else
                later if some of it is read now (generators, unseeded shuffles).

        Examples:
            >>> trainer.tune(x_train, y_train, batch_size=32).best
            Execution(xla=<Xla.BLOCK: 'XLA, whole blocks'>, streams=False)
        """
        if self._fits:
            raise ConfigError("tune was called while fit is running, whose steps must all run alike. Call it before.")
        open_data = functools.partial(
            open_source,
            x,
            y,
            sample_weight,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=0,  # one that was drawn would leave a trace
            class_weight=class_weight,
            are_class_numbers=losses.takes_class_numbers(self.model.loss),
            pipelines=self._pipelines,
        )
        tuning = self._assembly.tuning(open_data, rounds=at_least(1, "rounds", rounds))
        if is_verbose(verbose):
            print(tuning, flush=True)
        return tuning

    def report(self) -> Report:
        """Where the time of the last `fit`, `evaluate` and `predict` went, and what was traced, why.

        It is always known: of a fit under way, or one that an error has ended, as far as that has come.

        Examples:
            >>> print(trainer.report())
            fit: 1.89 s, 3750 steps; the first block done after 0.61 s
            opening data, building the model     0.22 s   11.6 %
            tracing                              0.19 s   10.1 %
            steps                                1.14 s   60.3 %  18 blocks of steps (...: 1, 268, 493)
            ...
        """
        return self._reports.report(self._assembly.loops.traces.noted)

    def transaction(self) -> AbstractContextManager[None]:
        """A `with` block whose every effect on the run is undone at its end, to the bit.

        Variables of the model, its optimizer and its metrics take their values back, seeds of dropout included, and so
        do the global random generators of Python, NumPy, Keras and TensorFlow. What is undone is memory: files that a
        callback has written stay, and a generator given as data has given what it gave. A fit inside is not saved.

        Warns:
            UserWarning: The model was built inside by something else than this Trainer, so that its first weights
                are not known; or it was compiled inside, which is not undone.

        Examples:
            >>> with trainer.transaction():
            ...     trainer.fit(x, y, max_steps=100)  # a try
        """
        return self._assembly.transaction()

    @contextmanager
    def _only_fit(self, *, is_search: bool) -> Iterator[None]:
        """Refuses a fit inside a fit, which would train the model of the outer one, unless it is a try and undone."""
        depth = self._assembly.num_transactions
        if self._fits and not is_search and depth <= self._fits[-1]:
            raise ConfigError(
                "fit was called while a fit of the same Trainer is running, from one of its callbacks or from another "
                "thread. Call it before or after, or inside `with trainer.transaction():`, which is undone; evaluate "
                "and predict may be called inside."
            )
        self._fits.append(depth)
        try:
            yield
        finally:
            self._fits.pop()

    def _hooks(
        self,
        callbacks: Any,
        verbose: Verbose,
        timings: Timings,
        *,
        epochs: int,
        steps: int | None,
        is_fit: bool = False,
    ) -> Hooks:
        defaults: list[Any] = [keras.callbacks.History()] if is_fit else []
        has_own = isinstance(callbacks, keras.callbacks.CallbackList) or has_bar(callbacks)
        if is_verbose(verbose) and not has_own:
            defaults.append(ProgressBar())
        params = {"verbose": verbose, "epochs": epochs, "steps": steps}
        return Hooks.of(
            callbacks,
            model=self.model,
            params=params,
            defaults=defaults,
            variables=self._task.variables,
            timings=timings,
        )

    def _validation(self, data: Any, hooks: Hooks, *, batch_size: int | None, steps: int | None) -> Evaluation:
        steps = capped_steps("validation_steps", steps)
        source = open_validation(data, batch_size, steps, self._pipelines)
        return self._assembly.evaluation(source, hooks, steps, "validation_steps")

    def _draw_seed(self) -> int:
        return int(np.random.randint(1 << 31)) if self._seed is None else self._seed

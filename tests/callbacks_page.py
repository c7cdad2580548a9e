"""The page of Keras's callbacks beside ours, parameter by parameter; `python -m tests.callbacks_page` writes it.

`tests/test_callbacks_page.py` holds the page to the signatures and to the tests: no parameter without a row, no row
without a test, no default of ours that differs without a reason.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import keras

import engine
from engine import callbacks
from tests.as_in_keras import WRITING
from tests.callback_cases import CASES, EVALUATED, PREDICTED

PAGE = Path(__file__).parent.parent / "docs/design/keras-callbacks.md"
HELD_BY = {
    "in a fit": (
        "test_keras_callbacks.py::test_it_does_in_a_fit_what_it_does_in_that_of_keras",
        [case for case in CASES if case.callback not in WRITING],
    ),
    "in a fit, where files are written": (
        "test_keras_callbacks_that_write.py::test_it_writes_in_a_fit_what_it_writes_in_that_of_keras",
        [case for case in CASES if case.callback in WRITING],
    ),
    "in an evaluation": (
        "test_keras_callbacks.py::test_it_does_in_an_evaluation_what_it_does_in_that_of_keras",
        EVALUATED,
    ),
    "in a prediction": (
        "test_keras_callbacks.py::test_it_does_in_a_prediction_what_it_does_in_that_of_keras",
        PREDICTED,
    ),
}
VERDICTS = ("equal", "better: ", "left out: ", "not yet: ")


@attrs.frozen
class Ours:
    """What of this package stands beside a callback of Keras.

    Attributes:
        name: Of the class in `engine.callbacks` (or in `engine`); None: there is none.
        whole: The verdict on the callback as a whole.
        parameters: Keras's parameter -> the verdict on it.
        extra: A parameter that only ours has -> what it does.
        tests: Files, relative to `tests/`.
    """

    name: str | None
    whole: str
    parameters: dict[str, str] = attrs.field(factory=dict)
    extra: dict[str, str] = attrs.field(factory=dict)
    tests: tuple[str, ...] = ()

    @property
    def kind(self) -> Any:
        """The class; None if there is none."""
        return self.name and (getattr(callbacks, self.name, None) or getattr(engine, self.name))


CHECKPOINTER = "not yet: the Checkpointer, which saves and resumes the whole run"
DIRECTION = "knows metrics of one of several outputs, function metrics and those that a model tracks itself"
OURS = {
    "BackupAndRestore": Ours(
        None,
        f"{CHECKPOINTER}: to the very step, with callbacks, data and seeds",
        {
            "backup_dir": CHECKPOINTER,
            "save_freq": CHECKPOINTER,
            "double_checkpoint": CHECKPOINTER,
            "delete_checkpoint": CHECKPOINTER,
        },
    ),
    "CSVLogger": Ours(
        "CSVLogger",
        "better: a late value gets a column when it comes; a resumed run has each row once",
        {
            "filename": "better: its directory is made; an old file is replaced when there is a first row",
            "separator": "equal",
            "append": "better: what it appends to must have the same columns",
        },
        {"by": '"batch": a row for every step, with its own values'},
        ("engine/callbacks/test_csv_logger.py",),
    ),
    "Callback": Ours(
        "Callback",
        "better: also knows each step's own values, the step of the run, errors, and has state for checkpoints",
        tests=("engine/test_hooks.py",),
    ),
    "CallbackList": Ours(
        None,
        "left out: a Trainer takes a ready list, a plain one, or any nest of lists",
        {
            "callbacks": "left out: the argument `callbacks` of `fit`, `evaluate` and `predict`",
            "add_history": "left out: `fit` adds one, unless there is one",
            "add_progbar": "left out: `verbose` decides",
            "model": "left out: it is the Trainer's",
            "params": "left out: they are those of the fit",
        },
        tests=("engine/test_hooks.py",),
    ),
    "EarlyStopping": Ours(
        "EarlyStopping",
        "better: NaN is never an improvement; resumes",
        {
            "monitor": "better: several names as well",
            "min_delta": "better: one for each monitor as well",
            "patience": "equal",
            "verbose": "equal",
            "mode": f'better: "auto" {DIRECTION}; an unknown mode is an error; one for each monitor as well',
            "baseline": "better: one for each monitor as well",
            "restore_best_weights": "better: also after an error",
            "start_from_epoch": "equal",
        },
        {"restore_best_optimizer": "also restores the optimizer's variables and the states of random numbers"},
        ("engine/callbacks/test_early_stopping.py", "engine/callbacks/test_monitor.py"),
    ),
    "History": Ours(
        "LossHistory",
        "better: stands beside Keras's History, which `fit` returns, with the values of every batch",
        extra={"plot": "a picture of the loss, drawn at the end of every epoch"},
        tests=("engine/callbacks/test_loss_history.py",),
    ),
    "LambdaCallback": Ours(
        "LambdaCallback",
        "better: a name that is no hook is refused; `on_exception` is a hook",
        {
            **dict.fromkeys(("on_epoch_begin", "on_epoch_end", "on_train_begin"), "equal"),
            "on_train_end": "better: called however the training ended",
            "on_train_batch_begin": "better: blocks keep their length, unless it acts on batches",
            "on_train_batch_end": "better: blocks keep their length, unless it acts on batches",
            "kwargs": "better: as `hooks`",
        },
        {
            "acts_on_batches": "a batch hook changes the run, so that it is called between the very steps",
            "hooks": "Keras's `kwargs`: any other hook by its name",
        },
        ("engine/callbacks/test_lambda_callback.py",),
    ),
    "LearningRateScheduler": Ours(
        "LearningRateScheduler",
        "better: works on top of a schedule in the optimizer, as a factor; resumes",
        {
            "schedule": "better: its signature decides how it is called, so that a TypeError inside it comes out",
            "verbose": "equal",
        },
        {"per_step": "a rate for every step, assigned inside the compiled loop"},
        ("engine/callbacks/test_learning_rate_scheduler.py", "engine/callbacks/test_rates.py"),
    ),
    "ModelCheckpoint": Ours(
        "ModelCheckpoint",
        "better: a file appears whole or not at all, and is brought to the disk by a thread",
        {
            "filepath": "better: `{step}` as well; directories may have placeholders",
            "monitor": "better: one that is missing is never taken for an improvement",
            "verbose": "equal",
            "save_best_only": "better: NaN is never an improvement",
            "save_weights_only": "equal",
            "mode": f'better: "auto" {DIRECTION}, and is asked only if something is compared',
            "save_freq": "better: an `Every` as well; exact steps of the run, with long blocks in between",
            "initial_value_threshold": "equal",
        },
        {
            "keep_last": "how many of the files that it wrote last are kept",
            "keep_best": "how many of the best are kept",
            "background": "whether a thread brings the files to the disk",
        },
        ("engine/callbacks/test_model_checkpoint.py", "engine/callbacks/test_rotation.py"),
    ),
    "OrbaxCheckpoint": Ours(
        None,
        f"{CHECKPOINTER}, without JAX",
        {
            "directory": CHECKPOINTER,
            "monitor": CHECKPOINTER,
            "verbose": CHECKPOINTER,
            "save_best_only": CHECKPOINTER,
            "mode": CHECKPOINTER,
            "save_freq": CHECKPOINTER,
            "initial_value_threshold": CHECKPOINTER,
            "max_to_keep": "better: `ModelCheckpoint` has `keep_last` and `keep_best`",
            "save_on_background": "better: `ModelCheckpoint` has `background`",
            "save_weights_only": "better: `ModelCheckpoint` has it",
        },
        tests=("engine/callbacks/test_model_checkpoint.py",),
    ),
    "ProgbarLogger": Ours(
        "ProgressBar",
        "better: samples a second, and one line an epoch that stays; without a terminal there are lines only",
        tests=("engine/callbacks/test_progress_bar.py",),
    ),
    "ReduceLROnPlateau": Ours(
        "ReduceLROnPlateau",
        "better: works on top of a schedule in the optimizer; resumes",
        {
            "monitor": "equal",
            "factor": "better: below 0 it is refused too; a schedule in the optimizer is multiplied by it",
            "patience": "equal",
            "verbose": "equal",
            "mode": f'better: "auto" {DIRECTION}; an unknown mode is an error',
            "min_delta": "equal",
            "cooldown": "equal",
            "min_lr": "equal",
            "kwargs": "left out: Keras takes any name and does nothing with it",
        },
        tests=("engine/callbacks/test_reduce_lr_on_plateau.py", "engine/callbacks/test_monitor.py"),
    ),
    "RemoteMonitor": Ours(
        None,
        "left out: `LambdaCallback(on_epoch_end=...)` posts in a line, with the client and the errors one wants",
        dict.fromkeys(("root", "path", "field", "headers", "send_as_json"), "left out: see above"),
    ),
    "SwapEMAWeights": Ours(
        "SwapEMAWeights",
        "better: to the bit; gives the weights back after a prediction and after an error too",
        {"swap_on_epoch": "better: a training that stops early ends with the averages too"},
        tests=("engine/callbacks/test_swap_ema_weights.py",),
    ),
    "TensorBoard": Ours(
        "TensorBoard",
        "better: every batch's own value against the step of the run; a resumed run goes on at its step",
        {
            "log_dir": "equal",
            "histogram_freq": "equal",
            "write_graph": "better: the graph of operations of a step, which Keras never writes",
            "write_images": "better: stretched from black to white, a convolution with each filter",
            "write_steps_per_second": "better: the time of validations does not count",
            "update_freq": 'better: blocks keep their length with any; that is why the default is "batch"',
            "profile_batch": "better: whole blocks are profiled, whatever `update_freq` is",
            "embeddings_freq": "better: TensorBoard's projector can read them",
            "embeddings_metadata": "equal",
        },
        {
            "samples": "(x, y), a small batch, for what needs data",
            "write_gradients": "histograms of the gradients for `samples`",
            "write_activations": "histograms of what each layer returns for `samples`",
            "write_samples": "the inputs of `samples` that are pictures",
            "evaluation": "(x, y) to judge a classifier by",
            "evaluation_freq": "epochs from one judgement to the next",
            "write_confusion": "the confusion matrix",
            "write_curves": "curves of precision and recall",
            "class_names": "what to call the classes",
            "hparams": "hyper-parameters, to compare trainings by",
            "strict": "whether an error in writing ends the training",
        },
        ("engine/callbacks/test_tensorboard.py", "engine/callbacks/test_tensorboard_resume.py"),
    ),
    "TerminateOnNaN": Ours(
        "TerminateOnNaN",
        "better: at the very step, by its own loss; the compiled loop looks, so that blocks keep their length",
        {"raise_error": "better: a NonFiniteError, and every callback is closed"},
        tests=("engine/callbacks/test_terminate_on_nan.py",),
    ),
}


def page() -> str:
    """The whole page, Markdown."""
    beside = {ours.name for ours in OURS.values()}
    own = [name for name in callbacks.__all__ if name not in beside]
    only_here = [f"| `{name}` | {inspect.getdoc(getattr(callbacks, name)).splitlines()[0]} |" for name in own]
    return "\n".join(
        [
            "# Keras's callbacks beside ours\n",
            "Written by `python -m tests.callbacks_page` from the signatures of both and from the tests; a test holds "
            "it to them. Paths are relative to `tests/`.\n",
            "Every callback of Keras runs in a Trainer as it is. The middle column names the case that trains with "
            "that parameter by `model.fit` and by a Trainer, with blocks of several lengths in turn, and compares all "
            "that can be seen: history, variables, files, what is printed, attributes. The cases are those of:\n",
            *(f"- {where}: `{test}`" for where, (test, _) in HELD_BY.items()),
            "- several callbacks together: "
            "`test_keras_callbacks_together.py::test_several_together_do_in_a_trainer_what_they_do_in_fit`\n",
            'The last column is about ours: "equal", "better" (how), "left out" (why), or "not yet". What is "only '
            "here\" is no parameter of Keras's.\n",
            *(_section(name, ours) for name, ours in OURS.items()),
            "## Only here\n\n| name | does |\n|---|---|",
            *only_here,
            "",
        ]
    )


def cases_of(callback: str, parameter: str | None) -> list[str]:
    """The cases that hold a parameter."""
    found = []
    for where, (_, cases) in HELD_BY.items():
        for case in cases:
            if (case.callback, case.parameter) == (callback, parameter):
                place = "" if where.startswith("in a fit") else f" {where}"
                found.append(f"`{case.name}`{place}")
    return found


def _section(name: str, ours: Ours) -> str:
    beside = f" and `{ours.kind.__module__.split('.')[0]}.{_path(ours)}`" if ours.name else ""
    tests = ", ".join(f"`{test}`" for test in ours.tests)
    rows = [_row("the callback", name, None, ours.whole)]
    rows += [_row(f"`{parameter}`", name, parameter, ours.parameters[parameter]) for parameter in parameters_of(name)]
    rows += [f"| `{parameter}` | - | only here: {words} |" for parameter, words in ours.extra.items()]
    held = f"Ours is held by {tests or 'no test yet'}.\n\n" if ours.name else ""
    head = "| parameter | Keras's own in a Trainer | ours |\n|---|---|---|\n"
    return f"## `keras.callbacks.{name}`{beside}\n\n{held}{head}" + "\n".join(rows) + "\n"


def _path(ours: Ours) -> str:
    return f"callbacks.{ours.name}" if ours.name in callbacks.__all__ else str(ours.name)


def _row(first: str, callback: str, parameter: str | None, verdict: str) -> str:
    cases = cases_of(callback, parameter)
    return f"| {first} | {'<br>'.join(cases) or 'those of its parameters'} | {verdict} |"


def parameters_of(name: str) -> Iterator[str]:
    """Of a callback of Keras, in order."""
    yield from inspect.signature(getattr(keras.callbacks, name)).parameters


if __name__ == "__main__":
    PAGE.write_text(page())

"""Each of our callbacks in a training that makes it matter whether it is taken up rightly.

```python
expected, _ = fit(CASES["CSVLogger"], tmp_path / "whole")     # all that can be seen, and the callback
```
"""

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import keras
import numpy as np

from engine import Callback, Every, Trainer
from engine.callbacks import (
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    LossHistory,
    ModelCheckpoint,
    NonFinite,
    ProgressBar,
    ReduceLROnPlateau,
    SwapEMAWeights,
    TensorBoard,
    TerminateOnNaN,
    Timer,
    warmup_cosine,
)
from tests.event_files import curves_of
from tests.observed import files_of
from tests.runs import arrays, network, seen

X, Y = arrays()
SPOILT = X.copy()
SPOILT[[17, 26]] = np.nan  # the third and the fourth of six batches
VALIDATED = {"validation_data": arrays(19, seed=1)}
SEARCHES = {"BatchSizeFinder", "LearningRateFinder"}


def small():
    """A model with a seed that a run can lose, and little else, so that it is soon traced."""
    return keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.3), keras.layers.Dense(3, "softmax")])


def decaying():
    return keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 4, 0.8), 0.9)


def averaging():
    return keras.optimizers.SGD(0.1, 0.9, use_ema=True, ema_momentum=0.8)


def rate_by_hand():
    callback = LambdaCallback(
        on_epoch_begin=lambda epoch, logs: callback.model.optimizer.learning_rate.assign(0.1 / (epoch + 1))
    )
    return callback


@attrs.frozen
class Case:
    """A callback, and a training that makes it matter.

    Attributes:
        make: Makes the callback, which may write into a directory.
        optimizer: Makes the optimizer.
        model: Makes the model: one with statistics and regularizers, if the callback keeps or puts back variables.
        x: What is trained on; not shuffled if it is spoilt, so that the same batches are.
        fit: More arguments of fit.
    """

    make: Callable[[Path], Callback]
    optimizer: Callable[[], Any] = lambda: keras.optimizers.Adam(1e-2)
    model: Callable[[], keras.Model] = small
    x: Any = X
    fit: dict[str, Any] = attrs.Factory(dict)


CASES = {
    "CSVLogger": Case(lambda path: CSVLogger(path / "log.csv"), fit=VALIDATED | {"validation_freq": 2}),
    "CSVLogger by batch": Case(lambda path: CSVLogger(path / "log.csv", ";", by="batch")),
    "CSVLogger appending": Case(lambda path: CSVLogger(path / "log.csv", append=True)),
    "EarlyStopping": Case(
        lambda path: EarlyStopping(
            "loss", patience=1, mode="max", restore_best_weights=True, restore_best_optimizer=True
        ),
        model=network,
    ),
    "EarlyStopping of several": Case(
        lambda path: EarlyStopping(["val_loss", "accuracy"], min_delta=1.0, patience=2), fit=VALIDATED
    ),
    "LambdaCallback": Case(lambda path: rate_by_hand(), lambda: keras.optimizers.SGD(0.5)),
    "LearningRateScheduler": Case(lambda path: LearningRateScheduler(lambda epoch, rate: rate * 0.5)),
    "LearningRateScheduler on a schedule": Case(
        lambda path: LearningRateScheduler(lambda epoch, factor: factor * 0.5), decaying
    ),
    "LearningRateScheduler by step": Case(lambda path: LearningRateScheduler(warmup_cosine(0.1, 5, 24), per_step=True)),
    "LossHistory": Case(lambda path: LossHistory(path / "{epoch}.png"), fit=VALIDATED),
    "ModelCheckpoint": Case(
        lambda path: ModelCheckpoint(
            path / "{epoch}-{loss:.3f}.weights.h5", "loss", save_weights_only=True, keep_last=1, keep_best=1
        )
    ),
    "ModelCheckpoint by step": Case(
        lambda path: ModelCheckpoint(path / "{step}.weights.h5", save_weights_only=True, save_freq=5, keep_last=2)
    ),
    "ModelCheckpoint behind validations": Case(
        lambda path: ModelCheckpoint(
            path / "{epoch}-{batch}-{step}-{loss:.4f}.weights.h5",
            save_best_only=True,
            save_weights_only=True,
            save_freq=4,
        ),
        fit=VALIDATED | {"validation_freq": Every(steps=5)},
    ),
    "NonFinite leaving out": Case(lambda path: NonFinite("skip"), x=SPOILT),
    "NonFinite": Case(lambda path: NonFinite("rollback", every=Every(steps=5)), model=network, x=SPOILT),
    "NonFinite by epoch": Case(lambda path: NonFinite("rollback"), x=SPOILT),
    "ProgressBar": Case(lambda path: ProgressBar()),
    "ReduceLROnPlateau": Case(
        lambda path: ReduceLROnPlateau("loss", 0.5, patience=1, mode="max", cooldown=1), fit=VALIDATED
    ),
    "ReduceLROnPlateau on a schedule": Case(
        lambda path: ReduceLROnPlateau("loss", 0.5, patience=1, mode="max"), decaying
    ),
    "SwapEMAWeights": Case(lambda path: SwapEMAWeights(), averaging, network, fit=VALIDATED),
    "SwapEMAWeights between epochs": Case(lambda path: SwapEMAWeights(swap_on_epoch=True), averaging, fit=VALIDATED),
    "TensorBoard": Case(
        lambda path: TensorBoard(
            path, 1, samples=(X[:8], Y[:8]), write_gradients=True, evaluation=(X, Y), write_curves=True
        ),
        fit=VALIDATED,
    ),
    "TensorBoard now and then": Case(
        lambda path: TensorBoard(
            path, update_freq=4, hparams={"rate": 0.1}, samples=(np.eye(3)[None, ..., None], Y[:1]), write_samples=True
        ),
        fit=VALIDATED | {"validation_freq": Every(steps=7)},
    ),
    "TerminateOnNaN": Case(lambda path: TerminateOnNaN(), x=SPOILT, fit={"steps_per_epoch": 2}),
    "Timer": Case(lambda path: Timer(verbose=0)),
}


def fit(case, path, *, steps="auto", checkpoints=None, cut=None, **arguments):
    """Trains anew, as another process would; returns all that can be seen, and the callback."""
    path.mkdir(exist_ok=True)
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(7)
    model, subject = case.model(), case.make(path)
    model.compile(case.optimizer(), "categorical_crossentropy", metrics=["accuracy"])
    chosen = {"batch_size": 8, "epochs": 4, "verbose": 0, "shuffle": case.x is X} | case.fit | arguments
    trainer = Trainer(model, steps_per_execution=steps, checkpoints=checkpoints, seed=3)
    with contextlib.redirect_stdout(io.StringIO()):
        history = trainer.fit(case.x, Y, callbacks=[subject, *([cut] if cut else [])], **chosen)
    return shown(subject, path) | seen(model, history), subject


def shown(subject, path):
    """What the callback shows, or each of several, and the files."""
    attributes = [values_of(own, path) for own in subject] if isinstance(subject, list) else values_of(subject, path)
    return {"attributes": attributes, "files": curves_of(path) if isinstance(subject, TensorBoard) else files_of(path)}


def values_of(subject, path):
    """The attributes of a callback that anybody may look at, but times and paths."""
    names = {"best", "losses"} & set(dir(subject)) | {name for name in vars(subject) if not name.startswith("_")}
    without = {"params", "filepath", "filename", "log_dir", "watch", "acts_every", "schedule", "timings", "whole_secs"}
    without |= {"csv_file", "writer"}
    values = {name: getattr(subject, name) for name in names - without if not callable(getattr(subject, name))}
    if isinstance(subject, ModelCheckpoint):
        values["files"] = [(os.path.relpath(file.path, path), file.value) for file in subject.files]
    return values

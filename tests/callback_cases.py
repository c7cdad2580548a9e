"""Every callback of `keras.callbacks` with every one of its parameters, as cases: see `callback_runs.py`."""

import contextlib
import functools
import http.server
import json
import threading
import urllib.parse
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.callback_runs import (
    Case,
    Make,
    Room,
    Side,
    Watch,
    X,
    Y,
    evaluated,
    forget_endings,
    from_new,
    predicted,
    twice,
)
from tests.observed import files_of


class Interrupted(Exception):  # noqa: N818
    """What stops a training that is to be taken up again."""


class Interrupts(keras.callbacks.Callback):
    """Raises at the beginning of an epoch; it has no batch hook, so that blocks stay long."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 3:
            raise Interrupted


class InterruptsAtBatch(keras.callbacks.Callback):
    """Raises in the middle of an epoch."""

    epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if (self.epoch, batch) == (2, 3):
            raise Interrupted


def interrupted(
    side: Side, room: Room, make: Make, *, by: Any = Interrupts, spoils: bool = False, **arguments: Any
) -> Any:
    """A script that is killed in the third or fourth epoch, and run once more; the backup may be spoilt between."""
    with contextlib.suppress(Interrupted):
        side.fit([*make(), by()], **arguments)
    forget_endings(room)
    room.notes.append(("files", files_of(room.path)))
    if spoils:
        (room.path / "backup/latest.weights.h5").write_bytes(b"half a file")
    try:
        return from_new(side, room, make, **arguments)
    except OSError:
        (room.path / "backup/latest.weights.h5").unlink()  # nothing can read it
        raise


def checkpoint(name: str, **keywords: Any) -> Any:
    """Keywords of a ModelCheckpoint."""
    return lambda room: {"filepath": room.path / name} | keywords


def best(**keywords: Any) -> Any:
    return checkpoint("{epoch}.weights.h5", save_best_only=True, save_weights_only=True, **keywords)


def backup(**keywords: Any) -> Any:
    return lambda room: {"backup_dir": str(room.path / "backup")} | keywords


def board(**keywords: Any) -> Any:
    return lambda room: {"log_dir": room.path / "logs"} | keywords


def orbax(**keywords: Any) -> Any:
    return lambda room: {"directory": str(room.path / "orbax")} | keywords


def posted(**keywords: Any) -> Any:
    """Keywords of a RemoteMonitor that reaches the server of the room."""
    return lambda room: {"root": address()} | keywords


def plain(**keywords: Any) -> Any:
    return lambda room: keywords


def listed(**keywords: Any) -> Any:
    """Keywords of a CallbackList that is ready to be used."""

    def make(room: Room) -> dict[str, Any]:
        callbacks = [keras.callbacks.History(), Noting(room)]
        return {"callbacks": callbacks, "model": room.model, "verbose": 2, "epochs": 6, "steps": 5} | keywords

    return make


def ready(room: Room) -> dict[str, Any]:
    """Keywords of a CallbackList for an evaluation or a prediction of three batches."""
    return {"callbacks": [Watch(room, [])], "model": room.model, "verbose": 2, "epochs": 1, "steps": 3}


class Noting(keras.callbacks.Callback):
    """Notes its params and every epoch."""

    def __init__(self, room: Room) -> None:
        super().__init__()
        self.room = room

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.room.notes.append((epoch, dict(logs), self.params))


def halves(epoch: int, rate: float) -> float:
    return rate / 2


def of_the_epoch(epoch: int) -> float:
    return 1.0 / (epoch + 1)


def poisoned(side: Side, room: Room, make: Make, **arguments: Any) -> Any:
    """A sample of the third batch has no value."""
    x = X.copy()
    x[19] = np.inf
    return side.fit(make(), x=x, **arguments)


def of_unknown_length(side: Side, room: Room, make: Make, **arguments: Any) -> Any:
    """A dataset that does not know how many batches it has."""
    data = tf.data.Dataset.from_tensor_slices((X, Y)).filter(lambda x, y: True).batch(8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Your input ran out of data")  # Keras says so at every such epoch
        return side.fit(make(), x=data, y=None, batch_size=None, **arguments)


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        kind = self.headers["Content-Type"]
        forms = {} if kind == "application/json" else urllib.parse.parse_qs(body)
        data = {name: json.loads(*values) for name, values in forms.items()} or json.loads(body)
        posts.append((self.path, kind, self.headers["X-Mine"], data))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Prints nothing."""


@functools.cache
def address() -> str:
    """Of a server that keeps in `posts` what is posted to it; one for all, so that its port is the same."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def posting(side: Side, room: Room, make: Make, **arguments: Any) -> Any:
    """What was posted is noted."""
    posts.clear()
    history = side.fit(make(), **arguments)
    room.notes.append(("posts", [*posts]))
    return history


posts: list[Any] = []
HOOKS = (
    *("on_epoch_begin", "on_epoch_end", "on_train_begin", "on_train_end"),
    *("on_train_batch_begin", "on_train_batch_end"),
)
HOOKS_OF_TESTS = ("on_test_begin", "on_test_end", "on_test_batch_begin", "on_test_batch_end")
HOOKS_OF_PREDICTIONS = tuple(hook.replace("test", "predict") for hook in HOOKS_OF_TESTS)
OLDER_HOOKS = ("on_batch_begin", "on_batch_end")


def noting(*hooks: str) -> Any:
    return lambda room: {hook: room.noting(hook) for hook in hooks}


UNVALIDATED = {"validation_data": None}  # takes half as long, where models are made anew and traced anew
MANY, SCALED, AVERAGING = "many optimizers", "loss scaled", "averaging"
CASES = [
    Case("Callback", None),
    #
    Case(
        "BackupAndRestore",
        "backup_dir",
        backup(delete_checkpoint=False),
        lambda room: str(room.path / "elsewhere"),
        train=interrupted,
        fit=UNVALIDATED,
        blocks=(1,),
    ),
    Case("BackupAndRestore", "save_freq", backup(save_freq=2), train=interrupted, fit=UNVALIDATED, blocks=(3,)),
    Case(
        "BackupAndRestore",
        "save_freq",
        backup(save_freq=2),
        also="interrupted within an epoch",
        train=functools.partial(interrupted, by=InterruptsAtBatch),
        fit=UNVALIDATED,
        blocks=("auto",),
    ),
    Case(
        "BackupAndRestore",
        "save_freq",
        backup(save_freq=False),
        also="False: at every batch",
        train=interrupted,
        fit=UNVALIDATED,
        blocks=(3,),
    ),
    Case(
        "BackupAndRestore",
        "double_checkpoint",
        backup(double_checkpoint=True),
        train=functools.partial(interrupted, spoils=True),
        fit=UNVALIDATED,
        blocks=("auto",),
    ),
    Case("BackupAndRestore", "delete_checkpoint", backup(delete_checkpoint=False), train=interrupted, blocks=("auto",)),
    Case("BackupAndRestore", None, backup(), also="of a loss scale", model=SCALED, train=interrupted, fit=UNVALIDATED),
    Case("BackupAndRestore", None, backup(), also="of averages", model=AVERAGING, train=interrupted, fit=UNVALIDATED),
    Case("BackupAndRestore", None, backup(), also="of many optimizers", model=MANY, train=interrupted, fit=UNVALIDATED),
    Case(
        "BackupAndRestore",
        None,
        backup(delete_checkpoint=False),
        also="after a fit that was not interrupted",
        train=functools.partial(from_new, times=2),
        fit=UNVALIDATED,
        blocks=(3,),
    ),
    #
    Case("CSVLogger", "filename", lambda room: {"filename": room.path / "a.csv"}, lambda room: room.path / "b.csv"),
    Case("CSVLogger", "separator", lambda room: {"filename": room.path / "a.csv", "separator": ";"}),
    Case("CSVLogger", "append", lambda room: {"filename": room.path / "a.csv", "append": True}, train=twice),
    Case(
        "CSVLogger",
        None,
        lambda room: {"filename": room.path / "a.csv"},
        also="with an epoch that is not validated",
        fit={"validation_freq": 2},
    ),
    #
    Case("CallbackList", "callbacks", listed(), lambda room: [keras.callbacks.History()], fit={"verbose": 2}),
    Case(
        "CallbackList",
        "add_history",
        lambda room: listed(callbacks=[Noting(room)], add_history=True)(room),
        fit={"verbose": 2},
    ),
    Case("CallbackList", "add_progbar", listed(add_progbar=True), fit={"verbose": 2}),
    Case("CallbackList", "model", listed(), fit={"verbose": 2}),
    Case("CallbackList", "params", listed(epochs=9), fit={"verbose": 2}),
    #
    Case("EarlyStopping", "monitor", plain(monitor="loss")),
    Case("EarlyStopping", "min_delta", plain(min_delta=0.1)),
    Case("EarlyStopping", "patience", plain(patience=2)),
    Case("EarlyStopping", "verbose", plain(verbose=1)),
    Case("EarlyStopping", "mode", plain(mode="max")),
    Case("EarlyStopping", "mode", plain(monitor="val_accuracy", mode="min"), also="down"),
    Case("EarlyStopping", "baseline", plain(patience=2, baseline=1.0)),
    Case("EarlyStopping", "restore_best_weights", plain(restore_best_weights=True, verbose=1)),
    Case("EarlyStopping", "start_from_epoch", plain(start_from_epoch=4)),
    Case("EarlyStopping", None, plain(restore_best_weights=True), also="restoring after averages", model=AVERAGING),
    Case("EarlyStopping", None, plain(restore_best_weights=True), also="of a loss scale", model=SCALED),
    Case("EarlyStopping", None, plain(patience=1), also="used again", train=twice),
    #
    Case("History", None),
    Case("History", None, also="used again", train=twice),
    #
    *(Case("LambdaCallback", hook, noting(hook)) for hook in HOOKS),
    *(Case("LambdaCallback", "kwargs", noting(hook), also=hook) for hook in (*HOOKS_OF_TESTS, *OLDER_HOOKS)),
    Case("LambdaCallback", None, noting(*HOOKS, *HOOKS_OF_TESTS), also="all at once"),
    #
    Case("LearningRateScheduler", "schedule", plain(schedule=halves), lambda room: lambda epoch, rate: rate),
    Case("LearningRateScheduler", "schedule", plain(schedule=of_the_epoch), lambda room: halves, also="of the epoch"),
    Case("LearningRateScheduler", "verbose", plain(schedule=halves, verbose=1)),
    Case("LearningRateScheduler", None, plain(schedule=halves, verbose=1), also="of many optimizers", model=MANY),
    Case("LearningRateScheduler", None, plain(schedule=halves), also="of a loss scale", model=SCALED),
    Case("LearningRateScheduler", None, plain(schedule=halves), also="of averages", model=AVERAGING),
    Case(
        "LearningRateScheduler",
        None,
        plain(schedule=halves),
        also="over a schedule",
        model="a schedule",
        error="TypeError",
    ),
    #
    Case(
        "ModelCheckpoint",
        "filepath",
        checkpoint("{epoch:02d}-{val_loss:.2f}.keras"),
        lambda room: room.path / "a.keras",
    ),
    Case("ModelCheckpoint", "monitor", best(monitor="loss")),
    Case("ModelCheckpoint", "verbose", checkpoint("{epoch}.keras", verbose=1)),
    Case("ModelCheckpoint", "verbose", best(verbose=1), also="of the best"),
    Case("ModelCheckpoint", "save_best_only", best()),
    Case(
        "ModelCheckpoint",
        "save_weights_only",
        checkpoint("a.weights.h5", save_weights_only=True),
        train=from_new,
        blocks=("auto",),
    ),
    Case("ModelCheckpoint", "mode", best(mode="max")),
    Case("ModelCheckpoint", "mode", best(monitor="val_accuracy", mode="min"), also="down"),
    Case("ModelCheckpoint", "save_freq", checkpoint("{epoch}.keras", save_freq=3)),
    Case(
        "ModelCheckpoint",
        "save_freq",
        checkpoint("{epoch}-{batch}-{loss:.2f}.weights.h5", save_freq=2, save_weights_only=True, verbose=1),
        also="named after batches",
    ),
    Case("ModelCheckpoint", "initial_value_threshold", best(initial_value_threshold=2.0, verbose=1)),
    Case("ModelCheckpoint", None, checkpoint("{epoch}.keras"), also="of a loss scale", model=SCALED),
    Case("ModelCheckpoint", None, checkpoint("{epoch}.keras"), also="of averages", model=AVERAGING),
    Case("ModelCheckpoint", None, best(), also="used again", train=twice),
    #
    *(
        Case(
            "OrbaxCheckpoint",
            parameter,
            given,
            instead,
            is_effective=parameter not in ("verbose", "save_on_background"),
        )
        for parameter, given, instead in (
            ("directory", orbax(), lambda room: str(room.path / "elsewhere")),
            ("monitor", orbax(monitor="loss", save_best_only=True), None),
            ("verbose", orbax(verbose=1), None),
            ("save_best_only", orbax(save_best_only=True), None),
            ("mode", orbax(mode="max", save_best_only=True), None),
            ("save_freq", orbax(save_freq=4), None),
            ("initial_value_threshold", orbax(initial_value_threshold=1.0, save_best_only=True), None),
            ("max_to_keep", orbax(max_to_keep=3), None),
            ("save_on_background", orbax(save_on_background=False), None),
            ("save_weights_only", orbax(save_weights_only=True), None),
        )
    ),
    Case("OrbaxCheckpoint", None, orbax(), also="of a loss scale", model=SCALED),
    #
    Case("ProgbarLogger", None, also="a bar", fit={"verbose": 1}),
    Case("ProgbarLogger", None, also="auto", fit={"verbose": "auto", "epochs": 1}),
    Case("ProgbarLogger", None, also="lines", fit={"verbose": 2}),
    Case("ProgbarLogger", None, also="silent"),
    Case(
        "ProgbarLogger",
        None,
        also="of unknown length",
        fit={"verbose": 2},
        train=of_unknown_length,
        but=("weights",),  # the end of an epoch counts as a step of the optimizer there: "Counts and the end"
    ),
    #
    Case("ReduceLROnPlateau", "monitor", plain(monitor="loss", patience=1)),
    Case("ReduceLROnPlateau", "factor", plain(factor=0.5, patience=1)),
    Case("ReduceLROnPlateau", "patience", plain(patience=1)),
    Case("ReduceLROnPlateau", "verbose", plain(patience=1, verbose=1)),
    Case("ReduceLROnPlateau", "mode", plain(patience=1, mode="max")),
    Case("ReduceLROnPlateau", "min_delta", plain(patience=1, min_delta=0.5)),
    Case("ReduceLROnPlateau", "cooldown", plain(patience=1, cooldown=2)),
    Case("ReduceLROnPlateau", "min_lr", plain(patience=1, min_lr=0.05)),
    Case("ReduceLROnPlateau", "kwargs", plain(patience=1, anything=1), is_effective=False),
    Case("ReduceLROnPlateau", None, plain(patience=1, verbose=1), also="of many optimizers", model=MANY),
    Case("ReduceLROnPlateau", None, plain(patience=1), also="of a loss scale", model=SCALED),
    Case("ReduceLROnPlateau", None, plain(patience=1), also="of averages", model=AVERAGING),
    Case(
        "ReduceLROnPlateau",
        None,
        plain(patience=1, mode="max"),
        also="over a schedule",
        model="a schedule",
        error="TypeError",
    ),
    #
    Case("RemoteMonitor", "root", posted(), lambda room: f"{address()}/elsewhere", train=posting),
    Case("RemoteMonitor", "path", posted(path="/mine"), train=posting),
    Case("RemoteMonitor", "field", posted(field="mine"), train=posting),
    Case("RemoteMonitor", "headers", posted(headers={"X-Mine": "7"}), train=posting),
    Case("RemoteMonitor", "send_as_json", posted(send_as_json=True), train=posting),
    #
    Case(
        "SwapEMAWeights",
        "swap_on_epoch",
        plain(swap_on_epoch=True),
        model=AVERAGING,
        others=lambda room: [keras.callbacks.ModelCheckpoint(room.path / "{epoch}.keras")],
    ),
    Case("SwapEMAWeights", None, model=AVERAGING),
    Case("SwapEMAWeights", None, also="of a loss scale", model="loss scaled and averaging"),
    Case("SwapEMAWeights", None, also="without averages", error="ValueError"),
    #
    Case("TensorBoard", "log_dir", board(), lambda room: str(room.path / "elsewhere")),
    Case("TensorBoard", "histogram_freq", board(histogram_freq=2)),
    Case("TensorBoard", "write_graph", board(write_graph=False)),
    Case("TensorBoard", "write_images", board(write_images=True, histogram_freq=1)),
    Case("TensorBoard", "write_steps_per_second", board(write_steps_per_second=True)),
    Case("TensorBoard", "write_steps_per_second", board(write_steps_per_second=True, update_freq=1), also="of batches"),
    Case("TensorBoard", "update_freq", board(update_freq=2)),
    Case("TensorBoard", "update_freq", board(update_freq="batch"), also="batch"),
    Case("TensorBoard", "profile_batch", board(profile_batch=2), fit={"epochs": 2}),
    Case("TensorBoard", "profile_batch", board(profile_batch=(2, 3), update_freq=1), fit={"epochs": 2}, also="batches"),
    Case("TensorBoard", "embeddings_freq", board(embeddings_freq=2), model="embedding"),
    Case(
        "TensorBoard",
        "embeddings_metadata",
        lambda room: board(embeddings_freq=1, embeddings_metadata={"embedding": "words.tsv"})(room),
        model="embedding",
    ),
    Case("TensorBoard", None, board(), also="of many optimizers", model=MANY),
    Case("TensorBoard", None, board(histogram_freq=1), also="of a loss scale", model=SCALED),
    Case("TensorBoard", None, board(update_freq=1), also="used again", train=twice),
    #
    Case("TerminateOnNaN", "raise_error", plain(raise_error=True), train=poisoned, error="RuntimeError"),
    Case("TerminateOnNaN", None, train=poisoned),
]
# Those whose hooks of evaluations and predictions do something.
EVALUATED = [
    *(Case("LambdaCallback", "kwargs", noting(hook), also=hook, train=evaluated) for hook in HOOKS_OF_TESTS),
    Case("CallbackList", "callbacks", lambda room: ready(room), fit={"verbose": 2}, train=evaluated),
    Case(
        "CallbackList",
        "add_progbar",
        lambda room: ready(room) | {"add_progbar": True},
        fit={"verbose": 2},
        train=evaluated,
    ),
    Case("ProgbarLogger", None, also="a bar", fit={"verbose": 1}, train=evaluated),
    Case("ProgbarLogger", None, also="lines", fit={"verbose": 2}, train=evaluated),
    Case("SwapEMAWeights", None, model=AVERAGING, train=evaluated),
    Case("TensorBoard", None, board(), train=evaluated),
    Case("TensorBoard", "update_freq", board(update_freq=2), train=evaluated),
]
PREDICTED = [
    *(Case("LambdaCallback", "kwargs", noting(hook), also=hook, train=predicted) for hook in HOOKS_OF_PREDICTIONS),
    Case("CallbackList", "callbacks", lambda room: ready(room), fit={"verbose": 2}, train=predicted),
    Case("ProgbarLogger", None, also="a bar", fit={"verbose": 1}, train=predicted),
    Case("SwapEMAWeights", None, model=AVERAGING, train=predicted),
]

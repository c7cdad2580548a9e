"""The callback: what is written when."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from engine.callbacks.tensorboard import images
from engine.callbacks.tensorboard.hyperparameters import Session, are_metrics
from engine.callbacks.tensorboard.parts import frequency, needs, parts_of
from engine.callbacks.tensorboard.profile import Profile
from engine.callbacks.tensorboard.projector import Projector
from engine.callbacks.tensorboard.scalars import Speed, batches_of, by_run, learning_rates, points_of, scalars
from engine.callbacks.tensorboard.writers import TRAIN, VALIDATION, Writers
from engine.columns import Logs
from engine.hooks import Block, Callback, SavedState


class TensorBoard(Callback):
    """Writes what TensorBoard shows. Look at it with `tensorboard --logdir LOG_DIR`.

    | tag | run | x axis |
    |---|---|---|
    | `batch_loss`, `batch_<metric>` | train | step of the run: that batch's own value |
    | `batch_loss`, `batch_<metric>` | validation | step of the run at which it was validated: the mean |
    | `batch_steps_per_second` | train | step of the run: the mean of a second or more |
    | `validation_batch_loss`, `validation_batch_<metric>` | validation | batch, counted over all validations |
    | `epoch_loss`, `epoch_<metric>` | train, validation | epoch |
    | `epoch_learning_rate`, `epoch_steps_per_second` | train | epoch |
    | `<weight>/histogram`, `<weight>/image`, `<weight>/gradient`, `<layer>/activation` | train | epoch |
    | `samples` | train | the epoch with which training began |
    | `confusion_matrix`, `pr_curve`, `pr_curve/<class>` | validation; of `samples`: train | epoch |
    | what `add_image` and `add_figure` are given | train | step of the run |

    Both runs use the same tags, so that their curves lie in one chart. Beside them are the graph of operations of one
    step, hyper-parameters, embeddings and profiles. Under `model.fit` the batch values are running means, and there
    is no graph.

    A resumed training goes on at its step, and what a killed one had written beyond its checkpoint is shown no more.
    A full disk or a folder that is gone ends the writing with a warning, and never the training.

    Args:
        log_dir: Where the runs `train` and `validation` are written, a folder each.
        histogram_freq: Epochs from one histogram of all weights to the next, the first epoch included; 0: none.
        write_graph: Whether to write the graph of one train step.
        write_images: Whether to draw the weights beside their histograms. Unlike Keras's: they are stretched from
            black to white, and a convolution is drawn with each filter.
        write_steps_per_second: Whether to write the speed. Unlike Keras's: the time of validations does not count.
        update_freq: "batch": scalars of every batch and epoch, which costs about 20 µs a batch; a number: of every
            so many batches; "epoch" (Keras's default): of epochs only.
        profile_batch: A step to profile, or the first and last of several, counted from 1 over the run; 0: none. Steps
            of a block are one call, so that whole blocks are profiled. To look at it takes TensorBoard's profile
            plugin.
        embeddings_freq: Epochs from one picture of each Embedding layer to the next; 0: none. Unlike Keras's, they
            can be read by TensorBoard's projector.
        embeddings_metadata: A file with a line for each row of the embeddings, as it is or below `log_dir`; or a
            dict, layer's name -> file.
        samples: (x, y), a small batch, for what needs data.
        write_gradients: Whether to write histograms of the compiled loss's gradients for `samples`, at each
            `histogram_freq`. The model is called as when it does not train, and nothing of it is changed.
        write_activations: Whether to write histograms of what each layer returns for `samples`, likewise.
        write_samples: Whether to show the inputs of `samples` that are pictures.
        evaluation: (x, y) to judge a classifier by; None: `samples`.
        evaluation_freq: Epochs from one judgement to the next, the first epoch included.
        write_confusion: Whether to draw the confusion matrix; it takes the extra `reports`.
        write_curves: Whether to write curves of precision and recall, of each class if there are several.
        class_names: What to call the classes; None: by their numbers.
        hparams: Hyper-parameters by name, to compare trainings by, with the epochs' values as metrics.
        strict: Whether an error in writing ends the training.

    Raises:
        ConfigError: An argument is wrong, or one that it needs is missing.

    Examples:
        >>> board = TensorBoard("runs/1", histogram_freq=1, samples=(x[:32], y[:32]), write_gradients=True)
        >>> trainer.fit(x, y, validation_split=0.1, callbacks=[board])
    """

    def __init__(
        self,
        log_dir: str | Path = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: int | Literal["batch", "epoch"] = "batch",
        profile_batch: int | tuple[int, int] | str = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: str | dict[str, str] | None = None,
        *,
        samples: tuple[Any, Any] | None = None,
        write_gradients: bool = False,
        write_activations: bool = False,
        write_samples: bool = False,
        evaluation: tuple[Any, Any] | None = None,
        evaluation_freq: int = 1,
        write_confusion: bool = False,
        write_curves: bool = False,
        class_names: Sequence[str] | None = None,
        hparams: dict[str, Any] | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__()
        self.log_dir = str(log_dir)
        self._parts = parts_of(
            histogram_freq=histogram_freq,
            write_images=write_images,
            samples=samples,
            write_gradients=write_gradients,
            write_activations=write_activations,
            evaluation=evaluation,
            evaluation_freq=evaluation_freq,
            write_confusion=write_confusion,
            write_curves=write_curves,
            class_names=class_names,
        )
        needs(samples, "samples", write_samples=write_samples)
        self._shown_inputs = images.with_pictures(samples[0]) if samples and write_samples else None
        self._writes_graph = write_graph
        self._update_freq = batches_of(update_freq)
        self._speed = Speed() if write_steps_per_second else None
        run_dir = tf.io.gfile.join(self.log_dir, TRAIN)
        self._embeddings_freq = frequency(embeddings_freq=embeddings_freq)
        needs(embeddings_freq, "embeddings_freq", embeddings_metadata=embeddings_metadata)
        self._projector = Projector(self.log_dir, run_dir, embeddings_metadata) if embeddings_freq else None
        self._profile = Profile.of(profile_batch, run_dir, is_strict=strict)
        self._writers = Writers(self.log_dir, strict)
        self._session = None if hparams is None else Session(hparams, self._writers)
        self._steps = 0  # counted here, for `model.fit`
        self._validation_batches = self._validated_batches = self._epoch = 0
        self._is_training = self._is_opening_due = self._has_failed = False
        self._plan_profile()

    def add_image(self, tag: str, image: Any, step: int | None = None) -> None:
        """Writes a picture; any callback may call it, and so may a script when the training is over.

        Args:
            tag: What it is shown as.
            image: (height, width), (height, width, channels) or (pictures, height, width, channels), with 1, 3 or 4
                channels; whole numbers from 0 to 255, or floats from 0 to 1.
            step: Where it stands; None: at the steps done so far.

        Raises:
            ConfigError: The shape is another one.

        Examples:
            >>> board.add_image("generated", images)  # float32, (16, 28, 28, 1), in [0, 1]
        """
        self._add(images.image(tag, image), step)

    def add_figure(self, tag: str, figure: Any, step: int | None = None) -> None:
        """Writes a `matplotlib.figure.Figure`, as it would be saved.

        Args:
            tag: What it is shown as.
            figure: The figure; it is left open.
            step: Where it stands; None: at the steps done so far.
        """
        self._add(images.figure(tag, figure), step)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Looks whether the model has all that shall be written."""
        for part in self._parts:
            part.check(self.model)
        if self._projector is not None:
            self._projector.check(self.model)
        self._steps = self._validation_batches = self._validated_batches = 0
        self._is_training = self._is_opening_due = True
        self._has_failed = False
        self._writers.begin()
        if self._speed is not None:
            self._speed.begin(self._step)
        if self._session is not None:
            self._session.begin()
        if self._profile is not None:
            self._profile.begin()
            self._profile.at(self._step)
            self._plan_profile()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Starts the clock."""
        self._epoch = epoch
        if self._speed is not None:
            self._speed.begin_epoch(self._step)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Writes the batch's own values; in front of the first, what is written once."""
        if self._is_opening_due:
            self._open()
        self._steps += 1
        step = self._step
        if self._update_freq and step % self._update_freq == 0:
            self._writers.write(TRAIN, step, scalars("batch_", self.step_logs or logs or {}))
            self._write_speed(step)
        self._look_at_profile(step)

    def on_train_block_end(self, block: Block) -> None:
        """Writes the values of a block of batches."""
        if self._is_opening_due:
            self._open()
        self._steps += len(block)
        points = points_of("batch_", block, block.steps, every=self._update_freq)
        self._writers.write_points(TRAIN, points)
        if points.steps:
            self._write_speed(points.steps[-1])
        self._look_at_profile(self._step)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Stops the clock."""
        if self._is_training and self._speed is not None:
            self._speed.pause()

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Writes the values of a batch of validation."""
        if self._is_training:
            self._validation_batches += 1
            if self._update_freq and self._validation_batches % self._update_freq == 0:
                values = scalars("validation_batch_", self.step_logs or logs or {})
                self._writers.write(VALIDATION, self._validation_batches, values)

    def on_test_block_end(self, block: Block) -> None:
        """Writes the values of a block of batches of validation."""
        if self._is_training:
            begin = self._validation_batches + 1
            self._validation_batches += len(block)
            steps = range(begin, begin + len(block))
            points = points_of("validation_batch_", block, steps, every=self._update_freq)
            self._writers.write_points(VALIDATION, points)

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Writes the means of a validation beside the batches of the training."""
        if self._is_training:
            if self._update_freq:
                self._writers.write(VALIDATION, self._step, scalars("batch_", logs or {}))
            if self._speed is not None:
                self._speed.go_on()
            self._validated_batches = self._validation_batches

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Writes the epoch's values, those of the validation into a run of their own."""
        values = {run: list(scalars("epoch_", own)) for run, own in by_run(logs or {}).items()}
        if self._session is not None:
            self._session.note({run: [value.tag for value in found] for run, found in values.items()})
        rates = learning_rates(getattr(self.model, "optimizer", None))
        values[TRAIN] += scalars("epoch_", {name: rate for name, rate in rates.items() if name not in (logs or {})})
        if self._speed is not None:
            values[TRAIN] += scalars("epoch_", self._speed.of_epoch(self._step))
        for part in self._parts:
            if epoch % part.every == 0:
                values[part.run] += part.values(self.model)
        for run, found in values.items():
            self._writers.write(run, epoch, found)
        if self._projector is not None and epoch % self._embeddings_freq == 0:
            with self._writers.attempt():
                self._projector.write(self.model, epoch)
        self._writers.flush()
        if self._speed is not None:
            self._speed.pause()

    def on_exception(self, error: BaseException) -> None:
        """Notes that the training has failed; a validation that it was in does not count, being begun again."""
        self._has_failed, self._validation_batches = True, self._validated_batches

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Closes the files."""
        self._is_training = False
        try:
            if self._profile is not None:
                self._profile.stop()
            if self._session is not None:
                self._session.end(has_failed=self._has_failed)
        finally:
            self._writers.close()

    def get_state(self) -> dict[str, Any]:
        """How far the axes have come; what was written until then is brought to disk."""
        self._writers.flush()
        return {
            "steps": self._step,
            "validation_batches": self._validation_batches,
            "watermark": self._writers.watermark,
            "is_opening_due": self._is_opening_due,
            "metrics": [] if self._session is None else self._session.noted,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on along the axes, and takes back what was written beyond them."""
        saved = SavedState.of(self, state)
        steps, validation_batches = saved.count("steps"), saved.count("validation_batches")
        watermark, metrics = saved.count("watermark"), saved.value("metrics", are_metrics, "a list of runs and tags")
        self._is_opening_due = saved.flag("is_opening_due")
        self._steps, self._validation_batches, self._validated_batches = steps, validation_batches, validation_batches
        self._writers.resume(watermark)
        if self._speed is not None:
            self._speed.begin(self._step)
        if self._session is not None:
            self._session.take_up(metrics)

    @property
    def _step(self) -> int:
        return self.step if self.in_trainer else self._steps

    def _write_speed(self, step: int) -> None:
        if self._speed is not None:
            self._writers.write(TRAIN, step, scalars("batch_", self._speed.of_steps(step)))

    def _look_at_profile(self, step: int) -> None:
        if self._profile is not None:
            self._profile.at(step)
            self._plan_profile()

    def _open(self) -> None:
        """Writes the graph and the samples: not when training begins, where nobody knows if that is a resumed one."""
        self._is_opening_due = False
        if self._writes_graph and self.step_graph is not None:
            graph = self.step_graph.as_graph_def().SerializeToString()
            self._writers.add(TRAIN, [Event(wall_time=time.time(), graph_def=graph)])
        if self._shown_inputs is not None:
            self._writers.write(TRAIN, self._epoch, images.sample_images(self._shown_inputs))

    def _add(self, value: Summary.Value, step: int | None) -> None:
        self._writers.write(TRAIN, self._step if step is None else step, [value])
        if not self._is_training:
            self._writers.close()

    def _plan_profile(self) -> None:
        self.acts_every = None if self._profile is None else self._profile.due()

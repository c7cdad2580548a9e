"""Distillation: a small network, the student, learns what a trained one, the teacher, answers.

```python
import keras
from engine import Trainer
from zoo import Distillation, dense_classifier

student = dense_classifier(num_classes=10)
student.compile(keras.optimizers.Adam(1e-3))
Trainer(Distillation(student, teacher)).fit(images, epochs=30)  # or fit(images, labels, epochs=30)
```

From Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network",
[arXiv 1503.02531](https://arxiv.org/abs/1503.02531). The teacher says of each image how probable every class is, and
the student learns all of it: that a 7 is a little like a 1 is knowledge too. Raised temperatures bring such small
probabilities out. No label is needed for that: images that nobody has looked at will do.

The paper softens logits, `softmax(logits / T)`. Probabilities are enough: `log(p)` is the logits but for a constant,
which a softmax does not see. So models that end in a softmax, as all do in this package, can be teacher and student.
"""

import attrs
import keras
import numpy as np
import tensorflow as tf
from attrs.validators import and_, ge, gt, le

from engine import Task, losses
from engine.task import Batch, StepValues

SMALLEST = float(np.finfo(np.float32).tiny)  # Keras's 1e-7 would cut off what a high temperature brings out


def softened(probabilities: tf.Tensor, temperature: float) -> tf.Tensor:
    """The probabilities at a temperature: `p^(1/T)`, divided by their sum.

    Args:
        probabilities: float, (batch, classes), a softmax's outputs.
        temperature: 1 leaves them as they are, more makes them more alike; greater than 0.

    Returns:
        float32, (batch, classes): what `softmax(logits / temperature)` gives.
    """
    logits = tf.math.log(tf.maximum(tf.cast(probabilities, tf.float32), SMALLEST))  # but for a constant
    return tf.nn.softmax(logits / temperature)


@attrs.define(eq=False)
class Distillation(Task):
    """The student learns the teacher's probabilities, and the labels where there are some.

    The loss is `(1 - label_weight) * T^2 * KL(teacher at T || student at T) + label_weight * cross-entropy(label)`; of
    a batch without labels, the first term alone, in full. `T^2` keeps the gradient as large as it is at T = 1.

    The teacher is asked in inference mode and never changed: its weights are not among those that the optimizer
    updates, whether they are trainable or not.

    Attributes:
        model: The student, from images to probabilities, compiled with its optimizer.
        teacher: Trained, from the same images to probabilities of the same classes.
        temperature: T, greater than 0. The paper finds 2.5 to 4 best for students much smaller than the teacher.
        label_weight: The labels' share of the loss, 0 to 1.
    """

    model: keras.Model
    teacher: keras.Model = attrs.field()
    temperature: float = attrs.field(default=2.0, validator=gt(0), kw_only=True)
    label_weight: float = attrs.field(default=0.1, validator=and_(ge(0), le(1)), kw_only=True)

    @teacher.validator
    def _check_teacher(self, _: object, teacher: keras.Model) -> None:
        if teacher is self.model:
            raise ValueError(
                "teacher is the very model that shall learn from it. Give a trained model and another one."
            )
        if not teacher.built:
            raise ValueError(
                f"teacher was given as {teacher.name!r}, which is not built and so cannot have learnt anything. "
                "Train it first, or load one that is."
            )

    def train_step(self, batch: Batch) -> StepValues:
        """One update of the student, from images, (images, labels) or (images, labels, sample_weight)."""
        with losses.Total() as total:
            values = self._compare(total, batch, training=True)
        total.minimize(self.model)
        return total.logs() | values

    def test_step(self, batch: Batch) -> StepValues:
        """The same without the update."""
        with losses.Total() as total:
            values = self._compare(total, batch, training=False)
        return total.logs() | values

    def _compare(self, total: losses.Total, batch: Batch, *, training: bool) -> StepValues:
        images, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        taught = tf.stop_gradient(self.teacher(images, training=False))  # (B, classes)
        learnt = total.call(self.model, images, training=training)  # (B, classes)
        check_classes(taught, learnt)

        hard, soft = (0.0, 1.0) if labels is None else (self.label_weight, 1.0 - self.label_weight)
        wanted, given = softened(taught, self.temperature), softened(learnt, self.temperature)
        total.compare("teacher", "kl_divergence", wanted, given, sample_weight, weight=soft * self.temperature**2)
        values = {"agreement": share(tf.argmax(learnt, axis=-1) == tf.argmax(taught, axis=-1))}
        if labels is None:
            return values
        total.compare("labels", "sparse_categorical_crossentropy", labels, learnt, sample_weight, weight=hard)
        return values | {"accuracy": share(tf.argmax(learnt, axis=-1) == tf.reshape(tf.cast(labels, tf.int64), [-1]))}


def share(is_so: tf.Tensor) -> tf.Tensor:
    """How many of the samples it is so of: bool, (batch,) -> float32, scalar."""
    return tf.reduce_mean(tf.cast(is_so, tf.float32))


def check_classes(taught: tf.Tensor, learnt: tf.Tensor) -> None:
    """Compares what two models gave for one batch, when a step is traced.

    Raises:
        ValueError: Not both are (batch, classes) with the same number of classes.
    """
    if len(taught.shape) != 2 or taught.shape[1:] != learnt.shape[1:]:
        raise ValueError(
            f"The teacher gives outputs of shape {tuple(taught.shape)} and the student of {tuple(learnt.shape)}, but "
            "both must give one probability for each of the same classes, (batch, classes)."
        )

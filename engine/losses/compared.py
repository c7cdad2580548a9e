"""One of Keras's losses between targets and outputs, and the number of things that it is the mean over.

Keras divides its losses by the number of replicas. That is the share of the whole batch only while every replica has
equally many samples, and no mask. So the division is undone here, and the count tells what the share is.

```python
loss, count = compared(keras.losses.MeanSquaredError(), y, y_pred)   # of this replica's own samples
```
"""

from typing import Any

import keras
import tensorflow as tf
from keras.src.losses.losses import LossFunctionWrapper  # what `compile` makes of a function

from engine import replicas
from engine.errors import ConfigError
from engine.losses.counts import num_valid
from engine.losses.terms import mean_of, of_samples

LossLike = Any  # a keras.losses.Loss, a function of (y_true, y_pred), or a name


def loss_of(loss: LossLike) -> keras.losses.Loss:
    """The loss object that a user means, as `model.compile` finds it.

    Raises:
        ConfigError: It is none.
    """
    try:
        found = keras.losses.get(loss)
    except ValueError as error:
        raise ConfigError(f"loss={loss!r}: Keras knows no such loss ({str(error).splitlines()[0]}).") from error
    if found is None or not callable(found):
        raise ConfigError(f"loss={loss!r}: expected a keras.losses.Loss, a function of (y_true, y_pred), or its name.")
    return found if isinstance(found, keras.losses.Loss) else LossFunctionWrapper(found)


def compared(
    loss: keras.losses.Loss, y: Any, y_pred: Any, sample_weight: Any = None
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """The loss of this replica's own samples, and what it is the mean over; None: over the samples."""
    value = of_samples(mean_of(loss(y, y_pred, sample_weight)))
    return value, num_valid(loss, y, y_pred)


def check_share(loss: Any, *, accumulate: int, is_weighted: bool = False) -> None:
    """Refuses a loss whose shares would not add up to that of the whole batch.

    Keras does not divide a sum by the replicas, and a mean over weights is each share's own.

    Raises:
        ConfigError: Several replicas, or steps that are accumulated, and a loss object with such a reduction.
    """
    number = replicas.number()
    if number == 1 and accumulate == 1:
        return
    refused = ("sum", "none", None, "mean_with_sample_weight") if is_weighted else ("sum", "none", None)
    whose = f"{number} replicas" if number > 1 else f"{accumulate} accumulated steps"
    for leaf in keras.tree.flatten(loss):
        reduction = getattr(leaf, "reduction", "mean")
        if reduction in refused:
            raise ConfigError(
                f"loss {leaf.name!r} has reduction={reduction!r}, of which the shares of the {whose} "
                "do not add up to the loss of the whole batch. Use reduction='sum_over_batch_size'."
            )

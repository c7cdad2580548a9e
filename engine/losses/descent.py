"""One update of weights from the gradients of every replica: summed, then clipped, then applied.

Keras clips each replica's own gradients and sums them afterwards. The sum of clipped gradients is another number than
the clipped sum, so that a run on two replicas would not be the run on one.

```python
norm = descend(optimizer, gradients, weights, wants_norm=True)   # of the whole batch, before clipping
```
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from engine import replicas
from engine.errors import ConfigError
from engine.optimizers import parts_of, reading_once, unscaled

Gradients = Sequence[Any]  # tf.Tensor, tf.IndexedSlices or None, one for each weight


def scale_of(optimizer: keras.optimizers.Optimizer) -> tf.Tensor | None:
    """What the optimizer wants its loss multiplied by, for float16; None: nothing."""
    has_own = type(optimizer).scale_loss is not keras.optimizers.Optimizer.scale_loss
    is_scaled = has_own or optimizer.loss_scale_factor is not None
    return tf.convert_to_tensor(optimizer.scale_loss(tf.ones(()))) if is_scaled else None


def build(optimizer: keras.optimizers.Optimizer, weights: Sequence[Any]) -> None:
    """Makes the optimizer's variables, if there are none yet; may be called inside a step.

    Raises:
        ConfigError: There are some, and not for these weights.
    """
    if optimizer.built:
        try:
            optimizer._check_variables_are_known(weights)  # Keras has no public way to ask
        except ValueError as error:
            raise ConfigError(
                f"There are weights to train that the optimizer {optimizer.name!r} was not built for. A model whose "
                "layers were unfrozen since it was compiled must be compiled again; a step that trains weights of "
                "several models by one optimizer must have it as an attribute: minimize(weights, self.optimizer)."
            ) from error
    else:

        def make(strategy: tf.distribute.Strategy) -> None:
            with tf.init_scope(), strategy.scope():
                if not optimizer.built:
                    optimizer.build(weights)

        across_replicas(make)


def across_replicas(make: Any) -> None:
    """Calls `make(strategy)` once for all replicas, from inside one of them or from outside."""
    if tf.distribute.in_cross_replica_context():
        make(tf.distribute.get_strategy())
    else:
        tf.distribute.get_replica_context().merge_call(make)


def descend(
    optimizer: keras.optimizers.Optimizer, gradients: Gradients, weights: Sequence[Any], *, wants_norm: bool
) -> tf.Tensor | None:
    """Updates the weights; called in each replica.

    Args:
        optimizer: Which updates them, as it says: clipping, decay, averages, and unscaling.
        gradients: Of this replica, scaled as the optimizer wants; over the replicas they add up to those of the whole
            batch. None where the loss does not depend on a weight.
        weights: What is updated.
        wants_norm: Whether the norm of all gradients together is returned.

    Returns:
        The norm, float32, a scalar, of the whole batch, unscaled and before clipping; None: not asked for.
    """
    number, scale = replicas.number(), scale_of(optimizer)
    needs_sum = number > 1 and (wants_norm or scale is not None or _clips(optimizer))
    if needs_sum:
        gradients = _summed(gradients)
    norm = _norm(gradients, scale) if wants_norm else None
    if needs_sum:
        # Keras sums over the replicas once more. After the division its own clipping finds nothing left to clip.
        clipped = _clipped(optimizer, gradients, scale)
        gradients = [None if gradient is None else gradient / float(number) for gradient in clipped]
    with contextlib.nullcontext() if number > 1 else reading_once(optimizer, weights):
        optimizer.apply_gradients(zip(gradients, weights, strict=True))
    return norm


def _clips(optimizer: keras.optimizers.Optimizer) -> bool:
    clipping = [
        part
        for part in parts_of(optimizer)
        if not (part.clipnorm is None and part.global_clipnorm is None and part.clipvalue is None)
    ]
    if clipping and isinstance(unscaled(optimizer), keras.optimizers.MultiOptimizer):
        raise ConfigError(
            f"A MultiOptimizer with a part that clips ({clipping[0].name!r}) cannot be used on {replicas.number()} "
            "replicas: Keras would clip each replica's own gradients before they are summed. Leave the clipping out, "
            "or write a Task that minimizes with each optimizer."
        )
    return bool(clipping)


def _summed(gradients: Gradients) -> list[Any]:
    known = [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
    sums = iter(replicas.total(known) if known else [])
    return [None if gradient is None else next(sums) for gradient in gradients]


def _norm(gradients: Gradients, scale: tf.Tensor | None) -> tf.Tensor:
    # Dense: of a sparse one the entries would count one by one where a row is there twice.
    norm = tf.linalg.global_norm([tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None])
    return norm if scale is None else norm / tf.cast(scale, norm.dtype)


def _clipped(optimizer: keras.optimizers.Optimizer, gradients: Gradients, scale: tf.Tensor | None) -> list[Any]:
    if not _clips(optimizer):
        return list(gradients)
    known = [gradient for gradient in gradients if gradient is not None]
    factors = [1.0 if scale is None else tf.cast(scale, gradient.dtype) for gradient in known]
    small = [gradient / factor for gradient, factor in zip(known, factors, strict=True)]
    clipped = unscaled(optimizer)._clip_gradients(small)  # Keras has no public way to ask for it
    results = iter([gradient * factor for gradient, factor in zip(clipped, factors, strict=True)])
    return [None if gradient is None else next(results) for gradient in gradients]

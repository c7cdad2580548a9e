"""The loss of a step: data losses and `model.losses`, right under replicas, checked before the first step.

Keras divides its losses by the number of replicas, so that summed gradients average. That is exact only
while every replica has equally many samples; `share_of_batch` weighs a ragged last batch right, and
`of_samples` multiplies back for the logs.

```python
loss = model.compute_loss(x, y, y_pred, sample_weight, training=True)
tape.gradient(share_of_batch(loss, size), weights)  # differentiate this
return {"loss": (of_samples(loss), size)}           # log this
```
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engine.errors import ConfigError, DataError

# Losses that compare targets and predictions element by element, by Keras's own names.
_ELEMENTWISE = frozenset({
    "binary_crossentropy", "binary_focal_crossentropy", "categorical_crossentropy", "categorical_focal_crossentropy",
    "categorical_generalized_cross_entropy", "categorical_hinge", "cosine_similarity", "hinge", "huber",
    "kl_divergence", "log_cosh", "mean_absolute_error", "mean_absolute_percentage_error", "mean_squared_error",
    "mean_squared_logarithmic_error", "poisson", "squared_hinge",
})  # fmt: skip
_SPARSE = "sparse_categorical_crossentropy"


def num_replicas() -> int:
    """Replicas that train in step with this one, itself counted."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def of_samples(loss: tf.Tensor) -> tf.Tensor:
    """The loss of this replica's own samples, the division by the replicas undone."""
    replicas = num_replicas()
    return loss if replicas == 1 else loss * tf.cast(replicas, loss.dtype)


def share_of_batch(loss: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """The loss whose gradients, summed over the replicas, are those of the whole batch.

    Args:
        loss: This replica's loss, a scalar, already divided by the number of replicas.
        size: Samples of this replica, int32, a scalar. Equal shares leave the loss as it is.
    """
    replicas = num_replicas()
    if replicas == 1:
        return loss
    mine = tf.cast(size, loss.dtype)
    everyone = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, mine)
    return loss * mine * tf.cast(replicas, loss.dtype) / everyone


def terms_of(
    model: keras.Model, total: tf.Tensor, outputs: Mapping[str, tf.Tensor], *, data: tf.Tensor | None = None
) -> dict[str, tf.Tensor]:
    """The parts that a loss is the sum of, each by its name; right after `compute_loss`, in the same context.

    ```text
    loss
    ├── loss/data                    what targets and outputs were compared by
    │   └── loss/data/<output>       each output's, times its weight, where there are several
    ├── loss/regularization          weight regularizers
    └── loss/<layer>                 `add_loss` and activity regularizers of that layer, or of the model itself
    ```

    Args:
        model: The model whose `compute_loss` gave the total. `model.losses` are those of its last call.
        total: The loss of this replica's own samples (see `of_samples`).
        outputs: The contribution of each output; empty for a single one.
        data: What comparing targets and outputs gave; None: the outputs', or whatever the rest leaves of the total.

    Returns:
        Scalars; those of the first level add up to the total.
    """
    regularizers = sum(weight.regularizer is not None for weight in model.trainable_weights)
    added = [_scalar(term) for term in model.losses]
    own, regularization = added[: len(added) - regularizers], added[len(added) - regularizers :]
    terms: dict[str, tf.Tensor] = {"loss/regularization": tf.add_n(regularization)} if regularization else {}
    for name, term in zip(_layers_of_losses(model), own, strict=True):
        terms[f"loss/{name}"] = terms.get(f"loss/{name}", 0.0) + term
    if data is None:
        data = tf.add_n(list(outputs.values())) if outputs else total - sum(added)
    return {"loss/data": data, **terms} | {f"loss/data/{name}": term for name, term in outputs.items()}


def data_loss(model: keras.Model, y: Any, y_pred: Any, sample_weight: Any) -> tf.Tensor:
    """What comparing targets and outputs gives under the losses that were compiled, by itself.

    The total less the rest would be inexact where the rest is large. So the comparison is written into the step
    once more, beside that of `compute_loss`, where terms are asked for.
    """
    if model.loss is None:
        return tf.zeros((), keras.config.floatx())
    return of_samples(mean_of(model._compile_loss(y, y_pred, sample_weight)))


def mean_of(loss: tf.Tensor) -> tf.Tensor:
    """The loss as a number, though its reduction may be "none"."""
    return loss if loss.shape.rank == 0 else tf.reduce_mean(loss)


def outputs_of(model: keras.Model) -> dict[str, tf.Tensor]:
    """What each output adds to the data loss where several losses were compiled: their values times their weights.

    Keras logs these losses without their weights, which are nowhere public.
    """
    compiled, found = model._compile_loss, dict[str, Any]()
    for part, tracker in zip(compiled._flat_losses, compiled.metrics, strict=True):
        value = tracker.result() if part.loss_weights is None else tracker.result() * part.loss_weights
        found[part.name] = found.get(part.name, 0.0) + value
    return found


def _layers_of_losses(model: keras.Model) -> list[str]:
    """For each term of `model.losses` that is no weight regularizer, the name of the layer that added it."""
    # Keras has no public way to ask: the order is that of its own `Layer.losses`.
    layers = [model, *model._flatten_layers(include_self=False)]
    return [layer.name for layer in layers for _ in layer._get_own_losses()]


def _scalar(term: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.reduce_sum(term), keras.config.floatx())


def check_replicable(loss: Any, *, is_weighted: bool = False) -> None:
    """Refuses a loss whose shares would not add up to that of the whole batch.

    Keras does not divide a sum by the replicas, and a mean over weights is each replica's own.

    Raises:
        ConfigError: Several replicas, and a loss object with such a reduction.
    """
    refused = ("sum", "none", None, "mean_with_sample_weight") if is_weighted else ("sum", "none", None)
    for leaf in keras.tree.flatten(loss):
        reduction = getattr(leaf, "reduction", "mean")
        if num_replicas() > 1 and reduction in refused:
            raise ConfigError(
                f"loss {leaf.name!r} has reduction={reduction!r}, of which the shares of the {num_replicas()} replicas "
                "do not add up to the loss of the whole batch. Use reduction='sum_over_batch_size'."
            )


def takes_class_numbers(loss: Any) -> bool:
    """Whether a compiled loss is Keras's sparse categorical cross-entropy."""
    return not keras.tree.is_nested(loss) and _name(loss) == _SPARSE


def warn_of_unused(loss: Any, y_pred: Any) -> None:
    """Says so where several losses are listed for a single output: Keras takes the first alone."""
    if isinstance(loss, (list, tuple)) and len(loss) > 1 and not keras.tree.is_nested(y_pred):
        warnings.warn(
            f"loss lists {len(loss)} losses, but the model has a single output, and Keras trains on the first alone. "
            "Give one loss, for example a function that adds them up.",
            stacklevel=3,
        )


def check_target_shapes(loss: Any, y: Any, y_pred: Any) -> None:
    """Refuses targets that would be broadcast against the predictions, or could not be compared with them.

    Args:
        loss: What the model was compiled with.
        y: Targets as nested specs, the batch axis first.
        y_pred: Predictions as nested specs.

    Raises:
        DataError: The shapes do not go together. Losses that are not Keras's own are left alone.
    """
    for path, _, name, target, prediction in _pairs(loss, y, y_pred):
        expected, given = tuple(prediction.shape), tuple(target.shape)
        fits = _fits_sparse(given, expected) if name == _SPARSE else _fits(given, expected)
        if not fits:
            wanted = expected[:-1] if name == _SPARSE else expected
            raise DataError(
                f"y{path} has shape {given}, but the loss {name!r} compares it with predictions of shape "
                f"{expected} and expects targets of shape {wanted}. {_advice(name, given, expected)}"
            )


def check_target_values(loss: Any, y: Any, y_pred: Any) -> None:
    """Refuses targets that are not finite, or class numbers that the model has no output for.

    Args:
        loss: What the model was compiled with.
        y: Targets as nested NumPy arrays.
        y_pred: Predictions as nested specs.

    Raises:
        DataError: Names the first sample at fault. Losses that are not Keras's own are left alone.
    """
    for path, own, name, target, prediction in _pairs(loss, y, y_pred):
        if target.dtype.kind == "f" and not np.isfinite(target).all():
            row = tuple(int(i) for i in np.argwhere(~np.isfinite(target))[0])
            raise DataError(
                f"y{path} is not finite: y{list(row)} is {target[row]}, the first of {np.sum(~np.isfinite(target))}. "
                "One such target makes every weight NaN. Remove or fill these samples."
            )
        if name != _SPARSE or prediction.shape[-1] is None:
            continue
        is_unknown = (target < 0) | (target >= prediction.shape[-1])
        is_unknown &= target != getattr(own, "ignore_class", None)
        if is_unknown.any():
            row = tuple(int(i) for i in np.argwhere(is_unknown)[0])
            raise DataError(
                f"y{path} holds the class {target[row]} at y{list(row)}, but the model has "
                f"{prediction.shape[-1]} outputs, for the classes 0 to {prediction.shape[-1] - 1}. "
                "Number the classes from 0, or give the last layer more units."
            )


def _pairs(loss: Any, y: Any, y_pred: Any) -> Iterator[tuple[str, Any, str, Any, Any]]:
    """(path, loss, its name, target, prediction) wherever one of Keras's own losses compares the two."""
    is_by_name = isinstance(y, dict) or isinstance(loss, dict)
    if y is None or (is_by_name and not isinstance(y_pred, dict)):  # only Keras knows then which is whose
        return
    targets, predictions = keras.tree.flatten_with_path(y), keras.tree.flatten(y_pred)
    losses = keras.tree.flatten(loss) if keras.tree.is_nested(loss) else [loss] * len(predictions)
    if not len(targets) == len(predictions) == len(losses):
        return
    for (path, target), prediction, leaf in zip(targets, predictions, losses, strict=True):
        name = _name(leaf)
        if name is not None and target is not None:
            yield "".join(f"[{step!r}]" for step in path), leaf, name, target, prediction


def _name(loss: Any) -> str | None:
    """Keras's name of one of its own comparing losses; None for any other."""
    if isinstance(loss, str):
        loss = None if loss in ("crossentropy", "ce") else keras.losses.get(loss)
    function = getattr(loss, "fn", loss) if getattr(keras.losses, type(loss).__name__, None) is type(loss) else loss
    name = getattr(function, "__name__", "")
    is_own = getattr(keras.losses, name, None) is function
    return name if is_own and (name in _ELEMENTWISE or name == _SPARSE) else None


def _fits(given: tuple[int | None, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether Keras compares the two element by element: equal, but for one last axis of length 1."""
    longer, shorter = sorted((given, expected), key=len, reverse=True)
    return _equal(given, expected) or (longer[-1:] == (1,) and _equal(longer[:-1], shorter))


def _fits_sparse(given: tuple[int | None, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether there is one class number a prediction, with up to two last axes of length 1, which Keras drops."""
    return any(_equal(given, (*expected[:-1], *ones)) for ones in ((), (1,), (1, 1)))


def _equal(given: tuple[int | None, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether two shapes are the same behind the batch axis, as far as they are known."""
    if len(given) != len(expected):
        return False
    return all(None in pair or pair[0] == pair[1] for pair in zip(given[1:], expected[1:], strict=True))


def _advice(name: str, given: tuple[int | None, ...], expected: tuple[int | None, ...]) -> str:
    if name == _SPARSE and given == expected:
        return "One-hot targets go with 'categorical_crossentropy'; class numbers are np.argmax(y, axis=-1)."
    if name == "categorical_crossentropy" and _fits_sparse(given, expected):
        return "Class numbers go with 'sparse_categorical_crossentropy'; one-hot is keras.utils.to_categorical(y)."
    return "Reshape the targets, or change the units of the model's last layer."

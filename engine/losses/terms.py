"""What a loss is the sum of: what targets and outputs were compared by, regularizers, and what layers add.

```python
loss = model.compute_loss(x, y, y_pred, training=True)
terms_of(model, loss, {})   # {"loss/data": ..., "loss/regularization": ..., "loss/<layer>": ...}
```
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from engine import replicas
from engine.losses.counts import num_valid
from engine.losses.shares import in_logs


def of_samples(loss: tf.Tensor) -> tf.Tensor:
    """The loss of this replica's own samples: Keras's division by the replicas undone."""
    number = replicas.number()
    return loss if number == 1 else loss * tf.cast(number, loss.dtype)


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
    layers, regularizers = added_by(model)
    terms: dict[str, tf.Tensor] = {}
    if regularizers:
        terms["loss/regularization"] = tf.add_n([term for _, term in regularizers])
    for name, term in layers:
        terms[f"loss/{name}"] = terms.get(f"loss/{name}", 0.0) + term
    rest = [term for _, term in (*layers, *regularizers)]
    if data is None:
        data = tf.add_n(list(outputs.values())) if outputs else total - sum(rest)
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


def outputs_of(model: keras.Model, counts: Sequence[tf.Tensor | None] = ()) -> dict[str, tf.Tensor]:
    """What each output adds to the data loss where several losses were compiled: their values times their weights.

    Keras logs these losses without their weights, which are nowhere public.

    Args:
        model: The model whose `compute_loss` was called just now.
        counts: What each loss is the mean over, as `counted_parts` gives it; empty: the samples.
    """
    found: dict[str, Any] = {}
    losses = model._compile_loss._flat_losses
    for part, value, count in zip(losses, outputs_in_order(model), counts or [None] * len(losses), strict=True):
        found[part.name] = found.get(part.name, 0.0) + in_logs(value, count)
    return found


def outputs_in_order(model: keras.Model) -> Iterator[tf.Tensor]:
    """The same, one for each loss that was compiled."""
    compiled = model._compile_loss
    for part, tracker in zip(compiled._flat_losses, compiled.metrics, strict=True):
        yield tracker.result() if part.loss_weights is None else tracker.result() * part.loss_weights


def counted_parts(
    model: keras.Model, y: Any, y_pred: Any, sample_weight: Any
) -> list[tuple[tf.Tensor, tf.Tensor | None]]:
    """The parts of the data loss, one for each loss that was compiled, and what each is the mean over.

    That is something else than the samples (None) for outputs with a mask, and for losses that leave a class out. Where
    there is none of these, the list is empty; otherwise all are compared once more, beside `compute_loss`, which gives
    the total alone.
    """
    compiled = model._compile_loss
    if compiled is None or not compiled._flat_losses:
        return []
    names = list(compiled.output_names or ())
    counts = [
        num_valid(part.loss, _leaf(y, part.path, names), _leaf(y_pred, part.path, names))
        for part in compiled._flat_losses
    ]
    if all(count is None for count in counts):
        return []
    if len(compiled._flat_losses) == 1:
        values = [data_loss(model, y, y_pred, sample_weight)]
    else:
        # The means that track each loss hold a tensor in this scope, through which gradients flow.
        zeros = [(v, tf.zeros(v.shape, v.dtype)) for metric in compiled.metrics for v in metric.variables]
        with keras.StatelessScope(state_mapping=zeros):
            compiled(y, y_pred, sample_weight)
            values = list(outputs_in_order(model))
    return list(zip(values, counts, strict=True))


def _leaf(structure: Any, path: tuple[Any, ...], names: list[str]) -> Any:
    """What is at a path of a structure; outputs in a list may be asked for by their names, and the other way round."""
    for step in path:
        if isinstance(structure, (list, tuple)) and isinstance(step, str):
            structure = structure[names.index(step)]
        elif isinstance(structure, dict) and step not in structure:
            structure = structure[names[step]]
        elif keras.tree.is_nested(structure):
            structure = structure[step]
    return structure


def added_by(model: keras.layers.Layer) -> tuple[list[tuple[str, tf.Tensor]], list[tuple[Any, tf.Tensor]]]:
    """What `model.losses` are just now, as scalars: those of its last call.

    Returns:
        (name of the layer, term) for each `add_loss` and activity regularizer, and (weight, term) for each weight
        regularizer.
    """
    # Keras has no public way to ask whose a term is: the order is that of its own `Layer.losses`.
    layers = [model, *model._flatten_layers(include_self=False)]
    names = [layer.name for layer in layers for _ in layer._get_own_losses()]
    weights = [weight for weight in model.trainable_weights if weight.regularizer is not None]
    terms = [_scalar(term) for term in model.losses]
    own, regularization = terms[: len(names)], terms[len(names) :]
    return list(zip(names, own, strict=True)), list(zip(weights, regularization, strict=True))


def _scalar(term: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.reduce_sum(term), keras.config.floatx())

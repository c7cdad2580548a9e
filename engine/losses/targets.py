"""The door for targets: what cannot be compared with the outputs under a loss is refused before the first step.

```python
check_target_shapes(model.loss, y_spec, y_pred)   # DataError: y has shape (None, 3), but ...
check_target_values(model.loss, y, y_pred)        # DataError: y holds the class 10 at y[12], but ...
```
"""

import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from engine.errors import DataError

# Losses that compare targets and predictions element by element, by Keras's own names.
_ELEMENTWISE = frozenset({
    "binary_crossentropy", "binary_focal_crossentropy", "categorical_crossentropy", "categorical_focal_crossentropy",
    "categorical_generalized_cross_entropy", "categorical_hinge", "cosine_similarity", "hinge", "huber",
    "kl_divergence", "log_cosh", "mean_absolute_error", "mean_absolute_percentage_error", "mean_squared_error",
    "mean_squared_logarithmic_error", "poisson", "squared_hinge",
})  # fmt: skip
_SPARSE = "sparse_categorical_crossentropy"


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
        num_classes = prediction.shape[-1]
        if name != _SPARSE or num_classes is None or not target.size:
            continue
        if target.min() >= 0 and target.max() < num_classes:  # so much faster than asking of each
            continue
        is_unknown = (target < 0) | (target >= num_classes)
        is_unknown &= target != getattr(own, "ignore_class", None)
        if is_unknown.any():
            row = tuple(int(i) for i in np.argwhere(is_unknown)[0])
            raise DataError(
                f"y{path} holds the class {target[row]} at y{list(row)}, but the model has "
                f"{num_classes} outputs, for the classes 0 to {num_classes - 1}. "
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

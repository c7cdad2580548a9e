"""Everything that a run may change, as names and texts: two runs are equal if the texts are.

```python
text_of(np.float32(0.1))              # '0.1'
text_of(np.zeros((3, 4), "float32"))  # 'float32 (3, 4) 5f70bf18a086'
text_of(object())                     # None: nothing to compare
```
"""

import hashlib
import random
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engine.columns import Logs
from engine.hooks.states import get_states
from engine.optimizers import optimizer_of
from engine.state import Generators

_SHORT = 60  # characters
_FEW = 4  # numbers of an array
_TRACKERS = "_self_"  # what TensorFlow hangs on everything that holds variables
_OF_A_RUN = frozenset({"model", "params", "in_trainer", "step", "samples", "step_logs", "not_finite"})


def looks_of_logs(own: Logs, means: Logs) -> dict[str, str]:
    """The values of a step and the running means behind it, the loss before all that goes with it."""
    looks = {f"{_called(name)} of the step": _shown(own[name]) for name in _loss_first(own)}
    return looks | {f"{_called(name)} since the epoch began": _shown(means[name]) for name in _loss_first(means)}


def looks_of_run(model: keras.Model, variables: Sequence[Any], history: Any) -> dict[str, str]:
    """Seeds, generators, weights, optimizer, metrics and history, in this order: the first make the others differ.

    Args:
        model: What is trained.
        variables: Those that the run may change beyond the model's, its optimizer's and its metrics'.
        history: Name -> the values of the epochs, or None.
    """
    labels = _labels(model, variables)
    kinds: tuple[dict[str, str], ...] = ({}, {}, {}, {})
    for order, name, variable in labels.values():
        kinds[order][_free(name, kinds[order])] = _shown(variable)
    seeds, weights, optimizer, metrics = kinds
    past = {f"the history of '{name}'": _shown(values) for name, values in (history or {}).items()}
    return seeds | _looks_of_generators() | weights | optimizer | metrics | past


def looks_of_objects(model: keras.Model, callbacks: Sequence[Any]) -> dict[str, str]:
    """What layers, metrics and callbacks hold in attributes, as far as it can be compared."""
    looks: dict[str, str] = {}
    for layer in model._flatten_layers():  # Keras has no public way into layers of layers
        looks |= _attributes(f"layer '{layer.name}'", layer, keras.layers.Layer(name="any"))
    bundled = [metric for bundle in model.metrics for metric in getattr(bundle, "metrics", [])]
    for metric in (*model.metrics, *bundled):
        looks |= _attributes(f"metric '{metric.name}'", metric, keras.metrics.Metric(name="any"))
    for number, callback in enumerate(callbacks):
        earlier = sum(type(own) is type(callback) for own in callbacks[:number])
        name = f"callback {type(callback).__name__}" + (f" ({earlier + 1})" if earlier else "")
        told = get_states([callback])
        if told:
            looks |= {f"{name}: {key}": _shown(value) for key, value in told[0]["state"].items()}
        else:
            own = getattr(callback, "__dict__", {}).items()
            looks |= _comparable(name, {key: value for key, value in own if not key.startswith("_")}, _OF_A_RUN)
    return looks


def text_of(value: Any) -> str | None:
    """A value as text, equal for equal bits; None: there is no telling, or it is a part of the program."""
    if value is None or isinstance(value, (bool, int, float, complex, str)):
        return repr(value)
    if isinstance(value, keras.random.SeedGenerator | tf.random.Generator):
        return text_of(value.state)
    if isinstance(value, random.Random):
        return _digest(repr(value.getstate()).encode())
    if isinstance(value, np.random.Generator):
        return _digest(repr(value.bit_generator.state).encode())
    if isinstance(value, np.random.RandomState):
        return _digest(repr(value.get_state()).encode())
    if isinstance(value, np.ndarray | np.generic | keras.Variable | tf.Variable | tf.Tensor):
        return _text_of_array(value)
    if isinstance(value, dict):
        return _text_of_many("{}", [part for pair in value.items() for part in pair])
    if isinstance(value, list | tuple | deque):
        return _text_of_many("[]", list(value))
    if isinstance(value, set | frozenset):
        return _text_of_many("{}", sorted(value, key=repr))
    return None


def _text_of_array(value: Any) -> str | None:
    if isinstance(value, tf.Tensor) and not hasattr(value, "numpy"):
        return None  # of a graph
    array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    if array.dtype.hasobject:
        return _text_of_many("[]", array.ravel().tolist())
    if array.size <= _FEW and len(text := repr(array.tolist())) <= _SHORT:
        return text
    return f"{array.dtype} {array.shape} {_digest(np.ascontiguousarray(array).tobytes())}"


def _text_of_many(brackets: str, values: list[Any]) -> str | None:
    texts = [text_of(value) for value in values]
    known = [text for text in texts if text is not None]
    if len(known) < len(texts):
        return None
    whole = f"{brackets[0]}{', '.join(known)}{brackets[1]}"
    return whole if len(whole) <= _SHORT else f"{len(values)} values {_digest(whole.encode())}"


def _shown(value: Any) -> str:
    return text_of(value) or "?"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _loss_first(logs: Logs) -> list[str]:
    return sorted(logs, key=lambda name: (name != "loss", name))


def _called(name: str) -> str:
    return "the loss" if name == "loss" else f"metric '{name}'"


def _free(name: str, taken: dict[str, str]) -> str:
    """The name, or one with a number where two variables are called alike."""
    return name if name not in taken else f"{name} ({sum(key.startswith(name) for key in taken) + 1})"


def _path(variable: Any) -> str:
    return str(getattr(variable, "path", variable.name))  # of a tf.Variable there is no path


def _labels(model: keras.Model, variables: Sequence[Any]) -> dict[int, tuple[int, str, Any]]:
    """Of each variable, by its id: its place in the order, its name in words, and the variable."""
    seeds = dict(_seeds(model))
    optimizer = [] if (own := optimizer_of(model)) is None else own.variables
    found: dict[int, tuple[int, str, Any]] = {}
    for variable in optimizer:
        found[id(variable)] = (2, f"optimizer variable '{_path(variable)}'", variable)
    for variable in model.metrics_variables:
        found[id(variable)] = (3, f"metric variable '{_path(variable)}'", variable)
    for variable in (*model.variables, *variables):
        if id(variable) in seeds:
            found[id(variable)] = (0, seeds[id(variable)], variable)
        else:
            found.setdefault(id(variable), (1, f"variable '{_path(variable)}'", variable))
    return found


def _seeds(model: keras.Model) -> Iterator[tuple[int, str]]:
    for layer in model._flatten_layers():
        for value in vars(layer).values():
            if isinstance(value, keras.random.SeedGenerator):
                yield id(value.state), f"{type(layer).__name__}'s seed of layer '{layer.name}'"


def _looks_of_generators() -> dict[str, str]:
    now = Generators.now()
    _, of_keras = now.keras or (None, None)
    _, of_tensorflow = now.tensorflow or (None, None)
    return {
        "the random generator of Python": _digest(repr(now.python).encode()),
        "the random generator of NumPy": _digest(repr(now.numpy).encode()),
        "the random generator of Keras": _shown(of_keras),
        "the random generator of TensorFlow": _shown(of_tensorflow),
    }


def _attributes(name: str, holder: Any, bare: Any) -> dict[str, str]:
    """What a layer or a metric holds beyond its variables, and beyond what a bare one of its kind holds."""
    tracked = {id(variable) for variable in holder.variables}
    own = {
        key: value
        for key, value in vars(holder).items()
        if id(value) not in tracked
        and id(getattr(value, "state", None)) not in tracked
        and not key.startswith(_TRACKERS)
    }
    return _comparable(name, own, vars(bare).keys())


def _comparable(name: str, own: dict[str, Any], usual: Collection[str]) -> dict[str, str]:
    seeds = keras.random.SeedGenerator | tf.random.Generator
    texts = {
        f"{name}: {f'the seed in {key}' if isinstance(value, seeds) else key}": text_of(value)
        for key, value in own.items()
        if key not in usual
    }
    return {key: text for key, text in texts.items() if text is not None}

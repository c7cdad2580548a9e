"""What a function makes of a batch, without running it: shapes and dtypes, and every variable that it needs.

```python
y_pred = Outline(run_eagerly=False).of(model, symbols(spec))  # a KerasTensor, (None, 10); the model is built now
```
"""

import re
from collections.abc import Callable
from typing import Any

import attrs
import keras
import tensorflow as tf


@attrs.frozen
class Outline:
    """Asks functions of Keras for what they would return.

    Attributes:
        run_eagerly: Whether they may do what no symbol can (print a value, call `.numpy()`); they are then
            called on one sample of zeros instead.
    """

    run_eagerly: bool

    def of(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The outputs as nested `keras.KerasTensor`, the batch axis None; variables are created on the way."""
        if not self.run_eagerly:
            return _Symbolic(function).outline(*arguments)
        zeros = [keras.tree.map_structure(_one_of_zeros, argument) for argument in arguments]
        return symbols(function(*zeros))


def symbols(structure: Any) -> Any:
    """Tensors or their specs as nested `keras.KerasTensor`, the first axis None."""
    return keras.tree.map_structure(_symbol, structure)


def why_refused(model: keras.Model, x: Any, error: ValueError) -> str:
    """What a model says of an input that it cannot take, beside the shapes that were given."""
    shapes = keras.tree.map_structure(lambda leaf: None if leaf is None else f"{leaf.dtype} {tuple(leaf.shape)}", x)
    bold = re.search(r"\x1b\[1m(.*?)\x1b\[0m", str(error), re.DOTALL)  # Keras prints the innermost reason so
    return f"The model {model.name!r} does not take x of {shapes}: {bold.group(1) if bold else error}"


class _Symbolic(keras.Operation):
    """A function as Keras's own kind of operation, which can tell the shapes of its outputs."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(name="symbolic")
        self._function = function
        self._error: Exception | None = None

    def call(self, *arguments: Any) -> Any:
        try:
            return self._function(*arguments)
        except Exception as error:
            self._error = error
            raise

    def outline(self, *arguments: Any) -> Any:
        """The outputs, or the function's own error, which Keras would wrap in words about this class."""
        try:
            return self.compute_output_spec(*arguments)
        except Exception:
            if self._error is None:
                raise
            raise self._error from None


def _symbol(tensor: Any) -> keras.KerasTensor | None:
    return None if tensor is None else keras.KerasTensor((None, *tensor.shape[1:]), tf.as_dtype(tensor.dtype).name)


def _one_of_zeros(symbol: keras.KerasTensor | None) -> Any:
    return None if symbol is None else tf.zeros([length or 1 for length in symbol.shape], symbol.dtype)

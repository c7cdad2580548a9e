"""What Keras's optimizers consist of, and where each takes its learning rate from.

```python
for part in parts_of(model.optimizer):   # of a MultiOptimizer several, otherwise one
    rate_source(part)                    # a variable, a LearningRateSchedule, or another callable
```
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

_PLAIN = (
    keras.optimizers.Adadelta,
    keras.optimizers.Adagrad,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.Adamax,
    keras.optimizers.Lamb,
    keras.optimizers.Lion,
    keras.optimizers.Nadam,
    keras.optimizers.RMSprop,
    keras.optimizers.SGD,
)


def unscaled(optimizer: Any) -> Any:
    """The optimizer itself, or the one in a `LossScaleOptimizer`."""
    is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return optimizer.inner_optimizer if is_scaled else optimizer


def optimizer_of(model: keras.layers.Layer) -> Any:
    """What a model was compiled with; None of one that was not, which has no such attribute."""
    return getattr(model, "optimizer", None)


def parts_of(optimizer: Any) -> list[keras.optimizers.Optimizer]:
    """The optimizers that update weights: those of a `MultiOptimizer`, or the one; none of None."""
    optimizer = unscaled(optimizer)
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        return list(optimizer.optimizers)
    return [] if optimizer is None else [optimizer]


def put_averages(optimizer: Any) -> None:
    """Lets an optimizer that averages weights (EMA) put the averages in their place, for good.

    Of the weights that it was built for: Keras pairs those that are trainable now with the averages, one by one, so
    that weights frozen since then would get the averages of others. Before the first update there are no averages.
    """
    for part in parts_of(optimizer):
        if part.built and not (part.use_ema and int(part.iterations.numpy()) == 0):
            part.finalize_variable_values(part._trainable_variables)


def rate_source(optimizer: keras.optimizers.Optimizer) -> Any:
    """What an optimizer takes its rate from: its public `learning_rate` only tells what that gives just now."""
    return optimizer._learning_rate


@contextlib.contextmanager
def reading_once(optimizer: Any, weights: Sequence[Any]) -> Iterator[None]:
    """Inside, an optimizer of Keras updates weights, and what it reads anew for each of them it is given, read once.

    That is how many updates there were, and its rate: TensorFlow sees then that what it computes from them is the same
    for all weights. What it assigns to variables in a way that this holds back is assigned at the end.
    """
    if not _is_plain(optimizer):
        yield
        return
    rate = rate_source(optimizer)
    read = {
        id(own): (own, tf.convert_to_tensor(own.value)) for own in (optimizer.iterations, rate) if _is_variable(own)
    }
    with keras.StatelessScope(state_mapping=list(read.values())) as scope:
        yield
    for variable in (*optimizer.variables, *weights):
        value = scope.get_current_value(variable)
        _, given = read.get(id(variable), (None, None))
        if value is not None and value is not given:
            variable.assign(value)


def _is_plain(optimizer: Any) -> bool:
    """Whether it is one of those that are known to give the same bits so, and updates at every step."""
    return type(optimizer) in _PLAIN and not optimizer.gradient_accumulation_steps


def _is_variable(value: Any) -> bool:
    return isinstance(value, keras.Variable)

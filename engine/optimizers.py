"""What Keras's optimizers consist of, and where each takes its learning rate from.

```python
for part in parts_of(model.optimizer):   # of a MultiOptimizer several, otherwise one
    rate_source(part)                    # a variable, a LearningRateSchedule, or another callable
```
"""

from typing import Any

import keras


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

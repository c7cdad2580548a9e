"""`Stepped`: a function as the train step of a model, where a class would be ceremony.

```python
def step(model, batch):
    x, y = batch
    with losses.Total() as total:
        total.compare("data", "mse", y, total.call(model, x))
    total.minimize(model)
    return total.logs()

Trainer(model, optimizer="adam", step=step).fit(x, y, epochs=3)
```
"""

from collections.abc import Callable
from typing import Any

import attrs
import keras

from engine.task import Batch, StepValues, Task

StepFunction = Callable[[keras.Model, Any], dict[str, Any]]


@attrs.define(eq=False)
class Stepped(Task):
    """A model and a function that trains it on a batch.

    Attributes:
        model: Compiled with an optimizer, if the function needs one.
        step: Called with the model and a batch, as `Task.train_step` is with a batch.
    """

    model: keras.Model
    step: StepFunction

    def train_step(self, batch: Batch) -> StepValues:
        """What the function makes of a batch."""
        return self.step(self.model, batch)

    def facts(self) -> dict[str, Any]:
        """The function's name beside the optimizers."""
        return super().facts() | {"step": getattr(self.step, "__name__", type(self.step).__name__)}

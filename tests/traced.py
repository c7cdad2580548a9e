"""A model that is trained again and again from where it began, because tracing it takes most of a short test.

```python
pytestmark = pytest.mark.shares_models


@functools.cache
def traced(in_trainer):
    return Traced(perceptron(), in_trainer=in_trainer)


traced(True).anew().fit(x, y)
```
"""

from typing import Any

import keras

from engine import Trainer
from tests.helpers import weights_of


class Traced:
    """A compiled model and what trains it, `model.fit` or a Trainer.

    Attributes:
        model: The model, its optimizer built.
        runner: What has `fit`, `evaluate` and `predict`: the model or its Trainer.
    """

    def __init__(self, model: keras.Model, *, in_trainer: bool, **arguments: Any) -> None:
        model.optimizer.build(model.trainable_variables)
        self.model, self.runner = model, Trainer(model, **arguments) if in_trainer else model
        self._start = weights_of(model)

    def anew(self) -> Any:
        """The runner, with every variable as it was in the beginning."""
        for variable, value in zip((*self.model.variables, *self.model.optimizer.variables), self._start, strict=True):
            variable.assign(value)
        return self.runner

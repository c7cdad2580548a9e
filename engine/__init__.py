"""A training engine for TensorFlow and Keras 3: `model.fit`'s interface on a compiled loop.

```python
from engine import Trainer

history = Trainer(model).fit(x_train, y_train, epochs=3, validation_data=(x_val, y_val))
```
"""

import engine.backend  # noqa: F401  first: refuses a Keras without TensorFlow before anything else is imported
from engine import callbacks, losses, replicas
from engine.cadence import Every
from engine.checkpoint import Checkpointer
from engine.errors import (
    BackendError,
    CheckpointError,
    ConfigError,
    DataError,
    EngineError,
    NonFiniteError,
    ResumeError,
    SaveError,
    StepError,
)
from engine.hooks import Callback
from engine.importing import IMPORT
from engine.proof import prove_resume
from engine.report import Report
from engine.supervised import Supervised
from engine.task import Task
from engine.trainer import Trainer

__all__ = [
    "BackendError",
    "Callback",
    "CheckpointError",
    "Checkpointer",
    "ConfigError",
    "DataError",
    "EngineError",
    "Every",
    "NonFiniteError",
    "Report",
    "ResumeError",
    "SaveError",
    "StepError",
    "Supervised",
    "Task",
    "Trainer",
    "callbacks",
    "losses",
    "prove_resume",
    "replicas",
]

IMPORT.end()

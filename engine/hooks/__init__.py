"""The hooks of callbacks: who listens, who acts, and the replay of a block of steps.

Keras's hooks and their order are the whole system:

```text
on_train_begin
└── on_epoch_begin
    ├── on_train_batch_begin ── step ── on_train_batch_end        for every batch, with its true index
    ├── on_test_begin ─ (on_test_batch_begin ─ step ─ on_test_batch_end) ─ on_test_end
    └── on_epoch_end
on_train_end                                                      once, however the training ended
```

Any object with some of these methods is a callback. One that only looks at batches is told of a block of
steps afterwards, batch by batch or, if it is ours and takes blocks (`on_train_block_end`), at once; one that acts on
them (`acts_on_batches`) gets blocks of one step.

```python
class Spikes(engine.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.step_logs["loss"] > 10 * logs["loss"]:  # this step's value beside the running mean
            print("spike at step", self.step)
```
"""

from engine.block import Block
from engine.hooks.acting import observe
from engine.hooks.callback import Callback, StepSchedule, Watch
from engine.hooks.dispatch import Hooks
from engine.hooks.given import has_bar, leaves_no_trace
from engine.hooks.reading import SavedState

__all__ = ["Block", "Callback", "Hooks", "SavedState", "StepSchedule", "Watch", "has_bar", "leaves_no_trace", "observe"]

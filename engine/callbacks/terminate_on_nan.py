"""The end of a training whose loss is no number any more."""

import numpy as np

from engine.columns import Logs
from engine.errors import NonFiniteError
from engine.hooks import Block, Callback, Watch


class TerminateOnNaN(Callback):
    """Ends the training at the very step whose loss is NaN or infinite.

    The compiled loop looks at each step's loss itself and ends its block there, so that no step is done behind it
    and blocks keep their length. Unlike Keras's, it looks at the loss of the step, not at the running mean.
    `NonFinite` does more: it looks at the weights as well, and can leave the step out.

    Args:
        raise_error: True: raise an error instead of only ending the training.

    Raises:
        NonFiniteError: In a batch hook, of `raise_error=True`.

    Examples:
        >>> trainer.fit(x, y, callbacks=[TerminateOnNaN()])
    """

    watch = Watch(halts=True)

    def __init__(self, raise_error: bool = False) -> None:
        super().__init__()
        self.raise_error = raise_error

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Looks at the loss."""
        if self.in_trainer and self.not_finite is None:
            return  # the loop has looked
        loss = (self.step_logs or logs or {}).get("loss")
        if loss is None or np.all(np.isfinite(loss)):
            return
        if self.raise_error:
            raise NonFiniteError(f"The loss of batch {batch} is {loss}, which ends the training.")
        print(f"Batch {batch}: the loss is {loss}, which ends the training.")
        self.model.stop_training = True

    def on_train_block_end(self, block: Block) -> None:
        """Looks at the loss of a block's last step: the loop ends the block at one that is not finite."""
        self.on_train_batch_end(block.batches[-1], block.last_step_logs)

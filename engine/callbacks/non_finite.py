"""What happens when a loss or a weight is NaN or infinite."""

import warnings
from itertools import chain
from typing import Any, Literal

import numpy as np

from engine.cadence import Every
from engine.columns import Logs
from engine.errors import ConfigError, NonFiniteError
from engine.hooks import Block, Callback, SavedState, Watch
from engine.state import State

Policy = Literal["raise", "skip", "rollback"]
_POLICIES = ("raise", "skip", "rollback")


class NonFinite(Callback):
    """Keeps NaN and infinity out of a training: out of its loss and out of every weight of the model.

    The compiled loop looks at each step and puts a bad one back, to the bit and in the graph: weights, optimizer,
    metrics and dropout seeds are then as they were before it. What follows is the policy:

    | policy | then |
    |---|---|
    | `"raise"` | `NonFiniteError` at that very step, with the last good weights in the model |
    | `"skip"` | training goes on with the next batch, as if this one had not been in the data |
    | `"rollback"` | the same, but from the last save point: for weights that have been going astray for a while |

    It costs a copy of the variables and a look at the weights a step. Under `model.fit`, which can do neither in its
    loop, it copies them in the batch hooks, which is slow.

    Args:
        policy: See above.
        every: For "rollback": how often a save point is kept, in memory.
        max_in_a_row: After so many bad steps, one directly behind the other, it raises whatever the policy.

    Attributes:
        steps: The bad steps, counted from 1 over the run.

    Raises:
        ConfigError: `policy` is none of the three, or `every` is given without "rollback".
        NonFiniteError: In a batch hook; it names the step, the batch and the first bad variable.

    Examples:
        >>> trainer.fit(x, y, callbacks=[NonFinite("skip")])
    """

    def __init__(self, policy: Policy = "raise", *, every: Every | None = None, max_in_a_row: int = 10) -> None:
        super().__init__()
        if policy not in _POLICIES:
            raise ConfigError(f"policy={policy!r}: expected 'raise', 'skip' or 'rollback'.")
        if every is not None and policy != "rollback":
            raise ConfigError(f"every={every!r}: save points are kept for policy='rollback' only.")
        if max_in_a_row < 1:
            raise ConfigError(f"max_in_a_row={max_in_a_row}: expected 1 or more.")
        self.watch = Watch(halts=True, undoes=True, weights=True, leaves_out=policy != "raise")
        self.policy, self.max_in_a_row = policy, max_in_a_row
        self.acts_every = every if every is not None and every.steps is not None else None
        self._every = every or Every(epochs=1)
        self.steps: list[int] = []
        self._in_a_row = self._epoch = self._steps_done = 0
        self._before: State | None = None
        self._save_point: State | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begins anew, with a save point."""
        self.steps, self._in_a_row, self._steps_done = [], 0, 0
        self.variables()  # built now, so that even the first step can be put back whole
        self._save()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Keeps a save point, if one is due."""
        self._epoch = epoch
        if self._every.epochs is not None and epoch % self._every.epochs == 0:
            self._save()

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Under `model.fit`, copies what the step may change."""
        if not self.in_trainer:
            self._before = State.of(self.variables())

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Does what the policy says behind a bad step, and keeps save points behind good ones."""
        self._steps_done = self.step or self._steps_done + 1
        loss = (self.step_logs or logs or {}).get("loss")
        fault = self.not_finite if self.in_trainer else self._look(loss)
        if fault is not None:
            self._meet(fault, batch, loss)
            return
        self._in_a_row = 0
        if self._every.steps is not None and self._steps_done % self._every.steps == 0:
            self._save()

    def on_train_block_end(self, block: Block) -> None:
        """The same behind a block's last step: the loop ends the block at a bad one, and where a save point is due."""
        if len(block) > 1:
            self._in_a_row = 0
        self.on_train_batch_end(block.batches[-1], block.last_step_logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Lets the copies go, and says how many steps were left out."""
        self._before = self._save_point = None
        if self.steps and self.policy != "raise":
            warnings.warn(
                f"{len(self.steps)} of {self._steps_done} steps were not finite and were left out: "
                f"{', '.join(map(str, self.steps[:5]))}{', ...' if len(self.steps) > 5 else ''}.",
                stacklevel=2,
            )

    def get_state(self) -> dict[str, Any]:
        """The bad steps so far, and the save point."""
        values = [] if self._save_point is None else chain.from_iterable(self._save_point.values)
        arrays = {f"save_point/{index}": array for index, array in enumerate(values)}  # never written to
        return {"steps": list(self.steps), "in_a_row": self._in_a_row, "steps_done": self._steps_done, **arrays}

    def set_state(self, state: dict[str, Any]) -> None:
        """Counts on from there; without a save point in the state, it is where the run is taken up."""
        saved = SavedState.of(self, state)
        steps, in_a_row, steps_done = saved.counts("steps"), saved.count("in_a_row"), saved.count("steps_done")
        if self._save_point is not None:  # as in every run that has begun, and is to roll back
            self._save_point = self._save_point_of(saved)
        self.steps, self._in_a_row, self._steps_done = steps, in_a_row, steps_done

    def _meet(self, fault: str, batch: int, loss: Any) -> None:
        self.steps.append(self._steps_done)
        self._in_a_row += 1
        if self._before is not None:
            self._put_back(self._before)
        if self.policy == "raise" or self._in_a_row >= self.max_in_a_row:
            raise NonFiniteError(self._message(fault, batch, loss))
        if self._save_point is not None:
            self._save_point.restore_variables()

    def _put_back(self, before: State) -> None:
        """Under `model.fit`, which makes some metrics in the very first step: these begin anew."""
        before.restore_variables()
        known = {id(variable) for variable in before.variables}
        for metric in self.model.metrics:
            if any(id(variable) not in known for variable in metric.variables):
                metric.reset_state()

    def _message(self, fault: str, batch: int, loss: Any) -> str:
        where = f"Step {self._steps_done} (epoch {self._epoch + 1}, batch {batch})"
        first = "" if fault == "loss" else f", and the first variable that is not finite is {fault}"
        row = f" With it, {self._in_a_row} such steps came in a row." if self._in_a_row > 1 else ""
        return (
            f"{where}: the loss is {loss}{first}.{row} The model holds the weights from before this step. Look at this "
            "batch, lower the learning rate, clip the gradients, or leave such steps out: NonFinite('skip')."
        )

    def _save(self) -> None:
        if self.policy == "rollback":
            self._save_point = State.of(self.variables())

    def _save_point_of(self, saved: SavedState) -> State:
        """That of a state; without one, as things are now."""
        point = State.of(self.variables())
        if saved.under("save_point"):
            arrays = iter(saved.arrays_like("save_point", list(chain.from_iterable(point.values))))
            point.values = [[next(arrays) for _ in parts] for parts in point.values]
        return point

    def _look(self, loss: Any) -> str | None:
        """What is not finite, found on the host."""
        for variable in self.model.variables:
            value = np.asarray(variable)
            if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
                return str(variable.path)
        return None if loss is None or np.isfinite(loss).all() else "loss"

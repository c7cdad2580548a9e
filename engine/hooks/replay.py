"""`Replay`: a block of steps told to the callbacks, as if each step had just been done.

```text
for each step:   on_train_batch_begin, of those who have it
                 on_train_batch_end, of those who have it
behind the last: on_train_batch_end or on_train_block_end, one callback after the other
```

In a block of one step everybody is told in the order that Keras has. Where nobody has a batch hook, no step is looked
at by itself.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import attrs

from engine.block import Block, ReplayedBatch
from engine.hooks.callback import Callback
from engine.hooks.span import note_on

if TYPE_CHECKING:  # it makes replays
    from engine.hooks.dispatch import Hooks

Listener = tuple[Any, Callable[..., Any]]


@attrs.define(eq=False)
class Replay:
    """One block, told once.

    Attributes:
        hooks: Whose hooks.
        phase: Of what.
        block: What happened.
    """

    hooks: "Hooks"
    phase: Literal["train", "test"]
    block: Block
    _done: int = attrs.field(init=False, default=0)  # steps whose hooks have all been called
    _is_ending: bool = attrs.field(init=False, default=False)  # whether a step's end is being told, but the last one's
    _untold: deque[Listener] = attrs.field(init=False, factory=deque)  # of the block

    def run(self, *, begun: bool) -> None:
        """Tells everybody; if a hook raises, those that take blocks still get the steps up to that.

        Args:
            begun: Whether `on_*_batch_begin` has been called already.
        """
        begins = [] if begun else self.hooks.who(f"on_{self.phase}_batch_begin")
        ends = self.hooks.who(f"on_{self.phase}_batch_end")
        self._untold = deque(self.hooks.who(f"on_{self.phase}_block_end"))
        try:
            last = self._tell_steps(begins, ends) if begins or ends else None
            self._tell_end(deque(ends), last)
        except BaseException as error:
            note_on(error, self._tell_rest())
            raise

    def _tell_steps(self, begins: list[Listener], ends: list[Listener]) -> ReplayedBatch:
        """Tells of all steps but the end of the last one, which it returns."""
        ours = [callback for callback, _ in (*begins, *ends) if isinstance(callback, Callback)]
        end = f"on_{self.phase}_batch_end"
        for step in self.block.replay():
            if begins:
                self.hooks.tell(f"on_{self.phase}_batch_begin", begins, step.batch, logs={})
            for callback in ours:
                self._stand(callback, step.step, step.samples, step.fault)
                callback.step_logs = step.step_logs
            if self._done < len(self.block) - 1:
                self._is_ending = True
                self.hooks.tell(end, ends, step.batch, logs=step.logs)
                self._is_ending = False
                self._done += 1
        return step

    def _tell_end(self, ends: deque[Listener], last: ReplayedBatch | None) -> None:
        for callback in self.hooks.callbacks:
            if last is not None and ends and ends[0][0] is callback:
                self.hooks.tell(f"on_{self.phase}_batch_end", [ends.popleft()], last.batch, logs=last.logs)
            elif self._untold and self._untold[0][0] is callback:
                self._tell_block(self._untold.popleft(), self.block)

    def _tell_block(self, listener: Listener, block: Block) -> None:
        self._stand(listener[0], block.steps[-1], int(block.samples[-1]), block.faults[-1] if block.faults else None)
        self.hooks.tell(f"on_{self.phase}_block_end", [listener], block)

    def _tell_rest(self) -> list[BaseException]:
        """Tells of the steps before an error, whatever the others do; returns the errors of that.

        Who stands in the list before the callback that raised it has been told of its step too, as in Keras.
        """
        errors: list[BaseException] = []
        for listener in self._untold:
            steps = self._done + (self._is_ending and self._comes_before_error(listener[0]))
            try:
                if steps:
                    self._tell_block(listener, self.block.first(steps))
            except BaseException as error:  # as in `Hooks.each`
                errors.append(error)
        return errors

    def _comes_before_error(self, callback: Callback) -> bool:
        places = {id(own): place for place, own in enumerate(self.hooks.callbacks)}
        return places[id(callback)] < places[id(self.hooks.raised_in)]

    def _stand(self, callback: Callback, step: int, samples: int, fault: str | None) -> None:
        """Says in which step of the fit a callback is called; within an evaluation, that is the last one before it."""
        if self.phase == "train":
            callback.step, callback.samples, callback.not_finite = step, samples, fault

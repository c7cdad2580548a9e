"""What a user gives as callbacks: one, a list, a nest of lists, or a `keras.callbacks.CallbackList`."""

from collections.abc import Iterator
from typing import Any

import keras

from engine.errors import ConfigError
from engine.hooks.callback import Callback

_PARTS = ("batch", "epoch", "predict", "predict_batch", "test", "test_batch", "train", "train_batch")
_BLOCK_HOOKS = ("on_test_block_end", "on_train_block_end")
HOOK_NAMES = (*(f"on_{part}_{moment}" for part in _PARTS for moment in ("begin", "end")), *_BLOCK_HOOKS)
_NAMES = ("set_model", "set_params", *HOOK_NAMES)


def as_callbacks(given: Any) -> list[Any]:
    """The callbacks in order.

    Raises:
        ConfigError: One of them has no hook at all.
    """
    callbacks = list(_flatten(given))
    for callback in callbacks:
        _refuse_hookless(callback)
    return callbacks


def has_bar(given: Any) -> bool:
    """Whether one of the callbacks is Keras's bar, beside which there shall be no other."""
    return any(isinstance(callback, keras.callbacks.ProgbarLogger) for callback in _flatten(given))


def leaves_no_trace(given: Any) -> bool:
    """Whether one of the callbacks wants the run undone at its end."""
    return any(isinstance(callback, Callback) and callback.leaves_no_trace for callback in _flatten(given))


def _flatten(callbacks: Any) -> Iterator[Any]:
    if callbacks is None:
        return
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    if isinstance(callbacks, (list, tuple)):
        for callback in callbacks:
            yield from _flatten(callback)
    else:
        yield callbacks


def _refuse_hookless(callback: Any) -> None:
    if isinstance(callback, type) or not any(callable(getattr(callback, name, None)) for name in _NAMES):
        raise ConfigError(
            f"callbacks holds {callback!r}, which would never be called: it is no object with hooks such as "
            "on_epoch_end. Give instances, for example callbacks=[EarlyStopping()]."
        )

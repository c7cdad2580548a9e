"""Which callbacks listen to batches, and which of them act on the run, so that blocks have to be one step long."""

from collections.abc import Callable
from typing import Any, TypeVar

import keras

from engine.errors import ConfigError
from engine.hooks.callback import Callback

AnyCallback = TypeVar("AnyCallback")
_SAVERS = (keras.callbacks.BackupAndRestore, keras.callbacks.ModelCheckpoint, keras.callbacks.OrbaxCheckpoint)


def observe(callback: AnyCallback) -> AnyCallback:
    """Marks a callback as one that only looks at batches, so that the loop keeps its long blocks.

    A callback from elsewhere that has a batch hook is taken to act on the run: to stop it, or to set a learning rate.
    If it only logs or draws, this gives the loop its speed back. It is then told of a block of steps when the block
    has ended, batch by batch with the values of each; what it reads from the optimizer is as of the block's end.

    Args:
        callback: Any object with hooks, that takes attributes.

    Returns:
        The callback itself.

    Raises:
        ConfigError: The object takes no attribute.

    Examples:
        >>> trainer.fit(x, y, callbacks=[observe(TqdmCallback())])
    """
    try:
        callback.acts_on_batches = False  # type: ignore[attr-defined]
    except AttributeError as error:
        raise ConfigError(
            f"observe({callback!r}): it takes no attribute. Give its class one: acts_on_batches = False."
        ) from error
    return callback


def listening(callback: Any, hook: str) -> Callable[..., Any] | None:
    """The method to call for a batch or block hook; None if the callback has none of its own, or is told by the other.

    `on_batch_begin` and `on_batch_end` are Keras's older names of the two train hooks.
    """
    if hook.endswith("_block_end") != _takes_blocks(callback, hook.split("_")[1]):
        return None
    for name in _names_of(hook):
        method = getattr(callback, name, None)
        if _is_filled(method):
            return method
    return None


def acts(callback: Any) -> bool:
    """Whether a callback that listens to batches also acts on them: unknown ones are taken to."""
    said = getattr(callback, "acts_on_batches", None)
    if said is not None:
        return bool(said)
    if not _has_hooks_of_keras_alone(callback):
        return True  # a subclass may do anything in a hook of its own
    if isinstance(callback, _SAVERS):
        return bool(callback.save_freq != "epoch")
    if isinstance(callback, keras.callbacks.TensorBoard):
        return bool(callback.update_freq != "epoch" or callback._should_trace)  # a profile is of the very steps
    return not isinstance(callback, keras.callbacks.ProgbarLogger)


def _takes_blocks(callback: Any, phase: str) -> bool:
    """Whether a callback of ours is told of a block at once, and not behind each batch.

    Of these hooks, those of the most derived class count: a subclass with a batch hook gets every batch, whatever its
    base class does with blocks.
    """
    if not isinstance(callback, Callback):
        return False
    for own in (vars(callback), *map(vars, type(callback).__mro__)):
        if _is_filled(own.get(f"on_{phase}_block_end")):
            return True
        if any(_is_filled(own.get(name)) for end in ("begin", "end") for name in _names_of(f"on_{phase}_batch_{end}")):
            return False
    return False


def _names_of(hook: str) -> tuple[str, ...]:
    return hook, hook.replace("_train", "")


def _is_filled(method: Any) -> bool:
    """Whether there is a method, and not one of the empty ones that Keras marks in its base class, as tf_keras does."""
    return method is not None and not getattr(method, "_is_default", False)


def _has_hooks_of_keras_alone(callback: Any) -> bool:
    names = (
        f"on_{phase}batch_{moment}" for phase in ("", "train_", "test_", "predict_") for moment in ("begin", "end")
    )
    methods = (getattr(callback, name, None) for name in names)
    return all(method is None or method.__module__.startswith("keras.") for method in methods)

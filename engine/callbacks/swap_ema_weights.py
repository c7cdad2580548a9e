"""Evaluates a model with the averages of its weights that the optimizer keeps."""

from typing import Any

import numpy as np

from engine.callbacks.rates import number
from engine.columns import Logs
from engine.errors import ConfigError
from engine.hooks import Callback, SavedState
from engine.optimizers import optimizer_of, parts_of


class SwapEMAWeights(Callback):
    """Puts the optimizer's averages (`use_ema=True`) in the place of the weights while the model is evaluated.

    That is validation within a fit, evaluation and prediction; the model has its own weights back afterwards.

    Unlike Keras's: also after a prediction, and after an error; to the bit, where Keras adds and subtracts, which
    rounds; with `swap_on_epoch`, a training that stops early ends with the averages too. It keeps a copy of the weights
    in the host's memory for that. An optimizer that has made no step has no averages: the weights stay.

    Args:
        swap_on_epoch: Whether the model also has the averages from the end of an epoch to the beginning of the next,
            for callbacks behind this one in the list, such as one that saves the model.

    Raises:
        ConfigError: When it begins, if no optimizer averages weights.

    Examples:
        >>> model.compile(keras.optimizers.Adam(use_ema=True), "mse")
        >>> trainer.fit(x, y, validation_split=0.1, callbacks=[SwapEMAWeights()])
    """

    def __init__(self, swap_on_epoch: bool = False) -> None:
        super().__init__()
        self.swap_on_epoch = swap_on_epoch
        self._own: list[tuple[Any, Any]] = []  # (variable, the value it shall have again)
        self._is_between_epochs = self._is_training = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Checks that there are averages to come."""
        self._give_back()  # model.fit tells nobody of an error, and may have left the averages in
        self._check()
        self._is_training = True

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Gives the weights back to train on."""
        self._give_back()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Puts the averages in, if wanted."""
        if self.swap_on_epoch:
            self._put_in()
            self._is_between_epochs = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Lets the averages stand, which the optimizer has put in for good."""
        self._own, self._is_between_epochs, self._is_training = [], False, False

    def on_exception(self, error: BaseException) -> None:
        """Gives the weights back."""
        self._give_back()

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Puts the averages in."""
        self._check()
        self._put_in()

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Gives the weights back."""
        if not self._is_between_epochs:
            self._give_back()

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Puts the averages in."""
        self.on_test_begin()

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Gives the weights back."""
        self.on_test_end()

    def get_state(self) -> dict[str, Any]:
        """The weights that wait for the next epoch, if there are any."""
        return {f"own/{index}": value for index, (_, value) in enumerate(self._own)}  # never written to

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes up these weights: the model that was saved has the averages in their place, in the end for good."""
        saved = SavedState.of(self, state)
        if state and self._is_training:
            variables = [variable for variable, _ in self._averages()]
            self._own = list(zip(variables, saved.arrays_like("own", variables), strict=True))
            self._is_between_epochs = True

    def _check(self) -> None:
        parts = parts_of(optimizer_of(self.model))
        if not any(part.use_ema for part in parts):
            names = ", ".join(type(part).__name__ for part in parts) or "no optimizer"
            raise ConfigError(
                f"SwapEMAWeights: the model was compiled with {names}, which keeps no averages of the weights. Give "
                "the optimizer use_ema=True."
            )

    def _put_in(self) -> None:
        if self._own:
            return
        averages = self._averages()
        self._own = [(variable, np.array(variable.numpy())) for variable, _ in averages]  # waits for the device
        for variable, average in averages:
            variable.assign(average)

    def _give_back(self) -> None:
        self._is_between_epochs = False
        while self._own:
            variable, value = self._own.pop()
            variable.assign(value)

    def _averages(self) -> list[tuple[Any, Any]]:
        """Each variable with its average; those of an optimizer without a step would be zeros."""
        pairs: list[tuple[Any, Any]] = []
        for part in parts_of(optimizer_of(self.model)):
            if part.use_ema and part.built and number(part.iterations) > 0:
                pairs += zip(part._trainable_variables, part._model_variables_moving_average, strict=True)
        return [(variable, average) for variable, average in pairs if average is not None]

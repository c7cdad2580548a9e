"""`Total`: the loss of a step, term by term, from the calls of models to the update of their weights.

```python
def train_step(self, batch):
    x, y = batch
    with losses.Total() as total:
        outputs = total.call(self.model, x)                       # what the call adds to model.losses counts
        total.compare("data", "mse", y, outputs)                  # a Keras loss
        total.add("smooth", tf.reduce_mean(tf.square(outputs)), weight=0.1)
    total.minimize(self.model)
    return total.logs()                                           # {"loss": ..., "loss/data": ..., "loss/smooth": ...}
```
"""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import attrs
import keras
import tensorflow as tf

from engine import replicas
from engine.errors import ConfigError, StepError
from engine.losses.compared import LossLike, check_share, compared, loss_of
from engine.losses.descent import build, descend, scale_of
from engine.losses.shares import in_logs, share_of
from engine.losses.terms import added_by
from engine.losses.updates import Step, current_step


@attrs.frozen(eq=False)
class _Term:
    """One summand.

    Attributes:
        name: In the logs, behind the total's.
        value: A mean over this replica's own samples, a scalar.
        weight: What it is multiplied by in the total.
        count: What the mean is over, a scalar; None: the samples.
    """

    name: str
    value: tf.Tensor
    weight: float | tf.Tensor
    count: tf.Tensor | None


class Total:
    """The loss of one step, and the tape that its gradients are taken from.

    Inside its `with` block every operation is recorded. Several totals may be open at once, so that one forward pass
    serves several losses, each with its own weights to train:

    ```python
    with losses.Total("critic_loss") as critic, losses.Total("generator_loss") as generator:
        ...
    critic.minimize(self.critic)
    generator.minimize(self.model)
    return critic.logs() | generator.logs()
    ```

    All values are of this replica's own samples. Never divide by the number of replicas: `minimize` knows each
    replica's share of the batch, also where a mask or a ragged last batch makes the shares unequal, and where steps
    are accumulated.

    Args:
        name: What the total is called in the logs.
        tape: Another total, open already, on whose tape this one is recorded; None: a tape of its own.

    Raises:
        StepError: A term comes from outside the `with` block, or has a name that is taken; or the total on whose tape
            this one is to be recorded is not open.
    """

    def __init__(self, name: str = "loss", *, tape: "Total | None" = None) -> None:
        self.name = name
        self._tape: tf.GradientTape = tf.GradientTape(persistent=True) if tape is None else tape._tape
        self._lender = tape
        self._is_open = False
        self._terms: list[_Term] = []
        self._given: set[str] = set()  # names that terms were given; the others are those of layers
        self._regularized: set[int] = set()
        self._norm: tf.Tensor | None = None

    def __enter__(self) -> Self:
        if self._lender is None:
            self._tape.__enter__()
        elif not self._lender._is_recorded:
            raise StepError(
                f"{self.name} is to be recorded on the tape of {self._lender.name}, which is not open. Open that "
                f"first: `with losses.Total({self._lender.name!r}) as ...:` around this one."
            )
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_open = False
        if self._lender is None:
            self._tape.__exit__(kind, error, traceback)

    def call(self, model: keras.layers.Layer, *args: Any, training: bool = True, **kwargs: Any) -> Any:
        """Calls a model, and counts what this very call adds to `model.losses`.

        `model.losses` are only those of a model's last call. A step that calls a model twice would lose the first.
        Terms of `add_loss` and activity regularizers count at each call, a weight's regularizer once, and each is
        called `<total>/<layer>`, or `<total>/regularization`.

        Args:
            model: A model or a layer.
            *args: Its inputs.
            training: Whether it is called for training; given only to a model that takes it.
            **kwargs: Its other arguments.

        Returns:
            What the model returns.
        """
        self._check_open("call")
        outputs = model(*args, training=training, **kwargs) if _takes_training(model) else model(*args, **kwargs)
        layers, regularizers = added_by(model)
        for name, value in layers:
            self._join(name, value)
        for weight, value in regularizers:
            if id(weight) not in self._regularized:  # which two models may share
                self._regularized.add(id(weight))
                self._join("regularization", value)
        return outputs

    def compare(
        self, name: str, loss: LossLike, y: Any, y_pred: Any, sample_weight: Any = None, *, weight: float = 1.0
    ) -> None:
        """Adds what a loss of Keras's kind makes of targets and outputs, masks included.

        Args:
            name: Of the term in the logs, behind the total's.
            loss: A `keras.losses.Loss`, a function of (y_true, y_pred) that gives a value for each sample, or a name.
            y: Targets.
            y_pred: Outputs.
            sample_weight: Weight of each sample.
            weight: What the term is multiplied by.

        Raises:
            ConfigError: It is no loss; or one whose shares do not add up, where there are several.
        """
        self._check_open("compare")
        own, step = loss_of(loss), current_step()
        check_share(
            own, accumulate=1 if step is None else step.updates.accumulate, is_weighted=sample_weight is not None
        )
        value, count = compared(own, y, y_pred, sample_weight)
        self._append(name, value, weight=weight, count=count)

    def add(
        self, name: str, value: tf.Tensor, *, weight: float | tf.Tensor = 1.0, count: tf.Tensor | None = None
    ) -> None:
        """Adds a term that was computed by hand.

        Args:
            name: Of the term in the logs, behind the total's.
            value: A scalar, the mean over this replica's own samples; or a value for each sample, whose mean is taken.
                Of 16 bits, it is taken to 32. No loss object of Keras, which has divided by the replicas already: that
                goes to `compare`.
            weight: What the term is multiplied by.
            count: What a scalar is the mean over, if not the samples: for example how many time steps are valid. The
                terms that share one must be given the same tensor.
        """
        value = tf.cast(value, keras.config.floatx())
        if value.shape.rank != 0:
            value = tf.reduce_mean(value)
        self._append(name, value, weight=weight, count=None if count is None else tf.cast(count, tf.float32))

    def minimize(
        self, trained: Any, optimizer: keras.optimizers.Optimizer | None = None, *, log_norm: bool = False
    ) -> None:
        """Updates weights against the gradients of the total, summed over the replicas and then clipped.

        With `Trainer(accumulate=n)` the gradients are added up, and the update comes with every n-th step.

        Args:
            trained: A model, whose trainable weights are updated; or a list of weights.
            optimizer: Which updates them; None: the one that the model was compiled with.
            log_norm: Whether the logs tell the norm of all these gradients together, before clipping, as
                `gradient_norm`, or `<total>/gradient_norm` if the total is not called "loss".

        Raises:
            ConfigError: No optimizer is given, and the model was not compiled with one.
            StepError: It is called inside the `with` block, or there is no term.
        """
        if self._is_recorded:
            raise StepError(
                f"{self.name}.minimize was called inside the `with` block, on whose tape it would be recorded. Call it "
                "behind the block."
            )
        self._check_terms("minimize")
        weights, optimizer = _trained(trained, optimizer)
        if not weights:
            return
        build(optimizer, weights)
        step, name = current_step(), self._norm_name() if log_norm else None
        if step is None or step.updates.accumulate == 1:
            self._norm = descend(optimizer, self._gradients(weights, optimizer), weights, wants_norm=log_norm)
        else:
            step.add(optimizer, weights, self._groups(weights, optimizer, step), name)

    @property
    def value(self) -> tf.Tensor:
        """The total of this replica's own samples, a scalar."""
        self._check_terms("value")
        return tf.add_n([_weighted(term) for term in self._terms])

    def logs(self) -> dict[str, Any]:
        """The total and each term, times its weight, for a step to return; and the norm, if it was asked for."""
        self._check_terms("logs")
        found: dict[str, tf.Tensor] = {}
        for term in self._terms:
            name = f"{self.name}/{term.name}"
            value = in_logs(_weighted(term), term.count)
            found[name] = found[name] + value if name in found else value
        return {self.name: tf.add_n(list(found.values()))} | found | self.norms()

    def norms(self) -> dict[str, tf.Tensor]:
        """The norm of the gradients, if it was asked for and this step has updated."""
        return {} if self._norm is None else {self._norm_name(): self._norm}

    def _check_open(self, method: str) -> None:
        if not self._is_open:
            raise StepError(
                f"{self.name}.{method} was called outside of its `with` block, where no gradient is recorded. Call it "
                f"inside `with losses.Total({self.name!r}) as ...:`."
            )

    def _check_terms(self, method: str) -> None:
        if not self._terms:
            raise StepError(f"{self.name}.{method}: there is no term. Give it one with compare, add or call.")

    @property
    def _is_recorded(self) -> bool:
        """Whether what is computed now is recorded on its tape."""
        return self._is_open if self._lender is None else self._lender._is_recorded

    def _append(self, name: str, value: tf.Tensor, *, weight: Any, count: tf.Tensor | None) -> None:
        self._check_open("add")
        if any(term.name == name for term in self._terms):
            raise StepError(f"{self.name} has a term called {name!r} already. Give each term a name of its own.")
        self._given.add(name)
        self._terms.append(_Term(name, value, weight, count))

    def _join(self, name: str, value: tf.Tensor) -> None:
        """Adds a term that may be there already, from another call."""
        if name in self._given:
            raise StepError(
                f"{self.name} has a term called {name!r}, and so is a layer called that adds to the loss. Give the "
                "term another name."
            )
        self._terms.append(_Term(name, value, 1.0, None))

    def _gradients(self, weights: Sequence[Any], optimizer: Any) -> list[Any]:
        """Of this replica's part of the whole batch's loss."""
        return self._differentiate(self._terms, weights, optimizer, [self._share(term) for term in self._terms])

    def _groups(self, weights: Sequence[Any], optimizer: Any, step: Step) -> list[tuple[list[Any], tf.Tensor]]:
        """Of the terms that are means over the same things, gradients of the mean, and how many things these are.

        The gradients are this replica's part of the whole batch's, as in `_gradients`: where a loss reaches into the
        rows of other replicas (`replicas.gathered`), a gradient must have their share, not its own.
        """
        groups: dict[int | None, list[_Term]] = {}
        for term in self._terms:
            groups.setdefault(None if term.count is None else id(term.count), []).append(term)
        counts = [step.size if terms[0].count is None else terms[0].count for terms in groups.values()]
        gradients = [
            self._differentiate(terms, weights, optimizer, [self._share(term) for term in terms])
            for terms in groups.values()
        ]
        return list(zip(gradients, counts, strict=True))

    def _differentiate(
        self, terms: Sequence[_Term], weights: Sequence[Any], optimizer: Any, shares: Sequence[tf.Tensor | None]
    ) -> list[Any]:
        """The gradients of the sum of the terms, each times its weight, its share and the scale of the optimizer."""
        scale = scale_of(optimizer)
        seeds = [_product(term.value, (term.weight, share, scale)) for term, share in zip(terms, shares, strict=True)]
        return list(self._tape.gradient([term.value for term in terms], list(weights), output_gradients=seeds))

    def _share(self, term: _Term) -> tf.Tensor | None:
        """What a mean over this replica's own is worth in the mean over all; None: all of it, there is but one."""
        if replicas.number() == 1:
            return None
        return share_of(_count_of(term))

    def _norm_name(self) -> str:
        return "gradient_norm" if self.name == "loss" else f"{self.name}/gradient_norm"


def _count_of(term: _Term) -> tf.Tensor:
    """How many things a term is the mean over; outside a Trainer, where nobody knows, equally many on each replica."""
    step = current_step()
    if term.count is not None:
        return term.count
    return tf.ones(()) if step is None else step.size


def _weighted(term: _Term) -> tf.Tensor:
    return term.value * tf.cast(term.weight, term.value.dtype)


def _product(like: tf.Tensor, factors: Iterable[Any]) -> tf.Tensor:
    """The product of what is not None, in the shape of a tensor."""
    product = tf.ones_like(like)
    for factor in factors:
        if factor is not None:
            product *= tf.cast(factor, like.dtype)
    return product


def _takes_training(model: keras.layers.Layer) -> bool:
    return bool(model._call_has_training_arg)  # Keras has no public way to ask


def _trained(trained: Any, optimizer: Any) -> tuple[list[Any], Any]:
    if not isinstance(trained, keras.layers.Layer):
        if optimizer is None:
            raise ConfigError("minimize got a list of weights and no optimizer. Give it: minimize(weights, optimizer).")
        return list({id(weight): weight for weight in trained}.values()), optimizer  # that models share, once
    own = optimizer or getattr(trained, "optimizer", None)
    if own is None:
        raise ConfigError(
            f"minimize got the model {trained.name!r}, which has no optimizer. Compile it with one, "
            f"{trained.name}.compile(keras.optimizers.Adam()), or give it: minimize(model, optimizer)."
        )
    return list(trained.trainable_weights), own

"""Metric objects: which are means, which hold state; training and evaluation apart.

A metric that is a (weighted) mean needs no variable in the compiled loop, only what its batch adds to its
total and its weight: `batch_means` asks the metric itself for these, through Keras's public
`StatelessScope`, and `RunningMeans` adds them up on the host, in float64. Every other metric (AUC, a user's
own) keeps its variables, updated in the graph as Keras would.

```python
means = RunningMeans(Columns(("accuracy", "loss"), averaged=(True, True)))
means.extend(values, weights)  # (steps, 2) each, as a block of steps brought them
means.logs()                   # {"accuracy": 0.91, "loss": 0.3}: since the epoch began
```
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from engine.columns import Columns, Logs
from engine.errors import ConfigError

NamedMetrics = dict[str, keras.metrics.Metric]


def named(metrics: Sequence[keras.metrics.Metric]) -> NamedMetrics:
    """Each metric object by its name in the logs, those that `compile` has bundled unpacked.

    The bundle alone knows what it calls its metrics (output prefixes, `_1` behind doubles), and names its
    results in the order in which it lists them.

    Raises:
        ConfigError: Two of a bundle would have one name; Keras drops one of them without a word.
    """
    found: NamedMetrics = {}
    for metric in metrics:
        bundled = getattr(metric, "metrics", None)
        found |= {metric.name: metric} if bundled is None else _unpacked(list(metric.result()), bundled)
    return found


def _unpacked(names: list[str], bundled: Sequence[keras.metrics.Metric]) -> NamedMetrics:
    if len(names) < len(bundled):  # Keras numbers doubles, and may arrive at a name that is there already
        given = ", ".join(repr(metric.name) for metric in bundled)
        raise ConfigError(f"Of the metrics {given} two would have the same name in the logs. Rename one of them.")
    return dict(zip(names, bundled, strict=True))


def is_mean(metric: keras.metrics.Metric) -> bool:
    """Whether a metric is total / count of what each batch adds, so that batches can be added up later."""
    kind = type(metric)
    updates = (keras.metrics.Mean.update_state, keras.metrics.MeanMetricWrapper.update_state)
    return (
        isinstance(metric, keras.metrics.Mean)
        and kind.update_state in updates
        and kind.result is keras.metrics.Mean.result
        and kind.reset_state is keras.metrics.Mean.reset_state
    )


def batch_means(metrics: NamedMetrics, update: Callable[[], Any]) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
    """What `update` adds to each metric that is a mean: name -> (value of the batch, its weight).

    Args:
        metrics: The metrics that `update` updates; those that are no means are updated for good.
        update: Called once, in a scope where a mean's total and count start from zero and leave no trace.
    """
    means = {name: metric for name, metric in metrics.items() if is_mean(metric)}
    zeros = [(v, tf.zeros(v.shape, v.dtype)) for metric in means.values() for v in metric.variables]
    with keras.StatelessScope(state_mapping=zeros) as scope:
        update()
    for variable in (v for name, metric in metrics.items() if name not in means for v in metric.variables):
        value = scope.get_current_value(variable)
        if value is not None:
            variable.assign(value)
    added = {name: [scope.get_current_value(v) for v in metric.variables] for name, metric in means.items()}
    return {name: (tf.math.divide_no_nan(total, count), count) for name, (total, count) in added.items()}


def results(metrics: NamedMetrics) -> dict[str, tf.Tensor]:
    """What metrics with a state of their own stand at now; a dict of results is taken apart."""
    found: dict[str, tf.Tensor] = {}
    for name, metric in metrics.items():
        result = metric.result()
        found |= result if isinstance(result, dict) else {name: result}
    return found


def in_keras_order(logs: Logs, metrics: Sequence[keras.metrics.Metric]) -> list[float] | float:
    """Keras's list: by the names that metrics have without their outputs', then the rest; one alone as it is."""
    names = [leaf.name for metric in metrics for leaf in (getattr(metric, "metrics", None) or [metric])]
    values = [logs[name] for name in (*names, *(name for name in sorted(logs) if name not in names)) if name in logs]
    return values[0] if len(values) == 1 else values


@contextmanager
def set_aside(metrics: Sequence[keras.metrics.Metric]) -> Iterator[None]:
    """Inside, the metrics may be reset and updated; afterwards they hold again what they held before."""
    variables = [variable for metric in metrics for variable in metric.variables]
    values = [variable.numpy() for variable in variables]  # waits for the device
    try:
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


@attrs.define(eq=False)
class RunningMeans:
    """The logs since an epoch began, from the values and weights of each of its steps.

    Sums are float64: Keras's float32 counters stop counting at 16,777,216 samples.

    Attributes:
        columns: What the columns mean.
    """

    columns: Columns = attrs.field(factory=Columns)
    _totals: NDArray[np.float64] = attrs.field(init=False)
    _weights: NDArray[np.float64] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begins anew."""
        width = sum(self.columns.widths)
        self._totals, self._weights = np.zeros(width), np.zeros(width)

    def facts(self) -> dict[str, Any]:
        """The sums as plain values and NumPy arrays, for a checkpoint."""
        return {"columns": attrs.asdict(self.columns), "totals": self._totals, "weights": self._weights}

    @classmethod
    def of_facts(cls, facts: dict[str, Any]) -> "RunningMeans":
        """What `facts` gave."""
        means = cls(Columns(**facts["columns"]))
        means._totals, means._weights = facts["totals"].copy(), facts["weights"].copy()
        return means

    def extend(self, values: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
        """Adds steps and returns the running value of every column after each of them.

        Args:
            values: (steps, columns), the values of each step.
            weights: (steps, columns), what each value weighs; 0 leaves it out.

        Returns:
            float64, (steps, columns).
        """
        keeps = self.columns.is_averaged
        weighted = np.where(weights == 0, 0.0, values) * weights
        # One sum from the epoch's first step on, so that no bit depends on where a block ends.
        totals = np.cumsum(np.vstack([self._totals, weighted]), axis=0)[1:]
        counts = np.cumsum(np.vstack([self._weights, weights]), axis=0)[1:]
        if len(values):
            self._totals = np.where(keeps, totals[-1], values[-1])
            self._weights = np.where(keeps, counts[-1], 1.0)
        means = np.divide(totals, counts, out=np.zeros_like(totals), where=counts != 0)
        return np.where(keeps, means, values)

    def add(self, name: str, value: float, weight: float) -> None:
        """Adds one value of one mean, apart from the steps."""
        column = sum(self.columns.widths[: self.columns.names.index(name)])
        self._totals[column] += value * weight
        self._weights[column] += weight

    def logs(self) -> Logs:
        """Name -> value since the epoch began, sorted by name as Keras sorts them."""
        means = np.divide(self._totals, self._weights, out=np.zeros_like(self._totals), where=self._weights != 0)
        (logs,) = self.columns.logs(means[None]) or [{}]
        return logs

    def publish(self, metrics: NamedMetrics) -> None:
        """Writes the means into their metric objects, for whoever reads `metric.result()` afterwards."""
        (totals,), (weights,) = (self.columns.logs(row[None]) or [{}] for row in (self._totals, self._weights))
        for name, metric in metrics.items():
            if name in totals and is_mean(metric):
                metric.total.assign(totals[name])
                metric.count.assign(weights[name])

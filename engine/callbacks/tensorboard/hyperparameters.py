"""Hyper-parameters of a training, with the values of its last epoch beside them.

A session, which is one training, is the folder that holds the runs; its metrics are scalars of the runs.
TensorBoard believes the first word it reads about a session, so that the file of an earlier one, which may have
failed and been resumed, makes room for the new one.

```python
session = Session({"learning_rate": 1e-3}, writers)
session.begin()
session.note({"train": ["epoch_loss"], "validation": ["epoch_loss"]})  # at the end of each epoch
session.end(has_failed=False)
```
"""

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import tensorflow as tf
from tensorboard.compat.proto.summary_pb2 import Summary

from engine.callbacks.tensorboard.writers import SESSION, SESSION_SUFFIX, Writers
from engine.errors import ConfigError


def _checked(hparams: Any) -> dict[str, Any]:
    from tensorboard.plugins.hparams import api  # here as below: 30 ms that only hyper-parameters need

    try:
        given = dict(hparams)
        api.hparams_pb(given)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"hparams={hparams!r}: {error}. Expected a dict from names to numbers, strings or booleans, such as "
            '{"learning_rate": 1e-3}.'
        ) from error
    return given


def are_metrics(value: Any) -> bool:
    """Whether this is what `Session.noted` gives."""
    return isinstance(value, list | tuple) and all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(own, str) for own in pair)
        for pair in value
    )


@attrs.define(eq=False)
class Session:
    """Tells TensorBoard of one training after the other.

    Attributes:
        hparams: Names -> numbers, strings or booleans.
        writers: Where it is written.

    Raises:
        ConfigError: `hparams` is something else.
    """

    hparams: dict[str, Any] = attrs.field(converter=_checked)
    writers: Writers
    _is_open: bool = attrs.field(init=False, default=False)
    _metrics: dict[tuple[str, str], None] = attrs.field(init=False, factory=dict)  # a set that keeps its order

    def begin(self) -> None:
        """A training begins."""
        from tensorboard.plugins.hparams import api

        self._is_open, self._metrics = True, {}
        with self.writers.attempt():
            earlier = tf.io.gfile.join(self.writers.log_dir, f"events.out.tfevents.*{SESSION_SUFFIX}")
            for path in tf.io.gfile.glob(earlier):
                tf.io.gfile.remove(path)
        self.writers.write(SESSION, 0, api.hparams_pb(self.hparams).value)

    def note(self, metrics: Mapping[str, Iterable[str]]) -> None:
        """Notes which scalars are metrics: run -> tags. Some epochs have more of them, being validated."""
        self._metrics |= {(run, tag): None for run, tags in metrics.items() for tag in tags}

    @property
    def noted(self) -> list[list[str]]:
        """The metrics so far: run and tag of each."""
        return [[run, tag] for run, tag in self._metrics]

    def take_up(self, noted: Iterable[Iterable[str]]) -> None:
        """Goes on behind these metrics."""
        self._metrics = dict.fromkeys((run, tag) for run, tag in noted)

    def end(self, *, has_failed: bool) -> None:
        """The training ends, if it has begun. Until then TensorBoard takes every scalar for a metric."""
        if self._is_open:
            from tensorboard.plugins.hparams import api, api_pb2
            from tensorboard.plugins.hparams import summary as sessions

            self._is_open = False
            names = [api.HParam(name) for name in self.hparams]
            metrics = [api.Metric(tag, group=run, display_name=f"{run} {tag}") for run, tag in self._metrics]
            self.writers.write(SESSION, 0, api.hparams_config_pb(names, metrics).value)
            made = sessions.session_end_pb(api_pb2.STATUS_FAILURE if has_failed else api_pb2.STATUS_SUCCESS)
            self.writers.write(SESSION, 0, Summary.FromString(made.SerializeToString()).value)

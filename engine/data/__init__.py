"""Where batches come from: one file a kind of source.

`open_source` looks at what was given to `fit`, `evaluate` or `predict` and opens the matching
`Source`. A source has an order, a length and a spec; a `Pass` is one walk over it, and a `Reader`
knows where in which pass a run stands.

```python
source = open_source(x_train, y_train, batch_size=32, shuffle=True, seed=1)
reader = Reader(source, steps_per_epoch=None)
reader.begin_epoch(0)
batch = reader.walk.pull(reader.walk.cursor(0), 0)
```
"""

from typing import Any

import tensorflow as tf

from engine.data.arrays import ArraySource
from engine.data.datasets import DatasetSource
from engine.data.source import Pass, Reader, Source, given_batch
from engine.data.splits import split_tail
from engine.data.weights import ClassWeight, weigh_arrays, weigh_dataset
from engine.errors import ConfigError, DataError

__all__ = ["ClassWeight", "Pass", "Reader", "Source", "given_batch", "open_source", "split_tail"]

DEFAULT_BATCH_SIZE = 32


def open_source(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    shuffle: bool | str = False,
    seed: int = 0,
    class_weight: ClassWeight | None = None,
) -> Source:
    """Opens what a user gave as data.

    Args:
        x: NumPy arrays (or tensors, or anything `np.asarray` takes) in any nest of lists, tuples and
            dicts, samples along the first axis; or a batched `tf.data.Dataset`.
        y: Targets, like `x`; None if `x` is a dataset.
        sample_weight: A weight for each sample, or a nest of them like `y`.
        batch_size: Samples in a batch; None: 32. A dataset brings its own batches.
        shuffle: True: each epoch in an order of its own; "batch": whole batches change places.
        seed: With the epoch, it alone decides the order.
        class_weight: Maps a class to what its samples weigh; those not named weigh 1.

    Raises:
        DataError: The data is empty, of unequal lengths or of a kind that is not known.
        ConfigError: An argument does not go with this kind of data.
    """
    if isinstance(x, (tf.data.Dataset, tf.distribute.DistributedDataset)):
        _refuse_beside_dataset(y=y, sample_weight=sample_weight, batch_size=batch_size)
        return DatasetSource(x if class_weight is None else weigh_dataset(x, class_weight))
    if x is None:
        raise DataError("x is None: give x as arrays or as a tf.data.Dataset.")
    if class_weight is not None:
        sample_weight = weigh_arrays(y, sample_weight, class_weight)
    return ArraySource.of(
        x,
        y,
        sample_weight,
        batch_size=DEFAULT_BATCH_SIZE if batch_size is None else batch_size,
        shuffle=shuffle,
        seed=seed,
    )


def _refuse_beside_dataset(**arguments: Any) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise ConfigError(
                f"{name} was given beside a dataset. A dataset yields (inputs, targets, sample_weights) "
                f"batches itself: put {name} into it, for example with dataset.map or dataset.batch."
            )

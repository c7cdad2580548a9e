"""Where batches come from: one file a kind of source.

`open_source` looks at what was given to `fit`, `evaluate` or `predict` and opens the matching
`Source`. A source has an order, a length and a spec; a `Pass` is one walk over it, and a `Reader`
knows where in which pass a run stands.

| data | source | order | length | resuming |
|---|---|---|---|---|
| arrays, tensors, pandas, files of arrays | `ArraySource` | (seed, epoch) | known | exact |
| `keras.utils.PyDataset` | `PyDatasetSource` | (seed, epoch), by batch | known, or endless | exact |
| `tf.data.Dataset`, distributed or not | `DatasetSource` | its own | known, unknown or endless | read again |
| PyTorch `DataLoader`, grain | `LoaderSource` | its own | known or unknown | the pass read again |
| generators, iterators | `IteratorSource` | its own | unknown | a new one, read from its beginning |

```python
source = open_source(x_train, y_train, batch_size=32, shuffle=True, seed=1)
reader = Reader(source, steps_per_epoch=None)
reader.begin_epoch(0)
batch = reader.walk.pull(reader.walk.cursor(0), 0)
```
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from engine.data.arrays import ArraySource
from engine.data.batches import to_batch
from engine.data.datasets import DatasetSource
from engine.data.feed import Pipelines
from engine.data.iterables import IteratorSource, LoaderSource
from engine.data.kinds import is_loader, makes_batches
from engine.data.leaves import Leaf
from engine.data.py_datasets import PyDatasetSource
from engine.data.reader import Reader
from engine.data.source import Alike, Pass, Resumption, Source, given_batch
from engine.data.splits import split_tail
from engine.data.weights import ClassWeight, weigh_arrays, weigh_batch, weigh_dataset
from engine.errors import ConfigError, DataError

__all__ = [
    "Alike",
    "ArraySource",
    "ClassWeight",
    "Pass",
    "Pipelines",
    "Reader",
    "Resumption",
    "Source",
    "given_batch",
    "makes_batches",
    "open_source",
    "split_tail",
]


def open_source(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
    shuffle: bool | str = False,
    seed: int = 0,
    class_weight: ClassWeight | None = None,
    are_class_numbers: bool = False,
    pipelines: Pipelines | None = None,
    streams: bool = False,
) -> Source:
    """Opens what a user gave as data.

    Args:
        x: Arrays in any nest of lists, tuples and dicts, samples along the first axis; or what makes
            batches itself: a `tf.data.Dataset`, a `keras.utils.PyDataset`, a generator, a PyTorch
            `DataLoader`, one of grain's datasets or its loader.
        y: Targets, like `x`; None if `x` makes batches.
        sample_weight: A weight for each sample, or a nest of them like `y`.
        batch_size: Samples in a batch; None: 32, or what makes `steps` batches of all samples.
        steps: Batches that an epoch shall have.
        shuffle: True: each epoch in an order of its own; "batch": whole batches change places.
        seed: With the epoch, it alone decides the order.
        class_weight: Maps a class to what its samples weigh; those not named weigh 1.
        are_class_numbers: Whether the loss takes class numbers, so that no axis of the targets is one-hot.
        pipelines: What batches made by Python came through before, to be used again.
        streams: Whether arrays are read batch by batch, though they are small enough to lie on the device.

    Raises:
        DataError: The data is empty, of unequal lengths or of a kind that is not known.
        ConfigError: An argument does not go with this kind of data.
    """
    if makes_batches(x):
        _refuse_beside_batches(type(x).__name__, y=y, sample_weight=sample_weight, batch_size=batch_size)
    if isinstance(x, (tf.data.Dataset, tf.distribute.DistributedDataset)):
        if class_weight is not None:
            x = weigh_dataset(x, class_weight, are_numbers=are_class_numbers)
        return DatasetSource(x)
    pipelines = Pipelines() if pipelines is None else pipelines
    finish = _finisher(class_weight, are_numbers=are_class_numbers)
    if isinstance(x, keras.utils.PyDataset):
        return PyDatasetSource(x, finish, shuffle=shuffle, seed=seed, pipelines=pipelines)
    if is_loader(x):
        return LoaderSource(x, finish, pipelines)
    if isinstance(x, Iterator):
        return IteratorSource(x, finish, pipelines)
    if x is None:
        raise DataError("x is None: give x as arrays, or as something that makes batches, such as a tf.data.Dataset.")
    if class_weight is not None:
        targets, own = (part.whole() if isinstance(part, Leaf) else part for part in (y, sample_weight))
        sample_weight = weigh_arrays(targets, own, class_weight, are_numbers=are_class_numbers)
    return ArraySource.of(
        x,
        y,
        sample_weight,
        batch_size=batch_size,
        steps=steps,
        shuffle=shuffle,
        seed=seed,
        pipelines=pipelines,
        streams=streams,
    )


def _finisher(class_weight: ClassWeight | None, *, are_numbers: bool) -> Callable[[Any], Any]:
    """What is done to each batch that Python makes: checked, made of arrays, weighted."""
    if class_weight is None:
        return to_batch
    return lambda batch: weigh_batch(to_batch(batch), class_weight, are_numbers=are_numbers)


def _refuse_beside_batches(kind: str, **arguments: Any) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise ConfigError(
                f"{name} was given beside a {kind}, which makes whole batches: (inputs, targets) or (inputs, targets, "
                f"sample_weights). Put {name} into it."
            )

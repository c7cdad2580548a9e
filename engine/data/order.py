"""The order of samples in an epoch, as a pure function of (seed, epoch).

Nothing to save and nothing to replay: a position in the data is an epoch and a batch, and any of them
is reached at once. The bits come from Philox, a counter-based generator (Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", SC 2011), whose stream NumPy promises never to change.

```python
order(seed=1, epoch=0, num_samples=5)  # the same five numbers on every machine
```
"""

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def order(seed: int, epoch: int, num_samples: int) -> Indices:
    """A permutation of `range(num_samples)`, int64, that only `seed` and `epoch` decide."""
    keys: NDArray[np.uint64] = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(num_samples)
    numbers = np.uint64((1 << (num_samples - 1).bit_length()) - 1)
    # Sorted with their numbers in their lowest bits, keys are all different: twice as fast as a stable argsort.
    keys &= ~numbers
    keys |= np.arange(num_samples, dtype=np.uint64)
    keys.sort()
    return (keys & numbers).view(np.int64)


def order_of_batches(seed: int, epoch: int, num_samples: int, batch_size: int) -> Indices:
    """Keras's `shuffle="batch"`: whole batches change places, the ragged last one stays last.

    For data that is slow to read out of order, such as HDF5.
    """
    whole = num_samples // batch_size
    starts = order(seed, epoch, whole) * batch_size
    shuffled = (starts[:, None] + np.arange(batch_size)).reshape(-1)
    return np.concatenate([shuffled, np.arange(whole * batch_size, num_samples)])

"""Arrays: resident on the device and gathered inside the compiled loop, or read batch by batch.

An epoch needs no pipeline at all, only its order (one permutation of the samples); a batch is a slice
of the order and a gather. Nothing is built, warmed up or torn down at an epoch's end. For blocks that XLA compiles they
are gathered by NumPy beside it (`chunks.py`).

Arrays that lie in files, or are too large to keep a second copy of, are read from where they are, batch
by batch, ahead of the loop.
"""

import functools
import operator
from collections.abc import Iterator
from typing import Any, ClassVar

import attrs
import keras
import numpy as np

from engine.data.array_pass import ArrayPass
from engine.data.feed import Feed, Pipelines
from engine.data.leaves import Dense, Leaf, leaf_of, map_leaves
from engine.data.order import Indices, order, order_of_batches
from engine.data.source import Pass, Resumption, Source, readable
from engine.errors import ConfigError, DataError

RESIDENT_BYTES = 1 << 30  # copying up to this much to the device is cheaper than streaming it every epoch


@attrs.define(eq=False)
class ArraySource(Source):
    """A nest of arrays with samples along the first axis.

    Attributes:
        leaves: The batch's structure, `x`, `(x, y)` or `(x, y, sample_weight)`, of `Leaf`.
        num_samples: Rows of every leaf.
        batch_size: Samples in a batch; the last of a pass may be smaller.
        shuffle: False, True or "batch".
        seed: With a pass's number, it decides the order.
        pipelines: What batches that are read one by one come through, and the memory of tensors.
        streams: Whether they are read batch by batch, though they are small enough to lie on the device.
    """

    leaves: Any
    num_samples: int
    batch_size: int
    shuffle: bool | str
    seed: int
    pipelines: Pipelines = attrs.field(factory=Pipelines)
    streams: bool = False
    resumption = Resumption.EXACT
    cure = (
        "The arrays are read from where they lie, batch by batch: shuffle='batch' reads neighbouring samples together, "
        "and arrays in memory that take up to 1 GiB together are kept on the device."
    )
    is_pure: ClassVar[bool] = True
    is_tryable = True

    @classmethod
    def of(
        cls,
        x: Any,
        y: Any,
        sample_weight: Any,
        *,
        batch_size: int | None,
        steps: int | None = None,
        shuffle: bool | str,
        seed: int,
        pipelines: Pipelines | None = None,
        streams: bool = False,
    ) -> "ArraySource":
        """Opens arrays as they come from a user, checked and cast as Keras casts them.

        Args:
            x: Inputs.
            y: Targets, or None.
            sample_weight: Weights like `y`, or one for each sample, which every output then takes; or None.
            batch_size: Samples in a batch; None: 32, or what makes a pass of `steps` batches.
            steps: Batches that an epoch shall have; None: whatever comes out.
            shuffle: False, True or "batch".
            seed: Decides the order.
            pipelines: Those of earlier sources, to be used again.
            streams: Whether they are read batch by batch, though they are small enough to lie on the device.

        Raises:
            DataError: No samples, or arrays of different lengths.
            ConfigError: `batch_size` or `shuffle` is none of those possible.
        """
        if batch_size is not None and (
            isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1
        ):
            raise ConfigError(f"batch_size={batch_size!r}: expected a whole number of samples, at least 1.")
        if shuffle not in (True, False, "batch"):
            raise ConfigError(f"shuffle={shuffle!r}: expected True, False or 'batch'.")
        named = leaves_of(x, y, sample_weight)
        num_samples = _common_length(named)
        if batch_size is None:
            batch_size = 32 if steps is None else -(-num_samples // steps)
        leaves = keras.utils.pack_x_y_sample_weight(**named)
        source = cls(leaves, num_samples, int(batch_size), shuffle, seed, pipelines or Pipelines(), streams)
        source.targets = map_leaves(lambda leaf: leaf.array if isinstance(leaf, Dense) else None, named["y"])
        return source

    @property
    def length(self) -> int:  # type: ignore[override]
        """Batches in a pass, the ragged last one counted."""
        return -(-self.num_samples // self.batch_size)

    @property
    def smallest_batch(self) -> int:  # type: ignore[override]
        """Samples in the last batch of a pass."""
        return self.num_samples % self.batch_size or self.batch_size

    @property
    def spec(self) -> Any:
        """One batch as nested `tf.TensorSpec`."""
        return map_leaves(lambda leaf: leaf.spec, self.leaves)

    @functools.cached_property
    def resident(self) -> Any:
        """The arrays as tensors on the device."""
        return map_leaves(lambda leaf: leaf.resident(self.pipelines.copies), self.leaves)

    @property
    def fits(self) -> bool:
        """Whether the arrays are in memory, and small enough to lie on the device."""
        sizes = [leaf.num_bytes for leaf in keras.tree.flatten(self.leaves) if leaf is not None]
        return None not in sizes and sum(filter(None, sizes)) <= RESIDENT_BYTES

    def open(self, index: int, position: int = 0) -> Pass:
        """The pass in the order that (seed, index) decides."""
        rows = self.order(index)
        if self.streams or not self.fits:
            return Feed(functools.partial(self._batches, rows, position), self.spec, self.pipelines).open(position)
        return ArrayPass(
            self.leaves, rows, self.batch_size, self.num_samples, lambda: self.resident, self.pipelines.spares
        )

    def facts(self) -> dict[str, Any]:
        """The arrays' number of samples and what a batch of them is."""
        return {
            "kind": "arrays",
            "num_samples": self.num_samples,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "spec": readable(self.spec),
        }

    def state(self) -> dict[str, Any]:
        """The seed, which may have been drawn."""
        return {"seed": self.seed}

    def resume(self, state: dict[str, Any]) -> None:
        """Takes the seed."""
        self.seed = state["seed"]

    def order(self, index: int) -> Indices | None:
        """The sample numbers of pass `index`, in the order of their use; None: as they stand."""
        if self.shuffle == "batch":
            return order_of_batches(self.seed, index, self.num_samples, self.batch_size)
        return order(self.seed, index, self.num_samples) if self.shuffle else None

    def _batches(self, rows: Indices | None, position: int) -> Iterator[Any]:
        """The batches from `position` on, each read when it is wanted."""
        for begin in range(position * self.batch_size, self.num_samples, self.batch_size):
            end = min(begin + self.batch_size, self.num_samples)
            chosen = np.arange(begin, end) if rows is None else rows[begin:end]
            yield map_leaves(operator.methodcaller("read", chosen), self.leaves)


def leaves_of(x: Any, y: Any, sample_weight: Any) -> dict[str, Any]:
    """What a user gave as arrays, by argument, of `Leaf`; lists become tuples, None stays None.

    Raises:
        DataError: A leaf is no array, or the weights do not go with the targets.
    """
    if y is None and sample_weight is not None:
        raise ConfigError("sample_weight was given without y: there is no loss of a sample for it to weigh. Give y.")
    named = {"x": x, "y": y, "sample_weight": _like_targets(sample_weight, y)}
    return {
        name: keras.tree.lists_to_tuples(map_leaves(functools.partial(leaf_of, name), value))
        for name, value in named.items()
    }


def _like_targets(sample_weight: Any, y: Any) -> Any:
    """The weights in the structure of the targets: one array of them counts for every output."""
    if sample_weight is None or not keras.tree.is_nested(y):
        return sample_weight
    if not keras.tree.is_nested(sample_weight):
        shape = tuple(sample_weight.shape)
        if len(shape) > 1 and shape[1:] != (1,):
            raise DataError(
                f"sample_weight has shape {shape}, but y has several outputs: one array of weights holds one number a "
                "sample. For other weights give one array for each output, in the structure of y."
            )
        return keras.tree.map_structure(lambda _: sample_weight, y)
    shown = [keras.tree.lists_to_tuples(keras.tree.map_structure(lambda _: "*", part)) for part in (y, sample_weight)]
    if shown[0] != shown[1]:
        raise DataError(
            f"sample_weight has the structure {shown[1]}, but y has {shown[0]}. Give one array for each output (None "
            "for one without weights), or one array for all."
        )
    return sample_weight


def _common_length(named: dict[str, Any]) -> int:
    lengths = {
        f"{name}{list(path) if path else ''}": leaf.num_rows
        for name, value in named.items()
        for path, leaf in keras.tree.flatten_with_path(value)
        if isinstance(leaf, Leaf)
    }
    if not lengths:
        raise DataError("x holds no array: every leaf is None.")
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise DataError(f"The arrays have different numbers of samples ({listed}). Give as many of each.")
    num_samples = next(iter(lengths.values()))
    if num_samples == 0:
        raise DataError("The data is empty: the arrays have 0 samples. Give at least one.")
    return num_samples

"""`tf.data.Dataset`: read as it is, with its position counted.

A run that is resumed reads again what was read before. Of the passes before the one that it stood in it
reads only what that one depends on: nothing where each pass is the same; no batch where shuffles alone
differ from pass to pass; all of it otherwise.
"""

from typing import Any

import attrs
import keras
import tensorflow as tf

from engine.data.letting_go import empty_later
from engine.data.pipelines import Earlier, caveats, earlier_passes
from engine.data.skipping import skip
from engine.data.source import Pass, Pull, Source, readable
from engine.errors import DataError

_UNSEEN = "It is distributed, and cannot be looked into: see that its shuffles have seeds."


class DatasetSource(Source):
    """A batched dataset of known, unknown or endless length.

    Under several replicas each global batch is dealt to them, unless the dataset is distributed already.
    """

    cure = (
        "End the dataset in .prefetch(tf.data.AUTOTUNE), give its map() num_parallel_calls=tf.data.AUTOTUNE, and put "
        ".cache() behind what is the same in every epoch; or give arrays, which the loop reads itself."
    )

    def __init__(self, dataset: tf.data.Dataset | tf.distribute.DistributedDataset) -> None:
        self._is_distributed = isinstance(dataset, tf.distribute.DistributedDataset)
        self._dataset = dataset
        self._num_opened = 0
        cardinality = _cardinality(dataset)
        if cardinality == 0:
            raise DataError("The dataset is empty: its cardinality is 0. Give one with at least one batch.")
        self.is_endless = cardinality == tf.data.INFINITE_CARDINALITY
        self.length = cardinality if cardinality > 0 else None
        self.spec = keras.tree.map_structure(_none_or_spec, dataset.element_spec)
        if self._is_distributed:  # what one replica gets of a batch
            self.spec = keras.tree.map_structure(
                lambda leaf: None if leaf is None else tf.nest.flatten(leaf, True)[0], self.spec
            )
        if not self._is_distributed:
            _refuse_unbatched(self.spec)

    @property
    def caveat(self) -> str | None:  # type: ignore[override]
        """What in the dataset might not come again as it came."""
        found = [_UNSEEN] if self._is_distributed else caveats(self._dataset)
        return f"The tf.data.Dataset may not give a resumed run the same batches. {' '.join(found)}" if found else None

    @property
    def is_tryable(self) -> bool:  # type: ignore[override]
        """Whether each pass is the same."""
        return self._earlier() is Earlier.IGNORED

    def open(self, index: int, position: int = 0) -> Pass:
        """A new iterator; the dataset itself decides what differs from pass to pass."""
        return self._open().skip(position)

    def facts(self) -> dict[str, Any]:
        """What the dataset's batches are."""
        return {"kind": "tf.data.Dataset", "length": self.length, "spec": readable(self.spec)}

    def state(self) -> dict[str, Any]:
        """How many passes there were."""
        return {"passes": self._num_opened}

    def resume(self, state: dict[str, Any]) -> None:
        """Opens as many passes, if that makes a difference, without reading them."""
        while self._earlier() is not Earlier.IGNORED and self._num_opened < state["passes"]:
            self._open()

    def reopen(self, walk: Pass, index: int, position: int, state: dict[str, Any]) -> Pass:
        """The pass with the same number, behind as many batches, after the same passes."""
        assert isinstance(walk, DatasetPass)
        earlier = self._earlier()
        is_read = earlier is Earlier.READ
        while earlier is not Earlier.IGNORED and walk.number < state["pass"]:
            if is_read:
                walk.skip(self.length)
            walk = self._open()
        if state["is_exhausted"]:
            return walk.skip(self.length if is_read else 0)
        return walk.skip(position)

    def _open(self) -> "DatasetPass":
        self._num_opened += 1
        if self._is_distributed:
            return DatasetPass([iter(self._dataset)], self._num_opened)
        return DatasetPass.over(self._dataset, self._num_opened)

    def _earlier(self) -> Earlier:
        has_replicas = tf.distribute.get_strategy().num_replicas_in_sync > 1
        return Earlier.READ if self._is_distributed or has_replicas else earlier_passes(self._dataset)


@attrs.define(eq=False)
class DatasetPass(Pass):
    """One iterator of a dataset. It only moves forward, so that `position` is not looked at.

    Attributes:
        number: How many passes over the dataset were opened, this one included.
    """

    _owned: list[Any]  # the iterator, which nobody else keeps: dropping it may take seconds
    number: int = 1
    _is_ahead: bool = attrs.field(init=False, default=False)
    _held: Any = attrs.field(init=False, default=None)  # an Optional: the next batch, read before it is wanted

    def __attrs_post_init__(self) -> None:
        empty_later(self, self._owned)

    @classmethod
    def over(cls, dataset: Any, number: int = 1) -> "DatasetPass":
        """A pass over a dataset from its beginning, each batch dealt to the replicas where there are several."""
        strategy = tf.distribute.get_strategy()
        if strategy.num_replicas_in_sync > 1:
            dataset = strategy.experimental_distribute_dataset(dataset)
        return cls([iter(dataset)], number)

    @property
    def iterator(self) -> Any:
        """Gives the batches."""
        return self._owned[0]

    @property
    def pull(self) -> Pull:  # type: ignore[override]
        """Gives the next batch, if there is one."""
        return pull_held if self._is_ahead else pull_next

    def cursor(self, position: int) -> Any:
        """The iterator; where it was looked ahead, with the batch that comes before what it gives."""
        if not self._is_ahead:
            return self.iterator
        held, self._held = self._held, None
        return self.iterator, tf.experimental.Optional.empty(self.iterator.element_spec) if held is None else held

    def signature(self) -> Any:
        """The iterator, which is its own spec; with that of a batch that may be there."""
        if not self._is_ahead:
            return self.iterator
        return self.iterator, tf.OptionalSpec(self.iterator.element_spec)

    def take(self, position: int) -> Any:
        """The next batch, or None at the end of the data."""
        following = self._following()
        self._held = None
        return following.get_value() if bool(following.has_value()) else None  # waits for the pipeline

    def ahead(self) -> Pass:
        """This pass; what is dealt to replicas by TensorFlow cannot be held back, so that nobody looks ahead there."""
        self._is_ahead = isinstance(self.iterator, tf.data.Iterator)
        return self

    def peek(self, position: int) -> Any:
        """The next batch, which the loop, or `take`, is given all the same."""
        if not self._is_ahead:
            return None
        self._held = self._following()
        return self._held.get_value() if bool(self._held.has_value()) else None  # waits for the pipeline

    def state(self) -> dict[str, Any]:
        """Its number."""
        return {"pass": self.number}

    def skip(self, count: int | None) -> "DatasetPass":
        """This pass, `count` batches further on; None: at its end."""
        skip(self.iterator, count)
        return self

    def _following(self) -> Any:
        return self.iterator.get_next_as_optional() if self._held is None else self._held


def pull_next(cursor: Any, index: tf.Tensor) -> tf.experimental.Optional:
    """The next batch of an iterator, if there is one."""
    return cursor.get_next_as_optional()


def pull_held(cursor: Any, index: tf.Tensor) -> tf.experimental.Optional:
    """The batch that was read before it was wanted, as the first of a block; otherwise the iterator's next."""
    iterator, held = cursor
    is_held = tf.equal(index, 0) & held.has_value()
    return tf.cond(is_held, lambda: held, iterator.get_next_as_optional)


def _none_or_spec(spec: Any) -> Any:
    """The spec of a leaf; None for that of a None."""
    return None if isinstance(spec, tf.NoneTensorSpec) else spec


def _cardinality(dataset: Any) -> int:
    """Batches in a pass, or one of `tf.data`'s two negative numbers."""
    if isinstance(dataset, tf.data.Dataset):
        return int(dataset.cardinality())
    # The other kind, made from a function for each worker, counts the batches of replicas: several make a step.
    is_of_global_batches = type(dataset).__name__ == "DistributedDataset"
    return int(dataset.cardinality) if is_of_global_batches else int(tf.data.UNKNOWN_CARDINALITY)


def without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset with autotuning off: dropping an iterator then never waits for the tuner to wake."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _refuse_unbatched(spec: Any) -> None:
    for leaf in keras.tree.flatten(spec):
        if isinstance(leaf, tf.TensorSpec) and leaf.shape.rank == 0:
            raise DataError(
                f"The dataset yields single values of shape () and dtype {leaf.dtype.name}, where batches were "
                "expected. Batch it: dataset.batch(32)."
            )

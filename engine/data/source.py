"""What every kind of data has in common: a source, and a pass over it."""

import abc
import enum
from collections.abc import Callable
from typing import Any, ClassVar

import attrs
import keras
import tensorflow as tf

Pull = Callable[[Any, tf.Tensor], Any]


class Resumption(enum.Enum):
    """What a source can promise of `open(index, position)`."""

    EXACT = "the position is reached at once, and what follows is what would have followed"
    REPEATED = "what was used is read again and dropped; exact if the data comes in the same order again"
    NONE = "the data can be read only once"


@attrs.frozen(eq=False)
class Alike:
    """Batches that follow one another and are all of one size, which the graph knows, so that XLA can compile them.

    Attributes:
        pull: As of a `Pass`; never fails to give a batch.
        cursor: What it reads from, standing at the first of them.
        signature: What any such cursor is, as specs that fit data of any length.
        steps: How many there are.
    """

    pull: Pull
    cursor: Any
    signature: Any
    steps: int


class Pass(abc.ABC):
    """One walk over a source, from a batch of it to its last.

    The compiled loop calls `pull(cursor, index)` in the graph, `index` counting from the start of the
    block. `pull` is one function a kind of source, whatever the data, so that nothing is traced twice.
    It returns a batch, or a `tf.experimental.Optional` of one where only asking tells.

    Attributes:
        pull: See above.
        is_certain: Whether there is a batch wherever there should be one, so that nobody need look before a step.
        error: What a user's own code raised, if that is why the pass has ended.
    """

    pull: Pull
    is_certain: ClassVar[bool] = False
    error: BaseException | None = None

    @abc.abstractmethod
    def cursor(self, position: int) -> Any:
        """What `pull` reads from, standing at batch `position` of the pass."""

    @abc.abstractmethod
    def signature(self) -> Any:
        """What `cursor` returns, as specs that fit data of any length."""

    @abc.abstractmethod
    def take(self, position: int) -> Any:
        """The batch at `position` itself, or None where the data has ended."""

    def alike(self, position: int) -> Alike | None:
        """The batches from `position` on that are known to be alike; None: it is not known, or there is none."""
        return None

    def raise_error(self) -> None:
        """Raises `error`, if there is one."""
        if self.error is not None:
            raise self.error

    def ahead(self) -> "Pass":
        """This pass, or another in its place, that can `peek` from now on; called before its first batch is used."""
        return self

    def peek(self, position: int) -> Any:
        """The batch at `position`, not used up; None where the data has ended, or cannot be looked into ahead.

        Only a pass that `ahead` gave can.
        """
        return None

    def state(self) -> dict[str, Any]:
        """What `Source.reopen` needs to come here again, beside the position: JSON, and NumPy arrays by name."""
        return {}


class Source(abc.ABC):
    """Data that can be walked over again and again.

    Attributes:
        length: Batches in a pass; None: unknown until a pass has ended.
        is_endless: Whether a pass never ends.
        spec: One batch as nested `tf.TensorSpec`, the batch axis None.
        targets: The targets, or those of the first batch, as NumPy arrays where they are at hand, otherwise None.
        smallest_batch: Samples in the smallest batch of a pass, where that is known.
        resumption: What opening it at a later batch can promise.
        is_pure: Whether a pass is what its number says, no matter when it is opened and what happens before.
        is_tryable: Whether some of it may be read and all that is read later is as it would have been.
        caveat: What of a run that is resumed may differ from one that never stopped, and the cure; None: nothing.
        cure: How a user makes its batches come faster, in sentences.
    """

    length: int | None
    is_endless: bool = False
    spec: Any
    targets: Any = None
    smallest_batch: int | None = None
    resumption: Resumption = Resumption.REPEATED
    is_pure: ClassVar[bool] = False
    is_tryable: bool = False
    caveat: str | None = None
    cure: ClassVar[str]

    @abc.abstractmethod
    def open(self, index: int, position: int = 0) -> Pass:
        """The pass number `index`, standing before batch `position`.

        A source with an order of its own for each pass decides it by the number.
        """

    @abc.abstractmethod
    def facts(self) -> dict[str, Any]:
        """What has to be the same where a run is resumed: JSON that a person can read."""

    def state(self) -> dict[str, Any]:
        """What passes that are opened from now on depend on, JSON."""
        return {}

    def resume(self, state: dict[str, Any]) -> None:
        """Makes later passes what they would have been in the source that `state` is of."""

    def reopen(self, walk: Pass, index: int, position: int, state: dict[str, Any]) -> Pass:
        """The pass number `index` as a reader of another process had it open, standing before batch `position`.

        Args:
            walk: The pass that was opened last here, of which no batch has been used.
            index: The number of the pass.
            position: Batches of it that were used.
            state: That reader's.
        """
        self.resume(state["source"])
        return self.open(index, position)

    def begin_epoch(self) -> None:
        """Called before the first batch of an epoch is asked for."""

    def end_epoch(self) -> None:
        """Called after the last batch of an epoch was used."""


def given_batch(batch: Any, index: tf.Tensor) -> Any:
    """A `pull` that reads from nothing but the batch in hand."""
    return batch


def readable(spec: Any) -> dict[str, str]:
    """A spec for people, and for JSON: where in a batch each part is, and what it is.

    Examples:
        >>> readable((tf.TensorSpec((None, 4), tf.float32), tf.TensorSpec((None,), tf.int64)))
        {'0': 'float32 (None, 4)', '1': 'int64 (None,)'}
    """
    return {"/".join(map(str, path)): _shown(leaf) for path, leaf in keras.tree.flatten_with_path(spec)}


def _shown(leaf: Any) -> str:
    if leaf is None:
        return "None"
    kind = {tf.RaggedTensorSpec: "ragged ", tf.SparseTensorSpec: "sparse "}.get(type(leaf), "")
    return f"{kind}{leaf.dtype.name} {tuple(leaf.shape)}"

"""Callbacks that take a block of steps at once, beside those that are told of each batch."""

import keras
import numpy as np
import pytest

from engine import Callback, Trainer
from tests.helpers import perceptron, samples

pytestmark = pytest.mark.shares_models

X, Y = samples(76, shape=(4,))  # ten batches of at most 8
FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}


@pytest.fixture(scope="module")
def trainer():
    """One for all: traced once, so that a fit takes milliseconds."""
    return Trainer(perceptron(), steps_per_execution=4)


class Batches(Callback):
    """Keeps what the batch hooks are told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def on_train_batch_end(self, batch, logs=None):
        self.told.append(("train", batch, self.step, self.samples, logs, self.step_logs))

    def on_test_batch_end(self, batch, logs=None):
        self.told.append(("test", batch, self.step, self.samples, logs, self.step_logs))


class Blocks(Batches):
    """Keeps what the block hooks are told, as if it had been told of batches; those hooks are there for `model.fit`."""

    def __init__(self):
        super().__init__()
        self.lengths = []

    def on_train_block_end(self, block):
        assert (block.steps[-1], block.samples[-1]) == (self.step, self.samples)
        self._keep("train", block, zip(block.steps, block.samples, strict=True))

    def on_test_block_end(self, block):
        self._keep("test", block, [(self.step, self.samples)] * len(block))

    def _keep(self, phase, block, stands):
        self.lengths.append(len(block))
        for i, (batch, stand) in enumerate(zip(block.batches, stands, strict=True)):
            logs, own = ({name: values[i] for name, values in each.items()} for each in (block.logs, block.step_logs))
            self.told.append((phase, batch, *stand, logs, own))


class Acts(keras.callbacks.Callback):
    """Stands for any callback from elsewhere that may change the run."""

    def on_train_batch_end(self, batch, logs=None):
        pass


@pytest.mark.parametrize("others", [[], [Acts()]], ids=["blocks of four", "blocks of one"])
def test_who_takes_blocks_is_told_of_the_very_same_steps(trainer, others):
    by_batch, by_block = Batches(), Blocks()
    trainer.fit(X, Y, epochs=2, validation_data=(X[:44], Y[:44]), callbacks=[by_block, by_batch, *others], **FIT)

    assert ["train"] * 10 + ["test"] * 6 == [told[0] for told in by_block.told[:16]]
    assert by_batch.told == by_block.told
    assert ([1] * 10 if others else [4, 4, 2]) + [4, 2] == by_block.lengths[: len(by_block.lengths) // 2]


def test_under_fit_it_is_the_batch_hooks_that_are_called():
    told = Blocks()
    perceptron().fit(X, Y, callbacks=[told], **FIT)

    assert list(range(10)) == [batch for _, batch, *_ in told.told]
    assert [] == told.lengths


class OnlyBlocks(Callback):
    """Has nothing but a block hook."""

    def __init__(self, order=None):
        super().__init__()
        self.order = [] if order is None else order

    def on_train_block_end(self, block):
        self.order.append((type(self).__name__, len(block)))


def test_no_step_is_looked_at_by_itself_where_nobody_has_a_batch_hook(trainer):
    """A batch hook would have left its own step's values behind."""
    told, behind = OnlyBlocks(), []
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: behind.append(told.step_logs))
    look.acts_on_batches = False
    trainer.fit(X, Y, callbacks=[told, look], **FIT)

    assert [("OnlyBlocks", 4), ("OnlyBlocks", 4), ("OnlyBlocks", 2)] == told.order
    assert [{}] == behind


@pytest.mark.parametrize("is_first", [True, False])
def test_behind_the_last_step_of_a_block_the_callbacks_come_in_their_order(trainer, is_first):
    order = []
    notes = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: order.append(batch))
    notes.acts_on_batches = False
    taking = OnlyBlocks(order)
    trainer.fit(X, Y, max_steps=6, callbacks=[taking, notes] if is_first else [notes, taking], **FIT)
    four, two = ("OnlyBlocks", 4), ("OnlyBlocks", 2)

    assert ([0, 1, 2, four, 3, 4, two, 5] if is_first else [0, 1, 2, 3, four, 4, 5, two]) == order


def test_one_callback_given_twice_is_told_twice(trainer):
    told = OnlyBlocks()
    trainer.fit(X, Y, max_steps=4, callbacks=[told, told], **FIT)

    assert [("OnlyBlocks", 4)] * 2 == told.order


class WantsBlocksOfOne(OnlyBlocks):
    acts_on_batches = True


def test_one_that_takes_blocks_and_acts_gets_blocks_of_one_step(trainer):
    told = WantsBlocksOfOne()
    trainer.fit(X, Y, max_steps=3, callbacks=[told], **FIT)

    assert [("WantsBlocksOfOne", 1)] * 3 == told.order


class BatchesOfBlocks(Blocks):
    """A subclass that knows nothing of blocks, and must not be silenced by its base class."""

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)


class OlderName(Blocks):
    def on_batch_end(self, batch, logs=None):
        self.told.append(("train", batch))


class OnInstance(Blocks):
    def __init__(self):
        super().__init__()
        self.on_train_batch_end = lambda batch, logs=None: self.told.append(("train", batch))


class BeginsOnly(Blocks):
    def on_train_batch_begin(self, batch, logs=None):
        pass


class FromElsewhere(keras.callbacks.Callback):
    told = None

    def on_train_batch_end(self, batch, logs=None):
        self.told = [*(self.told or []), ("train", batch)]


class MadeOurs(Callback, FromElsewhere):
    lengths = ()


@pytest.mark.parametrize("kind", [BatchesOfBlocks, OlderName, OnInstance, BeginsOnly, MadeOurs])
def test_the_hook_of_the_more_derived_class_counts(trainer, kind):
    told = kind()
    trainer.fit(X, Y, callbacks=[told], **FIT)

    assert [("train", batch) for batch in range(10)] == [own[:2] for own in told.told]
    assert [] == list(told.lengths)


class BlocksAgain(BatchesOfBlocks):
    def on_train_block_end(self, block):
        super().on_train_block_end(block)


def test_one_that_defines_the_block_hook_anew_takes_blocks_again(trainer):
    told = BlocksAgain()
    trainer.fit(X, Y, callbacks=[told], **FIT)

    assert [4, 4, 2] == told.lengths


@pytest.mark.parametrize(("failing", "steps"), [(0, []), (5, [1, 2, 3, 4, 5]), (7, [1, 2, 3, 4, 5, 6, 7])])
def test_before_an_error_those_that_take_blocks_are_told_of_the_steps_until_then(trainer, failing, steps):
    """As they would be if they were told of each batch, behind the callback that fails."""

    class Fails(Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == failing:
                raise RuntimeError("mine")

    by_batch, by_block = Batches(), Blocks()
    with pytest.raises(RuntimeError, match="mine") as caught:
        trainer.fit(X, Y, callbacks=[Fails(), by_batch, by_block], **FIT)

    assert steps == [step for _, _, step, *_ in by_block.told]
    assert by_batch.told == by_block.told
    assert ["Raised in on_train_batch_end of the callback Fails."] == caught.value.__notes__


def test_an_error_in_a_block_hook_says_where_it_rose_and_those_behind_it_keep_all_but_the_last_step(trainer):
    class Fails(Callback):
        def on_train_block_end(self, block):
            raise RuntimeError("mine")

    before, behind = Blocks(), Blocks()
    with pytest.raises(RuntimeError, match="mine") as caught:
        trainer.fit(X, Y, callbacks=[before, Fails(), behind, Batches()], **FIT)

    assert [4, 3] == [len(told.told) for told in (before, behind)]
    assert ["Raised in on_train_block_end of the callback Fails."] == caught.value.__notes__


def test_a_second_error_while_the_others_are_told_of_the_rest_is_noted_on_the_first(trainer):
    class Fails(Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise RuntimeError("first")

    class FailsToo(Callback):
        def on_train_block_end(self, block):
            raise ValueError("second")

    told = Blocks()
    with pytest.raises(RuntimeError, match="first") as caught:
        trainer.fit(X, Y, callbacks=[Fails(), FailsToo(), told], **FIT)

    assert [0, 1] == [batch for _, batch, *_ in told.told]
    assert "ValueError('second')" in caught.value.__notes__[-1]


def test_blocks_are_told_as_arrays_of_floats(trainer):
    found = []

    class Keeps(Callback):
        def on_train_block_end(self, block):
            found.append(block.step_logs["loss"])

    trainer.fit(X, Y, callbacks=[Keeps()], **FIT)

    assert [(4,), (4,), (2,)] == [values.shape for values in found]
    assert {np.dtype("float64")} == {values.dtype for values in found}

import itertools

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf

from engine import Callback, Trainer
from engine.data.batches import spec_of, targets_of, to_batch
from engine.data.feed import Feed
from engine.errors import DataError
from tests.helpers import arrays_of, assert_bit_equal, batches_of, perceptron, samples

X, Y = samples(40, shape=(4,))
WEIGHTS = np.linspace(0, 1, 8).astype("float32")


def pairs(count=5):
    """So many batches of eight."""
    return [(X[begin : begin + 8], Y[begin : begin + 8]) for begin in range(0, 8 * count, 8)]


def feed_of(batches):
    return Feed(lambda: map(to_batch, batches), spec_of([to_batch(batch) for batch in batches[:2]]))


def shaped(*lengths, dtype="float32"):
    """A batch of one array of this shape."""
    return (np.ones(lengths, dtype),)


FORMS = {
    "x": lambda x, y: x,
    "(x,)": lambda x, y: (x,),
    "[x]": lambda x, y: [x],
    "(x, y)": lambda x, y: (x, y),
    "[x, y]": lambda x, y: [x, y],
    "(x, y, w)": lambda x, y: (x, y, WEIGHTS),
    "(x, None)": lambda x, y: (x, None),
    "(x, y, None)": lambda x, y: (x, y, None),
    "a dict": lambda x, y: {"b": x, "a": y},
    "None in front": lambda x, y: ((None, x), y),
    "None between": lambda x, y: ({"b": x, "a": None, "c": y}, [y, None]),
    "tensors": lambda x, y: (tf.constant(x), tf.constant(y)),
    "sparse": lambda x, y: (scipy.sparse.csr_matrix(x), tf.sparse.from_dense(y[:, None])),
    "sparse of rank 1": lambda x, y: (x, tf.sparse.from_dense(y)),
    "ragged": lambda x, y: (tf.RaggedTensor.from_row_lengths(x, [0, 3, 1, 4, 0, 0, 0, 0]), y),
    "words": lambda x, y: (np.array([f"word {label}" for label in y]), y),
    "pandas": lambda x, y: (pd.DataFrame(x), pd.Series(y)),
}
forms = pytest.mark.parametrize("form", FORMS)


@forms
def test_batches_come_as_they_are_made(form):
    """All of them, in their order, None where there is nothing; taken, or pulled in a graph as the loop does."""
    batches = [FORMS[form](*pair) for pair in pairs()]
    expected = [to_batch(batch) for batch in batches]
    walk = feed_of(batches).open()
    pull = tf.function(lambda cursor: walk.pull(cursor, tf.constant(0, tf.int64)).get_value())
    found = [walk.take(0), *(pull(walk.cursor(position)) for position in range(1, 4)), walk.take(4)]

    assert walk.take(5) is None
    assert [_places(batch) for batch in expected] == [_places(batch) for batch in found]
    for left, right in zip(expected, found, strict=True):
        assert_bit_equal(arrays_of(left), arrays_of(right))


def _places(batch):
    return keras.tree.map_structure(lambda leaf: "nothing" if leaf is None else "array", batch)


@forms
def test_the_spec_fits_batches_that_it_was_not_made_of(form):
    spec = spec_of([to_batch(FORMS[form](*pair)) for pair in pairs(2)])
    other = to_batch(FORMS[form](*pairs(3)[2]))

    for expected, leaf in zip(keras.tree.flatten(spec), keras.tree.flatten(other), strict=True):
        assert (expected is None) == (leaf is None)
        assert expected is None or expected.shape[0] is None
        assert expected is None or expected.is_compatible_with(
            tf.constant(leaf) if isinstance(leaf, np.ndarray) else leaf
        )


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((8, 5), (8, 5), (None, 5)),
        ((8, 5), (3, 5), (None, 5)),
        ((8, 5), (8, 6), (None, None)),
        ((8, 5, 2), (8, 6, 2), (None, None, 2)),
        ((8,), (8,), (None,)),
    ],
)
def test_an_axis_in_which_batches_differ_may_have_any_length(first, second, expected):
    (found,) = spec_of([shaped(*first), shaped(*second)])

    assert expected == tuple(found.shape)


def test_one_batch_is_enough_to_tell_what_they_look_like():
    assert (tf.TensorSpec((None, 5), tf.float32),) == spec_of([shaped(8, 5)])


def test_axes_of_any_length_reach_the_loop():
    batches = [shaped(2, length) for length in (3, 5, 1, 8)]

    assert_bit_equal([array for (array,) in batches], [array for (array,) in batches_of(feed_of(batches).open())])


def test_nothing_is_asked_for_before_it_is_wanted_and_then_only_a_few_ahead():
    asked = []
    feed = Feed(lambda: (asked.append(number) or pairs(1)[0] for number in itertools.count()), spec_of(pairs(2)))
    walk = feed.open()
    before = list(asked)
    walk.take(0)
    walk.take(1)

    assert [] == before
    assert 2 <= len(asked) <= 6


def test_each_pass_begins_anew():
    feed = feed_of(pairs(3))
    feed.open().take(0)

    assert 3 == len(batches_of(feed.open())) == len(batches_of(feed.open()))


def raises(error, after=3):
    """A generator with an error of the user's own after so many batches."""
    yield from pairs(after)
    raise error


@pytest.mark.parametrize(
    "error", [KeyError("mine"), OSError(5, "disk"), SystemExit(3), tf.errors.OutOfRangeError(None, None, "mine")]
)
def test_an_error_of_the_users_code_ends_the_data_and_keeps_its_type(error):
    """Even TensorFlow's own word for the end of data."""
    feed = Feed(lambda: raises(error), spec_of(pairs(2)))
    walk = feed.open()
    walk.raise_error()

    assert 3 == len(batches_of(walk))
    with pytest.raises(type(error)) as caught:
        walk.raise_error()
    assert caught.value is error


class Counts(Callback):
    """Counts the batches that it is told of, and keeps what it hears of an error."""

    def __init__(self):
        super().__init__()
        self.batches, self.error, self.ended = 0, None, False

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1

    def on_exception(self, error):
        self.error = error

    def on_train_end(self, logs=None):
        self.ended = True


@pytest.mark.parametrize("steps_per_execution", [1, 2, 8])
def test_the_steps_before_an_error_are_done_and_told_of(steps_per_execution):
    """Wherever in a block it comes; it leaves `fit` as it is, every callback closed."""
    model, callback, error = perceptron(), Counts(), KeyError("mine")
    with pytest.raises(KeyError) as caught:
        Trainer(model, steps_per_execution=steps_per_execution).fit(raises(error), callbacks=[callback], verbose=0)
    twin = perceptron()
    Trainer(twin).fit(iter(pairs(3)), verbose=0)

    assert caught.value is callback.error is error
    assert 3 == callback.batches == int(model.optimizer.iterations)
    assert callback.ended
    assert_bit_equal(twin.get_weights(), model.get_weights())


@pytest.mark.parametrize("task", ["evaluate", "predict"])
def test_an_error_is_not_the_end_of_the_data_to_evaluate_or_predict(task):
    with pytest.raises(KeyError, match="mine"):
        getattr(Trainer(perceptron()), task)(raises(KeyError("mine")), verbose=0)


def test_an_error_in_validation_comes_out_of_fit():
    with pytest.raises(KeyError, match="mine"):
        Trainer(perceptron()).fit(X, Y, validation_data=raises(KeyError("mine")), verbose=0)


def test_an_error_in_the_first_batches_comes_before_the_first_step():
    model = perceptron()
    with pytest.raises(KeyError, match="mine"):
        Trainer(model).fit(raises(KeyError("mine"), after=1), verbose=0)

    assert 0 == int(model.optimizer.iterations)


X8 = X[:8]
MISFITS = {
    "another shape": (
        (X8, X8, X8[:, :3]),
        r"^Batch 2 has a part of shape \(8, 3\), where \(None, 4\) was expected\. An",
    ),
    "another rank": ((X8, X8, X8[0]), r"^Batch 2 has a part of shape \(4,\), where \(None, 4\) was expected"),
    "another structure": ((X8, X8, X8, {"a": X8}), r"^Batch 3 has the structure \{'a': '\*'\}, where \* was expected"),
    "None where there was none": (
        ((X8, Y[:8]), (X8, Y[:8]), (X8, None)),
        r"^Batch 2 has the structure \('\*', '-'\), where \('\*', '\*'\) was expected, .* \('-' stands for None\)",
    ),
    "no None where there was one": (
        ((X8, None), (X8, None), (X8, Y[:8])),
        r"^Batch 2 has the structure \('\*', '\*'\)",
    ),
    "too many parts": ((X8, X8, (X8,) * 4), r"^A batch is a tuple of 4, where \(inputs,\), \(inputs, targets\) or"),
    "a number": ((X8, X8, 1.0), r"^x holds float '1.0', where an array was expected"),
    "another dtype": ((X8 > 0, X8 > 0, X8), r"^Batch 2 has a part of dtype float32, where bool was expected"),
    "fractions among integers": ((Y[:8], Y[:8], X8[:, 0]), r"^Batch 2 has a part of .*float32.*int64"),
    "numbers among words": ((Y[:8].astype("S"), Y[:8].astype("S"), Y[:8]), r"^Batch 2 has a part of .*int64.*string"),
    "sparse among dense": ((X8, X8, tf.sparse.from_dense(X8)), r"^Batch 2 has a part .*sparse"),
    "dense among sparse": ((tf.sparse.from_dense(X8), tf.sparse.from_dense(X8), X8), r"^Batch 2 has a part .*sparse"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_batch_that_does_not_fit_the_first_ones_is_refused_in_words(case):
    """The batches before it are given; no number is cut to fit, as Keras does without a word."""
    batches, message = MISFITS[case]
    walk = feed_of(batches).open()

    assert len(batches) - 1 == len(batches_of(walk))
    with pytest.raises(DataError, match=message):
        walk.raise_error()


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ((), r"^The data is empty: it gave no batch. Give at least one\.$"),
        ((X8, {"a": X8}), r"^Batch 1 has the structure \{'a': '\*'\}, where \* was expected, that of the first"),
        ((X8, X8[0]), r"^The first two batches have parts of .*\(None, 4\).* and .*\(None,\).*the same rank and dtype"),
        ((X8, X8 > 0), r"^The first two batches have parts of .*float32.* and .*bool.* Give every batch"),
        ((X8, tf.sparse.from_dense(X8)), r"^The first two batches have parts of TensorSpec.* and SparseTensorSpec"),
    ],
)
def test_first_batches_that_are_not_alike_are_refused_in_words(batches, message):
    with pytest.raises(DataError, match=message):
        spec_of([to_batch(batch) for batch in batches])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((), r"^A batch is a tuple of 0, where \(inputs,\)"),
        ((X8,) * 4, r"^A batch is a tuple of 4, .* Several inputs go into a tuple or dict of their own\.$"),
        ((None,), r"^x holds no array"),
        ((X8, 1), r"^y holds int '1', where an array was expected with samples along its first axis"),
        ((X8, Y[:8], "much"), r"^sample_weight holds str 'much'"),
    ],
)
def test_what_is_no_batch_is_refused_in_words(batch, message):
    with pytest.raises(DataError, match=message):
        spec_of([to_batch(batch)])


def test_targets_are_at_hand_where_they_are_arrays():
    ragged = tf.ragged.constant([[1], [2, 3]])
    found = targets_of(to_batch((X8[:2], {"a": Y[:2], "b": ragged, "c": None})))

    assert_bit_equal([Y[:2]], [found["a"]])
    assert found["b"] is found["c"] is None
    assert targets_of(to_batch(X8)) is None


@pytest.mark.parametrize("form", ["(x, y)", "sparse", "ragged"])
def test_replicas_share_each_batch(two_replicas, form):
    """The shares of a batch, one behind the other, are the batch."""
    batches = [FORMS[form](*pair) for pair in pairs(3)]
    with two_replicas.scope():
        walk, found = feed_of(batches).open(), []
        while (batch := walk.take(len(found))) is not None:
            leaves = [leaf for leaf in keras.tree.flatten(batch) if leaf is not None]
            found.append([two_replicas.experimental_local_results(leaf) for leaf in leaves])
    join = {tf.SparseTensor: lambda parts: tf.sparse.concat(0, parts)}

    for expected, leaves in zip(batches, found, strict=True):
        joined = [join.get(type(parts[0]), lambda parts: tf.concat(parts, 0))(list(parts)) for parts in leaves]

        assert {2} == set(map(len, leaves))
        assert_bit_equal(arrays_of(to_batch(expected)), arrays_of(joined))


def test_replicas_are_dealt_no_none(two_replicas):
    """Which tf.distribute takes for something to make a tensor of."""
    feed = feed_of([FORMS["None between"](*pair) for pair in pairs(2)])

    with two_replicas.scope(), pytest.raises(DataError, match=r"is None, which tf\.distribute cannot deal"):
        feed.open()


def test_parts_that_are_none_cannot_be_dealt_to_replicas_which_is_said(two_replicas):
    """Keras fails on them with an AttributeError."""
    feed = feed_of([FORMS["None between"](*pair) for pair in pairs(2)])

    with two_replicas.scope(), pytest.raises(DataError) as error:
        feed.open()
    assert "A part of each batch is None, which tf.distribute cannot deal to replicas. Give arrays." == str(error.value)


def test_a_series_in_a_batch_stays_what_it_is():
    """Only arrays given whole get the second axis that Keras gives a column of pandas."""
    _, y = to_batch((X8, pd.Series(np.arange(8))))

    assert (8,) == y.shape

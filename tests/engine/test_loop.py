import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import StepError
from engine.data import open_source
from engine.loop import Loop, PredictLoop
from tests.helpers import assert_bit_equal

X = np.random.default_rng(0).normal(size=(22, 3)).astype("float32")  # batches of 4, the last of two samples
STEPS = 6
SOURCES = ["arrays", "dataset", "unknown length"]


class Descent:
    """A step written by hand: a weight that each batch changes, and one column of each form."""

    def __init__(self):
        self.weight = tf.Variable([1.0, -1.0, 0.5])
        self.count = tf.Variable(0)

    def step(self, x):
        error = tf.linalg.matvec(x, self.weight) - 1.0
        self.weight.assign_sub(0.1 * tf.linalg.matvec(x, error, transpose_a=True))
        self.count.assign_add(1)
        loss = tf.reduce_mean(tf.square(error))
        return {"loss": loss, "first": (x[0, 0], 2.0 * loss), "count": (self.count, None)}

    def results(self):
        return {"weight": self.weight[0]}


def walk_over(kind, x=X):
    if kind == "arrays":
        return open_source(x, batch_size=4).open(0)
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(4)
    return open_source(dataset if kind == "dataset" else dataset.filter(lambda _: True)).open(0)


def run(blocks, kind="dataset", **how):
    """The state afterwards and the rows of all blocks, one below the other."""
    descent = Descent()
    loop, walk, done, found = Loop(descent.step, descent.results, **how), walk_over(kind), 0, []
    for steps in blocks:
        found.append(loop.run(walk.pull, walk.cursor(done), steps))
        done += len(found[-1])
    rows = [np.concatenate([getattr(block, part) for block in found]) for part in ("sizes", "values", "weights")]
    return descent, found, rows


def test_each_form_of_a_value_has_its_column():
    """A scalar weighs its samples, a pair what it says, and (scalar, None) stands for the epoch, as results do."""
    descent, (rows,), _ = run([STEPS])
    columns = dict(zip(rows.columns.names, rows.weights.T.tolist(), strict=True))
    values = dict(zip(rows.columns.names, rows.values.T, strict=True))

    assert ("count", "first", "loss", "weight") == rows.columns.names
    assert (False, True, True, False) == rows.columns.averaged
    assert [4, 4, 4, 4, 4, 2] == rows.sizes.tolist() == columns["loss"]
    assert [1] * STEPS == columns["count"] == columns["weight"]
    assert [1, 2, 3, 4, 5, 6] == values["count"].tolist()
    assert descent.weight[0].numpy() == values["weight"][-1]
    np.testing.assert_array_equal(X[::4, 0], values["first"])
    np.testing.assert_array_equal(2 * values["loss"], columns["first"])
    assert np.float64 == rows.values.dtype == rows.weights.dtype


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("blocks", [[STEPS], [2, 1, 3], [4, 2]])
def test_a_block_does_what_its_steps_do_one_by_one(kind, blocks):
    expected, _, expected_rows = run([1] * STEPS, kind)
    given, _, rows = run(blocks, kind)

    assert_bit_equal([expected.weight.numpy()], [given.weight.numpy()])
    assert_bit_equal(expected_rows, rows)


def test_rows_are_what_plain_python_computes():
    """The loop adds nothing to the step: called on the batches by hand, it gives the same bits."""
    by_hand = Descent()
    step = tf.function(by_hand.step, autograph=False, reduce_retracing=True)
    expected = [step(tf.constant(X[begin : begin + 4])) for begin in range(0, len(X), 4)]
    _, (rows,), _ = run([STEPS])

    assert [float(values["loss"]) for values in expected] == rows.values[:, 2].tolist()


@pytest.mark.parametrize("kind", ["dataset", "unknown length"])
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_the_end_of_the_data_is_found_inside_a_block_without_one_step_too_many(kind, run_eagerly):
    """The count of updates is the number of rows; asked again, the data gives no row and no update."""
    descent, found, _ = run([4, 100, 5], kind, run_eagerly=run_eagerly)

    assert [4, 2, 0] == [len(rows) for rows in found]
    assert STEPS == descent.count.numpy()
    assert (0, 4) == found[-1].values.shape
    assert found[0].columns == found[-1].columns


def test_no_rows_is_what_a_block_at_the_end_brings():
    descent = Descent()
    loop, walk = Loop(descent.step, descent.results), walk_over("dataset")
    loop.run(walk.pull, walk.cursor(0), 100)
    expected, given = loop.run(walk.pull, walk.cursor(0), 3), loop.no_rows()

    assert expected.columns == given.columns
    for part in ("sizes", "values", "weights"):
        np.testing.assert_array_equal(getattr(expected, part), getattr(given, part), strict=True)


@pytest.mark.parametrize("kind", SOURCES)
def test_eager_steps_give_the_rows_of_the_graph(kind):
    _, _, expected = run([4, 2], kind)
    _, _, given = run([4, 2], kind, run_eagerly=True)

    for left, right in zip(expected, given, strict=True):
        np.testing.assert_allclose(right, left, rtol=1e-6)  # the graph fuses kernels that run one by one eagerly


@pytest.mark.parametrize("kind", SOURCES)
def test_xla_gives_the_rows_of_the_graph(kind):
    _, _, expected = run([4, 2], kind)
    _, _, given = run([4, 2], kind, jit_compile=True)

    for left, right in zip(expected, given, strict=True):
        np.testing.assert_allclose(right, left, rtol=1e-5)  # XLA sums in an order of its own


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_the_step_is_traced_once_and_its_graph_is_kept(run_eagerly):
    traces = []

    def step(x):
        traces.append(x.shape)
        return {"loss": tf.reduce_sum(x)}

    loop, walk = Loop(step, run_eagerly=run_eagerly), walk_over("arrays")
    loop.trace(walk.pull, walk.signature())
    names_before = loop.columns.names
    for position, steps in ((0, 1), (1, 3), (4, 2)):
        loop.run(walk.pull, walk.cursor(position), steps)

    assert (STEPS if run_eagerly else 1) == len(traces)
    assert (() if run_eagerly else ("loss",)) == names_before
    assert run_eagerly == (loop.graph is None)
    assert run_eagerly or "Sum" in {operation.type for operation in loop.graph.get_operations()}


def test_rows_have_the_precision_that_keras_is_set_to():
    third = np.float64(1) / 3
    loop, walk = Loop(lambda x: {"third": tf.constant(third, tf.float64)}), walk_over("dataset")
    single = loop.run(walk.pull, walk.cursor(0), 2).values[0, 0]
    keras.config.set_floatx("float64")
    try:
        loop, walk = Loop(lambda x: {"third": tf.constant(third, tf.float64)}), walk_over("dataset")
        double = loop.run(walk.pull, walk.cursor(0), 2).values[0, 0]
    finally:
        keras.config.set_floatx("float32")

    assert np.float64(np.float32(third)) == single
    assert third == double


WRONG_RETURNS = {
    "a tensor": (lambda x: tf.reduce_sum(x), "A step returned SymbolicTensor, where a flat dict of scalar tensors"),
    "nothing": (lambda x: None, "A step returned NoneType, where a flat dict"),
    "a vector": (
        lambda x: {"loss": x[:, 0]},
        r"A step or a metric returned 'loss' with shape \(.*,\), .* Reduce it in the step",
    ),
    "a vector in a pair": (lambda x: {"loss": (x[0], 1.0)}, r"A step or a metric returned 'loss' with shape \(3,\)"),
    "a number for a name": (
        lambda x: {0: tf.reduce_sum(x)},
        "A step or a metric returned 0 with shape .*, where a name",
    ),
    "a dict in a dict": (lambda x: {"a": {"b": tf.reduce_sum(x)}}, "A step or a metric returned .*'a'"),
    "a triple": (lambda x: {"a": (tf.reduce_sum(x), 1.0, 2.0)}, "A step or a metric returned .*'a'"),
    "text": (lambda x: {"a": "much"}, "A step or a metric returned .*'a'"),
    "nothing for a value": (lambda x: {"a": None}, "A step or a metric returned .*'a'"),
}


@pytest.mark.parametrize("case", WRONG_RETURNS)
def test_what_a_step_must_not_return_is_refused_as_it_is_traced(case):
    step, message = WRONG_RETURNS[case]
    walk = walk_over("arrays")

    with pytest.raises(StepError, match=message):
        Loop(step).trace(walk.pull, walk.signature())


OUTPUTS = {
    "one tensor": lambda x: 2.0 * x,
    "a dict": lambda x: {"b": x[:, :1], "a": (tf.reduce_sum(x, 1), [tf.cast(x > 0, tf.int32)])},
}


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_predictions_keep_the_structure_of_the_outputs_and_the_order_of_the_samples(kind, outputs, run_eagerly):
    """Blocks of four and of at most five steps, the last batch ragged, then none at the end of the data."""
    step = OUTPUTS[outputs]
    loop, walk = PredictLoop(step, run_eagerly=run_eagerly), walk_over(kind)
    first_sizes, first = loop.run(walk.pull, walk.cursor(0), 4)
    last_sizes, last = loop.run(walk.pull, walk.cursor(4), 2 if kind == "arrays" else 5)
    expected = keras.tree.map_structure(lambda leaf: leaf.numpy(), step(tf.constant(X)))

    keras.tree.assert_same_structure(expected, first)
    assert ([4, 4, 4, 4], [4, 2]) == (first_sizes.tolist(), last_sizes.tolist())
    given = keras.tree.map_structure(lambda *parts: np.concatenate(parts), first, last)
    # A sum may be taken in another order eagerly than in a graph.
    keras.tree.map_structure(lambda *pair: np.testing.assert_allclose(*pair, rtol=1e-6), given, expected)
    if kind != "arrays":
        assert ([], None) == (
            loop.run(walk.pull, walk.cursor(6), 3)[0].tolist(),
            loop.run(walk.pull, None or walk.cursor(6), 3)[1],
        )

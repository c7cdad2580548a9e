"""How long a loop waits for data: told by blocks whose batches come too late, and by those that wait for nothing."""

import time

import numpy as np
import pytest
import tensorflow as tf

from engine.data import Reader, open_source
from engine.loop import Loop, PredictLoop

BATCHES, BATCH_SECS = 8, 0.02


class Steps:
    """Steps that change a variable, as those of a training do."""

    def __init__(self):
        self.total = tf.Variable(0.0)

    def __call__(self, batch):
        self.total.assign_add(tf.reduce_mean(batch[0]))
        return {"loss": tf.reduce_mean(batch[0])}


def late():
    """Each batch comes when twenty milliseconds have gone."""
    for number in range(BATCHES):
        time.sleep(BATCH_SECS)
        yield np.full((4, 3), number, "float32"), np.zeros(4, "float32")


def late_dataset():
    specs = tf.TensorSpec((None, 3)), tf.TensorSpec((None,))
    return tf.data.Dataset.from_generator(late, output_signature=specs)


def arrays():
    return tuple(np.concatenate(parts) for parts in zip(*late(), strict=True))


def run(data, *, steps=BATCHES, strategy=None, is_saved=False, run_eagerly=False, looks=False):
    """One block of a loop, and the seconds that the call took."""
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        reader = Reader(open_source(*data), strategy, is_saved=is_saved)
        loop = Loop(Steps(), strategy=strategy, run_eagerly=run_eagerly, times_data=True)
    loop.trace(reader.walk.pull, reader.walk.signature())
    if looks:
        reader.fingerprint()
    begin = time.perf_counter()
    rows = loop.run(reader.walk.pull, reader.walk.cursor(0), steps)
    return rows, time.perf_counter() - begin


def operations(graph):
    """The types of all operations of a graph and of the functions that it calls."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    return {node.op for node in nodes}


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("kind", ["generator", "dataset", "dataset that is looked ahead of"])
def test_the_wait_is_most_of_the_time_where_batches_come_late(kind, run_eagerly):
    data = late() if kind == "generator" else late_dataset()
    is_saved = kind.startswith("dataset that")
    rows, seconds = run((data,), is_saved=is_saved, looks=is_saved, run_eagerly=run_eagerly)

    assert BATCHES == len(rows)
    assert list(range(BATCHES)) == rows.values[:, 0].tolist()
    assert (BATCHES - 4) * BATCH_SECS < rows.waited_secs <= seconds  # a few are made before the loop begins


def test_the_end_of_the_data_is_waited_for_as_well():
    rows, seconds = run((late_dataset(),), steps=BATCHES + 5)

    assert BATCHES == len(rows)
    assert (BATCHES - 4) * BATCH_SECS < rows.waited_secs <= seconds


def test_batches_that_are_there_are_hardly_waited_for():
    rows, seconds = run((tf.data.Dataset.from_tensor_slices(arrays()).batch(4).repeat(),), steps=500)

    assert 0 < rows.waited_secs < seconds


def test_replicas_wait_together(two_replicas):
    rows, seconds = run((tf.data.Dataset.from_tensor_slices(arrays()).batch(4),), strategy=two_replicas)

    assert BATCHES == len(rows)
    assert 0 < rows.waited_secs <= seconds


def test_arrays_are_not_waited_for_and_nobody_looks_at_the_clock():
    source, dataset = open_source(*arrays(), batch_size=4), open_source(late_dataset())
    graphs = []
    for opened in (source, dataset):
        walk, loop = opened.open(0), Loop(Steps(), times_data=True)
        graphs.append(tf.function(loop._run_many, autograph=False).get_concrete_function(
            walk.pull, walk.signature(), tf.TensorSpec((), tf.int32), None
        ).graph)  # fmt: skip
    rows, _ = run(arrays())

    assert rows.waited_secs is None
    assert "Timestamp" not in operations(graphs[0])
    assert "Timestamp" in operations(graphs[1])


def test_a_prediction_reads_the_same_batches():
    reader = Reader(open_source(late_dataset()))
    loop = PredictLoop(lambda batch: batch[0])
    loop.trace(reader.walk.pull, reader.walk.signature())
    sizes, outputs = loop.run(reader.walk.pull, reader.walk.cursor(0), BATCHES)

    np.testing.assert_array_equal(arrays()[0], outputs)
    assert [4] * BATCHES == sizes.tolist()

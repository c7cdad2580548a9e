import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine import metrics as module
from engine.columns import Columns
from engine.metrics import RunningMeans, batch_means, in_keras_order, is_mean, named, set_aside
from tests.helpers import assert_bit_equal
from tests.strategies import examples

BATCHES = [7, 7, 3]  # the last one is smaller
ONE_HOT, SPARSE, REAL, BINARY = "one-hot", "sparse", "real", "binary"

# Which kind of targets each of Keras's metrics is given below, and what it needs besides.
MEANS = {
    "Accuracy": SPARSE,
    "BinaryAccuracy": BINARY,
    "BinaryCrossentropy": BINARY,
    "CategoricalAccuracy": ONE_HOT,
    "CategoricalCrossentropy": ONE_HOT,
    "CategoricalHinge": ONE_HOT,
    "ConcordanceCorrelation": REAL,
    "CosineSimilarity": REAL,
    "Hinge": BINARY,
    "KLDivergence": REAL,
    "LogCoshError": REAL,
    "MeanAbsoluteError": REAL,
    "MeanAbsolutePercentageError": REAL,
    "MeanSquaredError": REAL,
    "MeanSquaredLogarithmicError": REAL,
    "PearsonCorrelation": REAL,
    "Poisson": REAL,
    "SparseCategoricalAccuracy": SPARSE,
    "SparseCategoricalCrossentropy": SPARSE,
    "SparseTopKCategoricalAccuracy": SPARSE,
    "SquaredHinge": BINARY,
    "TopKCategoricalAccuracy": ONE_HOT,
}
OTHERS = {
    "AUC": {},
    "BinaryIoU": {},
    "F1Score": {},
    "FBetaScore": {},
    "FalseNegatives": {},
    "FalsePositives": {},
    "IoU": {"num_classes": 2, "target_class_ids": [0]},
    "MeanIoU": {"num_classes": 2},
    "OneHotIoU": {"num_classes": 2, "target_class_ids": [0]},
    "OneHotMeanIoU": {"num_classes": 2},
    "Precision": {},
    "PrecisionAtRecall": {"recall": 0.5},
    "R2Score": {},
    "Recall": {},
    "RecallAtPrecision": {"precision": 0.5},
    "RootMeanSquaredError": {},
    "SensitivityAtSpecificity": {"specificity": 0.5},
    "SpecificityAtSensitivity": {"sensitivity": 0.5},
    "Sum": {},
    "TrueNegatives": {},
    "TruePositives": {},
}


def batches_of(kind, *, weighted):
    """Batches of (targets, predictions, sample weights) that a metric takes."""
    generator = np.random.default_rng(0)
    for size in BATCHES:
        predictions = generator.uniform(0.1, 0.9, (size, 4)).astype("float32")
        classes = generator.integers(0, 4, size)
        targets = {
            ONE_HOT: np.eye(4, dtype="float32")[classes],
            SPARSE: classes,
            REAL: generator.uniform(0.1, 0.9, (size, 4)).astype("float32"),
            BINARY: generator.integers(0, 2, (size, 4)).astype("float32"),
        }[kind]
        if kind == SPARSE:
            targets = targets[:, None]
        yield targets, predictions, generator.uniform(0, 2, size).astype("float32") if weighted else None


def added_up(steps):
    """The mean of batches' means, by their weights."""
    values, weights = zip(*steps, strict=True)
    return np.average(np.array(values, "float64"), weights=np.array(weights, "float64"))


class Geometric(keras.metrics.Mean):
    """A user's metric that is no plain mean any more."""

    def result(self):
        return keras.ops.exp(super().result())


class Doubled(keras.metrics.MeanSquaredError):
    """A user's metric that updates in its own way."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_true, y_pred, sample_weight)
        super().update_state(y_true, y_pred, sample_weight)


class Lasting(keras.metrics.Mean):
    """A user's metric that goes on from epoch to epoch."""

    def reset_state(self):
        pass


class Renamed(keras.metrics.MeanSquaredError):
    """A user's metric that overrides nothing that matters."""

    def get_config(self):
        return {}


def test_every_metric_of_keras_is_in_one_of_the_tables():
    public = {
        name
        for name, value in vars(keras.metrics).items()
        if inspect.isclass(value) and issubclass(value, keras.metrics.Metric)
    }

    assert public == {*MEANS, *OTHERS, "Mean", "Metric", "MeanMetricWrapper"}


@pytest.mark.parametrize("name", MEANS)
def test_a_metric_that_is_a_mean_is_found_to_be_one(name):
    assert is_mean(getattr(keras.metrics, name)())


@pytest.mark.parametrize(
    "make", [keras.metrics.Mean, lambda: keras.metrics.MeanMetricWrapper(keras.losses.hinge), Renamed]
)
def test_means_of_a_users_making_are_means(make):
    assert is_mean(make())


@pytest.mark.parametrize("name", OTHERS)
def test_a_metric_with_a_state_of_its_own_is_no_mean(name):
    assert not is_mean(getattr(keras.metrics, name)(**OTHERS[name]))


@pytest.mark.parametrize("make", [Geometric, Doubled, Lasting])
def test_a_mean_that_a_user_has_changed_is_no_mean(make):
    assert not is_mean(make())


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("name", MEANS)
def test_batches_add_up_to_what_the_metric_says_itself(name, weighted):
    """The mean of the batches' values, by the batches' weights, is the metric over all of them."""
    metric, steps = getattr(keras.metrics, name)(), []
    batches = list(batches_of(MEANS[name], weighted=weighted))
    if name == "Accuracy":  # compares classes with classes
        batches = [(y, y_pred.argmax(-1)[:, None], weight) for y, y_pred, weight in batches]
    for batch in batches:
        steps.append(batch_means({"m": metric}, lambda batch=batch: metric.update_state(*batch))["m"])
    untouched = [variable.numpy() for variable in metric.variables]
    for batch in batches:
        metric.update_state(*batch)

    # Not bit-equal: Keras adds up in float32, in another order.
    np.testing.assert_allclose(float(metric.result()), added_up(steps), rtol=1e-5)
    assert [0.0, 0.0] == untouched


@pytest.mark.parametrize(("weight", "value", "total"), [(None, 3.0, 3.0), ([2.0, 0.0, 2.0], 4.0, 4.0)])
def test_a_mean_of_values_adds_up_too(weight, value, total):
    metric = keras.metrics.Mean()
    found = batch_means({"m": metric}, lambda: metric.update_state([2.0, 1.0, 6.0], sample_weight=weight))["m"]

    assert (value, total) == tuple(map(float, found))


def test_a_batch_counts_from_zero_whatever_the_metric_held():
    metric = keras.metrics.Mean()
    metric.update_state([100.0])
    value, weight = batch_means({"m": metric}, lambda: metric.update_state([1.0, 3.0]))["m"]

    assert (2.0, 2.0) == (float(value), float(weight))
    assert 100.0 == float(metric.result())


def test_a_batch_that_weighs_nothing_has_the_value_0():
    metric = keras.metrics.Mean()
    value, weight = batch_means({"m": metric}, lambda: metric.update_state([1.0], sample_weight=[0.0]))["m"]

    assert (0.0, 0.0) == (float(value), float(weight))


def test_a_metric_that_is_not_updated_weighs_nothing():
    metric = keras.metrics.Mean()

    assert (0.0, 0.0) == tuple(map(float, batch_means({"m": metric}, lambda: None)["m"]))


@pytest.mark.parametrize("compile_graph", [lambda function: function, tf.function], ids=["eager", "graph"])
def test_a_metric_with_a_state_of_its_own_keeps_it(compile_graph):
    """Beside means that leave no trace, it ends as if Keras had updated it alone."""
    ours, mean, keras_own = keras.metrics.AUC(), keras.metrics.MeanSquaredError(), keras.metrics.AUC()
    metrics = {"auc": ours, "mse": mean}

    @compile_graph
    def step(y, y_pred):
        def update():
            for metric in metrics.values():
                metric.update_state(y, y_pred)

        return batch_means(metrics, update)

    for y, y_pred, _ in batches_of(BINARY, weighted=False):
        found = step(tf.constant(y), tf.constant(y_pred))
        keras_own.update_state(y, y_pred)

        assert {"mse"} == set(found)
    assert_bit_equal([v.numpy() for v in keras_own.variables], [v.numpy() for v in ours.variables])
    assert [0.0, 0.0] == [variable.numpy() for variable in mean.variables]


def test_results_take_apart_what_a_metric_returns_as_a_dict():
    class Extremes(keras.metrics.Metric):
        def update_state(self, values):
            pass

        def result(self):
            return {"least": tf.constant(1.0), "most": tf.constant(2.0)}

    total = keras.metrics.Sum()
    total.update_state([3.0])
    found = module.results({"extremes": Extremes(), "sum": total})

    assert {"least": 1.0, "most": 2.0, "sum": 3.0} == {name: float(value) for name, value in found.items()}


def one_output(**arguments):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy", run_eagerly=True, **arguments)
    return model, np.eye(3)[[0, 1, 2, 0, 1]]


def two_outputs(structure=list, **arguments):
    inputs = keras.Input((4,))
    outputs = {name: keras.layers.Dense(3, activation="softmax", name=name)(inputs) for name in ("tail", "head")}
    model = keras.Model(inputs, structure(outputs.values()) if structure is list else outputs)
    model.compile("sgd", "categorical_crossentropy", run_eagerly=True, **arguments)
    y = np.eye(3)[[0, 1, 2, 0, 1]]
    return model, [y, y] if structure is list else {"tail": y, "head": y}


class Penalised(keras.layers.Dense):
    """A layer that brings a metric of its own."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.size = keras.metrics.Mean(name="size")

    def call(self, inputs):
        self.size.update_state(keras.ops.sum(inputs))
        return super().call(inputs)


def with_a_layers_metric():
    model = keras.Sequential([keras.Input((4,)), Penalised(3, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
    return model, np.eye(3)[[0, 1, 2, 0, 1]]


MODELS = {
    "loss only": lambda: one_output(),
    "metrics": lambda: one_output(metrics=["mse", "accuracy", keras.metrics.AUC(name="area")]),
    "weighted": lambda: one_output(metrics=["mse"], weighted_metrics=["mse", "mae"]),
    "twice the same": lambda: one_output(metrics=["mse", keras.metrics.MeanSquaredError(name="mse")]),
    "two outputs": lambda: two_outputs(),
    "two outputs, one metric each": lambda: two_outputs(metrics=[["mse"], ["mae"]]),
    "two outputs, several": lambda: two_outputs(metrics=[["mse", "accuracy"], ["accuracy", "mae"]]),
    "two outputs by name": lambda: two_outputs(dict, metrics={"head": ["mse"], "tail": ["accuracy"]}),
    "a layer's metric": with_a_layers_metric,
}
models = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
X = np.linspace(0, 1, 20).reshape(5, 4)


@models
def test_metrics_are_named_as_keras_logs_them(make):
    model, y = make()
    logs = model.evaluate(X, y, verbose=0, return_dict=True)

    assert set(logs) == set(named(model.metrics))


@models
def test_a_name_leads_to_the_metric_that_keras_logs_under_it(make):
    model, y = make()
    logs = model.evaluate(X, y, verbose=0, return_dict=True)

    assert logs == {name: float(metric.result()) for name, metric in named(model.metrics).items()}


@models
def test_values_without_names_are_in_keras_order(make):
    model, y = make()
    logs = model.evaluate(X, y, verbose=0, return_dict=True)

    assert model.evaluate(X, y, verbose=0) == in_keras_order(dict(sorted(logs.items())), model.metrics)


def test_a_value_that_no_metric_is_named_for_comes_last():
    loss, extra = keras.metrics.Mean(name="loss"), {"a": 2.0, "loss": 1.0, "b": 3.0}

    assert [1.0, 2.0, 3.0] == in_keras_order(extra, [loss])


def test_metrics_set_aside_come_back_as_they_were():
    """Inside, they may be reset and updated; resetting is up to whoever uses them."""
    mean, area = keras.metrics.Mean(), keras.metrics.AUC()
    mean.update_state([1.0, 2.0])
    area.update_state([0, 1], [0.2, 0.7])
    before = [variable.numpy() for metric in (mean, area) for variable in metric.variables]
    with set_aside([mean, area]):
        mean.reset_state()
        mean.update_state([100.0])
        area.update_state([1, 1], [0.9, 0.9])
        inside = float(mean.result())

    assert 100.0 == inside
    assert_bit_equal(before, [variable.numpy() for metric in (mean, area) for variable in metric.variables])


def test_metrics_set_aside_come_back_after_an_error():
    mean = keras.metrics.Mean()
    mean.update_state([3.0])

    def evaluate():
        with set_aside([mean]):
            mean.reset_state()
            raise KeyError

    with pytest.raises(KeyError):
        evaluate()

    assert 3.0 == float(mean.result())


numbers = st.floats(-1e6, 1e6)
weights = st.sampled_from([0.0, 0.0, 0.5, 1.0, 3.0, 32.0])


@st.composite
def tables(draw, elements=numbers):
    """Values and weights of some steps in three columns, and where to cut them into blocks."""
    steps = draw(st.integers(1, 12))
    values = draw(arrays("float64", (steps, 3), elements=elements))
    weight = draw(arrays("float64", (steps, 3), elements=weights))
    cuts = sorted(draw(st.sets(st.integers(0, steps), max_size=4)))
    return values, weight, cuts


def means_of(*averaged):
    return RunningMeans(Columns(tuple("cab"), averaged))


@examples(300)
@given(tables())
def test_running_means_are_the_means_since_the_epoch_began(table):
    values, weight, _ = table
    running = means_of(True, True, True).extend(values, weight)

    for step in range(len(values)):
        for column in range(3):
            own = weight[: step + 1, column]
            expected = np.average(values[: step + 1, column], weights=own) if own.any() else 0.0
            # Not bit-equal: NumPy adds pairwise.
            np.testing.assert_allclose(expected, running[step, column], rtol=1e-9, atol=1e-6)


@examples(300)
@given(tables())
def test_how_steps_are_cut_into_blocks_changes_no_bit(table):
    """Whatever the pace of a run, its logs are the same."""
    values, weight, cuts = table
    whole, parts = means_of(True, False, True), means_of(True, False, True)
    expected = whole.extend(values, weight)
    blocks = zip(np.split(values, cuts), np.split(weight, cuts), strict=True)
    found = np.concatenate([parts.extend(*block) for block in blocks])

    np.testing.assert_array_equal(expected, found)
    assert whole.logs() == parts.logs()


@examples(200)
@given(tables())
def test_the_logs_are_the_last_running_values(table):
    values, weight, _ = table
    means = means_of(True, False, True)
    running = means.extend(values, weight)

    assert dict(zip("abc", running[-1][[1, 2, 0]].tolist(), strict=True)) == means.logs()


@pytest.mark.parametrize("worthless", [np.nan, np.inf, -np.inf])
def test_what_weighs_nothing_has_no_say_even_if_it_is_not_finite(worthless):
    running = RunningMeans(Columns(("loss",), (True,))).extend(
        np.array([[2.0], [worthless], [4.0]]), np.array([[1.0], [0.0], [1.0]])
    )

    assert [2.0, 2.0, 3.0] == running[:, 0].tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_seen_from_then_on(value):
    running = RunningMeans(Columns(("loss",), (True,))).extend(np.array([[2.0], [value], [4.0]]), np.ones((3, 1)))

    np.testing.assert_array_equal([2.0, value, value], running[:, 0])


def test_a_column_that_stands_for_the_epoch_already_is_not_averaged():
    means = RunningMeans(Columns(("auc", "loss"), (False, True)))
    values = np.array([[0.5, 1.0], [0.9, 3.0]])
    running = means.extend(values, np.array([[1.0, 10.0], [1.0, 30.0]]))

    assert [[0.5, 1.0], [0.9, 2.5]] == running.tolist()
    assert {"auc": 0.9, "loss": 2.5} == means.logs()


def test_sums_do_not_stop_counting_where_float32_does():
    means = RunningMeans(Columns(("loss",), (True,)))
    means.extend(np.array([[1.0]]), np.array([[float(1 << 24)]]))
    means.extend(np.array([[2.0]]), np.ones((1, 1)))

    assert {"loss": 1.0 + 1 / ((1 << 24) + 1)} == means.logs()


def test_a_block_of_no_steps_changes_nothing():
    means = RunningMeans(Columns(("auc", "loss"), (False, True)))
    means.extend(np.array([[0.5, 1.0]]), np.ones((1, 2)))

    assert (0, 2) == means.extend(np.zeros((0, 2)), np.zeros((0, 2))).shape
    assert {"auc": 0.5, "loss": 1.0} == means.logs()


def test_an_epoch_begins_anew():
    means = RunningMeans(Columns(("auc", "loss"), (False, True)))
    means.extend(np.full((2, 2), 7.0), np.ones((2, 2)))
    means.reset()
    means.extend(np.array([[0.5, 1.0]]), np.ones((1, 2)))

    assert {"auc": 0.5, "loss": 1.0} == means.logs()


def test_logs_are_plain_floats_sorted_by_name():
    means = means_of(True, True, False)
    means.extend(np.array([[1, 2, 3]], "float32"), np.ones((1, 3), "float32"))

    assert [("a", 2.0), ("b", 3.0), ("c", 1.0)] == list(means.logs().items())
    assert {float} == set(map(type, means.logs().values()))


def test_means_are_published_to_the_metrics_that_they_belong_to():
    """`metric.result()` says what the logs say; a metric with a state of its own is left alone."""
    loss, root = keras.metrics.Mean(name="loss"), keras.metrics.RootMeanSquaredError(name="root")
    root.update_state([0.0, 1.0], [2.0, 3.0])
    before = [variable.numpy() for variable in root.variables]
    means = RunningMeans(Columns(("extra", "loss", "root"), (True, True, False)))
    means.extend(np.array([[9.0, 1.0, 0.5], [9.0, 2.0, 0.7]]), np.array([[1.0, 3.0, 1.0], [1.0, 1.0, 1.0]]))
    means.publish({"loss": loss, "root": root})

    assert means.logs()["loss"] == float(loss.result()) == 1.25
    assert 4.0 == float(loss.count)
    assert_bit_equal(before, [variable.numpy() for variable in root.variables])

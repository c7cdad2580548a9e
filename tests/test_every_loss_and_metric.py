"""Every form in which Keras takes losses, metrics, weights, masks and penalties, each held against `model.fit`.

The names of the rows are listed in `docs/`. How the forms go together, Hypothesis tries in
`test_equal_to_fit_drawn.py`.
"""

from collections import namedtuple
from typing import Any

import attrs
import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Trainer
from tests.helpers import assert_bit_equal, weights_of

NUM_SAMPLES, NUM_STEPS, NUM_CLASSES = 12, 3, 4
BATCH_SIZE = 4  # which divides the samples: Keras averages the losses of several outputs over batches, unless it does
TOLERANCE = {"rtol": 1e-6, "atol": 1e-7}  # ours sums in float64, Keras in float32

random = np.random.default_rng(0)
X = random.normal(size=(NUM_SAMPLES, 4)).astype("float32")
TOKENS = random.integers(0, 3, (NUM_SAMPLES, NUM_STEPS))  # of which 0 is masked
NUMBER = random.normal(size=(NUM_SAMPLES, 1)).astype("float32")
PLACE = random.normal(size=(NUM_SAMPLES, 2)).astype("float32")
CLASS = random.integers(0, NUM_CLASSES, NUM_SAMPLES)
ONE_HOT = np.eye(NUM_CLASSES, dtype="float32")[CLASS]
BINARY = random.integers(0, 2, (NUM_SAMPLES, 1))
CLASS_OF_STEP = random.integers(0, NUM_CLASSES, (NUM_SAMPLES, NUM_STEPS))
WEIGHT = random.uniform(0, 2, NUM_SAMPLES).astype("float32")
OTHER_WEIGHT = random.uniform(0, 2, NUM_SAMPLES).astype("float32")
WEIGHT_OF_STEP = random.uniform(0, 2, (NUM_SAMPLES, NUM_STEPS)).astype("float32")

SPARSE, ENTROPY = "sparse_categorical_crossentropy", "categorical_crossentropy"
L, M = keras.layers, keras.metrics


@attrs.frozen
class Row:
    """A compiled model and what `fit` is given."""

    model: keras.Model
    y: Any
    x: Any = X
    sample_weight: Any = None
    class_weight: dict[int, float] | None = None

    @property
    def parts(self):
        """What a batch consists of."""
        return tuple(part for part in (self.x, self.y, self.sample_weight) if part is not None)


def compiled(model, compile_arguments):
    model.compile(keras.optimizers.SGD(0.1), **compile_arguments)
    return model


def numbers(**compile_arguments):
    """One output, (samples, 2)."""
    inputs = keras.Input((4,))
    return compiled(keras.Model(inputs, L.Dense(2, name="place")(inputs)), compile_arguments)


def classes(**compile_arguments):
    layers = [keras.Input((4,)), L.Dense(NUM_CLASSES, activation="softmax", name="kind")]
    return compiled(keras.Sequential(layers), compile_arguments)


def binary(**compile_arguments):
    return compiled(keras.Sequential([keras.Input((4,)), L.Dense(1, activation="sigmoid")]), compile_arguments)


def masked(**compile_arguments):
    """A class for each step of a sequence, (samples, steps, classes); where the token is 0 there is none."""
    layers = [
        keras.Input((NUM_STEPS,), dtype="int64"),
        L.Embedding(3, 4, mask_zero=True),
        L.Dense(NUM_CLASSES, activation="softmax"),
    ]
    return compiled(keras.Sequential(layers), compile_arguments)


def in_dict(kind, size):
    return {"size": size, "kind": kind}


def nested(kind, size):
    return {"outer": {"size": size, "kind": kind}}


Pair = namedtuple("Pair", "kind size")


def in_list(kind, size):
    return [kind, size]


def several(hold, **compile_arguments):
    """The outputs "kind", (samples, classes), and "size", (samples, 1), held together by `hold`."""
    inputs = keras.Input((4,))
    kind, size = L.Dense(NUM_CLASSES, activation="softmax", name="kind")(inputs), L.Dense(1, name="size")(inputs)
    return compiled(keras.Model(inputs, hold(kind, size)), compile_arguments)


class Subclassed(keras.Model):
    """The outputs of `several`, of which Keras knows no names."""

    def __init__(self, hold):
        super().__init__()
        self.hold, self.kind, self.size = hold, L.Dense(NUM_CLASSES, activation="softmax"), L.Dense(1)

    def call(self, inputs):
        return self.hold(self.kind(inputs), self.size(inputs))


def subclassed(hold, **compile_arguments):
    return compiled(Subclassed(hold), compile_arguments)


def cubed_error(y, y_pred):
    return keras.ops.mean(keras.ops.abs(y - y_pred) ** 3, axis=-1)


class CubedError(keras.losses.Loss):
    def call(self, y, y_pred):
        return cubed_error(y, y_pred)


class OfAllOutputs(keras.losses.Loss):
    """A loss that is given the dict of outputs."""

    def call(self, y, y_pred):
        return cubed_error(y["size"], y_pred["size"]) + keras.losses.sparse_categorical_crossentropy(
            y["kind"], y_pred["kind"]
        )


class Extremes(M.Metric):
    """A metric with two results."""

    def __init__(self):
        super().__init__(name="extremes")
        self.least, self.most = (self.add_variable((), keras.initializers.Zeros(), name=n) for n in ("least", "most"))

    def update_state(self, y, y_pred, sample_weight=None):
        self.least.assign(keras.ops.minimum(self.least, keras.ops.min(y_pred)))
        self.most.assign(keras.ops.maximum(self.most, keras.ops.max(y_pred)))

    def result(self):
        return {"least": keras.ops.copy(self.least), "most": keras.ops.copy(self.most)}


class Penalty(L.Layer):
    def call(self, inputs):
        self.add_loss(0.1 * keras.ops.mean(keras.ops.square(inputs)))
        return inputs


class Penalised(keras.Model):
    """A model that adds a loss itself, and needs no targets."""

    def __init__(self):
        super().__init__()
        self.dense = L.Dense(2)

    def call(self, inputs):
        outputs = self.dense(inputs)
        self.add_loss(keras.ops.mean(keras.ops.square(outputs)))
        return outputs


def penalised(*layers, **compile_arguments):
    """One output, (samples, 2), behind the layers."""
    return compiled(keras.Sequential([keras.Input((4,)), *layers, L.Dense(2)]), {"loss": "mse"} | compile_arguments)


def recurrent():
    layers = [keras.Input((4,)), L.Reshape((2, 2)), L.GRU(2, recurrent_regularizer="l2", activity_regularizer="l1")]
    return compiled(keras.Sequential(layers), {"loss": "mse"})


def embedded():
    layers = [keras.Input((NUM_STEPS,)), L.Embedding(3, 2, embeddings_regularizer="l2"), L.Flatten(), L.Dense(2)]
    return compiled(keras.Sequential(layers), {"loss": "mse"})


def frozen():
    layer = L.Dense(3, kernel_regularizer="l2")
    layer.trainable = False
    return penalised(layer)


def one_hot_of_steps():
    return np.eye(NUM_CLASSES, dtype="float32")[CLASS_OF_STEP]


MIXED = {"kind": SPARSE, "size": "mse"}
EACH = in_dict(CLASS, NUMBER)

LOSSES = {
    "loss: string": lambda: Row(numbers(loss="MAE"), PLACE),
    "loss: name of its class": lambda: Row(numbers(loss="LogCosh"), PLACE),
    "loss: crossentropy of class numbers": lambda: Row(classes(loss="crossentropy"), CLASS),
    "loss: crossentropy of one-hot targets": lambda: Row(classes(loss="ce"), ONE_HOT),
    "loss: function": lambda: Row(numbers(loss=cubed_error), PLACE),
    "loss: object": lambda: Row(numbers(loss=keras.losses.Huber(0.3)), PLACE),
    "loss: object of one's own class": lambda: Row(numbers(loss=CubedError(name="own")), PLACE),
    "loss: reduction sum": lambda: Row(numbers(loss=keras.losses.MeanSquaredError("sum")), PLACE),
    "loss: reduction mean": lambda: Row(numbers(loss=keras.losses.MeanSquaredError("mean")), PLACE),
    "loss: reduction none": lambda: Row(numbers(loss=keras.losses.MeanSquaredError("none")), PLACE),
    "loss: reduction mean_with_sample_weight": lambda: Row(
        numbers(loss=keras.losses.MeanSquaredError("mean_with_sample_weight")), PLACE, sample_weight=WEIGHT
    ),
    "loss: list of one": lambda: Row(numbers(loss=["mse"]), PLACE),
    "loss: dict of one output's name": lambda: Row(numbers(loss={"place": "mse"}), PLACE),
    "loss: none but add_loss": lambda: Row(compiled(Penalised(), {}), None),
    "loss: one for all outputs": lambda: Row(several(in_list, loss="mse"), [ONE_HOT, NUMBER]),
    "loss: list": lambda: Row(several(in_list, loss=[SPARSE, "mse"]), [CLASS, NUMBER]),
    "loss: list, of a tuple of outputs": lambda: Row(several(Pair, loss=[SPARSE, "mse"]), (CLASS, NUMBER)),
    "loss: list, of nested outputs": lambda: Row(several(nested, loss=[SPARSE, "mse"]), nested(CLASS, NUMBER)),
    "loss: dict by output name": lambda: Row(several(in_dict, loss=MIXED), EACH),
    "loss: dict by output name, of a list of outputs": lambda: Row(several(in_list, loss=MIXED), [CLASS, NUMBER]),
    "loss: nested like the outputs": lambda: Row(several(nested, loss=nested(SPARSE, "mse")), nested(CLASS, NUMBER)),
    "loss: dict of which one is None": lambda: Row(several(in_dict, loss={"kind": None, "size": "mse"}), EACH),
    "loss: dict that leaves an output out": lambda: Row(several(in_dict, loss={"size": "mse"}), EACH),
    "loss: two of one of several outputs": lambda: Row(
        several(in_list, loss=[SPARSE, ["mse", "mae"]]), [CLASS, NUMBER]
    ),
    "loss: object of all outputs together": lambda: Row(several(in_dict, loss=[OfAllOutputs()]), EACH),
    "loss: list, of a subclassed model": lambda: Row(subclassed(in_list, loss=[SPARSE, "mse"]), [CLASS, NUMBER]),
    "loss: dict, of a subclassed model": lambda: Row(subclassed(in_dict, loss=MIXED), EACH),
    "targets: of the one output with a loss": lambda: Row(several(in_list, loss=[SPARSE, None]), [CLASS]),
    "targets: dict for a list of outputs": lambda: Row(several(in_list, loss=[SPARSE, "mse"]), EACH),
    "targets: tuple for a list of outputs": lambda: Row(several(in_list, loss=[SPARSE, "mse"]), (CLASS, NUMBER)),
    "targets: a column of class numbers": lambda: Row(classes(loss=SPARSE, metrics=["accuracy"]), CLASS[:, None]),
}

LOSS_WEIGHTS = {
    "loss_weights: number": lambda: Row(numbers(loss="mse", loss_weights=0.3), PLACE),
    "loss_weights: list": lambda: Row(several(in_list, loss=[SPARSE, "mse"], loss_weights=[0.3, 2.0]), [CLASS, NUMBER]),
    "loss_weights: list beside a dict of losses": lambda: Row(
        several(in_dict, loss=MIXED, loss_weights=[0.3, 2.0]), EACH
    ),
    "loss_weights: dict": lambda: Row(several(in_dict, loss=MIXED, loss_weights={"size": 2.0, "kind": 0.3}), EACH),
    "loss_weights: nested like the outputs": lambda: Row(
        several(nested, loss=nested(SPARSE, "mse"), loss_weights=nested(0.3, 2.0)), nested(CLASS, NUMBER)
    ),
    "loss_weights: beside an output without a loss": lambda: Row(
        several(in_list, loss=[SPARSE, None], loss_weights=[0.3, 2.0]), [CLASS, NUMBER]
    ),
}


def metrics_of_classes(*metrics, y=CLASS, loss=SPARSE, **compile_arguments):
    return Row(classes(loss=loss, metrics=list(metrics), **compile_arguments), y)


def metrics_of_several(metrics, hold=in_dict, loss=MIXED):
    return Row(several(hold, loss=loss, metrics=metrics), hold(CLASS, NUMBER))


METRICS = {
    "metrics: function": lambda: Row(
        numbers(loss="mse", metrics=[cubed_error, keras.metrics.mean_squared_error]), PLACE
    ),
    "metrics: dict of one output's name": lambda: Row(numbers(loss="mse", metrics={"place": ["mae", "mse"]}), PLACE),
    "metrics: accuracy of class numbers": lambda: metrics_of_classes("accuracy", "acc"),
    "metrics: AUC, precision and recall": lambda: Row(
        binary(loss="binary_crossentropy", metrics=[M.AUC(num_thresholds=9), M.Precision(0.4), "Recall"]), BINARY
    ),
    "metrics: F1Score of each class": lambda: metrics_of_classes(M.F1Score(average=None), y=ONE_HOT, loss=ENTROPY),
    "metrics: MeanIoU": lambda: metrics_of_classes(M.MeanIoU(NUM_CLASSES, sparse_y_pred=False)),
    "metrics: RootMeanSquaredError, R2Score and PearsonCorrelation": lambda: Row(
        numbers(loss="mse", metrics=[M.RootMeanSquaredError(), M.R2Score(), M.PearsonCorrelation()]), PLACE
    ),
    "metrics: several results of one": lambda: Row(numbers(loss="mse", metrics=[Extremes(), "mae"]), PLACE),
    "metrics: the same twice": lambda: Row(numbers(loss="mse", metrics=["mae", "mae"]), PLACE),
    "metrics: list, an entry for each output": lambda: metrics_of_several([["accuracy", SPARSE], "mae"], in_list),
    "metrics: dict by output name": lambda: metrics_of_several(
        {"kind": "accuracy", "size": [M.RootMeanSquaredError()]}
    ),
    "metrics: nested like the outputs": lambda: metrics_of_several(
        nested(["accuracy"], ["mae", M.R2Score()]), nested, nested(SPARSE, "mse")
    ),
    "metrics: dict, of a subclassed model": lambda: Row(
        subclassed(in_dict, loss=MIXED, metrics={"kind": ["accuracy"], "size": ["mae"]}), EACH
    ),
    "metrics: of an output without a loss": lambda: metrics_of_several(
        {"kind": ["accuracy"], "size": ["mae"]}, loss={"kind": SPARSE, "size": None}
    ),
    "weighted_metrics: with weights": lambda: Row(
        numbers(loss="mse", weighted_metrics=["mae", M.RootMeanSquaredError()]), PLACE, sample_weight=WEIGHT
    ),
    "weighted_metrics: the same as metrics": lambda: Row(
        numbers(loss="mse", metrics=["mae"], weighted_metrics=["mae", "mae"]), PLACE, sample_weight=WEIGHT
    ),
    "weighted_metrics: with state": lambda: Row(
        classes(loss=ENTROPY, weighted_metrics=[M.AUC(num_thresholds=9), M.F1Score(average=None)]),
        ONE_HOT,
        sample_weight=WEIGHT,
    ),
    "weighted_metrics: dict by output name": lambda: Row(
        several(
            in_dict, loss=MIXED, metrics={"size": ["mae"]}, weighted_metrics={"kind": ["accuracy"], "size": ["mae"]}
        ),
        EACH,
        sample_weight=in_dict(WEIGHT, OTHER_WEIGHT),
    ),
}


def weighted(sample_weight, y=PLACE):
    return Row(numbers(loss="mse", metrics=["mae"], weighted_metrics=["mse"]), y, sample_weight=sample_weight)


def weighted_by_class(model, y, class_weight):
    return Row(model(loss="crossentropy", metrics=["acc"], weighted_metrics=["accuracy"]), y, class_weight=class_weight)


def weighted_several(hold, y, sample_weight, **compile_arguments):
    return Row(several(hold, **compile_arguments), y, sample_weight=sample_weight)


WEIGHTS = {
    "sample_weight: one for each sample": lambda: weighted(WEIGHT),
    "sample_weight: whole numbers, some 0": lambda: weighted(np.arange(NUM_SAMPLES) % 3),
    "sample_weight: one array for several outputs": lambda: weighted_several(
        in_dict, EACH, WEIGHT, loss=MIXED, weighted_metrics={"size": ["mae"]}
    ),
    "sample_weight: dict by output name": lambda: weighted_several(
        in_dict, EACH, in_dict(WEIGHT, OTHER_WEIGHT), loss=MIXED, loss_weights={"size": 2.0, "kind": 0.3}
    ),
    "sample_weight: nested like the outputs": lambda: weighted_several(
        nested, nested(CLASS, NUMBER), nested(WEIGHT, OTHER_WEIGHT), loss=nested(SPARSE, "mse")
    ),
    "sample_weight: one for each step": lambda: Row(
        masked(loss=SPARSE, metrics=["acc"], weighted_metrics=["accuracy"]), CLASS_OF_STEP, TOKENS, WEIGHT_OF_STEP
    ),
    "class_weight: of class numbers": lambda: weighted_by_class(classes, CLASS, {0: 0.5, 1: 2.0, 2: 1.5, 3: 0.1}),
    "class_weight: of one-hot targets": lambda: weighted_by_class(classes, ONE_HOT, {0: 0.5, 1: 2.0, 2: 1.5, 3: 0.1}),
    "class_weight: of two classes": lambda: weighted_by_class(binary, BINARY, {0: 0.5, 1: 2.0}),
}


MASKS = {
    "mask: of a loss that sums": lambda: Row(
        masked(loss=keras.losses.SparseCategoricalCrossentropy(reduction="sum")), CLASS_OF_STEP, TOKENS
    ),
    "mask: of a loss and of means": lambda: Row(
        masked(loss=SPARSE, metrics=["accuracy", SPARSE]), CLASS_OF_STEP, TOKENS
    ),
    "mask: beside a metric with state": lambda: Row(
        masked(loss=ENTROPY, metrics=[M.AUC(num_thresholds=9)]), one_hot_of_steps(), TOKENS
    ),
}

PENALTIES = {
    "regularizer: of a kernel and a bias": lambda: Row(
        penalised(L.Dense(3, kernel_regularizer="l2", bias_regularizer=keras.regularizers.L1L2(0.1, 0.2))), PLACE
    ),
    "regularizer: of recurrent weights": lambda: Row(recurrent(), PLACE),
    "regularizer: of an embedding": lambda: Row(embedded(), PLACE, TOKENS),
    "regularizer: function": lambda: Row(
        penalised(L.Dense(3, kernel_regularizer=lambda w: 0.1 * keras.ops.sum(w**2))), PLACE
    ),
    "regularizer: of a layer that is not trained": lambda: Row(frozen(), PLACE),
    "activity regularizer": lambda: Row(penalised(L.Dense(3, activity_regularizer="l2")), PLACE),
    "add_loss: in a layer": lambda: Row(penalised(L.Dense(3), Penalty()), PLACE),
    "add_loss: in the model, beside a loss": lambda: Row(compiled(Penalised(), {"loss": "mse"}), PLACE),
}

# A step that tests computes losses and metrics by the functions of one that trains, and is traced as slowly.
VALIDATED = {
    "loss: dict by output name",
    "metrics: nested like the outputs",
    "weighted_metrics: dict by output name",
    "sample_weight: one for each step",
    "class_weight: of class numbers",
    "mask: beside a metric with state",
    "add_loss: in the model, beside a loss",
}
EVALUATED = {
    "loss: reduction sum",
    "loss: list, of a subclassed model",
    "loss: none but add_loss",
    "loss_weights: list",
    "metrics: AUC, precision and recall",
    "metrics: several results of one",
    "metrics: dict, of a subclassed model",
    "weighted_metrics: the same as metrics",
    "sample_weight: dict by output name",
    "mask: of a loss that sums",
    "regularizer: of a kernel and a bias",
    "activity regularizer",
}
ROWS = LOSSES | LOSS_WEIGHTS | METRICS | WEIGHTS | MASKS | PENALTIES


def made(row):
    """The row's model, the same at every call."""
    keras.utils.clear_session(free_memory=False)  # so that names without numbers are given again
    keras.utils.set_random_seed(3)
    return row()


def assert_equal_logs(expected, given):
    assert set(expected) == set(given)
    for name, value in expected.items():
        np.testing.assert_allclose(given[name], value, err_msg=name, **TOLERANCE)


def batches(row):
    """The very batches that are made of the row's arrays, as `model.fit` is quickest to begin with them."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    dataset = tf.data.Dataset.from_tensor_slices(keras.tree.lists_to_tuples(row.parts))
    return dataset.batch(BATCH_SIZE).with_options(options)


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")  # of outputs without a loss
@pytest.mark.parametrize("name", ROWS)
def test_it_is_as_in_fit(name):
    """Weights bit by bit; the history and the scores but for the rounding of sums."""
    theirs, ours = made(ROWS[name]), made(ROWS[name])
    dataset, trainer = batches(theirs), Trainer(ours.model)
    data = {"x": ours.x, "y": ours.y, "sample_weight": ours.sample_weight, "batch_size": BATCH_SIZE}
    arguments = {"epochs": 2, "shuffle": False, "class_weight": ours.class_weight, "verbose": 0}
    is_validated = name in VALIDATED
    expected = theirs.model.fit(dataset, validation_data=dataset if is_validated else None, **arguments).history
    given = trainer.fit(**data, validation_data=ours.parts if is_validated else None, **arguments).history

    assert_bit_equal(weights_of(theirs.model), weights_of(ours.model))
    assert_equal_logs(expected, given)
    if name in EVALUATED:
        assert_equal_logs(
            theirs.model.evaluate(dataset, verbose=0, return_dict=True), trainer.evaluate(**data, verbose=0)
        )

"""Trainings as values: what a model is made of, how it is compiled, what it is fed; `strategies.py` draws them.

```python
training = Training(network, compiled, run)
model = training.model()        # every call builds the same model anew
x, y, sample_weight = training.data(40)
```
"""

from collections.abc import Callable
from typing import Any

import attrs
import keras
import numpy as np

NUM_STEPS, NUM_TOKENS, NUM_CLASSES = 3, 6, 4
NAMES = ("tail", "head", "mid")  # of outputs, in no alphabetical order


class Penalty(keras.layers.Layer):
    """Hands its input on, and adds a loss."""

    def call(self, inputs):
        self.add_loss(0.01 * keras.ops.mean(keras.ops.square(inputs)))
        return inputs


class Subclassed(keras.Model):
    """A model whose inputs and outputs Keras learns of when it is called."""

    def __init__(self, layers, body):
        super().__init__()
        self.parts, self.body = layers, body

    def call(self, inputs):
        outputs = self.body(inputs)
        self.add_loss(0.001 * keras.ops.sum(keras.ops.square(keras.tree.flatten(outputs)[0])))
        return outputs


def cubed_error(y, y_pred):
    return keras.ops.mean(keras.ops.abs(keras.ops.cast(y, y_pred.dtype) - y_pred) ** 3, axis=-1)


L, M = keras.layers, keras.metrics
ANYWHERE = {
    "activity": lambda: L.Dense(5, activation="relu", activity_regularizer="l1"),
    "batch normalisation": L.BatchNormalization,
    "dense": lambda: L.Dense(6, activation="tanh", kernel_regularizer="l2", bias_regularizer="l1"),
    "dropout": lambda: L.Dropout(0.4),
    "layer normalisation": L.LayerNormalization,
    "noise": lambda: L.GaussianNoise(0.1),
}
LAYERS = {
    "vector": ANYWHERE
    | {
        "constrained": lambda: L.Dense(4, kernel_constraint=keras.constraints.MaxNorm(0.5)),
        "model": lambda: keras.Sequential([L.Reshape((-1, 1)), L.GRU(3), L.Dropout(0.2)]),
        "penalty": Penalty,
    },
    "sequence": ANYWHERE
    | {
        "convolution": lambda: L.Conv1D(3, 2, padding="same", activation="relu"),
        "gru": lambda: L.GRU(3, return_sequences=True, recurrent_dropout=0.2),
        "penalty": Penalty,
    },
    "tokens": ANYWHERE
    | {
        "both ways": lambda: L.Bidirectional(L.GRU(2, return_sequences=True)),
        "lstm": lambda: L.LSTM(3, return_sequences=True, kernel_regularizer="l2"),
    },
}
FIRST = {"vector": L.Identity, "sequence": L.Identity, "tokens": lambda: L.Embedding(NUM_TOKENS, 3, mask_zero=True)}
LAST = {"vector": L.Identity, "sequence": L.Flatten, "tokens": L.GlobalAveragePooling1D}
INPUTS = {
    "vector": lambda random, n: random.normal(size=(n, 4)).astype("float32"),
    "sequence": lambda random, n: random.normal(size=(n, NUM_STEPS, 2)).astype("float32"),
    "tokens": lambda random, n: random.integers(0, NUM_TOKENS, (n, NUM_STEPS)),
}


@attrs.frozen
class Kind:
    """What an output may be: its layer, targets for it, and what they may be compared by."""

    layer: Callable[[str], keras.layers.Layer]
    targets: Callable[[np.random.Generator, int], Any]
    losses: dict[str, Callable[[], Any]]
    metrics: dict[str, Callable[[], Any]]


def _softmax(name: str) -> keras.layers.Layer:
    return L.Dense(NUM_CLASSES, activation="softmax", name=name)


SPARSE = keras.losses.SparseCategoricalCrossentropy
LOSSES_OF_NUMBERS = {
    "by shape": lambda: "crossentropy",
    "function": lambda: keras.losses.sparse_categorical_crossentropy,
    "ignoring a class": lambda: SPARSE(ignore_class=1),
    "mean by weight": lambda: SPARSE(reduction="mean_with_sample_weight"),
    "string": lambda: "sparse_categorical_crossentropy",
    "sum": lambda: SPARSE(reduction="sum"),
}
METRICS_OF_NUMBERS = {
    "by shape": lambda: "accuracy",
    "function": lambda: keras.metrics.sparse_categorical_crossentropy,
    "top 2": lambda: M.SparseTopKCategoricalAccuracy(2),
    "union": lambda: M.MeanIoU(NUM_CLASSES, sparse_y_pred=False, dtype="float32"),
}
KINDS = {
    "binary": Kind(
        lambda name: L.Dense(1, activation="sigmoid", name=name),
        lambda random, n: random.integers(0, 2, (n, 1)),
        {
            "by shape": lambda: "crossentropy",
            "focal": lambda: keras.losses.BinaryFocalCrossentropy(apply_class_balancing=True),
            "string": lambda: "binary_crossentropy",
        },
        {
            "area": lambda: M.AUC(num_thresholds=7, curve="PR"),
            "at recall": lambda: M.PrecisionAtRecall(0.5, num_thresholds=7),
            "by shape": lambda: "accuracy",
            "recall": lambda: "Recall",
        },
    ),
    "classes": Kind(
        _softmax, lambda random, n: random.integers(0, NUM_CLASSES, n), LOSSES_OF_NUMBERS, METRICS_OF_NUMBERS
    ),
    "numbers": Kind(
        lambda name: L.Dense(2, kernel_regularizer="l2", name=name),
        lambda random, n: random.normal(size=(n, 2)).astype("float32"),
        {
            "class name": lambda: "LogCosh",
            "function": lambda: keras.losses.mean_absolute_error,
            "object": lambda: keras.losses.Huber(0.5, reduction="sum"),
            "own": lambda: cubed_error,
            "string": lambda: "mse",
        },
        {
            "angle": M.CosineSimilarity,
            "own": lambda: cubed_error,
            "root": M.RootMeanSquaredError,
            "share": M.R2Score,
            "string": lambda: "mae",
        },
    ),
    "one-hot": Kind(
        _softmax,
        lambda random, n: np.eye(NUM_CLASSES, dtype="float32")[random.integers(0, NUM_CLASSES, n)],
        {
            "by shape": lambda: "ce",
            "focal": lambda: keras.losses.CategoricalFocalCrossentropy(reduction="mean"),
            "smooth": lambda: keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
            "string": lambda: "categorical_crossentropy",
        },
        {
            "area": lambda: M.AUC(num_thresholds=7, multi_label=True),
            "by shape": lambda: "acc",
            "entropy": lambda: "categorical_crossentropy",
            "of each class": lambda: M.F1Score(average=None),
            "precision": lambda: M.Precision(class_id=1),
        },
    ),
    "steps": Kind(
        _softmax,
        lambda random, n: random.integers(0, NUM_CLASSES, (n, NUM_STEPS)),
        LOSSES_OF_NUMBERS,
        METRICS_OF_NUMBERS,
    ),
}


def _rest(leaves: list[Any]) -> dict[str, Any]:
    return {"inner": leaves[2]} if len(leaves) > 2 else {}


STRUCTURES = {
    "dict": lambda leaves: dict(zip(NAMES, leaves, strict=False)),
    "list": list,
    "nested dict": lambda leaves: {"outer": dict(zip(NAMES, leaves[:2], strict=False)), **_rest(leaves)},
    "single": lambda leaves: leaves[0],
    "tuple": tuple,
    "tuple in a dict": lambda leaves: {"outer": tuple(leaves[:2]), **_rest(leaves)},
}


def _of_parts() -> keras.optimizers.Optimizer:
    own = keras.optimizers.SGD(0.05, momentum=0.9)
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.Adam(0.01), {f"(.*/)?{NAMES[0]}/.*": own})
    )


OPTIMIZERS = {
    "accumulated": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "adam, clipped": lambda: keras.optimizers.Adam(0.01, clipnorm=0.1),
    "adam, clipped as a whole": lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.5),
    "adamw, averaged": lambda: keras.optimizers.AdamW(0.01, use_ema=True, ema_momentum=0.8),
    "rmsprop, scheduled": lambda: keras.optimizers.RMSprop(keras.optimizers.schedules.ExponentialDecay(0.01, 3, 0.7)),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), dynamic_growth_steps=2),
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "two of them": _of_parts,
}


@attrs.frozen
class Branch:
    """An input, and the layers behind it, by their names in `LAYERS`."""

    kind: str
    layers: tuple[str, ...] = ()


@attrs.frozen
class Head:
    """An output: its kind in `KINDS`, and the names of its loss (None: without) and metrics."""

    kind: str
    loss: str | None
    loss_weight: float = 1.0
    metrics: tuple[str, ...] = ()
    weighted_metrics: tuple[str, ...] = ()


@attrs.frozen
class Network:
    """A model: how it is made ("sequential", "functional", "subclassed"), what goes in and what comes out.

    Several inputs are a "list" or a "dict"; outputs are held together as `STRUCTURES` says.
    """

    kind: str
    branches: tuple[Branch, ...]
    heads: tuple[Head, ...]
    inputs: str = "list"
    outputs: str = "single"

    def build(self) -> keras.Model:
        """The same model at every call, its weights and its dropout included."""
        keras.utils.clear_session(free_memory=False)  # so that names without numbers are given again
        keras.utils.set_random_seed(5)
        columns = [
            [FIRST[branch.kind](), *(LAYERS[branch.kind][name]() for name in branch.layers)] for branch in self.branches
        ]
        pools = [LAST[branch.kind]() for branch in self.branches]
        heads = [KINDS[head.kind].layer(name) for head, name in zip(self.heads, NAMES, strict=False)]
        inputs = self.of_inputs(
            [keras.Input(x.shape[1:], dtype=x.dtype, name=f"x{i}") for i, x in enumerate(self._inputs(1))]
        )
        if self.kind == "sequential":
            pool = [] if self.heads[0].kind == "steps" else pools
            return keras.Sequential([inputs, *columns[0], *pool, *heads])

        def body(inputs: Any) -> Any:
            return self._outputs(inputs, columns, pools, heads)

        if self.kind == "functional":
            return keras.Model(inputs, body(inputs))
        return Subclassed([*(layer for column in columns for layer in column), *pools, *heads], body)

    def data(self, num_samples: int) -> tuple[Any, Any]:
        """Inputs and targets, the same ones at every call."""
        random = np.random.default_rng(num_samples)
        targets = [KINDS[head.kind].targets(random, num_samples) for head in self.heads]
        return self.of_inputs(self._inputs(num_samples)), self.of_outputs(targets)

    def of_inputs(self, leaves: list[Any]) -> Any:
        """One leaf for each input, held together as the model takes them."""
        if len(leaves) == 1:
            return leaves[0]
        return leaves if self.inputs == "list" else {f"x{i}": leaf for i, leaf in enumerate(leaves)}

    def of_outputs(self, leaves: list[Any]) -> Any:
        """One leaf for each output, held together as the model gives them."""
        return STRUCTURES[self.outputs](leaves)

    def _inputs(self, num_samples: int) -> list[Any]:
        random = np.random.default_rng(num_samples)
        return [INPUTS[branch.kind](random, num_samples) for branch in self.branches]

    def _outputs(self, inputs: Any, columns: Any, pools: Any, heads: Any) -> Any:
        leaves = [inputs] if len(columns) == 1 else inputs if self.inputs == "list" else list(inputs.values())
        ends = []
        for tensor, column in zip(leaves, columns, strict=True):
            for layer in column:
                tensor = layer(tensor)
            ends.append(tensor)
        vectors = [pool(end) for pool, end in zip(pools, ends, strict=True)]
        vector = keras.layers.concatenate(vectors) if len(vectors) > 1 else vectors[0]
        steps = [end for end, branch in zip(ends, self.branches, strict=True) if branch.kind != "vector"]
        of_head = {head.kind: steps[0] if head.kind == "steps" else vector for head in self.heads}
        return self.of_outputs([layer(of_head[head.kind]) for layer, head in zip(heads, self.heads, strict=True)])


@attrs.frozen
class Compiled:
    """How a model is compiled: in which form its losses and its metrics are given, and the name of its optimizer.

    Losses are "like the outputs", "flat", "by name" or "one for all"; metrics "like the outputs" or "by name".
    """

    losses: str = "like the outputs"
    has_loss_weights: bool = False
    metrics: str = "like the outputs"
    optimizer: str = "sgd"


@attrs.frozen
class Run:
    """What a model is trained on, and for how long.

    The feed is "shuffled arrays", "arrays" as they stand, or "dataset"; weights are "none", "of samples", "of outputs"
    or "of classes". None are held out where nothing is validated.
    """

    feed: str = "arrays"
    weights: str = "none"
    num_samples: int = 20
    num_held_out: int = 0
    batch_size: int = 8
    epochs: int = 2
    steps_per_execution: int | str = 1


@attrs.frozen
class Training:
    """A model, how it is compiled, and what it is trained on."""

    network: Network
    compiled: Compiled
    run: Run

    def model(self) -> keras.Model:
        """The compiled model, the same at every call."""
        model = self.network.build()
        heads = self.network.heads
        losses = [None if head.loss is None else KINDS[head.kind].losses[head.loss]() for head in heads]
        loss_weights = [head.loss_weight for head in heads]
        model.compile(
            OPTIMIZERS[self.compiled.optimizer](),
            loss=self._of_losses(losses),
            loss_weights=self._of_losses(loss_weights) if self.compiled.has_loss_weights else None,
            metrics=self._of_metrics([head.metrics for head in heads]),
            weighted_metrics=self._of_metrics([head.weighted_metrics for head in heads]),
        )
        return model

    def data(self, num_samples: int) -> tuple[Any, Any, Any]:
        """Inputs, targets and sample weights, or None for these."""
        x, y = self.network.data(num_samples)
        random = np.random.default_rng(num_samples)
        if self.run.weights == "of samples":
            return x, y, random.uniform(0, 2, num_samples).astype("float32")
        if self.run.weights == "of outputs":
            shapes = [
                (num_samples, NUM_STEPS) if head.kind == "steps" else (num_samples,) for head in self.network.heads
            ]
            return x, y, self.network.of_outputs([random.uniform(0, 2, shape).astype("float32") for shape in shapes])
        return x, y, None

    @property
    def class_weight(self) -> dict[int, float] | None:
        """Class 2 is left out, and weighs 1; the last is not, since Keras fails on datasets with classes above."""
        return {0: 0.5, 1: 3.0, NUM_CLASSES - 1: 2.0} if self.run.weights == "of classes" else None

    def _of_losses(self, leaves: list[Any]) -> Any:
        form = self.compiled.losses
        if form == "one for all":
            return leaves[0]
        if form == "by name":
            return dict(zip(NAMES, leaves, strict=False))
        structure = self.network.of_outputs(leaves)
        return keras.tree.flatten(structure) if form == "flat" else structure

    def _of_metrics(self, names: list[tuple[str, ...]]) -> Any:
        leaves = [
            [KINDS[head.kind].metrics[n]() for n in own] for own, head in zip(names, self.network.heads, strict=True)
        ]
        if self.compiled.metrics == "by name":
            return dict(zip(NAMES, leaves, strict=False))
        return self.network.of_outputs(leaves)

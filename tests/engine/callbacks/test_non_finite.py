"""Bad batches at drawn places; the oracle is the same training on data that never had them."""

import contextlib
import copy
import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from engine import Callback, ConfigError, Every, Trainer
from engine.callbacks import NonFinite, TerminateOnNaN
from engine.errors import NonFiniteError
from tests.helpers import NUM_CLASSES, Recorder, assert_bit_equal
from tests.strategies import examples

pytestmark = pytest.mark.shares_models
NUM_BATCHES, EPOCHS = 6, 2
X = np.random.default_rng(0).normal(size=(EPOCHS * NUM_BATCHES, 4, 4)).astype("float32")
Y = np.eye(NUM_CLASSES, dtype="float32")[X[..., :NUM_CLASSES].argmax(-1)]
SPEC = (tf.TensorSpec((None, 4), tf.float32), tf.TensorSpec((None, NUM_CLASSES), tf.float32))


@tf.custom_gradient
def scaled(x, weight):
    """x * weight, with a gradient that is no number where there is something above 100 in x: the loss stays finite."""
    clipped = tf.where(x > 100, 3.0, x)

    def gradient(upstream):
        spoilt = tf.where(tf.reduce_max(x) > 100, np.nan, 1.0)
        return upstream * weight, spoilt * tf.reduce_sum(upstream * clipped, 0)

    return clipped * weight, gradient


@keras.saving.register_keras_serializable("tests")  # so that a callback that holds the model can be copied
class Scales(keras.layers.Layer):
    def build(self, input_shape):
        self.weight = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="weight")

    def call(self, x):
        return scaled(x, tf.convert_to_tensor(self.weight))


BAD = {"x": (np.nan, None), "y": (None, np.inf), "gradient": (1000.0, None)}


def batch(place, bad=None):
    """The batch of a place, 0 to 11, as it is, or spoilt in one of the ways of `BAD`."""
    x, y = X[place].copy(), Y[place].copy()
    for array, value in zip((x, y), BAD.get(bad, (None, None)), strict=True):
        if value is not None:
            array[0, 0] = value
    return x, y


def dataset(epochs):
    """A list of batches for each epoch, one after the other."""
    passes = iter(epochs)
    return tf.data.Dataset.from_generator(lambda: iter(next(passes)), output_signature=SPEC)


def make(optimizer=None, scope=None):
    """All that a bad step could spoil: weights, moments, statistics, seeds and a metric with state."""
    keras.utils.set_random_seed(1)
    with scope or contextlib.nullcontext():
        model = keras.Sequential([
            keras.Input((4,)),
            Scales(),
            keras.layers.Dense(5, activation="tanh"),  # a relu makes 0 of NaN
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(NUM_CLASSES, activation="softmax"),
        ])  # fmt: skip
        area = keras.metrics.AUC(num_thresholds=20, name="area")
        optimizer = optimizer or keras.optimizers.Adam(0.05)
        model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy", area])
        optimizer.build(model.trainable_variables)
    return model


def values_of(model):
    return [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]


class Bench:
    """Fits one model again and again from where it began, since tracing takes seconds."""

    def __init__(self, *, optimizer=None, scope=None, **how):
        self.model = make(optimizer, scope)
        self.trainer = Trainer(self.model, **how)
        self.first = values_of(self.model)

    def begin(self):
        for variable, value in zip((*self.model.variables, *self.model.optimizer.variables), self.first, strict=True):
            variable.assign(value)

    def fit(self, epochs, callbacks=()):
        """The history of a fit from the beginning; of no batch at all, none."""
        self.begin()
        if not epochs:
            return {}
        data = dataset(epochs)
        return self.trainer.fit(data, epochs=len(epochs), callbacks=[*callbacks], verbose=0).history

    def values(self):
        return values_of(self.model)


@pytest.fixture(scope="module")
def bench():
    """A Bench for each way to run, made when it is first asked for."""
    kept = {}

    def get(how, steps):
        if (how, steps) not in kept:
            kept[how, steps] = Bench(steps_per_execution=steps, **HOW[how])
        return kept[how, steps]

    return get


HOW = {"graph": {}, "eager": {"run_eagerly": True}, "compiled by XLA": {"jit_compile": True}}
LENGTHS = [1, 4]


def left_out(are_any):
    match = "steps were not finite and were left out"
    return pytest.warns(UserWarning, match=match) if are_any else contextlib.nullcontext()


@st.composite
def spoilt(draw):
    """For each place of two epochs a way in which its batch is bad, or None; each epoch has a good one."""
    places = []
    for _ in range(EPOCHS):
        epoch = draw(st.lists(st.none() | st.sampled_from(sorted(BAD)), min_size=NUM_BATCHES, max_size=NUM_BATCHES))
        good = draw(st.integers(0, NUM_BATCHES - 1))
        places.append([None if i == good else bad for i, bad in enumerate(epoch)])
    return places


def epochs_of(places, *, with_bad=True):
    """The batches of each epoch, and those of the good places alone."""
    numbers = itertools.count()
    numbered = [[(next(numbers), bad) for bad in epoch] for epoch in places]
    return [[batch(*one) for one in epoch if with_bad or one[1] is None] for epoch in numbered]


def bad_steps(places):
    return [i + 1 for i, bad in enumerate(itertools.chain(*places)) if bad is not None]


def assert_skipped(bench, places, acts):
    expected_history = bench.fit(epochs_of(places, with_bad=False))
    expected, callback = bench.values(), NonFinite("skip", max_in_a_row=20)
    with left_out(bad_steps(places)):
        history = bench.fit(epochs_of(places), [callback, *([Recorder()] if acts else [])])

    assert_bit_equal(expected, bench.values())
    assert expected_history == history
    assert bad_steps(places) == callback.steps


@examples(5)
@given(places=spoilt(), steps=st.sampled_from(LENGTHS), acts=st.booleans())
def test_skipping_trains_as_on_data_without_the_bad_batches(bench, places, steps, acts):
    """Weights, optimizer, statistics, seeds, an area under a curve and the history, in blocks of any length."""
    assert_skipped(bench("graph", steps), places, acts)


PLACES = [[None, "x", "gradient", None, None, "y"], ["x", None, None, "gradient", None, None]]


@pytest.mark.parametrize(("how", "acts"), [("eager", True), ("compiled by XLA", False)])
def test_skipping_does_so_too_where_the_step_runs_otherwise(bench, how, acts):
    assert_skipped(bench(how, 4), PLACES, acts)


OPTIMIZERS = {
    "averages": lambda: keras.optimizers.AdamW(0.05, use_ema=True, ema_overwrite_frequency=4),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.05), dynamic_growth_steps=2),
    "accumulated, scheduled": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5), momentum=0.9, gradient_accumulation_steps=2
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_skipping_leaves_every_kind_of_optimizer_as_it_was(name):
    """But that one which scales the loss skips a step without a gradient itself, and lowers its scale, as it should."""
    places = [["x" if name == "scaled" and bad else bad for bad in epoch] for epoch in PLACES]

    assert_skipped(Bench(optimizer=OPTIMIZERS[name](), steps_per_execution=4), places, False)


def test_skipping_works_with_two_replicas(two_replicas):
    """A step is put back in both where it was bad in one of them."""
    with two_replicas.scope():
        optimizer = keras.optimizers.Adam(0.05)
    bench = Bench(optimizer=optimizer, scope=two_replicas.scope(), steps_per_execution=4)

    assert_skipped(bench, PLACES, False)


def test_rows_of_an_embedding_are_put_back_as_well():
    """TensorFlow writes these in place, which a copy must not see."""
    tokens = np.random.default_rng(0).integers(0, 9, (6, 4, 3))
    weights = np.ones((6, 4), "float32")
    weights[[1, 4], 0] = np.nan
    y = np.arange(24).reshape(6, 4) % NUM_CLASSES
    found = []
    for places in ([0, 2, 3, 5], range(6)):
        keras.utils.set_random_seed(1)
        layers = [keras.layers.Embedding(9, 4), keras.layers.Flatten(), keras.layers.Dense(NUM_CLASSES, "softmax")]
        model = keras.Sequential([keras.Input((3,), dtype="int64"), *layers])
        model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
        data = [tf.data.Dataset.from_tensor_slices((tokens[i], y[i], weights[i])).batch(4) for i in places]
        joined = data[0]
        for one in data[1:]:
            joined = joined.concatenate(one)
        with left_out(len(places) == 6):
            Trainer(model).fit(joined, verbose=0, callbacks=[NonFinite("skip")])
        found.append(values_of(model))

    assert_bit_equal(*found)


def test_a_bad_step_is_told_of_with_its_own_values_and_the_means_of_the_others(bench):
    told = []

    class Looks(Callback):
        def on_train_batch_end(self, batch, logs=None):
            told.append((batch, self.not_finite, np.isfinite(self.step_logs["loss"]), np.isfinite(logs["loss"])))

    places = [[None, "x", "gradient", None, "y", None]]
    with left_out(True):
        bench("graph", 4).fit(epochs_of(places), [Looks(), NonFinite("skip")])
    path = bench("graph", 4).model.variables[0].path

    assert [
        (0, None, True, True),
        (1, path, False, True),
        (2, path, True, True),
        (3, None, True, True),
        (4, path, False, True),
        (5, None, True, True),
    ] == told


@examples(5)
@given(
    step=st.integers(0, EPOCHS * NUM_BATCHES - 1),
    bad=st.sampled_from(sorted(BAD)),
    steps=st.sampled_from(LENGTHS),
    acts=st.booleans(),
)
def test_raising_ends_at_the_very_step_with_the_last_good_weights(bench, step, bad, steps, acts):
    """Also where the loss is finite, and only the weights are not; it says where, and names the first of them."""
    own = bench("graph", steps)
    epoch, position = divmod(step, NUM_BATCHES)
    places = [[None] * NUM_BATCHES for _ in range(EPOCHS)]
    before = epochs_of([*places[:epoch], [None] * position] if position else places[:epoch])
    own.fit(before)
    expected = own.values()
    places[epoch][position] = bad
    callback = NonFinite()
    with pytest.raises(NonFiniteError) as caught:
        own.fit(epochs_of(places), [callback, *([Recorder()] if acts else [])])
    message = str(caught.value)

    assert_bit_equal(expected, own.values())
    assert step == int(own.model.optimizer.iterations)
    assert message.startswith(f"Step {step + 1} (epoch {epoch + 1}, batch {position}): the loss is ")
    assert f"the first variable that is not finite is {own.model.variables[0].path}." in message
    assert (bad == "gradient") == np.isfinite(float(message.split("the loss is ")[1].split(",")[0]))
    assert [step + 1] == callback.steps


def kept(places, every):
    """The batches that a training is made of in the end, if it goes back to the save point at each bad one."""
    trained, saved = [], []
    for step, bad in enumerate(itertools.chain(*places), start=1):
        is_epoch_new = (step - 1) % NUM_BATCHES == 0
        if every.epochs is not None and is_epoch_new and (step - 1) // NUM_BATCHES % every.epochs == 0:
            saved = trained
        trained = [*trained, batch(step - 1)] if bad is None else saved
        if bad is None and every.steps is not None and step % every.steps == 0:
            saved = trained
    return trained


@examples(5)
@given(
    places=spoilt(),
    every=st.one_of(st.none(), st.builds(Every, steps=st.integers(1, 7)), st.builds(Every, epochs=st.integers(1, 2))),
    steps=st.sampled_from(LENGTHS),
    acts=st.booleans(),
)
def test_rolling_back_goes_on_from_the_last_save_point(bench, places, every, steps, acts):
    """As a fit on the batches up to the save point and those behind the bad one; without a cadence, of each epoch."""
    own = bench("graph", steps)
    trained = kept(places, every or Every(epochs=1))
    own.fit([trained] if trained else [])
    expected, callback = own.values(), NonFinite("rollback", every=every, max_in_a_row=20)
    with left_out(bad_steps(places)):
        own.fit(epochs_of(places), [callback, *([Recorder()] if acts else [])])

    assert_bit_equal(expected, own.values())
    assert bad_steps(places) == callback.steps


def keras_fit(model, batches, callbacks=()):
    """One epoch, whose length Keras wants to know."""
    data = dataset([batches]).apply(tf.data.experimental.assert_cardinality(len(batches)))
    return model.fit(data, shuffle=False, callbacks=[*callbacks], verbose=0).history


@pytest.mark.parametrize("places", [PLACES[:1], PLACES[1:]])
@pytest.mark.parametrize("policy", ["skip", "rollback", "raise"])
def test_under_model_fit_the_policies_come_to_the_same_weights(bench, places, policy):
    every = Every(steps=2) if policy == "rollback" else None
    first = bad_steps(places)[0]
    batches = {
        "skip": epochs_of(places, with_bad=False)[0],
        "rollback": kept(places, Every(steps=2)),
        "raise": epochs_of(places)[0][: first - 1],
    }[policy]
    own, callback = bench("graph", 4), NonFinite(policy, every=every)
    own.begin()
    expected_history = keras_fit(own.model, batches) if batches else {}
    expected = own.values()
    own.begin()
    ending = pytest.raises(NonFiniteError, match=f"Step {first} ") if policy == "raise" else left_out(True)
    with ending:
        history = keras_fit(own.model, epochs_of(places)[0], [callback])

    assert_bit_equal(expected, own.values())
    if policy == "skip":
        assert expected_history == history


def test_under_model_fit_a_bad_first_step_leaves_nothing_in_an_optimizer_that_keras_has_just_built():
    """Its moments come into being in that very step."""
    found = []
    for with_bad in (False, True):
        model = make()
        model.compile("adam", "categorical_crossentropy")
        with left_out(with_bad):
            keras_fit(model, epochs_of(PLACES[1:], with_bad=with_bad)[0], [NonFinite("skip")])
        found.append(values_of(model))

    assert_bit_equal(*found)


@pytest.mark.parametrize("policy", ["skip", "rollback"])
@pytest.mark.parametrize("steps", LENGTHS)
def test_after_so_many_bad_steps_in_a_row_it_raises_whatever_the_policy(bench, policy, steps):
    """Those that a good one separates are no row. The weights are, as the message says, those from before that step."""
    own = bench("graph", steps)
    row = [["x", "y", None, "x", "gradient", "x"], [None] * NUM_BATCHES]
    with left_out(True):
        own.fit(epochs_of(row), [NonFinite(policy, max_in_a_row=4)])
    own.fit([] if policy == "rollback" else [[batch(2)]])  # the save point is the beginning
    expected = own.values()
    with pytest.raises(NonFiniteError, match=r"Step 6 \(epoch 1, batch 5\).* 3 such steps came in a row") as caught:
        own.fit(epochs_of(row), [NonFinite(policy, max_in_a_row=3)])

    assert "The model holds the weights from before this step." in str(caught.value)
    assert_bit_equal(expected, own.values())


@pytest.mark.parametrize("steps", LENGTHS)
def test_good_steps_behind_too_many_bad_ones_in_the_same_block_are_not_done(bench, steps):
    own = bench("graph", steps)
    own.fit([[batch(0)]])
    expected = own.values()
    with pytest.raises(NonFiniteError, match=r"Step 3 \(epoch 1, batch 2\)"):
        own.fit(epochs_of([[None, "x", "x", None, None, None]]), [NonFinite("skip", max_in_a_row=2)])

    assert_bit_equal(expected, own.values())


def test_beside_another_watch_both_get_what_they_want(bench):
    """TerminateOnNaN ends the training at a loss that is NaN, NonFinite has put the step back by then."""
    own = bench("graph", 4)
    own.fit([[batch(0)]])
    expected = own.values()
    with left_out(True):
        own.fit(epochs_of([[None, "gradient", "x", None, None, None]]), [NonFinite("skip"), TerminateOnNaN()])

    assert_bit_equal(expected, own.values())


def test_a_training_without_a_bad_step_says_nothing_and_is_as_without_the_callback(bench):
    own, places = bench("graph", 4), [[None] * NUM_BATCHES] * EPOCHS
    expected_history = own.fit(epochs_of(places))
    expected = own.values()
    for policy in ("raise", "skip", "rollback"):
        callback = NonFinite(policy)

        assert expected_history == own.fit(epochs_of(places), [callback])
        assert_bit_equal(expected, own.values())
        assert [] == callback.steps


def test_it_says_how_many_steps_were_left_out_and_the_first_of_them(bench):
    places = [["x", None, "x", "x", "x", "x"], ["x", *[None] * 5]]
    match = r"^6 of 12 steps were not finite and were left out: 1, 3, 4, 5, 6, \.\.\.\.$"
    with pytest.warns(UserWarning, match=match):
        bench("graph", 4).fit(epochs_of(places), [NonFinite("skip")])


class Resumes(Callback):
    """What a resumed run does with a callback's state."""

    def __init__(self, resumed, state):
        super().__init__()
        self.resumed, self.state = resumed, state

    def on_train_begin(self, logs=None):
        self.resumed.set_state(self.state)


def test_its_state_counts_on_in_a_resumed_run(bench):
    """JSON can hold it; the row of bad steps goes on where it was."""
    first, own = NonFinite("skip"), bench("graph", 4)
    with left_out(True):
        own.fit(epochs_of([[None, "x", None, None, "x", "x"]]), [first])
    state, second = json.loads(json.dumps(first.get_state())), NonFinite("skip", max_in_a_row=3)
    with pytest.raises(NonFiniteError):
        own.fit(epochs_of([["x", *[None] * 5]]), [second, Resumes(second, state)])

    assert {"steps": [2, 5, 6], "in_a_row": 2, "steps_done": 6} == state
    assert [2, 5, 6, 1] == second.steps


def test_a_run_that_was_saved_without_a_save_point_rolls_back_to_where_it_was_taken_up(bench):
    own, second = bench("graph", 4), NonFinite("rollback", every=Every(steps=100))

    class Changes(Callback):
        def on_train_begin(self, logs=None):
            self.model.layers[0].weight.assign([2.0, 2.0, 2.0, 2.0])
            second.set_state({"steps": [], "in_a_row": 0, "steps_done": 0})

    with left_out(True):
        own.fit(epochs_of([[None, None, None, None, None, "x"]]), [second, Changes()])

    assert [2.0] * 4 == own.model.layers[0].weight.numpy().tolist()


def test_one_that_was_used_can_be_copied_and_used_again(bench):
    callback, own = NonFinite("skip"), bench("graph", 4)
    for one in (callback, copy.deepcopy(callback), callback):
        with left_out(True):
            own.fit(epochs_of([[None, "x", None, None, None, None]]), [one])

        assert [2] == one.steps
    copied = copy.deepcopy(callback)

    assert [2] == copied.steps
    assert copied.steps is not callback.steps


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": "ignore"}, r"policy='ignore': expected 'raise', 'skip' or 'rollback'"),
        ({"policy": "skip", "every": Every(steps=2)}, "every=.*: save points are kept for policy='rollback' only"),
        ({"max_in_a_row": 0}, "max_in_a_row=0: expected 1 or more"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        NonFinite(**arguments)

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.arguments import (
    at_least,
    capped_steps,
    check_jit,
    check_shares,
    is_verbose,
    open_validation,
    pace_of,
    positive_seconds,
    steps_of,
    strategy_of,
    task_of,
)
from engine.cadence import Pace
from engine.data import open_source
from engine.errors import ConfigError, DataError
from engine.supervised import Supervised


def compiled(**arguments):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="mine")
    model.compile("sgd", "mse", **arguments)
    return model


def words_of(function, *arguments, **named):
    with pytest.raises(ConfigError) as error:
        function(*arguments, **named)
    return str(error.value)


def test_a_compiled_model_is_taken_as_it_is():
    model = compiled()

    assert task_of(model, {"optimizer": None, "loss": None}).model is model


def test_a_task_is_taken_as_it_is():
    task = Supervised(compiled())

    assert task_of(task, {"loss": None}) is task


@pytest.mark.parametrize("make", [lambda: keras.Sequential([keras.layers.Dense(1)]), lambda: keras.layers.Dense(1)])
def test_what_is_not_compiled_is_compiled_here(make):
    model = task_of(make(), {"optimizer": "sgd", "loss": "mse", "metrics": None}).model

    assert "mse" == model.loss
    assert isinstance(model.optimizer, keras.optimizers.SGD)


def test_a_layer_is_trained_itself():
    layer = keras.layers.Dense(1)

    assert [layer] == task_of(layer, {"loss": "mse"}).model.layers


def test_what_cannot_be_trained_is_refused_in_words():
    assert ("Trainer got str, but trains a keras.Model, a keras.layers.Layer or an engine.Task.") == words_of(
        task_of, "model", {}
    )


def test_compiling_twice_is_refused_in_words():
    assert (
        "The model 'mine' is compiled already, and optimizer, loss would replace what it was compiled with, the "
        "optimizer's state included. Give them in one place only."
    ) == words_of(task_of, compiled(), {"optimizer": "adam", "loss": "mae", "metrics": None})


def test_compiling_a_task_is_refused_in_words():
    assert ("loss, metrics cannot be given beside an engine.Task, which holds its own.") == words_of(
        task_of, Supervised(compiled()), {"loss": "mae", "metrics": ["mae"]}
    )


def test_a_model_that_is_not_compiled_is_taken_to_predict():
    model = keras.Sequential([keras.layers.Dense(1)])

    assert task_of(model, {"loss": None}).model is model
    assert not model.compiled


def test_a_model_is_trained_where_it_was_made(two_replicas):
    with two_replicas.scope():
        shared = Supervised(compiled())

    assert strategy_of(shared, None) is strategy_of(shared, two_replicas) is two_replicas
    assert 1 == strategy_of(Supervised(compiled()), None).num_replicas_in_sync


def test_a_strategy_that_does_not_hold_the_model_is_refused_in_words(two_replicas):
    assert (
        "strategy is a MirroredStrategy, but the model 'mine' was not made in its scope. "
        "Make and compile the model inside `with strategy.scope():`."
    ) == words_of(strategy_of, Supervised(compiled()), two_replicas)


def test_xla_is_refused_where_it_cannot_compile_in_words(two_replicas):
    one = tf.distribute.get_strategy()

    assert ("jit_compile=True and run_eagerly=True exclude each other. Give one of them.") == words_of(
        check_jit, True, run_eagerly=True, strategy=one
    )
    assert (
        "jit_compile=True does not go with the 2 replicas of MirroredStrategy, whose sums over replicas XLA cannot "
        "compile here. Leave it out."
    ) == words_of(check_jit, True, run_eagerly=False, strategy=two_replicas)


@pytest.mark.parametrize(("jit_compile", "run_eagerly"), [(None, True), (False, True), (True, False), (None, False)])
def test_xla_goes_with_everything_else(jit_compile, run_eagerly):
    check_jit(jit_compile, run_eagerly=run_eagerly, strategy=tf.distribute.get_strategy())


@pytest.mark.parametrize("jit_compile", [None, False])
def test_replicas_go_with_everything_but_xla(two_replicas, jit_compile):
    check_jit(jit_compile, run_eagerly=False, strategy=two_replicas)


def test_a_batch_with_fewer_samples_than_replicas_is_refused_in_words(two_replicas):
    with pytest.raises(DataError) as error:
        check_shares(open_source(np.arange(9), batch_size=4), two_replicas)

    assert (
        "The last batch of 1 samples cannot be dealt to 2 replicas. Choose a batch_size that leaves at least 2 samples "
        "for it, or leave out the last 1."
    ) == str(error.value)


@pytest.mark.parametrize("num_samples", [2, 4, 6, 7])
def test_a_batch_with_a_sample_for_every_replica_is_dealt(two_replicas, num_samples):
    check_shares(open_source(np.arange(num_samples), batch_size=4), two_replicas)
    check_shares(open_source(np.arange(1), batch_size=4), tf.distribute.get_strategy())
    check_shares(open_source(tf.data.Dataset.range(9).batch(4)), two_replicas)  # it cannot be seen coming


@pytest.mark.parametrize(
    ("asked", "as_compiled", "pace"),
    [
        (None, 1, Pace()),
        (None, 8, Pace(steps=8, target_seconds=0.0)),
        ("auto", 8, Pace()),
        (1, 8, Pace(steps=1, target_seconds=0.0)),
        (5, 1, Pace(steps=5, target_seconds=0.0)),
    ],
)
def test_blocks_are_as_long_as_asked_else_as_compiled_else_by_themselves(asked, as_compiled, pace):
    assert pace == pace_of(asked, compiled(steps_per_execution=as_compiled))


@pytest.mark.parametrize("steps", [0, -1, 2.0, "4", "", True])
def test_blocks_of_no_steps_are_refused_in_words(steps):
    assert (f"steps_per_execution={steps!r}: expected a number of steps, at least 1, or 'auto'.") == words_of(
        pace_of, steps, compiled()
    )


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_a_whole_number_of_any_kind_is_one(value):
    assert 3 == at_least(1, "epochs", value)
    assert type(at_least(1, "epochs", value)) is int


@pytest.mark.parametrize("value", [0, -1, 2.0, "3", None, True, np.float32(3)])
def test_what_is_less_or_no_whole_number_is_refused_in_words(value):
    assert f"epochs={value!r}: expected a whole number, at least 1." == words_of(at_least, 1, "epochs", value)


def test_the_least_number_is_allowed_itself():
    assert 0 == at_least(0, "initial_epoch", 0)
    assert "initial_epoch=-1: expected a whole number, at least 0." == words_of(at_least, 0, "initial_epoch", -1)


@pytest.mark.parametrize(("value", "seconds"), [(None, None), (2, 2.0), (0.5, 0.5), (np.float32(1), 1.0)])
def test_a_limit_of_seconds_is_any_number_above_0_or_none(value, seconds):
    assert seconds == positive_seconds("max_seconds", value)


@pytest.mark.parametrize("value", [0, 0.0, -1, float("nan"), "60", True])
def test_what_is_no_number_of_seconds_is_refused_in_words(value):
    assert f"max_seconds={value!r}: expected a number of seconds, greater than 0." == words_of(
        positive_seconds, "max_seconds", value
    )


@pytest.mark.parametrize(("verbose", "expected"), [(0, False), (False, False), (1, True), (2, True), ("auto", True)])
def test_only_verbose_0_is_silent(verbose, expected):
    assert expected is is_verbose(verbose)


@pytest.mark.parametrize("verbose", [3, -1, "silent", None])
def test_a_verbose_that_is_not_known_is_refused_in_words(verbose):
    assert (f"verbose={verbose!r}: expected 0 (silent), 1 or 'auto' (bar), or 2 (a line an epoch).") == words_of(
        is_verbose, verbose
    )


def dataset():
    return tf.data.Dataset.range(8).batch(2)


@pytest.mark.parametrize(
    ("make", "asked", "steps"),
    [
        (dataset, None, 4),
        (dataset, 3, 3),
        (dataset, 4, 4),
        (lambda: dataset().repeat(), 3, 3),
        (lambda: dataset().filter(lambda x: True), None, None),
        (lambda: np.arange(7), None, 4),
    ],
)
def test_an_epoch_has_as_many_batches_as_asked_else_as_there_are(make, asked, steps):
    data = make()
    source = open_source(data, batch_size=2 if isinstance(data, np.ndarray) else None)

    assert steps == steps_of(source, asked, "steps")


def test_an_epoch_without_an_end_is_refused_in_words():
    with pytest.raises(DataError) as error:
        steps_of(open_source(dataset().repeat()), None, "validation_steps")

    assert (
        "The data is endless (it repeats without a count), and validation_steps is not given. Give "
        "validation_steps, or a count: dataset.repeat(count)."
    ) == str(error.value)


def test_an_epoch_of_more_batches_than_the_data_has_is_refused_in_words():
    with pytest.raises(DataError) as error:
        steps_of(open_source(dataset()), 9, "steps_per_epoch")

    assert (
        "steps_per_epoch=9, but the data has 4 batches. Give steps_per_epoch=4 or less, or repeat the data: "
        "dataset.repeat()."
    ) == str(error.value)


@pytest.mark.parametrize("steps", [0, -1, 1.5, "2", True])
def test_steps_that_are_no_count_are_refused_in_words(steps):
    assert f"validation_steps={steps!r}: expected a whole number, at least 1." == words_of(
        capped_steps, "validation_steps", steps
    )


NAMED = {"b": np.arange(5), "a": np.arange(5) * 2}
FORMS = {
    "x alone": (1, lambda x, y, w: x),
    "(x,)": (1, lambda x, y, w: (x,)),
    "(x, y)": (2, lambda x, y, w: (x, y)),
    "[x, y]": (2, lambda x, y, w: [x, y]),
    "(x, y, w)": (3, lambda x, y, w: (x, y, w)),
    "[x, y, w]": (3, lambda x, y, w: [x, y, w]),
    "a generator": (2, lambda x, y, w: ((x[i : i + 2], y[i : i + 2]) for i in range(0, 5, 2))),
    "a dataset": (3, lambda x, y, w: tf.data.Dataset.from_tensor_slices((x, y, w)).batch(2)),
}


@pytest.mark.parametrize("form", FORMS)
def test_validation_data_is_read_as_it_stands(form):
    """Never shuffled, in batches of the size given; what makes batches keeps its own."""
    parts, make = FORMS[form]
    walk = open_validation(make(np.arange(5), np.arange(5) * 2, np.ones(5)), 2, None).open(1)
    batches = [keras.tree.flatten(walk.take(position)) for position in range(3)]

    assert [0, 1, 2, 3, 4] == [int(number) for batch in batches for number in batch[0]]
    assert [parts] * 3 == [len(batch) for batch in batches]
    assert walk.take(3) is None


def test_a_dict_to_validate_on_is_x_alone():
    keras.tree.assert_same_structure(NAMED, open_validation(NAMED, 2, None).spec)


@pytest.mark.parametrize(("batch_size", "steps", "length"), [(None, None, 2), (None, 3, 3), (11, None, 3), (11, 2, 3)])
def test_validation_data_comes_in_batches_as_training_data_does(batch_size, steps, length):
    """Of 32 samples unless told, or as many batches as there are steps."""
    assert length == open_validation((np.arange(33), np.arange(33)), batch_size, steps).length


def test_a_dataset_to_validate_on_brings_its_own_batches():
    """`batch_size` is that of the training's arrays then: Keras ignores it as well."""
    assert 4 == open_validation(dataset(), 32, 2).length


@pytest.mark.parametrize("data", [(), [], (1, 2, 3, 4)])
def test_validation_data_of_more_or_fewer_parts_is_refused_in_words(data):
    assert (
        f"validation_data has {len(data)} parts, where (x, y), (x, y, sample_weight) or a dataset was expected."
    ) == words_of(open_validation, data, None, None)

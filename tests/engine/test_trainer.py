import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import ConfigError, DataError, Trainer
from engine.callbacks import LossHistory
from tests.helpers import NUM_CLASSES, Recorder, assert_bit_equal, perceptron, samples, weights_of

X, Y = samples(43, shape=(4,))  # six batches of at most 8, the last of three
WEIGHTS = np.linspace(0.5, 2.0, 43).astype("float32")
RTOL = 1e-6  # ours sums in float64, Keras in float32


def fit(fit, x=X, y=Y, **arguments):
    arguments = {"epochs": 3, "shuffle": False, "verbose": 0} | arguments
    return fit(x, y, **(arguments if isinstance(x, tf.data.Dataset) else {"batch_size": 8} | arguments)).history


def assert_trained_alike(make_model, theirs, ours=None):
    """Fits one model by Keras and one by a Trainer; compares weights bit by bit, and the histories."""
    models = make_model(), make_model()
    expected, given = fit(models[0].fit, **theirs), fit(Trainer(models[1]).fit, **(theirs if ours is None else ours))

    assert_bit_equal(weights_of(models[0]), weights_of(models[1]))
    assert list(expected) == list(given)
    for name, values in expected.items():
        np.testing.assert_allclose(given[name], values, rtol=RTOL, err_msg=name)


def batch_losses(trainer, *, epochs=2, **arguments):
    """The loss of every batch of a model that never learns: each batch has one of its own."""
    losses = LossHistory()
    fit(trainer.fit, epochs=epochs, callbacks=[losses], **arguments)
    return losses.losses.reshape(epochs, -1).tolist()


def that_never_learns():
    return perceptron(optimizer=keras.optimizers.SGD(0.0))


def test_shuffle_moves_no_sample_whole_batches_or_single_samples():
    trainer = Trainer(that_never_learns(), seed=1)
    (still, _), (batches, others), (mixed, _) = (
        batch_losses(trainer, shuffle=shuffle) for shuffle in (False, "batch", True)
    )

    assert still == batch_losses(trainer, shuffle=False)[1]
    assert still != batches != others != still
    assert sorted(still) == sorted(batches) == sorted(others)
    assert still[-1] == batches[-1] == others[-1]  # the ragged one stays last
    assert not set(still) & set(mixed)


def test_a_seed_decides_the_order_of_every_epoch():
    model = that_never_learns()
    one, same, other = (batch_losses(Trainer(model, seed=seed), shuffle=True) for seed in (1, 1, 2))

    assert one == same
    assert one != other
    assert one[0] != one[1]


def test_without_a_seed_every_fit_has_an_order_of_its_own_that_keras_seed_decides():
    trainer = Trainer(that_never_learns())
    runs = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        runs.append([batch_losses(trainer, shuffle=True) for _ in range(2)])

    assert runs[0] == runs[1]
    assert runs[0][0] != runs[0][1]


def test_a_validation_split_is_that_of_keras_with_its_weights():
    assert_trained_alike(perceptron, {"validation_split": 0.3, "sample_weight": WEIGHTS})


def test_names_are_in_the_order_in_which_keras_has_them():
    """Sorted, also where a name of the training sorts behind those of the validation."""
    theirs, ours = Recorder(), Recorder()
    arguments = {"validation_data": (X, Y), "epochs": 1}
    expected = fit(perceptron(weighted_metrics=["accuracy"]).fit, callbacks=[theirs], **arguments)
    given = fit(Trainer(perceptron(weighted_metrics=["accuracy"])).fit, callbacks=[ours], **arguments)

    assert theirs.calls == ours.calls
    assert list(expected) == list(given)


@pytest.mark.parametrize(("validation_batch_size", "validation_steps"), [(None, None), (4, None), (20, None), (4, 2)])
def test_the_batches_of_a_validation_are_as_large_and_as_many_as_in_keras(validation_batch_size, validation_steps):
    theirs, ours = Recorder(), Recorder()
    arguments = {
        "validation_data": (X[:19], Y[:19]),
        "validation_batch_size": validation_batch_size,
        "validation_steps": validation_steps,
        "epochs": 1,
    }
    expected = fit(perceptron().fit, callbacks=[theirs], **arguments)
    given = fit(Trainer(perceptron()).fit, callbacks=[ours], **arguments)

    assert theirs.calls == ours.calls
    np.testing.assert_allclose(given["val_loss"], expected["val_loss"], rtol=RTOL)


CLASS_WEIGHT = {0: 0.3, 2: 4.0}
BY_HAND = np.array([0.3, 1.0, 4.0], "float32")[Y]


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
@pytest.mark.parametrize("sample_weight", [None, WEIGHTS])
def test_class_weights_are_sample_weights_and_multiply_those_given(kind, sample_weight):
    """Keras refuses the two together; by hand it takes their product."""
    own = () if sample_weight is None else (sample_weight,)
    ours = {"sample_weight": sample_weight}
    if kind == "dataset":
        ours = {"x": tf.data.Dataset.from_tensor_slices((X, Y, *own)).batch(8), "y": None}
    weights = BY_HAND if sample_weight is None else BY_HAND * sample_weight
    assert_trained_alike(
        lambda: perceptron(weighted_metrics=["accuracy"]),
        {"sample_weight": weights},
        ours | {"class_weight": CLASS_WEIGHT},
    )


def optimizer_of(kind):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)
    return {
        "accumulation": lambda: keras.optimizers.Adam(0.05, gradient_accumulation_steps=4, clipnorm=0.1),
        "schedule": lambda: keras.optimizers.SGD(schedule, momentum=0.9, weight_decay=0.01),
        "average": lambda: keras.optimizers.Adam(0.05, use_ema=True, ema_overwrite_frequency=4),
        "loss scale": lambda: keras.optimizers.Adam(0.05, loss_scale_factor=128.0),
        "dynamic loss scale": lambda: keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.1), initial_scale=2.0**126, dynamic_growth_steps=2
        ),
    }[kind]()


@pytest.mark.parametrize("kind", ["accumulation", "schedule", "average", "loss scale", "dynamic loss scale"])
def test_what_an_optimizer_does_of_its_own_it_does_as_in_keras(kind):
    """Micro-steps over the epochs' ends, steps skipped for their overflow: every variable is equal in the end."""
    assert_trained_alike(lambda: perceptron(optimizer=optimizer_of(kind)), {"validation_data": (X, Y)})


@pytest.fixture
def precision(request):
    """Keras set to a precision for one test."""
    is_policy = request.param.startswith("mixed")
    if is_policy:
        keras.config.set_dtype_policy(request.param)
    else:
        keras.config.set_floatx(request.param)
    yield request.param
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16", "float64"], indirect=True)
def test_other_precisions_train_as_in_keras(precision):
    """With the loss scaling that mixed_float16 brings, and rows of float64 where the arithmetic is."""
    if precision == "float64":
        keras.config.set_dtype_policy("float64")
    model = perceptron()

    assert (precision == "mixed_float16") == isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert_trained_alike(perceptron, {"validation_data": (X, Y)})


def test_xla_trains_as_the_graph_does():
    models = perceptron(), perceptron(jit_compile=True)
    histories = [fit(Trainer(model).fit, validation_data=(X, Y)) for model in models]

    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=1e-5)  # XLA sums in an order of its own


def test_a_layer_or_a_model_is_compiled_from_the_trainers_keywords():
    compiled = {"optimizer": "sgd", "loss": "sparse_categorical_crossentropy", "weighted_metrics": ["accuracy"]}
    histories, outputs = [], []
    for wrap in (lambda layer: layer, lambda layer: keras.Sequential([layer])):
        keras.utils.set_random_seed(1)
        trainer = Trainer(wrap(keras.layers.Dense(NUM_CLASSES, activation="softmax")), **compiled)
        histories.append(fit(trainer.fit, sample_weight=WEIGHTS))
        outputs.append(trainer.predict(X, verbose=0))
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Dense(NUM_CLASSES, activation="softmax")])
    model.compile(**compiled)
    expected = fit(model.fit, sample_weight=WEIGHTS)

    assert histories[0] == histories[1]
    np.testing.assert_allclose(histories[0]["loss"], expected["loss"], rtol=RTOL)
    assert_bit_equal([model.predict(X, verbose=0)] * 2, outputs)


def test_the_metric_objects_hold_the_values_of_the_last_epoch():
    """Whoever asks the model afterwards gets what the history says."""
    model = perceptron(loss="categorical_crossentropy", metrics=["accuracy", keras.metrics.AUC(name="auc")])
    targets = keras.utils.to_categorical(Y, NUM_CLASSES)
    history = fit(Trainer(model).fit, y=targets)
    results = {name: float(value) for name, value in model.get_metrics_result().items()}

    assert sorted(history) == sorted(results)
    for name, values in history.items():
        np.testing.assert_allclose(results[name], values[-1], rtol=RTOL, err_msg=name)


def test_fits_go_on_from_each_other_and_from_keras():
    """One model, trained in turn by both: the same as by either alone."""
    models = perceptron(optimizer="adam"), perceptron(optimizer="adam")
    for _ in range(3):
        fit(models[0].fit, epochs=1)
    trainer = Trainer(models[1])
    for run in (trainer.fit, models[1].fit, trainer.fit):
        history = fit(run, epochs=1)

    assert_bit_equal(weights_of(models[0]), weights_of(models[1]))
    assert 1 == len(history["loss"])
    assert models[1].history.history == history


@pytest.mark.parametrize("seed", [-1, 1.5, "a", 1 << 64])
def test_a_seed_that_is_none_is_refused_as_the_trainer_is_made(seed):
    with pytest.raises(ConfigError, match="seed="):
        Trainer(perceptron(), seed=seed)


@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_forgotten_targets_are_missed_in_words(method):
    with pytest.raises(DataError, match="y is None"):
        getattr(Trainer(perceptron()), method)(X, verbose=0)


def test_a_metric_of_a_name_that_is_mistyped_is_refused_in_keras_words():
    with pytest.raises(ValueError, match=r"^Could not interpret metric identifier: acuracy"):
        Trainer(perceptron(metrics=["acuracy"])).fit(X, Y, verbose=0)


def test_a_metric_whose_result_is_an_array_is_logged_as_in_keras():
    """A value of each class, in the history, of the validation and by `evaluate`."""
    targets, models = keras.utils.to_categorical(Y, NUM_CLASSES), []
    for _ in range(2):
        metrics = [keras.metrics.F1Score(average=None)]
        models.append(perceptron(loss="categorical_crossentropy", metrics=metrics))
    arguments = {"y": targets, "validation_data": (X[:9], targets[:9])}
    expected, given = fit(models[0].fit, **arguments), fit(Trainer(models[1]).fit, **arguments)
    scores = Trainer(models[1]).evaluate(X, targets, verbose=0)

    assert list(expected) == list(given)
    for name, values in expected.items():
        np.testing.assert_allclose(given[name], values, rtol=RTOL, err_msg=name)
    assert (3, NUM_CLASSES) == np.shape(given["f1_score"])
    np.testing.assert_allclose(scores["f1_score"], models[0].evaluate(X, targets, verbose=0)[1], rtol=RTOL)

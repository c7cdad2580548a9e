import keras
import numpy as np
import pytest

from engine import Trainer
from zoo import FineTuned, Inception, fine_tuned, strided_cnn

LOSS = "sparse_categorical_crossentropy"
NUM_CLASSES = 3


def images(*shape):
    return np.random.default_rng(0).random(shape, dtype="float32")


def stirred(model, x):
    """The model with running statistics that are not the initial ones."""
    model(x, training=True)
    return model


def inception(x):
    """A small one, as the graph of its modules."""
    return stirred(Inception(5, [(2, 3), 4, (3, 2)], stem_filters=4), x).build_graph(x.shape[1:])


def sequential(x):
    """With batch normalisation and a dropout."""
    return stirred(strided_cnn(5, x.shape[1:]), x)


KINDS = pytest.mark.parametrize(("make", "first"), [(inception, "stage_1"), (sequential, "convolution_3")])


def task():
    return images(12, 9, 9, 1), np.arange(12) % NUM_CLASSES


def fit(model, trainer=None, *, rate=0.01):
    """Compiles and trains; a trainer that is given trains again."""
    model.compile(keras.optimizers.Adam(rate), LOSS)
    (trainer or Trainer(model, seed=1)).fit(*task(), batch_size=4, epochs=2, verbose=0)


def moved(before, variables):
    """The paths of the variables that are not what they were, to the bit."""
    return {v.path for old, v in zip(before, variables, strict=True) if not np.array_equal(old, v)}


def values(variables):
    return [variable.numpy() for variable in variables]


def frozen(model):
    """Positions of the weights that do not learn."""
    trainable = set(map(id, model.trainable_weights))
    return [position for position, weight in enumerate(model.weights) if id(weight) not in trainable]


@KINDS
def test_a_new_head_stands_on_the_trained_features(make, first):
    x, _ = task()
    trained = make(x)
    model = fine_tuned(trained, NUM_CLASSES)
    features = keras.Model(trained.inputs[0], trained.layers[-1].input)

    assert np.array_equal(features(x), model.features(x))
    assert (12, NUM_CLASSES) == model(x).shape
    assert [weight.path for weight in model.head.weights] == [weight.path for weight in model.trainable_weights]


@KINDS
def test_the_head_alone_learns_at_first(make, first):
    """Running statistics and generators of random numbers are variables too: none of them moves."""
    x, _ = task()
    trained = make(x)
    model = fine_tuned(trained, NUM_CLASSES)
    original, before = values(trained.variables), values(model.variables)
    fit(model)

    assert {weight.path for weight in model.head.weights} == moved(before, model.variables)
    assert set() == moved(original, trained.variables)


@KINDS
def test_unfreezing_between_two_fits_of_one_trainer_takes_effect(make, first):
    """From the layer on all that can be trained moves, and nothing else: no layer before it, no running statistic."""
    model = fine_tuned(make(task()[0]), NUM_CLASSES)
    trainer = Trainer(model, seed=1)
    fit(model, trainer)
    model.unfreeze(first)
    names = [layer.name for layer in model.features.layers]
    late = model.features.layers[names.index(first) :]
    expected = {w.path for layer in [*late, model.head] for w in layer.trainable_weights}
    before = values(model.variables)
    fit(model, trainer)
    unfrozen, between = moved(before, model.variables), values(model.variables)
    model.freeze()
    fit(model, trainer)

    assert expected == unfrozen
    assert {weight.path for weight in model.head.weights} == moved(between, model.variables)


@KINDS
def test_the_features_are_in_inference_mode_whatever_learns(make, first):
    """Keras's `features(images, training=False)` in a Functional model does not hold: a fit overrules it."""
    x, _ = task()
    model = fine_tuned(make(x), NUM_CLASSES)
    model.unfreeze(first)

    assert np.array_equal(model(x, training=False), model(x, training=True))


@KINDS
def test_a_saved_model_predicts_the_same_and_remembers_what_is_frozen(make, first, tmp_path):
    x, _ = task()
    model = fine_tuned(make(x), NUM_CLASSES)
    model.unfreeze(first)
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert isinstance(loaded, FineTuned)
    assert np.array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))
    assert frozen(model) == frozen(loaded)


def test_two_models_from_one_share_nothing():
    trained = sequential(task()[0])
    first, second = fine_tuned(trained, NUM_CLASSES), fine_tuned(trained, NUM_CLASSES)

    assert set() == set(map(id, first.variables)) & set(map(id, second.variables))


def test_half_precision_ends_in_float32_probabilities(policy):
    policy("mixed_bfloat16")
    x, _ = task()

    assert "float32" == fine_tuned(sequential(x), NUM_CLASSES)(x).dtype


def test_a_layer_that_is_not_there_is_refused_with_the_names_of_those_that_are():
    model = fine_tuned(inception(task()[0]), NUM_CLASSES)

    with pytest.raises(
        ValueError, match=r"^from_layer was given as 'stage_9', .* images, stem, stage_0, stage_1, stage_2, pool\.$"
    ):
        model.unfreeze("stage_9")


def test_a_model_without_a_graph_is_refused():
    model = stirred(Inception(5, [4], stem_filters=4), images(2, 9, 9, 1))

    with pytest.raises(ValueError, match=r"^trained was given as <Inception .* take model\.build_graph\(\(height"):
        fine_tuned(model, NUM_CLASSES)


def test_a_bad_number_of_classes_is_refused_in_words():
    with pytest.raises(ValueError, match=r"^num_classes was given as 0"):
        fine_tuned(sequential(task()[0]), 0)

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine import Trainer
from tests.strategies import examples
from zoo import Distillation, dense_classifier, softened, strided_cnn

temperatures = st.floats(0.5, 20, width=32)


def images(*shape):
    return np.random.default_rng(0).random(shape, dtype="float32")


def linear(num_inputs=3, num_classes=4, *, bias_initializer="zeros", rate=0.1):
    """One layer and a softmax, so that a step can be worked out by hand."""
    model = keras.Sequential(
        [
            keras.Input((num_inputs,)),
            keras.layers.Dense(num_classes, activation="softmax", bias_initializer=bias_initializer),
        ]
    )
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@examples(50)
@given(arrays(np.float32, (3, 5), elements=st.floats(-40, 40, width=32)), temperatures)
def test_probabilities_are_softened_as_their_logits_would_be(logits, temperature):
    """The logarithm gives the logits back but for a constant, which a softmax does not see."""
    probabilities = tf.nn.softmax(logits)

    # Not bit-equal: the logarithm of a rounded exponential. Its error, divided by the temperature, is exponentiated.
    np.testing.assert_allclose(
        softmax(logits / temperature), softened(probabilities, temperature), rtol=1e-5, atol=1e-30
    )


@examples(20)
@given(temperatures)
def test_a_probability_of_zero_is_softened_to_a_finite_one_with_a_finite_gradient(temperature):
    probabilities = tf.constant([[0.0, 0.25, 0.75]])
    with tf.GradientTape() as tape:
        tape.watch(probabilities)
        soft = softened(probabilities, temperature)
        second = soft[:, 1]
    gradient = tape.gradient(second, probabilities).numpy()

    assert np.isfinite(soft).all()
    assert np.isfinite(gradient).all()


@examples(10)
@given(temperatures, st.floats(0, 1), st.integers(0, 2**32 - 1), st.booleans())
def test_a_step_is_the_one_of_the_paper(temperature, label_weight, seed, is_labelled):
    """Equation 2 of the paper: the gradient by a logit is T * (student - teacher), both at T; of the label p - 1."""
    draws = np.random.default_rng(seed)
    x, y = draws.normal(size=(6, 3)).astype("float32"), draws.integers(0, 4, 6)
    sample_weight = draws.random(6).astype("float32")
    teacher, student = linear(), linear()
    kernel = student.get_weights()[0].astype("float64")
    task = Distillation(student, teacher, temperature=temperature, label_weight=label_weight)
    batch = (x, y, sample_weight) if is_labelled else (x, None, sample_weight)
    logs = task.train_step(batch)

    soft, hard = (1 - label_weight, label_weight) if is_labelled else (1.0, 0.0)
    taught = softmax(np.log(teacher(x).numpy().astype("float64")) / temperature)
    learnt, given = softmax(x @ kernel / temperature), softmax(x @ kernel)
    divergence = (taught * np.log(taught / learnt)).sum(axis=-1)
    by_teacher = soft * temperature**2 * (sample_weight * divergence).mean()
    by_labels = hard * (sample_weight * -np.log(given[np.arange(6), y])).mean()
    by_logits = soft * temperature * (learnt - taught) + hard * (given - np.eye(4)[y])
    slope = x.T @ (sample_weight[:, None] * by_logits) / 6

    # Not bit-equal: float64 judges float32. Keras cuts probabilities off at 1e-7, and so divergences of nearly nothing.
    np.testing.assert_allclose(by_teacher, logs["loss/teacher"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_teacher + by_labels, logs["loss"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(kernel - 0.1 * slope, student.get_weights()[0], rtol=1e-4, atol=1e-5)
    assert {"loss", "loss/teacher", "agreement"} | ({"loss/labels", "accuracy"} if is_labelled else set()) == set(logs)


def test_with_the_labels_weight_at_one_the_teacher_has_no_say():
    """Then it is a plain training."""
    x, y = images(40, 3), np.arange(40) % 4
    plain, taught = linear(), linear()
    taught.set_weights(plain.get_weights())
    Trainer(plain, seed=1).fit(x, y, epochs=2, verbose=0)
    Trainer(Distillation(taught, linear(), label_weight=1.0), seed=1).fit(x, y, epochs=2, verbose=0)

    assert all(map(np.array_equal, plain.get_weights(), taught.get_weights()))


def test_the_teacher_is_not_changed_by_a_bit_and_drops_nothing():
    """It is trainable, it has running statistics and a generator of random numbers: none of them moves."""
    teacher, student = strided_cnn(3, (9, 9, 1)), dense_classifier(3, (9, 9, 1), units=4)
    student.compile(keras.optimizers.Adam(0.01))
    before = [variable.numpy() for variable in teacher.variables]
    started = student.get_weights()
    Trainer(Distillation(student, teacher), seed=1).fit(images(8, 9, 9, 1), epochs=2, verbose=0)

    assert teacher.trainable
    assert all(map(np.array_equal, before, teacher.variables))
    assert not any(map(np.array_equal, started, student.get_weights()))
    assert 2 + 2 * len(student.trainable_weights) == len(student.optimizer.variables)


def test_a_student_comes_to_agree_with_its_teacher_without_a_label():
    x = images(64, 3)
    teacher, student = linear(bias_initializer="glorot_normal"), linear(rate=1.0)
    trainer = Trainer(Distillation(student, teacher), seed=1)
    before = trainer.evaluate(x, verbose=0)
    trainer.fit(x, epochs=40, verbose=0)
    after = trainer.evaluate(x, verbose=0)

    assert {"loss", "loss/teacher", "agreement"} == set(before)
    assert before["loss"] / 20 > after["loss"]
    assert after["agreement"] > 0.9


def test_the_accuracy_is_keras_own():
    x, y = images(40, 3), np.arange(40) % 4
    student = linear()
    scores = Trainer(Distillation(student, linear())).evaluate(x, y, batch_size=16, verbose=0)

    assert pytest.approx(student.evaluate(x, y, verbose=0)[1]) == scores["accuracy"]


def test_predictions_are_the_students():
    x = images(8, 3)
    student = linear()

    assert np.array_equal(student.predict(x, verbose=0), Trainer(Distillation(student, linear())).predict(x, verbose=0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, "'temperature' must be > 0: 0"),
        ({"label_weight": -0.1}, "'label_weight' must be >= 0: -0.1"),
        ({"label_weight": 1.1}, "'label_weight' must be <= 1: 1.1"),
    ],
)
def test_a_number_out_of_its_limits_is_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Distillation(linear(), linear(), **settings)


def test_a_teacher_that_cannot_have_learnt_is_refused():
    student, empty = linear(), keras.Sequential([keras.layers.Dense(4)], name="empty")

    with pytest.raises(ValueError, match=r"^teacher is the very model that shall learn from it\."):
        Distillation(student, student)
    with pytest.raises(
        ValueError, match=r"^teacher was given as 'empty', which is not built and so cannot have learnt"
    ):
        Distillation(student, empty)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_a_teacher_of_other_classes_is_refused(num_classes):
    task = Distillation(linear(), linear(num_classes=num_classes))

    with pytest.raises(
        ValueError, match=rf"outputs of shape \(8, {num_classes}\) and the student of \(8, 4\), but both"
    ):
        task.train_step((images(8, 3),))

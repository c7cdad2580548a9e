import keras
import numpy as np
import pytest

from recipes.data import load
from recipes.judge import Verdict, train_judge


def says(probabilities):
    """A judge of pictures that are their own probabilities, (picture, 1, 1, class)."""
    judge = keras.Sequential([keras.Input((1, 1, 3)), keras.layers.Flatten()])
    return Verdict.of(judge, np.array(probabilities, np.float32)[:, np.newaxis, np.newaxis])


@pytest.mark.parametrize(
    ("probabilities", "score", "sure", "shares"),
    [
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], 3, 1, [1 / 3, 1 / 3, 1 / 3]),  # sure, and all classes
        ([[0, 1, 0]] * 4, 1, 1, [0, 1, 0]),  # sure, but one class: the generator has collapsed
        ([[1 / 3, 1 / 3, 1 / 3]] * 4, 1, 0, [1, 0, 0]),  # could be anything
        ([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], 2, 1, [0.5, 0.5, 0]),
    ],
)
def test_the_score_counts_the_classes_that_are_surely_told_apart(probabilities, score, sure, shares):
    verdict = says(probabilities)

    assert verdict.score == pytest.approx(score, rel=1e-6)
    assert sure == verdict.sure
    assert shares == verdict.shares.tolist()


def test_a_verdict_reads_as_a_sentence():
    assert "score 2.00, 100% sure, of each class 0% to 50%" == str(says([[1, 0, 0], [0, 1, 0]]))


def test_a_judge_is_good_and_the_same_whatever_was_drawn_before_it():
    splits = load("digits")
    judges = [train_judge(splits, seed=1, steps=steps) for steps in (200, 1, 1)]
    probabilities = judges[0].predict(splits.test.pixels, verbose=0)

    assert 0.9 < np.mean(probabilities.argmax(axis=-1) == splits.test.labels)
    for one, other in zip(judges[1].get_weights(), judges[2].get_weights(), strict=True):
        assert np.array_equal(one, other)

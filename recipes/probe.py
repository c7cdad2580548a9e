"""How much a linear classifier makes of features: with all labels, and with a few of each class.

```python
curve = probe(Features(train, test), splits, counts=(10, 50), draws=5, seed=1)
curve.mean(axis=1)  # accuracy with 10 labels a class, with 50, with all
```

Every representation is judged in the same way: its features are standardised, a logistic regression is fitted to the
same labelled images, and how strongly that is regularised is found by cross-validation on these images alone.
"""

from collections.abc import Sequence

import attrs
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_limits

from recipes.data import Splits

STRENGTHS = (1e-3, 1e-2, 1e-1)  # of C, the inverse of the regularisation
FOLDS = 3


@attrs.frozen(eq=False)
class Features:
    """A representation of the training and the test images of a data set.

    Attributes:
        train: float32, (image, feature).
        test: float32, (image, feature).
    """

    train: NDArray[np.float32]
    test: NDArray[np.float32]

    def standardised(self) -> "Features":
        """Each feature less its mean, over its standard deviation, both of the training images."""
        mean, deviation = self.train.mean(axis=0), self.train.std(axis=0)
        deviation[deviation == 0] = 1  # a pixel that is always black stays 0
        return Features((self.train - mean) / deviation, (self.test - mean) / deviation)


def pixels_of(splits: Splits) -> Features:
    """The images as they are, their pixels in a row."""
    return Features(*(images.pixels.reshape(len(images), -1) for images in (splits.train, splits.test)))


def probe(features: Features, splits: Splits, *, counts: Sequence[int], draws: int, seed: int) -> NDArray[np.float64]:
    """Fits linear classifiers to features, and counts how many of the test images they get right.

    Args:
        features: What to judge.
        splits: Where the labels are.
        counts: How many labels a class to fit to, `FOLDS` or more; a class with fewer images gives all it has.
        draws: How often labels are drawn for each count.
        seed: Where the draws come from; the same one draws the same images for any features.

    Returns:
        Test accuracies, (count, draw); the last row, for all labels, is one number repeated.
    """
    known, labels = features.standardised(), splits.train.labels
    generator = np.random.default_rng(seed)
    rows = [[few(labels, count, generator) for _ in range(draws)] for count in counts]
    found = [[_accuracy(known, splits, rows=own) for own in drawn] for drawn in rows]
    return np.array([*found, [_accuracy(known, splits, rows=np.arange(len(labels)))] * draws])


def few(labels: NDArray[np.int64], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draws where `count` images of each class are."""
    return np.concatenate([generator.permutation(np.flatnonzero(labels == c))[:count] for c in np.unique(labels)])


def _accuracy(features: Features, splits: Splits, *, rows: NDArray[np.int64]) -> float:
    search = GridSearchCV(LogisticRegression(max_iter=2000), {"C": STRENGTHS}, cv=FOLDS)
    # Threads wait for each other at every one of the many small products: on a busy machine, 200 times as long.
    with threadpool_limits(1):
        search.fit(features.train[rows], splits.train.labels[rows])
        return float(search.score(features.test, splits.test.labels))

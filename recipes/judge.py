"""What a classifier that learned from real pictures says of made ones.

```python
judge = train_judge(splits, seed=1)
verdict = Verdict.of(judge, pictures)
print(verdict)  # score 8.9, 91% sure, of each class 7 to 13%
```

The score is that of Salimans et al., "Improved Techniques for Training GANs",
[arXiv 1606.03498](https://arxiv.org/abs/1606.03498), section 4, with a judge of our own in the place of Inception:
scores of one data set and one judge can be compared, others cannot.
"""

import attrs
import keras
import numpy as np
from numpy.typing import NDArray

from engine import Trainer
from recipes.data import Splits

SURE = 0.9


@attrs.frozen(eq=False)
class Verdict:
    """What the judge makes of some pictures.

    Attributes:
        score: exp of the mean divergence of a picture's classes from those of all pictures, from 1 (each
            picture could be anything, or all are the same class) to the number of classes (each picture is surely of
            one class, and each class is as frequent).
        sure: Share of the pictures that the judge gives more than 0.9 to one class.
        shares: float64, (class,), how frequent each class is.
    """

    score: float
    sure: float
    shares: NDArray[np.float64]

    @classmethod
    def of(cls, judge: keras.Model, pictures: NDArray[np.float32]) -> "Verdict":
        """Judges.

        Args:
            judge: From pictures to the probabilities of classes.
            pictures: float32, (picture, height, width, channels), in [0, 1].
        """
        probabilities = np.asarray(Trainer(judge).predict(pictures, verbose=0), np.float64)  # (picture, class)
        mean = probabilities.mean(axis=0)
        tiny = np.finfo(np.float64).tiny  # 0 · log(0) is 0 here
        divergences = (probabilities * np.log((probabilities + tiny) / (mean + tiny))).sum(axis=-1)
        counts = np.bincount(probabilities.argmax(axis=-1), minlength=len(mean))
        sure = np.mean(probabilities.max(axis=-1) > SURE)
        return cls(float(np.exp(divergences.mean())), float(sure), counts / len(pictures))

    def __str__(self) -> str:
        low, high = self.shares.min(), self.shares.max()
        return f"score {self.score:.2f}, {self.sure:.0%} sure, of each class {low:.0%} to {high:.0%}"


def train_judge(splits: Splits, *, seed: int, steps: int = 600) -> keras.Model:
    """Trains a small classifier on the training images.

    Args:
        splits: Images of 7x7 pixels or more.
        seed: Where its first weights and the order of the images come from. The global seed is set to it, so that the
            judge is the same one whatever was drawn before it.
        steps: How many batches of 64 images it sees.
    """
    keras.utils.set_random_seed(seed)
    judge = keras.Sequential([
        keras.Input(splits.train.pixels.shape[1:]),  # (B, H, W, C)
        keras.layers.Conv2D(16, 5, strides=2, padding="same", activation="relu"),  # (B, H/2, W/2, 16)
        keras.layers.Conv2D(32, 5, strides=2, padding="same", activation="relu"),  # (B, H/4, W/4, 32)
        keras.layers.Flatten(),
        keras.layers.Dense(64, activation="relu"),  # (B, 64)
        keras.layers.Dense(splits.num_classes, activation="softmax"),  # (B, num_classes)
    ])  # fmt: skip
    judge.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    images = splits.train
    Trainer(judge, seed=seed).fit(images.pixels, images.labels, batch_size=64, epochs=steps, max_steps=steps, verbose=0)
    return judge

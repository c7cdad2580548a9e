"""Labelled images, split for training, validating and testing.

```python
splits = load("digits")
splits.train.pixels.shape  # (1257, 28, 28, 1)
splits.test.labels[:3]  # array([2, 6, 5])
```

A source is always split in the same way, so that two runs are judged by the same images.
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from engine.errors import DataError

SPLIT_SEED = 1
KEYS = ("x_train", "y_train", "x_test", "y_test")


@attrs.frozen(eq=False)
class Images:
    """Pictures and what they show.

    Attributes:
        pixels: float32, (image, height, width, channels), in [0, 1].
        labels: int64, (image,), in [0, number of classes).
    """

    pixels: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64] | slice) -> "Images":
        """The images at these indices, in their order."""
        return Images(self.pixels[indices], self.labels[indices])


@attrs.frozen(eq=False)
class Splits:
    """One data set in three disjoint parts, of one height, width and number of channels.

    Attributes:
        train: What the weights are fitted to, in random order.
        validation: What is looked at after each epoch.
        test: What is looked at once, at the end.
        num_classes: How many classes the whole data set has.
    """

    train: Images
    validation: Images
    test: Images
    num_classes: int

    def limit(self, num_images: int) -> "Splits":
        """Trains on the first `num_images` only; the other two parts stay whole.

        Raises:
            DataError: There are fewer training images than that.
        """
        if num_images > len(self.train):
            raise DataError(
                f"limit is {num_images:,}, but there are {len(self.train):,} training images. "
                "Give a smaller limit, or none to train on all of them."
            )
        return attrs.evolve(self, train=self.train.take(slice(num_images)))


def load(source: str) -> Splits:
    """Loads and splits one data set.

    Args:
        source: "digits" for scikit-learn's 1,797 handwritten digits, which need no download; "mnist" for
            Keras's copy of MNIST, downloaded the first time; else the path of an `.npz` file in MNIST's
            layout: `x_train` and `x_test`, uint8 or float in [0, 1], (image, height, width) or (image,
            height, width, channels); `y_train` and `y_test`, integers from 0, (image,).

    Returns:
        The data set in three parts. Of digits a fifth is for testing and a tenth for validation, with each
        class's share kept; of the others, a random tenth of the training images is for validation.

    Raises:
        DataError: There is no such source, it cannot be read, or it is not laid out like MNIST.
    """
    if source == "digits":
        return _digits()
    if source == "mnist":
        return _split(_download_mnist(), source)
    if source.endswith(".npz"):
        return _split(_read_npz(Path(source)), source)
    raise DataError(f"data is {source!r}, but 'digits', 'mnist' or the path of an .npz file was expected.")


def load_or_exit(source: str) -> Splits:
    """Loads like `load`, and says what there is; or ends the program with the reason why not, in one line."""
    try:
        splits = load(source)
    except DataError as error:
        raise SystemExit(str(error)) from error
    height, width, _ = splits.train.pixels.shape[1:]
    print(
        f"{source}: {len(splits.train):,} images to train, {len(splits.validation):,} to validate, "
        f"{len(splits.test):,} to test, {height}x{width} pixels, {splits.num_classes} classes."
    )
    return splits


def _digits() -> Splits:
    digits = load_digits()
    small = np.asarray(digits.images[..., np.newaxis] / 16, np.float32)  # (1797, 8, 8, 1)
    pixels = np.asarray(keras.ops.image.resize(small, (28, 28), interpolation="bilinear"))
    everything = Images(pixels, np.asarray(digits.target, np.int64))
    rest, test = _stratify(everything, np.arange(len(everything)), share=1 / 5)
    train, validation = _stratify(everything, rest, share=1 / 8)  # of four fifths: a tenth of all
    return Splits(everything.take(train), everything.take(validation), everything.take(test), num_classes=10)


def _stratify(images: Images, indices: NDArray[np.int64], *, share: float) -> Any:
    labels = images.labels[indices]
    return train_test_split(indices, test_size=share, stratify=labels, random_state=SPLIT_SEED)


def _download_mnist() -> dict[str, NDArray[Any]]:
    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    except Exception as error:  # a bare Exception is what Keras raises when a download fails
        raise DataError(
            f"MNIST could not be downloaded ({error}). Without a network give a file in its layout, "
            "--data FILE.npz, or train on images that need no download, --data digits."
        ) from error
    return dict(zip(KEYS, (x_train, y_train, x_test, y_test), strict=True))


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    how = f"Save one with np.savez(path, {', '.join(f'{key}=...' for key in KEYS)})."
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in KEYS if key in archive}
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (EOFError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not an .npz file of plain arrays, or it is damaged. {how}") from error
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}. {how}")
    return arrays


def _split(arrays: Mapping[str, NDArray[Any]], source: str) -> Splits:
    known, test = (_images(arrays, part, source) for part in ("train", "test"))
    if known.pixels.shape[1:] != test.pixels.shape[1:]:
        raise DataError(
            f"{source}: an image of x_train is {known.pixels.shape[1:]} and one of x_test is "
            f"{test.pixels.shape[1:]}, but one (height, width, channels) was expected in both."
        )
    train, validation = train_test_split(np.arange(len(known)), test_size=1 / 10, random_state=SPLIT_SEED)
    num_classes = 1 + max(known.labels.max(), test.labels.max())
    return Splits(known.take(train), known.take(validation), test, num_classes=int(num_classes))


def _images(arrays: Mapping[str, NDArray[Any]], part: str, source: str) -> Images:
    pixels, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    if pixels.ndim not in (3, 4) or len(pixels) < 2:
        raise DataError(
            f"{source}: x_{part} has shape {pixels.shape}, but (image, height, width) or (image, height, "
            "width, channels) was expected, with 2 images or more."
        )
    if labels.shape != pixels.shape[:1]:
        raise DataError(
            f"{source}: y_{part} has shape {labels.shape}, but {pixels.shape[:1]} was expected: one number "
            f"for each image of x_{part}."
        )
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        given = f"is {labels.dtype}" if labels.dtype.kind not in "iu" else f"holds {labels.min()}"
        raise DataError(
            f"{source}: y_{part} {given}, but integers from 0 on were expected: the number of each image's class."
        )
    pixels = pixels if pixels.ndim == 4 else pixels[..., np.newaxis]
    return Images(_scale(pixels, part, source), labels.astype(np.int64))


def _scale(pixels: NDArray[Any], part: str, source: str) -> NDArray[np.float32]:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)
    if pixels.dtype.kind == "f" and pixels.min() >= 0 and pixels.max() <= 1:  # no NaN passes
        return pixels.astype(np.float32)
    given = f"is {pixels.dtype}"
    given += f" from {pixels.min():g} to {pixels.max():g}" if pixels.dtype.kind == "f" else ""
    raise DataError(
        f"{source}: x_{part} {given}, but uint8 from 0 to 255 or floating-point numbers from 0 to 1 were expected."
    )

import matplotlib.image
import numpy as np
import pytest
from matplotlib import pyplot
from sklearn.metrics import classification_report, confusion_matrix

from recipes.report import describe, draw


def guesses(num_classes: int, *, num_images: int = 500):
    """Labels, and predictions of which about a third are wrong."""
    random = np.random.default_rng(num_classes)
    labels = random.integers(0, num_classes, num_images)
    return labels, np.where(random.random(num_images) < 0.4, random.integers(0, num_classes, num_images), labels)


@pytest.mark.parametrize("num_classes", [2, 10, 12])
def test_the_report_is_scikit_learns(num_classes):
    labels, predictions = guesses(num_classes)
    expected = classification_report(labels, predictions, digits=4)

    assert describe(labels, predictions, num_classes=num_classes).startswith(expected)


@pytest.mark.parametrize(("num_classes", "num_images"), [(2, 5), (10, 500), (12, 30_000)])
def test_the_confusion_matrix_is_scikit_learns_with_a_header_and_numbered_rows(num_classes, num_images):
    labels, predictions = guesses(num_classes, num_images=num_images)
    lines = describe(labels, predictions, num_classes=num_classes).splitlines()[-num_classes - 1 :]
    header, *rows = [[int(number) for number in line.split()] for line in lines]

    assert header == list(range(num_classes))
    assert [row[0] for row in rows] == list(range(num_classes))
    np.testing.assert_array_equal(confusion_matrix(labels, predictions), [row[1:] for row in rows])
    assert len({len(line) for line in lines}) == 1


def test_a_class_that_never_occurs_is_listed_with_zeros():
    """A network that always says the same is judged without a warning."""
    lines = describe(np.array([0, 1, 1]), np.array([0, 0, 0]), num_classes=3).splitlines()

    assert ["2", "0.0000", "0.0000", "0.0000", "0"] in [line.split() for line in lines]
    assert ["2", "0", "0", "0"] == lines[-1].split()


@pytest.mark.parametrize(("num_classes", "pixels"), [(2, 525), (10, 1125), (30, 2625)])
def test_the_picture_grows_with_the_classes(tmp_path, num_classes, pixels):
    draw(*guesses(num_classes), tmp_path / "confusion.png", num_classes=num_classes)
    picture = matplotlib.image.imread(tmp_path / "confusion.png")

    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert picture.shape == (pixels, pixels, 4)


def test_the_picture_is_darkest_on_the_diagonal_of_a_perfect_network(tmp_path):
    labels = np.arange(100) % 10
    draw(labels, labels, tmp_path / "confusion.png", num_classes=10)
    brightness = matplotlib.image.imread(tmp_path / "confusion.png")[..., :3].mean(axis=-1)
    dark_rows, dark_columns = np.nonzero((brightness > 0.2) & (brightness < 0.3))  # the darkest blue, no text

    assert np.corrcoef(dark_rows, dark_columns)[0, 1] > 0.9


def test_drawing_leaves_no_figure_open(tmp_path):
    draw(*guesses(3), tmp_path / "confusion.png", num_classes=3)

    assert pyplot.get_fignums() == []

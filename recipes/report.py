"""How well a classifier does, class by class: as text and as a picture.

```python
predictions = model.predict(images).argmax(axis=-1)
print(describe(labels, predictions, num_classes=10))
draw(labels, predictions, Path("confusion.png"), num_classes=10)
```
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, classification_report, confusion_matrix

MOST_INCHES = 40  # at 150 dots an inch, 6,000 pixels


def describe(labels: NDArray[np.int64], predictions: NDArray[np.int64], *, num_classes: int) -> str:
    """Writes scikit-learn's classification report with the confusion matrix below it.

    Args:
        labels: int64, (image,), the true classes, in [0, num_classes).
        predictions: int64, (image,), the predicted ones.
        num_classes: How many classes there are; one that does not occur has a row of zeros.

    Returns:
        Lines of text, the last one ended.
    """
    classes = range(num_classes)
    report = classification_report(labels, predictions, labels=classes, digits=4, zero_division=0)
    table = _table(confusion_matrix(labels, predictions, labels=classes))
    return f"{report}\nConfusion matrix: a row for each true class, a column for each predicted one\n\n{table}\n"


def draw(labels: NDArray[np.int64], predictions: NDArray[np.int64], path: Path, *, num_classes: int) -> None:
    """Draws the confusion matrix into a PNG file.

    Args:
        labels: int64, (image,), the true classes, in [0, num_classes).
        predictions: int64, (image,), the predicted ones.
        path: The file to write, ending in `.png`.
        num_classes: How many classes there are.
    """
    matrix = confusion_matrix(labels, predictions, labels=range(num_classes))
    side = min(2.5 + num_classes / 2, MOST_INCHES)
    figure = Figure(figsize=(side, side), layout="constrained")  # no pyplot: nothing to close
    axes = figure.subplots()
    display = ConfusionMatrixDisplay(matrix).plot(ax=axes, cmap="Blues", colorbar=False, values_format="d")
    for text in display.text_[matrix == 0]:
        text.set_visible(False)  # so that the mistakes stand out
    accuracy = accuracy_score(labels, predictions)
    axes.set_title(f"Confusion matrix: {len(labels):,} images, accuracy {accuracy:.4f}")
    figure.savefig(path, dpi=150)


def _table(matrix: NDArray[Any]) -> str:
    classes = np.arange(len(matrix))
    rows = np.column_stack([classes, matrix])
    width = len(str(rows.max())) + 2
    header = " " * width + "".join(f"{number:{width}}" for number in classes)
    return "\n".join([header, *("".join(f"{number:{width}}" for number in row) for row in rows)])

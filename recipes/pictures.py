"""Many pictures in one, and which pictures are like which.

```python
save(Path("samples.png"), grid(pictures, columns=10))
save(Path("similar.png"), grid(images[nearest(pictures, images)], columns=10))
```
"""

import math
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
from numpy.typing import NDArray

GREY = 0.35  # between the pictures, so that their edges are seen


def grid(images: NDArray[np.float32], *, columns: int) -> NDArray[np.float32]:
    """Lays pictures side by side, row by row, with a line between them.

    Args:
        images: float32, (image, height, width, channels), in [0, 1]. What is lacking in the last row stays grey.
        columns: Pictures in a row, at least 1.

    Returns:
        One picture, float32, (height, width, channels).
    """
    number, height, width, channels = images.shape
    rows = -(-number // columns)
    sheet = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), GREY, np.float32)
    for index, image in enumerate(images):
        top, left = 1 + index // columns * (height + 1), 1 + index % columns * (width + 1)
        sheet[top : top + height, left : left + width] = image
    return sheet


def save(path: Path, picture: NDArray[np.float32], *, enlarged: int = 2) -> None:
    """Writes a picture as a PNG file.

    Args:
        path: The file to write.
        picture: float32, (height, width, channels) with 1, 3 or 4 channels, in [0, 1].
        enlarged: Pixels of the file for one of the picture, in each direction.
    """
    large = np.repeat(np.repeat(picture, enlarged, axis=0), enlarged, axis=1)
    colours = np.broadcast_to(large, (*large.shape[:2], 3)) if picture.shape[-1] == 1 else large
    matplotlib.image.imsave(
        path, np.round(255 * np.clip(colours, 0, 1)).astype(np.uint8)
    )  # a colour map would be coarser


def show(axes: Any, images: NDArray[np.float32], title: str) -> None:
    """Shows images as a square grid on matplotlib's axes, with a title."""
    axes.imshow(grid(images, columns=math.isqrt(len(images) - 1) + 1), cmap="gray", vmin=0, vmax=1)
    axes.set_title(title)
    axes.axis("off")


def nearest(pictures: NDArray[np.float32], images: NDArray[np.float32]) -> NDArray[np.int64]:
    """For each picture the index of the image with the smallest squared difference of pixels, int64, (picture,)."""
    left, right = pictures.reshape(len(pictures), -1), images.reshape(len(images), -1)
    distances = (right**2).sum(axis=1) - 2 * left @ right.T  # (picture, image), less what is the same in a whole row
    return np.asarray(distances.argmin(axis=1), np.int64)

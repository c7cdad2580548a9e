"""The check that every model here makes of its counts, and the shape they all speak of.

```python
check_count("num_classes", num_classes, example=10)
```
"""

from typing import TypeAlias

Shape: TypeAlias = tuple[int | None, ...]
ImageShape: TypeAlias = tuple[int, int, int]  # height, width, channels


def check_count(name: str, value: object, *, example: int) -> None:
    """Lets only whole numbers of at least 1 pass.

    Args:
        name: The argument's name, as the caller wrote it.
        value: What was given for it.
        example: A number that would do, for the error.

    Raises:
        ValueError: `value` is not an `int`, or is below 1.
    """
    # True is an int to Python: `filters=True` would silently be one filter.
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(
            f"{name} was given as {value!r}, but must be a whole number (int) of at least 1. "
            f"Pass one, for example {name}={example}."
        )


def check_sides(name: str, value: object, *, multiple: int) -> ImageShape:
    """Lets only shapes of images pass whose sides can be halved evenly, often enough.

    Args:
        name: The argument's name, as the caller wrote it.
        value: What was given for it.
        multiple: Height and width must be multiples of this.

    Returns:
        Height, width and channels.

    Raises:
        ValueError: `value` is not `(height, width, channels)`, or a side is no such multiple.
    """
    match value:
        case [int(height), int(width), int(channels)] if min(height, width, channels) >= 1:
            if height % multiple == 0 and width % multiple == 0:
                return height, width, channels
    raise ValueError(
        f"{name} was given as {value!r}, but must be (height, width, channels), whole numbers of at least 1, both "
        f"sides multiples of {multiple}. Pass for example {name}=(28, 28, 1), and pad or resize the images to it."
    )

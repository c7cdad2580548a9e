"""Pictures: of weights, of inputs, and any that a user has."""

import io
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.image import metadata

from engine.errors import ConfigError

_MOST_SAMPLES = 8  # inputs shown: each is a card of its own
_MOST_PIXELS = 1 << 20  # a larger weight, such as an embedding, is no picture any more
_GAP = 1  # pixels between the filters of a convolution


def image(tag: str, pixels: Any) -> Summary.Value:
    """One picture or several, as `tf.summary.image` takes them.

    Args:
        tag: What it is shown as.
        pixels: (height, width), (height, width, channels) or (pictures, height, width, channels), with 1, 3 or 4
            channels; whole numbers from 0 to 255, or floats from 0 to 1, beyond which they are cut off.

    Raises:
        ConfigError: The shape is another one.
    """
    from tensorboard.util import tensor_util  # here: 25 ms that only who writes needs

    pixels = np.asarray(pixels)
    shape = pixels.shape
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim == 3:
        pixels = pixels[None]
    if not _is_pictures(pixels):
        raise ConfigError(
            f"image {tag!r} has the shape {shape}: expected (height, width), (height, width, channels) or (pictures, "
            "height, width, channels), with 1, 3 or 4 channels and at least one pixel."
        )
    encoded = [tf.io.encode_png(picture).numpy() for picture in _as_bytes(pixels)]
    height, width = pixels.shape[1:3]
    kind = metadata.create_summary_metadata(display_name=None, description=None)
    content = [str(width).encode(), str(height).encode(), *encoded]
    return Summary.Value(tag=tag, metadata=kind, tensor=tensor_util.make_tensor_proto(content, dtype=tf.string))


def figure(tag: str, drawn: Any) -> Summary.Value:
    """A `matplotlib.figure.Figure` as a picture, as it would be saved."""
    png = io.BytesIO()
    drawn.savefig(png, format="png")
    return image(tag, tf.io.decode_png(png.getvalue()).numpy())


def weight_images(named: dict[str, Any]) -> Iterator[Summary.Value]:
    """Pictures of the weights that can be drawn: the smallest entry black, the largest white.

    A matrix lies on its longer side; of a convolution, each column is a filter and each row an input channel. If
    there is one channel, or three, which are shown as colours, the filters are put in several rows.
    """
    for path, weight in named.items():
        pixels = _drawn(np.asarray(weight))
        if pixels is not None:
            yield image(f"{path}/image", _stretched(pixels))


def inputs_of(x: Any) -> dict[str, NDArray[Any]]:
    """Those of the inputs that are pictures, by their place among the inputs: "samples", or "samples/name"."""
    found = {}
    for path, leaf in keras.tree.flatten_with_path(x):
        pixels = np.asarray(leaf)
        pixels = pixels[..., None] if pixels.ndim == 3 else pixels
        if _is_pictures(pixels):
            found["/".join(["samples", *map(str, path)])] = pixels
    return found


def with_pictures(x: Any) -> Any:
    """The inputs, if one of them is a picture.

    Raises:
        ConfigError: None is.
    """
    if not inputs_of(x):
        raise ConfigError("write_samples=True: no input of `samples` is a picture, (samples, height, width, 1 or 3).")
    return x


def sample_images(x: Any) -> Iterator[Summary.Value]:
    """The first of the inputs, their smallest value black, their largest white unless they are bytes."""
    for tag, pixels in inputs_of(x).items():
        shown = pixels[:_MOST_SAMPLES]
        yield image(tag, shown if shown.dtype == np.uint8 else _stretched(shown))


def _drawn(weight: NDArray[Any]) -> NDArray[Any] | None:
    if weight.size > _MOST_PIXELS or not weight.size:
        return None
    if weight.ndim == 1:
        return weight[None]
    if weight.ndim == 2:
        return weight.T if weight.shape[0] > weight.shape[1] else weight
    if weight.ndim == 3:  # (length, channels, filters): each filter is one picture
        return _grid(weight[:, :, None])
    return _grid(weight) if weight.ndim == 4 else None


def _grid(kernel: NDArray[Any]) -> NDArray[Any]:
    """A kernel (height, width, channels, filters) as one picture, the gaps as dark as its smallest entry."""
    kernel = kernel.astype(np.float64)
    in_colours = kernel.shape[2] == 3
    tiles = kernel.transpose(3, 0, 1, 2)[None] if in_colours else kernel.transpose(2, 3, 0, 1)[..., None]
    columns = tiles.shape[1] if len(tiles) > 1 else math.ceil(math.sqrt(tiles.shape[1]))
    missing = -tiles.shape[1] % columns  # at the end of the last row
    tiles = np.pad(tiles, ((0, 0), (0, missing), (0, _GAP), (0, _GAP), (0, 0)), constant_values=np.nanmin(kernel))
    tiles = tiles.reshape(-1, columns, *tiles.shape[2:])
    rows, columns, height, width, colours = tiles.shape
    pixels = tiles.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, colours)
    return pixels[:-_GAP, :-_GAP]


def _stretched(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """From 0 for the smallest value to 1 for the largest; what is not finite is black."""
    pixels = pixels.astype(np.float64)
    finite = pixels[np.isfinite(pixels)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    return np.nan_to_num((pixels - low) / ((high - low) or 1.0), nan=0.0, posinf=0.0, neginf=0.0)


def _as_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if np.issubdtype(pixels.dtype, np.floating):
        pixels = np.rint(np.nan_to_num(pixels, nan=0.0).clip(0, 1) * 255)
    return pixels.clip(0, 255).astype(np.uint8)


def _is_pictures(pixels: NDArray[Any]) -> bool:
    return pixels.ndim == 4 and pixels.shape[-1] in (1, 3, 4) and pixels.size > 0

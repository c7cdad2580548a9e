"""Learns features of digits without a label, and holds a linear classifier on them to one on raw pixels.

The task is `zoo.SimCLR`: two random views of each image must be found among those of all others in the batch. Then
scikit-learn's logistic regression is fitted to the features and, in the same way, to the pixels and to the features of
the encoder before it was trained: with a few labels of each class, drawn several times, and with all. A run leaves in
its directory: `probe.png` (the accuracies, and how features and pixels of the test images lie), `probe.json` (the
accuracies), `encoder.keras`, `history.json`, `logs/` for TensorBoard, and `checkpoints/`, from which `--resume` goes
on with a run that was stopped or killed.

```bash
python -m recipes.contrastive
tensorboard --logdir runs/contrastive/logs
```
"""

import json
import shlex
from pathlib import Path

import attrs
import keras
import numpy as np
import tyro
from attrs.validators import and_, ge, gt, le, lt, matches_re, optional
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from engine import Checkpointer, Trainer
from engine.callbacks import TensorBoard
from engine.errors import DataError
from recipes.data import Splits, load
from recipes.probe import FOLDS, Features, pixels_of, probe
from recipes.runs import directory_of
from zoo import SimCLR, small_encoder, with_projection_head

COUNTS = (5, 10, 20, 50)  # labels a class
MOST_POINTS = 1000  # in a map, whose work grows faster than they do
TRAINED, UNTRAINED, PIXELS = "features", "untrained encoder", "pixels"


@attrs.frozen(kw_only=True)
class Options:
    """What a run is made from. The same options give the same run.

    Attributes:
        data: What to learn: digits (scikit-learn's, no download), mnist (Keras's, downloaded once),
            or the path of an .npz file with x_train, y_train, x_test and y_test.
        limit: How many of the training images to use, counted in images; None is all of them.
        epochs: How often every training image is seen, counted in epochs.
        batch_size: How many images a step takes, counted in images; each is told from all the others of its batch.
        learning_rate: Adam's step size at the beginning, more than 0 and at most 1; it falls to 0 as a cosine does.
        temperature: What the loss divides similarities by, more than 0.
        draws: How often the few labels are drawn.
        seed: Where every random number comes from: the first weights, the order of the images, the views, the labels.
        name: What to call the run and its directory, in letters, digits, '.', '_' and '-'. If there is such
            a directory already, a number is added.
        runs: The directory that the runs' directories are in.
        resume: Whether to go on with the run of that name, if there is one that was stopped or killed.
    """

    data: str = "digits"
    limit: int | None = attrs.field(default=None, validator=optional(ge(1)))
    epochs: int = attrs.field(default=100, validator=ge(1))
    batch_size: int = attrs.field(default=256, validator=ge(2))
    learning_rate: float = attrs.field(default=3e-3, validator=and_(gt(0), le(1)))
    temperature: float = attrs.field(default=0.5, validator=gt(0))
    draws: int = attrs.field(default=5, validator=ge(1))
    seed: int = attrs.field(default=1, validator=and_(ge(0), lt(2**32)))
    name: str = attrs.field(default="contrastive", validator=matches_re(r"\w[\w.-]*"))
    runs: Path = Path("runs")
    resume: bool = False


def main(options: Options) -> None:
    """Loads, trains, judges, in this order.

    Raises:
        SystemExit: The images cannot be had or the directory cannot be made; says why in one line.
    """
    keras.utils.set_random_seed(options.seed)
    splits = load_images(options.data, options.limit)
    directory = directory_of(options.runs, options.name, resume=options.resume)

    task = make_task(splits, options)
    trainer = Trainer(task, seed=options.seed, checkpoints=Checkpointer(directory / "checkpoints"))
    features = {UNTRAINED: features_of(trainer, splits)}
    train(trainer, splits, directory, options=options)
    task.encoder.save(directory / "encoder.keras")
    features = {TRAINED: features_of(trainer, splits)} | features | {PIXELS: pixels_of(splits)}
    outcome = judge(features, splits, directory, options=options)

    print(outcome)
    print(f"In {directory}: {', '.join(sorted(path.name for path in directory.iterdir()))}.")
    print(f"To look at it: {shlex.join(['tensorboard', '--logdir', str(directory / 'logs')])}")


def make_task(splits: Splits, options: Options) -> SimCLR:
    """An encoder and its head, compiled; the views are those that suit digits."""
    encoder = small_encoder(splits.train.pixels.shape[1:])
    network = with_projection_head(encoder)
    steps = options.epochs * -(-len(splits.train) // options.batch_size)
    network.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(options.learning_rate, steps)))
    seeds = keras.random.SeedGenerator(options.seed)
    return SimCLR(network, encoder, temperature=options.temperature, seeds=seeds)


def train(trainer: Trainer, splits: Splits, directory: Path, *, options: Options) -> None:
    """Trains on pixels alone, and leaves what was seen on the way: `logs/`, `history.json`."""
    history = trainer.fit(
        splits.train.pixels,
        batch_size=options.batch_size,
        epochs=options.epochs,
        callbacks=[TensorBoard(directory / "logs")],
        verbose=1,
        resume=True,  # begins where there is nothing yet
    )
    (directory / "history.json").write_text(json.dumps(history.history, indent=2) + "\n", encoding="utf-8")


def features_of(trainer: Trainer, splits: Splits) -> Features:
    """What the encoder makes of all images, as it is now."""
    return Features(*(trainer.predict(images.pixels, verbose=0) for images in (splits.train, splits.test)))


def judge(features: dict[str, Features], splits: Splits, directory: Path, *, options: Options) -> str:
    """Probes each representation, leaves `probe.json` and `probe.png`, and sums up."""
    curves = {
        name: probe(own, splits, counts=COUNTS, draws=options.draws, seed=options.seed)
        for name, own in features.items()
    }
    labels = [*map(str, COUNTS), "all"]
    table = {name: dict(zip(labels, curve.tolist(), strict=True)) for name, curve in curves.items()}
    (directory / "probe.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    draw(curves, features, splits, directory / "probe.png")
    return "\n".join(
        f"Test accuracy with {count} labels{' a class' if count != 'all' else ''}: "
        + ", ".join(f"{name} {curve[row].mean():.4f}" for name, curve in curves.items())
        + "."
        for row, count in enumerate(labels)
    )


def draw(curves: dict[str, NDArray[np.float64]], features: dict[str, Features], splits: Splits, path: Path) -> None:
    """Draws the accuracies beside two maps of the test images: by their pixels, and by their features."""
    figure = Figure(figsize=(18, 6), layout="constrained")  # no pyplot: nothing to close
    axes = figure.subplots(1, 3)
    draw_curves(axes[0], curves)
    for own, name in zip(axes[1:], (PIXELS, TRAINED), strict=True):
        draw_map(own, features[name].standardised().test[:MOST_POINTS], splits.test.labels[:MOST_POINTS])
        own.set_title(f"Test images by their {name} (t-SNE)")
    figure.savefig(path, dpi=120)


def draw_curves(axes: Axes, curves: dict[str, NDArray[np.float64]]) -> None:
    """A line for each representation: the mean of the draws, with their standard deviation."""
    places = np.arange(len(COUNTS) + 1)
    for name, curve in curves.items():
        axes.errorbar(places, curve.mean(axis=1), curve.std(axis=1), marker="o", capsize=4, label=name)
    axes.set_xticks(places, [*map(str, COUNTS), "all"])
    axes.set_xlabel("labels a class")
    axes.set_ylabel("test accuracy")
    axes.set_title("A linear classifier on each representation")
    axes.grid(alpha=0.3)
    axes.legend()


def draw_map(axes: Axes, rows: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """Points in two dimensions, near each other if they are near in all; each class has a colour and its number."""
    perplexity = min(30, (len(rows) - 1) / 3)
    with threadpool_limits(1):  # as in `recipes.probe`: threads that wait for each other took 12 times the work
        points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(rows)
    axes.scatter(points[:, 0], points[:, 1], c=labels, cmap="tab10", s=8)
    for label in np.unique(labels):
        middle = np.median(points[labels == label], axis=0)
        axes.annotate(str(label), middle, fontsize=14, fontweight="bold", ha="center", va="center")
    axes.set_xticks([])
    axes.set_yticks([])


def load_images(data: str, limit: int | None) -> Splits:
    """Loads images that can be probed, or ends the program with the reason why not."""
    try:
        splits = load(data)
        splits = splits if limit is None else splits.limit(limit)
    except DataError as error:
        raise SystemExit(str(error)) from error
    fewest = np.bincount(splits.train.labels, minlength=splits.num_classes).min()
    if fewest < FOLDS:
        raise SystemExit(
            f"{data}: one class has {fewest} training images, but each must have {FOLDS} for the probe, which is "
            "cross-validated. Use more of the images."
        )
    height, width, _ = splits.train.pixels.shape[1:]
    print(
        f"{data}: {len(splits.train):,} images to train, without labels, {len(splits.test):,} to test, "
        f"{height}x{width} pixels, {splits.num_classes} classes."
    )
    return splits


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m recipes.contrastive", description=(__doc__ or "").partition("```")[0]))

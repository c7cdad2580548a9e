"""Takes what a network has learnt of half the digits to the other half, of which it sees only a few images.

A convolutional network learns 0 to 4 from all their images. Then 5 to 9 are learnt from 1, 3, 10 and 30 images each,
in three ways: from scratch; by a new head on the frozen features; and, from there, with the last convolution unfrozen
and a smaller learning rate. Each takes as many steps. See `zoo.fine_tuning`. The images are made noisy: a few clean
digits of scikit-learn's say so much that there is little to take along. Of MNIST's there is (`--data mnist --noise 0`).

A run leaves in its directory: `accuracy.png` (test accuracy against the number of images), `report.txt`,
`fine_tuned.keras` (the last one), `logs/` for TensorBoard, and `checkpoints/`, from which `--resume` goes on with a
run that was stopped or killed.

```bash
python -m recipes.fine_tuning
```
"""

import math
import shlex
from pathlib import Path
from typing import TypeAlias

import attrs
import keras
import numpy as np
import tyro
from attrs.validators import and_, deep_iterable, ge, gt, le, lt, matches_re, min_len
from matplotlib.figure import Figure

from engine import Checkpointer, Every, Trainer
from engine.callbacks import TensorBoard
from engine.errors import DataError
from recipes.data import Images, load
from recipes.runs import directory_of
from zoo import FineTuned, fine_tuned, strided_cnn

RATE = 1e-3  # Adam's, where all of a network learns
LOSS = "sparse_categorical_crossentropy"
FILTERS = (32, 32, 32)
UNFROZEN = "convolution_3"  # the last one
SCRATCH, HEAD, PART = WAYS = ("from scratch", "new head, frozen features", "last convolution unfrozen")
Accuracies: TypeAlias = dict[tuple[str, int], list[float]]  # (way, images of each class) -> one a seed
COPIES = 4  # of a pretraining image, each with noise of its own
SHOWN = 320  # images in an epoch, the few ones over and over: ten steps of 32


@attrs.frozen(kw_only=True)
class Options:
    """What a run is made from. The same options give the same run.

    Attributes:
        data: What to learn: digits (scikit-learn's, no download), mnist (Keras's, downloaded once),
            or the path of an .npz file with x_train, y_train, x_test and y_test.
        noise: Standard deviation of the noise added to pixels in [0, 1]; 0 leaves them as they are.
        images: How many images of each new class there are to learn from; one curve's points.
        pretraining_epochs: How often the first network sees every image of its classes, counted in epochs.
        epochs: How long each of the ways takes, counted in epochs of 320 images.
        learning_rate: Adam's step size, more than 0 and at most 1; of the unfrozen features a third of it.
        seeds: How many times everything is learnt, each time from other few images and other first weights.
        name: What to call the run and its directory, in letters, digits, '.', '_' and '-'. If there is such
            a directory already, a number is added.
        runs: The directory that the runs' directories are in.
        resume: Whether to go on with the run of that name, if there is one that was stopped or killed.
    """

    data: str = "digits"
    noise: float = attrs.field(default=0.5, validator=and_(ge(0.0), lt(math.inf)))
    images: tuple[int, ...] = attrs.field(default=(1, 3, 10, 30), validator=[min_len(1), deep_iterable(ge(1))])
    pretraining_epochs: int = attrs.field(default=8, validator=ge(1))
    epochs: int = attrs.field(default=20, validator=ge(1))
    learning_rate: float = attrs.field(default=3e-3, validator=and_(gt(0), le(1)))
    seeds: int = attrs.field(default=3, validator=and_(ge(1), lt(100)))
    name: str = attrs.field(default="fine_tuning", validator=matches_re(r"\w[\w.-]*"))
    runs: Path = Path("runs")
    resume: bool = False


@attrs.frozen(eq=False)
class Classes:
    """Images of some of the classes, their labels counted from 0.

    Attributes:
        train: To learn from.
        test: To be judged by.
        num_classes: How many they are.
    """

    train: Images
    test: Images
    num_classes: int

    def few(self, number: int, *, seed: int) -> Images:
        """So many of each class, drawn by the seed, over and over until an epoch is full."""
        draws = np.random.default_rng(seed)
        of_each = [draws.permutation(np.flatnonzero(self.train.labels == c))[:number] for c in range(self.num_classes)]
        return self.train.take(np.resize(np.stack(of_each, axis=1), SHOWN))


def main(options: Options) -> None:
    """Learns the first half of the classes, then the second in three ways, and draws how well.

    Raises:
        SystemExit: The images cannot be had or the directory cannot be made; says why in one line.
        RuntimeError: A frozen variable has moved.
    """
    known, new = load_halves(options)
    directory = directory_of(options.runs, options.name, resume=options.resume)

    pretrained = network(known, seed=0)
    fit(pretrained, known.train, directory, "pretrained", rate=RATE, epochs=options.pretraining_epochs)
    print(f"Of the classes it knows, the network tells {accuracy_of(pretrained, known.test):.4f} of the test images.")

    accuracies: Accuracies = {}
    for number in options.images:
        for seed in range(options.seeds):
            few, run = new.few(number, seed=seed), f"{number}-{seed}"
            scratch = network(new, seed=seed)
            fit(scratch, few, directory, f"scratch-{run}", rate=RATE, epochs=options.epochs)
            accuracies.setdefault((SCRATCH, number), []).append(accuracy_of(scratch, new.test))

            keras.utils.set_random_seed(seed)
            model = fine_tuned(pretrained, new.num_classes)
            fit(model, few, directory, f"head-{run}", rate=options.learning_rate, epochs=options.epochs)
            accuracies.setdefault((HEAD, number), []).append(accuracy_of(model, new.test))
            model.unfreeze(UNFROZEN)
            fit(model, few, directory, f"part-{run}", rate=options.learning_rate / 3, epochs=options.epochs)
            accuracies.setdefault((PART, number), []).append(accuracy_of(model, new.test))
            frozen = check_frozen(model, pretrained)
        print(*(line_of(accuracies, way, number) for way in WAYS), sep="\n")
    model.save(directory / "fine_tuned.keras")

    report = "\n".join(line_of(accuracies, way, number) for number in options.images for way in WAYS)
    (directory / "report.txt").write_text(f"{options}\n{report}\n", encoding="utf-8")
    draw(accuracies, directory / "accuracy.png")
    print(f"All {frozen:,} frozen numbers of each network are what they were, to the bit.")
    print(f"In {directory}: {', '.join(sorted(path.name for path in directory.iterdir()))}.")
    print(f"To look at it: {shlex.join(['tensorboard', '--logdir', str(directory / 'logs')])}")


def network(classes: Classes, *, seed: int) -> keras.Model:
    """A new one, its first weights drawn by the seed."""
    keras.utils.set_random_seed(seed)
    # With batch normalisation a network from scratch learns the noise of a few images: of 3 of each class it tells 0.42
    # of the test images, without it 0.79. Fine-tuning would look good beside the former.
    model = strided_cnn(classes.num_classes, classes.train.pixels.shape[1:], filters=FILTERS, momentum=None)
    model.layers[-1].kernel.assign(keras.ops.zeros_like(model.layers[-1].kernel))  # as the head of `fine_tuned` begins
    return model


def fit(model: keras.Model, images: Images, directory: Path, run: str, *, rate: float, epochs: int) -> None:
    """Trains what is not frozen; of a run that is gone on with, only what is missing."""
    # What is trainable counts from here on; the averages of the optimizer begin anew.
    model.compile(keras.optimizers.Adam(rate), LOSS, metrics=["accuracy"])
    Trainer(
        model, seed=1, checkpoints=Checkpointer(directory / "checkpoints" / run, every=Every(epochs=10), keep=1)
    ).fit(
        images.pixels,
        images.labels,
        epochs=epochs,
        callbacks=[TensorBoard(directory / "logs" / run)],
        verbose=0,
        resume=True,  # begins where there is nothing yet
    )


def accuracy_of(model: keras.Model, images: Images) -> float:
    """The share of the images that a classifier calls by their label."""
    return float(Trainer(model).evaluate(images.pixels, images.labels, verbose=0)["accuracy"])


def check_frozen(model: FineTuned, pretrained: keras.Model) -> int:
    """Holds what was frozen to what it was before: weights, and running statistics of all the features.

    Returns:
        How many numbers these are.

    Raises:
        RuntimeError: One has moved.
    """
    learnt = {id(weight) for weight in model.trainable_weights}
    pairs = zip(model.features.weights, pretrained.weights, strict=False)  # whose head comes last
    frozen = [(weight, before) for weight, before in pairs if id(weight) not in learnt]
    for weight, before in frozen:
        if not np.array_equal(weight, before):
            raise RuntimeError(f"{weight.path} was frozen, but is not what it was.")
    return sum(int(np.prod(weight.shape)) for weight, _ in frozen)


def line_of(accuracies: Accuracies, way: str, number: int) -> str:
    """The mean of the seeds' test accuracies, the worst and the best of them."""
    values = accuracies[way, number]
    spread = f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"
    return f"{number:4} images of each class, {way:26} test accuracy {spread}"


def draw(accuracies: Accuracies, path: Path) -> None:
    """Draws a curve for each way: its mean over the seeds, a dot for each seed."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")  # no pyplot: nothing to close
    axes = figure.subplots()
    for way in WAYS:
        curve = {number: values for (other, number), values in accuracies.items() if other == way}
        (line,) = axes.plot(list(curve), [np.mean(values) for values in curve.values()], label=way)
        for number, values in curve.items():
            axes.plot([number] * len(values), values, "o", color=line.get_color(), alpha=0.4)
    axes.set_xscale("log")
    numbers = sorted({number for _, number in accuracies})
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="images of each new class", ylabel="test accuracy")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def load_halves(options: Options) -> tuple[Classes, Classes]:
    """The first and the second half of the classes, or ends the program with the reason why not."""
    try:
        splits = load(options.data)
    except DataError as error:
        raise SystemExit(str(error)) from error
    middle, noise = splits.num_classes // 2, options.noise
    train, test = noisy(splits.train, noise, seed=1), noisy(splits.test, noise, seed=2)
    many = noisy(splits.train, noise, seed=3, copies=COPIES) if noise else train
    known = Classes(of(many, range(middle)), of(test, range(middle)), middle)
    upper = range(middle, splits.num_classes)
    new = Classes(of(train, upper), of(test, upper), len(upper))
    fewest = int(np.bincount(new.train.labels, minlength=new.num_classes).min())
    if max(options.images) > fewest:
        raise SystemExit(
            f"images holds {max(options.images):,}, but of one class there are only {fewest:,}. Give fewer."
        )
    return known, new


def noisy(images: Images, noise: float, *, seed: int, copies: int = 1) -> Images:
    """The images with noise added to every pixel, and then held in [0, 1]."""
    pixels = np.concatenate([images.pixels] * copies)  # (copies * image, height, width, channels)
    added = noise * np.random.default_rng(seed).standard_normal(pixels.shape, np.float32)
    return Images(np.clip(pixels + added, 0, 1), np.tile(images.labels, copies))


def of(images: Images, classes: range) -> Images:
    """The images of some classes, the first of which is called 0."""
    chosen = images.take(np.flatnonzero(np.isin(images.labels, classes)))
    return Images(chosen.pixels, chosen.labels - classes.start)


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m recipes.fine_tuning", description=(__doc__ or "").partition("```")[0]))

"""Trains a generative adversarial network to draw digits, and has them judged.

The networks are `zoo.small_generator` and `zoo.small_critic`, the step is `zoo.GAN`, with an Adam for each. A run
leaves in its directory: `samples/<epoch>.png` (the same noise, drawn after each epoch: watch it learn), `samples.png`
(what it draws at last, beside the most similar training images, and how often each digit comes), `generator.keras`,
`logs/` for TensorBoard (the losses and the samples), and `checkpoints/`, from which `--resume` goes on with a run that
was stopped or killed, to end as if it never had been.

```bash
python -m recipes.gan
tensorboard --logdir runs/gan/logs
```
"""

import shlex
from pathlib import Path
from typing import Any

import attrs
import keras
import numpy as np
import tyro
from attrs.validators import and_, ge, gt, le, lt, matches_re
from matplotlib.figure import Figure
from numpy.typing import NDArray

from engine import Callback, Checkpointer, Trainer
from engine.callbacks import TensorBoard
from recipes.data import Images, Splits, load_or_exit
from recipes.judge import Verdict, train_judge
from recipes.pictures import grid, nearest, save, show
from recipes.runs import directory_of
from zoo import GAN, small_critic, small_generator

NOISE = 64  # numbers that a picture is made from
COLUMNS = 10
SHOWN = 100
JUDGED = 2000


@attrs.frozen(kw_only=True)
class Options:
    """What a run is made from. The same options give the same run.

    Attributes:
        data: What to learn: digits (scikit-learn's, no download), mnist (Keras's, downloaded once),
            or the path of an .npz file with x_train, y_train, x_test and y_test.
        epochs: How often every training image is seen, counted in epochs.
        batch_size: How many images, and as many fakes, a step takes.
        learning_rate: Adam's step size for both networks, more than 0 and at most 1.
        seed: Where every random number comes from: the first weights, the order of the images and the noise.
        name: What to call the run and its directory, in letters, digits, '.', '_' and '-'. If there is such
            a directory already, a number is added.
        runs: The directory that the runs' directories are in.
        resume: Whether to go on with the run of that name, if there is one that was stopped or killed.
    """

    data: str = "digits"
    epochs: int = attrs.field(default=120, validator=ge(1))
    batch_size: int = attrs.field(default=64, validator=ge(1))
    learning_rate: float = attrs.field(default=1e-3, validator=and_(gt(0), le(1)))
    seed: int = attrs.field(default=1, validator=and_(ge(0), lt(2**32)))
    name: str = attrs.field(default="gan", validator=matches_re(r"\w[\w.-]*"))
    runs: Path = Path("runs")
    resume: bool = False


class Samples(Callback):
    """Draws from the same noise after each epoch: into a PNG file, and into TensorBoard's images.

    Args:
        noise: What the pictures are made from, float32, (picture, size).
        directory: Where the files are written, one an epoch.
        board: The writer of TensorBoard's files.
    """

    def __init__(self, noise: NDArray[np.float32], directory: Path, board: TensorBoard) -> None:
        super().__init__()
        self._noise = noise
        self._directory = directory
        self._board = board

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """The epoch is over: `self.model` is the generator."""
        picture = grid(np.asarray(self.model(self._noise, training=False)), columns=COLUMNS)
        self._directory.mkdir(exist_ok=True)
        save(self._directory / f"{epoch + 1:03d}.png", picture)
        self._board.add_image("generated", picture)

    def get_state(self) -> dict[str, Any]:
        """It keeps nothing that a resumed run needs."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing to take up."""


def main(options: Options) -> None:
    """Loads, trains, has the pictures judged, in this order.

    Raises:
        SystemExit: The images cannot be had, the networks do not take them, or the directory cannot be made; says
            why in one line.
    """
    keras.utils.set_random_seed(options.seed)
    splits = load_or_exit(options.data)
    task = adversaries(splits, options.learning_rate)
    directory = directory_of(options.runs, options.name, resume=options.resume)

    trainer = Trainer(task, seed=options.seed, checkpoints=Checkpointer(directory / "checkpoints"))
    noise = np.random.default_rng(options.seed).standard_normal((JUDGED, NOISE), np.float32)
    train(trainer, splits.train, noise[:SHOWN], directory, options=options)
    task.model.save(directory / "generator.keras")
    outcome = judge(trainer, splits, noise, directory, options=options)

    print(f"In {directory}: {', '.join(sorted(path.name for path in directory.iterdir()))}.")
    print(f"To look at it: {shlex.join(['tensorboard', '--logdir', str(directory / 'logs')])}")
    print(outcome)


def adversaries(splits: Splits, learning_rate: float) -> GAN:
    """Both networks, compiled, and the step that they learn by."""
    shape = splits.train.pixels.shape[1:]
    try:
        generator, critic = small_generator(shape, noise_size=NOISE), small_critic(shape)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    for network in (generator, critic):
        network.compile(keras.optimizers.Adam(learning_rate, beta_1=0.5))
    return GAN(generator, critic)


def train(trainer: Trainer, images: Images, noise: NDArray[np.float32], directory: Path, *, options: Options) -> None:
    """Trains, and leaves what was seen on the way: `samples/` and `logs/`."""
    board = TensorBoard(directory / "logs")
    trainer.fit(
        images.pixels,
        batch_size=options.batch_size,
        epochs=options.epochs,
        callbacks=[Samples(noise, directory / "samples", board), board],
        verbose=2,
        resume=True,  # begins where there is nothing yet
    )


def judge(trainer: Trainer, splits: Splits, noise: NDArray[np.float32], directory: Path, *, options: Options) -> str:
    """Has what is made from the noise judged beside the test images, leaves `samples.png`, and sums up."""
    pictures = trainer.predict(noise, verbose=0)
    classifier = train_judge(splits, seed=options.seed)
    made, real = Verdict.of(classifier, pictures), Verdict.of(classifier, splits.test.pixels)
    draw(pictures[:SHOWN], splits.train, directory / "samples.png", made=made, real=real)
    return f"Generated images: {made}. Test images: {real}."


def draw(pictures: NDArray[np.float32], images: Images, path: Path, *, made: Verdict, real: Verdict) -> None:
    """Draws what was generated, what it might be copied from, and how often each class comes, into a PNG file."""
    figure = Figure(figsize=(15, 5.5), layout="constrained")  # no pyplot: nothing to close
    left, middle, right = figure.subplots(1, 3)
    show(left, pictures, "generated")
    show(middle, images.pixels[nearest(pictures, images.pixels)], "the most similar training image of each")
    classes = np.arange(len(made.shares))
    right.bar(classes - 0.2, made.shares, 0.4, label=f"generated: score {made.score:.2f}")
    right.bar(classes + 0.2, real.shares, 0.4, label=f"test images: score {real.score:.2f}")
    right.set(title="how often the judge sees each class", xticks=classes)
    right.legend()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m recipes.gan", description=(__doc__ or "").partition("```")[0]))

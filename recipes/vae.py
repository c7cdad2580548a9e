"""Trains a variational auto-encoder on pictures of digits, and draws others like them.

The network is `zoo.VariationalAutoencoder`, the step is `zoo.VariationalInference`, with Adam. A run leaves in its
directory: `pictures.png` (test images beside what is made of them from their codes, and pictures from codes that were
drawn), `autoencoder.keras`, `logs/` for TensorBoard (the loss and its two terms, and the drawn pictures after each
epoch), and `checkpoints/`, from which `--resume` goes on with a run that was stopped or killed, to end as if it never
had been.

```bash
python -m recipes.vae
tensorboard --logdir runs/vae/logs
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
from recipes.data import Splits, load_or_exit
from recipes.judge import Verdict, train_judge
from recipes.pictures import grid, show
from recipes.runs import directory_of
from zoo import VariationalAutoencoder, VariationalInference

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
        batch_size: How many images a step takes, counted in images.
        learning_rate: Adam's step size, more than 0 and at most 1.
        code_size: Numbers that an image is pressed into.
        seed: Where every random number comes from: the first weights, the order of the images and the noise.
        name: What to call the run and its directory, in letters, digits, '.', '_' and '-'. If there is such
            a directory already, a number is added.
        runs: The directory that the runs' directories are in.
        resume: Whether to go on with the run of that name, if there is one that was stopped or killed.
    """

    data: str = "digits"
    epochs: int = attrs.field(default=100, validator=ge(1))
    batch_size: int = attrs.field(default=64, validator=ge(1))
    learning_rate: float = attrs.field(default=2e-3, validator=and_(gt(0), le(1)))
    code_size: int = attrs.field(default=8, validator=ge(1))
    seed: int = attrs.field(default=1, validator=and_(ge(0), lt(2**32)))
    name: str = attrs.field(default="vae", validator=matches_re(r"\w[\w.-]*"))
    runs: Path = Path("runs")
    resume: bool = False


class Drawn(Callback):
    """Writes after each epoch what the decoder makes of the same codes, into TensorBoard's images.

    Args:
        codes: Standard normal numbers, float32, (picture, code_size).
        board: The writer of TensorBoard's files.
    """

    def __init__(self, codes: NDArray[np.float32], board: TensorBoard) -> None:
        super().__init__()
        self._codes = codes
        self._board = board

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """The epoch is over."""
        self._board.add_image("drawn", grid(np.asarray(self.model.decoder(self._codes)), columns=COLUMNS))

    def get_state(self) -> dict[str, Any]:
        """It keeps nothing that a resumed run needs."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing to take up."""


def main(options: Options) -> None:
    """Loads, trains, evaluates, has the pictures judged, in this order.

    Raises:
        SystemExit: The images cannot be had, the network does not take them, or the directory cannot be made; says
            why in one line.
    """
    keras.utils.set_random_seed(options.seed)
    splits = load_or_exit(options.data)
    try:
        model = VariationalAutoencoder(splits.train.pixels.shape[1:], options.code_size)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    model.compile(keras.optimizers.Adam(options.learning_rate))
    directory = directory_of(options.runs, options.name, resume=options.resume)

    checkpoints = Checkpointer(directory / "checkpoints")
    trainer = Trainer(VariationalInference(model), seed=options.seed, checkpoints=checkpoints)
    codes = np.random.default_rng(options.seed).standard_normal((JUDGED, options.code_size), np.float32)
    train(trainer, splits, codes[:SHOWN], directory, options=options)
    model.save(directory / "autoencoder.keras")
    outcome = judge(trainer, splits, model.decoder.predict(codes, verbose=0), directory, options=options)

    print(f"In {directory}: {', '.join(sorted(path.name for path in directory.iterdir()))}.")
    print(f"To look at it: {shlex.join(['tensorboard', '--logdir', str(directory / 'logs')])}")
    print(outcome)


def train(trainer: Trainer, splits: Splits, codes: NDArray[np.float32], directory: Path, *, options: Options) -> None:
    """Trains, and leaves what was seen on the way in `logs/`."""
    board = TensorBoard(directory / "logs")
    trainer.fit(
        splits.train.pixels,
        batch_size=options.batch_size,
        epochs=options.epochs,
        validation_data=(splits.validation.pixels,),
        callbacks=[Drawn(codes, board), board],
        verbose=2,
        resume=True,  # begins where there is nothing yet
    )


def judge(trainer: Trainer, splits: Splits, drawn: NDArray[np.float32], directory: Path, *, options: Options) -> str:
    """Evaluates on the test images, has the drawn pictures judged, leaves `pictures.png`, and sums up."""
    images = splits.test.pixels
    scores = trainer.evaluate(images, verbose=0)
    again = trainer.predict(images[:SHOWN], verbose=0)
    draw(images[:SHOWN], again, drawn[:SHOWN], directory / "pictures.png")
    classifier = train_judge(splits, seed=options.seed)
    return (
        f"Drawn pictures: {Verdict.of(classifier, drawn)}. Test images: {Verdict.of(classifier, images)}.\n"
        f"Test loss {scores['loss']:.2f} nats an image: reconstruction {scores['loss/reconstruction']:.2f}, "
        f"divergence {scores['loss/divergence']:.2f}."
    )


def draw(images: NDArray[np.float32], again: NDArray[np.float32], drawn: NDArray[np.float32], path: Path) -> None:
    """Draws images, what is made of their codes, and pictures from drawn codes, side by side into a PNG file."""
    figure = Figure(figsize=(15, 5.5), layout="constrained")  # no pyplot: nothing to close
    left, middle, right = figure.subplots(1, 3)
    show(left, images, "test images")
    show(middle, again, "the same, made again from their codes")
    show(right, drawn, "made from codes that were drawn")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m recipes.vae", description=(__doc__ or "").partition("```")[0]))

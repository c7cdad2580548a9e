"""Distils a trained convolutional network into a small dense one, of images that nobody has labelled.

The teacher, three convolutions, learns from all the labelled images. Then students with a single hidden layer learn
the same task, and are shown side by side: from every label there is; from a few labels; from the same few images,
their labels and what the teacher answers to them; and from the teacher's answers to all images, without one label.
All students of a seed begin with the same weights and take as many steps. See `zoo.Distillation`.

A run leaves in its directory: `teacher.keras` and `student.keras` (the last one, distilled without a label),
`students.png` (all test accuracies), `report.txt`, `logs/` for TensorBoard, and `checkpoints/`, from which `--resume`
goes on with a run that was stopped or killed.

```bash
python -m recipes.distillation --labelled 50
```
"""

import shlex
from pathlib import Path

import attrs
import keras
import numpy as np
import tyro
from attrs.validators import and_, ge, gt, lt, matches_re
from matplotlib.figure import Figure

from engine import Checkpointer, Every, Task, Trainer
from engine.callbacks import TensorBoard
from engine.errors import DataError
from recipes.data import Images, Splits, load
from recipes.runs import directory_of
from zoo import Distillation, dense_classifier, softened, strided_cnn

LOSS = "sparse_categorical_crossentropy"


@attrs.frozen(kw_only=True)
class Options:
    """What a run is made from. The same options give the same run.

    Attributes:
        data: What to learn: digits (scikit-learn's, no download), mnist (Keras's, downloaded once),
            or the path of an .npz file with x_train, y_train, x_test and y_test.
        limit: How many of the training images to use, counted in images.
        labelled: How many of them have a label, for the students that learn from few; counted in images.
        units: Width of the students' hidden layer.
        temperature: What the answers are softened by, greater than 0; 1 leaves them as they are.
        teacher_epochs: How often the teacher sees every training image, counted in epochs.
        student_epochs: The same of the students; of a few images, each is seen the oftener.
        batch_size: How many images a step takes, counted in images.
        seeds: How many times the students are trained, each time from other first weights and of other few images.
        name: What to call the run and its directory, in letters, digits, '.', '_' and '-'. If there is such
            a directory already, a number is added.
        runs: The directory that the runs' directories are in.
        resume: Whether to go on with the run of that name, if there is one that was stopped or killed.
    """

    data: str = "digits"
    limit: int = attrs.field(default=10_000, validator=ge(1))
    labelled: int = attrs.field(default=50, validator=ge(1))
    units: int = attrs.field(default=32, validator=ge(1))
    temperature: float = attrs.field(default=2.0, validator=gt(0))
    teacher_epochs: int = attrs.field(default=10, validator=ge(1))
    student_epochs: int = attrs.field(default=40, validator=ge(1))
    batch_size: int = attrs.field(default=32, validator=ge(1))
    seeds: int = attrs.field(default=3, validator=and_(ge(1), lt(100)))
    name: str = attrs.field(default="distillation", validator=matches_re(r"\w[\w.-]*"))
    runs: Path = Path("runs")
    resume: bool = False


def main(options: Options) -> None:
    """The teacher first, then every student; in the end their test accuracies side by side.

    Raises:
        SystemExit: The images cannot be had or the directory cannot be made; says why in one line.
    """
    splits = load_images(options)
    directory = directory_of(options.runs, options.name, resume=options.resume)

    teacher = train_teacher(splits, directory, options=options)
    accuracies: dict[str, list[float]] = {"the teacher": [accuracy_of(teacher, splits.test)]}
    for seed in range(1, options.seeds + 1):
        for lesson in lessons(splits.train, options.labelled, seed=seed):
            student = train_student(lesson, teacher, splits, directory, seed=seed, options=options)
            accuracies.setdefault(lesson.title, []).append(accuracy_of(student, splits.test))
            print(f"Seed {seed}, {lesson.title}: test accuracy {accuracies[lesson.title][-1]:.4f}.")
    student.save(directory / "student.keras")

    report = describe(accuracies)
    sizes = f"The teacher has {teacher.count_params():,} parameters, a student {student.count_params():,}."
    (directory / "report.txt").write_text(f"{options}\n{sizes}\n{report}\n", encoding="utf-8")
    draw(accuracies, teacher, splits.test, directory / "students.png", temperature=options.temperature)
    print(f"{sizes}\n{report}")
    print(f"In {directory}: {', '.join(sorted(path.name for path in directory.iterdir()))}.")
    print(f"To look at it: {shlex.join(['tensorboard', '--logdir', str(directory / 'logs')])}")


@attrs.frozen(eq=False)
class Lesson:
    """What one student learns from.

    Attributes:
        name: Of its directories.
        title: Of its line in the report.
        images: The images it sees in an epoch.
        has_labels: Whether it is told their labels.
        has_teacher: Whether it is told the teacher's answers.
    """

    name: str
    title: str
    images: Images
    has_labels: bool
    has_teacher: bool


def lessons(train: Images, num_labelled: int, *, seed: int) -> list[Lesson]:
    """The four lessons of a seed; an epoch of each has as many images as there are, the few ones over and over."""
    order = np.random.default_rng(seed).permutation(len(train))
    few = train.take(np.resize(order[:num_labelled], len(train)))
    return [
        Lesson("labels", f"all {len(train):,} labels", train, has_labels=True, has_teacher=False),
        Lesson("few", f"{num_labelled:,} labels", few, has_labels=True, has_teacher=False),
        Lesson("few-taught", f"{num_labelled:,} labels and answers", few, has_labels=True, has_teacher=True),
        Lesson("taught", f"{len(train):,} answers, no label", train, has_labels=False, has_teacher=True),
    ]


def train_teacher(splits: Splits, directory: Path, *, options: Options) -> keras.Model:
    """The large network, from all the labels; leaves `teacher.keras`."""
    keras.utils.set_random_seed(0)
    teacher = strided_cnn(splits.num_classes, splits.train.pixels.shape[1:])
    teacher.compile(keras.optimizers.Adam(1e-3), LOSS, metrics=["accuracy"])
    lesson = Lesson("teacher", "the teacher", splits.train, has_labels=True, has_teacher=False)
    fit(teacher, lesson, splits.validation, directory, seed=0, epochs=options.teacher_epochs, options=options)
    teacher.save(directory / "teacher.keras")
    return teacher


def train_student(
    lesson: Lesson, teacher: keras.Model, splits: Splits, directory: Path, *, seed: int, options: Options
) -> keras.Model:
    """A small network, from one lesson; all of a seed begin with the same weights."""
    keras.utils.set_random_seed(seed)
    student = dense_classifier(splits.num_classes, splits.train.pixels.shape[1:], units=options.units)
    student.compile(keras.optimizers.Adam(1e-3), LOSS, metrics=["accuracy"])
    task = Distillation(student, teacher, temperature=options.temperature) if lesson.has_teacher else student
    fit(task, lesson, splits.validation, directory, seed=seed, epochs=options.student_epochs, options=options)
    return student


def fit(
    task: keras.Model | Task,
    lesson: Lesson,
    validation: Images,
    directory: Path,
    *,
    seed: int,
    epochs: int,
    options: Options,
) -> None:
    """Trains on a lesson; of a run that is gone on with, only what is missing."""
    run = f"{lesson.name}-{seed}"
    checkpoints = Checkpointer(directory / "checkpoints" / run, every=Every(epochs=10), keep=1)
    Trainer(task, seed=seed, checkpoints=checkpoints).fit(
        lesson.images.pixels,
        lesson.images.labels if lesson.has_labels else None,
        batch_size=options.batch_size,
        epochs=epochs,
        validation_data=(validation.pixels, validation.labels),
        callbacks=[TensorBoard(directory / "logs" / run)],
        verbose=0,
        resume=True,  # begins where there is nothing yet
    )


def accuracy_of(model: keras.Model, images: Images) -> float:
    """The share of the images that a classifier calls by their label."""
    return float(Trainer(model).evaluate(images.pixels, images.labels, verbose=0)["accuracy"])


def describe(accuracies: dict[str, list[float]]) -> str:
    """A line for each lesson: the mean over the seeds, the worst and the best of them."""
    lines = [
        f"{title:26} {np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"
        for title, values in accuracies.items()
    ]
    return "\n".join(["Test accuracy, mean over the seeds (worst to best)", *lines])


def draw(
    accuracies: dict[str, list[float]], teacher: keras.Model, test: Images, path: Path, *, temperature: float
) -> None:
    """Draws every test accuracy, and beside it what the teacher answers to the images it is least sure of."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")  # no pyplot: nothing to close
    grid = figure.add_gridspec(1, 2, width_ratios=(3, 2))
    left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    axes = left.subplots()
    for row, values in enumerate(accuracies.values()):
        axes.plot(values, [row] * len(values), "o", color="tab:blue", alpha=0.5)
        axes.plot(np.mean(values), row, "|", color="tab:red", markersize=24)
        axes.annotate(f"{np.mean(values):.3f}", (float(np.mean(values)), row - 0.28), ha="center")
    axes.set_yticks(range(len(accuracies)), list(accuracies))
    axes.margins(x=0.1)
    axes.set(ylim=(len(accuracies) - 0.5, -0.7), xlabel="test accuracy: a dot for each seed, a line at their mean")
    axes.grid(axis="x", alpha=0.3)

    answers = Trainer(teacher).predict(test.pixels, verbose=0)  # (image, class)
    softer = np.asarray(softened(answers, temperature))  # (image, class)
    right.suptitle(f"the teacher's answers (blue), at temperature {temperature:g} (orange)", fontsize="medium")
    for (image, bars), index in zip(
        right.subplots(3, 2, width_ratios=(1, 3)), answers.max(axis=-1).argsort(), strict=False
    ):
        image.imshow(test.pixels[index], cmap="gray_r")
        image.set_axis_off()
        bars.bar(np.arange(answers.shape[-1]) - 0.2, answers[index], width=0.4, color="tab:blue")
        bars.bar(np.arange(answers.shape[-1]) + 0.2, softer[index], width=0.4, color="tab:orange")
        bars.set(xticks=range(answers.shape[-1]), ylim=(0, 1))
    figure.savefig(path, dpi=120)


def load_images(options: Options) -> Splits:
    """Loads images and keeps as many as wanted, or ends the program with the reason why not."""
    try:
        splits = load(options.data)
    except DataError as error:
        raise SystemExit(str(error)) from error
    splits = splits.limit(min(options.limit, len(splits.train)))
    if options.labelled > len(splits.train):
        raise SystemExit(
            f"labelled is {options.labelled:,}, but there are {len(splits.train):,} training images. Give fewer."
        )
    return splits


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m recipes.distillation", description=(__doc__ or "").partition("```")[0]))

import keras
import numpy as np
import pytest

from recipes.data import load
from recipes.distillation import Options, lessons, main


@pytest.mark.slow
def test_a_run_leaves_everything_it_promises_and_a_resumed_one_the_same(tmp_path, capsys):
    tiny = {"limit": 64, "labelled": 20, "teacher_epochs": 1, "student_epochs": 1, "seeds": 1, "runs": tmp_path}
    main(Options(**tiny))
    directory = tmp_path / "distillation"
    report = (directory / "report.txt").read_text().splitlines()
    printed = capsys.readouterr().out
    main(Options(**tiny, resume=True))
    again = (directory / "report.txt").read_text().splitlines()

    assert {path.name for path in directory.iterdir()} == {
        "checkpoints", "logs", "report.txt", "student.keras", "students.png", "teacher.keras",
    }  # fmt: skip
    assert {path.name for path in (directory / "checkpoints").iterdir()} == {
        "few-1", "few-taught-1", "labels-1", "taught-1", "teacher-0",
    }  # fmt: skip
    assert "The teacher has 114,058 parameters, a student 25,450." == report[1]
    assert ["the teacher", "all 64 labels", "20 labels", "20 labels and answers", "64 answers, no label"] == [
        line.partition("  ")[0] for line in report[3:]
    ]
    assert report[1:] == again[1:]
    assert "\n".join(report[1:]) in printed
    assert (directory / "students.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert 25_450 == keras.models.load_model(directory / "student.keras").count_params()


def test_every_lesson_of_a_seed_has_as_many_images_and_the_few_are_the_same_ones():
    train = load("digits").train
    _, few, taught, unlabelled = lessons(train, 50, seed=1)
    others = lessons(train, 50, seed=2)[1]

    assert {len(train)} == {len(lesson.images) for lesson in (few, taught, unlabelled)}
    assert 50 == len(np.unique(few.images.pixels.reshape(len(train), -1), axis=0))
    assert np.array_equal(few.images.pixels, taught.images.pixels)
    assert not np.array_equal(few.images.pixels, others.images.pixels)
    assert not unlabelled.has_labels


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data": "none.npz"}, r"none\.npz cannot be read"),
        ({"limit": 40}, r"labelled is 50, but there are 40 training images\. Give fewer\."),
    ],
)
def test_what_cannot_be_had_ends_the_program_before_a_directory_is_made(tmp_path, options, words):
    with pytest.raises(SystemExit, match=words):
        main(Options(runs=tmp_path / "runs", **options))

    assert not (tmp_path / "runs").exists()

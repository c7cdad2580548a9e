import keras
import numpy as np
import pytest

from recipes.fine_tuning import COPIES, Options, check_frozen, load_halves, main
from zoo import fine_tuned, strided_cnn


@pytest.mark.slow
def test_a_run_leaves_everything_it_promises_and_a_resumed_one_the_same(tmp_path, capsys):
    tiny = {"images": (2,), "pretraining_epochs": 1, "epochs": 1, "seeds": 1, "runs": tmp_path}
    main(Options(**tiny))
    directory = tmp_path / "fine_tuning"
    report = (directory / "report.txt").read_text().splitlines()
    printed = capsys.readouterr().out
    main(Options(**tiny, resume=True))
    again = (directory / "report.txt").read_text().splitlines()

    assert {path.name for path in directory.iterdir()} == {
        "accuracy.png", "checkpoints", "fine_tuned.keras", "logs", "report.txt",
    }  # fmt: skip
    assert {"head-2-0", "part-2-0", "pretrained", "scratch-2-0"} == {
        path.name for path in (directory / "checkpoints").iterdir()
    }
    assert 3 == sum(line.startswith("   2 images of each class, ") for line in report)
    assert report[1:] == again[1:]
    assert "frozen numbers of each network are what they were, to the bit." in printed
    assert (directory / "accuracy.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert 5 == keras.models.load_model(directory / "fine_tuned.keras").num_classes


def test_the_halves_share_no_class_and_few_images_are_as_few_as_asked_for():
    known, new = load_halves(Options())
    few = new.few(3, seed=0)

    assert (5, 5) == (known.num_classes, new.num_classes)
    assert set(range(5)) == set(known.train.labels) == set(new.train.labels)
    assert 1257 == len(known.train) / COPIES + len(new.train)
    assert (0, 1) == (new.test.pixels.min(), new.test.pixels.max())
    assert 3 * 5 == len(np.unique(few.pixels.reshape(len(few), -1), axis=0))
    assert set(range(5)) == set(few.labels)
    assert np.array_equal(few.pixels, new.few(3, seed=0).pixels)
    assert not np.array_equal(few.pixels, new.few(3, seed=1).pixels)


def test_a_frozen_number_that_moves_by_one_bit_is_found_out():
    pretrained = strided_cnn(3, (8, 8, 1), filters=(2, 3))
    model = fine_tuned(pretrained, 2)
    model.unfreeze("convolution_2")
    # Two convolutions and two normalisations; what is frozen: the first of each, and the second's running statistics.
    frozen = (9 * 2 + 2) + 4 * 2 + 2 * 3
    counted = check_frozen(model, pretrained)
    statistics = model.features.get_layer("normalization_2").moving_mean
    statistics.assign(np.nextafter(statistics.numpy(), np.float32(1)))

    assert frozen == counted
    with pytest.raises(RuntimeError, match=r"moving_mean was frozen, but is not what it was\."):
        check_frozen(model, pretrained)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data": "none.npz"}, r"none\.npz cannot be read"),
        ({"images": (1, 1000)}, r"images holds 1,000, but of one class there are only 12\d\. Give fewer\."),
    ],
)
def test_what_cannot_be_had_ends_the_program_before_a_directory_is_made(tmp_path, options, words):
    with pytest.raises(SystemExit, match=words):
        main(Options(runs=tmp_path / "runs", **options))

    assert not (tmp_path / "runs").exists()

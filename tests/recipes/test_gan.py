import keras
import numpy as np
import pytest

from recipes.gan import Options, main
from tests.event_files import curves_of


def test_a_run_leaves_everything_it_promises(tmp_path, few_digits, capsys):
    options = {"data": few_digits, "epochs": 2, "runs": tmp_path / "runs"}
    main(Options(**options))
    directory = tmp_path / "runs" / "gan"
    first = capsys.readouterr().out.splitlines()
    main(Options(**options, resume=True))
    again = capsys.readouterr().out.splitlines()
    curves = curves_of(directory / "logs")
    generator = keras.models.load_model(directory / "generator.keras")

    assert {path.name for path in directory.iterdir()} == {
        "checkpoints", "generator.keras", "logs", "samples", "samples.png",
    }  # fmt: skip
    assert ["001.png", "002.png"] == sorted(path.name for path in (directory / "samples").iterdir())
    assert (directory / "samples.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert [3, 6] == [step for step, _ in curves["train/generated"]]
    assert [0, 1] == [step for step, _ in curves["train/epoch_critic_loss/real"]]
    assert (5, 8, 8, 1) == generator.predict(np.zeros((5, 64)), verbose=0).shape
    assert first[-1].startswith("Generated images: score ")
    assert " Test images: score " in first[-1]
    assert first[-1] == again[-1]


def test_the_samples_are_drawn_from_the_same_noise(tmp_path, few_digits):
    """Two runs of one seed draw the same pictures, and an epoch changes them."""
    for name in ("one", "other"):
        main(Options(data=few_digits, epochs=2, name=name, runs=tmp_path))
    first, second = ((tmp_path / "one" / "samples" / f"00{epoch}.png").read_bytes() for epoch in (1, 2))

    assert first == (tmp_path / "other" / "samples" / "001.png").read_bytes()
    assert first != second


def test_images_that_the_networks_do_not_take_end_the_program_before_a_directory_is_made(tmp_path):
    images, labels = np.zeros((20, 28, 30), np.uint8), np.zeros(20, np.uint8)
    np.savez(tmp_path / "wide.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)

    with pytest.raises(SystemExit, match=r"image_shape was given as \(28, 30, 1\), but must be"):
        main(Options(data=str(tmp_path / "wide.npz"), runs=tmp_path / "runs"))

    assert not (tmp_path / "runs").exists()

import re

import keras
import numpy as np
import pytest

from recipes.vae import Options, main
from tests.event_files import curves_of


@pytest.mark.slow
def test_a_run_leaves_everything_it_promises(tmp_path, few_digits, capsys):
    options = {"data": few_digits, "epochs": 2, "runs": tmp_path / "runs"}
    main(Options(**options))
    directory = tmp_path / "runs" / "vae"
    first = capsys.readouterr().out.splitlines()
    main(Options(**options, resume=True))
    again = capsys.readouterr().out.splitlines()
    curves = curves_of(directory / "logs")
    model = keras.models.load_model(directory / "autoencoder.keras")
    total, *terms = (float(number) for number in re.findall(r"\d+\.\d+", first[-1]))

    assert {"autoencoder.keras", "checkpoints", "logs", "pictures.png"} == {path.name for path in directory.iterdir()}
    assert (directory / "pictures.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert [3, 6] == [step for step, _ in curves["train/drawn"]]
    for term in ("loss", "loss/divergence", "loss/reconstruction"):
        assert [0, 1] == [step for step, _ in curves[f"train/epoch_{term}"]]
        assert [0, 1] == [step for step, _ in curves[f"validation/epoch_{term}"]]
    assert (5, 8, 8, 1) == model.decoder.predict(np.zeros((5, 8)), verbose=0).shape
    assert first[-2].startswith("Drawn pictures: score ")
    assert first[-1].startswith("Test loss ")
    assert total == pytest.approx(sum(terms), abs=0.02)  # each is rounded to 0.01
    assert first[-2:] == again[-2:]


def test_images_that_the_network_does_not_take_end_the_program_before_a_directory_is_made(tmp_path):
    images, labels = np.zeros((20, 28, 30), np.uint8), np.zeros(20, np.uint8)
    np.savez(tmp_path / "wide.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)

    with pytest.raises(SystemExit, match=r"image_shape was given as \(28, 30, 1\), but must be"):
        main(Options(data=str(tmp_path / "wide.npz"), runs=tmp_path / "runs"))

    assert not (tmp_path / "runs").exists()

import keras
import numpy as np
import pytest
from matplotlib.image import imread

from recipes.gan import Options, main
from recipes.pictures import grid
from tests.event_files import curves_of


@pytest.mark.slow
def test_a_run_leaves_everything_it_promises(tmp_path, few_digits, capsys):
    options = {"data": few_digits, "epochs": 2, "runs": tmp_path / "runs"}
    main(Options(**options))
    directory = tmp_path / "runs" / "gan"
    first = capsys.readouterr().out.splitlines()
    main(Options(**options, resume=True))
    again = capsys.readouterr().out.splitlines()
    curves = curves_of(directory / "logs")
    generator = keras.models.load_model(directory / "generator.keras")
    noise = np.random.default_rng(1).standard_normal((2000, 64), np.float32)
    pictures = grid(generator.predict(noise[:100], verbose=0), columns=10)[..., 0].repeat(2, axis=0).repeat(2, axis=1)
    samples = [imread(directory / "samples" / f"00{epoch}.png")[..., 0] for epoch in (1, 2)]

    assert {path.name for path in directory.iterdir()} == {
        "checkpoints", "generator.keras", "logs", "samples", "samples.png",
    }  # fmt: skip
    assert ["001.png", "002.png"] == sorted(path.name for path in (directory / "samples").iterdir())
    assert (directory / "samples.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert [3, 6] == [step for step, _ in curves["train/generated"]]
    assert [0, 1] == [step for step, _ in curves["train/epoch_critic_loss/real"]]
    np.testing.assert_allclose(pictures, samples[1], atol=1 / 255)
    assert pictures.shape == samples[0].shape
    assert np.abs(pictures - samples[0]).max() > 2 / 255
    assert first[-1].startswith("Generated images: score ")
    assert " Test images: score " in first[-1]
    assert first[-1] == again[-1]


def test_images_that_the_networks_do_not_take_end_the_program_before_a_directory_is_made(tmp_path):
    images, labels = np.zeros((20, 28, 30), np.uint8), np.zeros(20, np.uint8)
    np.savez(tmp_path / "wide.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)

    with pytest.raises(SystemExit, match=r"image_shape was given as \(28, 30, 1\), but must be"):
        main(Options(data=str(tmp_path / "wide.npz"), runs=tmp_path / "runs"))

    assert not (tmp_path / "runs").exists()

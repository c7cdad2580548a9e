import json

import keras
import numpy as np
import pytest

from recipes.contrastive import Options, main


def test_a_class_too_rare_to_be_probed_is_refused_before_a_directory_is_made(tmp_path):
    with pytest.raises(SystemExit, match=r"digits: one class has \d training images, but each must have 3"):
        main(Options(limit=20, runs=tmp_path / "runs"))

    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_run_leaves_everything_it_promises(tmp_path, capsys):
    main(Options(runs=tmp_path, limit=80, epochs=1, batch_size=40, draws=1))
    *_, with_all, left, look = capsys.readouterr().out.splitlines()
    directory = tmp_path / "contrastive"
    history = json.loads((directory / "history.json").read_text())
    table = json.loads((directory / "probe.json").read_text())
    encoder = keras.models.load_model(directory / "encoder.keras")

    names = ["checkpoints", "encoder.keras", "history.json", "logs", "probe.json", "probe.png"]
    assert names == sorted(path.name for path in directory.iterdir())
    assert {"loss", "loss/nt_xent", "found"} == set(history)
    assert np.isfinite(history["loss"]).all()
    assert ["features", "untrained encoder", "pixels"] == list(table)
    assert all(["5", "10", "20", "50", "all"] == list(row) for row in table.values())
    assert (directory / "probe.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (None, 1024) == encoder.output_shape
    assert with_all.startswith(f"Test accuracy with all labels: features {table['features']['all'][0]:.4f}, ")
    assert left == f"In {directory}: {', '.join(names)}."
    assert look == f"To look at it: tensorboard --logdir {directory / 'logs'}"

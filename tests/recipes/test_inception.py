import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tyro

from recipes.inception import Options, check_saved, main


def run(*arguments, **environment):
    """Runs Python with these arguments in a process of its own."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_recipes_are_listed_without_tensorflow():
    program = "import runpy, sys; runpy.run_module('recipes', run_name='__main__'); print('keras' in sys.modules)"
    finished = run("-c", program)

    *lines, imported = finished.stdout.splitlines()

    assert finished.returncode == 0, finished.stderr
    assert {
        "callbacks": "Trains a dense network on pictures of digits with the callbacks at work.",
        "cartpole": "Teaches a policy to balance a pole on a cart, by REINFORCE or by PPO.",
        "contrastive": "Learns features of digits without a label, and holds a linear classifier on them to one on raw "
        "pixels.",
        "distillation": "Distils a trained convolutional network into a small dense one, of images that nobody has "
        "labelled.",
        "fine_tuning": "Takes what a network has learnt of half the digits to the other half, of which it sees only a "
        "few images.",
        "gan": "Trains a generative adversarial network to draw digits, and has them judged.",
        "inception": "Trains the shorter small Inception on pictures of digits, and reports on it.",
        "vae": "Trains a variational auto-encoder on pictures of digits, and draws others like them.",
    } == dict(line.removeprefix("python -m recipes.").split("    ") for line in lines)
    assert "False" == imported


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epochs", "0"], "'epochs' must be >= 1: 0"),
        (["--batch-size", "-1"], "'batch_size' must be >= 1: -1"),
        (["--learning-rate", "0"], "'learning_rate' must be > 0: 0.0"),
        (["--learning-rate", "nan"], "'learning_rate' must be > 0: nan"),
        (["--learning-rate", "2"], "'learning_rate' must be <= 1: 2.0"),
        (["--limit", "0"], "'limit' must be >= 1: 0"),
        (["--seed", "-1"], "'seed' must be >= 0: -1"),
        (["--seed", str(2**32)], "'seed' must be < 4294967296: 4294967296"),
        (["--name", "../up"], "'name' must match"),
        (["--name", ".."], "'name' must match"),
        (["--name", ""], "'name' must match"),
        (["--epochs", "many"], "Error parsing --epochs"),
        (["--rate", "1"], "Unrecognized options: --rate"),
    ],
)
def test_a_bad_option_is_refused_at_the_door(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        tyro.cli(Options, args=arguments)

    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_the_options_have_their_meaning_in_the_help(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(Options, args=["--help"])
    text = capsys.readouterr().out

    assert "counted in epochs" in " ".join(text.replace("│", " ").split())
    assert "(default: digits)" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data": "cifar"}, r"data is 'cifar', but 'digits', 'mnist' or the path"),
        ({"data": "none.npz"}, r"none\.npz cannot be read: No such file"),
        ({"limit": 1258}, r"limit is 1,258, but there are 1,257 training images"),
    ],
)
def test_images_that_cannot_be_had_end_the_program_before_a_directory_is_made(tmp_path, options, words):
    with pytest.raises(SystemExit, match=words):
        main(Options(runs=tmp_path / "runs", **options))

    assert not (tmp_path / "runs").exists()


def test_images_too_small_for_the_network_are_refused(tmp_path):
    images, labels = np.zeros((20, 28, 6), np.uint8), np.zeros(20, np.uint8)
    np.savez(tmp_path / "small.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)

    with pytest.raises(SystemExit, match=r"images are 28x6 pixels, .* takes none under 7x7\."):
        main(Options(data=str(tmp_path / "small.npz"), runs=tmp_path))


def linear(weight: float) -> keras.Model:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.set_weights([np.full((2, 2), weight) * [[1, -1]], np.zeros(2)])
    return model


def test_a_saved_model_that_predicts_the_same_is_found_good(tmp_path):
    inputs = np.random.default_rng(0).random((40, 2), np.float32)
    model = linear(1.0)
    model.save(tmp_path / "model.keras")

    check_saved(tmp_path / "model.keras", inputs, model.predict(inputs, verbose=0))


def test_a_saved_model_that_predicts_something_else_is_found_out(tmp_path):
    inputs = np.random.default_rng(0).random((40, 2), np.float32)
    linear(1.0).save(tmp_path / "model.keras")
    others = linear(np.nextafter(np.float32(1.0), np.float32(2.0))).predict(inputs, verbose=0)

    with pytest.raises(RuntimeError, match=r"predicts other probabilities when loaded again, by up to \d"):
        check_saved(tmp_path / "model.keras", inputs, others)


@pytest.mark.slow
def test_mnist_without_a_network_ends_with_one_line_that_names_the_ways_out(tmp_path):
    """The proxy is a port that nobody listens on: every download is refused at once."""
    finished = run(
        "-m", "recipes.inception", "--data", "mnist", "--runs", str(tmp_path / "runs"),
        KERAS_HOME=str(tmp_path), https_proxy="http://127.0.0.1:9",
    )  # fmt: skip
    line = finished.stderr.splitlines()[-1]

    assert finished.returncode == 1
    assert line.startswith("MNIST could not be downloaded (URL fetch failure")
    assert "--data FILE.npz" in line
    assert "--data digits" in line
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_run_leaves_everything_it_promises(tmp_path):
    known = "ignore:__array__ implementation:DeprecationWarning"  # Keras's own, as in pyproject.toml
    options = ["--epochs", "1", "--limit", "64", "--runs", str(tmp_path)]
    finished = run("-W", "error", "-W", known, "-m", "recipes.inception", *options)

    assert finished.returncode == 0, finished.stderr
    directory = tmp_path / "inception"
    history = json.loads((directory / "history.json").read_text())
    report = (directory / "report.txt").read_text()
    model = keras.models.load_model(directory / "model.keras")

    assert {path.name for path in directory.iterdir()} == {
        "checkpoints", "confusion.png", "history.json", "logs", "loss.png", "model.keras", "report.txt",
    }  # fmt: skip
    assert {path.name for path in (directory / "logs").iterdir()} == {"train", "validation"}
    assert all(any(path.glob("events.out.tfevents.*")) for path in (directory / "logs").iterdir())
    assert {"accuracy", "loss", "val_accuracy", "val_loss"} == set(history)
    assert {1} == {len(values) for values in history.values()}
    for picture in ("loss.png", "confusion.png"):
        assert (directory / picture).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert model.count_params() == 586_730
    assert "limit=64" in report
    assert "weighted avg" in report
    *_, outcome, left, look = finished.stdout.splitlines()
    assert outcome.startswith("Test accuracy 0.")
    assert outcome in report
    assert left == f"In {directory}: checkpoints, confusion.png, history.json, logs, loss.png, model.keras, report.txt."
    assert look == f"To look at it: tensorboard --logdir {directory / 'logs'}"

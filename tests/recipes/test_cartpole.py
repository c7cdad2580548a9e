import json

import keras
import numpy as np
import pytest
import tyro

from recipes.cartpole import EPISODES_AT_THE_END, Options, episode_seeds, main
from recipes.cartpole_pictures import draw_returns


def test_a_run_leaves_everything_it_promises_and_is_not_run_twice(tmp_path, capsys):
    main(Options(epochs=1, batch_size=50, runs=tmp_path))
    directory = tmp_path / "cartpole"
    history = json.loads((directory / "history.json").read_text())
    first, left, look = capsys.readouterr().out.splitlines()[-3:]
    main(Options(epochs=1, batch_size=50, runs=tmp_path, resume=True))
    again = capsys.readouterr().out

    assert {path.name for path in directory.iterdir()} == {
        "checkpoints", "episode.png", "history.json", "logs", "policy.keras", "returns.png",
    }  # fmt: skip
    assert all((directory / name).read_bytes().startswith(b"\x89PNG") for name in ("episode.png", "returns.png"))
    assert (None, 2) == keras.models.load_model(directory / "policy.keras").output_shape
    assert 10 < history["return"][0] < 40  # of a policy that has hardly learned
    assert first.startswith(
        f"Mean return {history['return'][0]:.1f} over the last 100 episodes of the training (not sol"
    )
    assert left == f"In {directory}: checkpoints, episode.png, history.json, logs, policy.keras, returns.png."
    assert look == f"To look at it: tensorboard --logdir {directory / 'logs'}"
    assert f"The run in {directory / 'checkpoints'} has come to its end at step 2: there is nothing to train." in again
    assert first in again
    assert ["cartpole"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.slow
def test_ppo_solves_it(tmp_path, capsys):
    main(Options(method="ppo", epochs=5, runs=tmp_path))

    assert "(solved: 195)" in capsys.readouterr().out


@pytest.mark.parametrize("batch_size", [1, 8, 100])
def test_no_episode_is_played_twice(batch_size):
    """Neither in a run, nor at its end, nor in a run of another seed."""
    longest = {"epochs": 1000, "batch_size": batch_size}
    seeds = np.concatenate([part for seed in (0, 1) for part in episode_seeds(Options(seed=seed, **longest))])

    assert len(seeds) == len(np.unique(seeds))
    assert len(seeds) >= 2 * (100_000 + EPISODES_AT_THE_END)


def test_a_longer_run_begins_as_a_shorter_one():
    shorter, longer = (episode_seeds(Options(epochs=epochs)) for epochs in (2, 3))

    np.testing.assert_array_equal(shorter[0], longer[0][:200])
    np.testing.assert_array_equal(shorter[1], longer[1])


@pytest.mark.parametrize("num_batches", [1, 3, 30])
def test_a_picture_is_drawn_of_few_batches_and_of_many(tmp_path, num_batches):
    values = np.linspace(10, 20, num_batches)
    batches = {"return": values, "return_deviation": values / 5}
    draw_returns(batches, tmp_path / "returns.png", batch_size=10, solved=195)

    assert (tmp_path / "returns.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "dqn"], "--method"),
        (["--epochs", "1001"], "'epochs' must be <= 1000: 1001"),
        (["--batch-size", "0"], "'batch_size' must be >= 1: 0"),
        (["--learning-rate", "0"], "'learning_rate' must be > 0: 0.0"),
    ],
)
def test_a_bad_option_is_refused_at_the_door(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        tyro.cli(Options, args=arguments)

    assert ended.value.code == 2
    assert words in capsys.readouterr().err

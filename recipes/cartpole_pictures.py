"""Pictures of CartPole: what training brought, batch by batch, and one episode in frames.

```python
draw_returns(batches, Path("returns.png"), batch_size=10, solved=195)  # batches: of engine.callbacks.LossHistory
draw_episode(arena.play(policy, np.array([1]), greedy=True), Path("episode.png"))
```
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from zoo import Episodes

WINDOW_EPISODES = 100
FRAMES = 12
TRACK = 2.4  # metres from the middle to where the cart leaves the track, in Gymnasium's cartpole.py
POLE = 1.0  # metres, as there


def draw_returns(batches: Mapping[str, Sequence[float]], path: Path, *, batch_size: int, solved: float) -> None:
    """Draws what the episodes of each batch brought: mean and standard deviation, and a running mean.

    Args:
        batches: "return" and "return_deviation" of each batch.
        path: The file to write, ending in `.png`.
        batch_size: Episodes in a batch.
        solved: The return that is to be reached.
    """
    means, deviations = np.asarray(batches["return"]), np.asarray(batches["return_deviation"])
    episodes = batch_size * np.arange(1, len(means) + 1)
    window = min(-(-WINDOW_EPISODES // batch_size), len(means))
    running = np.convolve(means, np.full(window, 1 / window), mode="valid")

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(
        episodes, means - deviations, means + deviations, alpha=0.2, label="standard deviation within a batch"
    )
    axes.plot(episodes, means, linewidth=0.8, label=f"mean of a batch of {batch_size}")
    axes.plot(episodes[window - 1 :], running, linewidth=2.5, label=f"mean of the last {window * batch_size}")
    axes.axhline(solved, color="black", linestyle="--", linewidth=1, label=f"solved: {solved:g}")
    axes.set(xlabel="episodes played", ylabel="return", xlim=(0, episodes[-1]), ylim=(0, None))
    axes.set_title(f"Return of {episodes[-1]:,} episodes; {running[-1]:.1f} over the last {window * batch_size}")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


def draw_episode(episodes: Episodes, path: Path) -> None:
    """Draws moments of the first episode, equally far apart, from its first to its last one.

    Args:
        episodes: Observations are of CartPole: position of the cart in metres and angle of the pole in radians are
            the first and the third number.
        path: The file to write, ending in `.png`.
    """
    length = int(episodes.lengths[0])
    moments = np.linspace(0, length - 1, FRAMES).round().astype(int)
    figure = Figure(figsize=(12, 2.8), layout="constrained")
    grid = figure.subplots(2, FRAMES // 2)
    for axes, moment in zip(grid.flat, moments, strict=True):
        position, _, angle, _ = np.asarray(episodes.observations[moment])
        _draw_moment(axes, position=position, angle=angle)
        axes.set_title(f"step {moment + 1}", fontsize=9)
    figure.suptitle(f"One episode of {length} steps, the likeliest action each time")
    figure.savefig(path, dpi=150)


def _draw_moment(axes: Any, *, position: float, angle: float) -> None:
    axes.axhline(0, color="black", linewidth=1)
    axes.add_patch(Rectangle((position - 0.25, 0), 0.5, 0.3, color="tab:blue"))
    axes.plot(
        [position, position + POLE * np.sin(angle)], [0.3, 0.3 + POLE * np.cos(angle)], color="tab:orange", linewidth=4
    )
    axes.set(xlim=(-TRACK, TRACK), ylim=(-0.3, 1.6), aspect="equal", xticks=[-TRACK, 0, TRACK], yticks=[])

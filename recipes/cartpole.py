"""Teaches a policy to balance a pole on a cart, by REINFORCE or by PPO.

The environment is Gymnasium's CartPole-v1: each step that the pole stands brings a reward of 1, an episode is over
when it falls or the cart leaves the track, and is cut off after 500 steps. It counts as solved when 100 episodes in a
row bring 195 on average. A batch is a batch of episodes, an epoch about a hundred of them, and none is played twice.

A run leaves in its directory: `returns.png` (what every batch of episodes brought), `episode.png` (one played at the
end), `history.json` (every epoch's numbers), `policy.keras`, `logs/` for TensorBoard, and `checkpoints/`, from which
`--resume` goes on with a run that was stopped or killed, to end as if it never had been.

```bash
python -m recipes.cartpole --method ppo
tensorboard --logdir runs/cartpole/logs
```
"""

import json
import shlex
from pathlib import Path
from typing import Literal

import attrs
import gymnasium
import keras
import numpy as np
import tyro
from attrs.validators import and_, ge, gt, in_, le, lt, matches_re, optional
from numpy.typing import NDArray

from engine import Checkpointer, Trainer
from engine.callbacks import LossHistory, TensorBoard
from recipes.cartpole_pictures import draw_episode, draw_returns
from recipes.runs import directory_of
from zoo import PPO, Arena, Reinforce, policy_network, value_network

MAX_STEPS = 500  # CartPole-v1's own limit
SOLVED = 195.0
EPISODES_AN_EPOCH = 100
EPISODES_AT_THE_END = 100
SEEDS_A_RUN = 1_000_000
RATES = {"reinforce": 3e-3, "ppo": 1e-3}
UPDATES = {"reinforce": 1, "ppo": 6}  # of a batch of episodes


@attrs.frozen(kw_only=True)
class Options:
    """What a run is made from. The same options give the same run.

    Attributes:
        method: How to learn: reinforce (one update for each batch of episodes) or ppo (six).
        epochs: How many epochs to train for, of about 100 episodes each, at most 1,000.
        batch_size: How many episodes a step plays, counted in episodes, at most 100.
        learning_rate: Adam's step size at first, more than 0 and at most 1, which falls to 0 by the end; None is 0.003
            for reinforce and 0.001 for ppo.
        seed: Where every random number comes from: the first weights, how episodes begin, and what is drawn in them.
        name: What to call the run and its directory, in letters, digits, '.', '_' and '-'. If there is such
            a directory already, a number is added.
        runs: The directory that the runs' directories are in.
        resume: Whether to go on with the run of that name, if there is one that was stopped or killed.
    """

    method: Literal["reinforce", "ppo"] = attrs.field(default="reinforce", validator=in_(RATES))
    epochs: int = attrs.field(default=10, validator=and_(ge(1), le(1000)))
    batch_size: int = attrs.field(default=10, validator=and_(ge(1), le(100)))
    learning_rate: float | None = attrs.field(default=None, validator=optional(and_(gt(0), le(1))))
    seed: int = attrs.field(default=1, validator=and_(ge(0), lt(2**32)))
    name: str = attrs.field(default="cartpole", validator=matches_re(r"\w[\w.-]*"))
    runs: Path = Path("runs")
    resume: bool = False

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-EPISODES_AN_EPOCH // self.batch_size)


def main(options: Options) -> None:
    """Trains, then lets the policy play a hundred other episodes, in this order.

    Raises:
        SystemExit: The directory cannot be made; says why in one line.
    """
    keras.utils.set_random_seed(options.seed)
    directory = directory_of(options.runs, options.name, resume=options.resume)

    arena = Arena(lambda: gymnasium.make("CartPole-v1"), max_steps=MAX_STEPS)
    task = learner(arena, options)
    trainer = Trainer(task, seed=options.seed, checkpoints=Checkpointer(directory / "checkpoints"))
    known, unknown = episode_seeds(options)
    last = train(trainer, known, directory, options=options)
    task.model.save(directory / "policy.keras")

    scores = trainer.evaluate(unknown, batch_size=len(unknown), verbose=0)
    draw_episode(arena.play(task.model, unknown[:1], greedy=True), directory / "episode.png")
    print(
        f"Mean return {last:.1f} over the last {options.steps * options.batch_size} episodes of the training "
        f"({'solved' if last >= SOLVED else 'not solved'}: {SOLVED:.0f}); {scores['return']:.1f} over {len(unknown)} "
        f"others with the likeliest action each time, their standard deviation {scores['return_deviation']:.1f}."
    )
    print(f"In {directory}: {', '.join(sorted(path.name for path in directory.iterdir()))}.")
    print(f"To look at it: {shlex.join(['tensorboard', '--logdir', str(directory / 'logs')])}")


def learner(arena: Arena, options: Options) -> Reinforce | PPO:
    """The networks, each with its optimizer, and what is done with them."""
    first, updates = options.learning_rate or RATES[options.method], UPDATES[options.method]
    # Where every episode comes to its limit, which action was better is noise, and a full step after it undoes much.
    rate = keras.optimizers.schedules.PolynomialDecay(first, options.epochs * options.steps * updates, 0.0)
    policy, value = policy_network((4,), num_actions=2), value_network((4,))
    policy.compile(keras.optimizers.Adam(rate))
    value.compile(keras.optimizers.Adam(3e-3))
    if options.method == "reinforce":
        return Reinforce(policy, value, arena=arena)
    return PPO(policy, value, arena=arena, num_updates=updates)


def episode_seeds(options: Options) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Seeds of the episodes to learn from and of those at the end; no two runs share one, unless their seed."""
    first, num_known = options.seed * SEEDS_A_RUN, options.epochs * options.steps * options.batch_size
    return np.arange(first, first + num_known), np.arange(
        first + SEEDS_A_RUN - EPISODES_AT_THE_END, first + SEEDS_A_RUN
    )


def train(trainer: Trainer, seeds: NDArray[np.int64], directory: Path, *, options: Options) -> float:
    """Trains, leaves what was seen on the way, and returns the last epoch's mean return."""
    batches = LossHistory()
    history = trainer.fit(
        seeds,
        batch_size=options.batch_size,
        epochs=options.epochs,
        steps_per_epoch=options.steps,  # an epoch goes on with the seeds where the last one ended
        shuffle=False,
        callbacks=[batches, TensorBoard(directory / "logs")],
        verbose=1,
        resume=True,  # begins where there is nothing yet
    )
    (directory / "history.json").write_text(json.dumps(history.history, indent=2) + "\n", encoding="utf-8")
    draw_returns(batches.batches, directory / "returns.png", batch_size=options.batch_size, solved=SOLVED)
    return float(history.history["return"][-1])


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m recipes.cartpole", description=(__doc__ or "").partition("```")[0]))

"""`Arena`: a policy plays in environments of Gymnasium's kind, many side by side, inside a compiled step.

```python
import gymnasium
from zoo import Arena

arena = Arena(lambda: gymnasium.make("CartPole-v1"), max_steps=500)
episodes = arena.play(policy, seeds)  # seeds: int64, (episodes,)
```

An episode follows from its seed and the policy's weights, and from nothing else: the seed resets a new environment,
and the numbers that actions are drawn by come from it too. So a batch of data is a batch of seeds, nothing of an
environment has to be saved for a run to go on, and it does not matter which replica plays an episode, or beside
which others.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

import attrs
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from zoo.arguments import check_count
from zoo.episodes import Episodes

Array: TypeAlias = NDArray[Any]

FIRST_STEPS = 10  # what an environment is tried by, whether its seed decides what comes


class Environment(Protocol):
    """What is asked of an environment, a part of `gymnasium.Env`."""

    def reset(self, *, seed: int) -> tuple[Any, dict[str, Any]]:
        """Begins an episode that the seed decides; returns the first observation, and more that is not used."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Acts; returns observation, reward, whether the episode is over, whether it was cut off, and more."""

    def close(self) -> None:
        """Lets go of windows and processes."""


@attrs.frozen(eq=False)
class Arena:
    """Where a policy plays episodes.

    Attributes:
        make: Makes an environment, in which observations are arrays of one shape and actions are numbered from 0.
        max_steps: Steps after which an episode is cut off, at least 1.

    Raises:
        ValueError: `max_steps` is no such number, or two environments go on differently from one seed.
    """

    make: Callable[[], Environment]
    max_steps: int = attrs.field(kw_only=True)
    _shape: tuple[int, ...] = attrs.field(init=False)
    # Episodes that are being played, by a number that the graph holds: replicas play at the same time.
    _tables: dict[int, list["_Game"]] = attrs.field(init=False, factory=dict)
    _numbers: Iterator[int] = attrs.field(init=False, factory=itertools.count)

    def __attrs_post_init__(self) -> None:
        check_count("max_steps", self.max_steps, example=500)

    @_shape.default
    def _first_look(self) -> tuple[int, ...]:
        first, again = (_Game.begin(self.make(), seed=1) for _ in range(2))
        for game in (first, again):
            for _ in range(FIRST_STEPS):
                game.act(0, max_steps=FIRST_STEPS)
            game.environment.close()
        for step, (one, other) in enumerate(zip(first.seen, again.seen, strict=False)):
            if not np.array_equal(one, other):
                raise ValueError(
                    "make was given as a function whose environments do not follow their seed: reset(seed=1) and "
                    f"{step} times action 0 led to {one}, and again to {other}. A run that is resumed would not play "
                    "what an uninterrupted one does. Let the environment draw from a generator that reset makes from "
                    "the seed, as gymnasium.Env.np_random is, and from nothing else."
                )
        return first.seen[0].shape

    def play(self, policy: keras.Model, seeds: tf.Tensor | Array, *, greedy: bool = False) -> Episodes:
        """Plays one episode for each seed, in TensorFlow, and records no gradients.

        Args:
            policy: Maps observations, (episodes, ...), to logits, (episodes, actions).
            seeds: int64, (episodes,), from 0.
            greedy: Whether the likeliest action is taken instead of one drawn.

        Returns:
            The episodes, in the order of their seeds.

        Raises:
            TypeError: The seeds are no integers.
        """
        seeds = tf.convert_to_tensor(seeds)
        if not seeds.dtype.is_integer:
            raise TypeError(
                f"seeds was given as {seeds.dtype.name}, but seeds are whole numbers. Pass for example np.arange(1000)."
            )
        luck = _luck(seeds, self.max_steps)  # (episodes, time)

        def act(table: tf.Tensor, time: tf.Tensor, _: tf.Tensor, observations: tf.Tensor) -> list[tf.Tensor]:
            logits = policy(observations, training=False)  # (episodes, actions)
            actions = tf.argmax(logits, axis=-1) if greedy else _drawn(logits, luck[:, time])  # (episodes,)
            return _in_python(self._act, [table, actions], self._moment)

        # What an act returns goes into the next one, and out of the loop: TensorFlow keeps calls of Python in order
        # by what they hand on, and by nothing else.
        table, *_ = tf.while_loop(
            lambda table, time, goes_on, observations: goes_on, act, _in_python(self._begin, [seeds], self._moment)
        )
        return Episodes(*_in_python(self._end, [table], self._record))

    @property
    def _moment(self) -> list[tf.TensorSpec]:
        """What acting starts from: the table, how many acts there were, whether there is another one, what is seen."""
        numbers = [tf.TensorSpec((), dtype) for dtype in (tf.int64, tf.int64, tf.bool)]
        return [*numbers, tf.TensorSpec((None, *self._shape), tf.float32)]

    @property
    def _record(self) -> list[tf.TensorSpec]:
        """What `Episodes` holds."""
        observations = tf.TensorSpec((None, *self._shape), tf.float32)
        actions, rewards, is_over, lengths = (
            tf.TensorSpec((None,), dtype) for dtype in (tf.int64, tf.float32, tf.bool, tf.int64)
        )
        return [observations, actions, rewards, observations, is_over, lengths]

    def _begin(self, seeds: Array) -> tuple[Any, ...]:
        table = next(self._numbers)
        self._tables[table] = [_Game.begin(self.make(), seed=int(seed)) for seed in seeds]
        return self._look(table)

    def _act(self, table: Array, actions: Array) -> tuple[Any, ...]:
        try:
            for game, action in zip(self._tables[int(table)], actions, strict=True):
                game.act(action, max_steps=self.max_steps)
        except BaseException:
            self._clear(int(table))
            raise
        return self._look(int(table))

    def _look(self, table: int) -> tuple[Any, ...]:
        games = self._tables[table]
        time = max((len(game.actions) for game in games), default=0)
        goes_on = any(game.goes_on for game in games)
        return np.int64(table), np.int64(time), np.bool_(goes_on), self._stack([game.seen[-1] for game in games])

    def _end(self, table: Array) -> tuple[Any, ...]:
        games = self._clear(int(table))
        return (
            self._stack([seen for game in games for seen in game.seen[:-1]]),
            np.asarray([action for game in games for action in game.actions], np.int64),
            np.asarray([reward for game in games for reward in game.rewards], np.float32),
            self._stack([seen for game in games for seen in game.seen[1:]]),
            np.asarray([is_over for game in games for is_over in game.is_over], np.bool_),
            np.asarray([len(game.actions) for game in games], np.int64),
        )

    def _clear(self, table: int) -> list["_Game"]:
        games = self._tables.pop(table)
        for game in games:
            game.environment.close()
        return games

    def _stack(self, observations: list[Array]) -> Array:
        return np.asarray(observations, np.float32).reshape(-1, *self._shape)  # of none, too


@attrs.define(eq=False)
class _Game:
    """One episode as far as it is played; `seen` is one longer than the other lists."""

    environment: Environment
    seen: list[Array]
    actions: list[int] = attrs.field(factory=list)
    rewards: list[float] = attrs.field(factory=list)
    is_over: list[bool] = attrs.field(factory=list)
    goes_on: bool = True

    @classmethod
    def begin(cls, environment: Environment, *, seed: int) -> "_Game":
        observation, _ = environment.reset(seed=seed)
        return cls(environment, [np.asarray(observation, np.float32)])

    def act(self, action: Any, *, max_steps: int) -> None:
        if not self.goes_on:
            return
        observation, reward, is_over, is_cut_off, _ = self.environment.step(action)
        self.seen.append(np.asarray(observation, np.float32))
        self.actions.append(action)
        self.rewards.append(reward)
        self.is_over.append(is_over)
        self.goes_on = not (is_over or is_cut_off or len(self.actions) == max_steps)


def _luck(seeds: tf.Tensor, num_steps: int) -> tf.Tensor:
    """For each seed numbers of its own in [0, 1), float32, (episodes, steps)."""
    return tf.map_fn(
        lambda seed: tf.random.stateless_uniform((num_steps,), tf.stack([seed, 0])),
        seeds,
        fn_output_signature=tf.TensorSpec((num_steps,), tf.float32),
    )


def _drawn(logits: tf.Tensor, luck: tf.Tensor) -> tf.Tensor:
    """The actions that the luck, (episodes,), falls on: each has a share of [0, 1) as large as its probability."""
    ends = tf.cumsum(tf.nn.softmax(logits), axis=-1)[:, :-1]  # (episodes, actions - 1); the last one ends at 1
    return tf.reduce_sum(tf.cast(ends <= luck[:, tf.newaxis], tf.int64), axis=-1)


def _in_python(function: Callable[..., Any], inputs: list[tf.Tensor], specs: list[tf.TensorSpec]) -> list[tf.Tensor]:
    """What a function of arrays returns, as tensors like the specs."""
    outputs = tf.numpy_function(function, inputs, [spec.dtype for spec in specs])
    return [tf.ensure_shape(output, spec.shape) for output, spec in zip(outputs, specs, strict=True)]

"""Reinforcement learning: REINFORCE and PPO, as tasks whose data are the seeds of the episodes to be played.

```python
import gymnasium, keras, numpy as np
from engine import Trainer
from zoo import Arena, Reinforce, policy_network, value_network

policy, baseline = policy_network((4,), num_actions=2), value_network((4,))
policy.compile(keras.optimizers.Adam(3e-3))
baseline.compile(keras.optimizers.Adam(3e-3))
arena = Arena(lambda: gymnasium.make("CartPole-v1"), max_steps=500)

trainer = Trainer(Reinforce(policy, baseline, arena=arena))
trainer.fit(np.arange(1000), batch_size=10)  # a thousand episodes, ten at a time
trainer.evaluate(np.arange(1000, 1100))  # {"return": 500.0, ...}: a hundred others, the likeliest action each time
```

To train on other data after every epoch, give `steps_per_epoch`: the next epoch goes on where the last one ended.
"""

import attrs
import keras
import tensorflow as tf
from attrs.validators import and_, ge, gt, le

from engine import Task, losses, replicas
from engine.task import Batch, StepValues
from zoo.arena import Arena
from zoo.arguments import Shape, check_count
from zoo.episodes import Episodes, rewards_to_go


def policy_network(observation: Shape, num_actions: int, *, units: int = 64) -> keras.Model:
    """Maps observations to the logits of the actions, through two hidden layers.

    Args:
        observation: The shape of one observation.
        num_actions: Width of the output, at least 1.
        units: Width of the hidden layers, at least 1.

    Returns:
        A model, not compiled, from (batch, *observation) to (batch, num_actions).
    """
    check_count("num_actions", num_actions, example=2)
    return _network(observation, num_actions, units=units, name="policy")


def value_network(observation: Shape, *, units: int = 64) -> keras.Model:
    """Maps observations to the rewards that are expected from there on, through two hidden layers.

    Args:
        observation: The shape of one observation.
        units: Width of the hidden layers, at least 1.

    Returns:
        A model, not compiled, from (batch, *observation) to (batch, 1).
    """
    return _network(observation, 1, units=units, name="value")


@attrs.define(eq=False)
class Reinforce(Task):
    """REINFORCE with a learned baseline: one update for each batch of episodes.

    What an action was followed by, beyond what was expected, makes it likelier or less likely: the gradient is that
    of `log p(action) (worth - baseline(observation))`, Williams, "Simple statistical gradient-following algorithms
    for connectionist reinforcement learning", Machine Learning 8, 1992, equation 11 and section 6.

    Attributes:
        model: The policy, compiled with an optimizer; maps observations to logits.
        baseline: Compiled with an optimizer of its own; maps observations to the expected worth, (steps, 1).
        arena: Where episodes are played.
        discount: What a reward is worth one step before it comes, from 0 to 1.
    """

    model: keras.Model
    baseline: keras.Model
    arena: Arena = attrs.field(kw_only=True)
    discount: float = attrs.field(default=0.99, kw_only=True, validator=and_(ge(0), le(1)))

    def train_step(self, batch: Batch) -> StepValues:
        """Plays an episode for each seed, then updates policy and baseline once."""
        seeds, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        episodes = self.arena.play(self.model, seeds)
        count, worth = episodes.num_steps, rewards_to_go(episodes.rewards, episodes.lengths, discount=self.discount)
        with losses.Total("policy_loss") as policy, losses.Total("baseline_loss") as baseline:
            logits = policy.call(self.model, episodes.observations)  # (steps, actions)
            expected = baseline.call(self.baseline, episodes.observations)[:, 0]  # (steps,)
            surprise = _standardized(tf.stop_gradient(worth - expected))
            policy.add("surprise", -_log_probability(logits, episodes.actions) * surprise, count=count)
            baseline.add("squared_error", tf.square(worth - expected), count=count)
        policy.minimize(self.model)
        baseline.minimize(self.baseline)
        return _outcome(episodes) | policy.logs() | baseline.logs()

    def test_step(self, batch: Batch) -> StepValues:
        """Plays an episode for each seed, with the likeliest action each time."""
        seeds, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        return _outcome(self.arena.play(self.model, seeds, greedy=True))


@attrs.define(eq=False)
class PPO(Task):
    """Proximal policy optimization: several updates for each batch of episodes.

    An update gains nothing by making an action more than `clip` likelier, or less likely, than it was when it was
    played: Schulman et al., "Proximal policy optimization algorithms", [arXiv 1707.06347](https://arxiv.org/abs/1707.06347),
    equation 7. How good an action was is estimated by their equation 11. Ours: each update takes the whole batch, and
    policy and value function share no weights.

    Attributes:
        model: The policy, compiled with an optimizer; maps observations to logits.
        value: Compiled with an optimizer of its own; maps observations to the expected worth, (steps, 1).
        arena: Where episodes are played.
        discount: What a reward is worth one step before it comes, from 0 to 1.
        trace: How much of a surprise is passed on to the step before, from 0 (only what the value function says
            counts) to 1 (only the rewards do); the paper's lambda.
        clip: The paper's epsilon, more than 0.
        num_updates: Updates for each batch, at least 1.
    """

    model: keras.Model
    value: keras.Model
    arena: Arena = attrs.field(kw_only=True)
    discount: float = attrs.field(default=0.99, kw_only=True, validator=and_(ge(0), le(1)))
    trace: float = attrs.field(default=0.98, kw_only=True, validator=and_(ge(0), le(1)))
    clip: float = attrs.field(default=0.2, kw_only=True, validator=gt(0))
    num_updates: int = attrs.field(default=6, kw_only=True)

    def __attrs_post_init__(self) -> None:
        check_count("num_updates", self.num_updates, example=6)

    def train_step(self, batch: Batch) -> StepValues:
        """Plays an episode for each seed, then updates policy and value function several times."""
        seeds, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        episodes = self.arena.play(self.model, seeds)
        played = _log_probability(self.model(episodes.observations), episodes.actions)  # (steps,)
        count, (advantage, worth) = episodes.num_steps, self._judge(episodes)
        for _ in range(self.num_updates):
            with losses.Total("policy_loss") as policy, losses.Total("value_loss") as value:
                logits = policy.call(self.model, episodes.observations)  # (steps, actions)
                ratio = tf.exp(_log_probability(logits, episodes.actions) - played)  # (steps,)
                clipped = tf.clip_by_value(ratio, 1 - self.clip, 1 + self.clip)
                policy.add("clipped", -tf.minimum(ratio * advantage, clipped * advantage), count=count)
                expected = value.call(self.value, episodes.observations)[:, 0]  # (steps,)
                value.add("squared_error", tf.square(worth - expected), count=count)
            policy.minimize(self.model)
            value.minimize(self.value)
        return _outcome(episodes) | policy.logs() | value.logs()  # the losses of the last update

    def test_step(self, batch: Batch) -> StepValues:
        """Plays an episode for each seed, with the likeliest action each time."""
        seeds, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        return _outcome(self.arena.play(self.model, seeds, greedy=True))

    def _judge(self, episodes: Episodes) -> tuple[tf.Tensor, tf.Tensor]:
        """How much better than expected each action was, standardized, and what its observation was worth."""
        before, after = (self.value(seen)[:, 0] for seen in (episodes.observations, episodes.next_observations))
        # Where an episode was cut off, more would have come: what is expected stands for it.
        surprise = episodes.rewards + self.discount * tf.where(episodes.is_over, 0.0, after) - before
        advantage = rewards_to_go(surprise, episodes.lengths, discount=self.discount * self.trace)
        return _standardized(advantage), before + advantage


def _network(observation: Shape, width: int, *, units: int, name: str) -> keras.Model:
    check_count("units", units, example=64)
    inputs = keras.Input(observation, name="observation")
    x = keras.layers.Flatten()(inputs)  # (B, numbers)
    x = keras.layers.Dense(units, "tanh")(x)  # (B, units)
    x = keras.layers.Dense(units, "tanh")(x)  # (B, units)
    # Float32, also in mixed precision: probabilities and returns need it.
    return keras.Model(inputs, keras.layers.Dense(width, dtype="float32")(x), name=name)  # (B, width)


def _log_probability(logits: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    return -tf.nn.sparse_softmax_cross_entropy_with_logits(actions, logits)


def _standardized(values: tf.Tensor) -> tf.Tensor:
    mean, deviation = _moments(values)
    return (values - mean) / (deviation + keras.config.epsilon())


def _moments(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The mean and the standard deviation over the whole batch, of whichever replica the values are."""
    count = replicas.total(tf.cast(tf.size(values), values.dtype))
    mean = replicas.total(tf.reduce_sum(values)) / count
    return mean, tf.sqrt(replicas.total(tf.reduce_sum(tf.square(values - mean))) / count)


def _outcome(episodes: Episodes) -> StepValues:
    """What the episodes of the whole batch brought."""
    mean, deviation = _moments(episodes.returns)
    length, _ = _moments(tf.cast(episodes.lengths, tf.float32))
    return {"return": mean, "return_deviation": deviation, "length": length}

import functools

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import Trainer
from zoo import PPO, Arena, Reinforce, policy_network, value_network

SEEDS = np.array([3, 1, 4])
BATCH = (tf.constant(SEEDS),)


def cart_pole(max_steps):
    return Arena(lambda: gymnasium.make("CartPole-v1"), max_steps=max_steps)


def networks(rate=0.1):
    """A policy and a value function, each with plain gradient descent."""
    models = policy_network((4,), 2, units=8), value_network((4,), units=8)
    for model in models:
        model.compile(keras.optimizers.SGD(rate))
    return models


def copied(models):
    """The same networks with the same weights, to be trained by hand."""
    twins = [keras.models.clone_model(model) for model in models]
    for twin, model in zip(twins, models, strict=True):
        twin.set_weights(model.get_weights())
    return twins


def numbers(episodes):
    """(observations, actions, rewards, observations after them, is over), each a list of episodes."""
    fields = (episodes.observations, episodes.actions, episodes.rewards, episodes.next_observations, episodes.is_over)
    ends = np.cumsum(episodes.lengths)[:-1]
    return [np.split(field.numpy(), ends) for field in fields]


def standardized(values):
    return (values - values.mean()) / (values.std() + keras.config.epsilon())


def log_probabilities(policy, observations, actions):
    rows = tf.nn.log_softmax(policy(observations))
    return tf.reduce_sum(rows * tf.one_hot(actions, 2), axis=-1)


def descend(model, loss, tape, rate=0.1):
    for weight, gradient in zip(model.trainable_weights, tape.gradient(loss, model.trainable_weights), strict=True):
        weight.assign_sub(rate * gradient)


def assert_close(expected, model):
    for ours, theirs in zip(expected.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_reinforce_follows_the_gradient_of_williams():
    """Its update against one by hand: loops over episodes and steps in NumPy, then one plain gradient."""
    task = Reinforce(*networks(), arena=cart_pole(30), discount=0.9)
    policy, baseline = copied([task.model, task.baseline])
    before = baseline.get_weights()
    seen, actions, rewards, _, _ = numbers(task.arena.play(policy, SEEDS))
    worth = [
        sum(reward * 0.9**wait for wait, reward in enumerate(episode[time:]))
        for episode in rewards
        for time in range(len(episode))
    ]
    seen, actions, worth = np.concatenate(seen), np.concatenate(actions), np.array(worth, np.float32)
    surprise = standardized(worth - baseline(seen).numpy()[:, 0])
    with tf.GradientTape(persistent=True) as tape:
        policy_loss = -tf.reduce_mean(log_probabilities(policy, seen, actions) * surprise)
        baseline_loss = tf.reduce_mean(tf.square(worth - baseline(seen)[:, 0]))
    descend(policy, policy_loss, tape)
    descend(baseline, baseline_loss, tape)
    values = task.train_step(BATCH)

    assert_close(policy, task.model)
    assert_close(baseline, task.baseline)
    assert any(np.any(old != new) for old, new in zip(before, task.baseline.get_weights(), strict=True))
    np.testing.assert_allclose(policy_loss, values["policy_loss"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(baseline_loss, values["baseline_loss"], rtol=1e-4)


@pytest.mark.parametrize("max_steps", [12, 200])  # some episodes are cut off; all fall
def test_ppo_follows_the_clipped_objective(max_steps):
    """Its updates against ones by hand; the learning rate is so high that ratios are clipped."""
    task = PPO(*networks(rate=0.5), arena=cart_pole(max_steps), discount=0.9, trace=0.8, clip=0.05, num_updates=4)
    policy, value = copied([task.model, task.value])
    episodes = numbers(task.arena.play(policy, SEEDS))
    advantages, worths = [], []
    for seen, _, rewards, after, is_over in zip(*episodes, strict=True):
        before, expected = value(seen).numpy()[:, 0], value(after).numpy()[:, 0]
        advantage = 0.0
        backwards = []
        for time in reversed(range(len(rewards))):
            surprise = rewards[time] + 0.9 * (0.0 if is_over[time] else expected[time]) - before[time]
            advantage = surprise + 0.9 * 0.8 * advantage
            backwards.append(advantage)
        advantages.extend(backwards[::-1])
        worths.extend(before + backwards[::-1])
    seen, actions = (np.concatenate(field) for field in episodes[:2])
    advantage, worth = standardized(np.array(advantages, np.float32)), np.array(worths, np.float32)
    played, num_clipped = log_probabilities(policy, seen, actions).numpy(), 0
    for _ in range(4):
        with tf.GradientTape(persistent=True) as tape:
            ratio = tf.exp(log_probabilities(policy, seen, actions) - played)
            bound = np.where(advantage > 0, 1.05, 0.95)
            is_clipped = np.where(advantage > 0, ratio > bound, ratio < bound)
            policy_loss = -tf.reduce_mean(tf.where(is_clipped, bound, ratio) * advantage)
            value_loss = tf.reduce_mean(tf.square(worth - value(seen)[:, 0]))
        num_clipped += np.sum(is_clipped)
        descend(policy, policy_loss, tape, rate=0.5)
        descend(value, value_loss, tape, rate=0.5)
    values = task.train_step(BATCH)

    assert (max_steps == 200) == all(np.any(is_over) for is_over in episodes[4])
    assert num_clipped > 0
    assert_close(policy, task.model)
    assert_close(value, task.value)
    np.testing.assert_allclose(policy_loss, values["policy_loss"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(value_loss, values["value_loss"], rtol=1e-4)


def tasks(max_steps=30):
    return [
        Reinforce(*networks(0.01), arena=cart_pole(max_steps)),
        PPO(*networks(0.01), arena=cart_pole(max_steps), num_updates=1),
    ]


@pytest.mark.parametrize("index", [0, 1])
def test_a_step_tells_what_its_episodes_brought(index):
    task = tasks()[index]
    expected = []
    for is_greedy in (False, True):
        returns = task.arena.play(task.model, SEEDS, greedy=is_greedy).returns.numpy()
        # A reward is 1, so that an episode is as long as its return.
        expected.append({"return": returns.mean(), "return_deviation": returns.std(), "length": returns.mean()})
    tested, trained = task.test_step(BATCH), task.train_step(BATCH)

    for values, wanted in zip((trained, tested), expected, strict=True):
        np.testing.assert_allclose(list(wanted.values()), [values[name] for name in wanted], rtol=1e-6)
    assert set(expected[1]) == set(tested)


@pytest.mark.parametrize("index", [0, 1])
def test_a_policy_learns_to_balance(index):
    """More than twice as long as at first, within 30 batches of 8 episodes."""
    models = policy_network((4,), 2, units=16), value_network((4,), units=16)
    for model in models:
        model.compile(keras.optimizers.Adam(0.01))
    make = [Reinforce, functools.partial(PPO, num_updates=3)][index]
    task = make(*models, arena=cart_pole(100))
    history = Trainer(task, seed=1).fit(np.arange(240), batch_size=8, epochs=3, steps_per_epoch=10, verbose=0)

    assert history.history["return"][-1] > 2 * 22  # what a policy that draws at random brings


@pytest.mark.parametrize("index", [0, 1])
def test_a_batch_may_be_a_single_episode_and_the_last_one_smaller(index):
    history = Trainer(tasks()[index], seed=1).fit(SEEDS, batch_size=1, verbose=0).history
    ragged = Trainer(tasks()[index], seed=1).fit(SEEDS, batch_size=2, verbose=0).history

    assert all(np.all(np.isfinite(values)) for values in [*history.values(), *ragged.values()])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"discount": 1.1}, "'discount' must be <= 1: 1.1"),
        ({"trace": -0.1}, "'trace' must be >= 0: -0.1"),
        ({"clip": 0.0}, "'clip' must be > 0: 0.0"),
        ({"num_updates": 0}, "num_updates was given as 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        PPO(*networks(), arena=cart_pole(5), **options)

import attrs
import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

from zoo import Arena, policy_network


class Walk:
    """Starts at its seed, goes up (action 1) or down (0), and is over after as many steps as the seed's last digit."""

    def __init__(self, opened, refuses_at=None):
        self.opened, self.refuses_at = opened, refuses_at
        opened.append(self)

    def reset(self, *, seed):
        self.start = self.position = seed
        self.num_steps = 0
        return np.array([seed, 0.0]), {}

    def step(self, action):
        if self.position == self.refuses_at:
            raise RuntimeError("There is no way on.")
        self.position += 2 * action - 1
        self.num_steps += 1
        return np.array([self.position, self.num_steps]), float(action), self.num_steps == self.start % 10, False, {}

    def close(self):
        self.opened.remove(self)


def seeds_of(*seeds):
    return tf.constant(seeds, tf.int64)


@pytest.fixture
def policy():
    return policy_network((4,), 2)


@pytest.fixture
def cart_pole():
    return Arena(lambda: gymnasium.make("CartPole-v1"), max_steps=60)


def always(action):
    """A policy that is sure of one action, of three."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, kernel_initializer="zeros")])
    model.set_weights([np.zeros((2, 3)), 1000.0 * np.eye(3)[action]])
    return model


def arrays(episodes):
    return {name: value.numpy() for name, value in attrs.asdict(episodes, recurse=False).items()}


def rows(episodes, number):
    """What belongs to one of the episodes."""
    ends = np.cumsum(episodes.lengths)
    found = arrays(episodes)
    found["lengths"] = found["lengths"][number : number + 1]
    part = slice(ends[number] - episodes.lengths[number], ends[number])
    return {name: values if name == "lengths" else values[part] for name, values in found.items()}


@pytest.mark.parametrize("is_compiled", [True, False])
def test_episodes_are_those_of_the_environment_played_by_hand(policy, cart_pole, is_compiled):
    """With the same actions, every number is the environment's own, from reset(seed) to the end."""
    play = tf.function(cart_pole.play) if is_compiled else cart_pole.play
    seeds = (3, 1, 4)
    episodes = play(policy, seeds_of(*seeds))
    by_hand = {name: [] for name in arrays(episodes)}
    actions = iter(episodes.actions.numpy())
    for seed in seeds:
        environment = gymnasium.make("CartPole-v1")
        observation, _ = environment.reset(seed=seed)
        is_over, length = False, 0
        while not is_over and length < 60:
            action = next(actions)
            after, reward, is_over, _, _ = environment.step(action)
            length += 1
            for name, value in zip(by_hand, (observation, action, reward, after, is_over), strict=False):
                by_hand[name].append(value)
            observation = after
        by_hand["lengths"].append(length)

    assert [] == list(actions)
    for name, values in arrays(episodes).items():
        np.testing.assert_array_equal(by_hand[name], values, err_msg=name)


@pytest.mark.parametrize("is_greedy", [False, True])
def test_an_episode_does_not_depend_on_those_beside_it(policy, cart_pole, is_greedy):
    seeds = (7, 1, 12, 5)
    together = cart_pole.play(policy, seeds_of(*seeds), greedy=is_greedy)
    for number, seed in enumerate(seeds):
        alone = arrays(cart_pole.play(policy, seeds_of(seed), greedy=is_greedy))
        beside = rows(together, number)

        for name in alone:
            np.testing.assert_array_equal(alone[name], beside[name], err_msg=f"{name} of seed {seed}")


def test_the_likeliest_action_is_taken_where_it_is_asked_for(policy, cart_pole):
    episodes = cart_pole.play(policy, seeds_of(1, 2, 3), greedy=True)

    np.testing.assert_array_equal(np.argmax(policy(episodes.observations), axis=-1), episodes.actions)


def test_actions_are_drawn_by_their_probabilities():
    """The first actions of 2,000 episodes; a share is 5 standard deviations off once in a million seeds."""
    policy = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, kernel_initializer="zeros")])
    shares = np.array([0.2, 0.5, 0.3])
    policy.set_weights([np.zeros((2, 3)), np.log(shares)])
    arena = Arena(lambda: Walk([]), max_steps=1)
    episodes = tf.function(arena.play)(policy, tf.range(2000, dtype=tf.int64))
    drawn = np.bincount(episodes.actions, minlength=3) / 2000

    assert np.all(np.abs(drawn - shares) < 5 * np.sqrt(shares * (1 - shares) / 2000)), drawn


@pytest.mark.parametrize("action", [0, 1, 2])
def test_a_sure_policy_is_never_unlucky(action):
    episodes = Arena(lambda: Walk([]), max_steps=3).play(always(action), tf.range(1, 100, dtype=tf.int64))

    assert {action} == set(episodes.actions.numpy())


def test_an_episode_that_is_cut_off_is_not_over():
    episodes = Arena(lambda: Walk([]), max_steps=3).play(always(1), seeds_of(2, 3, 4))

    assert [2, 3, 3] == episodes.lengths.numpy().tolist()
    assert [False, True, False, False, True, False, False, False] == episodes.is_over.numpy().tolist()


def test_a_limit_of_the_environments_own_cuts_off_too():
    make = lambda: gymnasium.wrappers.TimeLimit(gymnasium.make("CartPole-v1"), max_episode_steps=4)  # noqa: E731
    episodes = Arena(make, max_steps=100).play(policy_network((4,), 2), seeds_of(1))

    assert [4] == episodes.lengths.numpy().tolist()
    assert not np.any(episodes.is_over)


def test_no_episodes_are_arrays_without_rows(policy, cart_pole):
    """As a replica gets of a last batch with fewer seeds than replicas."""
    episodes = tf.function(cart_pole.play)(policy, tf.zeros((0,), tf.int64))

    assert (0, 4) == episodes.observations.shape == episodes.next_observations.shape
    assert [0] * 6 == [len(values) for values in arrays(episodes).values()]
    assert (0,) == episodes.returns.shape


def test_replicas_play_at_the_same_time_without_mixing_their_episodes(policy, cart_pole, two_replicas):
    alone = cart_pole.play(policy, tf.range(8, dtype=tf.int64))
    with two_replicas.scope():
        shared = policy_network((4,), 2)
        shared.set_weights(policy.get_weights())

    @tf.function
    def play():
        seeds = two_replicas.experimental_distribute_values_from_function(
            lambda context: tf.range(4, dtype=tf.int64) + 4 * context.replica_id_in_sync_group
        )
        return two_replicas.run(lambda seeds: attrs.asdict(cart_pole.play(shared, seeds), recurse=False), [seeds])

    halves = {name: np.concatenate(value.values) for name, value in play().items()}
    for name, values in arrays(alone).items():
        np.testing.assert_array_equal(values, halves[name], err_msg=name)


def test_every_environment_is_closed():
    opened = []
    arena = Arena(lambda: Walk(opened), max_steps=10)
    arena.play(always(0), seeds_of(5, 6))

    assert [] == opened


def test_an_error_of_an_environment_ends_the_play_with_its_words_and_closes_all():
    opened = []
    play = tf.function(Arena(lambda: Walk(opened, refuses_at=7), max_steps=10).play)

    with pytest.raises(tf.errors.UnknownError, match=r"There is no way on\."):
        play(always(1), seeds_of(5, 3))
    assert [] == opened


class MoodyAtFirst(Walk):
    """Begins where the number of environments before it says."""

    def reset(self, *, seed):
        return super().reset(seed=len(self.opened))


class MoodyLater(Walk):
    """Sees in its third step how many environments there were when it began."""

    def reset(self, *, seed):
        self.number = len(self.opened)
        return super().reset(seed=seed + 8)  # long enough for a third step

    def step(self, action):
        observation, *others = super().step(action)
        return observation + (self.num_steps == 3) * self.number, *others


@pytest.mark.parametrize(
    ("moody", "words"),
    [
        (MoodyAtFirst, r"reset\(seed=1\) and 0 times action 0 led to \[1\. 0\.\], and again to \[2\. 0\.\]"),
        (MoodyLater, r"reset\(seed=1\) and 3 times action 0 led to \[7\. 4\.\], and again to \[8\. 5\.\]"),
    ],
)
def test_an_environment_that_its_seed_does_not_decide_is_refused(moody, words):
    opened = []

    with pytest.raises(ValueError, match=words):
        Arena(lambda: moody(opened), max_steps=10)
    assert [] == opened


def test_seeds_are_whole_numbers(policy, cart_pole):
    with pytest.raises(TypeError, match=r"seeds was given as float32, .* np\.arange"):
        cart_pole.play(policy, tf.zeros((3,)))


@pytest.mark.parametrize("max_steps", [0, 1.5, True])
def test_a_limit_is_a_whole_number_of_steps(max_steps):
    with pytest.raises(ValueError, match=r"max_steps was given as .*max_steps=500"):
        Arena(lambda: Walk([]), max_steps=max_steps)

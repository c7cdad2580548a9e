import numpy as np
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import examples
from zoo import Episodes, rewards_to_go

REWARDS = st.lists(st.integers(-8, 8).map(float), max_size=12)


def episodes_of(rewards):
    flat = np.concatenate([[], *rewards]).astype(np.float32)
    lengths = tf.constant([len(episode) for episode in rewards], tf.int64)
    seen = np.zeros((len(flat), 3), np.float32)
    return Episodes(seen, np.zeros(len(flat), np.int64), flat, seen, np.zeros(len(flat), bool), lengths)


@examples(30)
@given(st.lists(REWARDS, max_size=5), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_step_is_worth_the_rewards_from_there_to_its_episodes_end(rewards, discount):
    """Rewards and discounts whose sums are exact in float32, so that equal means equal."""
    episodes = episodes_of(rewards)
    by_hand = [
        sum(reward * discount**wait for wait, reward in enumerate(episode[time:]))
        for episode in rewards
        for time in range(len(episode))
    ]

    np.testing.assert_array_equal(
        np.asarray(by_hand, np.float32), rewards_to_go(episodes.rewards, episodes.lengths, discount=discount)
    )


@examples(30)
@given(st.lists(REWARDS, max_size=5))
def test_an_episodes_return_is_the_sum_of_its_rewards(rewards):
    episodes = episodes_of(rewards)

    assert [sum(episode) for episode in rewards] == episodes.returns.numpy().tolist()
    assert sum(map(len, rewards)) == episodes.num_steps

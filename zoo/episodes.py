"""`Episodes`: what a policy saw and did, step behind step, and what its steps were worth.

```python
episodes = arena.play(policy, seeds)
episodes.returns  # float32, (episodes,)
worth = rewards_to_go(episodes.rewards, episodes.lengths, discount=0.99)  # float32, (steps,)
```
"""

import attrs
import tensorflow as tf


@attrs.frozen(eq=False)
class Episodes:
    """A batch of episodes of different lengths, one behind the other, without padding.

    Attributes:
        observations: float32, (steps, ...): what was seen before each action.
        actions: int64, (steps,), from 0.
        rewards: float32, (steps,): what each action brought.
        next_observations: float32, (steps, ...): what was seen after it.
        is_over: bool, (steps,): whether the environment's own rules ended the episode there. One that was cut off
            for its length is over nowhere: there would have been more to come.
        lengths: int64, (episodes,), steps of each episode.
    """

    observations: tf.Tensor
    actions: tf.Tensor
    rewards: tf.Tensor
    next_observations: tf.Tensor
    is_over: tf.Tensor
    lengths: tf.Tensor

    @property
    def returns(self) -> tf.Tensor:
        """The sum of each episode's rewards, float32, (episodes,)."""
        return tf.reduce_sum(tf.RaggedTensor.from_row_lengths(self.rewards, self.lengths), axis=1)

    @property
    def num_steps(self) -> tf.Tensor:
        """The steps of all episodes together, int64, a scalar."""
        return tf.reduce_sum(self.lengths)


def rewards_to_go(rewards: tf.Tensor, lengths: tf.Tensor, *, discount: float) -> tf.Tensor:
    """For each step the rewards from it to its episode's end, each later one worth less by a factor.

    ```text
    worth[t] = rewards[t] + discount rewards[t + 1] + discount² rewards[t + 2] + ...
    ```

    Args:
        rewards: float32, (steps,), episode behind episode.
        lengths: int64, (episodes,), steps of each.
        discount: The factor, from 0 to 1.

    Returns:
        float32, (steps,).
    """
    padded = tf.RaggedTensor.from_row_lengths(rewards, lengths).to_tensor()  # (episodes, time)
    # One more moment, worth nothing: a scan over none at all is an error, and so few has a replica without episodes.
    moments = tf.transpose(tf.pad(padded, [[0, 0], [0, 1]]))  # (time + 1, episodes)
    worth = tf.scan(lambda later, now: now + discount * later, moments, tf.zeros_like(moments[0]), reverse=True)
    return tf.boolean_mask(tf.transpose(worth), tf.sequence_mask(lengths, tf.shape(moments)[0]))

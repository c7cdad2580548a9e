"""Episodes played by a network of PyTorch, each as its seed and the weights decide: what `zoo.arena` does there."""

from dataclasses import dataclass

import torch


@dataclass
class Episodes:
    observations: torch.Tensor
    actions: torch.Tensor
    rewards: torch.Tensor
    next_observations: torch.Tensor
    is_over: torch.Tensor
    lengths: torch.Tensor

    @property
    def returns(self):
        return torch.stack([rewards.sum() for rewards in self.rewards.split(self.lengths.tolist())])


@torch.no_grad()
def play(make, policy, seeds, *, greedy=False):
    environments = [make() for _ in seeds]
    draws = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
    seen = [[environment.reset(seed=seed)[0]] for environment, seed in zip(environments, seeds.tolist(), strict=True)]
    record = [[] for _ in environments]
    going = list(range(len(environments)))
    while going:
        logits = policy(torch.tensor([seen[i][-1] for i in going]))
        for i, probabilities in zip(list(going), logits.softmax(dim=-1), strict=True):
            action = probabilities.argmax() if greedy else probabilities.multinomial(1, generator=draws[i])
            observation, reward, is_over, is_cut_off, _ = environments[i].step(int(action))
            seen[i].append(observation)
            record[i].append((int(action), reward, is_over))
            if is_over or is_cut_off:
                going.remove(i)
                environments[i].close()
    actions, rewards, is_over = zip(*(moment for own in record for moment in own), strict=True)
    return Episodes(
        torch.tensor([observation for own in seen for observation in own[:-1]]),
        torch.tensor(actions),
        torch.tensor(rewards, dtype=torch.float32),
        torch.tensor([observation for own in seen for observation in own[1:]]),
        torch.tensor(is_over),
        torch.tensor([len(own) for own in record]),
    )


def rewards_to_go(rewards, lengths, *, discount):
    parts = []
    for own in rewards.split(lengths.tolist()):
        worth = torch.zeros(len(own) + 1)
        for moment in reversed(range(len(own))):
            worth[moment] = own[moment] + discount * worth[moment + 1]
        parts.append(worth[:-1])
    return torch.cat(parts)

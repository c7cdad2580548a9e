"""PPO by a `LightningModule`, whose data are the seeds of episodes."""

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from tests.lines.lightning_episodes import play, rewards_to_go


class PPO(lightning.LightningModule):
    def __init__(self, policy, value, make, discount=0.99, trace=0.98, clip=0.2, num_updates=6):
        super().__init__()
        self.automatic_optimization = False  # there are several updates a batch
        self.policy = policy
        self.value = value
        self.make = make
        self.discount = discount
        self.trace = trace
        self.clip = clip
        self.num_updates = num_updates

    def configure_optimizers(self):
        groups = [{"params": self.policy.parameters(), "lr": 1e-3}, {"params": self.value.parameters(), "lr": 3e-3}]
        return torch.optim.Adam(groups)

    def training_step(self, batch):
        (seeds,) = batch
        episodes, optimizer = play(self.make, self.policy, seeds), self.optimizers()
        with torch.no_grad():
            played = log_probability(self.policy(episodes.observations), episodes.actions)
            advantage, worth = self.judge(episodes)
        for _ in range(self.num_updates):
            logits = self.policy(episodes.observations)
            ratio = (log_probability(logits, episodes.actions) - played).exp()
            clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
            policy_loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()
            value_loss = mse_loss(self.value(episodes.observations)[:, 0], worth)
            optimizer.zero_grad()
            self.manual_backward(policy_loss + value_loss)  # they share no weights: one optimizer does
            optimizer.step()
        self.count(episodes, "", {"policy_loss": policy_loss, "value_loss": value_loss})

    def validation_step(self, batch):
        (seeds,) = batch
        self.count(play(self.make, self.policy, seeds, greedy=True), "val_", {})

    def judge(self, episodes):
        before, after = (self.value(seen)[:, 0] for seen in (episodes.observations, episodes.next_observations))
        surprise = episodes.rewards + self.discount * after.masked_fill(episodes.is_over, 0.0) - before
        advantage = rewards_to_go(surprise, episodes.lengths, discount=self.discount * self.trace)
        return (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-7), before + advantage

    def count(self, episodes, prefix, values):
        returns, lengths = episodes.returns, episodes.lengths.float()
        values |= {"return": returns.mean(), "length": lengths.mean()}
        values |= {"lowest_return": returns.min(), "highest_return": returns.max()}
        self.log_dict({prefix + name: value for name, value in values.items()}, on_step=False, on_epoch=True)


def log_probability(logits, actions):
    return -cross_entropy(logits, actions, reduction="none")


def train(policy, value, make, seeds, validation_seeds, directory, *, epochs=10):
    loader = StatefulDataLoader(TensorDataset(seeds), batch_size=10, shuffle=True)
    validation_loader = StatefulDataLoader(TensorDataset(validation_seeds), batch_size=10)
    checkpoints = ModelCheckpoint(directory, every_n_train_steps=600, save_last=True)  # six updates a batch
    trainer = lightning.Trainer(max_epochs=epochs, default_root_dir=directory, callbacks=[checkpoints])
    trainer.fit(PPO(policy, value, make), loader, validation_loader, ckpt_path="last")
    return trainer

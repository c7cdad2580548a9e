"""REINFORCE by a `LightningModule`, whose data are the seeds of episodes."""

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from tests.lines.lightning_episodes import play, rewards_to_go


class Reinforce(lightning.LightningModule):
    def __init__(self, policy, baseline, make, discount=0.99):
        super().__init__()
        self.policy = policy
        self.baseline = baseline
        self.make = make
        self.discount = discount

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 3e-3)

    def training_step(self, batch):
        (seeds,) = batch
        episodes = play(self.make, self.policy, seeds)
        worth = rewards_to_go(episodes.rewards, episodes.lengths, discount=self.discount)
        expected = self.baseline(episodes.observations)[:, 0]
        rarity = cross_entropy(self.policy(episodes.observations), episodes.actions, reduction="none")
        policy_loss = (rarity * standardized((worth - expected).detach())).mean()
        baseline_loss = mse_loss(expected, worth)
        loss = policy_loss + baseline_loss  # they share no weights: one optimizer does
        self.count(episodes, "", {"loss": loss, "loss/policy": policy_loss, "loss/baseline": baseline_loss})
        return loss

    def validation_step(self, batch):
        (seeds,) = batch
        self.count(play(self.make, self.policy, seeds, greedy=True), "val_", {})

    def count(self, episodes, prefix, values):
        returns, lengths = episodes.returns, episodes.lengths.float()
        values |= {"return": returns.mean(), "length": lengths.mean()}
        values |= {"lowest_return": returns.min(), "highest_return": returns.max()}
        self.log_dict({prefix + name: value for name, value in values.items()}, on_step=False, on_epoch=True)


def standardized(values):
    return (values - values.mean()) / (values.std(correction=0) + 1e-7)


def train(policy, baseline, make, seeds, validation_seeds, directory, *, epochs=10):
    loader = StatefulDataLoader(TensorDataset(seeds), batch_size=10, shuffle=True)
    validation_loader = StatefulDataLoader(TensorDataset(validation_seeds), batch_size=10)
    checkpoints = ModelCheckpoint(directory, every_n_train_steps=100, save_last=True)
    trainer = lightning.Trainer(max_epochs=epochs, default_root_dir=directory, callbacks=[checkpoints])
    trainer.fit(Reinforce(policy, baseline, make), loader, validation_loader, ckpt_path="last")
    return trainer

"""Contrastive learning by a `LightningModule`."""

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader


class SimCLR(lightning.LightningModule):
    def __init__(self, network, views, temperature=0.2):
        super().__init__()
        self.network = network
        self.views = views
        self.temperature = temperature
        self.random = torch.Generator().manual_seed(1)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-3)

    def training_step(self, batch):
        (images,) = batch
        first, second = (self.network(self.views(images, self.random)) for _ in range(2))
        loss, found = nt_xent(first, second, self.temperature)
        self.log_dict({"loss": loss, "found": found}, on_step=False, on_epoch=True)
        return loss

    def on_save_checkpoint(self, checkpoint):
        checkpoint["random"] = self.random.get_state()

    def on_load_checkpoint(self, checkpoint):
        self.random.set_state(checkpoint["random"])


def nt_xent(first, second, temperature):
    both = normalize(torch.cat([first, second]))
    cosines = (both @ both.T).fill_diagonal_(-float("inf"))
    partners = torch.arange(len(both), device=both.device).roll(len(first))
    return cross_entropy(cosines / temperature, partners), (cosines.argmax(dim=1) == partners).float().mean()


def train(network, views, images, directory, *, epochs=50):
    loader = StatefulDataLoader(TensorDataset(images), batch_size=256, shuffle=True)
    checkpoints = ModelCheckpoint(directory, every_n_train_steps=100, save_last=True)
    trainer = lightning.Trainer(max_epochs=epochs, default_root_dir=directory, callbacks=[checkpoints])
    trainer.fit(SimCLR(network, views), loader, ckpt_path="last")
    return trainer

"""A variational auto-encoder by a `LightningModule`."""

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import binary_cross_entropy
from torch.utils.data import TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader


class VariationalAutoencoder(lightning.LightningModule):
    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.random = torch.Generator().manual_seed(1)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-3)

    def training_step(self, batch):
        return self.bound(batch, self.random, "")

    def validation_step(self, batch):
        self.bound(batch, torch.Generator().manual_seed(0), "val_")

    def bound(self, batch, random, prefix):
        (images,) = batch
        mean, log_variance = self.encoder(images).chunk(2, dim=-1)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2 / len(images)
        noise = torch.randn(mean.shape, generator=random).to(self.device)
        pictures = self.decoder(mean + (log_variance / 2).exp() * noise)
        reconstruction = binary_cross_entropy(pictures, images, reduction="sum") / len(images)
        loss = reconstruction + divergence
        values = {"loss": loss, "loss/reconstruction": reconstruction, "loss/divergence": divergence}
        self.log_dict({prefix + name: value for name, value in values.items()}, on_step=False, on_epoch=True)
        return loss

    def on_save_checkpoint(self, checkpoint):
        checkpoint["random"] = self.random.get_state()

    def on_load_checkpoint(self, checkpoint):
        self.random.set_state(checkpoint["random"])


def train(encoder, decoder, images, validation_images, directory, *, epochs=50):
    loader = StatefulDataLoader(TensorDataset(images), batch_size=64, shuffle=True)
    validation_loader = StatefulDataLoader(TensorDataset(validation_images), batch_size=64)
    checkpoints = ModelCheckpoint(directory, every_n_train_steps=100, save_last=True)
    trainer = lightning.Trainer(max_epochs=epochs, default_root_dir=directory, callbacks=[checkpoints])
    trainer.fit(VariationalAutoencoder(encoder, decoder), loader, validation_loader, ckpt_path="last")
    return trainer

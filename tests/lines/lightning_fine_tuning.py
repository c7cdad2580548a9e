"""Fine-tuning by a `LightningModule`: a head on frozen features, then the last features with it, at a smaller rate."""

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader


class FineTuned(lightning.LightningModule):
    def __init__(self, features, head, rate):
        super().__init__()
        self.features = features.eval()  # batch normalisation in inference mode; Lightning leaves it there
        self.head = head
        self.rate = rate

    def configure_optimizers(self):
        return torch.optim.Adam([weight for weight in self.parameters() if weight.requires_grad], self.rate)

    def training_step(self, batch):
        return self.compare(batch, "")

    def validation_step(self, batch):
        self.compare(batch, "val_")

    def compare(self, batch, prefix):
        images, labels = batch
        logits = self.head(self.features(images))
        loss, accuracy = cross_entropy(logits, labels), (logits.argmax(dim=-1) == labels).float().mean()
        self.log_dict({prefix + "loss": loss, prefix + "accuracy": accuracy}, on_step=False, on_epoch=True)
        return loss


def train(features, head, data, validation_data, directory, *, from_layer, epochs=30):
    features.requires_grad_(False)
    stage_of_head = fit(FineTuned(features, head, 1e-2), data, validation_data, directory / "head", epochs=epochs)
    names = [name for name, _ in features.named_children()]
    for name, layer in features.named_children():
        layer.requires_grad_(names.index(name) >= names.index(from_layer))
    stage_of_features = FineTuned(features, head, 1e-4)
    return stage_of_head, fit(stage_of_features, data, validation_data, directory / "features", epochs=epochs)


def fit(module, data, validation_data, directory, *, epochs):
    lightning.seed_everything(1)  # the order of the second stage must not depend on where the first was resumed
    loader = StatefulDataLoader(TensorDataset(*data), batch_size=32, shuffle=True)
    validation_loader = StatefulDataLoader(TensorDataset(*validation_data), batch_size=32)
    checkpoints = ModelCheckpoint(directory, every_n_train_steps=100, save_last=True)
    trainer = lightning.Trainer(max_epochs=epochs, default_root_dir=directory, callbacks=[checkpoints])
    trainer.fit(module, loader, validation_loader, ckpt_path="last")
    return trainer

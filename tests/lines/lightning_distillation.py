"""Distillation by a `LightningModule`."""

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import kl_div, nll_loss
from torch.utils.data import TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader


class Distiller(lightning.LightningModule):
    def __init__(self, student, teacher, temperature=2.0, label_weight=0.1):
        super().__init__()
        self.student = student
        self.teacher = teacher.eval().requires_grad_(False)
        self.temperature = temperature
        self.label_weight = label_weight

    def configure_optimizers(self):
        return torch.optim.Adam(self.student.parameters(), 1e-3)

    def training_step(self, batch):
        return self.compare(batch, "")

    def validation_step(self, batch):
        self.compare(batch, "val_")

    def compare(self, batch, prefix):
        images, labels = batch
        taught, learnt = self.teacher(images), self.student(images)
        divergence = kl_div(self.softened(learnt), self.softened(taught), reduction="batchmean", log_target=True)
        soft = (1 - self.label_weight) * self.temperature**2 * divergence
        hard = self.label_weight * nll_loss(learnt.clamp_min(1e-37).log(), labels)
        loss = soft + hard
        found = learnt.argmax(dim=-1)
        agreement = (found == taught.argmax(dim=-1)).float().mean()
        values = {"loss": loss, "loss/teacher": soft, "loss/labels": hard, "agreement": agreement}
        values |= {"accuracy": (found == labels).float().mean()}
        self.log_dict({prefix + name: value for name, value in values.items()}, on_step=False, on_epoch=True)
        return loss

    def softened(self, probabilities):
        return (probabilities.clamp_min(1e-37).log() / self.temperature).log_softmax(dim=-1)


def train(student, teacher, data, validation_data, directory, *, epochs=30):
    loader = StatefulDataLoader(TensorDataset(*data), batch_size=64, shuffle=True)
    validation_loader = StatefulDataLoader(TensorDataset(*validation_data), batch_size=64)
    checkpoints = ModelCheckpoint(directory, every_n_train_steps=100, save_last=True)
    trainer = lightning.Trainer(max_epochs=epochs, default_root_dir=directory, callbacks=[checkpoints])
    trainer.fit(Distiller(student, teacher), loader, validation_loader, ckpt_path="last")
    return trainer

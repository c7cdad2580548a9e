"""The same models by PyTorch Lightning, in a process of their own: `python -m tests.bench.by_lightning STEPS...`."""

import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

import lightning
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from tests.bench.samples import BATCH_SIZE, samples
from tests.bench.serving import serve


class Classifier(lightning.LightningModule):
    """A network that gives scores, with what `fit` logs: the means of loss and accuracy over the epoch."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch: Any) -> torch.Tensor:
        """The loss of a batch."""
        images, labels = batch
        scores = self.network(images)
        loss = nn.functional.cross_entropy(scores, labels)
        accuracy = (scores.argmax(-1) == labels).float().mean()
        self.log_dict({"loss": loss, "accuracy": accuracy}, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """As `compile("adam")`."""
        return torch.optim.Adam(self.parameters(), 1e-3, eps=1e-7)


class Inception(nn.Module):
    """Two branches side by side, their channels joined."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Both of the same images, (batch, channels, height, width)."""
        return torch.cat([self.first(images), self.second(images)], 1)


def convolution(channels: int, filters: int, size: int, stride: int = 1) -> nn.Module:
    """Convolution, batch normalisation, ReLU; *same* padding without a stride, otherwise *valid*."""
    padding = size // 2 if stride == 1 else 0
    layers = [nn.Conv2d(channels, filters, size, stride, padding), nn.BatchNorm2d(filters, 1e-3, 0.01), nn.ReLU()]
    return nn.Sequential(*layers)


def small_inception() -> nn.Module:
    """What `zoo.small_inception` is, softmax left to the loss."""
    modules, channels = [convolution(1, 96, 3)], 96
    for stage in ((32, 32), (32, 48), 80, (112, 48), (96, 64), (80, 80), 96):
        if isinstance(stage, int):
            modules.append(Inception(convolution(channels, stage, 3, 2), nn.MaxPool2d(3, 2)))
            channels += stage
        else:
            modules.append(Inception(convolution(channels, stage[0], 1), convolution(channels, stage[1], 3)))
            channels = sum(stage)
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def dense() -> nn.Module:
    """784-16-10."""
    return nn.Sequential(nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))


def dropout() -> nn.Module:
    """784-512-10 with dropout."""
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 10))


CASES = {"dense": (dense, (784,)), "dropout": (dropout, (784,)), "Inception": (small_inception, (1, 28, 28))}


def main() -> None:
    """Serves an epoch of each case, one sample after the other and a batch at a time."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    runs = {}
    for (name, (make, shape)), steps in zip(CASES.items(), map(int, sys.argv[1:]), strict=False):
        data = TensorDataset(*map(torch.from_numpy, samples(shape, steps)))
        runs[f"{name}/by sample"] = _epoch(make, DataLoader(data, BATCH_SIZE, shuffle=True))
        sampler = BatchSampler(RandomSampler(data), BATCH_SIZE, drop_last=False)
        runs[f"{name}/by batch"] = _epoch(make, DataLoader(data, sampler=sampler, batch_size=None))
    serve(runs)


def _epoch(make: Callable[[], nn.Module], loader: DataLoader[Any]) -> Callable[[], Any]:
    model = Classifier(make())

    def run() -> None:
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, loader)

    return run


if __name__ == "__main__":
    main()

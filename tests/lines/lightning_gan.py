"""A GAN by a `LightningModule` with two optimizers."""

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader


class GAN(lightning.LightningModule):
    def __init__(self, generator, critic, noise_size, penalty=0.1):
        super().__init__()
        self.automatic_optimization = False  # there are two optimizers
        self.generator = generator
        self.critic = critic
        self.noise_size = noise_size
        self.penalty = penalty
        self.random = torch.Generator().manual_seed(1)

    def configure_optimizers(self):
        return [torch.optim.Adam(network.parameters(), 1e-3, (0.5, 0.999)) for network in (self.generator, self.critic)]

    def training_step(self, batch):
        (images,) = batch
        generator_optimizer, critic_optimizer = self.optimizers()
        fakes = self.generator(torch.randn(len(images), self.noise_size, generator=self.random).to(self.device))
        on_real, on_fake = self.critic(images.requires_grad_()), self.critic(fakes.detach())
        real = binary_cross_entropy_with_logits(on_real, torch.ones_like(on_real))
        fake = binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))
        (slopes,) = torch.autograd.grad(on_real.sum(), images, create_graph=True)
        slope = self.penalty / 2 * slopes.square().flatten(1).sum(dim=1).mean()
        critic_loss = real + fake + slope
        self.update(critic_optimizer, critic_loss)
        self.toggle_optimizer(generator_optimizer)
        on_fake = self.critic(fakes)
        generator_loss = binary_cross_entropy_with_logits(on_fake, torch.ones_like(on_fake))
        self.update(generator_optimizer, generator_loss)
        self.untoggle_optimizer(generator_optimizer)
        values = {"critic_loss": critic_loss, "critic_loss/real": real, "critic_loss/fake": fake}
        values |= {"critic_loss/slope": slope, "generator_loss": generator_loss}
        self.log_dict(values, on_step=False, on_epoch=True)

    def update(self, optimizer, loss):
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def on_save_checkpoint(self, checkpoint):
        checkpoint["random"] = self.random.get_state()

    def on_load_checkpoint(self, checkpoint):
        self.random.set_state(checkpoint["random"])


def train(generator, critic, noise_size, images, directory, *, epochs=80):
    loader = StatefulDataLoader(TensorDataset(images), batch_size=64, shuffle=True)
    checkpoints = ModelCheckpoint(directory, every_n_train_steps=200, save_last=True)  # two updates a batch
    trainer = lightning.Trainer(max_epochs=epochs, default_root_dir=directory, callbacks=[checkpoints])
    trainer.fit(GAN(generator, critic, noise_size), loader, ckpt_path="last")
    return trainer

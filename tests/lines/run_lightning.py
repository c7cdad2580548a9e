"""Runs the trainings by Lightning: `python -m tests.lines.run_lightning [NAME ...]`, in an environment of their own.

    uv venv lightning
    uv pip install -p lightning/bin/python torch torchdata lightning gymnasium

Each is run three times, in processes of their own: whole, killed after 140 of the 150 batches of its last epoch, and
resumed. What is compared, to the bit: the weights, and the last epoch's logs.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import gymnasium
import lightning
import torch
from torch import nn

from tests.lines import (
    lightning_contrastive,
    lightning_distillation,
    lightning_fine_tuning,
    lightning_gan,
    lightning_ppo,
    lightning_reinforce,
    lightning_vae,
)

STEPS, EPOCHS, KILL_AFTER = 150, 2, 290
FORK = multiprocessing.get_context("fork")  # one import serves all


class Countdown(nn.Module):
    """Hands on what it gets, and at its n-th call in training kills the process; None: never."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def forward(self, inputs):
        """Counts."""
        if self.calls is not None:
            self.calls -= 1
            if self.calls == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return inputs


def images(batch_size):
    return torch.rand(STEPS * batch_size, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def labels(batch_size):
    return torch.randint(0, 3, (STEPS * batch_size,), generator=torch.Generator().manual_seed(2))


def gan(countdown, directory):
    generator = nn.Sequential(countdown(1), nn.Linear(4, 16), nn.Sigmoid(), nn.Unflatten(1, (1, 4, 4)))
    critic = nn.Sequential(nn.Flatten(), nn.Linear(16, 1))
    return lightning_gan.train(generator, critic, 4, images(64), directory, epochs=EPOCHS), [generator, critic]


def vae(countdown, directory):
    encoder = nn.Sequential(countdown(1), nn.Flatten(), nn.Linear(16, 4))
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Sigmoid(), nn.Unflatten(1, (1, 4, 4)))
    own = images(64)
    return lightning_vae.train(encoder, decoder, own, own[:64], directory, epochs=EPOCHS), [encoder, decoder]


def distillation(countdown, directory):
    student = nn.Sequential(countdown(1), nn.Flatten(), nn.Linear(16, 3), nn.Softmax(dim=-1))
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Softmax(dim=-1))
    data = images(64), labels(64)
    few = tuple(tensor[:64] for tensor in data)
    return lightning_distillation.train(student, teacher, data, few, directory, epochs=EPOCHS), [student]


def contrastive(countdown, directory):
    network = nn.Sequential(countdown(2), nn.Flatten(), nn.Linear(16, 4))
    return lightning_contrastive.train(network, noisy, images(256), directory, epochs=EPOCHS), [network]


def noisy(own, random):
    return own + torch.randn(own.shape, generator=random) / 10


def fine_tuning(countdown, directory):
    layers = {"first": nn.Linear(16, 8), "last": nn.Linear(8, 8), "normalization": nn.BatchNorm1d(8)}
    features = nn.Sequential()
    for name, layer in {"countdown": countdown(1), "flat": nn.Flatten(), **layers}.items():
        features.add_module(name, layer)
    head, data = nn.Linear(8, 3), (images(32), labels(32))
    few = tuple(tensor[:32] for tensor in data)
    trainers = lightning_fine_tuning.train(features, head, data, few, directory, from_layer="last", epochs=EPOCHS)
    return trainers[-1], [features, head]


def reinforce(countdown, directory):
    return learn_to_act(lightning_reinforce.train, countdown(1), directory)


def ppo(countdown, directory):
    return learn_to_act(lightning_ppo.train, countdown(2 + 6), directory)


def learn_to_act(train, countdown, directory):
    policy, judge = nn.Linear(4, 2), nn.Sequential(countdown, nn.Linear(4, 1))
    seeds = torch.arange(STEPS * 10)
    return train(policy, judge, make_environment, seeds, seeds[:10], directory, epochs=EPOCHS), [policy, judge]


def make_environment():
    return gymnasium.make("CartPole-v1", max_episode_steps=12)


CASES = {case.__name__: case for case in (gan, vae, distillation, contrastive, fine_tuning, reinforce, ppo)}


def main():
    print(*(f"{package} {version(package)}" for package in ("lightning", "torch", "torchdata")), sep=", ")
    for name in sys.argv[1:] or CASES:
        with tempfile.TemporaryDirectory() as directory:
            print(name, *try_it(name, Path(directory)), sep="\t", flush=True)


def try_it(name, directory):
    train(name, directory / "whole", 0)
    train(name, directory / "cut", KILL_AFTER)
    train(name, directory / "cut", 0)
    whole, again = (torch.load(directory / run / "end.pt") for run in ("whole", "cut"))
    for kind in ("weights", "logs"):
        same = [torch.equal(value, again[kind][key]) for key, value in whole[kind].items()]
        yield f"{kind}: {'the same' if all(same) else 'others'}"
    yield f"{len(again['weights'])} weights, logs: {', '.join(sorted(again['logs']))}"


def train(name, directory, kill_after):
    directory.mkdir(exist_ok=True)
    process = FORK.Process(target=train_here, args=(name, directory, kill_after))
    process.start()
    process.join()
    if process.exitcode != (-signal.SIGKILL if kill_after else 0):
        raise SystemExit(f"{name}, to be killed after {kill_after} batches, ended with {process.exitcode}")


def train_here(name, directory, kill_after):
    lightning.seed_everything(1)
    with contextlib.chdir(directory), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        trainer, networks = CASES[name](lambda calls: Countdown(calls * kill_after or None), directory / "saved")
    weights = {f"{i}/{key}": value for i, network in enumerate(networks) for key, value in network.state_dict().items()}
    torch.save({"weights": weights, "logs": dict(trainer.callback_metrics)}, directory / "end.pt")


if __name__ == "__main__":
    main()

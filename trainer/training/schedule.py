"""What a configuration asks for: the optimisers, and the rate and augmentation of every epoch."""

import math

import torch
from torch import Generator, Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from trainer.config import Config
from trainer.training.augment import Augmentation
from trainer.training.muon import Muon, suits


def make_optimizers(classifier: nn.Module, config: Config, *, bf16: bool = False) -> list[Optimizer]:
    """The optimisers over what is trained; norms and biases are not decayed. Muon leaves to AdamW what is no filter.

    Args:
        bf16: Whether Muon multiplies in bfloat16.
    """
    trained = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    optimizers: list[Optimizer] = []
    if config.optimizer == "muon" and (filters := [p for p in trained if suits(p)]):
        dtype = torch.bfloat16 if bf16 else torch.float32
        optimizers.append(Muon(filters, config.learning_rate, weight_decay=config.weight_decay, dtype=dtype))
        trained = [parameter for parameter in trained if not suits(parameter)]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return [SGD(groups, lr=config.learning_rate, momentum=0.9, nesterov=True, fused=True)]
    kind = Adam if config.optimizer == "adam" else AdamW
    return [*optimizers, kind(groups, lr=config.learning_rate, fused=True)]


def is_clean(config: Config, epoch: int) -> bool:
    """Whether epoch number `epoch` belongs to `Config.clean_end`."""
    return epoch > config.epochs - round(config.clean_end * config.epochs)


def learning_rate(config: Config, progress: float) -> float:
    """The rate when `progress` (0 to 1) of the training is done."""
    if config.schedule == "constant":
        return config.learning_rate
    warm_up = 0.25 if config.schedule == "onecycle" else 0.0
    if progress < warm_up:
        return config.learning_rate * (0.04 + 0.96 * progress / warm_up)
    decayed = (progress - warm_up) / (1 - warm_up)
    return config.learning_rate * (1 + math.cos(math.pi * decayed)) / 2


def class_weights(target: Tensor, num_classes: int, weighting: str) -> Tensor | None:
    """float32 (K,) with mean 1 over the images, or None; a class without images weighs 0."""
    if weighting == "none":
        return None
    counts = torch.bincount(target, minlength=num_classes).float()
    weights = torch.where(counts > 0, counts.clamp_min(1) ** (-1.0 if weighting == "balanced" else -0.5), 0.0)
    return weights * counts.sum() / (weights * counts).sum()


def make_augmentation(config: Config) -> Augmentation:
    strength = config.augmentation
    return Augmentation(
        flip=config.flip and strength > 0,
        rotation=config.rotation * strength,
        zoom=config.zoom * strength,
        shift=config.shift * strength,
        erase=min(config.erase * strength, 1.0),
        jitter=config.jitter * strength,
    )


def seeded(seed: int, epoch: int, device: torch.device) -> Generator:
    """A generator for one epoch on `device`; dropout's global one is seeded alike."""
    mixed = (seed * 1_000_003 + epoch) % 2**63
    torch.manual_seed(mixed)
    return Generator(device).manual_seed(mixed)

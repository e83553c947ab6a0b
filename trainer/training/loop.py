"""The training loop: `fit` yields one `Epoch` at a time and knows no tracker, file or flag."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trainer.config import Config
from trainer.data.base import Split
from trainer.models.base import Classifier, to_unit_range
from trainer.training.augment import Augmentation, mixup

EVALUATION_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one pass over train gave. Losses in nats, shares in [0, 1], `number` from 1."""

    number: int
    train_loss: float
    """Of the loss that is minimised, over augmented images: with smoothing and weights, where set."""
    train_accuracy: float
    validation_loss: float
    """Plain cross-entropy."""
    validation_accuracy: float
    validation_macro_recall: float
    learning_rate: float
    """At the last step."""
    images_per_second: float
    """Of training alone."""
    seconds: float
    """Of the whole epoch, validation included."""
    best: bool
    """Whether its validation accuracy is the highest so far."""


@dataclass(frozen=True)
class Step:
    """How far an epoch has come; sums are over the images seen so far."""

    epoch: int
    images: int
    of_images: int
    loss: float
    accuracy: float
    images_per_second: float


class Training:
    """The state of a training: what a checkpoint must hold for it to go on with the same numbers.

    All randomness of an epoch comes from the seed and the epoch's number, so that no generator's state
    needs to be kept.
    """

    def __init__(self, classifier: Classifier, config: Config, fabric: Fabric):
        self.config = config
        self.fabric = fabric
        classifier = classifier.to(memory_format=torch.channels_last)
        optimizer = make_optimizer(classifier, config)
        self.model, self.optimizer = fabric.setup(classifier, optimizer)
        self.average: AveragedModel | None = None
        if config.ema_decay:
            averaging = get_ema_multi_avg_fn(config.ema_decay)
            self.average = AveragedModel(self.classifier, multi_avg_fn=averaging, use_buffers=True)
        self.history: list[Epoch] = []
        self.best_weights: dict[str, Tensor] = {}

    @property
    def classifier(self) -> Classifier:
        """The network that is trained, without Fabric's wrapper."""
        return cast(Classifier, self.model.module)

    @property
    def evaluated(self) -> Classifier:
        """The network whose weights are judged and kept: the average, where there is one."""
        return self.classifier if self.average is None else cast(Classifier, self.average.module)

    @property
    def best_epoch(self) -> Epoch | None:
        return next((epoch for epoch in reversed(self.history) if epoch.best), None)

    @property
    def finished(self) -> bool:
        last, patience = len(self.history), self.config.early_stopping
        waited = last - self.best_epoch.number if self.best_epoch else 0
        return last >= self.config.epochs or (patience > 0 and waited >= patience)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.classifier.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "best_weights": self.best_weights,
            "history": [vars(epoch) for epoch in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.classifier.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.best_weights = state["best_weights"]
        self.history = [Epoch(**values) for values in state["history"]]


def fit(
    training: Training,
    train: Split,
    validation: Split,
    num_classes: int,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Iterator[Epoch]:
    """Train until the epochs or the patience are used up; yields each `Epoch` when it is done.

    `on_step` is called now and then within an epoch, for whoever shows progress.
    Raises FloatingPointError where the loss is no longer a number.
    """
    config, device = training.config, training.fabric.device
    images, target = train.images.to(device), train.target.to(device)
    weights = class_weights(target, num_classes, config.class_weighting)
    augmentation = make_augmentation(config)
    while not training.finished:
        number = len(training.history) + 1
        generator = seeded(config.seed, number, device)
        started = time.perf_counter()
        order = torch.randperm(len(target), generator=generator, device=device)
        batches = [
            batch for batch in order.split(config.batch_size) if len(batch) > 1
        ]  # batch norm needs two
        seen = sum(len(batch) for batch in batches)
        totals = torch.zeros(2, device=device)  # loss × images, correct
        training.model.train()
        done, shown = 0, started
        for index, batch in enumerate(batches):
            rate = learning_rate(config, (number - 1 + index / len(batches)) / config.epochs)
            for group in training.optimizer.param_groups:
                group["lr"] = rate
            inputs = augmentation(to_unit_range(images[batch]), generator)
            labels = functional.one_hot(target[batch], num_classes).float()
            if config.mixup:
                inputs, labels = mixup(inputs, labels, config.mixup, generator)
            totals += training_step(training, inputs, labels, weights)
            done += len(batch)
            if (now := time.perf_counter()) - shown > 0.25:  # reading the totals waits for the device
                shown = now
                loss, correct = (totals / done).tolist()
                on_step(Step(number, done, seen, loss, correct, done / (now - started)))
        loss, accuracy = (totals / seen).tolist()
        trained = time.perf_counter()
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the training loss became {loss} in epoch {number}: lower --learning-rate"
            )
        logits = predict_logits(training.evaluated, validation.images, device)
        measured = validate(logits, validation.target.to(device), num_classes)
        best = training.best_epoch
        epoch = Epoch(
            number=number,
            train_loss=loss,
            train_accuracy=accuracy,
            validation_loss=measured[0],
            validation_accuracy=measured[1],
            validation_macro_recall=measured[2],
            learning_rate=rate,
            images_per_second=seen / (trained - started),
            seconds=time.perf_counter() - started,
            best=best is None or measured[1] > best.validation_accuracy,
        )
        training.history.append(epoch)
        if epoch.best:
            state = training.evaluated.state_dict()
            training.best_weights = {name: value.detach().cpu().clone() for name, value in state.items()}
        yield epoch


def training_step(training: Training, inputs: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """One step; returns (loss × images, correct images) as float32 (2,), still on the device."""
    config = training.config
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    training.optimizer.zero_grad(set_to_none=True)
    logits = training.model(inputs)
    loss = functional.cross_entropy(
        logits.float(), labels, weight=weights, label_smoothing=config.label_smoothing
    )
    training.fabric.backward(loss)
    training.optimizer.step()
    if training.average is not None:
        training.average.update_parameters(training.classifier)
    correct = (logits.argmax(1) == labels.argmax(1)).sum()
    return torch.stack([loss.detach() * len(labels), correct.float()])


@torch.inference_mode()
def predict_logits(classifier: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """float32 (N, K) on `device`, of uint8 images (N, 1, S, S), in evaluation mode."""
    classifier.eval()
    batches = images.split(EVALUATION_BATCH)
    return torch.cat([classifier(to_unit_range(batch.to(device))).float() for batch in batches])


def validate(logits: Tensor, target: Tensor, num_classes: int) -> tuple[float, float, float]:
    """(cross-entropy in nats, accuracy, macro recall over the classes that occur)."""
    loss = functional.cross_entropy(logits, target)
    correct = logits.argmax(1) == target
    support = torch.bincount(target, minlength=num_classes)
    hits = torch.bincount(target[correct], minlength=num_classes)
    recall = (hits / support)[support > 0].mean()
    values = torch.stack([loss, correct.float().mean(), recall]).tolist()
    return values[0], values[1], values[2]


def make_optimizer(classifier: nn.Module, config: Config) -> Optimizer:
    """The optimiser over what is trained; norms and biases are not decayed."""
    trained = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return SGD(groups, lr=config.learning_rate, momentum=0.9, nesterov=True, fused=True)
    kind = AdamW if config.optimizer == "adamw" else Adam
    return kind(groups, lr=config.learning_rate, fused=True)


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
    )


def seeded(seed: int, epoch: int, device: torch.device) -> Generator:
    """A generator for one epoch on `device`; dropout's global one is seeded alike."""
    mixed = (seed * 1_000_003 + epoch) % 2**63
    torch.manual_seed(mixed)
    return Generator(device).manual_seed(mixed)

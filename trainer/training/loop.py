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

from trainer.config import Config
from trainer.data.base import Split
from trainer.models.base import Classifier, to_unit_range
from trainer.training.allocator import return_memory
from trainer.training.augment import Augmentation, cutmix, mixup
from trainer.training.average import WeightAverage
from trainer.training.environment import in_bf16
from trainer.training.prediction import predict
from trainer.training.schedule import (
    class_weights,
    is_clean,
    learning_rate,
    make_augmentation,
    make_optimizers,
    seeded,
)
from trainer.training.shares import Share, share_layers, summed


class CompilationError(ValueError):
    """The network should be compiled, and cannot be on this machine."""


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
    """How far an epoch has come; loss and accuracy are means over the images that this process has seen so far."""

    epoch: int
    images: int
    of_images: int
    loss: float
    accuracy: float
    images_per_second: float


class Training:
    """The state of a training: what a checkpoint must hold for it to go on with the same numbers.

    All randomness of an epoch comes from the seed and the epoch's number, so that no generator's state
    needs to be kept. Where several processes train together, each holds the same state and takes its share of every
    batch.
    """

    def __init__(self, classifier: Classifier, config: Config, fabric: Fabric):
        self.config = config
        self.fabric = fabric
        self.share = Share(fabric.global_rank, fabric.world_size)
        classifier = classifier.to(memory_format=torch.channels_last)
        optimizers = make_optimizers(classifier, config, bf16=in_bf16(fabric))
        if fabric.world_size > 1:
            share_layers(classifier.to(fabric.device), self.share)
        # Shares differ in size, and layers wait for others.
        self.compiled = config.compile and fabric.world_size == 1
        network: nn.Module = classifier
        if self.compiled:
            torch.compiler.reset()  # it compiles only so many graphs of a function, and a sweep has many trainings
            # One graph for each side: what suits any side is slower. Fabric keeps its own wrapper, which would break
            # the graph where precision is mixed, around what is compiled.
            network = cast(nn.Module, torch.compile(classifier, dynamic=False))
        self.model, *self.optimizers = fabric.setup(network, *optimizers)
        self.average: WeightAverage | None = None
        if config.ema_decay:
            self.average = WeightAverage(self.classifier, config.ema_decay)
        self.warm_up_seconds = 0.0
        self.history: list[Epoch] = []
        self.best_weights: dict[str, Tensor] = {}

    @property
    def classifier(self) -> Classifier:
        """The network that is trained, without Fabric's wrapper."""
        return cast(Classifier, self.model.module)

    def set_learning_rate(self, rate: float) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

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
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average.state_dict() if self.average is not None else None,
            "best_weights": self.best_weights,
            "history": [vars(epoch) for epoch in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.classifier.load_state_dict(state["model"])
        for optimizer, before in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(before)
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
    soft_targets: Tensor | None = None,
) -> Iterator[Epoch]:
    """Train until the epochs or the patience are used up; yields each `Epoch` when it is done.

    Args:
        on_step: Called now and then within an epoch, for whoever shows progress; on the CPU only, since reading
            how far it has come waits for the device.
        soft_targets: A teacher's probabilities for the images of `train`, float32 (N, K).

    Raises FloatingPointError where the loss is no longer a number, and CompilationError where the network should be
    compiled and cannot.
    """
    train_set = TrainSet.on_device(training, train, num_classes, soft_targets)
    if training.compiled and not training.finished:
        try:
            training.warm_up_seconds = warm_up(training, train_set)
        except RuntimeError as error:
            from torch._dynamo.exc import TorchDynamoException  # as where there is no C++ compiler

            if not isinstance(error, TorchDynamoException):
                raise
            reason = str(error).strip().splitlines()[0]
            raise CompilationError(
                f"the network cannot be compiled here ({reason}): give --compile False"
            ) from error
    while not training.finished:
        number = len(training.history) + 1
        started = time.perf_counter()
        loss, accuracy, seen = train_epoch(training, train_set, number, on_step)
        trained = time.perf_counter()
        return_memory()
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the training loss became {loss} in epoch {number}: lower --learning-rate"
            )
        logits = predict_shared(training, validation.images, num_classes)
        measured = validate(logits, validation.target.to(logits.device), num_classes)
        if not math.isfinite(
            measured[0]
        ):  # the last step may break what its loss, taken before, does not show
            raise FloatingPointError(
                f"the validation loss became {measured[0]} in epoch {number}: lower --learning-rate"
            )
        before = training.best_epoch
        best = before is None or measured[1] > before.validation_accuracy
        if best:
            state = training.evaluated.state_dict()
            training.best_weights = {name: value.detach().cpu().clone() for name, value in state.items()}
        epoch = Epoch(
            number=number,
            train_loss=loss,
            train_accuracy=accuracy,
            validation_loss=measured[0],
            validation_accuracy=measured[1],
            validation_macro_recall=measured[2],
            learning_rate=training.optimizers[-1].param_groups[0]["lr"],
            images_per_second=seen / (trained - started),
            seconds=time.perf_counter() - started,
            best=best,
        )
        training.history.append(epoch)
        yield epoch


@dataclass(frozen=True, eq=False)
class TrainSet:
    """What is learned, on the device of the training.

    images: uint8 (N, C, S, S). target: int64 (N,), the true classes. labels: float32 (N, K), what the network is
    asked for. weights: float32 (K,) of the classes in the loss, or None.
    """

    images: Tensor
    target: Tensor
    labels: Tensor
    weights: Tensor | None
    augmentation: Augmentation

    @classmethod
    def on_device(
        cls, training: Training, train: Split, num_classes: int, soft_targets: Tensor | None
    ) -> "TrainSet":
        config, device = training.config, training.fabric.device
        target = train.target.to(device)
        labels = functional.one_hot(target, num_classes).float()
        if soft_targets is not None:
            labels = labels.lerp(soft_targets.to(device), config.teacher_weight)
        weights = class_weights(target, num_classes, config.class_weighting)
        return cls(train.images.to(device), target, labels, weights, make_augmentation(config))

    def augmentation_of(self, config: Config, number: int) -> Augmentation:
        """That of epoch `number`."""
        return Augmentation(flip=self.augmentation.flip) if is_clean(config, number) else self.augmentation

    def batches(self, config: Config, generator: Generator, processes: int) -> list[Tensor]:
        """Positions of each batch of an epoch, int64 (B,), in an order of its own."""
        order = torch.randperm(len(self.target), generator=generator, device=self.target.device)
        # Batch norm needs two images, and each process one: a last batch with fewer is left out. A network is compiled
        # for whole batches.
        fewest = min(config.batch_size, len(order)) if config.compile else max(2, processes)
        return [batch for batch in order.split(config.batch_size) if len(batch) >= fewest]


def train_epoch(
    training: Training, train_set: TrainSet, number: int, on_step: Callable[[Step], None]
) -> tuple[float, float, int]:
    """One pass over the images; (mean loss, share of correct answers, images seen)."""
    config, device = training.config, training.fabric.device
    generator = seeded(config.seed, number, device)
    batches = train_set.batches(config, generator, training.share.processes)
    seen = sum(len(batch) for batch in batches)
    totals = torch.zeros(3, device=device)  # loss × images, correct, images: of this process's shares
    training.classifier.side = side = config.sides.of(number)
    augmentation = train_set.augmentation_of(config, number)
    mixing, alpha = (cutmix, config.cutmix) if config.cutmix else (mixup, config.mixup)
    if is_clean(config, number):
        alpha = 0.0
    training.model.train()
    started = shown = time.perf_counter()
    done = 0
    for index, batch in enumerate(batches):
        training.set_learning_rate(learning_rate(config, (number - 1 + index / len(batches)) / config.epochs))
        part = training.share.take(len(batch))
        mine = batch[part]
        if alpha:  # an image's partner may be anybody's: every process augments the whole batch
            inputs = augmentation(to_unit_range(train_set.images[batch]), generator, side)
            inputs, labels = mixing(inputs, train_set.labels[batch], alpha, generator)
            inputs, labels = inputs[part], labels[part]
        else:
            inputs = to_unit_range(train_set.images[mine])
            inputs = augmentation(inputs, generator, side, training.share)
            labels = train_set.labels[mine]
        step = training_step(training, inputs, labels, train_set.target[mine], train_set.weights)
        totals += functional.pad(step, (0, 1), value=len(mine))
        done += len(batch)
        if device.type == "cpu" and (now := time.perf_counter()) - shown > 0.25:
            shown = now
            loss, correct, _ = (totals / totals[2].clamp_min(1)).tolist()
            on_step(Step(number, done, seen, loss, correct, done / (now - started)))
    training.classifier.side = config.image_size
    loss, accuracy, _ = (summed(training.fabric, totals) / seen).tolist()
    return loss, accuracy, seen


def warm_up(training: Training, train_set: TrainSet) -> float:
    """Compile the network for each side that it will be trained at, and leave it as it was; returns the seconds."""
    config, device = training.config, training.fabric.device
    images, labels = train_set.images[: config.batch_size], train_set.labels[: config.batch_size]
    started = time.perf_counter()
    before = {name: value.clone() for name, value in training.classifier.state_dict().items()}
    training.model.train()
    epochs = range(1, config.epochs + 1)
    kinds = {(config.sides.of(number), is_clean(config, number)): number for number in epochs}
    for (side, _), number in sorted(kinds.items()):
        training.classifier.side = side
        augmentation = train_set.augmentation_of(config, number)
        inputs = augmentation(to_unit_range(images), seeded(config.seed, number, device), side)
        logits = training.model(inputs.contiguous(memory_format=torch.channels_last))
        training.fabric.backward(functional.cross_entropy(logits.float(), labels))
    training.classifier.side = config.image_size
    training.classifier.zero_grad(set_to_none=True)
    training.classifier.load_state_dict(before)  # batch norms have counted
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def training_step(
    training: Training, inputs: Tensor, labels: Tensor, target: Tensor, weights: Tensor | None
) -> Tensor:
    """One step; returns (loss × images, correct images) as float32 (2,), still on the device.

    Of the process's share, where several train together: the gradients are those of the whole batch, and every
    optimiser sees the same.

    Args:
        inputs: float32 (B, 1, S, S). labels: float32 (B, K), what is learned. target: int64 (B,), the true classes.
    """
    config = training.config
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    logits = training.model(inputs)
    losses = functional.cross_entropy(
        logits.float(), labels, weight=weights, label_smoothing=config.label_smoothing, reduction="none"
    )
    loss = training.share.mean(losses)
    for optimizer in training.optimizers:
        optimizer.zero_grad(set_to_none=True)
    training.fabric.backward(loss)
    for optimizer in training.optimizers:
        optimizer.step()
    if training.average is not None:
        training.average.update_parameters(training.classifier)
    correct = (logits.argmax(1) == target).sum()
    return torch.stack([losses.detach().sum(), correct.float()])


def predict_shared(training: Training, images: Tensor, num_classes: int) -> Tensor:
    """`predict` by all processes, each for its share of the images; all get the answers to all, float32 (N, K)."""
    device = training.fabric.device
    part = training.share.take(len(images))
    logits = torch.zeros(len(images), num_classes, device=device)
    if len(images[part]):
        logits[part] = predict(training.evaluated, images[part], device)
    return summed(training.fabric, logits)


def validate(logits: Tensor, target: Tensor, num_classes: int) -> tuple[float, float, float]:
    """(cross-entropy in nats, accuracy, macro recall over the classes that occur)."""
    loss = functional.cross_entropy(logits, target)
    correct = logits.argmax(1) == target
    support = torch.bincount(target, minlength=num_classes)
    hits = torch.bincount(target[correct], minlength=num_classes)
    recall = (hits / support)[support > 0].mean()
    values = torch.stack([loss, correct.float().mean(), recall]).tolist()
    return values[0], values[1], values[2]

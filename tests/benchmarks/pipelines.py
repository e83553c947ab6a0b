"""The three ways to train that are compared; each measures itself over a number of steps, in images/s."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, AdamW, Optimizer
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from tests.benchmarks.images import Source, train_split
from trainer.config import Config
from trainer.models.base import Classifier, build_network, to_unit_range
from trainer.training.environment import in_bf16, make_fabric
from trainer.training.loop import Training, fit
from trainer.training.schedule import make_augmentation, make_optimizers

NUM_CLASSES = 7
MEAN, STD = 0.5, 0.25
"""Of the pixels, about; the numbers do not change the time."""

Setting = Literal["", "flush_denormal", "onednn_off", "matmul_medium", "bf16", "one_thread"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One thing that is measured. What follows `config` concerns one pipeline or another."""

    pipeline: Literal["report", "ours", "limit", "augmentation"]
    source: Source
    config: Config
    loader_workers: int = 0
    """report: processes of the DataLoader."""
    channels_last: bool = True
    """limit, as the two below."""
    fused: bool = True
    compiled: bool = False
    setting: Setting = ""
    """limit: a switch of PyTorch that is thrown during the measurement."""


class Pipeline(Protocol):
    def measure(self, steps: int) -> float:
        """Images per second over `steps` steps."""


class ReportPipeline:
    """The student report's: ImageFolder, PIL transforms, DataLoader, plain fp32 network, ordinary Adam."""

    def __init__(self, line: Line):
        side = line.config.image_size
        steps = [
            transforms.Grayscale(line.config.channels),
            transforms.Resize((side, side)),  # returns at once where the image has that size
            transforms.RandomHorizontalFlip(),
            transforms.RandomRotation(10),
            transforms.ToTensor(),
            transforms.Normalize((MEAN,) * line.config.channels, (STD,) * line.config.channels),
        ]
        self.loader = DataLoader(
            ImageFolder(str(line.source.folder / "train"), transforms.Compose(steps)),
            batch_size=line.config.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=line.loader_workers,
        )
        self.network = make_network(line.config)
        self.optimizer = Adam(self.network.parameters(), lr=line.config.learning_rate)
        # Loader processes work two batches ahead each; the first ones wait for the processes to start.
        self.head_start = 2 * line.loader_workers

    def measure(self, steps: int) -> float:
        self.network.train()
        batches = self._batches()
        for _ in range(self.head_start):
            self._step(*next(batches))
        images, started = 0, time.perf_counter()
        for _ in range(steps):
            images += self._step(*next(batches))
        seconds = time.perf_counter() - started
        batches.close()  # ends the loader's processes
        return images / seconds

    def _batches(self) -> Generator[tuple[Tensor, Tensor], None, None]:
        while True:
            yield from self.loader

    def _step(self, inputs: Tensor, labels: Tensor) -> int:
        self.optimizer.zero_grad()
        outputs = self.network(inputs)
        loss = functional.cross_entropy(outputs, labels)
        loss.backward()
        self.optimizer.step()
        loss.item()
        (outputs.argmax(1) == labels).sum().item()
        return len(labels)


class OurPipeline:
    """`trainer.training.loop.fit`, with the augmentation of the configuration, over images in memory."""

    def __init__(self, line: Line):
        self.config = line.config
        classifier = Classifier(
            make_network(line.config),
            image_size=line.config.image_size,
            mean=(MEAN,) * line.config.channels,
            std=(STD,) * line.config.channels,
        )
        self.training = Training(classifier, line.config, make_fabric(line.config))
        self.train = train_split(line.source)
        self.order = torch.randperm(len(self.train))

    def measure(self, steps: int) -> float:
        """One epoch over `steps` batches; `fit` itself measures the part of it that trains."""
        positions = torch.arange(steps * self.config.batch_size) % len(self.train)
        some = self.train.select(self.order[positions])
        epoch = next(fit(self.training, some, self.train.select(self.order[:2]), NUM_CLASSES))
        return epoch.images_per_second


class LimitPipeline:
    """Forward, backward and optimiser on one batch that is already there: the best that any loop can do."""

    def __init__(self, line: Line):
        config = line.config
        layout = torch.channels_last if line.channels_last else torch.contiguous_format
        network = make_network(config).to(memory_format=layout)
        fabric = make_fabric(config)
        self.optimizers = limit_optimizers(network, config, bf16=in_bf16(fabric), fused=line.fused)
        self.network: Callable[[Tensor], Tensor] = torch.compile(network) if line.compiled else network
        self.smoothing = config.label_smoothing
        shape = (config.batch_size, config.channels, config.image_size, config.image_size)
        self.inputs = torch.randn(shape).contiguous(memory_format=layout)
        self.target = torch.randint(NUM_CLASSES, (config.batch_size,))
        self.switch = SETTINGS[line.setting]
        self.autocast = fabric.autocast

    def measure(self, steps: int) -> float:
        with self.switch():
            started = time.perf_counter()
            for _ in range(steps):
                for optimizer in self.optimizers:
                    optimizer.zero_grad(set_to_none=True)
                with self.autocast():
                    logits = self.network(self.inputs)
                loss = functional.cross_entropy(logits.float(), self.target, label_smoothing=self.smoothing)
                loss.backward()
                for optimizer in self.optimizers:
                    optimizer.step()
            return steps * len(self.target) / (time.perf_counter() - started)


class AugmentationPipeline:
    """What our loop does to a batch before the network sees it, and nothing else."""

    def __init__(self, line: Line):
        self.config = line.config
        self.augmentation = make_augmentation(line.config)
        self.images = train_split(line.source).images
        self.generator = torch.Generator().manual_seed(0)

    def measure(self, steps: int) -> float:
        order = torch.randint(len(self.images), (steps, self.config.batch_size))
        started = time.perf_counter()
        for batch in order:
            inputs = self.augmentation(
                to_unit_range(self.images[batch]), self.generator, self.config.image_size
            )
            inputs.contiguous(memory_format=torch.channels_last)
        return order.numel() / (time.perf_counter() - started)


def make_network(config: Config) -> nn.Module:
    torch.manual_seed(0)
    return build_network(
        config.architecture,
        num_classes=NUM_CLASSES,
        channels=config.channels,
        image_size=config.image_size,
        options=config.options(),
    )


def limit_optimizers(network: nn.Module, config: Config, *, bf16: bool, fused: bool) -> list[Optimizer]:
    """Those of the configuration; AdamW in place of what has no fused form to switch off."""
    if fused:
        return make_optimizers(network, config, bf16=bf16)
    kind = Adam if config.optimizer == "adam" else AdamW
    return [kind(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)]


@contextmanager
def _flush_denormal() -> Iterator[None]:
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def _onednn_off() -> Iterator[None]:
    torch.backends.mkldnn.enabled = False
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = True


@contextmanager
def _matmul_medium() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


SETTINGS: dict[Setting, Callable[[], AbstractContextManager[object]]] = {
    "": nullcontext,
    "flush_denormal": _flush_denormal,
    "onednn_off": _onednn_off,
    "matmul_medium": _matmul_medium,
    "bf16": lambda: torch.autocast("cpu", torch.bfloat16),
    "one_thread": _one_thread,
}

_PIPELINES: dict[str, Callable[[Line], Pipeline]] = {
    "report": ReportPipeline,
    "ours": OurPipeline,
    "limit": LimitPipeline,
    "augmentation": AugmentationPipeline,
}


@lru_cache(maxsize=16)
def _pipeline(line: Line) -> Pipeline:
    return _PIPELINES[line.pipeline](line)


def measure(line: Line, steps: int) -> float:
    """Images per second over `steps` steps of `line`, which is prepared at its first call and then kept."""
    return _pipeline(line).measure(steps)


def forget() -> None:
    """Free what was prepared."""
    _pipeline.cache_clear()

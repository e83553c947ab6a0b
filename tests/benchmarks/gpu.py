"""`python -m tests.benchmarks.gpu`: how fast the recipes train on a GPU, and where the time goes.

Runs on a CPU as well (`--device cpu --quick`): that shows that every part of it works, and measures nothing.
"""

import dataclasses
import statistics
import time
import warnings
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from tests.benchmarks.conditions import conditions, print_conditions
from trainer.config import Config, recipe_defaults
from trainer.data.base import Split
from trainer.data.splits import Splits, load_splits
from trainer.models.base import Probabilities
from trainer.training.environment import make_fabric
from trainer.training.loop import Epoch, Training, TrainSet, fit, train_epoch, training_step
from trainer.training.prediction import predict
from trainer.training.pretrained import make_classifier

EPOCHS = 5
"""Of which the first is left out."""
QUICKEST = ("cnn", {"layout": "plain", "batch_size": 512, "precision": "bf16"})
"""What is trained until it is as good as the report's ResNet18: an architecture, and changes to its recipe `fast`."""
SCHEDULES = (8, 12, 16, 24, 36)
"""Epochs, shortest first, until one reaches it."""
WANTED_ACCURACY = 0.67
WANTED_SECONDS = 15.0
EPOCH_SECONDS = 1.0
SHARE_OF_BARE = 0.6
SHOWN_OPERATIONS = 15


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measure training on a GPU: bare steps, epochs of the recipe, the time to an accuracy, and a profile."""

    device: Literal["cuda", "cpu"] = "cuda"
    dataset: str = "fer2013"
    data_dir: Path | None = None
    architectures: tuple[str, ...] = ("cnn", "resnet18")
    batches: tuple[int, ...] = (512, 1024)
    """Each is compiled anew: up to half a minute on a machine that never did it."""
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """A few images: shows that everything runs."""


def main() -> None:
    options = tyro.cli(Options, prog="python -m tests.benchmarks.gpu")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "error: there is no CUDA device here; --device cpu --quick shows that everything runs"
        )
    console = Console(width=None if Console().is_terminal else 120)
    facts = conditions()
    if options.device == "cuda":
        facts |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    print_conditions(console, facts)
    data_dir = str(options.data_dir) if options.data_dir else None
    splits = load_splits(options.dataset, data_dir)
    if options.quick:
        some = torch.arange(64)
        splits = dataclasses.replace(
            splits, **{part: split.select(some) for part, split in splits.parts().items()}
        )
    base = {"device": options.device, "dataset": options.dataset}
    if options.device == "cpu":
        base |= {"compile": False, "precision": "32"}
    for architecture in options.architectures:
        config = dataclasses.replace(recipe_defaults("best", architecture), progressive=None, **base)
        sizes = (16,) if options.quick else options.batches
        bare = {size: bare_rate(config, size, splits, 2 if options.quick else 30) for size in sizes}
        best = max(bare, key=lambda size: bare[size][0])
        config = dataclasses.replace(config, batch_size=best)
        report_epochs(console, config, splits, bare, 2 if options.quick else EPOCHS)
        report_profile(console, config, splits)
    architecture, changes = QUICKEST
    config = dataclasses.replace(recipe_defaults("fast", architecture), **changes | base)
    report_time_to_accuracy(console, config, splits, (2,) if options.quick else SCHEDULES)


def make_training(config: Config, splits: Splits) -> Training:
    torch.manual_seed(0)
    classifier, config = make_classifier(config, len(splits.class_names), *splits.train.brightness())
    return Training(classifier, config, make_fabric(config))


def bare_rate(config: Config, batch_size: int, splits: Splits, steps: int) -> tuple[float, float]:
    """(Images/s, seconds before) of forward, backward and optimiser on one random batch that is already there.

    The seconds before are of the first steps, for which the network is compiled.
    """
    config = dataclasses.replace(config, batch_size=batch_size, mixup=0.0)
    training = make_training(config, splits)
    device, side = training.fabric.device, config.image_size
    inputs = torch.rand(batch_size, 1, side, side, device=device)
    target = torch.arange(batch_size, device=device) % len(splits.class_names)
    labels = functional.one_hot(target, len(splits.class_names)).float()
    training.model.train()
    begun = time.perf_counter()
    for _ in range(3):
        training_step(training, inputs, labels, target, None)
    wait(device)
    started = time.perf_counter()
    for _ in range(steps):
        training_step(training, inputs, labels, target, None)
    wait(device)
    return steps * batch_size / (time.perf_counter() - started), started - begun


def report_epochs(
    console: Console, config: Config, splits: Splits, bare: dict[int, tuple[float, float]], epochs: int
) -> None:
    if config.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    training = make_training(dataclasses.replace(config, epochs=epochs), splits)
    history = list(fit(training, splits.train, splits.validation, len(splits.class_names)))[1:]
    rate = statistics.median(epoch.images_per_second for epoch in history)
    seconds = statistics.median(epoch.seconds for epoch in history)
    table = Table("", "", title=f"{config.architecture} best at {config.image_size} px", show_header=False)
    for size, (images, before) in bare.items():
        table.add_row(f"bare steps, batch {size}, images/s", f"{images:,.0f}")
        table.add_row("– first steps, with compiling, s", f"{before:.1f}")
    table.add_row(f"epochs with everything, batch {config.batch_size}, images/s", f"{rate:,.0f}")
    table.add_row(
        "– share of the bare rate", f"{rate / bare[config.batch_size][0]:.2f} (target {SHARE_OF_BARE})"
    )
    table.add_row("– seconds an epoch, validation included", f"{seconds:.2f} (target {EPOCH_SECONDS:g})")
    if config.device == "cuda":
        table.add_row("peak memory, MiB", f"{torch.cuda.max_memory_allocated() / 2**20:,.0f}")
        few, more = (waits(config, splits, batches) for batches in (4, 8))
        table.add_row(
            "waits for the device in an epoch of 4 and of 8 batches", f"{few}, {more} (target: the same)"
        )
    console.print(table)


def waits(config: Config, splits: Splits, batches: int) -> int:
    """How often the host waits for a GPU in an epoch of so many batches, after another one; not compiled."""
    training = make_training(dataclasses.replace(config, compile=False), splits)
    some = splits.train.select(torch.arange(batches * config.batch_size) % len(splits.train))
    train_set = TrainSet.on_device(training, some, len(splits.class_names), None)
    train_epoch(training, train_set, 1, lambda step: None)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            train_epoch(training, train_set, 2, lambda step: None)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in told)


def report_profile(console: Console, config: Config, splits: Splits) -> None:
    """Where the time of an epoch over 20 batches goes, by operation."""
    training = make_training(dataclasses.replace(config, epochs=2), splits)
    few = splits.train.select(torch.arange(min(len(splits.train), 20 * config.batch_size)))
    epochs = fit(training, few, splits.validation.select(torch.arange(2)), len(splits.class_names))
    next(epochs)
    activities = [ProfilerActivity.CPU]
    if config.device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        next(epochs)
    order = "self_cuda_time_total" if config.device == "cuda" else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=order, row_limit=SHOWN_OPERATIONS, max_name_column_width=50)
    console.print(table, highlight=False, soft_wrap=True)


def report_time_to_accuracy(
    console: Console, config: Config, splits: Splits, schedules: tuple[int, ...]
) -> None:
    """Seconds of training by the shortest schedule that reaches the accuracy on validation; then test is looked at.

    Not compiled: that alone would take longer.
    """
    for epochs in schedules:
        training = make_training(dataclasses.replace(config, epochs=epochs), splits)
        history = list(fit(training, splits.train, splits.validation, len(splits.class_names)))
        training.evaluated.load_state_dict(training.best_weights)
        on_validation = accuracy_on(training, splits.validation)
        seconds, whole = (
            sum(values) for values in zip(*(times(epoch, splits) for epoch in history), strict=True)
        )
        console.print(
            f"{config.architecture}, {epochs} epochs: {on_validation:.3f} on validation after {seconds:.1f} s of "
            f"training ({whole:.1f} s with validation)"
        )
        if on_validation >= WANTED_ACCURACY or epochs == schedules[-1]:
            console.print(
                f"{accuracy_on(training, splits.test):.3f} on test (target {WANTED_ACCURACY} in {WANTED_SECONDS:g} s)"
            )
            return


def times(epoch: Epoch, splits: Splits) -> tuple[float, float]:
    """Seconds of training, and with validation."""
    return len(splits.train) / epoch.images_per_second, epoch.seconds


def accuracy_on(training: Training, split: Split) -> float:
    """Of the answers over the views that the model would average."""
    model = Probabilities(training.evaluated, 1.0, training.config.averaging)
    answers = predict(model, split.images, training.fabric.device)
    return (answers.argmax(1).cpu() == split.target).float().mean().item()


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()

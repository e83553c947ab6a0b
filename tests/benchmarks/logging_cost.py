"""What a run spends on everything that is not training: most of it is the store."""

import dataclasses
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainer.config import Config, recipe_defaults

if TYPE_CHECKING:  # the imports of a run are measured
    from trainer.training.loop import Epoch, Step

TARGET_EPOCHS = 20
MEASURED_EPOCHS = 2
FER2013_TRAIN_IMAGES = 28_709


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """Seconds of a run besides its epochs. An epoch's seconds are training and validation."""

    importing_training: float
    """torch and Fabric: any training needs them."""
    importing_logging: float
    """What a run imports on top of them: MLflow, matplotlib, pandas."""
    opening: float
    """Opening the store; here it is made, with all its tables, as only the first run of a store has to."""
    beginning: float
    """Data from the cache, network, the run with its parameters, dataset and environment."""
    per_epoch: float
    """Metrics of one epoch, and the checkpoint that it can be resumed from."""
    concluding: float
    """Evaluation on validation and test, metrics, artifacts, export, registration, alias."""
    rest: float
    """First epoch's metrics and checkpoint, start and stop of the energy meter."""
    epochs: list[float]

    def seconds(self, epochs: int) -> float:
        """Of a run of so many epochs, without torch's imports; the first epoch's part lies in `rest`."""
        fixed = self.importing_logging + self.opening + self.beginning + self.rest + self.concluding
        return fixed + (epochs - 1) * self.per_epoch


@dataclass
class Stopwatch:
    """Watches a run as a progress bar would, and notes when each thing was told."""

    marks: list[tuple[str, float]] = field(default_factory=list)
    epochs: "list[Epoch]" = field(default_factory=list)

    def note(self, what: str) -> None:
        self.marks.append((what, time.perf_counter()))

    def started(self, run_id: str, config: Config) -> None:
        self.note("started")

    def step(self, step: "Step") -> None:
        """Nothing is noted of it."""

    def epoch(self, epoch: "Epoch") -> None:
        self.epochs.append(epoch)
        self.note("epoch")

    def doing(self, what: str) -> None:
        self.note("doing")


def warm_up() -> None:
    """Have sketch in the cache, and what a run imports in the kernel's: drawing and reading a disk are no logging."""
    from trainer.data import dataset_source
    from trainer.training import run  # noqa: F401

    dataset_source("sketch").load(None, ("train", "test"))


def measure_run() -> RunCost:
    """Train the report's CNN on sketch for MEASURED_EPOCHS, log and register it, in the store of the environment.

    For a new process and a new store, after `warm_up` in another process.
    """
    config = dataclasses.replace(
        recipe_defaults("report", "cnn"), dataset="sketch", epochs=MEASURED_EPOCHS, device="cpu"
    )
    started_up = time.perf_counter()
    import trainer.training.loop  # noqa: F401

    with_torch = time.perf_counter()
    from trainer.training.run import train

    watch = Stopwatch()
    watch.note("begun")
    train(config, watch)
    watch.note("ended")
    names = [name for name, _ in watch.marks]
    assert names == ["begun", "doing", "started", *["epoch"] * MEASURED_EPOCHS, "doing", "ended"]
    begun, opened, started, first, second, concluding, ended = (moment for _, moment in watch.marks)
    epochs = [epoch.seconds for epoch in watch.epochs]
    return RunCost(
        importing_training=with_torch - started_up,
        importing_logging=begun - with_torch,
        opening=opened - begun,
        beginning=started - opened,
        per_epoch=second - first - epochs[1],
        concluding=ended - concluding,
        rest=first - started - epochs[0] + concluding - second,
        epochs=epochs,
    )


@dataclass(frozen=True, kw_only=True)
class Share:
    """What logging adds to a run of the report's CNN over TARGET_EPOCHS on all of FER-2013's train."""

    images_per_second: float
    training_seconds: float
    logging_seconds: float
    store_seconds: float
    """Without the imports and the making of a new store."""

    @property
    def share(self) -> float:
        return self.logging_seconds / self.training_seconds

    @property
    def store_share(self) -> float:
        return self.store_seconds / self.training_seconds


def logging_share(cost: RunCost, images_per_second: float) -> Share:
    """Validation would only add to the training seconds; it is left out."""
    seconds = cost.seconds(TARGET_EPOCHS)
    return Share(
        images_per_second=images_per_second,
        training_seconds=TARGET_EPOCHS * FER2013_TRAIN_IMAGES / images_per_second,
        logging_seconds=seconds,
        store_seconds=seconds - cost.importing_logging - cost.opening,
    )

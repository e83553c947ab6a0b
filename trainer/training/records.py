"""What is logged of a run besides its results: its name, what is known before the first step, and each epoch."""

import dataclasses
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path

from trainer.config import Config
from trainer.contract import CONFIG_FILE
from trainer.data.splits import Splits
from trainer.store.writer import RunWriter
from trainer.training.environment import environment
from trainer.training.loop import Epoch, Training


def run_name(config: Config) -> str:
    """Short and telling, with a word that keeps equal configurations apart: `resnet18-layer4-s3-4f2a`."""
    mode = "" if config.mode == "full" else f"-{config.mode}"
    word = f"{random.SystemRandom().getrandbits(16):04x}"
    return f"{config.architecture}{mode}-{config.recipe}-s{config.seed}-{word}"


def log_beginning(
    writer: RunWriter,
    config: Config,
    splits: Splits,
    fingerprints: Mapping[str, str],
    training: Training,
) -> None:
    """Parameters, environment and data: everything that is known before the first step."""
    writer.log_params(
        dataclasses.asdict(config)
        | training.classifier.parameter_counts()
        | environment(training.fabric)
        | {f"{part}_images": len(split) for part, split in splits.parts().items()}
        | {f"{part}_fingerprint": value for part, value in fingerprints.items()}
        | {"skipped_files": len(splits.skipped)}
        | exclusion_parameters(splits)
    )
    names = splits.class_names
    writer.log_dataset(
        splits.dataset,
        splits.source,
        {
            part: (fingerprints[part], dict(zip(names, split.class_counts(len(names)), strict=True)))
            for part, split in splits.parts().items()
        },
    )
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, CONFIG_FILE).write_text(config.to_json())
        writer.log_folder(Path(scratch))


def exclusion_parameters(splits: Splits) -> dict[str, object]:
    """What was left out of train on purpose; nothing where there was no list."""
    if splits.exclusion is None:
        return {}
    return {
        "excluded_images": splits.exclusion.images,
        "excluded_list": splits.exclusion.name,
        "excluded_digest": splits.exclusion.digest,
    }


def epoch_metrics(epoch: Epoch) -> dict[str, float]:
    """Under the names of `contract.EPOCH_METRICS`."""
    return {
        "train/loss": epoch.train_loss,
        "train/accuracy": epoch.train_accuracy,
        "validation/loss": epoch.validation_loss,
        "validation/accuracy": epoch.validation_accuracy,
        "validation/macro_recall": epoch.validation_macro_recall,
        "learning_rate": epoch.learning_rate,
        "images_per_second": epoch.images_per_second,
        "epoch_seconds": epoch.seconds,
    }

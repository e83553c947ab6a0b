"""How long a training will take, from a few steps of it."""

import dataclasses
import logging

import torch

from trainer.config import Config
from trainer.data.base import Split
from trainer.models.base import VIEWS
from trainer.training.allocator import keep_memory
from trainer.training.data import configured_splits
from trainer.training.environment import make_fabric
from trainer.training.loop import Training, fit
from trainer.training.memory import telling_out_of_memory
from trainer.training.pretrained import make_classifier

STEPS = 3
# Evaluation is a forward pass only; the rest is what logging and registering take.
FORWARD_SHARE = 1 / 3
FIXED_SECONDS = 15.0


def estimate_seconds(config: Config) -> float:
    """Seconds that a run of `config` will take, measured over a few steps here and now.

    Raises MemoryError, with a message for the user, where there is not enough for a step.
    """
    keep_memory()
    splits = configured_splits(config)
    images = config.sides.passes() * len(splits.train)
    images += FORWARD_SHARE * config.epochs * len(splits.validation)
    images += FORWARD_SHARE * VIEWS[config.averaging] * (len(splits.validation) + len(splits.test))
    return images / images_per_second(config, splits.train, len(splits.class_names)) + FIXED_SECONDS


def estimate_fold_seconds(config: Config, data: Split, num_classes: int, folds: int) -> float:
    """The same for answers out of fold: an image is learned in all folds but its own, where it is looked at."""
    keep_memory()
    images = config.epochs * len(data) * (folds - 1 + FORWARD_SHARE)
    return images / images_per_second(config, data, num_classes)


def images_per_second(config: Config, train: Split, num_classes: int) -> float:
    """Of training at the full side, measured over STEPS batches here and now."""
    quiet = logging.getLogger("trainer.training.pretrained")
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # the run itself says where weights are missing
    try:
        classifier, config = make_classifier(config, num_classes, 0.5, 0.25)
    finally:
        quiet.setLevel(level)
    short = dataclasses.replace(config, epochs=2, early_stopping=0, progressive=None)
    some = torch.arange(min(len(train), STEPS * config.batch_size))
    with telling_out_of_memory(config, "end other programs first"):
        training = Training(classifier, short, make_fabric(config))
        # The first pass warms up, the second is measured.
        *_, measured = fit(training, train.select(some), train.select(some[:2]), num_classes)
    return measured.images_per_second

"""One pass over images that are made worse on purpose, after training."""

import itertools

import numpy as np
import pandas as pd
import torch

from trainer.data.base import Split
from trainer.data.corruptions import corrupted
from trainer.evaluation.robustness import CLEAN, answer_table, column
from trainer.models.base import Classifier
from trainer.training.environment import computes_bf16
from trainer.training.prediction import predict

IMAGES = 500
"""As many test images are asked about at most, in 51 versions each."""


def stress(
    classifier: Classifier, test: Split, class_names: tuple[str, ...], device: torch.device
) -> pd.DataFrame:
    """The answers to test images as they are and corrupted, as `trainer.evaluation.robustness` takes them.

    They are of one view, without averaging, and in bfloat16 where the device has instructions for it: ten views in
    float32 would take some twenty times as long, and which class is likeliest hardly depends on it.
    """
    chosen = test.select(spread(test.target.numpy(), IMAGES))
    worse = ((column(kind, strength), images) for kind, strength, images in corrupted(chosen.images))
    answers = {}
    for name, images in itertools.chain([(CLEAN, chosen.images)], worse):
        # The network alone: images that were turned or blurred in bfloat16 would be others on another machine.
        with torch.autocast(device.type, torch.bfloat16, enabled=computes_bf16(device)):
            answers[name] = predict(classifier, images, device).argmax(1).cpu().numpy()
    return answer_table(list(chosen.sample_ids), chosen.target.numpy(), answers, class_names)


def spread(target: np.ndarray, most: int) -> np.ndarray:
    """Sorted positions of at most `most` images that keep the class shares; the same for the same target."""
    order = np.argsort(target, kind="stable")
    if len(order) <= most:
        return np.arange(len(order))
    return np.sort(order[np.linspace(0, len(order) - 1, most).round().astype(int)])

"""A test-only dataset in one file: each class is one grey level, with a little noise."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from trainer.data.base import Dataset, DatasetSource, Split

# Names whose alphabetical order is not the order of their levels: a mix-up of the two would show.
LEVELS = {"night": 20, "dawn": 100, "noon": 180, "flash": 245}
CLASS_NAMES = tuple(sorted(LEVELS))


def grey_faces(name: str, count: int, seed: int) -> np.ndarray:
    """uint8 (count, 1, 32, 32) of one class."""
    noise = np.random.default_rng(seed).integers(-8, 9, (count, 1, 32, 32))
    return (LEVELS[name] + noise).clip(0, 255).astype(np.uint8)


def load(data_dir: Path | None, parts: Sequence[str]) -> Dataset:
    splits = {}
    for seed, part in enumerate(parts):
        images = np.concatenate([grey_faces(name, 24, seed) for name in CLASS_NAMES])
        target = np.repeat(np.arange(len(CLASS_NAMES)), 24)
        ids = tuple(f"{part}/{index}" for index in range(len(target)))
        splits[part] = Split(torch.from_numpy(images), torch.from_numpy(target), ids)
    return Dataset("levels", CLASS_NAMES, splits, "tests")


SOURCE = DatasetSource(load)

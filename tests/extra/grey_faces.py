"""A tiny dataset in the Kaggle layout whose classes cannot be confused, and how it is trained on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

# Names whose alphabetical order is not the order of their levels: a mix-up of the two would show.
GREY_LEVELS = {"angry": 200, "disgust": 30, "fear": 120, "happy": 250, "sad": 75}

ARCHITECTURE_FLAGS = {
    "cnn": [
        "--architecture",
        "cnn",
        "--blocks",
        "8 16",
        "--hidden",
        "32",
        "--dropout",
        "0",
    ],
    "resnet18": [
        "--architecture",
        "resnet18",
        "--pretrained",
        "none",
        "--stem",
        "imagenet",
        "--width",
        "32",
        "--image-size",
        "32",
        "--channels",
        "3",
    ],
}


@dataclass(frozen=True)
class Trained:
    """A folder with a store in which each architecture was trained on grey levels, and its data."""

    root: Path
    data_dir: Path


def write_grey_folder(root: Path, *, train: int = 24, test: int = 8) -> Path:
    """The Kaggle layout, in which each class is one grey level with a little noise."""
    generator = np.random.default_rng(0)
    for part, count, prefix in (("train", train, "Training"), ("test", test, "PublicTest")):
        for name, level in GREY_LEVELS.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(grey_face(generator, level)).save(folder / f"{prefix}_{index}.png")
    return root


def grey_face(generator: np.random.Generator, level: int, side: int = 48) -> np.ndarray:
    """uint8 (side, side)."""
    return (level + generator.integers(-6, 7, (side, side))).clip(0, 255).astype(np.uint8)

"""The images that are trained on, as JPEG files and in memory, and how long it takes to load them."""

import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from trainer.data import dataset_source
from trainer.data.base import Split

JPEG_QUALITY = 92


@dataclass(frozen=True)
class Source:
    """A dataset that has both forms.

    folder: holds train/<class>/*.jpg. data_dir: what the dataset's own loader is given.
    """

    dataset: str
    folder: Path
    data_dir: Path | None


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Seconds of the first load of train and test, and of the next one, which finds the cache."""

    dataset: str
    images: int
    train_images: int
    first_seconds: float
    cached_seconds: float


def find_source(scratch: Path) -> Source:
    """FER-2013's folder (MOODIFY_FER2013, or data/fer2013) where it is there, else sketch.

    sketch has no files: `write_jpegs` writes them below `scratch`.
    """
    folder = Path(os.environ.get("MOODIFY_FER2013") or "data/fer2013").absolute()
    if (folder / "train").is_dir():
        return Source("fer2013", folder, folder)
    return Source("sketch", scratch / "sketch", None)


def write_jpegs(source: Source) -> None:
    """Write the training images of a dataset without files in the layout that ImageFolder reads."""
    dataset = dataset_source(source.dataset).load(source.data_dir, ("train", "test"))
    train = dataset.parts["train"]
    for name in dataset.class_names:
        (source.folder / "train" / name).mkdir(parents=True)
    for index, (pixels, label) in enumerate(zip(train.images.numpy(), train.target.tolist(), strict=True)):
        path = source.folder / "train" / dataset.class_names[label] / f"{index:05}.jpg"
        Image.fromarray(pixels[0]).save(path, quality=JPEG_QUALITY)


def measure_loading(dataset: str, data_dir: Path | None) -> Loading:
    """Needs an empty MOODIFY_CACHE. The image files may well be in the kernel's page cache."""
    load = dataset_source(dataset).load
    started = time.perf_counter()
    load(data_dir, ("train", "test"))
    first = time.perf_counter()
    loaded = load(data_dir, ("train", "test"))
    cached = time.perf_counter()
    return Loading(
        dataset=dataset,
        images=sum(len(part) for part in loaded.parts.values()),
        train_images=len(loaded.parts["train"]),
        first_seconds=first - started,
        cached_seconds=cached - first,
    )


@cache
def train_split(source: Source) -> Split:
    """The training images in memory."""
    return dataset_source(source.dataset).load(source.data_dir, ("train", "test")).parts["train"]

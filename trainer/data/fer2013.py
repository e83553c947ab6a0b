"""FER-2013, wherever it lies: in a folder, an archive, its original CSV, or on Kaggle."""

import functools
import logging
import os
import tarfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from trainer.data.archives import Archive
from trainer.data.base import Dataset, DatasetSource, Split
from trainer.data.cache import cached
from trainer.data.kaggle import DownloadError, download
from trainer.data.layouts import PARTS, Folder, Found, Layout, check_classes, is_hidden, no_images
from trainer.data.pixel_csv import CSV_NAMES, PixelCsv

NAME = "fer2013"
VERSION = 6
"""Raised when the same files would give another dataset than before."""
DEFAULT_PATH = "data/fer2013"
KAGGLE_DATASET = "msambare/fer2013"
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2")
SKIPPED_LIMIT = 0.01
"""Share of a part's images that may be unreadable."""
HOW_TO_GET = (
    f"To get FER-2013: run `kaggle datasets download {KAGGLE_DATASET} -p {DEFAULT_PATH}`, or download it at "
    f"https://www.kaggle.com/datasets/{KAGGLE_DATASET}; then put the zip, the unpacked folder or fer2013.csv "
    f"at {DEFAULT_PATH}, or pass its path with --data-dir."
)

logger = logging.getLogger(__name__)


def load(data_dir: Path | None, parts: Sequence[str]) -> Dataset:
    """FER-2013, or any set in its folder layout, at 48×48 px.

    The first call decodes the images (seconds); later ones read them from the cache.

    Args:
        data_dir: a folder, an archive or a CSV; None for MOODIFY_FER2013, `data/fer2013` or the download.
        parts: "train", "test" or both; only these need to be there.

    Raises:
        ValueError: what is there cannot be used.
        FileNotFoundError: nothing is there.
    """
    layout = _find_layout(_locate(data_dir), parts)
    signature = f"{VERSION} {' '.join(layout.parts)} {layout.signature()}"
    dataset = cached(NAME, signature, lambda: _build(layout))
    _tell_skipped(dataset.skipped, dataset.notes, dataset.source)
    return dataset


def group(sample_id: str) -> str | None:
    """The official half of test that a sample belongs to, from its file name."""
    usage = sample_id.rpartition("/")[2].partition("_")[0]
    return {"PublicTest": "public", "PrivateTest": "private"}.get(usage)


SOURCE = DatasetSource(load=load, group=group)


def _locate(data_dir: Path | None) -> Path:
    given = data_dir or os.environ.get("MOODIFY_FER2013")
    if given:
        path = Path(os.path.expanduser(given))  # noqa: PTH111  (no error for a user who is not there)
        if not path.exists():
            raise FileNotFoundError(f"There is no FER-2013 at {path}: the path does not exist.\n{HOW_TO_GET}")
        return path
    path = Path(DEFAULT_PATH)
    if path.is_file() or (path.is_dir() and _visible(path)):
        return path
    try:
        return download(KAGGLE_DATASET)
    except DownloadError as error:
        raise FileNotFoundError(
            f"There is no FER-2013 at {path.absolute()}, and it could not be downloaded: {error}.\n{HOW_TO_GET}"
        ) from error


def _find_layout(path: Path, parts: Sequence[str]) -> Layout:
    """The layout at `path`: a folder, an archive, a CSV, or a folder with one of them inside.

    Raises ValueError where there is none, or more than one.
    """
    wanted = tuple(part for part in PARTS if part in parts)
    if path.is_file():
        return _file_layout(path, wanted)
    folders = (path, *_only_folder(path))
    for folder in folders:
        if any((folder / part).is_dir() for part in PARTS):
            return Folder(folder, wanted)
        for name in CSV_NAMES:
            if (folder / name).is_file():
                return PixelCsv(folder / name, wanted)
    for folder in folders:  # not before what was unpacked beside it
        archives = [entry for entry in _visible(folder) if entry.name.lower().endswith(ARCHIVE_SUFFIXES)]
        if len(archives) > 1:
            names = ", ".join(archive.name for archive in archives)
            raise ValueError(f"{folder} holds several archives ({names}): pass the path of one of them")
        if archives:
            return Archive(archives[0], wanted)
    names = ", ".join(entry.name for entry in _visible(path)[:5]) or "nothing"
    raise no_images(path, names, f"neither an archive of it, nor {CSV_NAMES[0]}")


def _visible(folder: Path) -> list[Path]:
    """The entries of a folder by name, without what systems and tools leave there."""
    return sorted(entry for entry in folder.iterdir() if not is_hidden(entry.name))


def _only_folder(path: Path) -> list[Path]:
    folders = [entry for entry in _visible(path) if entry.is_dir()]
    return folders if len(folders) == 1 else []


def _file_layout(path: Path, parts: tuple[str, ...]) -> Layout:
    if path.suffix.lower() == ".csv":
        return PixelCsv(path, parts)
    if zipfile.is_zipfile(path) or tarfile.is_tarfile(path):
        return Archive(path, parts)
    raise ValueError(
        f"{path} is not a .csv, .zip or .tar file that can be read; if it was downloaded, it may be incomplete"
    )


def _build(layout: Layout) -> Dataset:
    logger.info("decoding %s once", layout.title)
    start = time.perf_counter()
    found = layout.read()
    for part, content in found.items():
        _check_skipped(part, content, layout.path)
    class_names = check_classes(
        {part: content.class_counts() for part, content in found.items()}, layout.path
    )
    count = sum(len(content.samples) for content in found.values())
    logger.info("decoded %s images in %.1f s", f"{count:,}", time.perf_counter() - start)
    return Dataset(
        name=NAME,
        class_names=class_names,
        parts={part: _split(found[part], class_names) for part in layout.parts},
        source=str(layout.path),
        skipped=tuple(line for content in found.values() for line in content.skipped),
        unread=sum(content.unread for content in found.values()),
        notes=tuple(_notes(layout, found)),
    )


def _notes(layout: Layout, found: dict[str, Found]) -> Iterator[str]:
    for part, content in found.items():
        if content.outside:
            images = f"{content.outside:,} images of {part}/"
            yield f"{layout.path}: passed over {images} that lie in none of its class folders"
    if layout.unused and "train" in layout.parts:
        yield (
            f"{layout.path}: {' and '.join(f'{name}/' for name in layout.unused)} is not used: validation is a part of "
            "train/, a tenth where nothing else is asked for"
        )


@functools.cache  # a command may load its data more than once
def _tell_skipped(skipped: tuple[str, ...], notes: tuple[str, ...], source: str) -> None:
    if skipped:
        logger.warning("skipped %d unreadable images of %s: %s", len(skipped), source, _first(skipped))
    for note in notes:
        logger.warning(note)


def _check_skipped(part: str, found: Found, path: Path) -> None:
    total = len(found.samples) + len(found.skipped)
    if len(found.skipped) > SKIPPED_LIMIT * total:
        raise ValueError(
            f"{path}: {len(found.skipped):,} of the {total:,} images of {part} cannot be read, which is more than "
            f"{SKIPPED_LIMIT:.0%}: {_first(found.skipped)}"
        )


def _first(lines: Sequence[str], count: int = 3) -> str:
    return "; ".join(lines[:count]) + ("; …" if len(lines) > count else "")


def _split(found: Found, class_names: tuple[str, ...]) -> Split:
    labels, images = zip(*found.samples.values(), strict=True)
    position = {name: index for index, name in enumerate(class_names)}
    return Split(
        images=torch.from_numpy(np.stack(images)[:, None]),
        target=torch.tensor([position[label] for label in labels]),
        sample_ids=tuple(found.samples),
    )

"""Labelled images at a path, in whatever layout they are: a folder, an archive or a CSV."""

import functools
import logging
import tarfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from trainer.data.archives import Archive
from trainer.data.base import Dataset, Split
from trainer.data.cache import cached
from trainer.data.layouts import PARTS, Folder, Found, Layout, check_classes, no_images, visible
from trainer.data.pixel_csv import CSV_NAMES, PixelCsv

VERSION = 7
"""Raised when the same files would give another dataset than before."""
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2")
SKIPPED_LIMIT = 0.01
"""Share of a part's images that may be unreadable."""

logger = logging.getLogger(__name__)


def load_images(name: str, path: Path, parts: Sequence[str]) -> Dataset:
    """The images at `path`, at 48×48 px, as the dataset `name`.

    The first call decodes them (seconds); later ones read them from the cache.

    Args:
        path: a folder, an archive or a CSV that is there.
        parts: "train", "test" or both; only these need to be there.

    Raises ValueError where what is there cannot be used.
    """
    layout = _find_layout(path, parts)
    signature = f"{VERSION} {' '.join(layout.parts)} {layout.signature()}"
    dataset = cached(name, signature, lambda: _build(name, layout))
    dataset = replace(dataset, source=str(layout.path))  # as it is called here, not by whoever decoded it
    _tell(dataset.skipped, dataset.notes, dataset.source)
    return dataset


def _find_layout(path: Path, parts: Sequence[str]) -> Layout:
    """The layout at `path`: a folder, an archive, a CSV, or a folder with one of them inside.

    Raises ValueError where there is none, or more than one.
    """
    wanted = tuple(part for part in PARTS if part in parts)
    if path.is_file():
        return _file_layout(path, wanted)
    if not path.is_dir():
        raise ValueError(f"{path} is neither a folder nor a file")
    folders = (path, *_only_folder(path))
    for folder in folders:
        if any((folder / part).is_dir() for part in PARTS):
            return Folder(folder, wanted)
        for name in CSV_NAMES:
            if (folder / name).is_file():
                return PixelCsv(folder / name, wanted)
    for folder in folders:  # not before what was unpacked beside it
        archives = [entry for entry in visible(folder) if entry.name.lower().endswith(ARCHIVE_SUFFIXES)]
        if len(archives) > 1:
            names = ", ".join(archive.name for archive in archives)
            raise ValueError(f"{folder} holds several archives ({names}): pass the path of one of them")
        if archives:
            return Archive(archives[0], wanted)
    names = ", ".join(entry.name for entry in visible(path)[:5]) or "nothing"
    raise no_images(path, names, f"neither an archive of it, nor {CSV_NAMES[0]}")


def _only_folder(path: Path) -> list[Path]:
    folders = [entry for entry in visible(path) if entry.is_dir()]
    return folders if len(folders) == 1 else []


def _file_layout(path: Path, parts: tuple[str, ...]) -> Layout:
    if path.suffix.lower() == ".csv":
        return PixelCsv(path, parts)
    if zipfile.is_zipfile(path) or tarfile.is_tarfile(path):
        return Archive(path, parts)
    raise ValueError(
        f"{path} is not a .csv, .zip or .tar file that can be read; if it was downloaded, it may be incomplete"
    )


def _build(name: str, layout: Layout) -> Dataset:
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
        name=name,
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
def _tell(skipped: tuple[str, ...], notes: tuple[str, ...], source: str) -> None:
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

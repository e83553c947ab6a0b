"""Labelled images as files: what every layout gives and must hold, and the folder layout itself."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from trainer.contract import metric_key
from trainer.data.images import SUFFIXES, UNREADABLE, ImageError, UnreadError, read_grey

PARTS = ("train", "test")
UNUSED = ("validation", "valid", "val")
"""Folders that lie beside the parts in other data sets, and are not read."""
LAYOUT = "train/<class>/<image> and test/<class>/<image>"

_SUFFIXES = SUFFIXES | UNREADABLE

Source = TypeVar("Source")


@dataclass
class Found:
    """What was read of one part.

    class_names: also those of folders without an image. samples: sample id → class name (`as_typed`) and pixels,
    uint8 (48, 48). skipped: "sample id: reason". unread: how many of these may be readable another time. outside: how
    many images lie beside the class folders, which are passed over.
    """

    class_names: set[str] = field(default_factory=set)
    samples: dict[str, tuple[str, np.ndarray]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    unread: int = 0
    outside: int = 0

    def add(
        self, class_name: str, sample_id: str, decode: Callable[[Source], np.ndarray], source: Source
    ) -> None:
        """Decode one image, or note why that fails."""
        try:
            sample_id.encode()
            self.samples[sample_id] = as_typed(class_name), decode(source)
        except UnicodeEncodeError:
            self.skipped.append(f"{sample_id!r}: its name is not UTF-8")
        except ImageError as error:
            self.skipped.append(f"{sample_id}: {error}")
            self.unread += isinstance(error, UnreadError)

    def class_counts(self) -> dict[str, int]:
        """Class name → number of images, 0 for a class without."""
        counts = Counter(class_name for class_name, _ in self.samples.values())
        return {name: counts[name] for name in map(as_typed, self.class_names)}


def as_typed(name: str) -> str:
    """With each accented letter as one: in archives that macOS makes, letter and accent are two characters."""
    return unicodedata.normalize("NFC", name)


class Layout(Protocol):
    """One place where images were found, for the parts that are wanted.

    title names the images in a log line. unused: which of UNUSED lie beside the parts, once they are read.
    signature() changes when their files change; it decodes nothing. read() decodes them, in an order that stays
    the same; ValueError where it cannot.
    """

    path: Path
    parts: tuple[str, ...]
    title: str
    unused: tuple[str, ...]

    def signature(self) -> str: ...

    def read(self) -> dict[str, Found]: ...


def is_hidden(name: str) -> bool:
    """Whether a system or a tool left an entry of this name."""
    return name.startswith(".") or name == "__MACOSX"


def visible(folder: Path) -> list[Path]:
    """The entries of a folder by name, without what systems and tools leave there."""
    return sorted(entry for entry in folder.iterdir() if not is_hidden(entry.name))


def is_image(name: str) -> bool:
    """Whether a file name ends like an image's, also one of a kind that cannot be read."""
    return f".{name.rpartition('.')[2].lower()}" in _SUFFIXES


def file_signature(path: Path) -> str:
    """Changes when the file is another one, or was written again."""
    status = path.stat()
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"


def nested(name: str) -> ValueError:
    """The error for a file in a folder of a class folder."""
    return ValueError(f"{name} lies deeper than <part>/<class>/<image>: the layout is {LAYOUT}")


def missing_part(path: Path, part: str) -> ValueError:
    """The error for a wanted part that is not there."""
    return ValueError(f"{path} has no folder {part}/: the layout is {LAYOUT}")


def no_images(path: Path, names: str, otherwise: str) -> ValueError:
    """The error for a place that holds none, but these names; `otherwise` is what it lacks beside them."""
    return ValueError(f"{path} holds {names}, but no images in the layout {LAYOUT}; {otherwise}")


def check_classes(counts: dict[str, dict[str, int]], path: Path) -> tuple[str, ...]:
    """The class names, sorted, from part → class name → number of images.

    Raises ValueError where a part has fewer than two classes or a class without images, or where the
    parts have different classes.
    """
    for part, classes in counts.items():
        if len(classes) < 2:
            names = ", ".join(classes) or "none"
            raise ValueError(
                f"{path}: {part}/ needs a folder of images for each of two classes or more; it has: {names}"
            )
        empty = sorted(name for name, count in classes.items() if count == 0)
        if empty:
            raise ValueError(
                f"{path}: {part} has no readable image of class {', '.join(empty)}; "
                f"each class needs at least one ({' '.join(sorted(SUFFIXES))})"
            )
    every = sorted(set().union(*counts.values()))
    for part, classes in counts.items():
        missing = sorted(set(every) - set(classes))
        if missing:
            raise ValueError(
                f"{path}: {part} has no class {', '.join(missing)}; train and test need the same classes"
            )
    keys: dict[str, str] = {}
    for name in every:
        other = keys.setdefault(metric_key("test", "recall", name), name)
        if other != name:
            raise ValueError(
                f"{path}: the metrics of {other} and {name} would have one name: rename one of the classes"
            )
    return tuple(every)


class Folder:
    """`train/<class>/<image>` and `test/<class>/<image>` below a folder."""

    def __init__(self, path: Path, parts: tuple[str, ...]) -> None:
        self.path, self.parts = path, parts
        self.unused = tuple(name for name in UNUSED if (path / name).is_dir())
        self.outside = dict.fromkeys(parts, 0)
        self.files = {part: self._list(part) for part in parts}
        check_classes({part: self._class_counts(part) for part in parts}, path)
        count = sum(len(files) for classes in self.files.values() for files in classes.values())
        self.title = f"{count:,} images of {path}"

    def _class_counts(self, part: str) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for name, files in self.files[part].items():
            counts[as_typed(name)] += len(files)
        return counts

    def _list(self, part: str) -> dict[str, list[tuple[str, int, int]]]:
        """Class name → file name, size in bytes and time of the last change in ns, by name."""
        if not (self.path / part).is_dir():
            raise missing_part(self.path, part)
        names = []
        with os.scandir(self.path / part) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if entry.is_dir():
                    names.append(entry.name)
                else:
                    self.outside[part] += is_image(entry.name)
        return {name: sorted(self._list_class(self.path / part / name)) for name in sorted(names)}

    def _list_class(self, folder: Path) -> Iterator[tuple[str, int, int]]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if entry.is_dir():
                    raise nested(entry.path)
                if is_image(entry.name):
                    try:
                        status = entry.stat()
                        yield entry.name, status.st_size, status.st_mtime_ns
                    except OSError:  # a dangling link; reading it will say so
                        yield entry.name, -1, -1

    def signature(self) -> str:
        listing = hashlib.blake2b(repr((self.files, self.outside, self.unused)).encode(), digest_size=16)
        return f"folder {self.path.resolve()} {listing.hexdigest()}"

    def read(self) -> dict[str, Found]:
        found = {part: Found(set(self.files[part]), outside=self.outside[part]) for part in self.parts}
        for part, classes in self.files.items():
            for class_name, files in classes.items():
                for name, *_ in files:
                    path = self.path / part / class_name / name
                    found[part].add(class_name, f"{part}/{class_name}/{name}", read_grey, path)
        return found

"""Which photos a user means: files, folders, patterns and lists, one after the other, with none of them opened."""

import codecs
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path

from trainer.data.images import SUFFIXES, UNREADABLE

log = logging.getLogger(__name__)

# Of HEIC it is said what to do, for each by name; passed over, nobody would miss them.
_PHOTOS = {*SUFFIXES, *UNREADABLE}


def find(paths: Sequence[str], listed: str | None = None) -> Iterator[str]:
    """Files in the order named; folders, with all below them, and patterns in order of name.

    A file that is named twice comes twice. Of a folder, the names in one folder are in memory at once.

    Args:
        listed: A file that names one photo a line; `-` is standard input.

    Raises:
        ValueError: nothing is named, a folder holds no image, or no file matches a pattern.
        OSError: the list cannot be read.
    """
    if not paths and listed is None:
        raise ValueError("name at least one image after the model")
    for path in paths:
        if not path:
            raise ValueError("the name of a photo is empty; . is the folder here")
        if Path(path).is_dir():
            inside = walk(str(Path(path)))
            first = next(inside, None)
            if first is None:
                raise ValueError(f"there are no images in {path} ({', '.join(sorted(SUFFIXES))})")
            yield first
            yield from inside
        elif has_magic(path) and not Path(path).exists():
            matches = sorted(name for name in glob(path, recursive=True) if Path(name).is_file())  # noqa: PTH207  (patterns may be absolute)
            if not matches:
                raise ValueError(f"no file matches '{path}'")
            yield from matches
        else:
            yield path
    if listed is not None:
        yield from read_list(listed)


def walk(folder: str) -> Iterator[str]:
    """The images of a folder and of all below it, sorted by their whole paths; links to folders are not followed."""
    begin = "" if folder == "." else folder.rstrip("/") + "/"
    try:
        names = []
        with os.scandir(folder) as entries:
            for entry in entries:
                # With its slash a folder takes the place that the paths in it have among all.
                names.append(entry.name + "/" * entry.is_dir(follow_symlinks=False))
                if entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112  (no error where it leads nowhere)
                    log.warning("left out: %s is a link to a folder; name it as well", entry.path)
        names.sort()
    except PermissionError as error:
        log.warning("left out: %s: %s", folder, error.strerror)
        return
    for name in names:
        if name.endswith("/"):
            if name != "__MACOSX/":
                yield from walk(begin + name[:-1])
        elif is_image(name):
            yield begin + name


def is_image(name: str) -> bool:
    """By its suffix, a million times in a second; what macOS leaves beside an image is none.

    >>> is_image("a.JPG"), is_image("jpg"), is_image(".jpg"), is_image("a.txt"), is_image("._a.jpg")
    (True, False, False, False, False)
    """
    stem, _, suffix = name.rpartition(".")
    return bool(stem) and f".{suffix.lower()}" in _PHOTOS and not name.startswith("._")


def read_list(path: str) -> Iterator[str]:
    """One path a line, as bytes of any encoding; empty lines are passed over, and a byte order mark.

    Raises ValueError where none is named, or where names are ended by zeros instead.
    """
    empty = True
    if path == "-" and sys.stdin is None:
        raise ValueError("--from -: there is no standard input")
    with open(sys.stdin.fileno() if path == "-" else path, "rb", closefd=path != "-") as lines:
        for line in lines:
            if b"\0" in line:
                raise ValueError(
                    f"--from {path}: it holds zeros; write one name a line (find … -print, not -print0)"
                )
            if empty:
                line = line.removeprefix(codecs.BOM_UTF8)
            if name := os.fsdecode(line.rstrip(b"\r\n")):
                empty = False
                yield name
    if empty:
        raise ValueError(f"--from {path}: it names no photo")

"""The folder layout inside a zip or tar file, read without unpacking."""

import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from trainer.data.images import read_grey
from trainer.data.layouts import (
    LAYOUT,
    PARTS,
    Found,
    file_signature,
    is_hidden,
    is_image,
    missing_part,
    nested,
)


class Archive:
    """`train/<class>/<image>` and `test/<class>/<image>` at the top of an archive, or in one folder there."""

    def __init__(self, path: Path, parts: tuple[str, ...]) -> None:
        self.path, self.parts = path, parts
        self.title = f"the images of {path}"

    def signature(self) -> str:
        return f"archive {file_signature(self.path)}"

    def read(self) -> dict[str, Found]:
        found: dict[str, Found] = {}
        wrappers = set()
        with _damage_explained(self.path):
            for name, is_folder, content in self._members():
                place = _place(name)
                if place is None or place.part not in self.parts:
                    continue
                wrappers.add(place.wrapper)
                part = found.setdefault(place.part, Found())
                if place.class_name and (is_folder or place.file_name):
                    part.class_names.add(place.class_name)
                if place.file_name and not is_folder and is_image(place.file_name):
                    sample_id = f"{place.part}/{place.class_name}/{place.file_name}"
                    part.add(place.class_name, sample_id, read_grey, content())
        if len(wrappers) > 1:
            raise ValueError(
                f"{self.path} holds the layout {LAYOUT} more than once, in: {', '.join(sorted(wrappers))}"
            )
        for part_name in self.parts:
            if part_name not in found:
                raise missing_part(self.path, part_name, "; unpack an archive of fer2013.csv first")
        for part in found.values():
            part.samples = dict(sorted(part.samples.items(), key=lambda item: item[0].split("/")))
        return {part_name: found[part_name] for part_name in self.parts}

    def _members(self) -> Iterator[tuple[str, bool, Callable[[], bytes]]]:
        """Name, whether it is a folder, and how to read it; to be read before the next one is asked for."""
        if zipfile.is_zipfile(self.path):
            with zipfile.ZipFile(self.path) as archive:
                for info in archive.infolist():
                    yield info.filename, info.is_dir(), partial(archive.read, info)
        else:
            with tarfile.open(self.path) as tar:
                for member in tar:
                    if member.isfile() or member.isdir() or member.islnk():
                        yield member.name, member.isdir(), partial(_tar_content, tar, member)
                # For tarfile an archive that was cut between two files ends there; a whole one ends with zeros.
                assert tar.fileobj is not None, "it is open"
                tar.fileobj.seek(tar.offset)
                if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("unexpected end of data")


def _tar_content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Of a file, or of what it is another name of; nothing, which is no image, where that is not there."""
    try:
        file = tar.extractfile(member)
    except KeyError:
        return b""
    return file.read() if file is not None else b""


@contextmanager
def _damage_explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        lzma.LZMAError,
        zlib.error,
        EOFError,
        OSError,
        RuntimeError,
    ) as error:
        raise ValueError(f"{path} is damaged or incomplete ({error}): get it again") from error


@dataclass(frozen=True)
class _Place:
    wrapper: str
    part: str
    class_name: str = ""
    file_name: str = ""


def _place(name: str) -> _Place | None:
    """Where a member of an archive lies in the layout; None outside of it.

    Raises ValueError for a name that leaves the archive, wherever it points.
    """
    path = PurePosixPath(name.replace("\\", "/"))  # some zip tools for Windows write backslashes
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        raise ValueError(f"the archive has a member '{name}' that points outside of it: it is refused")
    if any(is_hidden(component) for component in path.parts):
        return None
    for depth in (0, 1):
        if path.parts[depth : depth + 1] and path.parts[depth] in PARTS:
            place = path.parts[depth:]
            if len(place) > 3:
                raise nested(name)
            return _Place("/".join(path.parts[:depth]) or "its top", *place)
    return None

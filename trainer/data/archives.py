"""The folder layout, or the original CSV, inside a zip or tar file, read without unpacking."""

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
from typing import IO

import numpy as np

from trainer.data.images import ImageError, read_grey
from trainer.data.layouts import (
    LAYOUT,
    PARTS,
    UNUSED,
    Found,
    file_signature,
    is_hidden,
    is_image,
    missing_part,
    nested,
    no_images,
)
from trainer.data.pixel_csv import CSV_NAMES, read_rows


class Archive:
    """`train/<class>/<image>` and `test/<class>/<image>` at the top of an archive, or in one folder there.

    Where there is no such image: fer2013.csv, anywhere in it.
    """

    def __init__(self, path: Path, parts: tuple[str, ...]) -> None:
        self.path, self.parts = path, parts
        self.title = f"the images of {path}"
        self.unused: tuple[str, ...] = ()

    def signature(self) -> str:
        return f"archive {file_signature(self.path)}"

    def read(self) -> dict[str, Found]:
        found: dict[str, Found] = {}
        wrappers, others, unused = set(), [], set()
        with _damage_explained(self.path):
            for name, is_folder, content in self._members():
                place = _place(name, is_folder)
                if place is None or place.part not in self.parts:
                    if place is not None and place.part in UNUSED:
                        unused.add((place.wrapper, place.part))
                    continue
                if is_folder or not place.class_name or not is_image(place.file_name):
                    others.append(place)
                    continue
                if "/" in place.file_name:
                    raise nested(name)
                wrappers.add(place.wrapper)
                part = found.setdefault(place.part, Found())
                part.class_names.add(place.class_name)
                sample_id = f"{place.part}/{place.class_name}/{place.file_name}"
                part.add(place.class_name, sample_id, _decode, content)
        if not wrappers and (rows := self._read_csv()) is not None:
            return rows
        if not wrappers and not others:
            names = ", ".join(self._tops()[:5]) or "nothing"
            raise no_images(self.path, names, f"nor {CSV_NAMES[0]}")
        if len(wrappers) > 1:
            raise ValueError(
                f"{self.path} holds the layout {LAYOUT} more than once, in: {', '.join(sorted(wrappers))}"
            )
        self.unused = tuple(name for name in UNUSED if any((wrapper, name) in unused for wrapper in wrappers))
        for place in others:  # a class, and a part, may be without an image
            if not wrappers or place.wrapper in wrappers:
                part = found.setdefault(place.part, Found())
                part.class_names.update({place.class_name} - {""})
                part.outside += not place.class_name and is_image(place.file_name)
        for part_name in self.parts:
            if part_name not in found:
                raise missing_part(self.path, part_name)
        for part in found.values():
            part.samples = dict(sorted(part.samples.items(), key=lambda item: item[0].split("/")))
        return {part_name: found[part_name] for part_name in self.parts}

    def _read_csv(self) -> dict[str, Found] | None:
        with _damage_explained(self.path):
            for name, is_folder, content in self._members():
                if PurePosixPath(name).name in CSV_NAMES and not is_folder:
                    return read_rows(content(), f"{name} in {self.path}", self.parts)
        return None

    def _tops(self) -> list[str]:
        """What lies at the top, by name."""
        with _damage_explained(self.path):
            names = {PurePosixPath(name).parts[:1] for name, *_ in self._members()}
        return sorted(name for top in names for name in top if not is_hidden(name))

    def _members(self) -> Iterator[tuple[str, bool, Callable[[], IO[bytes]]]]:
        """Name, whether it is a folder, and how to open it; to be read before the next one is asked for."""
        if zipfile.is_zipfile(self.path):
            with zipfile.ZipFile(self.path) as archive:
                for info in archive.infolist():
                    yield _zip_name(info), info.is_dir(), partial(_open_in_zip, archive, info)
        else:
            with tarfile.open(self.path) as tar:
                for member in tar:
                    if member.isfile() or member.isdir() or member.islnk() or member.issym():
                        yield member.name, member.isdir(), partial(_open_in_tar, tar, member)
                # For tarfile an archive that was cut between two files ends there; a whole one ends with zeros.
                assert tar.fileobj is not None, "it is open"
                tar.fileobj.seek(tar.offset)
                if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("unexpected end of data")


def _decode(content: Callable[[], IO[bytes]]) -> np.ndarray:
    """uint8 (48, 48) of a member. Raises ImageError."""
    with content() as file:
        return read_grey(file)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name as its writer meant it: `zip` on Linux writes UTF-8 without the flag that says so."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode()  # zipfile takes a name without the flag for cp437
    except UnicodeError:
        return info.filename


def _open_in_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    """A file. Raises ValueError where it needs a password."""
    if info.flag_bits & 1:
        raise ValueError(f"{archive.filename} is encrypted: unpack it, and name its folder")
    return archive.open(info)


def _open_in_tar(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """A file, by any of its names. Raises ImageError for a link that is no such name."""
    if member.issym():  # to follow many would take long: each is looked for among all members
        raise ImageError("it is a symbolic link: unpack the archive, and name its folder")
    try:
        file = tar.extractfile(member)
    except KeyError:
        file = None
    if file is None:
        raise ImageError("it is a link that leads to no file of the archive")
    return file


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
    ) as error:
        raise ValueError(f"{path} is damaged or incomplete ({error}): get it again") from error
    except RuntimeError as error:  # zipfile's word for a password, or a method without a decoder
        raise ValueError(
            f"{path} cannot be unpacked here ({str(error).rstrip('.')}): unpack it, and name its folder"
        ) from error


@dataclass(frozen=True)
class _Place:
    """class_name: empty for what lies in none. file_name: with the folders above it, where it lies deeper."""

    wrapper: str
    part: str
    class_name: str
    file_name: str


def _place(name: str, is_folder: bool) -> _Place | None:
    """Where a member of an archive lies in the layout; None outside of it.

    Raises ValueError for a name that leaves the archive, wherever it points.
    """
    path = PurePosixPath(name.replace("\\", "/"))  # some zip tools for Windows write backslashes
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        raise ValueError(f"the archive has a member '{name}' that points outside of it: it is refused")
    if any(is_hidden(component) for component in path.parts):
        return None
    for depth, folders in ((0, PARTS), (1, PARTS), (0, UNUSED), (1, UNUSED)):
        if len(path.parts) > depth and path.parts[depth] in folders:
            part, *names = path.parts[depth:]
            class_name = names.pop(0) if len(names) > (0 if is_folder else 1) else ""
            return _Place("/".join(path.parts[:depth]) or "its top", part, class_name, "/".join(names))
    return None

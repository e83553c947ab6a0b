"""Answers to any number of photos: a folder of Parquet files, each written at once, and what is still to be answered.

    answers/
      _about.json           models and options of all parts; the lists
      _photos-0.jsonl       the photos, one a line, in the order of their index; one more list for what came later
      part-000000.parquet   answers to the photos of one chunk

Readers of Parquet folders pass over names with an underscore. A chunk of photos is known by its number, which does not
depend on who answers it: any number of processes may go on, and a part that is deleted is answered anew.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

ABOUT, LOCK = "_about.json", "_lock"
FORMAT = 1
LEAST, MOST = 50, 1000
"""Photos in a chunk: about a hundred chunks, so that processes end together, but neither tiny nor huge parts."""


@dataclass(frozen=True)
class List:
    """Photos that were found at one time."""

    photos: int
    chunk: int
    """Photos in each chunk; the last one may hold fewer."""

    @property
    def chunks(self) -> int:
        return -(-self.photos // self.chunk)

    def size(self, number: int) -> int:
        """Photos in one of its chunks, counted from 0."""
        return min(self.chunk, self.photos - number * self.chunk)


@dataclass(frozen=True)
class About:
    """What all parts of a folder have in common.

    models: name → fingerprint of what answers by that name. whole: photos were taken as faces.
    """

    models: Mapping[str, str]
    whole: bool
    lists: tuple[List, ...] = ()

    @property
    def photos(self) -> int:
        return sum(one.photos for one in self.lists)

    def sizes(self) -> list[int]:
        """Photos in each chunk."""
        return [one.size(number) for one in self.lists for number in range(one.chunks)]

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "About":
        """Raises ValueError where the text is nothing that `to_json` has written."""
        try:
            values = json.loads(text)
            if values.pop("format") != FORMAT:
                raise ValueError("another format")
            return cls(**values | {"lists": tuple(List(**one) for one in values["lists"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{ABOUT} cannot be read: {error}") from error


@dataclass(frozen=True)
class Chunk:
    """Photos that are answered together. index: of the first among all photos of the folder."""

    number: int
    index: int
    paths: Sequence[str]


@dataclass(frozen=True)
class Tally:
    """What parts hold. failed: photos for which an answer is missing."""

    photos: int = 0
    answers: int = 0
    failed: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.photos + other.photos, self.answers + other.answers, self.failed + other.failed)


@dataclass(frozen=True)
class Found:
    """Photos that are not on a folder's lists yet.

    file: lines for a list, in a file without a name: nothing is written into the folder before it is clear that they
        can be answered.
    """

    photos: int
    file: IO[str]


class Parts:
    """A folder of answers."""

    def __init__(self, folder: Path):
        self.folder = folder

    def about(self) -> About | None:
        """None where nothing has been begun. Raises ValueError where it cannot be read."""
        try:
            text = (self.folder / ABOUT).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            return About.from_json(text)
        except ValueError as error:
            raise ValueError(f"{self.folder}: {error}") from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """The folder is this command's alone, on this machine and where the file system has locks on others; it is made
        where it is not there. Nothing is left of it where nothing was begun.

        Raises ValueError where another command holds it, or it is a folder of other files.
        """
        there = self.folder.is_dir()
        if there and not (self.folder / ABOUT).exists() and any(self.folder.glob("[!_.]*")):
            raise ValueError(f"{self.folder} has other files in it: name a new folder for the answers")
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"another command is writing answers into {self.folder}") from None
        try:
            yield
        finally:
            lock.release()
            if not there and not (self.folder / ABOUT).exists():
                shutil.rmtree(self.folder)

    def look_for_new(self, paths: Iterable[str]) -> Found:
        """Those of `paths` that are on no list, each once. All paths are in memory meanwhile, and afterwards none."""
        about = self.about()
        known = set(self._listed(about)) if about is not None else set()
        before = len(known)
        file = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115  (closed with what is returned)
        for path in paths:
            if path not in known:
                known.add(path)
                file.write(json.dumps(path) + "\n")
        return Found(len(known) - before, file)

    def begin(self, about: About, found: Found) -> About:
        """Put what was found on a list of its own, and say what there is to answer in all.

        Raises ValueError where the folder was begun with other models or options.
        """
        before = self.about()
        if before is not None:
            check_same(self.folder, before, about)
            about = before
        if found.photos == 0 and before is not None:
            return before
        chunk = min(MOST, max(LEAST, found.photos // 100))
        found.file.seek(0)
        with self._written(self._list(len(about.lists))) as draft, draft.open("w", encoding="ascii") as file:
            shutil.copyfileobj(found.file, file)
            _settle(file)
        about = About(about.models, about.whole, (*about.lists, List(found.photos, chunk)))
        with self._written(self.folder / ABOUT) as draft, draft.open("w", encoding="utf-8") as file:
            file.write(about.to_json())
            _settle(file)
        return about

    def chunks(self, about: About) -> Iterator[Chunk]:
        """All of them, in order; of the photos, those of one are in memory."""
        paths, number, index = self._listed(about), 0, 0
        for size in about.sizes():
            yield Chunk(number, index, list(islice(paths, size)))
            number, index = number + 1, index + size

    def tally(self, number: int, photos: int) -> Tally | None:
        """What the part of a chunk of so many photos holds, by its footer; None where it is not there, or damaged."""
        try:
            footer = pq.read_metadata(self._part(number))
            (column,) = (i for i in range(footer.num_columns) if footer.schema.column(i).name == "failure")
            groups = [
                footer.row_group(group).column(column).statistics for group in range(footer.num_row_groups)
            ]
            answers = sum(statistics.null_count for statistics in groups)
        except (OSError, pa.ArrowException, ValueError, AttributeError):
            return None
        return Tally(photos, answers, footer.num_rows - answers)

    def write(self, number: int, rows: Sequence[Mapping[str, Any]], shape: pa.Schema) -> None:
        """The part of a chunk, whole or not at all."""
        table = pa.Table.from_pylist(rows, schema=shape)
        with self._written(self._part(number)) as draft, draft.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            _settle(file)

    def _listed(self, about: About) -> Iterator[str]:
        for number in range(len(about.lists)):
            with self._list(number).open(encoding="ascii") as lines:
                yield from map(json.loads, lines)

    def _list(self, number: int) -> Path:
        return self.folder / f"_photos-{number}.jsonl"

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:06}.parquet"

    @contextmanager
    def _written(self, path: Path) -> Iterator[Path]:
        draft = path.with_name(f"_{path.name.removeprefix('_')}.new")
        yield draft
        draft.replace(path)


def check_same(folder: Path, before: About, now: About) -> None:
    """Raises ValueError where `folder` was begun with other models or options than it is to go on with."""
    advice = f"name another folder, or remove {folder} to begin anew"
    if list(before.models) != list(now.models):
        held, asked = ", ".join(before.models), ", ".join(now.models)
        raise ValueError(f"{folder} holds answers of {held}, not of {asked}: {advice}")
    for name, fingerprint in now.models.items():
        if before.models[name] != fingerprint:
            raise ValueError(f"{folder} holds answers of {name} as it was before it changed: {advice}")
    if before.whole != now.whole:
        raise ValueError(f"{folder} was begun {'with' if before.whole else 'without'} --whole: {advice}")


def shape(class_names: Iterable[str]) -> pa.Schema:
    """The columns of every part: a row for each face and model, or one that says why a photo has no answer."""
    number, text = pa.float64(), pa.string()
    columns = {
        "index": pa.int64(), "photo": text, "face": pa.int32(), "x": number, "y": number, "side": number,
        "angle": number, "detection_score": number, "flags": text, "model": text, "answer": text,
        "probability": number, "sure": pa.bool_(),
    }  # fmt: skip
    columns |= {f"probability/{name}": number for name in class_names}
    return pa.schema(list((columns | {"failure": text}).items()))


def _settle(file: IO[Any]) -> None:
    """On the disk before it gets its name: else a power cut could leave a name without its content."""
    file.flush()
    os.fsync(file.fileno())

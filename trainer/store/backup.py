"""The embedded store in one file: copied while trainings write to it, checked, and made again from it.

The file is a tar archive: what unfinished runs keep to be resumed from, the studies of sweeps, the database, the
artifacts, and last a list of all files with their SHA-256. Checkpoints come first, so that each run that is unfinished
in the database has one, if an older one; then the studies, whose runs are made before a study names them; then the
database, at one moment; then the artifacts: a version's files are written before the row that names them, so they are
there by then. What was written later is carried along and belongs to nothing. Plain MLflow keeps the files of
experiments that it made itself in the working directory, in `mlruns/0` and so on: where that is in the store's folder,
they are artifacts, too.
"""

import hashlib
import io
import json
import logging
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

from filelock import FileLock

from trainer.contract import EXTRA_FILES, LARGEST_FILES
from trainer.drafts import NO_ROOM
from trainer.store.location import (
    LOCATION_FILE,
    SQLITE_PREFIX,
    Store,
    StoreError,
    mark_of_making,
    move_paths,
    remembered,
)

log = logging.getLogger(__name__)

FORMAT = 1
DATABASE = "mlflow.db"
STUDIES = "sweeps.db"
"""Of sweeps, where they are kept beside the store; backups made before this was copied have none."""
LIST_FILE = "backup.json"
CHECKPOINTS, ARTIFACTS = "checkpoints", "artifacts"
FOLDERS = (CHECKPOINTS, ARTIFACTS)
_PLAIN = re.compile(r"mlruns|[0-9]+")
"""Folders in which plain MLflow keeps files. They may hold more, of which only what the database names is copied."""
_LARGEST_LIST = 256 * 1024**2


@dataclass(frozen=True)
class Contents:
    """What a backup holds, as far as it was found whole.

    elsewhere: versions whose files lie outside of the store. gone: those whose files the store had lost before.
    runs_elsewhere: ids of runs that keep their files outside of the store's folders.
    """

    runs: int
    versions: int
    files: int
    size_bytes: int
    made: str
    elsewhere: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    runs_elsewhere: tuple[str, ...] = ()


def back_up(store: Store, file: Path) -> Contents:
    """Write `file`, and read it again.

    Raises StoreError where the store is none of ours, `file` exists, or the copy is not whole; then there is no file.
    """
    if store.artifact_root is None:
        raise StoreError(
            "only an embedded store is copied here: a server's operator copies its database and files"
        )
    if file.exists():
        raise StoreError(f"{file} exists already and is left as it is")
    root = store.artifact_root.parent
    try:
        with tempfile.TemporaryDirectory(dir=file.absolute().parent, prefix=".new-") as scratch:
            draft = Path(scratch, file.name)
            live = Path(store.uri.removeprefix(SQLITE_PREFIX))
            with tarfile.open(draft, "w") as archive, tempfile.TemporaryDirectory(dir=scratch) as copies:
                _write(archive, root, live, Path(copies))
            _to_disk(draft)  # whoever is told that it is whole may delete the store
            contents = verify(draft)
            draft.replace(file)
            with suppress(OSError):  # not every file system can do so with a folder
                _to_disk(file.absolute().parent)
    except (OSError, sqlite3.Error, tarfile.TarError) as error:
        raise StoreError(f"{file} is not written: {error}".splitlines()[0]) from error
    return contents


def verify(file: Path) -> Contents:
    """Read the whole archive: each file is what the list says, and each version in the database has the files that it
    had in the store.

    Raises StoreError where that is not so.
    """
    with tempfile.TemporaryDirectory(dir=file.absolute().parent) as scratch:
        return _unpack(file, Path(scratch), only_database=True)


def restore(file: Path, database: Path) -> Contents:
    """Make a store in the folder of `database` from a backup; it appears whole or not at all.

    Raises StoreError where there is a store already, or the backup is not whole.
    """
    root = database.parent
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".store.lock"):
            _refuse_taken(root, [*_files_of(database.name), *FOLDERS])
            with tempfile.TemporaryDirectory(dir=root, prefix=".restoring-") as scratch:
                contents = _unpack(file, Path(scratch))
                _set_paths(Path(scratch), root)
                folders = [path.name for path in Path(scratch).iterdir() if path.is_dir()]
                studies = [STUDIES] if Path(scratch, STUDIES).is_file() else []
                _refuse_taken(root, [*folders, *(name for study in studies for name in _files_of(study))])
                mark_of_making(database).unlink(missing_ok=True)
                places = {name: root / name for name in (*folders, *studies, LOCATION_FILE)}
                # The database last: it is what makes a store of the folder.
                _move(Path(scratch), places | {DATABASE: database})
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{root} cannot be made from {file}: {error}".splitlines()[0]) from error
    return contents


def _to_disk(path: Path) -> None:
    """Of a file its content, of a folder its names: what a power cut must not take any more."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move(folder: Path, places: Mapping[str, Path]) -> None:
    """What has these names in `folder` to its place, where at most an empty folder is: all of it, or nothing."""
    moved = []
    try:
        for name, place in places.items():
            if place.is_dir():
                place.rmdir()
            moved.append(name)
            (folder / name).replace(place)
    except BaseException:
        for name in moved:
            if not (folder / name).exists():
                places[name].replace(folder / name)
        raise


def _set_paths(folder: Path, root: Path) -> None:
    """The database that was unpacked into `folder` is that of a store at `root`, whatever is written where it was."""
    if (old := remembered(folder)) is not None:
        with closing(sqlite3.connect(folder / DATABASE)) as connection:
            move_paths(connection, old, str(root))
        (folder / LOCATION_FILE).write_text(f"{root}\n")


def _files_of(database: str) -> list[str]:
    """With its logs: SQLite would replay those of a database that is gone into the one that takes its place."""
    return [database, *(f"{database}-{log}" for log in ("wal", "shm", "journal"))]


def _refuse_taken(root: Path, names: Iterable[str]) -> None:
    """Raises StoreError where one of them is there."""
    if taken := [name for name in names if _is_taken(root / name)]:
        raise StoreError(f"{root} holds a store already ({', '.join(taken)}): a backup never replaces one")


def _is_taken(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _is_database(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _copy_database(source: Path, target: Path) -> None:
    """At one moment, whatever writes meanwhile: SQLite's own backup, all pages at once."""
    with closing(sqlite3.connect(source, timeout=60)) as live, closing(sqlite3.connect(target)) as copy:
        live.backup(copy)


def _write(archive: tarfile.TarFile, root: Path, live: Path, scratch: Path) -> None:
    digests = _add_folder(archive, root, CHECKPOINTS)
    for name, database in ((STUDIES, root / STUDIES), (DATABASE, live)):
        if name == DATABASE or _is_database(database):
            _copy_database(database, scratch / name)
            digests[name] = _add(archive, name, scratch / name)
    location = root / LOCATION_FILE
    old = location.read_text() if location.is_file() else f"{root}\n"
    digests[LOCATION_FILE] = _add_bytes(archive, LOCATION_FILE, old.encode())
    for folder in (ARTIFACTS, *_plain_folders(scratch / DATABASE, old.strip())):
        digests |= _add_folder(archive, root, folder)
    gone = _find_versions(scratch / DATABASE, old.strip(), digests).gone
    facts = {
        "format": FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": digests,
        "gone": [version for version, (folder, part) in gone.items() if not (root / folder / part).exists()],
    }
    _add_bytes(archive, LIST_FILE, json.dumps(facts).encode())


def _plain_folders(database: Path, root: str) -> list[str]:
    """Where plain MLflow keeps files of runs and models in the store's folder, seen from there; none in another one."""
    with closing(sqlite3.connect(database)) as connection:
        places = connection.execute(
            "SELECT artifact_uri FROM runs UNION SELECT artifact_location FROM logged_models "
            "UNION SELECT storage_location FROM model_versions"
        ).fetchall()
    inside = {path for (place,) in places if (path := _inside(place or "", root))}
    found: list[PurePosixPath] = []
    for path in sorted(inside):
        if path.parts[0] not in FOLDERS and not (found and path.is_relative_to(found[-1])):
            found.append(path)
    return [str(path) for path in found]


def _inside(place: str, root: str) -> PurePosixPath | None:
    """The path of a folder that backups hold, seen from the store's folder; None for any other."""
    path = PurePosixPath(place.removeprefix(f"{root}/"))
    return path if place.startswith(f"{root}/") and _is_held(path) else None


def _is_held(path: PurePosixPath) -> bool:
    """Whether it lies in a folder of those that backups hold."""
    first = path.parts[0] if len(path.parts) > 1 else ""
    return (first in FOLDERS or _PLAIN.fullmatch(first) is not None) and ".." not in path.parts


def _add_folder(archive: tarfile.TarFile, root: Path, folder: str) -> dict[str, str]:
    """name → SHA-256 of each file; of a link, that of the file it leads to."""
    digests = {}
    for path in _below(root / folder):
        if folder == CHECKPOINTS and path.suffix in (".lock", ".new"):
            continue
        if not path.is_file():
            if path.is_symlink():
                log.warning("%s is a link to a folder, or to nothing: it is not in the backup.", path)
            continue
        name = path.relative_to(root).as_posix()
        try:
            digests[name] = _add(archive, name, path)
        except FileNotFoundError:
            continue  # a run that finished meanwhile needs its checkpoint no more
    return digests


def _below(folder: Path) -> list[Path]:
    """Every path in it, in order. Raises OSError for a folder that may not be listed, over which `rglob` passes."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # it has gone meanwhile
            raise error

    walk = os.walk(folder, onerror=refuse)
    return sorted(Path(place, name) for place, folders, files in walk for name in (*folders, *files))


def _add(archive: tarfile.TarFile, name: str, path: Path) -> str:
    """Add a file as large as it is now; its SHA-256."""
    with path.open("rb") as source:
        info = archive.gettarinfo(arcname=name, fileobj=source)
        # Else a second name of a file would become a link to the first.
        info.type, info.size = tarfile.REGTYPE, os.fstat(source.fileno()).st_size
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        reader = _Digesting(source)
        archive.addfile(info, reader)
    return reader.digest.hexdigest()


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> str:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))
    return hashlib.sha256(content).hexdigest()


class _Digesting(io.RawIOBase):
    """Passes a file on and digests what was read of it."""

    def __init__(self, source: IO[bytes]):
        self.digest = hashlib.sha256()
        self._source = source

    def read(self, size: int = -1) -> bytes:
        content = self._source.read(size)
        self.digest.update(content)
        return content


def _unpack(file: Path, folder: Path, *, only_database: bool = False) -> Contents:
    """Into `folder`, with every check. Raises StoreError."""
    found: dict[str, str] = {}
    size = 0
    facts: Any = None
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                name = _checked_name(member)
                source = archive.extractfile(member)
                assert source is not None
                if name == LIST_FILE:
                    facts = json.loads(source.read(_LARGEST_LIST))
                    continue
                if name in found:
                    raise StoreError(f"{file} holds {name} twice")
                keep = not only_database or name in (DATABASE, STUDIES, LOCATION_FILE)
                found[name] = _extract(source, folder / name if keep else None)
                size += member.size
    except (tarfile.TarError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:  # for what is written, whatever is read
            raise
        raise StoreError(f"{file} is no whole backup: {error}") from error
    listed = facts.get("files") if isinstance(facts, dict) and facts.get("format") == FORMAT else None
    if not isinstance(listed, dict):
        raise StoreError(f"{file} is no whole backup of this format: its list of files is missing")
    if found != listed:
        differing = sorted(name for name in {*found, *listed} if found.get(name) != listed.get(name))
        raise StoreError(f"{file} is damaged: {', '.join(differing[:3])} is not what was backed up")
    if STUDIES in found:
        with closing(sqlite3.connect(folder / STUDIES)) as connection:
            _check_integrity(connection)
    if DATABASE not in found or LOCATION_FILE not in found:
        raise StoreError("the backup holds no database")
    known = facts.get("gone", [])
    if not isinstance(known, list):
        raise StoreError(f"{file} is no whole backup of this format: its list of lost versions is none")
    versions = _find_versions(folder / DATABASE, remembered(folder) or "", found)
    for version, (place, part) in versions.gone.items():
        if version not in known:
            raise StoreError(f"{part} of {version} is missing in {place}")
    return Contents(
        versions.runs,
        versions.count,
        len(found),
        size,
        str(facts.get("made")),
        versions.elsewhere,
        (*versions.gone,),
        versions.runs_elsewhere,
    )


def _checked_name(member: tarfile.TarInfo) -> str:
    """Raises ValueError for what no backup holds, such as a link or a path that leads out."""
    path = PurePosixPath(member.name)
    inside = _is_held(path) or member.name in (DATABASE, STUDIES, LOCATION_FILE, LIST_FILE)
    if not member.isreg() or not inside:
        raise ValueError(f"'{member.name}' does not belong into a backup")
    return path.as_posix()


def _extract(source: IO[bytes], target: Path | None) -> str:
    digest = hashlib.sha256()
    if target is None:
        while block := source.read(1024**2):
            digest.update(block)
        return digest.hexdigest()
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as copy:
        shutil.copyfileobj(reader := _Digesting(source), copy, 1024**2)
    return reader.digest.hexdigest()


def _check_integrity(connection: sqlite3.Connection) -> None:
    [[verdict]] = connection.execute("PRAGMA integrity_check(1)").fetchall()
    if verdict != "ok":
        raise StoreError(f"the database in the backup is damaged: {verdict}")


@dataclass(frozen=True)
class _Versions:
    """Of a database: how many runs and versions it has, and which versions have files elsewhere, or none.

    gone: version → (the folder in the store where its files should be, what is missing there).
    runs_elsewhere: ids of active runs that keep their files in no folder that is copied.
    """

    runs: int
    count: int
    elsewhere: tuple[str, ...]
    gone: Mapping[str, tuple[str, str]]
    runs_elsewhere: tuple[str, ...]


def _find_versions(database: Path, root: str, files: Mapping[str, str]) -> _Versions:
    """root: folder of the store, as the database has it. Raises StoreError where the database is damaged."""
    with closing(sqlite3.connect(database)) as connection:
        _check_integrity(connection)
        active = connection.execute(
            "SELECT run_uuid, artifact_uri FROM runs WHERE lifecycle_stage = 'active'"
        ).fetchall()
        rows = connection.execute(
            "SELECT name, version, storage_location FROM model_versions WHERE current_stage != 'Deleted_Internal'"
        ).fetchall()
        of_runs = dict(connection.execute("SELECT run_uuid, artifact_uri FROM runs").fetchall())
    elsewhere = []
    gone = {}
    for name, version, place in rows:
        place = place or ""
        if place.startswith("runs:/"):
            run_id, _, path = place.removeprefix("runs:/").partition("/")
            place = f"{of_runs.get(run_id)}/{path}"
        folder = place.removeprefix(f"{root}/")
        is_logged_model = folder.startswith(f"{ARTIFACTS}/models/")
        if folder == place or not (is_logged_model or any(file.startswith(f"{folder}/") for file in files)):
            elsewhere.append(f"{name}/{version}")
            continue
        ours = [f"{EXTRA_FILES}/{part}" for part in LARGEST_FILES]
        needed = ["MLmodel"] if is_logged_model else []
        needed += ours if any(f"{folder}/{part}" in files for part in ours) else []
        if missing := [part for part in needed if f"{folder}/{part}" not in files]:
            gone[f"{name}/{version}"] = (folder, missing[0])
    runs_elsewhere = tuple(run_id for run_id, place in active if _inside(place or "", root) is None)
    return _Versions(len(active), len(rows), tuple(elsewhere), gone, runs_elsewhere)

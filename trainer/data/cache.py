"""Decoded datasets on disk, so that the second run starts at once."""

import json
import logging
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from trainer.data.base import Dataset, Split
from trainer.data.cache_file import METADATA_KEY, SUFFIX, array_key, cache_files, cache_path

FORMAT = 2
"""Raised when the content of a cache file changes; older files are then not found any more."""
TEMPORARY_SUFFIX = ".tmp"
KEPT = 4
"""Cache files of one dataset that stay, the last used first: several data folders, or part selections."""

logger = logging.getLogger(__name__)


class _DamagedError(Exception):
    """A cache file that is there and cannot be used."""


def cached(name: str, signature: str, build: Callable[[], Dataset]) -> Dataset:
    """The dataset that `build` returns, from the cache where it was built before.

    Processes that ask at the same moment wait for the first one's work. A cache that cannot be read or
    written costs time, never the dataset: both are logged as warnings. A dataset with files that were not
    read this time is not kept. What `build` raises is passed on.

    Args:
        name: which dataset; old files of the same name make room for new ones.
        signature: changes whenever `build` would return something else.
    """
    path = cache_path(name, f"{FORMAT} {signature}")
    # A damaged file is looked at again under the lock: another process may be building it anew.
    with suppress(_DamagedError):
        if (dataset := _load(path)) is not None:
            return dataset
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquire(FileLock(path.with_name(f"{name}.lock")))
    except (OSError, NotImplementedError) as error:
        logger.warning("no cache, the data are decoded each time: %s", error)
        return build()
    try:
        try:
            if (dataset := _load(path)) is not None:
                return dataset
        except _DamagedError as error:
            logger.warning("the cache file %s is damaged and is built again: %s", path, error)
        dataset = build()
        if dataset.unread:
            logger.warning(
                "files that could not be read this time: %d; the data are decoded again the next time",
                dataset.unread,
            )
            return dataset
        try:
            _save(dataset, path)
            _prune(name)
        except OSError as error:
            logger.warning("the cache could not be written, the data are decoded each time: %s", error)
        return dataset
    finally:
        lock.release()


def _acquire(lock: FileLock) -> FileLock:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another process is reading the same dataset; waiting for it (%s)", lock.lock_file)
        lock.acquire()
    return lock


def _save(dataset: Dataset, path: Path) -> None:
    """Write to a file beside `path`, then rename: a reader finds the whole file or none."""
    arrays: dict[str, np.ndarray] = {}
    for part, split in dataset.parts.items():
        arrays[array_key(part, "images")] = np.ascontiguousarray(split.images.numpy())
        arrays[array_key(part, "target")] = np.ascontiguousarray(split.target.numpy())
    facts = {
        "name": dataset.name,
        "class_names": dataset.class_names,
        "source": dataset.source,
        "skipped": dataset.skipped,
        "notes": dataset.notes,
        "sample_ids": {part: split.sample_ids for part, split in dataset.parts.items()},
        "checksums": {key: zlib.crc32(array.data) for key, array in arrays.items()},
    }
    temporary = path.with_suffix(TEMPORARY_SUFFIX)
    try:
        save_file(arrays, temporary, metadata={METADATA_KEY: json.dumps(facts)})
        temporary.replace(path)
    except SafetensorError as error:  # how safetensors reports a full disk
        raise OSError(str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _load(path: Path) -> Dataset | None:
    """None where there is no such file. Raises _DamagedError."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()[METADATA_KEY])
            tensors = {key: _checked(file.get_tensor(key), crc) for key, crc in facts["checksums"].items()}
        parts = {
            part: Split(tensors[array_key(part, "images")], tensors[array_key(part, "target")], tuple(ids))
            for part, ids in facts["sample_ids"].items()
        }
        dataset = Dataset(
            facts["name"],
            tuple(facts["class_names"]),
            parts,
            facts["source"],
            tuple(facts["skipped"]),
            notes=tuple(facts["notes"]),
        )
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise _DamagedError(str(error)) from error
    with suppress(OSError):  # a read-only cache serves as well
        os.utime(path)  # "last used", for _prune
    return dataset


def _checked(tensor: Tensor, crc: int) -> Tensor:
    if zlib.crc32(tensor.numpy().data) != crc:
        raise ValueError("its checksum does not match its content")
    return tensor


def _prune(name: str) -> None:
    """Remove all but the KEPT last used files of `name`, and what a killed process left half-written."""
    kept = set(cache_files(name)[:KEPT])
    for path in cache_files(name, (SUFFIX, TEMPORARY_SUFFIX)):
        if path not in kept:
            path.unlink(missing_ok=True)

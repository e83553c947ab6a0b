"""The file of a decoded dataset: where it lies and how it is laid out (no torch: pictures are read from it, too)."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

METADATA_KEY = "dataset"
"""Metadata of the safetensors file: a JSON object.

Its keys: name, class_names, source, skipped, notes, sample_ids, checksums.
"""
SUFFIX = ".safetensors"


def cache_folder() -> Path:
    """MOODIFY_CACHE, or `data/cache` in the working directory."""
    return Path(os.environ.get("MOODIFY_CACHE") or "data/cache")


def cache_path(name: str, signature: str) -> Path:
    """The file of the dataset `name` that was built from what `signature` stands for."""
    digest = hashlib.blake2b(signature.encode(), digest_size=8).hexdigest()
    return cache_folder() / f"{name}-{digest}{SUFFIX}"


def cache_files(name: str, suffixes: Sequence[str] = (SUFFIX,)) -> list[Path]:
    """Every file of the dataset `name`, the last used first; none where there is no folder."""
    pattern = re.compile(re.escape(name) + r"-[0-9a-f]{16}(" + "|".join(map(re.escape, suffixes)) + ")")
    folder = cache_folder()
    files = [path for path in folder.iterdir() if pattern.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def array_key(part: str, field: str) -> str:
    """The name of an array in the file; `field` is images or target."""
    return f"{part}.{field}"


def fingerprint(
    class_names: Sequence[str], images: np.ndarray, target: np.ndarray, sample_ids: Sequence[str]
) -> str:
    """32 hex digits that name exactly these images, labels, ids and class names.

    images: uint8 (N, 1, H, W). target: int64 (N,).
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((tuple(class_names), tuple(images.shape))).encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(target).data)
    digest.update("\n".join(sample_ids).encode())
    return digest.hexdigest()

"""Lists of images that a training leaves out: one sample id a line, `#` begins a comment line."""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.data.base import Split

_NAMED = 3
_LONGEST_ID = 100


@dataclass(frozen=True)
class Exclusion:
    """What a list asks for, and what came of it.

    name: of the file. digest: 16 hex digits that name the listed ids, in whatever order. images: how many left train.
    elsewhere: listed ids that are in validation or test, where they stay.
    """

    name: str
    digest: str
    images: int
    elsewhere: int

    def sentence(self) -> str:
        """`Trained without 41 images of exclude.txt (digest 0123456789abcdef).`"""
        stay = f" {self.elsewhere:,} more of its ids are in validation or test and stay there."
        return (
            f"Trained without {self.images:,} image{'' if self.images == 1 else 's'} of {self.name} "
            f"(digest {self.digest}).{stay if self.elsewhere else ''}"
        )


def read_list(path: Path) -> frozenset[str]:
    """The sample ids of a list. Raises ValueError where it cannot be read, or has none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ValueError(f"--exclude {path} cannot be read: {reason}") from error
    ids = frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not ids:
        raise ValueError(f"--exclude {path} lists no sample id (one a line; lines with # are comments)")
    return ids


def list_digest(path: Path) -> str | None:
    """`Exclusion.digest` of a list; None where there is none that can be read."""
    try:
        return _digest(read_list(path))
    except ValueError:
        return None


def exclude(
    path: Path, train: Split, class_names: Collection[str], others: Collection[str], dataset: str
) -> tuple[Split, Exclusion]:
    """`train` without the images that the list at `path` names.

    Args:
        others: Sample ids that are known as well, but are not in train: they may be listed and are not touched.
        dataset: Its name; a list may say that it is of another one, whose images may be called the same.

    Raises ValueError where the list cannot be read, is of another dataset, names an id that the dataset does not have,
    or leaves a class without an image.
    """
    listed = read_list(path)
    of = re.match(r"\ufeff?# Images of (\S+) \(", path.read_text(encoding="utf-8"))
    if of is not None and of[1] != dataset:
        raise ValueError(f"--exclude {path} lists images of {of[1]}, not of {dataset}")
    elsewhere = listed.intersection(others)
    if unknown := sorted(listed.difference(train.sample_ids, others)):
        some = ", ".join(sample_id[:_LONGEST_ID] for sample_id in unknown[:_NAMED])
        more = f" and {len(unknown) - _NAMED:,} more" if len(unknown) > _NAMED else ""
        raise ValueError(f"--exclude {path} lists images that the dataset does not have: {some}{more}")
    kept = train.select(np.flatnonzero([sample_id not in listed for sample_id in train.sample_ids]))
    counts = dict(zip(class_names, kept.class_counts(len(class_names)), strict=True))
    if empty := [name for name, count in counts.items() if not count]:
        raise ValueError(f"--exclude {path} leaves no training image of {', '.join(empty)}")
    return kept, Exclusion(path.name, _digest(listed), len(train) - len(kept), len(elsewhere))


def _digest(listed: Collection[str]) -> str:
    return hashlib.blake2b("\n".join(sorted(listed)).encode(), digest_size=8).hexdigest()

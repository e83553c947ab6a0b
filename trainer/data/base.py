"""What a dataset is once it is in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainer.data.cache_file import fingerprint


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images of one part, in memory.

    images: uint8 (N, 1, H, W), 0 is black. target: int64 (N,), an index into the class names of the
    dataset. sample_ids: N names that stay the same from run to run.
    """

    images: Tensor
    target: Tensor
    sample_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.target)

    def select(self, index: np.ndarray | Tensor) -> "Split":
        """The samples at `index` (int64 (M,)), in that order."""
        index = torch.as_tensor(index)
        return Split(
            self.images[index], self.target[index], tuple(self.sample_ids[i] for i in index.tolist())
        )

    def class_counts(self, num_classes: int) -> list[int]:
        return torch.bincount(self.target, minlength=num_classes).tolist()

    def brightness(self) -> tuple[float, float]:
        """Mean and standard deviation of the pixels, in [0, 1]."""
        counts = torch.bincount(self.images.flatten(), minlength=256).numpy()
        levels, share = np.arange(256) / 255, counts / counts.sum()
        mean = float((levels * share).sum())
        return mean, max(float(np.sqrt(((levels - mean) ** 2 * share).sum())), 1e-3)

    def fingerprint(self, class_names: Sequence[str]) -> str:
        """32 hex digits that name exactly these images, labels, ids and class names."""
        return fingerprint(class_names, self.images.numpy(), self.target.numpy(), self.sample_ids)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset as it was found: its parts before any validation protocol is applied.

    skipped: one line for each file that could not be read, "path: reason". unread: how many of these may be readable
    another time, as where a mount was gone. notes: one line for each thing that was passed over and may be missed.
    """

    name: str
    class_names: tuple[str, ...]
    parts: dict[str, Split]
    source: str
    skipped: tuple[str, ...] = field(default=())
    unread: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetSource:
    """How one dataset is loaded.

    load(data_dir, parts) returns a Dataset with at least the wanted parts; `data_dir` is None where
    the user gave none. It raises ValueError, with a message for the user, where the data cannot be
    used, and FileNotFoundError where there are none.
    group(sample_id) names the official subset of test that a sample belongs to ("public", "private"),
    or None.
    """

    load: Callable[[Path | None, Sequence[str]], Dataset]
    group: Callable[[str], str | None] = lambda sample_id: None

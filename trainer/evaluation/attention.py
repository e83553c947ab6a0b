"""What a network looks at on average, as it is kept with a run."""

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

SIMILAR = 0.5
"""From such a correlation with the maps of random weights on, maps tell of the images and not of what was learned."""


@dataclass(frozen=True, eq=False)
class Attention:
    """Mean faces and mean maps.

    images: int64 (K,), how many of each class went in. faces: float32 (K, S, S), grey levels of 256. maps: float32
    (K, S, S), from 0 to 1, how much each place spoke for the class. random_similarity: mean correlation of maps with
    those of the same network with random weights: the sanity check of Adebayo et al. (arXiv 1810.03292); NaN where all
    of these are flat.
    """

    class_names: tuple[str, ...]
    images: np.ndarray
    faces: np.ndarray
    maps: np.ndarray
    random_similarity: float

    def save(self, path: Path) -> None:
        """As .npz, with 8 bits a pixel."""
        np.savez_compressed(
            path,
            class_names=np.array(self.class_names),
            images=self.images,
            faces=self.faces.clip(0, 255).round().astype(np.uint8),
            maps=(self.maps.clip(0, 1) * 255).round().astype(np.uint8),
            random_similarity=np.float64(self.random_similarity),
        )

    @classmethod
    def load(cls, path: Path) -> "Attention":
        """Executes nothing of the file. Raises ValueError where it holds something else."""
        try:
            with np.load(path, allow_pickle=False) as found:
                attention = cls(
                    class_names=tuple(map(str, found["class_names"])),
                    images=found["images"],
                    faces=found["faces"].astype(np.float32),
                    maps=found["maps"].astype(np.float32) / 255,
                    random_similarity=float(found["random_similarity"]),
                )
        except (KeyError, TypeError, EOFError, BadZipFile, zlib.error) as error:
            raise ValueError(f"it is not what Moodify keeps: {error}") from error
        count = len(attention.class_names)
        if attention.faces.shape != attention.maps.shape or attention.faces.shape[:1] != (count,) or (
            attention.images.shape != (count,) or attention.faces.ndim != 3
        ):  # fmt: skip
            raise ValueError("its parts do not fit together")
        return attention

    def checked(self) -> str:
        """What follows from random_similarity, as the end of a sentence on maps of random weights."""
        if math.isnan(self.random_similarity):
            return "the same images have flat maps: that checks nothing"
        told = f"the same images have maps that correlate with these by {self.random_similarity:.2f}"
        told = told.replace("-", "−")
        if self.random_similarity < SIMILAR:
            return f"{told}: they are not those of random weights"
        return f"{told}: they tell of the images rather than of what was learned"

    def lower_share(self, index: int) -> float:
        """Of what speaks for a class, the share in the lower half of the face: the mouth rather than the eyes."""
        found = self.maps[index]
        total = float(found.sum())
        return float(found[len(found) // 2 :].sum()) / total if total else float("nan")

"""What every model that answers has in common, whatever its format (no torch)."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Model(Protocol):
    """Whatever answers, of our format or a foreign one.

    class_names: of the answers' columns. size, channels: of the images that it takes. temperature: that its
    probabilities are calibrated with; 1 where they are as trained. notes: what was assumed of it, in whole sentences.
    size_bytes: of its weights in memory, about.
    """

    class_names: tuple[str, ...]
    size: int
    channels: int
    temperature: float
    notes: tuple[str, ...]
    size_bytes: int

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, float32 (N, K), of images, uint8 (N, channels, size, size)."""
        ...

    def saliency(self, images: np.ndarray, classes: Sequence[int]) -> np.ndarray | None:
        """What speaks for each image's class and where, float32 (N, size, size) from 0 to 1; None: it cannot tell."""
        ...


def asked(model: Model, images: np.ndarray) -> list[np.ndarray | str]:
    """For each image its probabilities, float32 (K,), or why there are none.

    A stranger's model may fail on one image, which must not cost the others theirs: then each is asked about alone.
    """
    try:
        return list(model(images))
    except ValueError as error:
        if len(images) == 1:
            return [str(error)]
        return [told for image in images for told in asked(model, image[None])]

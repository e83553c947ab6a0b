"""A model that answers: grey faces in, named probabilities out."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainer.inference.bundle import ModelSpec, read
from trainer.models.base import Classifier, Probabilities, to_unit_range

BATCH_SIZE = 64


class Predictor:
    """A classifier of our format, ready for faces.

    Attributes:
        spec: what the model says of itself; `spec.class_names` name the columns of the answers.
    """

    def __init__(self, classifier: Classifier, spec: ModelSpec):
        self.spec = spec
        self._model = Probabilities(classifier, spec.temperature).eval()

    @classmethod
    def load(cls, folder: Path) -> "Predictor":
        """Raises BundleError where `folder` holds no usable model."""
        return cls(*read(folder))

    @torch.inference_mode()
    def __call__(self, images: Tensor | np.ndarray) -> np.ndarray:
        """Probabilities, float32 (N, K), of images, uint8 (N, 1, S, S), S being `spec.source_size`."""
        images = torch.as_tensor(images)
        expected = (1, self.spec.source_size, self.spec.source_size)
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != expected:
            found = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(f"expected uint8 images (N, {', '.join(map(str, expected))}), got {found}")
        answers = [self._model(to_unit_range(batch)) for batch in images.split(BATCH_SIZE)]
        return (
            torch.cat(answers).numpy() if answers else np.empty((0, len(self.spec.class_names)), np.float32)
        )

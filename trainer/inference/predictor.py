"""A model of our format that answers: faces in, named probabilities out."""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainer.inference.bundle import ModelSpec, read
from trainer.inference.saliency import layer_cam
from trainer.models.base import VIEWS, Classifier, to_unit_range

BATCH_SIZE = 64
"""Views in one pass: on a CPU more take longer for each, and more memory."""
_AVERAGED = {
    "flip": "Each answer is the mean over the face and its mirror image.",
    "ten": "Each answer is the mean over ten views: the face, shifted to four corners, and mirrored.",
}


class Predictor:
    """A classifier of our format, ready for faces; a `trainer.inference.model.Model`.

    Attributes:
        spec: what the model says of itself; `spec.class_names` name the columns of the answers.
        network: float32 images in [0, 1] to probabilities.
    """

    channels = 1

    def __init__(self, classifier: Classifier, spec: ModelSpec):
        self.spec = spec
        self.class_names = spec.class_names
        self.size = spec.source_size
        self.temperature = spec.temperature
        self.notes: tuple[str, ...] = () if spec.averaging == "none" else (_AVERAGED[spec.averaging],)
        self.size_bytes = sum(t.numel() * t.element_size() for t in classifier.state_dict().values())
        self.network = spec.answering(classifier)
        self._explaining = (
            threading.Lock()
        )  # hooks of two sessions on one network would see each other's features

    @classmethod
    def load(cls, folder: Path) -> "Predictor":
        """Raises BundleError where `folder` holds no usable model."""
        return cls(*read(folder))

    @torch.inference_mode()
    def __call__(self, images: Tensor | np.ndarray) -> np.ndarray:
        """Probabilities, float32 (N, K), of images, uint8 (N, 1, S, S), S being `spec.source_size`."""
        batches = self._checked(images).split(max(1, BATCH_SIZE // VIEWS[self.spec.averaging]))
        answers = [self.network(to_unit_range(batch)) for batch in batches]
        return torch.cat(answers).numpy() if answers else np.empty((0, len(self.class_names)), np.float32)

    def fingerprint(self) -> str:
        """Of all that decides its answers: the spec and the weights."""
        digest = hashlib.sha256(self.spec.to_json().encode())
        for name, tensor in sorted(self.network.classifier.state_dict().items()):
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def saliency(self, images: Tensor | np.ndarray, classes: Sequence[int]) -> np.ndarray | None:
        """As Model.saliency; see `layer_cam`."""
        images = self._checked(images)
        if not len(images):
            return np.empty((0, self.size, self.size), np.float32)
        with self._explaining:
            try:
                return layer_cam(self.network.classifier, to_unit_range(images), classes).numpy()
            except ValueError:
                return None

    def _checked(self, images: Tensor | np.ndarray) -> Tensor:
        images = torch.as_tensor(images)
        expected = (self.channels, self.size, self.size)
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != expected:
            found = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(f"expected uint8 images (N, {', '.join(map(str, expected))}), got {found}")
        return images


def share_cores() -> None:
    """Use one thread for each answer, in this process from now on.

    Where several answer at once, or faces are looked for meanwhile, threads of torch on the same cores wait for each
    other: an answer then took 21 to 150 ms instead of 2 to 5.
    """
    torch.set_num_threads(1)

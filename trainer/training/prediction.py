"""What a network answers to many images."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainer.models.base import VIEWS, Classifier, Probabilities, to_unit_range

EVALUATION_BATCH = 256
"""Of images of up to 48 px; of larger ones so many fewer that they take as much memory."""


def evaluation_batch(model: nn.Module) -> int:
    """Images that a Classifier or a Probabilities is asked about at once."""
    classifier = model.classifier if isinstance(model, Probabilities) else model
    side = classifier.side if isinstance(classifier, Classifier) else 48
    return max(1, round(EVALUATION_BATCH * min(1.0, (48 / side) ** 2)))


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """What a model that lies on `device` answers to uint8 images (N, 1, S, S), in evaluation mode: float32 (N, K).

    Logits of a Classifier, probabilities of a Probabilities.
    """
    model.eval()
    batches = images.split(evaluation_batch(model))
    return torch.cat([model(to_unit_range(batch.to(device))).float() for batch in batches])


@torch.inference_mode()
def predict_views(model: Probabilities, images: Tensor, device: torch.device) -> Tensor:
    """The logits of each view, float32 (V, N, K) on `device`; otherwise as `predict`.

    On a GPU in whole 32-bit floats, slower than `predict`: figures are reported of these, and a CPU has to give them.
    """
    model.eval()
    batches = images.split(max(1, evaluation_batch(model) // VIEWS[model.averaging]))
    with in_full_precision():
        logits = [model.view_logits(to_unit_range(batch.to(device))).float() for batch in batches]
    return torch.cat(logits, dim=1)


@contextmanager
def in_full_precision() -> Iterator[None]:
    """cuDNN would take TF32, of 10 bits, for convolutions of 32-bit floats."""
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before

"""Whether writing lies over a face, as stock photographs carry it: a small network that was taught on drawn writing.

`python -m trainer.training.watermarks` makes its weights.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trainer.models import cnn

SIDE = 48
WEIGHTS = Path(__file__).with_suffix(".safetensors")
_BATCH = 64


def watermark(images: np.ndarray) -> np.ndarray:
    """How likely each image is to carry one, float64 (N,) in [0, 1].

    The share is not that of a dataset: the network was taught on as many images with writing as without.

    Args:
        images: uint8 (N, 1, S, S).
    """
    network = _network()
    with torch.inference_mode():
        parts = [
            network(prepare(part)).softmax(1)[:, 1] for part in torch.from_numpy(images.copy()).split(_BATCH)
        ]
    return torch.cat(parts).double().numpy() if parts else np.empty(0)


def prepare(images: Tensor) -> Tensor:
    """uint8 (N, 1, S, S) → what the network sees: float32 (N, 1, SIDE, SIDE), from −2 to 2."""
    wanted = images.float() / 255
    if wanted.shape[-1] != SIDE:
        wanted = nn.functional.interpolate(wanted, (SIDE, SIDE), mode="area")
    return (wanted - 0.5) / 0.25


def build() -> nn.Module:
    """The network without its weights: (N, 1, SIDE, SIDE) → two logits, no and yes."""
    return cnn.build(2, 1, SIDE, "24 48x2 96x2 96", "residual", hidden=0, dropout=0.1)


@cache
def _network() -> nn.Module:
    network = build()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval()

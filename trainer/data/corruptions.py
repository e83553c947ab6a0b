"""Images made worse on purpose: ten kinds of corruption in five strengths, the same ones for every model.

After Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions" (arXiv 1903.12261), with
kinds that happen to small grey faces. Strength 1 is hardly noticed, at 5 people still tell most faces.
"""

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional

from trainer.contract import STRENGTHS


@dataclass(frozen=True)
class Corruption:
    """One kind: `apply(images, amount, generator)`, float32 (N, 1, S, S) in [0, 1], for the amount of each strength."""

    apply: Callable[[Tensor, float, Generator], Tensor]
    amounts: tuple[float, float, float, float, float]


def corrupted(images: Tensor) -> Iterator[tuple[str, int, Tensor]]:
    """(kind, strength, uint8 (N, 1, S, S)) for every kind and strength of uint8 images; the same at every call."""
    for kind in CORRUPTIONS:
        for strength in STRENGTHS:
            yield kind, strength, corrupt(images, kind, strength)


def corrupt(images: Tensor, kind: str, strength: int) -> Tensor:
    """uint8 (N, 1, S, S), of uint8 images; `strength` is one of STRENGTHS."""
    corruption = CORRUPTIONS[kind]
    generator = Generator().manual_seed(STRENGTHS.index(strength))
    amount = corruption.amounts[strength - 1]
    worse = corruption.apply(images.float() / 255, amount, generator)
    return (worse.clamp(0, 1) * 255).round().to(torch.uint8)


def _blur(images: Tensor, sigma_share: float, generator: Generator) -> Tensor:
    sigma = sigma_share * images.shape[-1]
    reach = max(1, math.ceil(3 * sigma))
    bell = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * sigma**2))
    bell /= bell.sum()
    padded = functional.pad(images, (reach,) * 4, mode="replicate")
    return functional.conv2d(functional.conv2d(padded, bell.view(1, 1, -1, 1)), bell.view(1, 1, 1, -1))


def _noise(images: Tensor, deviation: float, generator: Generator) -> Tensor:
    return images + deviation * torch.randn(images.shape, generator=generator)


def _jpeg(images: Tensor, quality: float, generator: Generator) -> Tensor:
    found = []
    for image in (images * 255).round().to(torch.uint8).squeeze(1).numpy():
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=round(quality))
        found.append(np.asarray(Image.open(buffer), np.float32) / 255)
    return torch.from_numpy(np.stack(found)).unsqueeze(1)


def _brightness(images: Tensor, amount: float, generator: Generator) -> Tensor:
    return images + amount * _signs(images)


def _contrast(images: Tensor, share_left: float, generator: Generator) -> Tensor:
    mean = images.mean(dim=(2, 3), keepdim=True)
    return mean + share_left * (images - mean)


def _low_resolution(images: Tensor, share_left: float, generator: Generator) -> Tensor:
    side = max(2, round(share_left * images.shape[-1]))
    small = functional.interpolate(images, size=(side, side), mode="area")
    return functional.interpolate(small, size=images.shape[-2:], mode="bilinear", align_corners=False)


def _rotation(images: Tensor, degrees: float, generator: Generator) -> Tensor:
    angle = math.radians(degrees) * _signs(images).flatten()
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = torch.cos(angle)
    theta[:, 0, 1], theta[:, 1, 0] = -torch.sin(angle), torch.sin(angle)
    return _moved(images, theta)


def _shift(images: Tensor, share: float, generator: Generator) -> Tensor:
    """By a share of the side: right, left, down and up in turn."""
    way = torch.arange(len(images)) % 4
    theta = torch.eye(2, 3).repeat(len(images), 1, 1)
    sign = 1.0 - 2.0 * (way % 2)
    theta[:, 0, 2] = torch.where(way < 2, 2 * share * sign, 0)  # the side is 2 long
    theta[:, 1, 2] = torch.where(way < 2, 0, 2 * share * sign)
    return _moved(images, theta)


def _moved(images: Tensor, theta: Tensor) -> Tensor:
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _covered(
    top: float, bottom: float, left: float, right: float
) -> Callable[[Tensor, float, Generator], Tensor]:
    """A black box over a part of the face, in shares of the side; `share` of its height and width is covered."""

    def cover(images: Tensor, share: float, generator: Generator) -> Tensor:
        side = images.shape[-1]
        middle = (torch.arange(side) + 0.5) / side
        rows = (middle - (top + bottom) / 2).abs() < share * (bottom - top) / 2
        columns = (middle - (left + right) / 2).abs() < share * (right - left) / 2
        return torch.where(rows[:, None] & columns, 0.0, images)

    return cover


def _signs(images: Tensor) -> Tensor:
    """1 and −1 in turn, (N, 1, 1, 1): half of the images one way, half the other."""
    return (1.0 - 2.0 * (torch.arange(len(images)) % 2)).view(-1, 1, 1, 1)


# Sides and shares are of the image's side: 48 px in FER-2013.
CORRUPTIONS: dict[str, Corruption] = {
    "blur": Corruption(_blur, (0.0125, 0.02, 0.03, 0.04, 0.05)),  # σ: 0.6 to 2.4 px
    "noise": Corruption(_noise, (0.03, 0.06, 0.1, 0.15, 0.2)),  # standard deviation, of the range
    "JPEG": Corruption(_jpeg, (50, 30, 20, 12, 7)),  # quality
    "brightness": Corruption(
        _brightness, (0.1, 0.2, 0.3, 0.4, 0.5)
    ),  # of the range, brighter and darker in turn
    "contrast": Corruption(_contrast, (0.7, 0.5, 0.35, 0.25, 0.15)),  # what is left
    "low resolution": Corruption(_low_resolution, (0.7, 0.5, 0.4, 0.3, 0.23)),  # of the side: 34 to 11 px
    "rotation": Corruption(_rotation, (8, 15, 25, 35, 45)),  # degrees, left and right in turn
    "shift": Corruption(_shift, (0.05, 0.1, 0.15, 0.2, 0.25)),  # of the side
    "eyes covered": Corruption(_covered(0.26, 0.52, 0.08, 0.92), (0.4, 0.55, 0.7, 0.85, 1.0)),
    "mouth covered": Corruption(_covered(0.64, 0.92, 0.18, 0.82), (0.4, 0.55, 0.7, 0.85, 1.0)),
}

"""Augmentation of a batch on its device: every image draws its own transform, in a few tensor operations."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.distributions import Beta
from torch.nn import functional

from trainer.training.shares import Share


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Amplitudes; 0 switches an element off."""

    flip: bool = False
    rotation: float = 0.0
    """Largest rotation, in degrees."""
    zoom: float = 0.0
    """Largest change of scale, as a share."""
    shift: float = 0.0
    """Largest shift, as a share of the side."""
    erase: float = 0.0
    """Probability that a rectangle is erased."""
    jitter: float = 0.0
    """Largest change of contrast, as a share, and of brightness, as half that share of the range."""

    def __call__(
        self, images: Tensor, generator: Generator, side: int | None = None, share: Share | None = None
    ) -> Tensor:
        """float32 (B, C, S, S) in [0, 1] in, the same out, or (B, C, side, side).

        `generator` lives on the device of `images`. Where the images are moved anyway, another side costs no second
        interpolation; otherwise it is left to whoever takes them.

        Args:
            share: Where `images` are a share of a batch: what is drawn is drawn for the whole of it, so that an image
                gets the same transform in any number of parts.
        """
        draw = (
            _Draw(generator, share.whole, share.part) if share else _Draw(generator, len(images), slice(None))
        )
        if self.rotation or self.zoom or self.shift:
            images = self._affine(images, draw, side or images.shape[-1])
        elif self.flip:
            mirrored = draw(0, 1) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        if self.jitter:
            images = self._jitter(images, draw)
        if self.erase:
            images = self._erase(images, draw)
        return images

    def _affine(self, images: Tensor, draw: "_Draw", side: int) -> Tensor:
        batch, channels = images.shape[:2]
        angle = draw(-1, 1) * math.radians(self.rotation)
        # The grid maps output to input: dividing by the scale enlarges the face.
        scale = 1 / (1 + draw(-1, 1) * self.zoom)
        mirror = torch.ones_like(angle)
        if self.flip:
            mirror = torch.where(draw(0, 1) < 0.5, -mirror, mirror)
        cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
        # Coordinates run from -1 to 1, so a share of the side counts twice.
        across, down = (draw(-2, 2) * self.shift for _ in range(2))
        theta = torch.stack(
            [torch.stack([cosine * mirror, -sine, across], 1), torch.stack([sine * mirror, cosine, down], 1)],
            1,
        )  # (B, 2, 3)
        grid = functional.affine_grid(theta, [batch, channels, side, side], align_corners=False)
        # Repeating the border keeps the statistics of a crop; black corners would not occur at test time.
        return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _jitter(self, images: Tensor, draw: "_Draw") -> Tensor:
        contrast, brightness = (draw(-1, 1)[:, None, None, None] * self.jitter for _ in range(2))
        grey = images.mean(dim=(1, 2, 3), keepdim=True)
        return ((images - grey) * (1 + contrast) + grey + brightness / 2).clamp(0, 1)

    def _erase(self, images: Tensor, draw: "_Draw") -> Tensor:
        side = images.shape[-1]
        area = draw(0.02, 0.2) * side * side
        aspect = torch.exp(draw(-1, 1) * math.log(3))
        height, width = (area * aspect).sqrt(), (area / aspect).sqrt()
        hole = _rectangle(side, height, width, draw)
        chosen = draw(0, 1) < self.erase
        hole = hole & chosen[:, None, None, None]
        grey = images.mean(dim=(1, 2, 3), keepdim=True)
        return torch.where(hole, grey, images)


def mixup(images: Tensor, target: Tensor, alpha: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Blend each image with another of its batch (arXiv 1710.09412).

    Args:
        images: float32 (B, C, S, S). target: float32 (B, K), rows sum to 1.
        alpha: of the Beta distribution that the share is drawn from (by torch's global generator);
            one share an image.
    """
    share = _larger_share(images, alpha)
    order = torch.randperm(len(images), generator=generator, device=images.device)
    wide = share[:, None, None, None]
    mixed = images * wide + images[order] * (1 - wide)
    return mixed, target * share[:, None] + target[order] * (1 - share[:, None])


def cutmix(images: Tensor, target: Tensor, alpha: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Put a rectangle of another image of its batch into each (arXiv 1905.04899); arguments as of `mixup`.

    The rectangle has the proportions of the image and lies inside it; the target is divided as the pixels are.
    """
    side = images.shape[-1]
    extent = side * (1 - _larger_share(images, alpha)).sqrt()
    hole = _rectangle(side, extent, extent, _Draw(generator, len(images), slice(None)))
    order = torch.randperm(len(images), generator=generator, device=images.device)
    share = 1 - hole.float().mean(dim=(1, 2, 3))[:, None]
    return torch.where(hole, images[order], images), target * share + target[order] * (1 - share)


def _larger_share(images: Tensor, alpha: float) -> Tensor:
    """What stays of each image, float32 (B,): one half or more."""
    parameter = torch.full((len(images),), alpha, device=images.device)
    share = Beta(parameter, parameter, validate_args=False).sample()  # validation would wait for the device
    return torch.maximum(share, 1 - share)


@dataclass(frozen=True)
class _Draw:
    """One number an image, float32 (B,)."""

    generator: Generator
    whole: int
    part: slice

    def __call__(self, low: float, high: float) -> Tensor:
        drawn = torch.rand(self.whole, generator=self.generator, device=self.generator.device)
        return drawn[self.part] * (high - low) + low


def _rectangle(side: int, height: Tensor, width: Tensor, draw: _Draw) -> Tensor:
    """A rectangle in each image, anywhere inside it, bool (B, 1, S, S); height and width are float32 (B,), in px."""
    top, left = (draw(0, 1) * (side - extent) for extent in (height, width))
    pixel = torch.arange(side, device=height.device)
    rows = (pixel >= top[:, None]) & (pixel < (top + height)[:, None])  # (B, S)
    columns = (pixel >= left[:, None]) & (pixel < (left + width)[:, None])
    return rows[:, None, :, None] & columns[:, None, None, :]

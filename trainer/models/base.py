"""The classifier around a network: from a grey face to logits, and what is trained in it."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.models import listing

Averaging = Literal["none", "flip", "ten"]
VIEWS: Mapping[Averaging, int] = {"none": 1, "flip": 2, "ten": 10}
"""Views of an image whose probabilities are averaged."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Classifier(nn.Module):
    """A network with everything that it needs to be given grey faces.

    Every classifier of a dataset takes the same input, whatever its network takes, so that one
    registered version can replace another: float32 (B, 1, S, S) in [0, 1], S the dataset's own size.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, *, image_size: int, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.network = network
        self.side = image_size  # a training may make it smaller for a while
        self._frozen: list[nn.Module] = []
        # Not in the state dict: they are part of the model's description, not of what is learned.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 (B, K), of images, float32 (B, 1, S, S) in [0, 1]."""
        if images.shape[-1] != self.side:
            size = (self.side, self.side)
            images = functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
        # (B, 1, H, W) against (C, 1, 1): a grey image becomes C equal channels by broadcasting.
        return self.network((images - self.mean) / self.std)

    def freeze_except(self, names: Sequence[str]) -> None:
        """Train only the submodules of the network called `names`; all of them where there are none."""
        if not names:
            return
        self.network.requires_grad_(False)
        for name in names:
            self.network.get_submodule(name).requires_grad_(True)
        self._frozen = [child for name, child in self.network.named_children() if name not in names]

    def train(self, mode: bool = True) -> "Classifier":
        """Frozen parts stay in evaluation mode, so that their batch-norm statistics do not move."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def parameter_counts(self) -> dict[str, int]:
        parameters = list(self.parameters())
        return {
            "parameters": sum(p.numel() for p in parameters),
            "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        }


class Probabilities(nn.Module):
    """A classifier that answers with probabilities: calibrated by a temperature, and averaged over views of each image.

    Args:
        averaging: `none`: the image itself. `flip`: also its mirror image. `ten`: five views, the image and four
            that are shifted to the corners by 1/12 of the side (its border repeated), each with its mirror image.
    """

    def __init__(self, classifier: Classifier, temperature: float = 1.0, averaging: Averaging = "none"):
        super().__init__()
        if averaging not in VIEWS:
            raise ValueError(f"there is no averaging '{averaging}'; choose one of {', '.join(VIEWS)}")
        self.classifier = classifier
        self.temperature = temperature
        self.averaging = averaging

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities, float32 (B, K), of images, float32 (B, 1, S, S) in [0, 1]."""
        return functional.softmax(self.view_logits(images) / self.temperature, dim=2).mean(dim=0)

    def view_logits(self, images: Tensor) -> Tensor:
        """Logits of each view, float32 (V, B, K), in one pass over all of them."""
        views = self._views(images)
        return self.classifier(torch.cat(views)).unflatten(0, (len(views), -1))

    def _views(self, images: Tensor) -> list[Tensor]:
        views = [images]
        if self.averaging == "ten":
            side = images.shape[-1]
            margin = side // 12
            padded = functional.pad(images, (margin,) * 4, mode="replicate")
            corners = [(top, left) for top in (0, 2 * margin) for left in (0, 2 * margin)]
            views += [padded[:, :, top : top + side, left : left + side] for top, left in corners]
        if self.averaging != "none":
            views += [view.flip(3) for view in views]
        return views


def to_unit_range(images: Tensor) -> Tensor:
    """float32 in [0, 1] of uint8 images, the same shape."""
    return images.float().div_(255)


def build_network(
    architecture: str,
    *,
    num_classes: int,
    channels: int,
    image_size: int,
    options: Mapping[str, str | int | float],
) -> nn.Module:
    """A freshly initialised network: (B, channels, image_size, image_size) → (B, num_classes).

    Raises ValueError for an unknown architecture, or for options that it does not take.
    """
    entry = listing(architecture)
    unknown = sorted(set(options) - set(entry.options))
    if unknown:
        raise ValueError(f"{architecture} takes no {', '.join(unknown)}; it takes {', '.join(entry.options)}")
    build = importlib.import_module(entry.module).build
    return build(num_classes=num_classes, channels=channels, image_size=image_size, **options)

"""Plain convolutional networks, described by one line of text."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from trainer.models.blocks import map_side, parse_blocks


def build(
    num_classes: int,
    channels: int,
    image_size: int,
    blocks: str = "32 64 128",
    layout: str = "plain",
    hidden: int = 512,
    dropout: float = 0.4,
) -> nn.Module:
    """Blocks of 3×3 convolutions, each of which halves the map, and a head.

    Args:
        blocks: one word a block: its width, or `128x2` for two convolutions of width 128.
        layout: `plain`: Conv-BatchNorm-ReLU, and a 2×2 max-pool at the end of the block (the student report's).
            `residual`: Conv-Pool-BatchNorm-ReLU, and every further convolution of the block is added to its input;
            learns faster, and normalises a quarter of the pixels.
        hidden: width of a hidden layer over the flattened map (the student report's head), which has the size that
            belongs to `image_size` whatever comes in; 0 for global average pooling, straight to the classes.
        dropout: rate before the last layer.

    Raises ValueError where `blocks` cannot be read or pools the image away.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"there is no layout '{layout}'; choose one of {', '.join(LAYOUTS)}")
    shape = parse_blocks(blocks)
    side = map_side(len(shape), image_size)
    layers: list[nn.Module] = []
    width_in = channels
    for width, depth in shape:
        layers += LAYOUTS[layout](width_in, width, depth)
        width_in = width
    if hidden:
        layers.append(
            nn.AdaptiveAvgPool2d(side)
        )  # nothing at image_size, where the map has that side already
        head: list[nn.Module] = [
            nn.Flatten(),
            nn.Linear(width_in * side * side, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(True),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        ]
    else:
        pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        head = [*pool, nn.Dropout(dropout), nn.Linear(width_in, num_classes)]
    return nn.Sequential(nn.Sequential(*layers), nn.Sequential(*head))


class Residual(nn.Module):
    """ReLU of the input and a normalised convolution of it: (B, C, H, W) → (B, C, H, W)."""

    def __init__(self, width: int):
        super().__init__()
        self.convolution = _convolution(width, width)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(features + self.norm(self.convolution(features)))


def _plain(width_in: int, width: int, depth: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [_convolution(width_in, width), nn.BatchNorm2d(width), nn.ReLU(True)]
        width_in = width
    return [*layers, nn.MaxPool2d(2)]


def _residual(width_in: int, width: int, depth: int) -> list[nn.Module]:
    first = [_convolution(width_in, width), nn.MaxPool2d(2), nn.BatchNorm2d(width), nn.ReLU(True)]
    return [*first, *(Residual(width) for _ in range(depth - 1))]


def _convolution(width_in: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(width_in, width, 3, padding=1, bias=False)


LAYOUTS: dict[str, Callable[[int, int, int], list[nn.Module]]] = {"plain": _plain, "residual": _residual}
"""Layers of a block, from (width of the input, its own width, its convolutions)."""

"""Plain convolutional networks, described by one line of text."""

import re

from torch import nn


def build(
    num_classes: int,
    channels: int,
    image_size: int,
    blocks: str = "32 64 128",
    hidden: int = 512,
    dropout: float = 0.4,
) -> nn.Module:
    """Blocks of Conv-BatchNorm-ReLU, each closed by a 2×2 max-pool, and a head.

    Args:
        blocks: one word a block: its width, or `128x2` for two convolutions of width 128.
        hidden: width of a hidden layer over the flattened map (the student report's head); 0 for
            global average pooling, straight to the classes.
        dropout: rate before the last layer.

    Raises ValueError where `blocks` cannot be read or pools the image away.
    """
    layers: list[nn.Module] = []
    width_in = channels
    shape = parse_blocks(blocks)
    side = image_size // 2 ** len(shape)
    if side == 0:
        raise ValueError(f"{len(shape)} blocks halve a {image_size} px image to nothing; take fewer")
    for width, depth in shape:
        for _ in range(depth):
            layers += [
                nn.Conv2d(width_in, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(True),
            ]
            width_in = width
        layers.append(nn.MaxPool2d(2))
    if hidden:
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


def parse_blocks(blocks: str) -> list[tuple[int, int]]:
    """(width, depth) of each block.

    >>> parse_blocks("32 128x2")
    [(32, 1), (128, 2)]
    """
    words = blocks.split()
    if not words or not all(re.fullmatch(r"[1-9]\d{0,3}(x[1-9])?", word) for word in words):
        raise ValueError(f"blocks '{blocks}' is not a list of widths such as '32 64 128x2'")
    return [(int(width), int(depth or 1)) for width, _, depth in (word.partition("x") for word in words)]

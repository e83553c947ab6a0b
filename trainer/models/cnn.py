"""Plain convolutional networks, described by one line of text."""

from torch import nn

from trainer.models.blocks import map_side, parse_blocks


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
    side = map_side(len(shape), image_size)
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

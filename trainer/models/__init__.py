"""The list of architectures; a new one is one module with a `build` and one line here."""

from collections.abc import Mapping
from dataclasses import dataclass, field

SMALL_STEMS = {"small": 2, "pooled": 1, "full": 1}
"""Of a ResNet18: stem of one 3×3 convolution → its stride."""
WIDTH = 64
"""Of its first stage in torchvision; ImageNet's weights have it."""


@dataclass(frozen=True)
class Listing:
    """What is known of an architecture before anything heavy is imported.

    module: holds `build(num_classes, channels, image_size, **options) -> nn.Module`.
    modes: mode → names of the submodules that are trained in it; empty for all of them.
    options: the fields of `Config` that `build` takes.
    imagenet: whether torchvision publishes ImageNet weights for it.
    """

    module: str
    modes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"full": ()})
    options: tuple[str, ...] = ()
    imagenet: bool = False


ARCHITECTURES: dict[str, Listing] = {
    "cnn": Listing("trainer.models.cnn", options=("blocks", "layout", "hidden", "dropout")),
    "resnet18": Listing(
        "trainer.models.resnet",
        modes={"full": (), "layer4": ("layer4", "fc"), "fc": ("fc",)},
        options=("stem", "width", "hidden", "dropout"),
        imagenet=True,
    ),
}


def listing(name: str) -> Listing:
    """The architecture registered as `name`; ValueError where there is none."""
    if name not in ARCHITECTURES:
        raise ValueError(f"there is no architecture '{name}'; choose one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]

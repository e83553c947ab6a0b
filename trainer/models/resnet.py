"""ResNet18 (He et al., arXiv 1512.03385) as torchvision builds it, with our stem and head."""

import logging
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import ResNet, ResNet18_Weights, resnet18
from torchvision.models.resnet import BasicBlock

from trainer.models import SMALL_STEMS, WIDTH

log = logging.getLogger(__name__)


def build(
    num_classes: int,
    channels: int,
    image_size: int,
    stem: str = "imagenet",
    width: int = WIDTH,
    hidden: int = 0,
    dropout: float = 0.0,
) -> nn.Module:
    """ResNet18 for small or large faces.

    Args:
        image_size: any from 32 px; the network pools globally.
        stem: `imagenet`, 7×7 with stride 2 and a max-pool (a map of 1/4); `small`, 3×3 with stride 2 and no
            pool (a map of 1/2: keeps detail at 48 px, costs twice the time); `pooled`, 3×3 with stride 1 and a 2×2
            max-pool (the same map, from every place of the image); or `full`, 3×3 with stride 1 and no pool (nothing is
            lost, eight times the time: for a GPU).
        width: channels of the stem and of the first stage, doubled by each of the three others.
        hidden: width of a hidden layer in the head; 0 for a linear head.
        dropout: rate in the head.
    """
    network = resnet18(num_classes=num_classes)
    if stem in SMALL_STEMS:
        network.conv1 = nn.Conv2d(channels, width, 3, stride=SMALL_STEMS[stem], padding=1, bias=False)
        network.maxpool = nn.MaxPool2d(2) if stem == "pooled" else nn.Identity()
    elif stem == "imagenet":
        if channels != 3 or width != WIDTH:
            network.conv1 = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
    else:
        raise ValueError(f"there is no stem '{stem}'; choose one of imagenet, {', '.join(SMALL_STEMS)}")
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    if width != WIDTH:
        _set_width(network, width)
    features = width * 8
    if hidden:
        network.fc = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(features, hidden),
            nn.ReLU(True),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
    else:
        network.fc = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, num_classes))
    return network


def _set_width(network: ResNet, width: int) -> None:
    """Put stages of that width in the place of torchvision's, which knows one alone."""
    network.bn1 = nn.BatchNorm2d(width)
    network.layer1 = _stage(width, width, stride=1)
    network.layer2 = _stage(width, 2 * width, stride=2)
    network.layer3 = _stage(2 * width, 4 * width, stride=2)
    network.layer4 = _stage(4 * width, 8 * width, stride=2)


def _stage(width_in: int, width: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride > 1:
        shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))
    stage = nn.Sequential(BasicBlock(width_in, width, stride, shortcut), BasicBlock(width, width))
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return stage


def imagenet_state() -> dict[str, Tensor]:
    """torchvision's IMAGENET1K_V1 weights, from torch's hub cache or downloaded into it.

    Raises OSError where they are in neither place, or what is there is damaged.
    """
    try:
        return ResNet18_Weights.IMAGENET1K_V1.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise OSError(f"the weights in torch's hub cache are damaged: {error}".splitlines()[0]) from error


def load_pretrained(network: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Copy everything but the head from `state`, a state dict of torchvision's ResNet18.

    A grey network takes the sum of the three colour filters: what they answer to a grey image.
    Raises ValueError where names or shapes are not torchvision's.
    """
    ours = network.state_dict()
    # torchvision's file is of 2017, before batch norms counted batches; nothing of a network depends on the counts.
    wanted = [
        name for name in ours if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    ]
    missing = [name for name in wanted if name not in state]
    if missing:
        raise ValueError(
            f"{origin} is no ResNet18 of torchvision: it lacks {missing[0]} ({len(missing)} in all)"
        )
    body = {name: state[name] for name in wanted}
    for name, tensor in body.items():
        shape, expected = getattr(tensor, "shape", None), ours[name].shape
        if name == "conv1.weight" and expected[1] == 1 and shape is not None and len(shape) == 4:
            expected = torch.Size((expected[0], 1 if shape[1] == 1 else 3, *expected[2:]))
        if shape != expected:
            found = f"of the shape {tuple(shape)}" if shape is not None else f"a {type(tensor).__name__}"
            raise ValueError(f"{origin}: {name} is {found}, not {tuple(expected)}")
    if body["conv1.weight"].shape[1] > ours["conv1.weight"].shape[1]:
        body["conv1.weight"] = body["conv1.weight"].sum(dim=1, keepdim=True)
    network.load_state_dict(body, strict=False)


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from a `.safetensors` file or from `torch.save`; nothing else in it is run."""
    if not path.is_file():
        raise ValueError(f"there is no file {path} to take pretrained weights from")
    try:
        state = (
            load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        )
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch and safetensors raise a dozen types for what is none
        raise ValueError(
            f"{path} holds no weights that can be read: neither is it a .safetensors file, nor did torch.save write a "
            "state dict to it"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds no state dict: a mapping from names to tensors is expected")
    return state

"""What a network looks at on average, class by class, on faces that are laid over each other."""

import copy

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.evaluation.attention import Attention
from trainer.inference.saliency import layer_cam
from trainer.models.base import Classifier, to_unit_range

IMAGES_OF_CLASS = 100
"""As many test images of a class are laid over each other at most."""
CHECKED = 128
"""So many images are also shown to a network with random weights."""


def attention(
    classifier: Classifier, images: Tensor, target: np.ndarray, preds: np.ndarray, conditions: pd.DataFrame,
    class_names: tuple[str, ...],
) -> Attention | None:  # fmt: skip
    """Mean LayerCAM of each class, over images of it that were answered rightly and on which a face was found.

    The faces are turned upright and cropped as a photo's would be, so that eyes lie on eyes. None where the network has
    no map that is fine enough.

    Args:
        images: uint8 (N, 1, S, S). target, preds: int64 (N,). conditions: of `conditions.measure`, in their order.
    """
    places = conditions[["face x", "face y", "face side", "face angle"]].to_numpy(np.float32)
    usable = (preds == target) & np.isfinite(places).all(axis=1)
    chosen = [
        np.flatnonzero(usable & (target == index))[:IMAGES_OF_CLASS] for index in range(len(class_names))
    ]
    every = np.concatenate(chosen)
    if not len(every):
        return None
    classifier = classifier.cpu().eval()
    try:
        maps = _maps(classifier, images[every], target[every])
    except ValueError:
        return None
    grid = functional.affine_grid(_crops(places[every]), list(maps.shape), align_corners=False)
    faces, looked_at = (
        functional.grid_sample(values, grid, padding_mode="border", align_corners=False)[:, 0].numpy()
        for values in (images[every].float(), maps)
    )
    counts = [len(index) for index in chosen]
    ends = np.cumsum(counts)
    parts = [slice(end - count, end) for count, end in zip(counts, ends, strict=True)]
    blank = np.zeros(images.shape[-2:], np.float32)
    few = np.random.default_rng(0).permutation(len(every))[:CHECKED]
    return Attention(
        class_names=class_names,
        images=np.array(counts),
        faces=np.stack([faces[part].mean(0) if n else blank for part, n in zip(parts, counts, strict=True)]),
        maps=np.stack(
            [looked_at[part].mean(0) if n else blank for part, n in zip(parts, counts, strict=True)]
        ),
        random_similarity=_similarity(
            maps[few], _maps(_randomised(classifier), images[every[few]], target[every[few]])
        ),
    )


def _maps(classifier: Classifier, images: Tensor, target: np.ndarray) -> Tensor:
    """float32 (N, 1, S, S)."""
    return layer_cam(classifier, to_unit_range(images), target.tolist()).unsqueeze(1)


def _crops(places: np.ndarray) -> Tensor:
    """float32 (N, 2, 3): from the crop of a face to its image, both from −1 to 1.

    places: float (N, 4): x, y and side of the region, of the image's side, and its angle in degrees.
    """
    x, y, side, angle = torch.from_numpy(places).T
    cosine, sine = torch.cos(torch.deg2rad(angle)) * side, torch.sin(torch.deg2rad(angle)) * side
    return torch.stack(
        [torch.stack([cosine, -sine, 2 * x - 1], 1), torch.stack([sine, cosine, 2 * y - 1], 1)], 1
    )


def _randomised(classifier: Classifier) -> Classifier:
    """The same network with the weights of every convolution and linear layer drawn anew; batch norms stay."""
    other = copy.deepcopy(classifier)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in other.network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                spread = module.weight.std() if module.weight.numel() > 1 else 1.0
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * spread)
    return other


def _similarity(first: Tensor, second: Tensor) -> float:
    """Mean correlation of the maps of each image, of those of which none is flat; NaN where there is no such image."""
    a, b = (values.flatten(1) - values.flatten(1).mean(1, keepdim=True) for values in (first, second))
    length = a.norm(dim=1) * b.norm(dim=1)
    return float(((a * b).sum(1) / length)[length > 1e-6].mean())

"""What a network looked at: LayerCAM, from the very network that answered."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.models.base import Classifier

LEAST_MAP = 6
"""Side of the feature map, at least: 1/6 of a face tells an eye from a mouth, the last map of a ResNet18 at 48 px
(2×2) does not."""
BATCH_SIZE = 32
"""Images in one pass, whose features are all kept until their gradient is there: 350 MB of the ResNet18 of `best`."""


def layer_cam(classifier: Classifier, images: Tensor, classes: Sequence[int]) -> Tensor:
    """How much each place of the images speaks for the class: float32 (N, S, S), from 0 to 1 (the largest).

    LayerCAM (Jiang et al., IEEE TIP 2021): the features of the deepest layer with a map of at least LEAST_MAP px,
    each weighted by its positive gradient where it stands. On the last layer, with weights averaged over the map,
    it would be Grad-CAM. All zeros where nothing speaks for the class.

    Args:
        images: float32 (N, 1, S, S) in [0, 1].
        classes: N outputs of the classifier.

    Raises ValueError where the network has no such layer.
    """
    parts = zip(images.split(BATCH_SIZE), torch.as_tensor(classes).split(BATCH_SIZE), strict=True)
    return torch.cat([_maps(classifier, some, wanted) for some, wanted in parts])


def _maps(classifier: Classifier, images: Tensor, classes: Tensor) -> Tensor:
    """Of one batch; classes: int64 (N,)."""
    with torch.enable_grad():
        features, logits = _features(classifier, images.detach().requires_grad_())
        chosen = logits[torch.arange(len(classes)), classes].sum()
        (gradient,) = torch.autograd.grad(chosen, features)
    cam = functional.relu((functional.relu(gradient) * features.detach()).sum(1, keepdim=True))
    cam = functional.interpolate(cam, size=images.shape[-2:], mode="bicubic", align_corners=False).relu()[
        :, 0
    ]
    return cam / cam.amax((1, 2), keepdim=True).clamp_min(1e-12)


def _features(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features float32 (N, C, H, W) of the last layer that is fine enough, and the logits that follow from them."""
    outputs: list[Tensor] = []

    def note(_module: nn.Module, _inputs: object, output: object) -> None:
        # Another thread may have the same network answer meanwhile, whose features need no gradient.
        if isinstance(output, Tensor) and output.requires_grad and output.ndim == 4:
            outputs.append(output)

    hooks = [module.register_forward_hook(note) for module in classifier.network.modules()]
    try:
        logits = classifier(images)
    finally:
        for hook in hooks:
            hook.remove()
    fine = [output for output in outputs if min(output.shape[-2:]) >= LEAST_MAP]
    if not fine:
        raise ValueError(f"the network has no map of {LEAST_MAP} px or more")
    return fine[-1], logits

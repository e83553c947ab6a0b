"""Where the weights of a classifier start: at random, from ImageNet, or from a file."""

import dataclasses
import logging
import socket
from pathlib import Path

from torch import nn

from trainer.config import Config, check, recipe_defaults
from trainer.models import SMALL_STEMS, WIDTH, listing
from trainer.models.base import IMAGENET_MEAN, IMAGENET_STD, Classifier, build_network

log = logging.getLogger(__name__)

DOWNLOAD_TIMEOUT_SECONDS = 15


def make_classifier(
    config: Config, num_classes: int, mean: float, std: float, *, blank: bool = False
) -> tuple[Classifier, Config]:
    """The classifier at the start of a training, and the configuration that it was really made with.

    That differs from `config` where it leaves the weights to `auto`; see `settled`.

    Args:
        mean, std: of the training images, in [0, 1]; ImageNet's own are taken with its weights.
        blank: Leave the weights as they are drawn, for somebody who loads others.

    Raises ValueError where weights that were asked for cannot be had or do not fit.
    """
    config = settled(config)
    network = build_network(
        config.architecture,
        num_classes=num_classes,
        channels=config.channels,
        image_size=config.image_size,
        options=config.options(),
    )
    means, stds = (mean,) * config.channels, (std,) * config.channels
    if config.pretrained != "none":
        if not blank:
            _load(network, config.pretrained)
        means, stds = IMAGENET_MEAN, IMAGENET_STD
        if config.channels == 1:
            means, stds = (sum(means) / 3,), (sum(stds) / 3,)
    classifier = Classifier(network, image_size=config.image_size, mean=means, std=stds)
    classifier.freeze_except(listing(config.architecture).modes[config.mode])
    return classifier, config


def check_file(config: Config) -> None:
    """Raises ValueError where there is no file of the weights: known before anything is loaded."""
    if config.pretrained not in ("none", "auto", "imagenet") and not Path(config.pretrained).is_file():
        raise ValueError(f"--pretrained {config.pretrained}: there is no such file")


def _load(network: nn.Module, pretrained: str) -> None:
    """Raises ValueError where these weights cannot be had or do not fit."""
    from trainer.models.resnet import load_pretrained, read_state  # torchvision: seconds

    if pretrained != "imagenet":
        load_pretrained(network, read_state(Path(pretrained)), pretrained)
        return
    try:
        load_pretrained(network, _imagenet(), "IMAGENET1K_V1")
    except OSError as error:
        raise ValueError(
            f"--pretrained imagenet: the weights are neither in torch's hub cache nor can they be "
            f"downloaded ({error}); give a file with --pretrained PATH, or take --pretrained none"
        ) from error


def settled(config: Config) -> Config:
    """With `imagenet` or `none` in place of `auto`; said loudly where it is `none`.

    Then everything is trained, with what the recipe has for `--pretrained none` wherever `config` holds what it has for
    ImageNet's weights. Raises ValueError where that cannot be trained.
    """
    if config.pretrained != "auto":
        return config
    if config.stem in SMALL_STEMS:
        reason = f"there are none for --stem {config.stem}"
    elif config.width not in (None, WIDTH):
        reason = f"there are none for --width {config.width}"
    else:
        try:
            _imagenet()
            return dataclasses.replace(config, pretrained="imagenet")
        except OSError as error:
            reason = f"they are neither in torch's hub cache nor can they be downloaded: {error}"
    asked = recipe_defaults(config.recipe, config.architecture, config.mode, "auto")
    scratch = recipe_defaults(config.recipe, config.architecture, "full", "none")
    changes = {
        field.name: getattr(scratch, field.name)
        for field in dataclasses.fields(config)
        if getattr(config, field.name) == getattr(asked, field.name) != getattr(scratch, field.name)
    } | {"pretrained": "none", "mode": "full"}
    if config.cutmix:
        changes.pop("mixup", None)  # whose place it takes
    log.warning(
        "NO IMAGENET WEIGHTS (%s). All layers of %s are trained from scratch instead: %s.",
        reason,
        config.architecture,
        ", ".join(f"{name} {value}" for name, value in sorted(changes.items())),
    )
    config = dataclasses.replace(config, **changes)
    check(config)
    return config


def _imagenet() -> dict:
    """Bounded in time. Raises OSError."""
    from trainer.models.resnet import imagenet_state

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
    try:
        return imagenet_state()
    finally:
        socket.setdefaulttimeout(before)

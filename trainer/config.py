"""Everything that decides a run: one frozen dataclass, its recipes and its checks (light to import)."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer.data import name_mistake
from trainer.models import ARCHITECTURES, SMALL_STEMS, WIDTH, listing
from trainer.models.blocks import map_side, parse_blocks
from trainer.sides import Sides, parse_progressive

Recipe = Literal["report", "fast", "best"]
PLACES = frozenset(("data_dir", "device", "exclude"))
"""Settings that say where, not what: the data are known by their fingerprints."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a run."""

    # The defaults are what `--recipe fast` has in common for all architectures; see `recipe_defaults`.

    recipe: Recipe = "fast"
    """Defaults for everything below: `report` (the student report's own), `fast` (for a CPU) or `best` (for a GPU)."""
    dataset: str = "fer2013"
    """Dataset: fer2013, the built-in sketch, or a name of your choice for images of your own, with --data-dir."""
    data_dir: str | None = None
    """Folder, archive or CSV of the dataset, where it is not in its usual place."""
    validation: Literal["stratified", "public"] = "stratified"
    """`stratified`: a part of train. `public`: FER-2013's PublicTest, with PrivateTest as the test set."""
    validation_fraction: float = 0.1
    """Share of train that `stratified` keeps for validation."""
    validation_seed: int = 0
    """Seed of that split; apart from `seed`, so that repeated runs share their validation set."""
    drop_twins: bool = False
    """Leave out of train what has a near-duplicate in validation: for tuning."""
    exclude: str | None = None
    """LIST of images that leave train, one sample id a line (`python -m trainer audit` writes one); validation and test
    stay as they are."""

    architecture: str = "cnn"
    """Architecture: cnn or resnet18."""
    mode: str = "full"
    """What is trained: `full` (everything); for resnet18 also `layer4` (last stage and head) or `fc` (head)."""
    pretrained: str = "none"
    """`none`, `imagenet` (torchvision's IMAGENET1K_V1), `auto` (imagenet where it can be had) or a PATH."""
    start_from: str | None = None
    """MODEL to begin with instead: NAME@ALIAS, NAME/VERSION or a folder of the model format. Its network is taken, with
    its weights; classes that it does not know begin anew. For few images of your own."""
    image_size: int = 48
    """Side of the image that the network sees, in px."""
    channels: Literal[1, 3] = 1
    """Channels that the network sees; 3 repeats the grey image."""
    blocks: str | None = None
    """cnn: width of each block, `128x2` for two convolutions."""
    layout: Literal["plain", "residual"] | None = None
    """cnn: `plain` (the report's) or `residual` (convolutions are added to their input; learns faster)."""
    stem: Literal["imagenet", "small", "pooled", "full"] | None = None
    """resnet18: `imagenet` (7×7, pooled), `small` (3×3, stride 2: more detail, twice the time), `pooled` (3×3, then a
    2×2 max-pool instead of the stride) or `full` (3×3, stride 1: for a GPU)."""
    width: int | None = None
    """resnet18: channels of the first stage, doubled by each of the three others; 64 is ImageNet's."""
    hidden: int | None = None
    """Width of the hidden layer in the head; 0 for none."""
    dropout: float | None = None
    """Dropout rate in the head."""

    epochs: int = 12
    """Passes over train."""
    batch_size: int = 256
    """Images per step."""
    optimizer: Literal["adam", "adamw", "muon", "sgd"] = "muon"
    """`sgd` is with Nesterov momentum 0.9; `muon` is for filters, with AdamW for the rest."""
    learning_rate: float = 4e-3
    """Highest learning rate."""
    schedule: Literal["constant", "cosine", "onecycle"] = "onecycle"
    """`cosine` decays to 0; `onecycle` rises over the first quarter, then decays to 0."""
    weight_decay: float = 0.1
    """Weight decay of matrices and filters; norms and biases have none."""
    label_smoothing: float = 0.1
    """Share of the target that is spread over all classes."""
    mixup: float = 0.0
    """Alpha of mixup (arXiv 1710.09412); 0 for none."""
    cutmix: float = 0.0
    """Alpha of CutMix (arXiv 1905.04899), which takes the place of mixup; 0 for none."""
    class_weighting: Literal["none", "sqrt", "balanced"] = "none"
    """Weight of a class in the loss: 1, or 1/frequency to the power 1/2 or 1."""
    ema_decay: float = 0.0
    """Decay per step of an exponential moving average of the weights, which is then evaluated; 0 for none."""
    early_stopping: int = 0
    """Epochs without a better validation accuracy after which a run stops; 0 for never."""

    augmentation: float = 1.0
    """Strength: multiplies the amplitudes below; 0 switches augmentation off, flips included."""
    flip: bool = True
    """Mirror half of the images."""
    rotation: float = 10.0
    """Largest rotation, in degrees."""
    zoom: float = 0.15
    """Largest change of scale, as a share."""
    shift: float = 0.15
    """Largest shift, as a share of the side."""
    erase: float = 0.25
    """Probability that a random rectangle (2 to 20% of the area) is erased."""
    jitter: float = 0.2
    """Largest change of contrast, as a share, and of brightness, as half that share of the range."""
    clean_end: float = 0.0
    """Share of the epochs, the last ones, whose images are mirrored and not augmented otherwise, nor mixed."""
    progressive: str | None = None
    """Smaller images at first: `32:0.5 40:0.3` trains at 32 px for half of the epochs, at 40 px for the next
    three tenths, and at `image_size` from then on."""

    teacher: str | None = None
    """Models to learn from as well as from the labels, with commas between: NAME/VERSION, NAME@ALIAS or a folder; their
    mean probabilities for the training images are taken. They must have been trained on the same part of train."""
    teacher_weight: float = 0.7
    """Share of the target that comes from the teacher."""
    averaging: Literal["none", "flip", "ten"] = "ten"
    """Views whose probabilities the model averages when it answers: the image, with its mirror image, or ten (also
    shifted to the corners). Stored with the model."""

    precision: Literal["auto", "32", "bf16"] = "auto"
    """`bf16`: mixed precision; slower where the device has no instructions for it. `auto`: `bf16` where it has."""
    half: bool = False
    """Round the weights to half precision at the end, before they are tested: half the size."""
    compile: bool = False
    """Compile the network first (torch.compile): pays on a GPU."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train."""
    seed: int = 0
    """Seed of initialisation, order, augmentation and dropout."""

    @property
    def sides(self) -> Sides:
        return Sides(self.epochs, self.image_size, self.progressive)

    def options(self) -> dict[str, str | int | float]:
        """The arguments of the architecture that this configuration sets."""
        names = listing(self.architecture).options
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Raises ValueError where `text` was written by a version with other fields, or only half."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ValueError(f"the configuration is not whole: {error}") from error
        names = {field.name for field in dataclasses.fields(cls)}
        if set(values) != names:
            difference = ", ".join(sorted(set(values) ^ names))
            raise ValueError(
                f"the configuration was written by another version (it differs in: {difference})"
            )
        return cls(**values)


# Adam's rate by what is trained, and the rest of the report's protocol.
_REPORT: dict[str, Any] = {
    "epochs": 20,
    "batch_size": 64,
    "optimizer": "adam",
    "schedule": "constant",
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "rotation": 10.0,
    "zoom": 0.0,
    "shift": 0.0,
    "erase": 0.0,
    "jitter": 0.0,
    "averaging": "none",
    "precision": "32",
}
_REPORT_LEARNING_RATE = {"fc": 1e-3, "layer4": 1e-4, "full": 1e-5}


# What our own recipes have in common; the rest of `Config` is its default.
_FAST: dict[str, dict[str, Any]] = {
    "cnn": {
        "blocks": "32 64x2 128x3 256x3", "layout": "residual", "hidden": 0, "dropout": 0.3, "epochs": 36,
        "progressive": "32:0.34", "image_size": 40,
    },
    "resnet18": {
        "stem": "pooled", "width": 48, "hidden": 0, "dropout": 0.3, "epochs": 45, "mixup": 0.2, "progressive": "32:0.5",
        "image_size": 40,
    },
}  # fmt: skip
# ImageNet's weights come with its stem, and want a lower rate.
_FAST_PRETRAINED = {
    "stem": "imagenet", "width": 64, "image_size": 48, "epochs": 6, "mixup": 0.0, "progressive": None,
    "optimizer": "adamw", "learning_rate": 1e-3, "batch_size": 128,
}  # fmt: skip
# For a GPU: many epochs of strongly augmented images, against learning by heart; smaller images first, as in `fast`.
_BEST: dict[str, Any] = {
    "image_size": 48, "batch_size": 512, "mixup": 0.2, "zoom": 0.2, "erase": 0.5,
    "ema_decay": 0.99, "precision": "bf16", "compile": True, "epochs": 80,
}  # fmt: skip
_BEST_NETWORK: dict[str, dict[str, Any]] = {
    "cnn": {"blocks": "64x2 128x2 256x2 512x2", "layout": "plain", "dropout": 0.4},
    "resnet18": {"stem": "full", "width": 64, "dropout": 0.4},
}


def recipe_defaults(
    recipe: Recipe, architecture: str, mode: str = "full", pretrained: str | None = None
) -> Config:
    """The configuration of a recipe before any flag of the user.

    `pretrained` None leaves it to the recipe. Architectures that the recipes do not know train with
    the recipe's protocol and their own default arguments.
    """
    values: dict[str, Any] = {"recipe": recipe, "architecture": architecture, "mode": mode}
    if recipe == "report":
        values |= _report(architecture, mode)
    else:
        values |= _FAST.get(architecture, {})
        if recipe == "best":
            values |= _BEST | _BEST_NETWORK.get(architecture, {})
        if architecture == "resnet18" and (mode != "full" or pretrained not in (None, "none")):
            values |= _FAST_PRETRAINED | {"pretrained": "auto"}
    if pretrained is not None:
        values["pretrained"] = pretrained
    if values.get("pretrained") == "none" and architecture == "resnet18" and recipe == "report":
        values["learning_rate"] = 1e-3  # the report only fine-tunes; 1e-5 would not train from scratch
    return Config(**values)


def _report(architecture: str, mode: str) -> dict[str, Any]:
    if architecture == "resnet18":
        network = {"image_size": 224, "channels": 3, "hidden": 256, "dropout": 0.5, "pretrained": "auto"}
        return _REPORT | network | {"learning_rate": _REPORT_LEARNING_RATE.get(mode, 1e-5)}
    network = {"blocks": "32 64 128", "layout": "plain", "hidden": 512, "dropout": 0.4}
    return _REPORT | {"learning_rate": 1e-3} | (network if architecture == "cnn" else {})


def check(config: Config) -> None:
    """Refuse what cannot be trained. Raises ValueError with one line for each mistake."""
    mistakes = list(_mistakes(config))
    if mistakes:
        raise ValueError("\n".join(mistakes))


def _mistakes(config: Config) -> Iterator[str]:
    if mistake := name_mistake(config.dataset, config.data_dir):
        yield f"--dataset: {mistake}"
    if config.data_dir is not None and not config.data_dir.strip():
        yield "--data-dir: name a folder, an archive or a CSV"
    elif config.dataset == "sketch" and config.data_dir is not None:
        yield "--data-dir: sketch is drawn by the program and takes no folder"
    if config.validation == "public" and config.dataset != "fer2013":
        yield f"--validation public: only fer2013 has a PublicTest part, {config.dataset} has not"
    if config.validation == "public":
        for name in ("validation_fraction", "validation_seed"):
            if getattr(config, name) != getattr(Config, name):
                yield f"--{name.replace('_', '-')}: says nothing with --validation public, which is no part of train"
    if config.exclude is not None and not Path(config.exclude).is_file():
        yield f"--exclude {config.exclude}: there is no such file"
    if config.architecture not in ARCHITECTURES:
        yield f"--architecture {config.architecture}: choose one of {', '.join(ARCHITECTURES)}"
        return
    entry = listing(config.architecture)
    if config.mode not in entry.modes:
        yield f"--mode {config.mode}: {config.architecture} is trained in mode {' or '.join(entry.modes)}"
    blocks = None
    if config.blocks is not None and "blocks" in entry.options:
        try:
            blocks = parse_blocks(config.blocks)
            map_side(len(blocks), max(config.image_size, 32))
        except ValueError as error:
            yield f"--blocks: {error}"
    for name in dict.fromkeys(option for each in ARCHITECTURES.values() for option in each.options):
        if getattr(config, name) is not None and name not in entry.options:
            yield f"--{name}: {config.architecture} takes no such option"
    if config.pretrained != "none" and not entry.imagenet:
        yield f"--pretrained {config.pretrained}: there are no pretrained weights for {config.architecture}"
    if config.start_from is not None and not config.start_from.strip():
        yield "--start-from: name a model"
    if config.start_from is not None and config.pretrained != "none":
        yield f"--start-from {config.start_from} with --pretrained {config.pretrained}: give one of them"
    if config.pretrained == "none" and config.start_from is None and entry.modes.get(config.mode):
        yield f"--mode {config.mode} with --pretrained none would freeze random weights: take --mode full"
    if config.pretrained != "none" and not _may_fall_back(config):
        if config.stem in SMALL_STEMS:
            yield f"--stem {config.stem} has no ImageNet weights: take --stem imagenet, or --pretrained none"
        if config.width not in (None, WIDTH):
            yield f"--width {config.width} has no ImageNet weights: take --width {WIDTH}, or --pretrained none"
    if config.mixup and config.cutmix:
        yield f"--mixup {config.mixup} with --cutmix {config.cutmix}: give one of them"
    for name in ("mixup", "cutmix"):
        if 0 < getattr(config, name) < LEAST_ALPHA:
            yield f"--{name} {getattr(config, name)}: must be 0, or {LEAST_ALPHA} or more"
    if config.augmentation > 0 and config.zoom * config.augmentation >= 1:
        yield f"--zoom {config.zoom} × --augmentation {config.augmentation}: must stay below 1"
    strongest = _RANGES["augmentation"][1]
    if config.jitter * min(config.augmentation, strongest) > 1:  # contrast would change its sign
        yield f"--jitter {config.jitter} × --augmentation {config.augmentation}: must be 1 at most"
    for name, (lowest, highest) in _RANGES.items():
        value = getattr(config, name)
        if value is not None and not lowest <= value <= highest:
            yield f"--{name.replace('_', '-')} {value}: must lie between {lowest} and {highest}"
    if config.teacher is not None and not all(name.strip() for name in config.teacher.split(",")):
        yield f"--teacher '{config.teacher}': give one model, or several with a comma between two"
    if config.teacher is None and config.teacher_weight != Config.teacher_weight:
        yield f"--teacher-weight {config.teacher_weight}: says nothing without --teacher"
    if not 0 < config.learning_rate <= 10:
        yield f"--learning-rate {config.learning_rate}: must lie above 0 and not above 10"
    try:
        parts = parse_progressive(config.progressive)
        if parts and blocks is not None:
            map_side(len(blocks), min(side for side, _ in parts))
    except ValueError as error:
        yield f"--progressive: {error}"


def _may_fall_back(config: Config) -> bool:
    return config.pretrained == "auto" and config.mode == "full"


LEAST_ALPHA = 0.05
"""Of mixup and CutMix. Below, what is drawn is rounded to halves, which is the contrary of next to nothing."""

_RANGES: Mapping[str, tuple[float, float]] = {
    "validation_fraction": (0.01, 0.5),
    "validation_seed": (0, 2**31 - 1),
    "image_size": (32, 512),
    "width": (8, 256),
    "hidden": (0, 8192),
    "dropout": (0, 0.95),
    "epochs": (1, 10_000),
    "batch_size": (2, 65_536),
    "weight_decay": (0, 10),
    "label_smoothing": (0, 0.9),
    "mixup": (0, 10),
    "cutmix": (0, 10),
    "ema_decay": (0, 0.99999),
    "early_stopping": (0, 10_000),
    "augmentation": (0, 5),
    "rotation": (0, 180),
    "zoom": (0, 0.9),
    "shift": (0, 0.5),
    "erase": (0, 1),
    "jitter": (0, 1),
    "clean_end": (0, 1),
    "teacher_weight": (0, 1),
    "seed": (0, 2**31 - 1),
}

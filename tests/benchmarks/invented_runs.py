"""Runs that never were: plausible configurations, curves and predictions on FER-2013, from a seed (no torch)."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trainer.config import Config, Recipe, check, recipe_defaults
from trainer.evaluation.metrics import Evaluation, evaluate

CLASS_NAMES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
SEEDS = 5
"""Runs of one configuration, which differ in their seed."""
# Images of each class: of PublicTest, and of a stratified tenth of train.
CLASS_COUNTS = {
    "test": (467, 56, 496, 895, 607, 653, 415),
    "validation": (400, 44, 410, 721, 496, 483, 317),
}
FILE_NAMES = {"test": "test/{}/PublicTest_{}.jpg", "validation": "train/{}/Training_{}.jpg"}
# What is taken for what, in percent of the truth (rows), and how much easier than another a class is, in logits.
CONFUSED = np.array(
    [
        [0, 2, 11, 6, 13, 16, 2],
        [21, 0, 9, 5, 4, 9, 2],
        [10, 1, 0, 5, 15, 21, 9],
        [2, 0.3, 3, 0, 8, 4, 3],
        [5, 0.5, 7, 8, 0, 16, 2],
        [10, 1, 13, 6, 19, 0, 1],
        [3, 0.3, 10, 6, 5, 2, 0],
    ]
)
EASE = np.array([0.0, 0.1, -0.5, 1.2, 0.2, -0.2, 1.1], dtype=np.float32)
SHARED_NOISE, CONFIGURATION_NOISE, RUN_NOISE = 1.2, 0.6, 0.5
"""Deviation of the logits by image: what all models find hard, those of one configuration, this one alone."""
STATUSES = {"FINISHED": 0.92, "KILLED": 0.045, "FAILED": 0.03, "RUNNING": 0.005}


@dataclass(frozen=True)
class Kind:
    """A network and its recipe: what accuracy it is likely to reach and what it costs."""

    architecture: str
    mode: str
    recipe: Recipe
    accuracy: float
    parameters: int
    trainable_parameters: int
    gmacs: float
    latency_ms: float
    epoch_seconds: float


KINDS = (
    Kind("cnn", "full", "report", 0.62, 2_456_807, 2_456_807, 0.0276, 1.1, 29.0),
    Kind("cnn", "full", "fast", 0.655, 1_083_175, 1_083_175, 0.0861, 2.4, 38.0),
    Kind("resnet18", "full", "report", 0.685, 11_309_639, 11_309_639, 1.82, 33.0, 1_900.0),
    Kind("resnet18", "layer4", "report", 0.645, 11_309_639, 8_526_855, 1.82, 33.0, 900.0),
    Kind("resnet18", "fc", "report", 0.45, 11_309_639, 133_127, 1.82, 33.0, 640.0),
    Kind("resnet18", "full", "fast", 0.665, 11_173_831, 11_173_831, 0.0816, 4.5, 110.0),
)


@dataclass(frozen=True, eq=False)
class Images:
    """The images of one part that all runs are judged on.

    logits: float32 (N, K), what every model sees in them.
    """

    sample_ids: tuple[str, ...]
    target: np.ndarray
    logits: np.ndarray

    @classmethod
    def invent(cls, part: str, rng: np.random.Generator) -> "Images":
        counts = CLASS_COUNTS[part]
        target = np.repeat(np.arange(len(counts)), counts)
        numbers = np.sort(rng.choice(40_000, size=len(target), replace=False))
        ids = (FILE_NAMES[part].format(CLASS_NAMES[k], n) for k, n in zip(target, numbers, strict=True))
        lure = np.log(np.where(np.eye(len(counts)) > 0, 1, CONFUSED)).astype(np.float32)
        np.fill_diagonal(lure, EASE)
        noise = rng.normal(0, SHARED_NOISE, (len(target), len(counts))).astype(np.float32)
        return cls(tuple(ids), target, lure[target] + noise)


@dataclass(frozen=True, eq=False)
class InventedRun:
    """One run. `probabilities` are those of its best epoch, part → float32 (N, K); empty for one cut short.

    curves: metric of contract.EPOCH_METRICS → one value an epoch that was trained.
    """

    run_id: str
    kind: Kind
    config: Config
    status: str
    curves: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]
    images: dict[str, Images]

    @property
    def name(self) -> str:
        mode = "" if self.config.mode == "full" else f"-{self.config.mode}"
        return f"{self.config.architecture}{mode}-{self.config.recipe}-s{self.config.seed}-{self.run_id[:4]}"

    @property
    def best_epoch(self) -> int:
        """1-based."""
        return int(self.curves["validation/accuracy"].argmax()) + 1

    @cached_property
    def evaluations(self) -> dict[str, Evaluation]:
        return {
            part: evaluate(self.images[part].target, probabilities, CLASS_NAMES)
            for part, probabilities in self.probabilities.items()
        }

    def again(self, run_id: str, seed: int) -> "InventedRun":
        """Another run that went the same way with another seed; to invent one takes a hundred times as long."""
        other = dataclasses.replace(self, run_id=run_id, config=dataclasses.replace(self.config, seed=seed))
        other.__dict__["evaluations"] = self.evaluations  # where cached_property keeps what was evaluated
        return other


def invent_runs(count: int, epochs: int, rng: np.random.Generator) -> Iterator[InventedRun]:
    """`count` runs, SEEDS of each configuration one after the other."""
    images = {part: Images.invent(part, rng) for part in CLASS_COUNTS}
    names, shares = list(STATUSES), list(STATUSES.values())
    for index in range(count):
        if index % SEEDS == 0:
            kind = KINDS[index // SEEDS % len(KINDS)]
            base = vary(kind, epochs, rng)
            level = kind.accuracy + rng.normal(0, 0.02)
            habits = {part: _noise(seen.logits, CONFIGURATION_NOISE, rng) for part, seen in images.items()}
        status = str(rng.choice(names, p=shares))
        trained = epochs if status == "FINISHED" else int(rng.integers(1, max(epochs, 2)))
        accuracy = float(np.clip(level + rng.normal(0, 0.005), 0.2, 0.9))
        probabilities = {}
        if status == "FINISHED":
            sharpness = rng.uniform(1.1, 1.7) if kind.recipe == "report" else rng.uniform(0.7, 1.0)
            probabilities = predict(images, habits, accuracy, sharpness, rng)
            found = images["validation"].target == probabilities["validation"].argmax(1)
            accuracy = float(found.mean())
        yield InventedRun(
            run_id=rng.bytes(16).hex(),
            kind=kind,
            config=dataclasses.replace(base, seed=index % SEEDS),
            status=status,
            curves=invent_curves(base, kind, accuracy, trained, rng),
            probabilities=probabilities,
            images=images,
        )


def vary(kind: Kind, epochs: int, rng: np.random.Generator) -> Config:
    """A configuration of this kind that the trainer would accept."""
    pretrained = "imagenet" if kind.architecture == "resnet18" else None
    base = recipe_defaults(kind.recipe, kind.architecture, kind.mode, pretrained)
    config = dataclasses.replace(
        base,
        epochs=epochs,
        learning_rate=round(base.learning_rate * float(rng.choice([0.3, 0.5, 1.0, 2.0])), 7),
        batch_size=int(rng.choice([32, 64, 128, 256])),
        dropout=float(rng.choice([0.2, 0.3, 0.4, 0.5])),
        label_smoothing=float(rng.choice([0.0, 0.05, 0.1])),
        class_weighting=str(rng.choice(["none", "sqrt", "balanced"])),  # type: ignore[arg-type]
        augmentation=float(rng.choice([0.5, 1.0, 1.5])),
        mixup=float(rng.choice([0.0, 0.2])),
    )
    check(config)
    return config


def predict(
    images: dict[str, Images],
    habits: dict[str, np.ndarray],
    accuracy: float,
    sharpness: float,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Probabilities of a model with this accuracy on test; the same margin decides validation."""
    logits = {
        part: seen.logits + habits[part] + _noise(seen.logits, RUN_NOISE, rng)
        for part, seen in images.items()
    }
    target = images["test"].target
    rows = np.arange(len(target))
    others = logits["test"].copy()
    others[rows, target] = -np.inf
    margin = np.quantile(others.max(1) - logits["test"][rows, target], accuracy)
    probabilities = {}
    for part, seen in images.items():
        logits[part][np.arange(len(seen.target)), seen.target] += margin
        powers = np.exp(sharpness * (logits[part] - logits[part].max(1, keepdims=True)))
        probabilities[part] = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    return probabilities


def invent_curves(
    config: Config, kind: Kind, accuracy: float, trained: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The highest validation accuracy is exactly `accuracy`."""
    epoch = np.arange(1, trained + 1)
    progress = epoch / config.epochs
    rise = 1 - np.exp(-epoch / (config.epochs * rng.uniform(0.05, 0.15)))
    overfit = rng.uniform(0.0, 0.03) if config.recipe == "report" else 0.0

    def jitter(size: float) -> np.ndarray:
        return rng.normal(0, size, trained)

    validation = 0.25 + (accuracy - 0.25) * rise - overfit * progress + jitter(0.006)
    validation += accuracy - validation.max()
    train = 0.22 + (min(accuracy + 3 * overfit + 0.05, 0.97) - 0.22) * rise + jitter(0.003)
    seconds = kind.epoch_seconds * (1 + np.abs(jitter(0.02)))
    rate = np.ones(trained)
    if config.schedule == "onecycle":
        warm = progress < 0.25
        rate = np.where(
            warm, np.maximum(progress * 4, 0.04), np.cos((progress - 0.25) / 0.75 * np.pi) / 2 + 0.5
        )
    return {
        "train/loss": 2.6 * (1 - train) + jitter(0.01),
        "train/accuracy": train,
        "validation/loss": 2.8 * (1 - validation) + 8 * overfit * progress**2 + jitter(0.015),
        "validation/accuracy": validation,
        "validation/macro_recall": validation - 0.035 + jitter(0.005),
        "learning_rate": config.learning_rate * rate,
        "images_per_second": 25_838 / seconds,
        "epoch_seconds": seconds * 1.03,
    }


def _noise(like: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    return deviation * rng.standard_normal(like.shape, dtype=np.float32)

"""`python -m tests.benchmarks.recipes`: what each element of a recipe gains or loses, on a part of train.

Nothing here looks at the test set: four fifths of train are learned, without the images that have a near-duplicate in
the last fifth, which judges. Every variant changes one thing. Several train side by side, on the CPU each on one
thread.
"""

import dataclasses
import json
import os
import statistics
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

VALIDATION_FRACTION = 0.2


@dataclass(frozen=True)
class Variant:
    """The recipe with some fields of its configuration changed."""

    label: str
    changes: dict[str, Any] = field(default_factory=dict)
    recalibrate: bool = False
    """Take the statistics of batch norms anew at the end, from the training images as they are."""


CNN = (
    Variant("the recipe"),
    Variant("AdamW instead of Muon", {"optimizer": "adamw"}),
    Variant("Nesterov, 0.05", {"optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 5e-4}),
    Variant("plain layout", {"layout": "plain"}),
    Variant("plain 32 64 128x2 256x2 (fast before)", {"layout": "plain", "blocks": "32 64 128x2 256x2"}),
    Variant("residual 32 64 128x2 256x2", {"blocks": "32 64 128x2 256x2"}),
    Variant("a quarter narrower", {"blocks": "24 48x2 96x3 192x3"}),
    Variant("half as wide again", {"blocks": "48 96x2 192x3 384x3"}),
    Variant("48 px", {"image_size": 48}),
    Variant("no smaller images first", {"progressive": None}),
    Variant("no label smoothing", {"label_smoothing": 0.0}),
    Variant("no dropout", {"dropout": 0.0}),
    Variant("half the augmentation", {"augmentation": 0.5}),
    Variant("no augmentation", {"augmentation": 0.0}),
    Variant("zoom and shift 0.1", {"zoom": 0.1, "shift": 0.1}),
    Variant("no shift", {"shift": 0.0}),
    Variant("no zoom", {"zoom": 0.0}),
    Variant("no rotation", {"rotation": 0.0}),
    Variant("no mirror images", {"flip": False}),
    Variant("no erasing", {"erase": 0.0}),
    Variant("erasing 0.5", {"erase": 0.5}),
    Variant("brightness and contrast as they are", {"jitter": 0.0}),
    Variant("float32", {"precision": "32"}),
    Variant("mixup 0.2", {"mixup": 0.2}),
    Variant("cutmix 1", {"cutmix": 1.0}),
    Variant("last fifth without augmentation", {"clean_end": 0.2}),
    Variant("average of the weights, 0.99", {"ema_decay": 0.99}),
    Variant("the same, batch norms recalibrated", {"ema_decay": 0.99}, recalibrate=True),
    Variant("classes weighted by the root", {"class_weighting": "sqrt"}),
    Variant("batches of 128, 0.003", {"batch_size": 128, "learning_rate": 3e-3}),
    Variant("cosine from the start", {"schedule": "cosine"}),
    Variant("learning rate 0.002", {"learning_rate": 2e-3}),
    Variant("learning rate 0.008", {"learning_rate": 8e-3}),
    Variant("weight decay 0.3", {"weight_decay": 0.3}),
    Variant("16 epochs", {"epochs": 16}),
)
RESNET = (
    Variant("the recipe"),
    Variant("AdamW instead of Muon", {"optimizer": "adamw"}),
    Variant("imagenet stem, 48 px", {"stem": "imagenet", "image_size": 48}),
    Variant("no smaller images first", {"progressive": None}),
    Variant("no label smoothing", {"label_smoothing": 0.0}),
    Variant("no dropout", {"dropout": 0.0}),
    Variant("half the augmentation", {"augmentation": 0.5}),
    Variant("zoom 0.2, erasing 0.5", {"zoom": 0.2, "erase": 0.5}),
    Variant("no mixup", {"mixup": 0.0}),
    Variant("cutmix 1 instead of mixup", {"mixup": 0.0, "cutmix": 1.0}),
    Variant("stem small", {"stem": "small"}),
    Variant("64 channels", {"width": 64}),
    Variant("32 channels", {"width": 32}),
    Variant("average of the weights, 0.99", {"ema_decay": 0.99}),
    Variant("weight decay 0.3", {"weight_decay": 0.3}),
    Variant("learning rate 0.002", {"learning_rate": 2e-3}),
    Variant("learning rate 0.006", {"learning_rate": 6e-3}),
    Variant("batches of 512", {"batch_size": 512}),
)
BEST = (
    Variant("the recipe"),
    Variant("cutmix 1 instead of mixup", {"mixup": 0.0, "cutmix": 1.0}),
    Variant("no mixup", {"mixup": 0.0}),
    Variant("mixup 0.5", {"mixup": 0.5}),
    Variant("no label smoothing", {"label_smoothing": 0.0}),
    Variant("no average of the weights", {"ema_decay": 0.0}),
    Variant("weight decay 0.3", {"weight_decay": 0.3}),
    Variant("learning rate 0.002", {"learning_rate": 2e-3}),
    Variant("zoom 0.15", {"zoom": 0.15}),
    Variant("erasing 0.25", {"erase": 0.25}),
    Variant("no smaller images first", {"progressive": None}),
)
BEST_CNN = (
    *BEST,
    Variant("residual layout", {"layout": "residual"}),
    Variant("blocks 64x3 128x3 256x3 256x3", {"blocks": "64x3 128x3 256x3 256x3"}),
    Variant("dropout 0.2", {"dropout": 0.2}),
)
BEST_RESNET = (*BEST, Variant("stem small", {"stem": "small"}))
VARIANTS = {
    ("fast", "cnn"): CNN, ("fast", "resnet18"): RESNET, ("best", "cnn"): BEST_CNN, ("best", "resnet18"): BEST_RESNET,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train variants of a recipe and compare them on a part of train; prints a table in Markdown."""

    architecture: Literal["cnn", "resnet18"] = "cnn"
    recipe: Literal["fast", "best"] = "fast"
    epochs: int | None = None
    """Instead of the recipe's: shorter schedules show what helps early."""
    seeds: int = 1
    only: tuple[str, ...] = ()
    """Labels, or beginnings of them, of the variants that are trained; `the recipe` always is."""
    exclude: Path | None = None
    """A list of images, as `python -m trainer audit --folds 4 --drop label` writes it, for one more variant without."""
    data_dir: Path | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    """On the CPU nothing is compiled."""
    workers: int | None = None
    """Trainings at a time: by default one a core, each on one thread, and one on a GPU, which is busy with it."""
    json: Path | None = None
    """Write all numbers to this file, after each training; what it holds already is not trained again."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Of one training: accuracy and macro recall by averaging, and seconds of training beside others."""

    label: str
    seed: int
    accuracy: dict[str, float]
    macro_recall: dict[str, float]
    train_accuracy: float
    seconds: float


def main() -> None:
    options = tyro.cli(Options, prog="python -m tests.benchmarks.recipes")
    every = VARIANTS[options.recipe, options.architecture]
    if options.exclude:
        every = (*every, Variant("without suspect labels", {"exclude": str(options.exclude)}))
    chosen = [v for v in every if not options.only or v is every[0] or v.label.startswith(options.only)]
    console, results = Console(stderr=True), earlier(options)
    known = {(result.label, result.seed) for result in results}
    wanted = [(v, s) for s in range(options.seeds) for v in chosen if (v.label, s) not in known]
    workers = options.workers or (1 if options.device == "cuda" else os.cpu_count())
    # A process each: torch compiles only so many graphs of one function, and then no more.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        tasks = {pool.submit(train, variant, seed, options): variant for variant, seed in wanted}
        for task in as_completed(tasks):
            if (error := task.exception()) is not None:
                console.print(f"{tasks[task].label} failed: {error}", markup=False)
                continue
            results.append(task.result())
            console.print(results[-1], highlight=False)
            if options.json:
                told = {"options": kind(options), "results": [dataclasses.asdict(r) for r in results]}
                options.json.write_text(json.dumps(told, indent=1))
    print_table(chosen, results, options)


def kind(options: Options) -> dict[str, Any]:
    """What results must have in common to stand in one table."""
    from trainer.config import recipe_defaults

    common = {name: getattr(options, name) for name in ("architecture", "recipe", "epochs", "device")}
    paths = {"data_dir": options.data_dir, "exclude": options.exclude}
    common["settings"] = dataclasses.asdict(recipe_defaults(options.recipe, options.architecture))
    return common | {name: str(path) for name, path in paths.items() if path is not None}


def earlier(options: Options) -> list[Result]:
    """What an interrupted run of the same options left in its file."""
    if options.json is None or not options.json.exists():
        return []
    told = json.loads(options.json.read_text())
    if told["options"] != kind(options):
        raise SystemExit(f"error: {options.json} holds results of {told['options']}: give another file")
    return [Result(**values) for values in told["results"]]


def train(variant: Variant, seed: int, options: Options) -> Result:
    import torch

    torch.set_num_threads(1)
    from trainer.config import check, recipe_defaults
    from trainer.evaluation.calibration import averaged
    from trainer.evaluation.metrics import evaluate
    from trainer.models.base import VIEWS, Probabilities
    from trainer.training.allocator import keep_memory
    from trainer.training.data import configured_splits
    from trainer.training.environment import make_fabric
    from trainer.training.loop import Training, fit
    from trainer.training.prediction import predict_views
    from trainer.training.pretrained import make_classifier

    keep_memory()
    config = recipe_defaults(options.recipe, options.architecture)
    everywhere = {
        "dataset": "fer2013", "data_dir": str(options.data_dir) if options.data_dir else None,
        "validation_fraction": VALIDATION_FRACTION, "drop_twins": True, "epochs": options.epochs or config.epochs,
        "device": options.device, "seed": seed,
    }  # fmt: skip
    if options.device == "cpu":
        everywhere |= {"precision": "auto", "compile": False}
    config = dataclasses.replace(config, **everywhere | variant.changes)
    check(config)
    splits = configured_splits(config)
    torch.manual_seed(seed)
    names, target = splits.class_names, splits.validation.target.numpy()
    classifier, config = make_classifier(config, len(names), *splits.train.brightness())
    training = Training(classifier, config, make_fabric(config))
    # The last epoch is judged, once it has ended: what `fit` is given to judge each by need not be much.
    history = list(fit(training, splits.train, splits.validation.select(torch.arange(256)), len(names)))
    if variant.recalibrate:
        recalibrate(training.evaluated, splits.train.images, training.fabric.device)
    found = {}
    for averaging in VIEWS:
        model = Probabilities(training.evaluated, 1.0, averaging)
        logits = predict_views(model, splits.validation.images, training.fabric.device).cpu().numpy()
        found[averaging] = evaluate(target, averaged(logits, 1.0), names).summary
    return Result(
        label=variant.label,
        seed=seed,
        accuracy={name: summary["accuracy"] for name, summary in found.items()},
        macro_recall={name: summary["macro_recall"] for name, summary in found.items()},
        train_accuracy=history[-1].train_accuracy,
        seconds=sum(len(splits.train) / epoch.images_per_second for epoch in history),
    )


def recalibrate(network: "nn.Module", images: "Tensor", device: "torch.device") -> None:
    """Set the statistics of its batch norms to the mean over all images; uint8 (N, 1, S, S)."""
    from torch.optim.swa_utils import update_bn

    from trainer.models.base import to_unit_range

    update_bn((to_unit_range(batch.to(device)) for batch in images.split(512)), network)


def print_table(chosen: list[Variant], results: list[Result], options: Options) -> None:
    """The last epoch of each, whatever came before: an epoch that is chosen would flatter."""
    lines = [
        "| change | accuracy: one view | flip | ten | macro recall, ten | on train | s |",
        "|---|---|---|---|---|---|---|",
    ]
    for variant in chosen:
        runs = [result for result in results if result.label == variant.label]
        if not runs:
            continue
        columns = [[r.accuracy[name] for r in runs] for name in ("none", "flip", "ten")]
        columns += [[r.macro_recall["ten"] for r in runs], [r.train_accuracy for r in runs]]
        cells = [_mean(values) for values in columns] + [f"{statistics.mean(r.seconds for r in runs):,.0f}"]
        lines.append(f"| {variant.label} | {' | '.join(cells)} |")
    Console(width=200).print("\n".join(lines), markup=False, highlight=False)


def _mean(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


if __name__ == "__main__":
    main()

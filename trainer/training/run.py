"""The story of one run, from data to a registered version, top to bottom."""

import dataclasses
import json
import logging
import random
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from lightning_fabric import seed_everything

from trainer.config import Config, check
from trainer.contract import (
    ATTENTION_FILE,
    CALIBRATION_METRICS,
    CONDITIONS_FILE,
    CONFIG_FILE,
    CONFUSION_FILE,
    CONFUSION_PICTURE,
    CURVES_PICTURE,
    MISTAKES_PICTURE,
    PREDICTIONS_FILE,
    RANDOM_SIMILARITY,
    ROBUSTNESS,
    ROBUSTNESS_FILE,
    ROBUSTNESS_OF_KIND,
    SLICE_DIFFERENCE,
    TEMPERATURE_METRIC,
    UNCALIBRATED,
    WORST_IMAGES_FILE,
    Tag,
    metric_key,
)
from trainer.data.pictures import image_table
from trainer.data.splits import Splits, load_splits
from trainer.evaluation.calibration import averaged, fit_temperature
from trainer.evaluation.metrics import Evaluation, evaluate, prediction_table, sample_loss
from trainer.evaluation.pictures import confusion_figure, curves_figure, mistakes_sheet
from trainer.evaluation.robustness import Robustness, by_kind, relative
from trainer.evaluation.slices import slice_table, thirds
from trainer.inference.attention import attention
from trainer.inference.bundle import ModelSpec, write
from trainer.inference.conditions import conditions
from trainer.inference.cost import serving_cost
from trainer.inference.predictor import Predictor
from trainer.models.base import Probabilities
from trainer.store.location import Store, open_store
from trainer.store.models import load_bundle
from trainer.store.registry import crown_first, find_version
from trainer.store.repeats import trained_before
from trainer.store.writer import RunWriter
from trainer.training.allocator import keep_memory
from trainer.training.checkpoint import Checkpoint, stored_config
from trainer.training.energy import EnergyMeter
from trainer.training.environment import environment, make_fabric
from trainer.training.loop import Epoch, Step, Training, fit, predict, predict_views
from trainer.training.pretrained import make_classifier
from trainer.training.stress import stress

log = logging.getLogger(__name__)

WORST_IMAGES = 256
"""Test images of highest loss that a run keeps, for galleries where the dataset is not at hand."""


class Progress(Protocol):
    """Whoever watches a run."""

    def started(self, run_id: str, config: Config) -> None: ...
    def step(self, step: Step) -> None: ...
    def epoch(self, epoch: Epoch) -> None: ...
    def doing(self, what: str) -> None: ...


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a finished run came to."""

    run_id: str
    config: Config
    model_name: str
    version: int
    is_champion: bool
    test: Evaluation
    best_epoch: Epoch
    epochs: int
    training_seconds: float
    images_per_second: float


def train(config: Config, progress: Progress, *, resume: str | None = None) -> Outcome:
    """Train, evaluate, log and register one model.

    `resume` names an interrupted run, whose configuration is then taken instead of `config`.

    Raises ValueError or FileNotFoundError with a message for the user; where a run was begun by then, it
    ends as FAILED with the reason as a tag, and by KeyboardInterrupt as KILLED with its best weights.
    """
    check(config)
    store = open_store()
    if resume is not None:
        config = stored_config(store.checkpoints, resume)
    keep_memory()
    progress.doing(f"Loading {config.dataset}")
    splits = load_splits(
        config.dataset,
        config.data_dir,
        protocol=config.validation,
        fraction=config.validation_fraction,
        seed=config.validation_seed,
        drop_twins=config.drop_twins,
        exclude_list=config.exclude,
    )
    if splits.exclusion is not None:
        log.info(splits.exclusion.sentence())
    seed_everything(config.seed, verbose=False)
    mean, std = splits.train.brightness()
    classifier, config = make_classifier(config, len(splits.class_names), mean, std)
    spec = ModelSpec(
        architecture=config.architecture,
        options=config.options(),
        class_names=splits.class_names,
        source_size=splits.train.images.shape[-1],
        image_size=config.image_size,
        channels=config.channels,
        mean=tuple(classifier.mean.flatten().tolist()),
        std=tuple(classifier.std.flatten().tolist()),
        dataset=splits.dataset,
        train_fingerprint=(fingerprints := splits.fingerprints())["train"],
        averaging=config.averaging,
    )
    training = Training(classifier, config, make_fabric(config))
    teaching = teach(config, store, splits, training) if config.teacher else None
    tags = {
        Tag.ARCHITECTURE: config.architecture,
        Tag.MODE: config.mode,
        Tag.DATASET: splits.dataset,
        Tag.RECIPE: config.recipe,
        Tag.TRAIN_FINGERPRINT: fingerprints["train"],
        Tag.TEST_FINGERPRINT: fingerprints["test"],
    }
    if resume is None:
        if before := trained_before(store, config, fingerprints):
            log.warning(
                "%s has trained this configuration with seed %d on the same data already: %s",
                before.name, config.seed, "on the same kind of machine the result will be the same.",
            )  # fmt: skip
        writer = RunWriter.create(store, splits.dataset, run_name(config), tags)
    else:
        writer = RunWriter.reopen(store, resume)
    with Checkpoint(store.checkpoints, writer.run_id) as checkpoint, writer:
        try:
            logged: set[int] = set()
            if resume is None:
                log_beginning(writer, config, splits, fingerprints, training)
            else:
                logged = restore(checkpoint, training, fingerprints, writer)
            progress.started(writer.run_id, config)
            with EnergyMeter() as meter:
                for epoch in fit(
                    training,
                    splits.train,
                    splits.validation,
                    len(splits.class_names),
                    progress.step,
                    teaching,
                ):
                    if checkpoint.is_due() or training.finished:
                        checkpoint.save(config, fingerprints, training.state_dict())
                    if epoch.number not in logged:
                        writer.log_metrics(epoch_metrics(epoch), step=epoch.number)
                    progress.epoch(epoch)
            progress.doing("Evaluating on test, logging and registering")
            outcome = conclude(writer, store, config, splits, training, spec, tags, meter)
        except KeyboardInterrupt:
            keep_best(writer, training, spec)
            raise
        checkpoint.discard()
    return outcome


def conclude(
    writer: RunWriter,
    store: Store,
    config: Config,
    splits: Splits,
    training: Training,
    spec: ModelSpec,
    tags: Mapping[str, str],
    meter: EnergyMeter,
) -> Outcome:
    """Evaluate the best epoch once on test, log all that follows from it, and register the model."""
    best = training.best_epoch
    assert best is not None
    if config.half:
        training.best_weights = halved(training.best_weights)
    training.evaluated.load_state_dict(training.best_weights)
    views = view_logits(splits, training, spec)
    temperature = fit_temperature(views["validation"], splits.validation.target.numpy())
    spec = dataclasses.replace(spec, temperature=temperature)
    with tempfile.TemporaryDirectory() as scratch:
        folder, bundle = Path(scratch, "artifacts"), Path(scratch, "bundle")
        bundle.mkdir()
        test = log_results(writer, folder, splits, training, views, temperature)
        log_robustness(writer, folder, splits, training)
        log_weaknesses(writer, folder, splits, training, averaged(views["test"], temperature).argmax(1))
        writer.log_folder(folder)
        seconds = sum(epoch.seconds for epoch in training.history)
        throughput = float(np.median([epoch.images_per_second for epoch in training.history]))
        writer.log_metrics(
            meter.metrics()
            | {"training_seconds": seconds, "median_images_per_second": throughput}
            | {"warm_up_seconds": training.warm_up_seconds}
        )
        accuracy = f"{test.summary['accuracy']:.4f}"
        writer.set_tags(
            {Tag.BEST_EPOCH: best.number, Tag.TEST_ACCURACY: accuracy, "energy_method": meter.method()}
        )
        write(bundle, spec, training.best_weights)
        writer.log_metrics(serving_cost(bundle))
        name, version = writer.register(
            bundle, {**tags, Tag.TEST_ACCURACY: accuracy, Tag.BEST_EPOCH: best.number}
        )
    return Outcome(
        run_id=writer.run_id,
        config=config,
        model_name=name,
        version=version,
        is_champion=crown_first(store, name, version),
        test=test,
        best_epoch=best,
        epochs=len(training.history),
        training_seconds=seconds,
        images_per_second=throughput,
    )


def teach(config: Config, store: Store, splits: Splits, training: Training) -> torch.Tensor:
    """Mean probabilities of the teachers for the images of train, float32 (N, K), on the training's device.

    Raises ValueError where a teacher knows other classes, or learned from other images: from those of our validation,
    perhaps, which would then choose nothing.
    """
    assert config.teacher is not None
    answers = []
    for reference in map(str.strip, config.teacher.split(",")):
        folder = Path(reference)
        teacher = (
            Predictor.load(folder) if folder.is_dir() else load_bundle(store, find_version(store, reference))
        )
        spec = teacher.spec
        if set(spec.class_names) != set(splits.class_names):
            raise ValueError(
                f"--teacher {reference} knows the classes {', '.join(spec.class_names)}, not the data's"
            )
        if spec.train_fingerprint != splits.train.fingerprint(splits.class_names):
            raise ValueError(f"--teacher {reference} was not trained on the same part of train")
        # Of one view: ten of every training image would take as long as several epochs.
        model = Probabilities(teacher.network.classifier, spec.temperature).to(training.fabric.device)
        order = [spec.class_names.index(name) for name in splits.class_names]
        answers.append(predict(model, splits.train.images, training.fabric.device)[:, order])
    return torch.stack(answers).mean(dim=0)


def view_logits(splits: Splits, training: Training, spec: ModelSpec) -> dict[str, np.ndarray]:
    """Part → logits of each view that the model averages, float32 (V, N, K), for validation and test."""
    model, device = spec.answering(training.evaluated), training.fabric.device
    parts = {"validation": splits.validation, "test": splits.test}
    return {part: predict_views(model, split.images, device).cpu().numpy() for part, split in parts.items()}


def log_beginning(
    writer: RunWriter,
    config: Config,
    splits: Splits,
    fingerprints: Mapping[str, str],
    training: Training,
) -> None:
    """Parameters, environment and data: everything that is known before the first step."""
    writer.log_params(
        dataclasses.asdict(config)
        | training.classifier.parameter_counts()
        | environment(training.fabric)
        | {f"{part}_images": len(split) for part, split in splits.parts().items()}
        | {f"{part}_fingerprint": value for part, value in fingerprints.items()}
        | {"skipped_files": len(splits.skipped)}
        | exclusion_parameters(splits)
    )
    names = splits.class_names
    writer.log_dataset(
        splits.dataset,
        splits.source,
        {
            part: (fingerprints[part], dict(zip(names, split.class_counts(len(names)), strict=True)))
            for part, split in splits.parts().items()
        },
    )
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, CONFIG_FILE).write_text(config.to_json())
        writer.log_folder(Path(scratch))


def exclusion_parameters(splits: Splits) -> dict[str, object]:
    """What was left out of train on purpose; nothing where there was no list."""
    if splits.exclusion is None:
        return {}
    return {
        "excluded_images": splits.exclusion.images,
        "excluded_list": splits.exclusion.name,
        "excluded_digest": splits.exclusion.digest,
    }


def restore(
    checkpoint: Checkpoint, training: Training, fingerprints: Mapping[str, str], writer: RunWriter
) -> set[int]:
    """Go back to the end of the last epoch that was kept; log those that the store missed. Returns what it has."""
    before, state = checkpoint.load()
    if before != fingerprints:
        changed = ", ".join(part for part in fingerprints if before.get(part) != fingerprints[part])
        raise ValueError(f"the data have changed since this run began ({changed}): it cannot be resumed")
    training.load_state_dict(state)
    logged = writer.logged_steps("validation/accuracy")
    for epoch in training.history:
        if epoch.number not in logged:
            writer.log_metrics(epoch_metrics(epoch), step=epoch.number)
    log.info("Resuming after epoch %d of %d.", len(training.history), training.config.epochs)
    return logged


def log_results(
    writer: RunWriter,
    folder: Path,
    splits: Splits,
    training: Training,
    views: Mapping[str, np.ndarray],
    temperature: float,
) -> Evaluation:
    """Metrics of validation and test, and the files that explain them, into `folder`; returns test's.

    They are of the answers that the registered model will give: calibrated, and averaged over views.

    Args:
        views: Logits of each view, float32 (V, N, K), for both parts.
    """
    names, tables = splits.class_names, []
    evaluations: dict[str, Evaluation] = {}
    for part, split in (("validation", splits.validation), ("test", splits.test)):
        probabilities = averaged(views[part], temperature)
        target = split.target.numpy()
        evaluations[part] = evaluate(target, probabilities, names)
        tables.append(prediction_table(part, split.sample_ids, target, probabilities, names))
    for group, index in splits.test_groups.items():
        evaluations[f"test_{group}"] = evaluate(target[index], probabilities[index], names)
    uncalibrated = averaged(views["test"], 1.0)
    tables.append(prediction_table(UNCALIBRATED, split.sample_ids, target, uncalibrated, names))
    summary = evaluate(target, uncalibrated, names).summary
    writer.log_metrics(
        {TEMPERATURE_METRIC: temperature}
        | {metric_key(UNCALIBRATED, name): summary[name] for name in CALIBRATION_METRICS}
    )
    if len(index := splits.test_without_twins()):
        writer.log_evaluation("test_without_twins", evaluate(target[index], probabilities[index], names))
    (folder / PREDICTIONS_FILE).parent.mkdir(parents=True)
    pd.concat(tables, ignore_index=True).to_parquet(folder / PREDICTIONS_FILE, index=False)
    for part, evaluation in evaluations.items():
        if part == "validation":  # its summary per epoch is logged already; `<part>/loss` stays that curve
            writer.log_evaluation("validation_best", evaluation)
            continue
        writer.log_evaluation(part, evaluation)
        matrix = {"class_names": names, "rows": "truth", "columns": "prediction"}
        matrix["counts"] = evaluation.confusion.tolist()
        (folder / CONFUSION_FILE.format(part=part)).write_text(json.dumps(matrix))
        title = f"Accuracy {evaluation.summary['accuracy']:.3f} on {evaluation.size:,} images of {part}"
        confusion_figure(evaluation, title).savefig(folder / CONFUSION_PICTURE.format(part=part), dpi=110)
    best = training.best_epoch
    assert best is not None
    history = [vars(epoch) for epoch in training.history]
    curves_figure(history, best.number).savefig(folder / CURVES_PICTURE, dpi=110)
    loss = sample_loss(target, probabilities)
    sheet = mistakes_sheet(splits.test.images.numpy(), target, probabilities, names, loss)
    sheet.save(folder / MISTAKES_PICTURE)
    worst = image_table(split.images.numpy(), split.sample_ids, loss, WORST_IMAGES)
    worst.to_parquet(folder / WORST_IMAGES_FILE, index=False)
    return evaluations["test"]


def log_robustness(writer: RunWriter, folder: Path, splits: Splits, training: Training) -> None:
    """The answers to corrupted test images, into `folder`, and what follows from them as metrics."""
    answers = stress(training.evaluated, splits.test, splits.class_names, training.fabric.device)
    answers.to_parquet(folder / ROBUSTNESS_FILE, index=False)
    found = Robustness.from_table(answers)
    writer.log_metrics(
        {ROBUSTNESS: relative(found).value}
        | {ROBUSTNESS_OF_KIND.format(kind=kind): accuracy for kind, accuracy in by_kind(found).items()}
    )


def log_weaknesses(
    writer: RunWriter, folder: Path, splits: Splits, training: Training, preds: np.ndarray
) -> None:
    """What the test images are like, in which slices of them the model is weak, and what it looks at.

    Args:
        preds: int64 (N,), what it answered to the test images.
    """
    test, names = splits.test, splits.class_names
    target = test.target.numpy()
    measured = conditions(test.images.numpy(), test.sample_ids, test.fingerprint(names))
    measured.to_parquet(folder / CONDITIONS_FILE, index=False)
    table = slice_table(target, preds == target, thirds(measured, test.sample_ids))
    writer.log_metrics(
        {
            SLICE_DIFFERENCE.format(grouping=row.grouping, slice=row.slice): row.difference
            for row in table.itertuples()
            if row.difference == row.difference
        }
    )
    looks = attention(training.evaluated, test.images, target, preds, measured, names)
    if looks is not None:
        looks.save(folder / ATTENTION_FILE)
        writer.log_metrics({RANDOM_SIMILARITY: looks.random_similarity})


def halved(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`weights` in float16; what float16 cannot hold becomes its largest number."""
    largest = torch.finfo(torch.float16).max
    return {
        name: value.clamp(-largest, largest).half() if value.is_floating_point() else value
        for name, value in weights.items()
    }


def keep_best(writer: RunWriter, training: Training, spec: ModelSpec) -> None:
    """Log the best weights of a run that is being stopped."""
    if not training.best_weights:
        return
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch), spec, training.best_weights)
        writer.log_best(Path(scratch))


def epoch_metrics(epoch: Epoch) -> dict[str, float]:
    """Under the names of `contract.EPOCH_METRICS`."""
    return {
        "train/loss": epoch.train_loss,
        "train/accuracy": epoch.train_accuracy,
        "validation/loss": epoch.validation_loss,
        "validation/accuracy": epoch.validation_accuracy,
        "validation/macro_recall": epoch.validation_macro_recall,
        "learning_rate": epoch.learning_rate,
        "images_per_second": epoch.images_per_second,
        "epoch_seconds": epoch.seconds,
    }


def run_name(config: Config) -> str:
    """Short and telling, with a word that keeps equal configurations apart: `resnet18-layer4-s3-4f2a`."""
    mode = "" if config.mode == "full" else f"-{config.mode}"
    word = f"{random.SystemRandom().getrandbits(16):04x}"
    return f"{config.architecture}{mode}-{config.recipe}-s{config.seed}-{word}"

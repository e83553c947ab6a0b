"""The story of one run, from data to a registered version, top to bottom."""

import contextlib
import dataclasses
import json
import logging
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric, seed_everything

from trainer import torchrun
from trainer.config import Config, check
from trainer.contract import (
    CURVES_PICTURE,
    Tag,
    model_name,
)
from trainer.data.splits import Splits
from trainer.evaluation.calibration import fit_temperature
from trainer.evaluation.metrics import Evaluation
from trainer.evaluation.pictures import curves_figure, save
from trainer.inference.bundle import ModelSpec, write
from trainer.inference.cost import serving_cost
from trainer.jobs import is_resumable
from trainer.store.location import Store, open_store
from trainer.store.repeats import trained_before
from trainer.store.writer import RunWriter
from trainer.torchrun import Launch
from trainer.training.allocator import keep_memory, return_memory
from trainer.training.beginning import begin
from trainer.training.checkpoint import Checkpoint, stored_config
from trainer.training.data import configured_splits
from trainer.training.energy import EnergyMeter, check_country
from trainer.training.environment import make_fabric, part
from trainer.training.loop import Epoch, Step, Training, fit
from trainer.training.memory import telling_out_of_memory
from trainer.training.pretrained import check_file, make_classifier
from trainer.training.records import epoch_metrics, log_beginning, run_name
from trainer.training.results import log_test, log_validation, view_logits
from trainer.training.shares import gathered, is_loss_of_a_process
from trainer.training.teachers import naming_models, teach

log = logging.getLogger(__name__)

LOST = "another process of this training has ended: go on with --resume, if torchrun has not started it anew"


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
    version: int | None
    """None where its registration waits for the tracking server."""
    is_champion: bool
    test: Evaluation
    best_epoch: Epoch
    epochs: int
    training_seconds: float
    images_per_second: float


def train(config: Config, progress: Progress, *, resume: str | None = None) -> Outcome | None:
    """Train, evaluate, log and register one model.

    `resume` names an interrupted run, whose configuration is then taken instead of `config`, but for `data_dir` where
    that is set. Where torchrun has started several processes, each calls this; the first alone has a store and an
    outcome. Those that torchrun starts anew go on with their run; there is no outcome either where it has finished by
    then.

    Raises ValueError or FileNotFoundError with a message for the user; where a run was begun by then, it
    ends as FAILED with the reason as a tag, and by KeyboardInterrupt as KILLED with its best weights.
    """
    store = None
    if torchrun.rank() == 0:  # which tells the others what is trained
        check(config)
        store = open_store()
        if (begun := Launch(store.checkpoints).recall()) is not None:
            if RunWriter.has_finished(store, begun):
                torchrun.told("")
                return None
            resume = begun
            if is_resumable(store.checkpoints, begun):
                config = of_the_run(begun, store, config)
        elif resume is not None:
            config = of_the_run(resume, store, config)
        else:
            check_file(config)
            config = naming_models(config, store)
    if not (text := torchrun.told(config.to_json())):
        return None
    config = Config.from_json(text)
    try:
        outcome = train_here(config, progress, store, resume)
    except RuntimeError as error:
        if not is_loss_of_a_process(error):
            raise
        if torchrun.asked_to_stop():
            raise KeyboardInterrupt from error
        raise ConnectionError(LOST) from error
    part()
    return outcome


def of_the_run(run_id: str, store: Store, config: Config) -> Config:
    """The configuration that the run began with, but with the images where `config` has them, if it says so."""
    began = stored_config(store.checkpoints, run_id)
    return dataclasses.replace(began, data_dir=config.data_dir or began.data_dir)


def train_here(config: Config, progress: Progress, store: Store | None, resume: str | None) -> Outcome | None:
    """`train`, in the first process, which alone is given a store, or beside it."""
    keep_memory()
    check_country()
    fabric = make_fabric(config)
    progress.doing(f"Loading {config.dataset}")
    splits, fingerprints = load_everywhere(config, fabric)
    if splits.exclusion is not None:
        log.info(splits.exclusion.sentence())
    if len(splits.train) < fabric.world_size:
        raise ValueError(
            f"{len(splits.train)} training images are too few for {fabric.world_size} processes: start fewer"
        )
    seed_everything(config.seed, verbose=False)
    mean, std = splits.train.brightness()
    # A checkpoint has all weights: those that it began with may be gone by now. Other processes know of none.
    goes_on = store is not None and resume is not None and is_resumable(store.checkpoints, resume)
    blank = goes_on and fabric.world_size == 1
    classifier, config = make_classifier(config, len(splits.class_names), mean, std, blank=blank)
    beginning = None
    if config.start_from:
        if store is not None and not goes_on:
            beginning = begin(config, store, splits, classifier)
        weights: Any = fabric.broadcast(beginning.weights if beginning else {})
        classifier.load_state_dict(weights or classifier.state_dict())
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
        train_fingerprint=fingerprints["train"],
        averaging=config.averaging,
    )
    if any(other != config for other in gathered(fabric, config)):
        raise ValueError("ImageNet's weights are not on every machine: give --pretrained PATH, or take none")
    training = Training(classifier, config, fabric)
    if config.compile and not training.compiled:
        log.info("The network is not compiled: several processes train it.")
    soft_targets = None
    if config.teacher:
        progress.doing("Asking the teachers about every training image")
        soft_targets = fabric.broadcast(
            teach(config, store, splits, training.fabric.device).cpu() if store else None
        )
    if store is None:
        follow(training, splits, soft_targets)
        return None
    tags = tags_of(config, splits, fingerprints) | (beginning.tags() if beginning else {})
    if resume is None:
        if before := trained_before(store, config, fingerprints):
            log.warning(
                "%s has trained this configuration with seed %d on the same data already: %s",
                before.name, config.seed, "on the same kind of machine the result will be the same.",
            )  # fmt: skip
        writer = RunWriter.create(store, splits.dataset, run_name(config), tags)
    with contextlib.ExitStack() as opened:
        # First of all: a run that another process trains is not touched.
        try:
            checkpoint = opened.enter_context(Checkpoint(store.checkpoints, resume or writer.run_id))
        except OSError:
            if resume is None:
                writer.abandon()
            raise
        if resume is not None:
            same_images(checkpoint, splits, fingerprints)  # before anything is said of the run in the store
            checkpoint.keep(config)
            writer = RunWriter.reopen(store, resume)
            if config.data_dir:
                writer.set_tags({Tag.DATA_DIR: config.data_dir})
        Launch(store.checkpoints).remember(writer.run_id)
        with writer, telling_out_of_memory(config):
            try:
                logged: dict[int, float] = {}
                if checkpoint.exists():
                    logged = restore(checkpoint, training, writer)
                else:
                    checkpoint.begin(config, fingerprints, training.state_dict())
                    fabric.broadcast(None)
                if not training.history:
                    log_beginning(writer, config, splits, fingerprints, training)
                progress.started(writer.run_id, config)
                is_whole = not training.history
                with EnergyMeter() as meter:
                    for epoch in epochs(training, splits, soft_targets, progress.step):
                        if checkpoint.is_due() or training.finished:
                            checkpoint.save(fingerprints, training.state_dict())
                        # A device of another kind comes to other figures than those before the interruption.
                        if logged.get(epoch.number) != epoch.train_loss:
                            writer.log_metrics(epoch_metrics(epoch), step=epoch.number)
                        progress.epoch(epoch)
                progress.doing("Evaluating on test, logging and registering")
                outcome = conclude(writer, config, splits, training, spec, tags, meter if is_whole else None)
            except KeyboardInterrupt:
                keep_best(writer, training, spec)
                raise
            except RuntimeError as error:
                if is_loss_of_a_process(error):
                    raise ConnectionError(LOST) from error
                raise
        checkpoint.discard()  # not before the run has ended in the store: until then it can be resumed
    fabric.barrier()
    if writer.is_waiting:
        progress.doing(
            "The tracking server did not answer: `python -m trainer deliver` sends it what was kept"
        )
    return outcome


def tags_of(config: Config, splits: Splits, fingerprints: Mapping[str, str]) -> dict[str, str]:
    """By which a run, and the version that comes of it, is found."""
    return {
        Tag.ARCHITECTURE: config.architecture,
        Tag.MODE: config.mode,
        Tag.DATASET: splits.dataset,
        Tag.RECIPE: config.recipe,
        Tag.TRAIN_FINGERPRINT: fingerprints["train"],
        Tag.TEST_FINGERPRINT: fingerprints["test"],
        Tag.CLASSES: json.dumps(splits.class_names, ensure_ascii=False),
    }


def follow(training: Training, splits: Splits, soft_targets: torch.Tensor | None) -> None:
    """Train beside the first process, and wait until it has tested, logged and registered what came of it."""
    state: dict[str, Any] | None = training.fabric.broadcast(None)
    if state is not None:
        training.load_state_dict(state)
    for _ in epochs(training, splits, soft_targets):
        pass
    training.fabric.barrier()


def epochs(
    training: Training,
    splits: Splits,
    soft_targets: torch.Tensor | None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Iterator[Epoch]:
    """`fit` on the splits."""
    return fit(training, splits.train, splits.validation, len(splits.class_names), on_step, soft_targets)


def load_everywhere(config: Config, fabric: Fabric) -> tuple[Splits, dict[str, str]]:
    """The data and their fingerprints. Raises ValueError where a process has none, or others than the first."""
    splits, fingerprints, problem = None, {}, ""
    try:
        splits = configured_splits(config)
        fingerprints = splits.fingerprints()
    except (ValueError, OSError) as error:
        if fabric.world_size == 1:
            raise
        problem = str(error)
    found = gathered(fabric, (socket.gethostname(), problem, fingerprints))
    for rank, (host, failure, prints) in enumerate(found):
        if failure:
            raise ValueError(failure if rank == 0 else f"on {host}: {failure}")
        if prints != found[0][2]:
            raise ValueError(f"{host} holds other images or labels of {config.dataset} than {found[0][0]}")
    assert splits is not None
    return splits, fingerprints


def conclude(
    writer: RunWriter,
    config: Config,
    splits: Splits,
    training: Training,
    spec: ModelSpec,
    tags: Mapping[str, str],
    meter: EnergyMeter | None,
) -> Outcome:
    """Evaluate the best epoch once on test, log all that follows from it, and register the model.

    Args:
        meter: Of all epochs; None where there is none that saw them all.
    """
    best = training.best_epoch
    assert best is not None
    return_memory()
    if config.half:
        training.best_weights = halved(training.best_weights)
    training.evaluated.load_state_dict(training.best_weights)
    answering, device = spec.answering(training.evaluated), training.fabric.device
    validation = view_logits(answering, splits.validation, device)
    spec = dataclasses.replace(
        spec, temperature=fit_temperature(validation, splits.validation.target.numpy())
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder, bundle = Path(scratch, "artifacts"), Path(scratch, "bundle")
        bundle.mkdir()
        table = log_validation(writer, splits, validation, spec.temperature)
        test = log_test(writer, folder, splits, training.evaluated, spec, device, table)
        save(curves_figure([vars(epoch) for epoch in training.history], best.number), folder / CURVES_PICTURE)
        writer.log_folder(folder)
        seconds = sum(epoch.seconds for epoch in training.history)
        throughput = float(np.median([epoch.images_per_second for epoch in training.history]))
        writer.log_metrics(
            (meter.metrics() if meter else {})
            | {"training_seconds": seconds, "median_images_per_second": throughput}
            | {"warm_up_seconds": training.warm_up_seconds}
        )
        accuracy = f"{test.summary['accuracy']:.4f}"
        writer.set_tags(
            {Tag.BEST_EPOCH: best.number, Tag.TEST_ACCURACY: accuracy}
            | ({"energy_method": meter.method()} if meter else {})
        )
        write(bundle, spec, training.best_weights)
        writer.log_metrics(serving_cost(bundle))
        return_memory()
        registered = writer.register(
            bundle, {**tags, Tag.TEST_ACCURACY: accuracy, Tag.BEST_EPOCH: best.number}
        )
    return Outcome(
        run_id=writer.run_id,
        config=config,
        model_name=model_name(splits.dataset),
        version=registered.version if registered else None,
        is_champion=registered is not None and registered.is_champion,
        test=test,
        best_epoch=best,
        epochs=len(training.history),
        training_seconds=seconds,
        images_per_second=throughput,
    )


def same_images(checkpoint: Checkpoint, splits: Splits, fingerprints: Mapping[str, str]) -> None:
    """Raises ValueError where a run that is to go on began with other images."""
    if not checkpoint.exists():
        return
    before, _ = checkpoint.load()
    if changed := ", ".join(part for part in fingerprints if before.get(part) != fingerprints[part]):
        raise ValueError(
            f"{splits.source} has other images than this run began with ({changed}): it cannot go on with them"
        )


def restore(checkpoint: Checkpoint, training: Training, writer: RunWriter) -> dict[int, float]:
    """Go back to the end of the last epoch that was kept; log those that the store missed.

    Returns the training losses that it has, which may be of later epochs, too.
    """
    _, state = checkpoint.load()
    training.fabric.broadcast(state)
    training.load_state_dict(state)
    logged = writer.logged("train/loss")
    for epoch in training.history:
        if epoch.number not in logged:
            writer.log_metrics(epoch_metrics(epoch), step=epoch.number)
    log.info("Resuming after epoch %d of %d.", len(training.history), training.config.epochs)
    return logged


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

"""`quickstart`: the CNN, then ResNet18, on the best data at hand, compared in one table."""

import dataclasses
import logging
from typing import Annotated

import tyro

from trainer.config import Recipe, check, recipe_defaults

log = logging.getLogger(__name__)

# Of `fast`. Drawn faces need less: both together stay under ten minutes on two cores.
SKETCH_EPOCHS = {"cnn": 8, "resnet18": 10}


def main(arguments: list[str]) -> int:
    return tyro.cli(quickstart, args=arguments, prog="python -m trainer quickstart")


def quickstart(
    *,
    dataset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None,
    data_dir: str | None = None,
    recipe: Recipe = "fast",
    epochs: int | None = None,
    seed: int = 0,
) -> int:
    """Train the CNN and then ResNet18, log and register both, and compare them.

    Args:
        dataset: fer2013, sketch, or a name for images of your own; without it fer2013 where it can be had, else sketch.
        data_dir: Folder, archive or CSV of the dataset.
        recipe: The defaults of everything else; see `python -m trainer train --help`.
        epochs: Passes over train, instead of the recipe's (of `fast` on sketch: 8 for the CNN, 10 for ResNet18).
        seed: Seed of both runs.
    """
    from trainer.commands.progress import make_progress, stoppable
    from trainer.commands.report import outcome_table
    from trainer.commands.train import found_from_anywhere
    from trainer.wording import duration

    if data_dir is None:  # what images do not decide is told before they are looked for
        check(
            dataclasses.replace(
                recipe_defaults(recipe, "cnn"), epochs=1 if epochs is None else epochs, seed=seed
            )
        )
    with make_progress() as progress, stoppable(progress):
        progress.doing("Starting")
        from trainer.data.splits import load_splits
        from trainer.store.bundled import install
        from trainer.store.location import open_store
        from trainer.training.estimate import estimate_seconds
        from trainer.training.retest import bundled_elsewhere, retest
        from trainer.training.run import train

        dataset = available_dataset(data_dir) if dataset is None else dataset
        configs = []
        for architecture in ("cnn", "resnet18"):
            wanted = usual_epochs(dataset, recipe, architecture) if epochs is None else epochs
            config = recipe_defaults(recipe, architecture)
            config = dataclasses.replace(config, dataset=dataset, data_dir=data_dir, epochs=wanted, seed=seed)
            check(config)
            configs.append(found_from_anywhere(config))
        splits = load_splits(dataset, data_dir)  # first of all: a slip in a path leaves no store behind
        if install(store := open_store()):
            progress.say("A new store: the model that comes with the program is its first champion.")
        if bundled := bundled_elsewhere(store, splits):
            progress.doing("Testing the model that comes with the program on all of these test images")
            try:
                retest(store, bundled, data_dir)
            except ValueError as error:  # nothing that is trained now depends on it
                progress.say(f"It is not tested on these images: {error}.")
        progress.doing("Estimating the time")
        estimates = [estimate_seconds(config) for config in configs]
        progress.say(
            f"Training {' and then '.join(c.architecture for c in configs)} on {dataset}: "
            f"about {duration(sum(estimates))} in all "
            f"({', '.join(f'{c.architecture} {duration(s)}' for c, s in zip(configs, estimates, strict=True))})."
        )
        outcomes = []
        for config in configs:
            if (outcome := train(config, progress)) is not None:
                outcomes.append(outcome)
            progress.run_id = None  # finished: there is nothing to resume
    outcome_table(outcomes)
    return 0


def usual_epochs(dataset: str, recipe: Recipe, architecture: str) -> int:
    """The recipe's; `fast` has fewer for sketch."""
    if dataset == "sketch" and recipe == "fast":
        return SKETCH_EPOCHS[architecture]
    return recipe_defaults(recipe, architecture).epochs


def available_dataset(data_dir: str | None) -> str:
    """fer2013, or sketch with a word on how to get fer2013 where that is not to be had."""
    from pathlib import Path

    from trainer.data import dataset_source

    try:
        dataset_source("fer2013").load(Path(data_dir) if data_dir else None, ("train", "test"))
        return "fer2013"
    except FileNotFoundError as error:
        if data_dir is not None:
            raise
        log.warning("%s\nGoing on with the built-in dataset of drawn faces, sketch.\n", error)
        return "sketch"

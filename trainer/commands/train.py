"""`train`: one run, from flags to a registered version."""

import contextlib
import dataclasses
import logging
import os
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from trainer import torchrun
from trainer.config import Config, Recipe, check, recipe_defaults
from trainer.data import absolute
from trainer.models import listing

DESCRIPTION = """Train one model, log everything to MLflow and register it.

The defaults shown are those of the recipe, architecture and mode that are given: add --help to them."""


@dataclass(frozen=True)
class _Choice:
    """The flags that decide the defaults of the others."""

    recipe: Recipe = "fast"
    architecture: str | None = None
    mode: str = "full"
    pretrained: str | None = None
    start_from: str | None = None


@dataclass(frozen=True)
class _Arguments:
    config: tyro.conf.OmitArgPrefixes[Config]
    resume: Annotated[str | None, tyro.conf.arg(metavar="RUN_ID")] = None
    """Go on with an interrupted run, with its own configuration; takes no other flag but --data-dir, where its images
    have moved."""


_PATIENCE_SECONDS = 60
"""Of a process that has found the mistake that the first one tells; torchrun ends it sooner."""


def main(arguments: list[str]) -> int:
    if torchrun.rank() == 0:
        return _main(arguments)
    # The first process speaks for all; what only this one meets is a traceback, and is not hidden.
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            return _main(arguments)
        except (KeyboardInterrupt, ConnectionError):
            return 1
        except (ValueError, OSError, FloatingPointError):
            time.sleep(_PATIENCE_SECONDS)
            return 2


def _main(arguments: list[str]) -> int:
    with Path(os.devnull).open("w") as nowhere:
        screen = sys.stderr if torchrun.rank() == 0 else nowhere
        with contextlib.redirect_stderr(screen):
            config, resume = parse(arguments)
    config = found_from_anywhere(config)
    if torchrun.rank() == 0:  # which tells the others what is trained
        check(config)
        if config.data_dir and not Path(config.data_dir).exists():  # before there is a store
            raise FileNotFoundError(
                f"there are no images of {config.dataset} at {config.data_dir}: the path does not exist"
            )
    from trainer.commands.progress import make_progress, stoppable
    from trainer.commands.report import outcome_table

    with make_progress() as progress, stoppable(progress):
        progress.doing("Starting")
        from trainer.training.run import train

        outcome = train(config, progress, resume=resume)
    if outcome is not None:
        outcome_table([outcome])
    return 0


def parse(arguments: list[str]) -> tuple[Config, str | None]:
    """The configuration that the flags ask for, and the run to resume.

    Raises ValueError for an unknown architecture or for --resume with other flags; leaves by SystemExit,
    with a message, for flags that cannot be read.
    """
    parsed = tyro.cli(
        _Arguments,
        args=arguments,
        default=_Arguments(config=defaults(arguments)),
        prog="python -m trainer train",
        description=DESCRIPTION,
        config=(tyro.conf.FlagConversionOff,),
    )
    given = {text.partition("=")[0].replace("_", "-") for text in arguments if text.startswith("--")}
    if parsed.resume is not None and given - {"--resume", "--data-dir"}:
        raise ValueError(
            "--resume takes the configuration of the interrupted run: give no other flag, but --data-dir where the "
            "images have moved"
        )
    return parsed.config, parsed.resume


def found_from_anywhere(config: Config) -> Config:
    """With absolute paths to images and lists: a run may be gone on with from another working folder."""
    data_dir, exclude = (path and absolute(path) for path in (config.data_dir, config.exclude))
    return dataclasses.replace(config, data_dir=data_dir, exclude=exclude)


def defaults(arguments: list[str]) -> Config:
    """The configuration that the recipe, architecture and mode among the flags begin with.

    Raises ValueError for an unknown architecture, and where there is no model to start from or it is of another one.
    """
    choice, _ = tyro.cli(_Choice, args=arguments, return_unknown_args=True, add_help=False)
    architecture = choice.architecture or Config.architecture
    listing(architecture)
    # Other processes are told by the first one what is trained.
    if not choice.start_from or torchrun.rank() != 0:
        return recipe_defaults(choice.recipe, architecture, choice.mode, choice.pretrained)
    from trainer.training.beginning import find_model, network_of

    network = network_of(find_model(choice.start_from))
    own = str(network["architecture"])
    if choice.architecture not in (None, own):
        raise ValueError(f"--start-from {choice.start_from}: it is a {own}, no {choice.architecture}")
    config = recipe_defaults(choice.recipe, own, choice.mode, choice.pretrained or "none")
    return dataclasses.replace(config, **network)

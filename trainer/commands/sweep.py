"""`sweep`: many trials of one study, from flags to the command that trains the best in full."""

import shlex
from dataclasses import dataclass
from typing import Annotated

import tyro

from trainer.commands.train import defaults, found_from_anywhere
from trainer.config import Config, check
from trainer.search import default_space, in_full, parse_space
from trainer.settings import flags

MOST_PATIENCE = 7 * 24 * 3600
"""Seconds: a week."""
DESCRIPTION = """Search for better settings: each trial trains with other values, and is judged on validation alone.

Start the same command again, here or on another machine, and it works on the same study; stopped, it goes on. Studies
are kept in sweeps.db beside the store, or where the environment variable MOODIFY_SWEEP_STORAGE says
(postgresql://...), which many machines can share.

All flags of `train` but --resume, --teacher and --start-from set what does not vary."""


@dataclass(frozen=True)
class _Arguments:
    config: tyro.conf.OmitArgPrefixes[Config]
    search: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=RANGE")] = ()
    """What varies, once for each setting: `learning_rate=1e-4:1e-2:log`, `dropout=0:0.5`, `optimizer=sgd,muon`. Without
    it learning rate, dropout, label smoothing and augmentation vary around the recipe's."""
    trials: int = 20
    """Of the whole study, all workers together."""
    study: str | None = None
    """Name of the study; without it dataset, architecture and recipe make one."""
    startup: int = 5
    """Trials that are finished before one that is below their median is stopped, after a quarter of its epochs."""
    patience: int = 120
    """Seconds of silence after which a worker counts as dead and its trial is tried again."""


def main(arguments: list[str]) -> int:
    given = parse(arguments)
    config = found_from_anywhere(given.config)
    check(config)
    if config.teacher is not None:
        raise ValueError("--teacher: a sweep's trials learn from the labels alone; take `train`")
    if config.start_from is not None:
        raise ValueError(
            "--start-from: a sweep's trials begin with random weights or ImageNet's; take `train`"
        )
    for name, least in (("trials", 1), ("startup", 1), ("patience", 2)):
        if getattr(given, name) < least:
            raise ValueError(f"--{name} {getattr(given, name)}: must be {least} or more")
    if given.patience > MOST_PATIENCE:
        raise ValueError(f"--patience {given.patience}: must be {MOST_PATIENCE} or less")
    study = given.study or f"{config.dataset}-{config.architecture}-{config.recipe}"
    if not study.strip() or len(study) > 200:
        raise ValueError("--study: a name of 1 to 200 characters")
    if config.pretrained == "auto":  # what it comes to decides the learning rate, around which a search lies
        from trainer.training.pretrained import settled

        config = settled(config)
    space = parse_space(given.search, config) if given.search else default_space(config)
    for one in space:
        flag = f"--{one.name.replace('_', '-')}"
        if any(word.partition("=")[0].replace("_", "-") in (flag, f"--no{flag[1:]}") for word in arguments):
            raise ValueError(f"{flag} is given, and searched as well: leave one out")
    from trainer.commands.progress import make_progress, stoppable

    advice = "Stopped. What the trial at hand tried is tried again when the same command goes on."
    with make_progress() as progress, stoppable(progress, advice):
        progress.doing("Starting")
        from trainer.training.sweep import Plan, sweep

        plan = Plan(
            study=study, config=config, space=space, trials=given.trials, startup=given.startup,
            patience=given.patience,
        )  # fmt: skip
        result = sweep(plan, progress)
    failed = f", {result.failed} could not be trained" if result.failed else ""
    print(f"Study {study}: {result.trials} trials, {result.pruned} pruned{failed}.")
    if result.best_config is None or result.best_accuracy is None:
        print("No trial was finished: search a gentler range.")
        return 0
    values = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in result.best_values.items()
    )
    command = ["python", "-m", "trainer", "train", *flags(in_full(result.best_config, space))]
    print(
        f"Best: trial {result.best_number} with {result.best_accuracy:.3f} validation accuracy: {values}\n"
        "It is the best of many on the images that chose it, so it flatters; test has not been looked at.\n"
        f"Train it in full, and test it once:\n  {shlex.join(command)}\n"
        "All trials:  make dashboard, page Sweep"
    )
    return 0


def parse(arguments: list[str]) -> _Arguments:
    """Leaves by SystemExit, with a message, for flags that cannot be read."""
    return tyro.cli(
        _Arguments,
        args=arguments,
        default=_Arguments(config=defaults(arguments)),
        prog="python -m trainer sweep",
        description=DESCRIPTION,
        config=(tyro.conf.FlagConversionOff,),
    )

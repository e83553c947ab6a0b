"""What the Train page says of trainings that go on and of settings that are proposed: pure functions."""

import dataclasses
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import pandas as pd

from dashboard.text import duration, number, plain, several
from trainer.config import ARCHITECTURES, Config, Recipe, check, listing, recipe_defaults
from trainer.jobs import Job
from trainer.settings import defaults_of
from trainer.store.snapshot import Snapshot


@dataclass(frozen=True, eq=False)
class Going:
    """A training that goes on: its run once it has begun, and its job where it was started here."""

    name: str
    run: pd.Series | None
    job: Job | None

    def progress(self) -> str:
        """`is training: epoch 4 of 12, 6 min 30 s left`."""
        if self.job and self.job.stopping:
            return "is stopping and keeps its best weights"
        if self.run is None:
            return "is starting"
        if self.run["status"] != "running":
            return "is ending"
        if self.run["epochs"] != self.run["epochs"]:
            return "is starting"
        return f"is training: {stage(self.run)}"

    def share(self) -> float:
        if self.run is not None and self.run["status"] == "finished":
            return 1.0
        if self.run is None or not self.run["epochs"] > 0:
            return 0.0
        return min(self.run["epochs_done"] / self.run["epochs"], 1.0)


def stage(run: pd.Series) -> str:
    """Of a run that is training: `epoch 4 of 12, 6 min 30 s left`, which is the one that it is in."""
    epochs, done, left = run["epochs"], run["epochs_done"], run["seconds_left"]
    if epochs != epochs:
        return "begun"
    if done >= epochs:
        return f"{several(int(epochs), 'epoch')} done, being tested"
    return f"epoch {done + 1:.0f} of {epochs:.0f}" + (f", {duration(left)} left" if left == left else "")


def what_goes_on(runs: pd.DataFrame, names: dict[str, str], found: list[Job]) -> list[Going]:
    """Those whose runs have not begun or have just ended first, then the running ones, newest first."""
    alive = [job for job in found if job.alive]
    of_run = {job.run_id: job for job in alive}
    running = runs[runs["status"] == "running"] if len(runs) else runs
    others = [job for job in alive if job.run_id not in running.index]
    apart = [Going(job_name(job, names), _just_ended(job, runs), job) for job in others]
    return apart + [Going(names[run_id], row, of_run.get(run_id)) for run_id, row in running.iterrows()]


def trials_here(snapshot: Snapshot) -> list[Going]:
    """The trials of sweeps that train on this machine."""
    sweeps, trials = {sweep.run_id: sweep.name for sweep in snapshot.sweeps}, snapshot.trials
    return [
        Going(f"trial {row['trial']:.0f} of {sweeps.get(row['sweep'], 'a sweep')}", row, None)
        for _, row in trials.iterrows()
        if row["status"] == "running" and row["is_local"]
    ]


def _just_ended(job: Job, runs: pd.DataFrame) -> pd.Series | None:
    """The run of a process that is not gone yet; None where it is still to begin, or to go on."""
    if job.run_id not in runs.index:
        return None
    run = runs.loc[job.run_id]
    return None if job.is_resume and run["status"] != "finished" else run


def job_name(job: Job, names: dict[str, str]) -> str:
    """Its run's; before there is one, the architecture."""
    if job.run_id in names:
        return names[job.run_id]
    if job.is_resume:
        return str(job.run_id)[:8]
    given = [
        word.removeprefix("--architecture=") for word in job.arguments if word.startswith("--architecture=")
    ]
    return given[0] if given else Config().architecture


def opening(going: list[Going], runs: pd.DataFrame, names: dict[str, str], found: list[Job]) -> str:
    """What is being trained; else how the last training ended."""
    if going:
        texts = [f"{plain(one.name)} {one.progress()}" for one in going[:3]]
        return "; ".join(texts) + (f"; and {len(going) - 3} more." if len(going) > 3 else ".")
    newest = runs["started"].max() if len(runs) else pd.Timestamp(0)
    if found and not found[0].begun and _started(found[0]) > newest:
        name = f", {plain(job_name(found[0], names))}," if found[0].is_resume else ""
        return f"No training is running; the last one{name} {plain(outcome(found[0], runs))}."
    if runs.empty:
        return "Nothing has been trained yet: choose what to train, and start."
    run_id = runs["started"].idxmax()
    return f"No training is running; the last one, {plain(names[run_id])}, {plain(ending(runs.loc[run_id]))}."


def _started(job: Job) -> pd.Timestamp:
    return pd.Timestamp(job.started).tz_localize(None)


def outcome(job: Job, runs: pd.DataFrame, *, has_older: bool = False) -> str:
    """How a training that was started here has ended. has_older: whether there are more runs than these."""
    if not job.begun:
        return f"could not go on: {complaint(job)}" if job.is_resume else f"did not begin: {complaint(job)}"
    if job.run_id in runs.index:
        return ending(runs.loc[job.run_id])
    gone = "is older than those that are loaded" if has_older else "is not in the store any more"
    return f"has ended; its run {gone}"


def vain_resume(run: pd.Series, found: list[Job]) -> str:
    """Why the last attempt to go on with a run that has ended came to nothing; empty where there was none since."""
    job = next((job for job in found if job.run_id == run.name), None)
    if job is None or job.alive or job.begun or not job.is_resume:
        return ""
    ended = run["started"] + pd.Timedelta(seconds=run["seconds"])  # NaT where that is not known
    return "" if _started(job) < ended else complaint(job)


def complaint(job: Job) -> str:
    """Why it ended before its run began, or went on."""
    lines = job.tail(25)
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return [*lines[-1:], *errors][-1].rstrip(".")[:200] if lines else "it was ended before it said anything"


def ending(run: pd.Series) -> str:
    """`finished with 0.671 test accuracy`, `was stopped after epoch 5 of 12`."""
    if run["status"] == "finished":
        accuracy = run["test_accuracy"]
        return "finished" + (f" with {number(accuracy)} test accuracy" if accuracy == accuracy else "")
    words = {"stopped": "was stopped", "failed": "failed", "stale": "ended without a word"}
    of = f" of {run['epochs']:.0f}" if run["epochs"] == run["epochs"] else ""
    reason = f": {run['reason']}" if run["status"] == "failed" and run["reason"] else ""
    after = f"after epoch {run['epochs_done']:.0f}{of}"
    if run["epochs_done"] >= run["epochs"]:
        after = f"after its {several(int(run['epochs']), 'epoch')}, in the test"
    return f"{words.get(run['status'], run['status'])} {after}{reason[:300]}"


def proposed(
    source: Config | None, recipe: Recipe, architecture: str, mode: str, weights: str | None = None
) -> Config:
    """The form before it is edited: what the recipe says, and what `source` set otherwise than its own recipe.

    weights: initial weights that were chosen, which decide other settings, too.
    """
    if source is None:
        return recipe_defaults(recipe, architecture, mode, weights)
    standard = recipe_defaults(source.recipe, source.architecture, source.mode)
    pretrained = source.pretrained if source.pretrained != standard.pretrained else None
    if not listing(architecture).imagenet:
        pretrained = None
    before = dataclasses.asdict(defaults_of(source))
    own = {name: value for name, value in dataclasses.asdict(source).items() if value != before[name]}
    foreign = {name for entry in ARCHITECTURES.values() for name in entry.options} - {
        *listing(architecture).options
    }
    kept = {name: value for name, value in own.items() if name not in foreign}
    if source.start_from is not None and architecture == source.architecture:
        # Its weights go with this network alone.
        network = {"image_size", "channels", *listing(architecture).options} - {"dropout"}
        kept |= {name: value for name, value in vars(source).items() if name in network}
        weights = pretrained = "none"
    else:
        kept.pop("start_from", None)
    return dataclasses.replace(recipe_defaults(recipe, architecture, mode, weights or pretrained), **kept)


def mistakes(config: Config) -> list[str]:
    """What the command line would refuse, in the form's own words; one line each."""
    try:
        check(config)
    except ValueError as error:
        return [in_words(line) for line in str(error).splitlines()]
    return []


def in_words(line: str) -> str:
    """`--learning-rate 0: must …` → `Learning rate 0: must …`."""
    text = re.sub(r"--([a-z][a-z-]*)", lambda found: found[1].replace("-", " "), line)
    return text[:1].upper() + text[1:]


def changes(config: Config, source: Config) -> str:
    """`seed 0 → 1, epochs 12 → 20`; empty where nothing was changed."""
    before, after = dataclasses.asdict(source), dataclasses.asdict(config)
    shown = {
        name: tuple("none" if v is None else str(v) for v in (before[name], after[name])) for name in after
    }
    return ", ".join(
        f"{name.replace('_', ' ')} {old} → {new}"
        for name, (old, new) in shown.items()
        if before[name] != after[name]
    )


def is_loopback(address: str) -> bool:
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def is_forwarded(headers: Mapping[str, str]) -> bool:
    """Whether a request came through a proxy, to which everybody is on its own machine."""
    told = {name.lower(): value for name, value in headers.items()}
    if told.keys() & {
        "forwarded",
        "via",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-real-ip",
    }:
        return True
    try:
        host = urlsplit(f"//{told.get('host', 'localhost')}").hostname
    except ValueError:
        return True
    return not is_loopback(host or "")

"""What a store holds at one moment: a row a run, and what is told of audits, sweeps and versions."""

import hashlib
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import psutil

from trainer.config import PLACES
from trainer.contract import COST_METRICS, ROBUSTNESS, SUMMARY_METRICS, TEMPERATURE_METRIC, Tag, metric_key
from trainer.search import Dimension, read_space
from trainer.sides import Sides
from trainer.store.location import StoreError
from trainer.store.registry import Version
from trainer.store.rows import BEST_VALIDATION, NAN, Details, Head

SILENCE_SECONDS = 15 * 60
"""A run on another machine that logged nothing for so long (system metrics come every 10 s) counts as stale."""
_CLOCK_SECONDS = 2.0  # two readings of one process's start differ by less
NOT_CONFIGURATION = {
    *PLACES,
    *(
        "seed",
        "device_used",
        "cpu_count",
        "torch_threads",
        "git_commit",
        "python",
        "torch",
        "torchvision",
        "moodify",
    ),
    "skipped_files",
}
"""Parameters that name a machine or follow from others: runs that differ only in them have one configuration."""
ENDED = {"FINISHED", "FAILED", "KILLED"}
_NOBODY = Head("", "", "", "FINISHED", 0, None, {})
_STATES = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "stopped", "RUNNING": "running"}
_TAGS = {
    "dataset": Tag.DATASET,
    "architecture": Tag.ARCHITECTURE,
    "mode": Tag.MODE,
    "recipe": Tag.RECIPE,
    "test_fingerprint": Tag.TEST_FINGERPRINT,
    "train_fingerprint": Tag.TRAIN_FINGERPRINT,
    "reason": Tag.REASON,
    "energy_method": "energy_method",
    "tested_at": Tag.TESTED_AT,
}
_NUMBERS = {"seed": "seed", "epochs": "epochs", "parameters": "parameters", "best_epoch": Tag.BEST_EPOCH}


@dataclass(frozen=True)
class AuditRun:
    """An audit of a dataset that is in the store. made_ms: when, in ms since 1970."""

    run_id: str
    dataset: str
    made_ms: int


@dataclass(frozen=True)
class SweepRun:
    """The parent run of a sweep that is in the store. started_ms: when it began, in ms since 1970."""

    run_id: str
    name: str
    dataset: str
    started_ms: int
    space: tuple[Dimension, ...]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All runs and versions of a store at one moment; of a server those that its reader holds.

    runs: one row a run, newest first, the index is run_id. Text is "" and numbers are NaN where unknown.
        name, experiment, dataset, architecture, mode, recipe, reason, test_fingerprint, train_fingerprint,
        energy_method, tested_at (where it was tested again), configuration (equal for runs that differ in seed or
        machine only); data_dir (where its images were when it began, was resumed or tested again last; "" for its
        dataset's usual place); status: running, finished, failed, stopped, or stale where its process is gone; is_local
        (whether that was one of this machine); started (UTC), seconds, seconds_left, seed, epochs (planned),
        epochs_done, best_epoch, parameters; curve (validation accuracy, a list);
        validation_accuracy (best epoch); `test_<metric>` for each of SUMMARY_METRICS; every COST_METRICS under
        the part behind its slash; robustness; temperature; recalls (class → recall) and supports (class → images);
        versions (list of NAME/NUMBER), registered (the same as text), aliases (list).
    params: run_id → parameter → value. audits: those that ended well, newest first; they are not among the runs.
    trials: the trainings of sweeps, as `runs`, with sweep (the id of its SweepRun) and trial (its number); status may
        also be pruned. They are not among the runs. sweeps: newest first.
    unended: the runs of audits and sweeps that count as running in the store.
    has_older, has_older_versions: whether a server has more than was read.
    """

    runs: pd.DataFrame
    params: dict[str, dict[str, str]] = field(default_factory=dict)
    versions: tuple[Version, ...] = ()
    audits: tuple[AuditRun, ...] = ()
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)
    sweeps: tuple[SweepRun, ...] = ()
    unended: tuple[Head, ...] = ()
    has_older: bool = False
    has_older_versions: bool = False


@dataclass(frozen=True)
class Record:
    """What is known of a run. row: of `Snapshot.runs`, without what the registry says of it."""

    head: Head
    row: dict[str, Any]
    params: dict[str, str]


def make_snapshot(
    heads: Sequence[Head],
    records: Mapping[str, Record],
    versions: tuple[Version, ...],
    *,
    has_older: bool = False,
    has_older_versions: bool = False,
) -> Snapshot:
    """heads: of all that is in the store; records: run_id → what is known of a run, of all but audits and sweeps."""
    of_run: dict[str, list[Version]] = {}
    for version in versions:
        of_run.setdefault(version.run_id or "", []).append(version)
    rows = [record.row | _registered(of_run.get(run_id, [])) for run_id, record in records.items()]
    columns = [*make_record(_NOBODY, Details(), 0.0).row, *_registered([])]
    table = pd.DataFrame(rows, index=pd.Index(list(records), name="run_id", dtype=str), columns=columns)
    table["started"] = pd.to_datetime(table["started"], unit="ms")
    table = table.sort_values("started", ascending=False, kind="stable")
    tags = {run_id: record.head.tags for run_id, record in records.items()}
    is_trial = np.array([records[run_id].head.kind == Tag.SWEEP_RUN for run_id in table.index], dtype=bool)
    return Snapshot(
        table[~is_trial],
        {run_id: record.params for run_id, record in records.items()},
        versions,
        _audits(heads),
        _trials(table[is_trial], tags),
        _sweeps(heads),
        tuple(head for head in heads if head.kind in (Tag.AUDIT, Tag.SWEEP) and head.status not in ENDED),
        has_older,
        has_older_versions,
    )


def is_running(snapshot: Snapshot) -> bool:
    """Whether anything in it goes on."""
    return "running" in {*snapshot.runs["status"], *snapshot.trials["status"]}


def find_run(snapshot: Snapshot, reference: str) -> str:
    """The id of the run that an id or its beginning, a name, NAME@ALIAS or NAME/VERSION stands for.

    Raises StoreError where there is none, or more than one.
    """
    runs = snapshot.runs
    for version in snapshot.versions:
        names = {
            version.reference,
            *(f"{version.name}@{alias}" for alias in version.aliases),
        }
        if reference.removeprefix("models:/") in names:
            if version.run_id in runs.index:
                return str(version.run_id)
            raise StoreError(f"the run of {reference} is not in the store any more")
    found = list(runs.index[(runs["name"] == reference) | (runs.index == reference)])
    if not found and len(reference) >= 4:
        found = [run_id for run_id in runs.index if run_id.startswith(reference)]
    if len(found) == 1:
        return str(found[0])
    if found:
        raise StoreError(
            f"'{reference}' could be any of {len(found)} runs: {', '.join(run_id[:8] for run_id in found[:5])}"
        )
    raise StoreError(f"there is no run '{reference}': `python -m trainer runs` lists those that there are")


def make_record(head: Head, details: Details, now_ms: float) -> Record:
    params = _params(head, details)
    return Record(head, _row(head, details, params, now_ms), params)


def _row(head: Head, details: Details, params: dict[str, str], now_ms: float) -> dict[str, Any]:
    tags, metrics = head.tags, details.metrics
    curve = [details.curve[step] for step in sorted(details.curve)]
    best = _number(metrics.get(BEST_VALIDATION))
    named = _class_names(tags)
    recalls, supports = (_by_class(metrics, f"test/{name}/", named) for name in ("recall", "support"))
    last = details.active_ms or head.started_ms
    status = _STATES.get(head.status, head.status.lower())
    if status == "running" and not lives(tags, last, now_ms):
        status = "stale"
    ended = {"stale": last, "running": now_ms}.get(status, head.ended_ms)
    record: dict[str, Any] = {"name": head.name, "experiment": head.experiment}
    record |= {column: tags.get(key, "") for column, key in _TAGS.items()}
    record["dataset"] = record["dataset"] or head.experiment
    record["data_dir"] = tags.get(Tag.DATA_DIR) or params.get("data_dir") or ""
    record |= {column: _number(tags.get(key, params.get(key))) for column, key in _NUMBERS.items()}
    record |= {f"test_{name}": _number(metrics.get(metric_key("test", name))) for name in SUMMARY_METRICS}
    record |= {key.rpartition("/")[2]: _number(metrics.get(key)) for key in COST_METRICS}
    record["robustness"] = _number(metrics.get(ROBUSTNESS))
    record["temperature"] = _number(metrics.get(TEMPERATURE_METRIC))
    return record | {
        "curve": curve,
        "epochs_done": len(curve),
        "validation_accuracy": best if best == best else max((v for v in curve if v == v), default=NAN),
        "recalls": recalls,
        "supports": supports,
        "test_images": sum(supports.values()) if supports else NAN,
        "status": status,
        "is_local": tags.get(Tag.HOST) == socket.gethostname(),
        "started": head.started_ms,
        # Where the clock was set back meanwhile, nobody knows.
        "seconds": (ended - head.started_ms) / 1000 if ended and ended >= head.started_ms else NAN,
        "seconds_left": _epochs_left(params, record["epochs"], len(curve))
        * _number(metrics.get("epoch_seconds"))
        if status == "running"
        else NAN,
        "configuration": _configuration(head.run_id, record, params),
    }


def _epochs_left(params: Mapping[str, str], epochs: float, done: int) -> float:
    """In epochs as the last one was: one at twice its side counts as four."""
    try:
        sides = Sides(int(epochs), int(params["image_size"]), params["progressive"])
        return sides.passes(done) / (sides.passes(done - 1) - sides.passes(done))
    except (KeyError, ValueError, ArithmeticError):  # not a run of ours, or nothing is done yet
        return epochs - done


def _params(head: Head, details: Details) -> dict[str, str]:
    """As they were logged; those of the test set, which MLflow lets nobody change, are of the last one."""
    if Tag.TESTED_AT not in head.tags:
        return details.params
    images = sum(_by_class(details.metrics, "test/support/", {}).values())
    now = {"test_fingerprint": head.tags.get(Tag.TEST_FINGERPRINT, ""), "test_images": f"{images:.0f}"}
    return {key: now.get(key, value) for key, value in details.params.items()}


def _number(value: object) -> float:
    """NaN for what is no number; infinity, which MLflow stores as the largest float, is none to compare either."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return NAN
    return number if abs(number) < 1e300 else NAN


def _by_class(metrics: Mapping[str, float], prefix: str, named: Mapping[str, str]) -> dict[str, float]:
    """class → value, by class name; named: as it stands in a key → the name."""
    keys = [key.removeprefix(prefix) for key in sorted(metrics) if key.startswith(prefix)]
    return {named.get(key, key): metrics[prefix + key] for key in keys}


def _class_names(tags: Mapping[str, str]) -> dict[str, str]:
    """As it stands in the key of a metric → the name; empty where a run did not say it, or not readably."""
    try:
        names = json.loads(tags.get(Tag.CLASSES, "[]"))
        return {metric_key("", "", name).removeprefix("//"): str(name) for name in names}
    except (TypeError, ValueError):
        return {}


def lives(tags: Mapping[str, str], last_ms: float, now_ms: float) -> bool:
    """Whether the process of a running run is still there, as far as it can be told.

    last_ms: when the run is known to have lived; like now_ms in ms since 1970.
    """
    here = has_process_here(tags, last_ms)
    return now_ms - last_ms < SILENCE_SECONDS * 1000 if here is None else here


def has_process_here(tags: Mapping[str, str], last_ms: float) -> bool | None:
    """Whether the process of a run is still there, and its number is not another's by now; None if not on this machine.

    last_ms: When the run is known to have lived.
    """
    pid = tags.get(Tag.PID, "")
    if tags.get(Tag.HOST) != socket.gethostname() or not pid.isdigit():
        return None
    started = _number(tags.get(Tag.PROCESS_STARTED))
    try:
        process = psutil.Process(int(pid))
        found = process.create_time()
        if process.status() == psutil.STATUS_ZOMBIE:  # it has ended, and its parent has not asked yet
            return False
    except psutil.Error:
        return False
    # The time of what was logged tells it where the start was not kept, unless the clock was set.
    return abs(found - started) < _CLOCK_SECONDS if started == started else found * 1000 <= last_ms + 5000


def _configuration(run_id: str, record: Mapping[str, Any], params: Mapping[str, str]) -> str:
    """Ten hex digits; the run's own id where it logged no parameters.

    A setting that was left out, and one that a version did not know yet, are the same.
    """
    kept = [f"{key}={params[key]}" for key in sorted(params) if params[key] and key not in NOT_CONFIGURATION]
    return _digest("\x1f".join((record["dataset"], record["test_fingerprint"], *kept))) if kept else run_id


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def _registered(versions: Sequence[Version]) -> dict[str, Any]:
    """What the registry says of a run."""
    pairs = [version.reference for version in versions]
    return {
        "registered": ", ".join(pairs),
        "versions": pairs,
        "aliases": sorted({alias for version in versions for alias in version.aliases}),
    }


def _audits(heads: Sequence[Head]) -> tuple[AuditRun, ...]:
    found = [
        AuditRun(head.run_id, head.tags.get(Tag.DATASET, ""), head.started_ms)
        for head in heads
        if head.kind == Tag.AUDIT and head.status == "FINISHED"
    ]
    return tuple(sorted(found, key=lambda audit: audit.made_ms, reverse=True))


def _trials(table: pd.DataFrame, tags: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """`Snapshot.trials`, of the rows of trials alone."""
    of = [tags[run_id] for run_id in table.index]
    pruned = np.array([Tag.PRUNED in one for one in of], dtype=bool)
    return table.assign(
        sweep=[one[Tag.SWEEP_RUN] for one in of],
        trial=[_number(one.get(Tag.TRIAL)) for one in of],
        status=table["status"].where(~pruned, "pruned"),
    )


def _sweeps(heads: Sequence[Head]) -> tuple[SweepRun, ...]:
    found = [
        SweepRun(
            head.run_id,
            head.tags[Tag.SWEEP],
            head.tags.get(Tag.DATASET, ""),
            head.started_ms,
            read_space(head.tags.get(Tag.SEARCH, "")),
        )
        for head in heads
        if head.kind == Tag.SWEEP
    ]
    return tuple(sorted(found, key=lambda sweep: sweep.started_ms, reverse=True))

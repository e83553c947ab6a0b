"""Reads all runs of a store at once, their histories and their predictions; hands out DataFrames."""

import dataclasses
import hashlib
import json
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import psutil
from mlflow.exceptions import MlflowException

from trainer.contract import (
    ATTENTION_FILE,
    AUDIT_FACTS,
    AUDIT_FINDINGS,
    AUDIT_FOLDER,
    AUDIT_THUMBNAILS,
    CONDITIONS_FILE,
    COST_METRICS,
    EPOCH_METRICS,
    PREDICTIONS_FILE,
    ROBUSTNESS,
    ROBUSTNESS_FILE,
    SUMMARY_METRICS,
    TEMPERATURE_METRIC,
    WORST_IMAGES_FILE,
    Tag,
    metric_key,
)
from trainer.evaluation.attention import Attention
from trainer.evaluation.audit import Audit
from trainer.search import Dimension, read_space
from trainer.store.location import Store, StoreError, reason
from trainer.store.registry import Version, all_versions
from trainer.store.rows import BEST_VALIDATION, NAN, Details, Head, open_rows
from trainer.store.window import Window

T = TypeVar("T")

SILENCE_SECONDS = 15 * 60
"""A run on another machine that logged nothing for so long (system metrics come every 10 s) counts as stale."""
FEW = 20
"""So many of the newest runs are enough for a command that names the runs that it is about."""
_CLOCK_SECONDS = 2.0  # two readings of one process's start differ by less
# Parameters that name a machine or follow from others: runs that differ only in them have one configuration.
EPOCH_SECONDS = "epoch_seconds"
NOT_CONFIGURATION = {
    *("seed", "device", "device_used", "cpu_count", "torch_threads", "git_commit", "data_dir", "python"),
    *("torch", "torchvision", "moodify", "skipped_files", "exclude"),
}
_ENDED = {"FINISHED", "FAILED", "KILLED"}
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
        machine only); status: running, finished, failed, stopped, or stale where its process is gone; is_local (whether
        that was one of this machine); started (UTC), seconds, seconds_left,
        seed, epochs (planned), epochs_done, best_epoch, parameters; curve (validation accuracy, a list);
        validation_accuracy (best epoch); `test_<metric>` for each of SUMMARY_METRICS; every COST_METRICS under
        the part behind its slash; robustness; temperature; recalls (class → recall) and supports (class → images);
        versions (list of NAME/NUMBER), registered (the same as text), aliases (list).
    params: run_id → parameter → value. audits: those that ended well, newest first; they are not among the runs.
    trials: the trainings of sweeps, as `runs`, with sweep (the id of its SweepRun) and trial (its number); status may
        also be pruned. They are not among the runs. sweeps: newest first.
    has_older, has_older_versions: whether a server has more than was read.
    """

    runs: pd.DataFrame
    params: dict[str, dict[str, str]] = field(default_factory=dict)
    versions: tuple[Version, ...] = ()
    audits: tuple[AuditRun, ...] = ()
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)
    sweeps: tuple[SweepRun, ...] = ()
    has_older: bool = False
    has_older_versions: bool = False


class Reader:
    """Reads one store, again and again; a run that has ended and is unchanged is not read twice.

    newest: of a server, only so many of the newest runs are read, beside those that go on, those of the newest versions
        and of aliases, and what `want` and `reach` ask for. Without it, and of an embedded store, all are.
    """

    def __init__(self, store: Store, newest: int | None = None):
        self.store = store
        is_server = store.artifact_root is None
        self._window = Window(store, newest) if newest and is_server else None
        self._rows = self._window or open_rows(store)
        self._records: dict[str, tuple[Head, dict[str, Any], dict[str, str]]] = {}
        self._last: tuple[object, Snapshot] | None = None
        self._lock = threading.Lock()

    def snapshot(self) -> Snapshot:
        """What the store holds now. Costs nothing where it is known not to have changed.

        Raises StoreError where it cannot be read.
        """
        with self._lock:
            try:
                version = self._rows.version()
                known = self._last is not None and version is not None and self._last[0] == version
                if self._last is None or not known or _is_running(self._last[1]):
                    self._last = version, self._read()
            except (MlflowException, OSError, sqlite3.Error) as error:
                if self._window:
                    self._window.restart()
                raise StoreError(f"the store {self.store.uri} cannot be read: {reason(error)}") from error
            return self._last[1]

    @property
    def newest(self) -> int | None:
        """How many of the newest runs are held; None where all are."""
        return self._window.newest if self._window else None

    def reach(self, newest: int) -> None:
        """Hold at least so many of the newest runs in the snapshots to come."""
        if self._window:
            with self._lock:
                self._window.reach(newest)

    def want(self, references: Iterable[str]) -> None:
        """Hold the runs that these stand for in the snapshots to come, however old they are.

        Args:
            references: Ids or their beginnings, NAME@ALIAS and NAME/VERSION of registered models.

        Raises StoreError where the store cannot be read.
        """
        self._ask(lambda window: window.want(references, by_name=False))

    def want_named(self, text: str, most: int) -> int:
        """Hold the newest runs with this in their names; returns how many were found. Raises StoreError."""
        return self._ask(lambda window: window.want_named(text, most)) or 0

    def want_trials(self, sweep: str) -> None:
        """Hold all trials of a sweep, by the id of its run. Raises StoreError."""
        self._ask(lambda window: window.want_trials(sweep))

    def find(self, reference: str) -> tuple[Snapshot, str]:
        """The run that `reference` stands for, whether it is held or not; see `find_run`. Raises StoreError."""
        self._ask(lambda window: window.want([reference], by_name=True))
        snapshot = self.snapshot()
        return snapshot, find_run(snapshot, reference)

    def _ask(self, question: Callable[[Window], T]) -> T | None:
        if self._window is None:
            return None
        with self._lock:
            try:
                return question(self._window)
            except (MlflowException, OSError) as error:
                raise StoreError(f"the store {self.store.uri} cannot be read: {reason(error)}") from error

    def _read(self) -> Snapshot:
        every = self._rows.heads()
        heads = [head for head in every if head.kind not in (Tag.AUDIT, Tag.SWEEP)]
        changed = [
            head
            for head in heads
            if head.status not in _ENDED
            or head.run_id not in self._records
            or self._records[head.run_id][0] != head
        ]
        details = self._rows.details([head.run_id for head in changed]) if changed else {}
        now = time.time() * 1000
        for head in changed:
            if head.run_id not in details and head.run_id in self._records:
                continue  # it goes on, and this reading did not come to it
            found = details[head.run_id]
            found = dataclasses.replace(found, params=_params(head, found))
            self._records[head.run_id] = head, _record(head, found, now), found.params
        self._records = {head.run_id: self._records[head.run_id] for head in heads}
        versions = tuple(self._window.versions() if self._window else all_versions(self.store))
        of_run: dict[str, list[Version]] = {}
        for version in versions:
            of_run.setdefault(version.run_id or "", []).append(version)
        rows = [
            record | _registered(of_run.get(run_id, [])) for run_id, (_, record, _) in self._records.items()
        ]
        columns = [*_record(_NOBODY, Details(), now), *_registered([])]
        table = pd.DataFrame(
            rows, index=pd.Index(list(self._records), name="run_id", dtype=str), columns=columns
        )
        table["started"] = pd.to_datetime(table["started"], unit="ms")
        table = table.sort_values("started", ascending=False, kind="stable")
        tags = {run_id: head.tags for run_id, (head, _, _) in self._records.items()}
        kinds = [self._records[run_id][0].kind for run_id in table.index]
        is_trial = np.array([kind == Tag.SWEEP_RUN for kind in kinds], dtype=bool)
        return Snapshot(
            table[~is_trial],
            {run_id: params for run_id, (_, _, params) in self._records.items()},
            versions,
            _audits(every),
            _trials(table[is_trial], tags),
            _sweeps(every),
            self._window is not None and self._window.has_older,
            self._window is not None and self._window.has_older_versions,
        )

    def histories(self, run_ids: Sequence[str], keys: Sequence[str] = EPOCH_METRICS) -> pd.DataFrame:
        """Columns run_id, key, step, value, seconds; one row a value.

        Seconds are those of training until the end of that step: of its epochs, without what lay between a stop and a
        resume. For a run that logged no times of epochs they count from its first value. Where a step was logged twice,
        as by a resumed run, the later value counts.
        """
        table = self._rows.history(list(dict.fromkeys((*keys, EPOCH_SECONDS))), run_ids)
        table = table.drop_duplicates(["run_id", "key", "step"], keep="last")
        first = table.groupby("run_id")["timestamp_ms"].transform("min")
        table["seconds"] = (table["timestamp_ms"] - first) / 1000
        epochs = (
            table[table["key"] == EPOCH_SECONDS].sort_values("step").set_index(["run_id", "step"])["value"]
        )
        trained = epochs.groupby(level="run_id").cumsum().rename("trained")
        table = table.join(trained, on=["run_id", "step"])
        table["seconds"] = table["trained"].fillna(table["seconds"])
        table = table[table["key"].isin(keys)]
        return table[["run_id", "key", "step", "value", "seconds"]].reset_index(drop=True)

    def predictions(self, run_id: str) -> pd.DataFrame | None:
        """The table that `trainer.evaluation.metrics.prediction_table` describes; None where the run has none.

        Raises StoreError where what is there cannot be used.
        """
        table = self._parquet(run_id, PREDICTIONS_FILE)
        if table is None:
            return None
        missing = {"part", "sample_id", "label", "loss"} - set(table)
        if missing or not any(name.startswith("p_") for name in table):
            lacks = ", ".join(sorted(missing)) or "probabilities"
            raise StoreError(f"the predictions of run {run_id[:8]} are not Moodify's: they lack {lacks}")
        return table

    def robustness(self, run_id: str) -> pd.DataFrame | None:
        """The table that `trainer.evaluation.robustness.answer_table` describes; None where the run has none.

        Raises StoreError where it cannot be fetched or read.
        """
        return self._parquet(run_id, ROBUSTNESS_FILE)

    def conditions(self, run_id: str) -> pd.DataFrame | None:
        """What the run's test images are like, as `trainer.inference.conditions.measure` describes it; None without.

        Raises StoreError where it cannot be fetched or read.
        """
        return self._parquet(run_id, CONDITIONS_FILE)

    def attention(self, run_id: str) -> Attention | None:
        """What the run's network looks at on average; None where the run kept nothing.

        Raises StoreError where it cannot be fetched or read.
        """
        return self._artifact(run_id, ATTENTION_FILE, Attention.load)

    def worst_images(self, run_id: str) -> dict[str, bytes]:
        """sample id → PNG file, of the test images that the run kept; empty where it kept none."""
        table = self._parquet(run_id, WORST_IMAGES_FILE)
        if table is None or not {"sample_id", "png"} <= set(table):
            return {}
        return dict(zip(table["sample_id"], table["png"], strict=True))

    def audit(self, run_id: str) -> Audit:
        """Raises StoreError where the run kept none, or what is there cannot be used."""
        facts = self._artifact(run_id, f"{AUDIT_FOLDER}/{AUDIT_FACTS}", _read_json)
        findings = self._parquet(run_id, f"{AUDIT_FOLDER}/{AUDIT_FINDINGS}")
        thumbnails = self._parquet(run_id, f"{AUDIT_FOLDER}/{AUDIT_THUMBNAILS}")
        if facts is None or findings is None or thumbnails is None:
            raise StoreError(f"run {run_id[:8]} holds no whole audit")
        try:
            return Audit.checked(facts, findings, thumbnails)
        except ValueError as error:
            raise StoreError(f"the audit of run {run_id[:8]} is not Moodify's: {error}") from error

    def _parquet(self, run_id: str, path: str) -> pd.DataFrame | None:
        """None where the run has no such file."""
        return self._artifact(run_id, path, pd.read_parquet)

    def _artifact(self, run_id: str, path: str, read: Callable[[Path], T]) -> T | None:
        """What `read` makes of a file of the run; None where there is no such file. Raises StoreError."""
        # The id is whatever stands in the store, and may not lead out of the folder.
        root = self.store.artifact_root if run_id.isalnum() else None
        if root is not None and (file := root / run_id / "artifacts" / path).is_file():
            # Where MLflow keeps it; asking MLflow costs ten times as much.
            return _reading(read, file, run_id, path)
        client = self.store.client()
        folder, _, name = path.rpartition("/")
        try:
            if name not in {item.path.rpartition("/")[2] for item in client.list_artifacts(run_id, folder)}:
                return None
            with tempfile.TemporaryDirectory() as scratch:
                return _reading(read, Path(client.download_artifacts(run_id, path, scratch)), run_id, path)
        except (MlflowException, OSError) as error:
            raise StoreError(f"{path} of run {run_id[:8]} cannot be fetched: {reason(error)}") from error


def find_run(snapshot: Snapshot, reference: str) -> str:
    """The id of the run that an id or its beginning, a name, NAME@ALIAS or NAME/VERSION stands for.

    Raises StoreError where there is none, or more than one.
    """
    runs = snapshot.runs
    for version in snapshot.versions:
        names = {
            f"{version.name}/{version.version}",
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


def _reading(read: Callable[[Path], T], file: Path, run_id: str, path: str) -> T:
    try:
        return read(file)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} of run {run_id[:8]} cannot be read: {reason(error)}") from error


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


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


def _is_running(snapshot: Snapshot) -> bool:
    return "running" in {*snapshot.runs["status"], *snapshot.trials["status"]}


def _params(head: Head, details: Details) -> dict[str, str]:
    """As they were logged; those of the test set, which MLflow lets nobody change, are of the last one."""
    if Tag.TESTED_AT not in head.tags:
        return details.params
    images = sum(_by_class(details.metrics, "test/support/").values())
    now = {"test_fingerprint": head.tags.get(Tag.TEST_FINGERPRINT, ""), "test_images": f"{images:.0f}"}
    return {key: now.get(key, value) for key, value in details.params.items()}


def _record(head: Head, details: Details, now_ms: float) -> dict[str, Any]:
    """The row of a run in `Snapshot.runs`, without what the registry says of it."""
    tags, params, metrics = head.tags, details.params, details.metrics
    curve = [details.curve[step] for step in sorted(details.curve)]
    best = _number(metrics.get(BEST_VALIDATION))
    recalls, supports = (_by_class(metrics, f"test/{name}/") for name in ("recall", "support"))
    last = details.active_ms or head.started_ms
    status = _STATES.get(head.status, head.status.lower())
    if status == "running" and not _lives(tags, last, now_ms):
        status = "stale"
    ended = {"stale": last, "running": now_ms}.get(status, head.ended_ms)
    record: dict[str, Any] = {"name": head.name, "experiment": head.experiment}
    record |= {column: tags.get(key, "") for column, key in _TAGS.items()}
    record["dataset"] = record["dataset"] or head.experiment
    record |= {column: _number(tags.get(key, params.get(key))) for column, key in _NUMBERS.items()}
    record |= {f"test_{name}": _number(metrics.get(metric_key("test", name))) for name in SUMMARY_METRICS}
    record |= {key.rpartition("/")[2]: _number(metrics.get(key)) for key in COST_METRICS}
    record["robustness"] = _number(metrics.get(ROBUSTNESS))
    record["temperature"] = _number(metrics.get(TEMPERATURE_METRIC))
    left = (record["epochs"] - len(curve)) * _number(metrics.get("epoch_seconds"))
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
        "seconds_left": left if status == "running" else NAN,
        "configuration": _configuration(head.run_id, record, params),
    }


def _number(value: object) -> float:
    """NaN for what is no number; infinity, which MLflow stores as the largest float, is none to compare either."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return NAN
    return number if abs(number) < 1e300 else NAN


def _by_class(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    """class → value, by class name."""
    return {key.removeprefix(prefix): metrics[key] for key in sorted(metrics) if key.startswith(prefix)}


def _lives(tags: Mapping[str, str], last_ms: float, now_ms: float) -> bool:
    """Whether the process of a running run is still there, as far as it can be told."""
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
        found = psutil.Process(int(pid)).create_time()
    except psutil.Error:
        return False
    # The time of what was logged tells it where the start was not kept, unless the clock was set.
    return abs(found - started) < _CLOCK_SECONDS if started == started else found * 1000 <= last_ms + 5000


def _configuration(run_id: str, record: Mapping[str, Any], params: Mapping[str, str]) -> str:
    """Ten hex digits; the run's own id where it logged no parameters."""
    kept = [f"{key}={params[key]}" for key in sorted(params) if key not in NOT_CONFIGURATION]
    return _digest("\x1f".join((record["dataset"], record["test_fingerprint"], *kept))) if kept else run_id


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def _registered(versions: Sequence[Version]) -> dict[str, Any]:
    """What the registry says of a run."""
    pairs = [f"{version.name}/{version.version}" for version in versions]
    return {
        "registered": ", ".join(pairs),
        "versions": pairs,
        "aliases": sorted({alias for version in versions for alias in version.aliases}),
    }

"""Reads all runs of a store at once, their histories and their predictions; hands out DataFrames."""

import hashlib
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psutil
from mlflow.exceptions import MlflowException

from trainer.contract import (
    COST_METRICS,
    EPOCH_METRICS,
    PREDICTIONS_FILE,
    SUMMARY_METRICS,
    WORST_IMAGES_FILE,
    Tag,
    metric_key,
)
from trainer.store.location import SQLITE_PREFIX, Store, StoreError
from trainer.store.registry import Version, all_versions
from trainer.store.rows import ClientRows, Rows, SqliteRows

CURVE = "validation/accuracy"
SILENCE_SECONDS = 15 * 60
"""A run on another machine that logged nothing for so long (system metrics come every 10 s) counts as stale."""
# Parameters that name a machine or follow from others: runs that differ only in them have one configuration.
_NOT_CONFIGURATION = {
    *("seed", "device", "device_used", "cpu_count", "torch_threads", "git_commit", "data_dir", "python"),
    *("torch", "torchvision", "moodify", "skipped_files"),
}
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
}
_NUMBERS = {"seed": "seed", "epochs": "epochs", "parameters": "parameters", "best_epoch": Tag.BEST_EPOCH}


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All runs and versions of a store at one moment.

    runs: one row a run, newest first, the index is run_id. Text is "" and numbers are NaN where unknown.
        name, experiment, dataset, architecture, mode, recipe, reason, test_fingerprint, train_fingerprint,
        energy_method, configuration (equal for runs that differ in seed or machine only); status: running,
        finished, failed, stopped, or stale where its process is gone; started (UTC), seconds, seconds_left,
        seed, epochs (planned), epochs_done, best_epoch, parameters; curve (validation accuracy, a list);
        validation_accuracy (best epoch); `test_<metric>` for each of SUMMARY_METRICS; every COST_METRICS under
        the part behind its slash; recalls (class → recall) and supports (class → images); registered (name of the
        model), versions and aliases (lists).
    params: run_id → parameter → value.
    """

    runs: pd.DataFrame
    params: dict[str, dict[str, str]] = field(default_factory=dict)
    versions: tuple[Version, ...] = ()


class Reader:
    """Reads one store, again and again."""

    def __init__(self, store: Store):
        self.store = store
        self._rows: Rows
        if store.uri.startswith(SQLITE_PREFIX):
            self._rows = SqliteRows(Path(store.uri.removeprefix(SQLITE_PREFIX)))
        else:
            self._rows = ClientRows(store.client())
        self._last: tuple[object, Snapshot] | None = None

    def snapshot(self) -> Snapshot:
        """What the store holds now. Costs nothing where it is known not to have changed."""
        version = self._rows.version()
        if (
            self._last
            and version is not None
            and self._last[0] == version
            and not _any_running(self._last[1])
        ):
            return self._last[1]
        try:
            snapshot = self._read()
        except (MlflowException, OSError) as error:
            raise StoreError(f"the store {self.store.uri} cannot be read: {error}".splitlines()[0]) from error
        self._last = version, snapshot
        return snapshot

    def _read(self) -> Snapshot:
        rows = self._rows
        runs = rows.runs().set_index("run_id")
        tags = _wide(rows.tags(), runs.index)
        pairs = rows.params()
        params = _wide(pairs, runs.index)
        summary = [metric_key("test", name) for name in SUMMARY_METRICS]
        wanted = [*summary, metric_key("validation_best", "accuracy"), *COST_METRICS, "epoch_seconds"]
        latest = rows.latest([*wanted, "test/recall/%", "test/support/%"])
        metrics = _wide(latest, runs.index)
        versions = tuple(all_versions(self.store))

        table = pd.DataFrame(index=runs.index)
        table["name"] = runs["name"].fillna("").astype(str)
        table["experiment"] = runs["experiment"]
        for column, key in _TAGS.items():
            table[column] = _text(tags, key)
        table["dataset"] = table["dataset"].where(table["dataset"] != "", table["experiment"])
        for column, key in _NUMBERS.items():
            source = tags if key in tags else params
            table[column] = pd.to_numeric(source.get(key, pd.Series(dtype=float)), errors="coerce").reindex(
                table.index
            )
        for name, key in zip(SUMMARY_METRICS, summary, strict=True):
            table[f"test_{name}"] = _number(metrics, key)
        for key in COST_METRICS:
            table[key.rpartition("/")[2]] = _number(metrics, key)
        _add_curves(
            table, rows.history([CURVE], None), _number(metrics, metric_key("validation_best", "accuracy"))
        )
        table["recalls"] = _by_class(latest, "test/recall/", table.index)
        table["supports"] = _by_class(latest, "test/support/", table.index)
        table["test_images"] = [sum(s.values()) if s else float("nan") for s in table["supports"]]
        _add_status(table, runs, tags, rows.activity())
        seconds = _number(metrics, "epoch_seconds")
        left = (table["epochs"] - table["epochs_done"]) * seconds
        table["seconds_left"] = left.where(table["status"] == "running")
        table["configuration"] = _configurations(params, table)
        _add_versions(table, versions)
        by_run: dict[str, dict[str, str]] = {run_id: {} for run_id in table.index}
        for run_id, key, value in zip(*(pairs[name].tolist() for name in pairs), strict=True):
            by_run[run_id][key] = value
        return Snapshot(table.sort_values("started", ascending=False, kind="stable"), by_run, versions)

    def histories(self, run_ids: Sequence[str], keys: Sequence[str] = EPOCH_METRICS) -> pd.DataFrame:
        """Columns run_id, key, step, value, seconds (since the run's first value); one row a value.

        Where a step was logged twice, as by a resumed run, the later value counts.
        """
        table = self._rows.history(keys, run_ids)
        table = table.drop_duplicates(["run_id", "key", "step"], keep="last")
        first = table.groupby("run_id")["timestamp_ms"].transform("min")
        table["seconds"] = (table["timestamp_ms"] - first) / 1000
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

    def worst_images(self, run_id: str) -> dict[str, bytes]:
        """sample id → PNG file, of the test images that the run kept; empty where it kept none."""
        table = self._parquet(run_id, WORST_IMAGES_FILE)
        if table is None or not {"sample_id", "png"} <= set(table):
            return {}
        return dict(zip(table["sample_id"], table["png"], strict=True))

    def _parquet(self, run_id: str, path: str) -> pd.DataFrame | None:
        client = self.store.client()
        try:
            folder, _, name = path.rpartition("/")
            if name not in {item.path.rpartition("/")[2] for item in client.list_artifacts(run_id, folder)}:
                return None
            return pd.read_parquet(client.download_artifacts(run_id, path))
        except (MlflowException, OSError, ValueError) as error:
            reason = str(error).splitlines()[0][:300]
            raise StoreError(f"{path} of run {run_id[:8]} cannot be read: {reason}") from error


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


def _any_running(snapshot: Snapshot) -> bool:
    """A running run may turn stale without a word to the store."""
    return bool((snapshot.runs["status"] == "running").any())


def _wide(pairs: pd.DataFrame, index: pd.Index) -> pd.DataFrame:
    """One row a run, one column a key."""
    if pairs.empty:
        return pd.DataFrame(index=index)
    return pairs.pivot(index="run_id", columns="key", values="value").reindex(index)


def _text(table: pd.DataFrame, key: str) -> pd.Series:
    return table[key].fillna("").astype(str) if key in table else pd.Series("", index=table.index)


def _number(table: pd.DataFrame, key: str) -> pd.Series:
    """Infinity, which MLflow stores as the largest float, is no number to compare either."""
    if key not in table:
        return pd.Series(float("nan"), index=table.index)
    values = pd.to_numeric(table[key], errors="coerce")
    return values.where(values.abs() < 1e300)


def _by_class(latest: pd.DataFrame, prefix: str, index: pd.Index) -> list[dict[str, float]]:
    """For each run: class → value, by class name."""
    found: dict[str, dict[str, float]] = {}
    table = latest[latest["key"].str.startswith(prefix)].sort_values("key")
    columns = (
        table[name].tolist() for name in ("run_id", "key", "value")
    )  # lists: Arrow text is slow to iterate
    for run_id, key, value in zip(*columns, strict=True):
        found.setdefault(run_id, {})[key.removeprefix(prefix)] = value
    return [found.get(run_id, {}) for run_id in index]


def _add_curves(table: pd.DataFrame, history: pd.DataFrame, best: pd.Series) -> None:
    """curve, epochs_done and validation_accuracy."""
    history = history.drop_duplicates(["run_id", "step"], keep="last")
    curves = history.groupby("run_id", sort=False)["value"].agg(list)
    table["curve"] = [curves.get(run_id, []) for run_id in table.index]
    table["epochs_done"] = [len(curve) for curve in table["curve"]]
    highest = [max((v for v in curve if v == v), default=float("nan")) for curve in table["curve"]]
    table["validation_accuracy"] = best.where(best.notna(), pd.Series(highest, index=table.index))


def _add_status(table: pd.DataFrame, runs: pd.DataFrame, tags: pd.DataFrame, activity: pd.DataFrame) -> None:
    """status, started and seconds."""
    now = time.time() * 1000
    started, ended = pd.to_numeric(runs["started_ms"]), pd.to_numeric(runs["ended_ms"])
    active = activity.set_index("run_id")["timestamp_ms"] if len(activity) else pd.Series(dtype=float)
    last = active.reindex(table.index).fillna(started)
    status = runs["status"].map(lambda value: _STATES.get(value, str(value).lower()))
    for run_id in table.index[status == "running"]:
        host, pid = (tags[key].get(run_id) if key in tags else None for key in (Tag.HOST, Tag.PID))
        if not _lives(host, pid, last[run_id], now):
            status[run_id] = "stale"
    table["status"] = status
    table["started"] = pd.to_datetime(started, unit="ms")
    end = ended.where(status != "stale", last).where(status != "running", now)
    table["seconds"] = (end - started) / 1000


def _lives(host: object, pid: object, last_ms: float, now_ms: float) -> bool:
    """Whether the process of a running run is still there."""
    if host == socket.gethostname() and str(pid).isdigit():
        try:
            return (
                psutil.Process(int(str(pid))).create_time() * 1000 <= last_ms + 5000
            )  # else the number is reused
        except psutil.Error:
            return False
    return now_ms - last_ms < SILENCE_SECONDS * 1000


def _configurations(params: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """Ten hex digits for each run; the run's own id where it logged no parameters."""
    kept = [key for key in sorted(params) if key not in _NOT_CONFIGURATION]
    values = params[kept].fillna("").to_numpy(str).tolist() if kept else [[]] * len(table)
    facts = zip(table["dataset"].tolist(), table["test_fingerprint"].tolist(), strict=True)
    return [
        _digest("\x1f".join((*fact, *row))) if any(row) else run_id
        for run_id, fact, row in zip(table.index, facts, values, strict=True)
    ]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def _add_versions(table: pd.DataFrame, versions: Iterable[Version]) -> None:
    of_run: dict[str, list[Version]] = {}
    for version in versions:
        of_run.setdefault(version.run_id or "", []).append(version)
    found = [of_run.get(run_id, []) for run_id in table.index]
    table["registered"] = [versions[0].name if versions else "" for versions in found]
    table["versions"] = [[version.version for version in versions] for versions in found]
    table["aliases"] = [sorted({alias for v in versions for alias in v.aliases}) for versions in found]

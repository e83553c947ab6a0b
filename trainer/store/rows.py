"""Raw rows of a tracking store: straight from its tables where it is a SQLite database, else through MLflow's client.

MLflow's own `search_runs` builds an object for every run, metric and parameter, and its histories come one metric
of one run at a time. A dashboard needs all of them at once: from the tables that takes a tenth of the time.
"""

import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.rest_utils import http_request
from mlflow.utils.rest_utils import verify_rest_response as verify

from trainer.contract import (
    CLASS_METRICS,
    COST_METRICS,
    ROBUSTNESS,
    SUMMARY_METRICS,
    TEMPERATURE_METRIC,
    Tag,
    audit_experiment,
    metric_key,
    sweep_experiment,
)
from trainer.store.location import SQLITE_PREFIX, Store

CURVE = "validation/accuracy"
BEST_VALIDATION = metric_key("validation_best", "accuracy")
METRIC_COLUMNS = ["run_id", "key", "value", "timestamp_ms", "step"]
NAN = float("nan")
PAGE = 1000
_NEWEST_FIRST = ["attributes.start_time DESC"]
APART = {audit_experiment(""): (Tag.AUDIT,), sweep_experiment(""): (Tag.SWEEP, Tag.SWEEP_RUN)}
"""How the experiments are named whose runs are no trainings → the tags that tell what these are."""
BULK_RUNS, BULK_POINTS = 100, 25_000  # limits of MLflow's own bulk endpoint

_KEYS = (
    *(metric_key("test", name) for name in SUMMARY_METRICS),
    BEST_VALIDATION,
    *COST_METRICS,
    ROBUSTNESS,
    TEMPERATURE_METRIC,
    "epoch_seconds",
)
_PREFIXES = tuple(f"test/{name}/" for name in CLASS_METRICS if name in ("recall", "support"))


@dataclass(frozen=True)
class Head:
    """What tells whether a run has changed. Times are ms since 1970; MLflow's own tags are left out."""

    run_id: str
    experiment: str
    name: str
    status: str
    started_ms: int
    ended_ms: int | None
    tags: dict[str, str]

    @property
    def kind(self) -> str:
        """Of an audit, a sweep or a trial the tag that tells it; "" of any other run, whatever its tags."""
        for experiment, kinds in APART.items():
            if self.experiment.endswith(experiment):
                return next((kind for kind in kinds if kind in self.tags), "")
        return ""


@dataclass
class Details:
    """The rest of a run.

    metrics: the last value of those that the reader shows. curve: step → validation accuracy.
    active_ms: when it last logged any metric; None where it never did, or has ended.
    """

    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    curve: dict[int, float] = field(default_factory=dict)
    active_ms: int | None = None


class Rows(Protocol):
    """What the reader asks of a store. Only active runs of active experiments are seen; no number is NaN."""

    def version(self) -> object:
        """Differs from the last one where the store may have changed since; None where that cannot be told."""

    def registry_version(self) -> object:
        """The same for registered models, their tags and aliases alone."""

    def heads(self) -> list[Head]:
        """Of every run."""

    def details(self, run_ids: Sequence[str]) -> dict[str, Details]:
        """Of these runs, which `heads` has just named; of a running one that was not looked at, nothing."""

    def history(self, keys: Sequence[str], run_ids: Sequence[str]) -> pd.DataFrame:
        """METRIC_COLUMNS: every value, in order of run, key, step and time."""


def open_rows(store: Store) -> Rows:
    """The faster way for a store of this kind."""
    if store.uri.startswith(SQLITE_PREFIX):
        return SqliteRows(Path(store.uri.removeprefix(SQLITE_PREFIX)))
    return ClientRows(store.client())


class SqliteRows:
    """Reads the tables of a SQLite store, read-only; safe to share between threads."""

    _VALUE = "CASE WHEN m.is_nan THEN NULL ELSE m.value END"
    _MANY = 500
    """Above so many runs the whole table is read: it is faster, and SQLite takes only so many arguments."""

    def __init__(self, database: Path):
        self._lock = threading.Lock()
        address = f"file:{database.absolute().as_posix().replace('%', '%25').replace('#', '%23')}"
        self._connection = sqlite3.connect(
            f"{address}?mode=ro", uri=True, timeout=30, check_same_thread=False
        )

    def version(self) -> object:
        return self._read("PRAGMA data_version")[0][0]  # SQLite counts the commits of all other connections

    def registry_version(self) -> object:
        queries = (
            "SELECT name, version, last_updated_time, current_stage, run_id, length(description) FROM model_versions",
            "SELECT name, version, key, value FROM model_version_tags",
            "SELECT name, alias, version FROM registered_model_aliases",
        )
        return hash(tuple(tuple(self._read(query)) for query in queries))

    def heads(self) -> list[Head]:
        tags: dict[str, dict[str, str]] = {}
        for run_id, key, value in self._read(
            "SELECT run_uuid, key, value FROM tags WHERE key NOT LIKE 'mlflow.%' ORDER BY key"
        ):
            tags.setdefault(run_id, {})[key] = value or ""
        rows = self._read(
            """SELECT runs.run_uuid, experiments.name, runs.name, runs.status, runs.start_time, runs.end_time
            FROM runs JOIN experiments USING (experiment_id)
            WHERE runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'active'"""
        )
        return [
            Head(run_id, experiment, name or "", status, started or 0, ended, tags.get(run_id, {}))
            for run_id, experiment, name, status, started, ended in rows
        ]

    def details(self, run_ids: Sequence[str]) -> dict[str, Details]:
        found = {run_id: Details() for run_id in run_ids}
        few = len(run_ids) <= self._MANY
        here = f"AND m.run_uuid IN ({_marks(run_ids)})" if few else ""
        ids = tuple(run_ids) if few else ()
        for run_id, key, value in self._read(
            f"SELECT m.run_uuid, m.key, m.value FROM params m WHERE 1 {here}", ids
        ):
            if run_id in found:
                found[run_id].params[key] = value
        # A range of keys uses the index where a pattern would not; 0 follows / in ASCII.
        wanted = [
            f"m.key IN ({_marks(_KEYS)})",
            *(f"m.key >= '{p}' AND m.key < '{p[:-1]}0'" for p in _PREFIXES),
        ]
        select = f"SELECT m.run_uuid, m.key, {self._VALUE} FROM latest_metrics m"
        query = " UNION ALL ".join(f"{select} WHERE {keys} {here}" for keys in wanted)
        for run_id, key, value in self._read(query, (*_KEYS, *ids * len(wanted))):
            if run_id in found:
                found[run_id].metrics[key] = NAN if value is None else value
        for run_id, step, value in self._read(
            f"SELECT m.run_uuid, m.step, {self._VALUE} FROM metrics m WHERE m.key = ? {here} ORDER BY m.timestamp",
            (CURVE, *ids),
        ):
            if run_id in found:
                found[run_id].curve[step] = NAN if value is None else value
        for run_id, active in self._read(
            """SELECT m.run_uuid, MAX(m.timestamp) FROM latest_metrics m
            WHERE m.run_uuid IN (SELECT run_uuid FROM runs WHERE status = 'RUNNING') GROUP BY m.run_uuid"""
        ):
            if run_id in found:
                found[run_id].active_ms = active
        return found

    def history(self, keys: Sequence[str], run_ids: Sequence[str]) -> pd.DataFrame:
        rows = self._read(
            f"""SELECT m.run_uuid, m.key, {self._VALUE}, m.timestamp, m.step FROM metrics m
            WHERE m.key IN ({_marks(keys)}) AND m.run_uuid IN ({_marks(run_ids)})
            ORDER BY m.run_uuid, m.key, m.step, m.timestamp""",
            (*keys, *run_ids),
        )
        return _frame(rows)

    def _read(self, query: str, arguments: Sequence[str] = ()) -> list[Any]:
        with self._lock, closing(self._connection.execute(query, tuple(arguments))) as cursor:
            return cursor.fetchall()


class ClientRows:
    """Reads any store through MLflow's own client; one `search_runs` serves heads and details."""

    def __init__(self, client: MlflowClient):
        self._client = client
        self._found: dict[str, Run] = {}

    def version(self) -> object:
        return None

    def registry_version(self) -> object:
        return None

    def heads(self) -> list[Head]:
        self._found = {}
        experiments = self.experiments()
        found: list[Head] = []
        token: str | None = ""
        while experiments and token is not None:
            page, token = self.search(experiments, most=PAGE, token=token)
            found += page
        return found

    def experiments(self) -> dict[str, str]:
        """Id → name of those that are not deleted."""
        found: dict[str, str] = {}
        token: str | None = ""
        while token is not None:
            page = self._client.search_experiments(max_results=PAGE, page_token=token or None)
            found |= {experiment.experiment_id: experiment.name for experiment in page}
            token = page.token or None
        return found

    def search(
        self, experiments: Mapping[str, str], condition: str = "", *, most: int, token: str = ""
    ) -> tuple[list[Head], str | None]:
        """At most so many runs, the newest first, and what asks for the next ones; None where there are no more.

        Args:
            condition: In MLflow's language of filters.
        """
        page = self._client.search_runs(
            list(experiments), condition, ViewType.ACTIVE_ONLY, most, _NEWEST_FIRST, token or None
        )
        self._found |= {run.info.run_id: run for run in page}
        return [_head(run, experiments[run.info.experiment_id]) for run in page], page.token or None

    def forget(self) -> None:
        """Let go of what was found, where its details are not asked for any more."""
        self._found = {}

    def details(self, run_ids: Sequence[str]) -> dict[str, Details]:
        found = {}
        run_ids = [run_id for run_id in run_ids if run_id in self._found]
        for run_id in run_ids:
            run = self._found[run_id]
            last = run.data._metric_objs
            found[run_id] = Details(
                params=dict(run.data.params),
                metrics={m.key: m.value for m in last if m.key in _KEYS or m.key.startswith(_PREFIXES)},
                active_ms=max((m.timestamp for m in last), default=None)
                if run.info.status == "RUNNING"
                else None,
            )
        history = self.history(
            [CURVE], [run_id for run_id in run_ids if CURVE in self._found[run_id].data.metrics]
        )
        columns = (history[name].tolist() for name in ("run_id", "step", "value"))
        for run_id, step, value in zip(*columns, strict=True):
            found[run_id].curve[step] = value
        return found

    def history(self, keys: Sequence[str], run_ids: Sequence[str]) -> pd.DataFrame:
        rows: list[Any] = []
        for key in keys:
            for start in range(0, len(run_ids), BULK_RUNS):
                rows += self._bulk(key, run_ids[start : start + BULK_RUNS])
        return _frame(rows).sort_values(["run_id", "key", "step", "timestamp_ms"], ignore_index=True)

    def _bulk(self, key: str, run_ids: Sequence[str]) -> list[tuple[Any, ...]]:
        """One call for many runs where the store is a server; one call a run where it is not, or is too old."""
        credentials = getattr(self._client._tracking_client.store, "get_host_creds", None)
        if credentials is not None:
            endpoint = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
            query = {"run_id": list(run_ids), "metric_key": key, "max_results": BULK_POINTS}
            try:
                answer = verify(http_request(credentials(), endpoint, "GET", params=query), endpoint).json()
            except (MlflowException, ValueError):
                answer = {}
            points = answer.get("metrics")
            if points is not None and len(points) < BULK_POINTS:
                return [
                    (p["run_id"], p["key"], float(p["value"]), int(p["timestamp"]), int(p.get("step", 0)))
                    for p in points
                ]
        return [
            (run_id, metric.key, metric.value, metric.timestamp, metric.step)
            for run_id in run_ids
            for metric in self._client.get_metric_history(run_id, key)
        ]


def _head(run: Run, experiment: str) -> Head:
    return Head(
        run.info.run_id,
        experiment,
        run.info.run_name or "",
        run.info.status,
        run.info.start_time or 0,
        run.info.end_time or None,
        {key: value for key, value in sorted(run.data.tags.items()) if not key.startswith("mlflow.")},
    )


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _frame(rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=METRIC_COLUMNS)
    for name in ("value", "timestamp_ms", "step"):
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    return frame

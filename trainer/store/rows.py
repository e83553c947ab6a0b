"""Raw rows of a tracking store as DataFrames: straight from its tables where it is a database, else over REST.

MLflow's own `search_runs` builds an object for every run, metric and parameter, and its histories come one metric
of one run at a time. A dashboard needs all of them at once: from SQLite this is 5 to 10 times faster.
"""

import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.rest_utils import http_request
from mlflow.utils.rest_utils import verify_rest_response as verify

RUN_COLUMNS = ["run_id", "experiment", "name", "status", "started_ms", "ended_ms"]
PAIR_COLUMNS = ["run_id", "key", "value"]
METRIC_COLUMNS = ["run_id", "key", "value", "timestamp_ms", "step"]
PAGE = 1000
BULK_RUNS, BULK_POINTS = 100, 25_000  # limits of MLflow's own bulk endpoint


class Rows(Protocol):
    """What the reader asks of a store. Only active runs of active experiments are seen.

    `key_patterns` are exact keys, or a prefix followed by `%`; `run_ids` None stands for all runs.
    """

    def version(self) -> object:
        """Differs from the last one where the store may have changed since; None where that cannot be told."""

    def runs(self) -> pd.DataFrame:
        """RUN_COLUMNS."""

    def tags(self) -> pd.DataFrame:
        """PAIR_COLUMNS, values as text."""

    def params(self) -> pd.DataFrame:
        """PAIR_COLUMNS, values as text."""

    def latest(self, key_patterns: Sequence[str]) -> pd.DataFrame:
        """METRIC_COLUMNS: the last value of each metric; NaN where that is what was logged."""

    def activity(self) -> pd.DataFrame:
        """Columns run_id, timestamp_ms: when each RUNNING run last logged any metric."""

    def history(self, keys: Sequence[str], run_ids: Sequence[str] | None) -> pd.DataFrame:
        """METRIC_COLUMNS: every value, in order of run, key, step and time."""


class SqliteRows:
    """Reads the tables of a SQLite store, read-only; safe to share between threads."""

    _ACTIVE = (
        "runs.lifecycle_stage = 'active' AND runs.experiment_id IN "
        "(SELECT experiment_id FROM experiments WHERE lifecycle_stage = 'active')"
    )
    _VALUE = "CASE WHEN m.is_nan THEN NULL ELSE m.value END"

    def __init__(self, database: Path):
        self._lock = threading.Lock()
        address = f"file:{database.absolute().as_posix().replace('%', '%25').replace('?', '%3f').replace('#', '%23')}"
        self._connection = sqlite3.connect(
            f"{address}?mode=ro", uri=True, timeout=30, check_same_thread=False
        )

    def version(self) -> object:
        with self._lock:  # SQLite counts the commits of all other connections
            return self._connection.execute("PRAGMA data_version").fetchone()[0]

    def runs(self) -> pd.DataFrame:
        return self._read(
            f"""SELECT runs.run_uuid, experiments.name, runs.name, runs.status, runs.start_time, runs.end_time
            FROM runs JOIN experiments USING (experiment_id) WHERE {self._ACTIVE}""",
            RUN_COLUMNS,
        )

    def tags(self) -> pd.DataFrame:
        return self._read(
            f"""SELECT t.run_uuid, t.key, t.value FROM tags t JOIN runs USING (run_uuid)
            WHERE {self._ACTIVE} AND t.key NOT LIKE 'mlflow.%'""",
            PAIR_COLUMNS,
        )

    def params(self) -> pd.DataFrame:
        return self._read(
            f"SELECT p.run_uuid, p.key, p.value FROM params p JOIN runs USING (run_uuid) WHERE {self._ACTIVE}",
            PAIR_COLUMNS,
        )

    def latest(self, key_patterns: Sequence[str]) -> pd.DataFrame:
        keys = " OR ".join(["m.key LIKE ?"] * len(key_patterns))
        return self._read(
            f"""SELECT m.run_uuid, m.key, {self._VALUE}, m.timestamp, m.step
            FROM latest_metrics m JOIN runs USING (run_uuid) WHERE {self._ACTIVE} AND ({keys})""",
            METRIC_COLUMNS,
            key_patterns,
        )

    def activity(self) -> pd.DataFrame:
        return self._read(
            f"""SELECT m.run_uuid, MAX(m.timestamp) FROM latest_metrics m JOIN runs USING (run_uuid)
            WHERE {self._ACTIVE} AND runs.status = 'RUNNING' GROUP BY m.run_uuid""",
            ["run_id", "timestamp_ms"],
        )

    def history(self, keys: Sequence[str], run_ids: Sequence[str] | None) -> pd.DataFrame:
        wanted = "" if run_ids is None else f"AND m.run_uuid IN ({_marks(run_ids)})"
        return self._read(
            f"""SELECT m.run_uuid, m.key, {self._VALUE}, m.timestamp, m.step
            FROM metrics m JOIN runs USING (run_uuid) WHERE {self._ACTIVE} AND m.key IN ({_marks(keys)}) {wanted}
            ORDER BY m.run_uuid, m.key, m.step, m.timestamp""",
            METRIC_COLUMNS,
            [*keys, *(run_ids or ())],
        )

    def _read(self, query: str, columns: list[str], arguments: Sequence[str] = ()) -> pd.DataFrame:
        with self._lock, closing(self._connection.execute(query, tuple(arguments))) as cursor:
            rows = cursor.fetchall()
        return _frame(rows, columns)


class ClientRows:
    """Reads any store through MLflow's own client; one `search_runs` serves runs, tags, params and latest."""

    def __init__(self, client: MlflowClient):
        self._client = client
        self._found: list[Any] = []
        self._experiments: dict[str, str] = {}

    def version(self) -> object:
        return None

    def runs(self) -> pd.DataFrame:
        self._experiments = {e.experiment_id: e.name for e in self._client.search_experiments()}
        self._found, token = [], None
        while self._experiments:
            page = self._client.search_runs(
                list(self._experiments),
                run_view_type=ViewType.ACTIVE_ONLY,
                max_results=PAGE,
                page_token=token,
            )
            self._found += page
            if not (token := page.token):
                break
        rows = []
        for run in self._found:
            info = run.info
            experiment = self._experiments[info.experiment_id]
            rows.append(
                (info.run_id, experiment, info.run_name, info.status, info.start_time, info.end_time or None)
            )
        return _frame(rows, RUN_COLUMNS)

    def tags(self) -> pd.DataFrame:
        pairs = ((run.info.run_id, *pair) for run in self._found for pair in run.data.tags.items())
        return _frame([pair for pair in pairs if not pair[1].startswith("mlflow.")], PAIR_COLUMNS)

    def params(self) -> pd.DataFrame:
        return _frame(
            [(run.info.run_id, *pair) for run in self._found for pair in run.data.params.items()],
            PAIR_COLUMNS,
        )

    def latest(self, key_patterns: Sequence[str]) -> pd.DataFrame:
        exact = {pattern for pattern in key_patterns if not pattern.endswith("%")}
        prefixes = tuple(pattern[:-1] for pattern in key_patterns if pattern.endswith("%"))
        return _frame(
            [
                (run.info.run_id, m.key, m.value, m.timestamp, m.step)
                for run in self._found
                for m in run.data._metric_objs
                if m.key in exact or m.key.startswith(prefixes)
            ],
            METRIC_COLUMNS,
        )

    def activity(self) -> pd.DataFrame:
        rows = [
            (run.info.run_id, max(metric.timestamp for metric in run.data._metric_objs))
            for run in self._found
            if run.info.status == "RUNNING" and run.data._metric_objs
        ]
        return _frame(rows, ["run_id", "timestamp_ms"])

    def history(self, keys: Sequence[str], run_ids: Sequence[str] | None) -> pd.DataFrame:
        ids = [run.info.run_id for run in self._found] if run_ids is None else list(run_ids)
        rows: list[tuple[Any, ...]] = []
        for key in keys:
            for start in range(0, len(ids), BULK_RUNS):
                rows += self._bulk(key, ids[start : start + BULK_RUNS])
        table = _frame(rows, METRIC_COLUMNS)
        return table.sort_values(["run_id", "key", "step", "timestamp_ms"], ignore_index=True)

    def _bulk(self, key: str, run_ids: list[str]) -> list[tuple[Any, ...]]:
        """One call for many runs where the store is a server; one call a run where it is not, or is too old."""
        credentials = getattr(self._client._tracking_client.store, "get_host_creds", None)
        if credentials is not None:
            endpoint = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
            query = {"run_id": run_ids, "metric_key": key, "max_results": BULK_POINTS}
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


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _frame(rows: Sequence[tuple[Any, ...]], columns: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=columns)
    for name in ("value", "timestamp_ms", "step") if "step" in columns else ():
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    return frame

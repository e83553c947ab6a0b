"""Reads all runs of a store at once, their histories and their predictions; hands out DataFrames."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from mlflow.exceptions import MlflowException

from trainer.contract import (
    ATTENTION_FILE,
    AUDIT_FACTS,
    AUDIT_FINDINGS,
    AUDIT_FOLDER,
    AUDIT_THUMBNAILS,
    CONDITIONS_FILE,
    EPOCH_METRICS,
    PREDICTIONS_FILE,
    ROBUSTNESS_FILE,
    WORST_IMAGES_FILE,
    Tag,
)
from trainer.evaluation.attention import Attention
from trainer.evaluation.audit import Audit
from trainer.store.files import read_file
from trainer.store.location import Store, StoreError, reason
from trainer.store.registry import Version, all_versions
from trainer.store.rows import open_rows
from trainer.store.snapshot import ENDED, Record, Snapshot, find_run, is_running, make_record, make_snapshot
from trainer.store.window import Window

T = TypeVar("T")

FEW = 20
"""So many of the newest runs are enough for a command that names the runs that it is about."""
EPOCH_SECONDS = "epoch_seconds"
SILENT_SECONDS = 2.0
"""For so long a server that has just failed to answer, after all retries, is not asked again."""


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
        self._records: dict[str, Record] = {}
        self._versions: tuple[Version, ...] = ()
        self._registry: object = None
        self._last: tuple[object, Snapshot] | None = None
        self._lock = threading.Lock()
        self._failure, self._silent_until = "", 0.0

    def snapshot(self) -> Snapshot:
        """What the store holds now. Costs nothing where it is known not to have changed.

        Raises StoreError where it cannot be read.
        """
        with self._lock, self._told():
            version = self._rows.version()
            known = self._last is not None and version is not None and self._last[0] == version
            if self._last is None or not known or is_running(self._last[1]):
                self._last = version, self._read()
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
        """Hold the newest runs with this in their names; returns how many were found.

        Raises StoreError, and ValueError for text that cannot be asked for.
        """
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
        with self._lock, self._told():
            return question(self._window)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tells in a line that the store cannot be read.

        Of a server that line stands for a moment: all who have waited for whoever asked would else wait for an answer
        themselves, one after the other.
        """
        if time.monotonic() < self._silent_until:
            raise StoreError(self._failure)
        try:
            yield
        except (MlflowException, OSError, sqlite3.Error) as error:
            self._failure = f"the store {self.store.uri} cannot be read: {reason(error)}"
            if self._window:
                self._window.restart()
            if self.store.artifact_root is None:
                self._silent_until = time.monotonic() + SILENT_SECONDS
            raise StoreError(self._failure) from error

    def _read(self) -> Snapshot:
        every = self._rows.heads()
        heads = [head for head in every if head.kind not in (Tag.AUDIT, Tag.SWEEP)]
        changed = [
            head
            for head in heads
            if head.status not in ENDED
            or head.run_id not in self._records
            or self._records[head.run_id].head != head
        ]
        details = self._rows.details([head.run_id for head in changed]) if changed else {}
        now = time.time() * 1000
        for head in changed:
            if head.run_id not in details and head.run_id in self._records:
                continue  # it goes on, and this reading did not come to it
            self._records[head.run_id] = make_record(head, details[head.run_id], now)
        self._records = {head.run_id: self._records[head.run_id] for head in heads}
        return make_snapshot(
            every,
            self._records,
            self._read_versions(),
            has_older=self._window is not None and self._window.has_older,
            has_older_versions=self._window is not None and self._window.has_older_versions,
        )

    def _read_versions(self) -> tuple[Version, ...]:
        if isinstance(self._rows, Window):
            return tuple(self._rows.versions())
        # MLflow takes half a second for a thousand, and a training writes to the store every few seconds.
        state = self._rows.registry_version()
        if state is None or state != self._registry:
            self._versions, self._registry = tuple(all_versions(self.store)), state
        return self._versions

    def histories(self, run_ids: Sequence[str], keys: Sequence[str] = EPOCH_METRICS) -> pd.DataFrame:
        """Columns run_id, key, step, value, seconds; one row a value.

        Seconds are those of training until the end of that step: of its epochs, without what lay between a stop and a
        resume. For a run that logged no times of epochs they count from its first value. Where a step was logged twice,
        as by a resumed run, the later value counts.

        Raises StoreError where the store cannot be read.
        """
        with self._told():
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
        return read_file(self.store, run_id, ATTENTION_FILE, Attention.load)

    def worst_images(self, run_id: str) -> dict[str, bytes]:
        """sample id → PNG file, of the test images that the run kept; empty where it kept none."""
        table = self._parquet(run_id, WORST_IMAGES_FILE)
        if table is None or not {"sample_id", "png"} <= set(table):
            return {}
        return dict(zip(table["sample_id"], table["png"], strict=True))

    def audit(self, run_id: str) -> Audit:
        """Raises StoreError where the run kept none, or what is there cannot be used."""
        facts = read_file(self.store, run_id, f"{AUDIT_FOLDER}/{AUDIT_FACTS}", _read_json)
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
        return read_file(self.store, run_id, path, pd.read_parquet)


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))

"""Makes one MLflow run, and one registered version, of one training."""

import logging
import math
import os
import platform
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from trainer.contract import BEST_FOLDER, Tag, metric_key
from trainer.evaluation.metrics import Evaluation
from trainer.store.location import Store, StoreError, answers, is_missing, reason, redacted
from trainer.store.outbox import Outbox, Registration, deliver, is_outage, send

log = logging.getLogger(__name__)

FINISHED, FAILED, KILLED, RUNNING = "FINISHED", "FAILED", "KILLED", "RUNNING"
RETRY_SECONDS = 60
"""Between two attempts to reach a server that was down; what is logged meanwhile is kept."""


class RunWriter:
    """One run of the store, open for writing; a context manager that ends the run in every case.

    Leaving it by an exception ends the run as FAILED with the reason as a tag, by KeyboardInterrupt as
    KILLED. System metrics (CPU, memory, GPU) are logged meanwhile.

    Where a server stops answering, what is logged is kept on this machine until it answers again, or until
    `python -m trainer deliver`. Methods raise StoreError where the store refuses, or is a local one and broken.
    """

    def __init__(self, store: Store, run_id: str):
        self.store = store
        self.run_id = run_id
        self._client = store.client()
        self._outbox = Outbox(store.undelivered, run_id)
        self._tried = -math.inf  # what was kept before is delivered first
        self._logged_params: Mapping[str, str] = {}
        self._monitor: SystemMetricsMonitor | None = None

    @classmethod
    def create(
        cls, store: Store, dataset: str, name: str, tags: Mapping[str, object], started_ms: int | None = None
    ) -> "RunWriter":
        """A new run; `started_ms` where it did not start now. Raises StoreError where the store refuses."""
        client = store.client()
        try:
            run = client.create_run(
                store.experiment_id(dataset),
                start_time=started_ms,
                run_name=name,
                tags={key: str(value) for key, value in (process_tags() | dict(tags)).items()},
            )
        except MlflowException as error:
            raise StoreError(f"no run can be logged in {store.uri}: {reason(error)}") from error
        return cls(store, run.info.run_id)

    @classmethod
    def reopen(cls, store: Store, run_id: str) -> "RunWriter":
        """Delivers first what was kept of it.

        Raises StoreError where there is no such run, it has ended well, or the store cannot be asked.
        """
        client = store.client()
        writer = cls(store, run_id)
        if writer._outbox.is_waiting:
            deliver(store, writer._outbox)
        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            if is_missing(error):
                raise StoreError(f"there is no run {run_id} in {store.uri}") from error
            raise StoreError(f"run {run_id} cannot be read: {reason(error)}") from error
        if run.info.status == FINISHED:
            raise StoreError(f"run {run_id} has finished: there is nothing to resume")
        writer._logged_params = run.data.params
        try:
            client.update_run(run_id, RUNNING)
        except MlflowException as error:
            raise StoreError(f"run {run_id} cannot be written to: {reason(error)}") from error
        writer.set_tags(process_tags() | {Tag.REASON: ""})
        return writer

    @staticmethod
    def has_finished(store: Store, run_id: str) -> bool:
        return store.client().get_run(run_id).info.status == FINISHED

    def __enter__(self) -> "RunWriter":
        # Not by mlflow.start_run: a run that is active in the process would stay so where its server is down at its
        # end, would be in the next one's way, and would be called FINISHED at exit, however it ended.
        self._start_monitor()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_monitor()
        try:
            if error is None:
                self._end(FINISHED)
            elif isinstance(error, KeyboardInterrupt):
                self._end(KILLED, "interrupted")
            else:
                self._end(FAILED, redacted(f"{type(error).__name__}: {error}")[:5000])
        except StoreError as refusal:
            if error is None:
                raise
            # What went wrong first is what the user needs to know.
            log.warning("How run %s ended could not be logged: %s", self.run_id, refusal)
        finally:
            self.close()

    def close(self) -> None:
        """Let others deliver what is kept here."""
        self._outbox.close()

    def abandon(self) -> None:
        """End a run that was made, and cannot begin."""
        self._end(FAILED, "its checkpoints cannot be written")

    @property
    def is_waiting(self) -> bool:
        """Whether something of the run was kept here, because the server did not answer."""
        return self._outbox.is_waiting

    def set_tags(self, tags: Mapping[str, object]) -> None:
        self._send({"kind": "batch", "tags": [[key, str(value)] for key, value in tags.items()]})

    def log_params(self, params: Mapping[str, object]) -> None:
        """All at once; None is logged as an empty value. What a resumed run has logged already stays as it is."""
        rows = [
            [key, "" if value is None else str(value)]
            for key, value in params.items()
            if key not in self._logged_params
        ]
        if rows:
            self._send({"kind": "batch", "params": rows})

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """All at once, in one call."""
        now = time.time_ns() // 1_000_000
        self.log_rows([Metric(key, float(value), now, step) for key, value in metrics.items()])

    def log_rows(self, rows: Sequence[Metric]) -> None:
        """All at once; MLflow sends them by the thousand."""
        values = [[row.key, row.value, row.timestamp, row.step] for row in rows]
        self._send({"kind": "batch", "metrics": values})

    def logged(self, key: str) -> dict[int, float]:
        """Step → the value that the store has of it."""
        try:
            return {metric.step: metric.value for metric in self._client.get_metric_history(self.run_id, key)}
        except MlflowException as error:
            raise StoreError(f"run {self.run_id} cannot be read: {reason(error)}") from error

    def last_logged_ms(self) -> int:
        """The time of the newest metric of the run; 0 where that cannot be told.

        Of one step MLflow shows the value with the latest time: one of a clock that is behind would stay unseen.
        """
        try:
            metrics = self._client.get_run(self.run_id).data._metric_objs
        except MlflowException:
            return 0
        return max((metric.timestamp for metric in metrics), default=0)

    def log_evaluation(self, part: str, evaluation: Evaluation) -> None:
        """Every summary and per-class metric of `part`, each under a name of its own."""
        metrics = {metric_key(part, name): value for name, value in evaluation.summary.items()}
        for name, values in evaluation.per_class.items():
            for class_name, value in zip(evaluation.class_names, values.tolist(), strict=True):
                metrics[metric_key(part, name, class_name)] = value
        self.log_metrics(metrics)

    def log_dataset(self, name: str, source: str, parts: Mapping[str, tuple[str, Mapping[str, int]]]) -> None:
        """`parts`: part → (fingerprint, class counts)."""
        inputs = [
            {
                "name": f"{name}-{part}",
                "digest": fingerprint,
                "source": source,
                "class_counts": dict(counts),
                "context": part,
            }
            for part, (fingerprint, counts) in parts.items()
        ]
        self._send({"kind": "inputs", "inputs": inputs})

    def log_folder(self, folder: Path) -> None:
        """Every file below `folder`, under the same relative path."""
        self._send({"kind": "artifacts", "path": None}, folder)

    def log_best(self, folder: Path) -> None:
        """The bundle of the best epoch of a run that did not come to register it."""
        self._send({"kind": "artifacts", "path": BEST_FOLDER}, folder)

    def register(self, folder: Path, tags: Mapping[str, object]) -> Registration | None:
        """Log the bundle in `folder` in both forms and register it; a run that has a version keeps it.

        The model's first version becomes its champion. None where that waits to be delivered.
        """
        texts = {key: str(value) for key, value in tags.items()}
        return self._send({"kind": "register", "tags": texts}, folder, urgent=True)

    def _start_monitor(self) -> None:
        """A run goes on without system metrics where they cannot be had."""
        try:
            self._monitor = SystemMetricsMonitor(
                self.run_id, resume_logging=True, tracking_uri=self.store.uri
            )
            self._monitor.start()
        except Exception as error:  # it looks at processor, disks, network and whatever GPU there is
            log.warning("System metrics are not logged: %s", reason(error))
            self._monitor = None

    def _stop_monitor(self) -> None:
        """It asks the server once more, and is not waited for where that is down."""
        monitor, self._monitor = self._monitor, None
        if monitor is not None and not self.is_waiting:
            monitor.finish()
        elif monitor is not None:
            threading.Thread(target=monitor.finish, daemon=True).start()

    def _end(self, status: str, why: str | None = None) -> None:
        if why is not None:
            self.set_tags({Tag.REASON: why})
        record = {"kind": "end", "status": status, "end_ms": time.time_ns() // 1_000_000}
        self._send(record, urgent=True)

    def _send(
        self, record: Mapping[str, Any], files: Path | None = None, *, urgent: bool = False
    ) -> Registration | None:
        """Write `record` to the store, or keep it where a server does not answer.

        urgent: try again now, however short ago the last attempt was.
        """
        if self._outbox.is_waiting and not self._reached(urgent):
            self._keep(record, files)
            return None
        try:
            return send(self.store, self.run_id, record, files)
        except (MlflowException, OSError) as error:
            if self.store.artifact_root is not None or not is_outage(error):
                raise StoreError(f"run {self.run_id} cannot be logged: {reason(error)}") from error
            log.warning(
                "The tracking server does not answer. The run goes on; what it logs is kept in %s until "
                "the server answers again, or for `python -m trainer deliver`. (%s)",
                self._outbox.folder, redacted(reason(error)),
            )  # fmt: skip
            self._tried = time.monotonic()
            self._keep(record, files)
            return None

    def _keep(self, record: Mapping[str, Any], files: Path | None) -> None:
        self._outbox.keep(self.store, record, files)

    def _reached(self, urgent: bool) -> bool:
        """Whether the server answers again and has got everything that was kept; asked once a minute."""
        if not urgent and time.monotonic() - self._tried < RETRY_SECONDS:
            return False
        self._tried = time.monotonic()
        if not answers(self.store.uri):
            return False
        try:
            deliver(self.store, self._outbox)
        except StoreError:
            return False
        log.info("The tracking server answers again and has got what was kept.")
        if self._monitor is not None:  # it has ended at the first question that was not answered
            self._stop_monitor()
            self._start_monitor()
        return True


def process_tags() -> dict[str, object]:
    """Which process writes the run, so that a reader can tell whether it still lives."""
    return {
        Tag.HOST: socket.gethostname(),
        Tag.PID: os.getpid(),
        Tag.PROCESS_STARTED: psutil.Process().create_time(),
        "platform": platform.platform(),
    }

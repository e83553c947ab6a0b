"""How long it takes to read a big store: all of it at once by our reader, and by MLflow's own calls."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import ViewType

from trainer.contract import EPOCH_METRICS
from trainer.store.location import Store, open_store
from trainer.store.reader import Reader
from trainer.store.rows import CURVE

HISTORIES = 10
"""Runs whose histories a user looks at together."""
SAMPLE = 10
"""Runs whose histories are read by MLflow's calls, one metric of one run each, to reckon what all would take."""
PAGE = 1000


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Seconds of each round.

    snapshot: by a new reader. unchanged: the same reader again. after_commit: after another connection logged a
    metric of a running run. beside_training: again, while that run goes on. histories_some, histories_all: all
    EPOCH_METRICS of HISTORIES runs, and of all.
    mlflow_search: `search_runs`, all pages; neither curves nor versions are in it. mlflow_history: one
    `get_metric_history` call.
    values: of histories_all.
    """

    runs: int
    values: int
    snapshot: list[float]
    unchanged: list[float]
    after_commit: list[float]
    beside_training: list[float]
    histories_some: list[float]
    histories_all: list[float]
    mlflow_search: list[float]
    mlflow_history: list[float]

    @property
    def mlflow_snapshot(self) -> float:
        """Reckoned: `search_runs`, and a call for the curve of each run."""
        return statistics.median(self.mlflow_search) + self.runs * self.mlflow_call

    @property
    def mlflow_call(self) -> float:
        return statistics.median(self.mlflow_history)

    def mlflow_histories(self, runs: int) -> float:
        """Reckoned: a call for each metric of each run."""
        return runs * len(EPOCH_METRICS) * self.mlflow_call


def measure_reading(rounds: int) -> Reading:
    """Of the store in the environment, to which it adds a running run."""
    store = open_store(create=False)
    client = store.client()
    Reader(store).snapshot()  # imports, the kernel's page cache
    snapshot = [seconds(lambda: Reader(store).snapshot()) for _ in range(rounds)]
    reader = Reader(store)
    runs = list(reader.snapshot().runs.index)
    unchanged = [seconds(reader.snapshot) for _ in range(rounds)]
    some = [seconds(lambda: reader.histories(runs[:HISTORIES])) for _ in range(rounds)]
    everything = [seconds(lambda: reader.histories(runs)) for _ in range(rounds)]
    values = len(reader.histories(runs))
    search = [seconds(lambda: search_all(client)) for _ in range(rounds)]
    calls = [
        seconds(lambda run_id=run_id, key=key: client.get_metric_history(run_id, key))
        for run_id in runs[:: max(len(runs) // SAMPLE, 1)][:SAMPLE]
        for key in EPOCH_METRICS
    ]
    training = Training(store)
    after_commit, beside = [], []
    for _ in range(rounds):
        training.log()
        after_commit.append(seconds(reader.snapshot))
        beside.append(seconds(reader.snapshot))
    training.end()
    return Reading(
        runs=len(runs),
        values=values,
        snapshot=snapshot,
        unchanged=unchanged,
        after_commit=after_commit,
        beside_training=beside,
        histories_some=some,
        histories_all=everything,
        mlflow_search=search,
        mlflow_history=calls,
    )


class Training:
    """A run that is running, of a machine that is not this one; it logs when it is told to."""

    def __init__(self, store: Store):
        self._client = store.client()
        tags = {"dataset": "fer2013", "architecture": "cnn", "mode": "full", "recipe": "report"}
        run = self._client.create_run(store.experiment_id("fer2013"), run_name="in-training", tags=tags)
        self.run_id = run.info.run_id
        self._epoch = 0
        self._client.log_param(self.run_id, "epochs", 100)

    def log(self) -> None:
        """One more epoch."""
        self._epoch += 1
        self._client.log_metric(self.run_id, CURVE, 0.5, step=self._epoch)

    def end(self) -> None:
        self._client.set_terminated(self.run_id)


def search_all(client: MlflowClient) -> Sequence[Any]:
    """Every run, as MLflow's API gives it."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found: list[Any] = []
    token = None
    while True:
        page = client.search_runs(
            experiments, run_view_type=ViewType.ACTIVE_ONLY, max_results=PAGE, page_token=token
        )
        found += page
        if not (token := page.token):
            return found


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started

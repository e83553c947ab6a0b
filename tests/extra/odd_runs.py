"""Runs as other tools, crashes and hostile hands leave them in a store."""

import os
import socket
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from trainer.contract import PREDICTIONS_FILE, Tag
from trainer.store.location import Store

HOSTILE_NAME = "<script>alert(1)</script> **bold** [link](http://example.com) $x^2$ :smile:"


def make_run(
    client: MlflowClient,
    experiment_id: str,
    name: str | None = None,
    *,
    status: str | None = "FINISHED",
    tags: dict[str, str] | None = None,
    params: dict[str, str] | None = None,
    metrics: dict[str, float] | None = None,
    curve: Sequence[float] = (),
) -> str:
    """A run with what is given; `status` None leaves it RUNNING. Returns its id."""
    run_id = client.create_run(experiment_id, run_name=name, tags=tags or {}).info.run_id
    now = int(time.time() * 1000)
    rows = [Metric(key, value, now, 0) for key, value in (metrics or {}).items()]
    rows += [Metric("validation/accuracy", value, now + step, step) for step, value in enumerate(curve, 1)]
    client.log_batch(run_id, rows, [Param(key, value) for key, value in (params or {}).items()])
    if status:
        client.set_terminated(run_id, status)
    return run_id


def add_odd_runs(store: Store) -> dict[str, str]:
    """What it is → run id, in an experiment of their own."""
    client = store.client()
    experiment = store.experiment_id("odd")
    here = {Tag.HOST: socket.gethostname()}
    found = {
        "bare": make_run(client, experiment),
        "autolog": make_run(
            client, experiment, "sklearn", params={"C": "1.0"}, metrics={"training_score": 0.9, "accuracy": 0.8}
        ),
        "nan": make_run(
            client, experiment, "nan", metrics={"test/accuracy": float("nan"), "test/log_loss": float("inf")},
            curve=[float("nan"), 0.3],
        ),
        "long": make_run(client, experiment, "n" * 250, tags={Tag.ARCHITECTURE: "a" * 1000}),
        "hostile": make_run(
            client, experiment, HOSTILE_NAME, tags={Tag.ARCHITECTURE: HOSTILE_NAME, Tag.DATASET: "odd"},
            metrics={"test/accuracy": 0.5},
        ),
        "failed": make_run(client, experiment, "failed", status="FAILED", tags={Tag.REASON: "ValueError: no data"}),
        "gone": make_run(client, experiment, "gone", status=None, tags=here | {Tag.PID: "999999999"}, curve=[0.2]),
        "running": make_run(
            client, experiment, "running", status=None, tags=here | {Tag.PID: str(os.getpid())},
            params={"epochs": "20"}, metrics={"epoch_seconds": 10.0}, curve=[0.2, 0.3],
        ),
        "other_machine": make_run(client, experiment, "other", status=None, tags={Tag.HOST: "elsewhere"}, curve=[0.2]),
        "deleted": make_run(client, experiment, "deleted"),
    }  # fmt: skip
    client.delete_run(found["deleted"])
    for kind, table in (
        ("other_classes", predictions(("cat", "dog"))),
        ("no_test", predictions(("cat", "dog")).assign(part="validation")),
        ("foreign_table", pd.DataFrame({"x": [1, 2]})),
    ):
        found[kind] = make_run(client, experiment, kind, metrics={"test/accuracy": 0.5})
        log_predictions(client, found[kind], table)
    found["broken_table"] = make_run(client, experiment, "broken", metrics={"test/accuracy": 0.5})
    client.log_text(found["broken_table"], "this is no parquet", PREDICTIONS_FILE)
    return found


def predictions(class_names: tuple[str, ...], size: int = 40, seed: int = 0) -> pd.DataFrame:
    """As `prediction_table` makes them, with random answers."""
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(len(class_names)), size).astype(np.float32)
    table = pd.DataFrame(probabilities, columns=[f"p_{name}" for name in class_names])
    table.insert(0, "part", "test")
    table.insert(1, "sample_id", [f"test/{index}" for index in range(size)])
    table.insert(2, "label", generator.choice(class_names, size))
    return table.assign(loss=1.0)


def log_predictions(client: MlflowClient, run_id: str, table: pd.DataFrame) -> None:
    folder, _, name = PREDICTIONS_FILE.rpartition("/")
    with tempfile.TemporaryDirectory() as scratch:
        table.to_parquet(Path(scratch, name), index=False)
        client.log_artifact(run_id, str(Path(scratch, name)), folder)

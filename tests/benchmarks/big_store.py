"""Writes a big MLflow store of invented runs, for measuring what reads it.

MLflow makes the database and registers the versions; the runs go into its tables by SQL, in one transaction, and
their artifacts where MLflow looks for them. All but ids and times of versions follows from the seed.

    python -m tests.benchmarks.big_store FOLDER --runs 1000
"""

import dataclasses
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import tyro
from mlflow import MlflowClient

from tests.benchmarks.invented_runs import CLASS_COUNTS, CLASS_NAMES, InventedRun, invent_runs
from tests.benchmarks.worker import environment_variables
from trainer.contract import (
    CHALLENGER,
    CHAMPION,
    CONFIG_FILE,
    CONFUSION_FILE,
    COST_METRICS,
    PREDICTIONS_FILE,
    WORST_IMAGES_FILE,
    Tag,
    metric_key,
    model_name,
)
from trainer.data.pictures import image_table
from trainer.evaluation.metrics import Evaluation, prediction_table, sample_loss
from trainer.store.location import SQLITE_PREFIX, Store, open_store

DATASET = "fer2013"
LAST_END_MS = 1_767_225_600_000  # 2026-01-01: no invented run counts as running
FINGERPRINTS = {
    "train": "793419661388b5ba531520d23f09226a",
    "validation": "750c66da32a9ced67856f707dd7728b9",
    "test": "d86349facfcd9de96dfdf5de422b4c41",
}
TRAIN_COUNTS = (3595, 392, 3687, 6494, 4469, 4347, 2854)
SYSTEM_METRICS = {
    "system/cpu_utilization_percentage": (97.0, 2.0),
    "system/system_memory_usage_megabytes": (2_900.0, 80.0),
    "system/system_memory_usage_percentage": (18.0, 0.5),
    "system/disk_usage_percentage": (29.0, 0.1),
    "system/disk_usage_megabytes": (31_466.0, 20.0),
    "system/disk_available_megabytes": (77_477.0, 20.0),
    "system/network_receive_megabytes": (1.0, 0.2),
    "system/network_transmit_megabytes": (1.0, 0.2),
}
WORST_IMAGES = 256

Row = tuple[Any, ...]
Insert = Callable[[str, str, Iterable[Row]], None]
"""Of rows into a table: its name, its columns' names with commas between, the rows."""
Timed = tuple[InventedRun, np.ndarray]
"""A run, and the end of its epochs in ms since 1970; the first one is its start."""


def write_store(
    folder: Path,
    runs: int = 1000,
    epochs: int = 100,
    versions: int = 50,
    with_predictions: int = 20,
    system_samples: int = 50,
    seed: int = 0,
) -> Store:
    """Make a store in `folder`, which must not hold one.

    Args:
        folder: of mlflow.db and artifacts.
        versions: registered ones; those with predictions come first.
        with_predictions: the newest finished runs whose accuracy is at least 0.55 keep their predictions.
        system_samples: values of each system metric in a run.
    """
    database = folder.absolute() / "mlflow.db"
    if database.exists():
        raise ValueError(f"{database} exists: name a new folder")
    with environment_variables({"MLFLOW_TRACKING_URI": f"{SQLITE_PREFIX}{database}"}):
        store = open_store(create=True)
    assert store.artifact_root is not None
    rng = np.random.default_rng(seed)
    invented = with_times(invent_runs(runs, epochs, rng))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(
            "PRAGMA cache_size=-1000000"
        )  # kB: the indices of the metrics are written at random
        with connection:
            experiment_id = int(store.experiment_id(DATASET))
            insert_all(
                partial(_insert, connection),
                invented,
                str(store.artifact_root),
                experiment_id,
                system_samples,
                rng,
            )
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finished = [run for run, _ in reversed(invented) if run.status == "FINISHED"]
    good = [run for run in finished if run.evaluations["test"].summary["accuracy"] > 0.55]
    predicted = good[:with_predictions]
    write_artifacts(store.artifact_root, [run for run, _ in invented], predicted, rng)
    kept = {run.run_id for run in predicted}
    others = [run for run in finished if run.run_id not in kept]
    others = others[:: max(len(others) // max(versions - len(predicted), 1), 1)]
    _register(store, (predicted + others)[:versions], str(experiment_id))
    return store


def runs_with_predictions(store: Store) -> list[str]:
    """Run ids, in the order of their names."""
    assert store.artifact_root is not None
    return sorted(
        path.parents[2].name for path in store.artifact_root.glob(f"*/artifacts/{PREDICTIONS_FILE}")
    )


def insert_all(
    insert: Insert, invented: Sequence[Timed], artifact_root: str, experiment_id: int, system_samples: int,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Runs with tags, parameters, metrics and datasets, into MLflow's tables of either database."""
    _insert_runs(insert, invented, artifact_root, experiment_id)
    _insert_metrics(insert, invented, system_samples, rng)
    _insert_datasets(insert, [run for run, _ in invented], experiment_id, rng)


def with_times(runs: Iterable[InventedRun]) -> list[Timed]:
    """Each run with the end of its epochs in ms since 1970, index 0 being its start; the last run ends last."""
    listed, found = list(runs), []
    lengths = [1000 * np.concatenate([[0], run.curves["epoch_seconds"].cumsum()]) for run in listed]
    start = LAST_END_MS - sum(length[-1] + 60_000 for length in lengths)
    for run, length in zip(listed, lengths, strict=True):
        found.append((run, (start + length).astype(np.int64)))
        start += length[-1] + 60_000
    return found


def _insert_runs(insert: Insert, invented: Sequence[Timed], artifact_root: str, experiment_id: int) -> None:
    """Rows of runs, tags and params."""
    runs: list[Row] = []
    tags: list[Row] = []
    params: list[Row] = []
    for run, times in invented:
        end = None if run.status == "RUNNING" else int(times[-1]) + 20_000
        location = f"{artifact_root}/{run.run_id}/artifacts"
        state = (run.status, int(times[0]), end, "", "active", location, experiment_id)
        runs.append((run.run_id, run.name, "UNKNOWN", "", "", "bench", *state))
        tags += [(key, str(value), run.run_id) for key, value in run_tags(run).items()]
        params += [(key, "" if v is None else str(v), run.run_id) for key, v in run_params(run).items()]
    insert(
        "runs",
        "run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time, "
        "source_version, lifecycle_stage, artifact_uri, experiment_id",
        runs,
    )
    insert("tags", "key, value, run_uuid", tags)
    insert("params", "key, value, run_uuid", params)


def run_tags(run: InventedRun) -> dict[str, object]:
    tags: dict[str, object] = {
        "mlflow.runName": run.name,
        Tag.HOST: "another-machine",
        Tag.PID: 4321,
        "platform": "Linux-6.1-x86_64-with-glibc2.36",
        Tag.ARCHITECTURE: run.config.architecture,
        Tag.MODE: run.config.mode,
        Tag.DATASET: DATASET,
        Tag.RECIPE: run.config.recipe,
        Tag.TRAIN_FINGERPRINT: FINGERPRINTS["train"],
        Tag.TEST_FINGERPRINT: FINGERPRINTS["test"],
    }
    if run.status == "FINISHED":
        tags |= {
            Tag.BEST_EPOCH: run.best_epoch,
            Tag.TEST_ACCURACY: f"{run.evaluations['test'].summary['accuracy']:.4f}",
            "energy_method": "codecarbon estimate, world average of 475 g CO2/kWh",
        }
    elif run.status == "KILLED":
        tags[Tag.REASON] = "interrupted"
    elif run.status == "FAILED":
        tags[Tag.REASON] = "RuntimeError: the loss is not finite; take a lower learning rate"
    return tags


def run_params(run: InventedRun) -> dict[str, object]:
    """What `trainer.training.records.log_beginning` logs."""
    sizes = {part: sum(counts) for part, counts in _class_counts().items()}
    return (
        dataclasses.asdict(run.config)
        | {"parameters": run.kind.parameters, "trainable_parameters": run.kind.trainable_parameters}
        | {"torch": "2.15.0+cu132", "torchvision": "0.29.2", "moodify": "0.1.0", "python": "3.11.7"}
        | {"git_commit": "5f03dc52f58b3dd210a52d1cad3f015b6fe9060b", "device_used": "cpu: x86_64"}
        | {"cpu_count": 2, "torch_threads": 2}
        | {f"{part}_images": size for part, size in sizes.items()}
        | {f"{part}_fingerprint": value for part, value in FINGERPRINTS.items()}
        | {"skipped_files": 0}
    )


def _insert_metrics(
    insert: Insert, invented: Sequence[Timed], system_samples: int, rng: np.random.Generator
) -> None:
    """Rows of metrics, in the order of time as MLflow would write them, and of latest_metrics."""

    def rows() -> Iterator[Row]:
        for run, times in invented:
            epochs = len(times) - 1
            for sample, at in enumerate(
                np.linspace(times[0], times[-1], system_samples).astype(int).tolist()
            ):
                values = rng.normal(*zip(*SYSTEM_METRICS.values(), strict=True)).tolist()
                for key, value in zip(SYSTEM_METRICS, values, strict=True):
                    last[key] = (key, value, at, run.run_id, sample, False)
                    yield last[key]
            moments, curves = times[1:].tolist(), {key: curve.tolist() for key, curve in run.curves.items()}
            for epoch in range(epochs):
                for key, curve in curves.items():
                    last[key] = (key, curve[epoch], moments[epoch], run.run_id, epoch + 1, False)
                    yield last[key]
            for key, value in summary_metrics(run, rng).items():
                known = value == value
                last[key] = (key, value if known else 0.0, moments[-1] + 5_000, run.run_id, 0, not known)
                yield last[key]
            latest.extend(last.values())
            last.clear()

    last: dict[str, Row] = {}
    latest: list[Row] = []
    columns = "key, value, timestamp, run_uuid, step, is_nan"
    insert("metrics", columns, rows())
    insert("latest_metrics", columns, latest)


def summary_metrics(run: InventedRun, rng: np.random.Generator) -> dict[str, float]:
    """What is logged once, of a finished run."""
    if run.status != "FINISHED":
        return {}
    found = _evaluation_metrics("validation_best", run.evaluations["validation"])
    found |= _evaluation_metrics("test", run.evaluations["test"])
    seconds = float(run.curves["epoch_seconds"].sum())
    kwh, slowness = seconds * 45 / 3.6e6, rng.normal(1, 0.05)
    cost = {
        "training_seconds": seconds,
        "median_images_per_second": float(np.median(run.curves["images_per_second"])),
        "energy/estimated_kwh": kwh,
        "energy/estimated_co2_kg": 0.475 * kwh,
        "energy/uncertainty_factor": 2.0,
        "cost/size_bytes": 4.0 * run.kind.parameters + 2_048,
        "cost/gmacs": run.kind.gmacs,
        "cost/latency_ms": run.kind.latency_ms * slowness,
        "cost/latency_32_ms": 18 * run.kind.latency_ms * slowness,
        "cost/latency_one_view_ms": 0.6 * run.kind.latency_ms * slowness,
    }
    assert set(cost) == set(COST_METRICS)
    return found | cost


def _evaluation_metrics(part: str, evaluation: Evaluation) -> dict[str, float]:
    """As `RunWriter.log_evaluation` names them."""
    metrics = {metric_key(part, name): value for name, value in evaluation.summary.items()}
    for name, values in evaluation.per_class.items():
        for class_name, value in zip(evaluation.class_names, values.tolist(), strict=True):
            metrics[metric_key(part, name, class_name)] = value
    return metrics


def _insert_datasets(
    insert: Insert, runs: Sequence[InventedRun], experiment_id: int, rng: np.random.Generator
) -> None:
    """Every run's inputs: train, validation and test."""
    datasets, inputs, tags = [], [], []
    for part, counts in _class_counts().items():
        dataset_id = rng.bytes(16).hex()
        profile = {"class_counts": dict(zip(CLASS_NAMES, counts, strict=True)), "num_images": sum(counts)}
        facts = ("local", json.dumps({"uri": "data/fer2013"}), json.dumps(profile))
        datasets.append((dataset_id, experiment_id, f"{DATASET}-{part}", FINGERPRINTS[part], *facts))
        for run in runs:
            input_id = rng.bytes(16).hex()
            inputs.append((input_id, "DATASET", dataset_id, "RUN", run.run_id))
            tags.append((input_id, "mlflow.data.context", part))
    insert(
        "datasets",
        "dataset_uuid, experiment_id, name, digest, dataset_source_type, dataset_source, dataset_profile",
        datasets,
    )
    insert("inputs", "input_uuid, source_type, source_id, destination_type, destination_id", inputs)
    insert("input_tags", "input_uuid, name, value", tags)


def write_artifacts(
    root: Path, runs: Iterable[InventedRun], predicted: Sequence[InventedRun], rng: np.random.Generator
) -> None:
    """config.json of every run; predictions, confusion matrix and worst images of `predicted`."""
    for run in runs:
        folder = root / run.run_id / "artifacts"
        folder.mkdir(parents=True)
        (folder / CONFIG_FILE).write_text(run.config.to_json())
    pictures = blurred_pictures(sum(CLASS_COUNTS["test"]), rng)
    for run in predicted:
        folder = root / run.run_id / "artifacts"
        (folder / PREDICTIONS_FILE).parent.mkdir()
        tables = [
            prediction_table(part, seen.sample_ids, seen.target, run.probabilities[part], CLASS_NAMES)
            for part, seen in sorted(run.images.items(), reverse=True)
        ]
        pd.concat(tables, ignore_index=True).to_parquet(folder / PREDICTIONS_FILE, index=False)
        matrix = {"class_names": CLASS_NAMES, "rows": "truth", "columns": "prediction"}
        matrix["counts"] = run.evaluations["test"].confusion.tolist()
        (folder / CONFUSION_FILE.format(part="test")).write_text(json.dumps(matrix))
        test = run.images["test"]
        loss = sample_loss(test.target, run.probabilities["test"])
        worst = image_table(pictures, test.sample_ids, loss, WORST_IMAGES)
        worst.to_parquet(folder / WORST_IMAGES_FILE, index=False)


def blurred_pictures(count: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 (count, 1, 48, 48): noise of eight by eight spots, which compresses about as a face does."""
    spots = rng.integers(40, 200, (count, 1, 8, 8))
    grain = rng.integers(-8, 9, (count, 1, 48, 48))
    return (np.kron(spots, np.ones((6, 6), dtype=int)) + grain).astype(np.uint8)


def _register(store: Store, runs: Sequence[InventedRun], experiment_id: str) -> None:
    """A version for each run, oldest first; the two best become champion and challenger. They have no files."""
    client, name = store.client(), model_name(DATASET)
    client.create_registered_model(name)
    order = sorted(runs, key=lambda run: run.evaluations["test"].summary["accuracy"])
    numbers = {run.run_id: _register_one(client, name, run, experiment_id) for run in reversed(runs)}
    for alias, run in zip((CHAMPION, CHALLENGER), reversed(order), strict=False):
        client.set_registered_model_alias(name, alias, numbers[run.run_id])


def _register_one(client: MlflowClient, name: str, run: InventedRun, experiment_id: str) -> str:
    model = client.create_logged_model(experiment_id, name="model", source_run_id=run.run_id)
    client.finalize_logged_model(model.model_id, "READY")
    named = (Tag.ARCHITECTURE, Tag.MODE, Tag.DATASET, Tag.RECIPE, Tag.TRAIN_FINGERPRINT, Tag.TEST_FINGERPRINT)
    tags = run_tags(run)
    version = client.create_model_version(
        name,
        source=f"models:/{model.model_id}",
        run_id=run.run_id,
        tags={key: str(tags[key]) for key in (*named, Tag.TEST_ACCURACY, Tag.BEST_EPOCH)},
        model_id=model.model_id,
    )
    return str(version.version)


def _class_counts() -> Mapping[str, Sequence[int]]:
    return {"train": TRAIN_COUNTS} | CLASS_COUNTS


def _insert(connection: sqlite3.Connection, table: str, columns: str, rows: Iterable[Row]) -> None:
    marks = ", ".join("?" * (columns.count(",") + 1))
    connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)


def main(
    folder: Annotated[Path, tyro.conf.Positional],
    *,
    runs: int = 1000,
    epochs: int = 100,
    versions: int = 50,
    with_predictions: int = 20,
    system_samples: int = 50,
    seed: int = 0,
) -> None:
    """Write a big MLflow store of invented runs into FOLDER."""
    started = time.perf_counter()
    store = write_store(folder, runs, epochs, versions, with_predictions, system_samples, seed)
    print(f"export MLFLOW_TRACKING_URI={store.uri}  # {time.perf_counter() - started:.0f} s")  # noqa: T201


if __name__ == "__main__":
    tyro.cli(main, prog="python -m tests.benchmarks.big_store")

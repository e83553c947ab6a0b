"""Fills the PostgreSQL database of an MLflow server with invented runs, for measuring what reads the server.

MLflow makes the tables, the experiment and the registered model; rows go in by COPY, so that 10,000 runs take a minute.
Every finished run has a version with a model card, as every training that ends well registers one.
"""

import contextlib
import csv
import tempfile
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2

from tests.benchmarks.big_store import (
    DATASET,
    Row,
    insert_all,
    run_tags,
    with_times,
    write_artifacts,
)
from tests.benchmarks.invented_runs import SEEDS, InventedRun, invent_runs
from tests.extra.servers import Server
from trainer.contract import CHALLENGER, CHAMPION, Tag, model_name
from trainer.store.location import open_store

DISTINCT = 200
"""So many runs are invented; others repeat them with other seeds."""
_CARD = Path("trainer/bundled/README.md").absolute()
_NULL = r"\N"
_OF_VERSIONS = (
    *(Tag.ARCHITECTURE, Tag.MODE, Tag.DATASET, Tag.RECIPE, Tag.TRAIN_FINGERPRINT, Tag.TEST_FINGERPRINT),
    *(Tag.TEST_ACCURACY, Tag.BEST_EPOCH),
)


def fill_server(
    server: Server, runs: int, epochs: int = 20, with_predictions: int = 20, seed: int = 0
) -> list[str]:
    """Empty the server that the environment names, and log so many runs; returns the ids of those with predictions.

    Args:
        with_predictions: the newest finished runs that keep their predictions.
    """
    server.empty()
    store, rng = open_store(), np.random.default_rng(seed)
    experiment_id = store.experiment_id(DATASET)
    location = str(store.client().get_experiment(experiment_id).artifact_location)
    invented = with_times(_repeated(runs, epochs, rng))
    finished = [run for run, _ in invented if run.status == "FINISHED"]
    store.client().create_registered_model(model_name(DATASET))
    with contextlib.closing(psycopg2.connect(server.database)) as connection, connection:
        copy = partial(_copy, connection)
        insert_all(copy, invented, location, int(experiment_id), 1, rng)
        _insert_versions(copy, finished, {run.run_id: int(times[-1]) for run, times in invented})
    with contextlib.closing(psycopg2.connect(server.database)) as connection:
        connection.autocommit = True
        connection.cursor().execute("VACUUM ANALYZE")
    for alias, number in ((CHAMPION, len(finished) // 2), (CHALLENGER, len(finished))):
        store.client().set_registered_model_alias(model_name(DATASET), alias, str(max(number, 1)))
    predicted = finished[-with_predictions:]
    folder = server.folder / "artifacts" / location.partition(":/")[2].strip("/")
    write_artifacts(folder, predicted, predicted, rng)
    return [run.run_id for run in reversed(predicted)]


def _repeated(count: int, epochs: int, rng: np.random.Generator) -> list[InventedRun]:
    """The last DISTINCT ones are those that are invented, so that what is read first differs."""
    originals = list(invent_runs(min(count, DISTINCT), epochs, rng))
    repeats = [
        originals[index % len(originals)].again(rng.bytes(16).hex(), SEEDS + index // len(originals))
        for index in range(count - len(originals))
    ]
    return repeats + originals


def _insert_versions(copy: Any, runs: Sequence[InventedRun], ended_ms: dict[str, int]) -> None:
    name, card = model_name(DATASET), _CARD.read_text()
    versions: list[Row] = []
    tags: list[Row] = []
    for number, run in enumerate(runs, 1):
        at = ended_ms[run.run_id] + 30_000
        source = f"models:/m-{run.run_id}"
        versions.append(("default", name, number, at, at, card, "None", source, run.run_id, "READY"))
        known = run_tags(run)
        tags += [("default", name, number, key, str(known[key])) for key in _OF_VERSIONS]
    columns = "workspace, name, version, creation_time, last_updated_time, description, current_stage, source, run_id"
    copy("model_versions", f"{columns}, status", versions)
    copy("model_version_tags", "workspace, name, version, key, value", tags)


def _copy(connection: Any, table: str, columns: str, rows: Iterable[Row]) -> None:
    with tempfile.TemporaryFile("w+", newline="") as file:
        csv.writer(file).writerows([_NULL if value is None else value for value in row] for row in rows)
        file.seek(0)
        with connection.cursor() as cursor:
            cursor.copy_expert(f"COPY {table} ({columns}) FROM STDIN (FORMAT csv, NULL '{_NULL}')", file)

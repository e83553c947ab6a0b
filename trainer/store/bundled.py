"""The model in the box: a trained version that comes with the program, and that a new store begins with."""

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow.entities import Metric, Run, ViewType
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from trainer.contract import (
    ATTENTION_FILE,
    CARD_FILE,
    CONDITIONS_FILE,
    CONFIG_FILE,
    CONFUSION_FILE,
    CONFUSION_PICTURE,
    CURVES_PICTURE,
    ELSEWHERE,
    LARGEST_FILES,
    PREDICTIONS_FILE,
    ROBUSTNESS_FILE,
    SPEC_FILE,
    Tag,
)
from trainer.evaluation.card import card
from trainer.inference.bundle import read_spec
from trainer.store.location import Store, StoreError
from trainer.store.registry import Version, bundle_folder, crown_first
from trainer.store.writer import FAILED, FINISHED, KILLED, RUNNING, RunWriter

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parents[1] / "bundled"
RECORD_FILE = "record.json"
"""What MLflow knew of the run: its name, length, dataset, parameters, tags and data, and every value of every metric
as (step, value, milliseconds after the start)."""
# No image of the data set is among them: it is not ours to pass on. Means of a hundred faces show nobody.
ARTIFACTS = (
    CONFIG_FILE,
    PREDICTIONS_FILE,
    CONFUSION_FILE.format(part="test"),
    CONFUSION_PICTURE.format(part="test"),
    CURVES_PICTURE,
    ROBUSTNESS_FILE,
    CONDITIONS_FILE,
    ATTENTION_FILE,
)
_LEFT_OUT = (
    *("mlflow.", "system/", "git_", "platform"),
    *(Tag.HOST, Tag.PID, Tag.PROCESS_STARTED, Tag.DATA_DIR, Tag.BUNDLED),
)
"""Beginnings of the names of tags and metrics that are about the machine, or the store, and not about the model."""


def keep(store: Store, version: Version, folder: Path = FOLDER) -> None:
    """Write the run and the model of `version` into `folder`, so that `install` can make them again.

    Raises StoreError where the version is not of our format or its run is gone.
    """
    client = store.client()
    try:
        run = client.get_run(version.run_id or "")
        histories = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    except MlflowException as error:
        raise StoreError(f"{version.uri} has no run in this store: {error.message}") from error
    if Tag.ARCHITECTURE not in version.tags or Tag.DATASET not in version.tags:
        raise StoreError(f"{version.uri} was not registered by a training: its tags do not say what it is")
    models = {
        name: ELSEWHERE + value.removeprefix(ELSEWHERE)
        for name in ("teacher", "start_from")
        if (value := run.data.params.get(name))
    }
    record = {
        "run_name": (name := f"bundled-{version.tags[Tag.ARCHITECTURE]}"),
        "dataset": version.tags[Tag.DATASET],
        "params": run.data.params | models | {"data_dir": ""},
        "tags": _without_machine(run.data.tags),
        "version_tags": _without_machine(version.tags),
        "metrics": {
            # The last value of each step: where a run was tested again, only that counts.
            key: [
                [metric.step, metric.value, min(metric.timestamp, run.info.end_time) - run.info.start_time]
                for metric in {metric.step: metric for metric in history}.values()
            ]
            for key, history in _without_machine(histories).items()
        },
        "milliseconds": run.info.end_time - run.info.start_time,
        "inputs": {
            item.dataset.name.rpartition("-")[2]: [
                item.dataset.digest,
                json.loads(item.dataset.profile)["class_counts"],
            ]
            for item in run.inputs.dataset_inputs
        },
    }
    with tempfile.TemporaryDirectory() as scratch:
        bundle = bundle_folder(version, Path(scratch))
        folder.mkdir(parents=True, exist_ok=True)
        for path in ARTIFACTS:  # of the one before, which may have had more
            Path(folder, Path(path).name).unlink(missing_ok=True)
        (folder / RECORD_FILE).write_text(json.dumps(record, indent=1) + "\n")
        names = list(read_spec(bundle / SPEC_FILE).class_names)
        text = card(f"{version.name}, {name}", run.data.params, run.data.metrics, names)
        (folder / CARD_FILE).write_text(text)
        for name in LARGEST_FILES:
            shutil.copyfile(bundle / name, folder / name)
        kept = {item.path for item in client.list_artifacts(run.info.run_id, "evaluation")} | {CONFIG_FILE}
        for path in kept.intersection(ARTIFACTS):
            shutil.copyfile(
                client.download_artifacts(run.info.run_id, path, scratch), folder / Path(path).name
            )


def install(store: Store, folder: Path = FOLDER) -> bool:
    """Begin an empty store with the bundled run, version 1 of its model, as champion; returns whether it did.

    A store in which anything was ever trained is left as it is. What an interrupted attempt has left is deleted, or
    ended where only its last step was missing.
    """
    if not (folder / RECORD_FILE).is_file() or not (_is_empty(store) or _without_its_end(store)):
        return False
    place, name = (
        Path(tempfile.gettempdir()),
        f".moodify-bundled-{os.getuid()}.lock",
    )  # not every user has a name
    if store.artifact_root:
        place, name = store.artifact_root.parent, ".moodify-bundled.lock"
    with FileLock(place / name):
        record = json.loads((folder / RECORD_FILE).read_text())
        if version := _without_its_end(store):
            crown_first(store, version.name, int(version.version))
            began = store.client().get_run(version.run_id).info.start_time
            store.client().set_terminated(version.run_id, FINISHED, began + record["milliseconds"])
            return True
        if not _is_empty(store):
            return False
        for run in _runs(store):
            store.client().delete_run(run.info.run_id)
        tags = record["tags"] | {Tag.BUNDLED: "true"}
        ended = time.time_ns() // 1_000_000
        started = ended - record["milliseconds"]
        writer = RunWriter.create(store, record["dataset"], record["run_name"], tags, started)
        try:
            _fill(writer, record, folder, started)
        except BaseException:
            store.client().set_terminated(writer.run_id, FAILED)
            raise
        store.client().set_terminated(writer.run_id, FINISHED, ended)
    return True


def _fill(writer: RunWriter, record: dict[str, Any], folder: Path, started_ms: int) -> None:
    """Log what is known of the run, and register its model."""
    writer.log_params(record["params"])
    _log_metrics(writer, record["metrics"], started_ms)
    writer.log_dataset(record["dataset"], "bundled", record["inputs"])
    with tempfile.TemporaryDirectory() as scratch:
        for path in ARTIFACTS:
            target = Path(scratch, path)
            if not (folder / target.name).is_file():
                continue  # the run that was kept had none
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / target.name, target)
        writer.log_folder(Path(scratch))
    writer.register(folder, record["version_tags"] | {Tag.BUNDLED: "true"})


def _is_empty(store: Store) -> bool:
    """Whether nothing was ever trained or registered here; what was deleted counts as well.

    Runs by which this was tried before, and interrupted, do not count; on a server one may still go on.
    """
    if store.client().search_model_versions(max_results=1):
        return False
    return all(Tag.BUNDLED in run.data.tags and _is_over(store, run) for run in _runs(store))


def _without_its_end(store: Store) -> ModelVersion | None:
    """The bundled version, where it is the only one and whoever registered it was stopped right after that."""
    versions = store.client().search_model_versions(max_results=2)
    if len(versions) != 1 or Tag.BUNDLED not in versions[0].tags or int(versions[0].version) != 1:
        return None
    runs = [run for run in _runs(store) if run.info.run_id == versions[0].run_id]
    return versions[0] if runs and _is_over(store, runs[0]) else None


def _is_over(store: Store, run: Run) -> bool:
    """Whether the attempt that this run is of was cut short: on a server one that is running may still go on."""
    return run.info.status in ({FAILED, KILLED} if store.artifact_root is None else {FAILED, KILLED, RUNNING})


def _runs(store: Store) -> list[Run]:
    """Some, deleted ones too; all of a store in which nothing was trained."""
    client = store.client()
    experiments = [e.experiment_id for e in client.search_experiments(ViewType.ALL)]
    return client.search_runs(experiments, run_view_type=ViewType.ALL, max_results=100)


def _log_metrics(writer: RunWriter, metrics: Mapping[str, list[list[float]]], started_ms: int) -> None:
    rows = [
        Metric(key, value, started_ms + int(after), int(step))
        for key, history in metrics.items()
        for step, value, after in history
    ]
    writer.log_rows(rows)


def _without_machine(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not key.startswith(_LEFT_OUT)}

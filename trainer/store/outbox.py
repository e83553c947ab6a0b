"""What a run logs, as records: sent to the store at once, or kept on this machine and delivered later."""

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import mlflow
import mlflow.pytorch
import numpy as np
from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.types import Schema, TensorSpec
from requests import RequestException
from torch import __version__ as torch_version

from trainer.contract import CARD_FILE, SPEC_FILE, WEIGHTS_FILE, Tag, model_name
from trainer.evaluation.card import body, card
from trainer.inference.bundle import ModelSpec, read
from trainer.store.location import Store, StoreError, reason, redacted
from trainer.store.registry import Version, crown_first

log = logging.getLogger(__name__)

JOURNAL_FILE = "journal.jsonl"
PLACE_FILE = "server.txt"
_LONGEST_DESCRIPTION = 5000
"""Characters that MLflow keeps of a version's description."""
_REFUSALS = range(400, 500)
_PASSING = {408, 429}
"""Refusals that another try may not meet."""


@dataclass(frozen=True)
class Registration:
    """What a run was registered as. version: None where that waits to be delivered."""

    model_name: str
    version: int | None
    is_champion: bool


class Outbox:
    """The records of one run that its store has not got yet: a journal, and the files that it names.

    While a writer keeps records, nobody else delivers them. Records may be sent twice: each leaves the store as
    it was after the first time.
    """

    def __init__(self, root: Path, run_id: str):
        self.run_id = run_id
        self.folder = root / run_id
        self._lock = FileLock(root / f"{run_id}.lock")

    @property
    def is_waiting(self) -> bool:
        return (self.folder / JOURNAL_FILE).is_file()

    @property
    def server(self) -> str:
        """Where they belong, without a password."""
        return (self.folder / PLACE_FILE).read_text().strip()

    def keep(self, store: Store, record: Mapping[str, Any], files: Path | None) -> None:
        """Add a record, with a copy of the folder that it is about. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._lock.is_locked:
            self._lock.acquire(timeout=0)
        (self.folder / PLACE_FILE).write_text(redacted(store.uri))
        if files is not None:
            name = f"files-{time.time_ns()}"
            shutil.copytree(files, self.folder / name)
            record = {**record, "files": name}
        with (self.folder / JOURNAL_FILE).open("ab+") as journal:
            _drop_torn_line(journal)
            journal.write(json.dumps(record).encode() + b"\n")
            journal.flush()
            os.fsync(journal.fileno())

    def deliver(self, store: Store) -> list[Registration]:
        """Send everything, in order, and forget it; what was registered.

        Raises whatever sending raises, and ValueError where the run's own process still keeps records; then
        everything stays.
        """
        held = self._lock.is_locked
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ValueError("its process still runs, and delivers by itself") from error
        try:
            registered = []
            for record in self._records():
                files = self.folder / record["files"] if "files" in record else None
                if (result := send(store, self.run_id, record, files)) is not None:
                    registered.append(result)
            # First of all: what is left of a folder without it has been delivered.
            (self.folder / JOURNAL_FILE).unlink()
            shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            if not held:
                self._forget_lock()
            self._lock.release()
        return registered

    def _records(self) -> Iterator[dict[str, Any]]:
        for line in (self.folder / JOURNAL_FILE).read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):  # else its writer was killed
                yield json.loads(line)

    def close(self) -> None:
        """Let others deliver what is left."""
        if self._lock.is_locked and not self.folder.exists():
            self._forget_lock()
        self._lock.release(force=True)

    def _forget_lock(self) -> None:
        """While it is held: after that another process may hold what would be deleted, and a third make it anew."""
        Path(self._lock.lock_file).unlink(missing_ok=True)


def _drop_torn_line(journal: BinaryIO) -> None:
    """What a full disk has cut off would spoil the record that follows, and with it the whole journal."""
    end = journal.seek(0, os.SEEK_END)
    journal.seek(max(end - 1, 0))
    if journal.read(1) not in (b"", b"\n"):
        journal.seek(0)
        journal.truncate(journal.read().rfind(b"\n") + 1)


def outboxes(root: Path) -> list[Outbox]:
    """Those with something in them, the oldest first."""
    journals = sorted(root.glob(f"*/{JOURNAL_FILE}"), key=lambda path: path.stat().st_mtime)
    return [Outbox(root, journal.parent.name) for journal in journals]


def is_outage(error: BaseException) -> bool:
    """Whether a store failed because it cannot be reached or is out of order, not because it refused."""
    if isinstance(error, RequestException):
        status = error.response.status_code if error.response is not None else 503
        return status not in _REFUSALS or status in _PASSING
    if isinstance(error, MlflowException):
        return error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
    return isinstance(error, ConnectionError | TimeoutError)


def send(store: Store, run_id: str, record: Mapping[str, Any], files: Path | None) -> Registration | None:
    """Write one record into the store. Raises what MLflow raises.

    Args:
        record: `kind` is batch (metrics, params, tags), inputs, artifacts (path), register (tags) or end (status,
            end_ms).
        files: The folder that it is about.
    """
    client = store.client()
    match record["kind"]:
        case "batch":
            client.log_batch(
                run_id,
                metrics=[Metric(*row) for row in record.get("metrics", [])],
                params=[Param(*row) for row in record.get("params", [])],
                tags=[RunTag(*row) for row in record.get("tags", [])],
            )
        case "inputs":
            client.log_inputs(run_id, [_dataset_input(**values) for values in record["inputs"]])
        case "artifacts":
            client.log_artifacts(run_id, str(files), record["path"])
        case "register":
            assert files is not None
            return register(store, run_id, files, record["tags"])
        case "end":
            client.set_terminated(run_id, record["status"], record["end_ms"])
        case kind:
            raise ValueError(f"a record of an unknown kind: {kind}")
    return None


def register(store: Store, run_id: str, folder: Path, tags: Mapping[str, str]) -> Registration:
    """Log the bundle in `folder` in both forms and register it, once: a run that has a version keeps it.

    The version is made last, with all its tags and a card of all that was logged by then, so that it is whole
    from the moment it exists.
    """
    client = store.client()
    classifier, spec = read(folder)
    name = model_name(spec.dataset)
    if (version := _registered(client, run_id, name)) is None:
        with _active(run_id):
            info = Model.log(
                artifact_path=None,
                name="model",
                flavor=_CpuFlavor,
                flavor_name="mlflow.pytorch",
                pytorch_model=spec.answering(classifier),
                serialization_format="pt2",
                signature=signature(spec),
                input_example=example(spec),
                pip_requirements=[f"torch=={torch_version.partition('+')[0]}"],
                extra_files=[str(folder / WEIGHTS_FILE), str(folder / SPEC_FILE)],
                metadata={"class_names": list(spec.class_names), "source_size": spec.source_size},
            )
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        made = client.create_model_version(
            name,
            source=info.model_uri,
            run_id=run_id,
            tags=dict(tags),
            model_id=info.model_id,
            description=body(_log_card(client, run_id, name, spec))[:_LONGEST_DESCRIPTION],
        )
        version = int(made.version)
    return Registration(name, version, crown_first(store, name, version))


class _CpuFlavor:
    """MLflow's flavour for torch, for models that answer on the CPU wherever they are served.

    What torch.export wrote on a CPU cannot be moved, and MLflow would load it onto a GPU where there is one, and fail.
    """

    @staticmethod
    def save_model(path: str, mlflow_model: Model, **options: Any) -> None:
        mlflow.pytorch.save_model(path=path, mlflow_model=mlflow_model, **options)
        mlflow_model.flavors["python_function"]["config"] = {"device": "cpu"}
        mlflow_model.save(str(Path(path, MLMODEL_FILE_NAME)))


@contextmanager
def _active(run_id: str) -> Iterator[None]:
    """MLflow logs a model to the run that is active: make this one that, and leave it running."""
    mlflow.start_run(run_id=run_id, nested=mlflow.active_run() is not None, log_system_metrics=False)
    try:
        yield
    finally:
        mlflow.end_run("RUNNING")  # how it ends is told by whoever logs to it


def describe_again(store: Store, version: Version, spec: ModelSpec, tags: Mapping[str, str]) -> None:
    """Write the version's card anew, from what its run knows now, and set some tags. Raises what MLflow raises."""
    client, number = store.client(), str(version.version)
    text = body(_log_card(client, version.run_id or "", version.name, spec))
    client.update_model_version(version.name, number, description=text[:_LONGEST_DESCRIPTION])
    for key, value in tags.items():
        client.set_model_version_tag(version.name, number, key, value)


def signature(spec: ModelSpec) -> ModelSignature:
    """Grey faces in [0, 1], float32 (-1, 1, S, S) → probabilities, float32 (-1, K)."""
    side, kind = spec.source_size, np.dtype(np.float32)
    return ModelSignature(
        inputs=Schema([TensorSpec(kind, (-1, 1, side, side))]),
        outputs=Schema([TensorSpec(kind, (-1, len(spec.class_names)))]),
    )


def example(spec: ModelSpec) -> np.ndarray:
    """Two grey ramps: of one image, the export would make a model for batches of one."""
    ramp = np.linspace(0, 1, spec.source_size**2, dtype=np.float32).reshape(1, spec.source_size, -1)
    return np.stack([ramp, ramp[:, ::-1]])


def _registered(client: MlflowClient, run_id: str, name: str) -> int | None:
    """The version of `name` that the run made before it was interrupted."""
    found = client.search_model_versions(f"run_id = '{run_id}'")
    numbers = [
        int(version.version) for version in found if version.name == name and Tag.DATASET in version.tags
    ]
    return min(numbers, default=None)


def _log_card(client: MlflowClient, run_id: str, name: str, spec: ModelSpec) -> str:
    run = client.get_run(run_id)
    text = card(f"{name}, {run.info.run_name}", run.data.params, run.data.metrics, spec.class_names)
    client.log_text(run_id, text, CARD_FILE)
    return text


def _dataset_input(
    name: str, digest: str, source: str, class_counts: Mapping[str, int], context: str
) -> DatasetInput:
    profile = {"class_counts": class_counts, "num_images": sum(class_counts.values())}
    dataset = Dataset(
        name=name,
        digest=digest,
        source_type="local",
        source=json.dumps({"uri": source}),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", context)])


def deliver(store: Store, outbox: Outbox) -> list[Registration]:
    """As `Outbox.deliver`, with one line for what goes wrong. Raises StoreError."""
    try:
        return outbox.deliver(store)
    except (MlflowException, OSError, ValueError) as error:
        raise StoreError(f"run {outbox.run_id} is not delivered: {reason(error)}") from error

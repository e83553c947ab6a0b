"""Makes one MLflow run, and one registered version, of one training."""

import json
import os
import platform
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import mlflow
import mlflow.pytorch
import numpy as np
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import __version__ as torch_version

from trainer.contract import BEST_FOLDER, CARD_FILE, SPEC_FILE, WEIGHTS_FILE, Tag, metric_key, model_name
from trainer.evaluation.card import body, card
from trainer.evaluation.metrics import Evaluation
from trainer.inference.bundle import ModelSpec, read
from trainer.store.location import Store, StoreError
from trainer.store.registry import Version

FINISHED, FAILED, KILLED, RUNNING = "FINISHED", "FAILED", "KILLED", "RUNNING"
_LONGEST_DESCRIPTION = 5000
"""Characters that MLflow keeps of a version's description."""


class RunWriter:
    """One run of the store, open for writing; a context manager that ends the run in every case.

    Leaving it by an exception ends the run as FAILED with the reason as a tag, by KeyboardInterrupt as
    KILLED. System metrics (CPU, memory, GPU) are logged meanwhile.
    """

    def __init__(self, store: Store, run_id: str):
        self.store = store
        self.run_id = run_id
        self._client = store.client()

    @classmethod
    def create(
        cls, store: Store, dataset: str, name: str, tags: Mapping[str, object], started_ms: int | None = None
    ) -> "RunWriter":
        """A new run; `started_ms` where it did not start now."""
        client = store.client()
        run = client.create_run(
            store.experiment_id(dataset),
            start_time=started_ms,
            run_name=name,
            tags={key: str(value) for key, value in (_process_tags() | dict(tags)).items()},
        )
        return cls(store, run.info.run_id)

    @classmethod
    def reopen(cls, store: Store, run_id: str) -> "RunWriter":
        """Raises StoreError where the store has no such run, or it has ended well."""
        client = store.client()
        try:
            status = client.get_run(run_id).info.status
        except MlflowException as error:
            raise StoreError(f"there is no run {run_id} in {store.uri}") from error
        if status == FINISHED:
            raise StoreError(f"run {run_id} has finished: there is nothing to resume")
        client.update_run(run_id, RUNNING)
        writer = cls(store, run_id)
        writer.set_tags(_process_tags())
        return writer

    def __enter__(self) -> "RunWriter":
        mlflow.start_run(run_id=self.run_id, log_system_metrics=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            mlflow.end_run(FINISHED)
        elif isinstance(error, KeyboardInterrupt):
            self.set_tags({Tag.REASON: "interrupted"})
            mlflow.end_run(KILLED)
        else:
            self.set_tags({Tag.REASON: f"{type(error).__name__}: {error}"[:5000]})
            mlflow.end_run(FAILED)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        self._client.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def log_params(self, params: Mapping[str, object]) -> None:
        """All at once; None is logged as an empty value."""
        rows = [Param(key, "" if value is None else str(value)) for key, value in params.items()]
        self._client.log_batch(self.run_id, params=rows)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """All at once, in one call."""
        now = time.time_ns() // 1_000_000
        self.log_rows([Metric(key, float(value), now, step) for key, value in metrics.items()])

    def log_rows(self, rows: Sequence[Metric]) -> None:
        """At most 1,000, which is what MLflow takes at once."""
        self._client.log_batch(self.run_id, metrics=rows)

    def logged_steps(self, key: str) -> set[int]:
        return {metric.step for metric in self._client.get_metric_history(self.run_id, key)}

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
            DatasetInput(
                Dataset(
                    name=f"{name}-{part}",
                    digest=fingerprint,
                    source_type="local",
                    source=json.dumps({"uri": source}),
                    profile=json.dumps({"class_counts": counts, "num_images": sum(counts.values())}),
                ),
                tags=[InputTag("mlflow.data.context", part)],
            )
            for part, (fingerprint, counts) in parts.items()
        ]
        self._client.log_inputs(self.run_id, inputs)

    def log_folder(self, folder: Path) -> None:
        """Every file below `folder`, under the same relative path."""
        self._client.log_artifacts(self.run_id, str(folder))

    def log_best(self, folder: Path) -> None:
        """The bundle of the best epoch of a run that did not come to register it."""
        self._client.log_artifacts(self.run_id, str(folder), BEST_FOLDER)

    def register(self, folder: Path, tags: Mapping[str, object]) -> tuple[str, int]:
        """Log the bundle in `folder` in both forms and register it; returns (model name, version).

        The version is made last, with all its tags and a card of all that was logged by then, so that it is whole
        from the moment it exists.
        """
        classifier, spec = read(folder)
        info = mlflow.pytorch.log_model(
            spec.answering(classifier),
            name="model",
            signature=signature(spec),
            input_example=example(spec),
            pip_requirements=[f"torch=={torch_version.partition('+')[0]}"],
            extra_files=[str(folder / WEIGHTS_FILE), str(folder / SPEC_FILE)],
            metadata={"class_names": list(spec.class_names), "source_size": spec.source_size},
        )
        name = model_name(spec.dataset)
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = self._client.create_model_version(
            name,
            source=info.model_uri,
            run_id=self.run_id,
            tags={key: str(value) for key, value in tags.items()},
            model_id=info.model_id,
            description=body(self._log_card(name, spec))[:_LONGEST_DESCRIPTION],
        )
        return name, int(version.version)

    def describe_again(self, version: Version, spec: ModelSpec, tags: Mapping[str, str]) -> None:
        """Write the version's card anew, from what the run knows now, and set some of its tags."""
        text = body(self._log_card(version.name, spec))[:_LONGEST_DESCRIPTION]
        number = str(version.version)
        self._client.update_model_version(version.name, number, description=text)
        for key, value in tags.items():
            self._client.set_model_version_tag(version.name, number, key, value)

    def _log_card(self, name: str, spec: ModelSpec) -> str:
        run = self._client.get_run(self.run_id)
        text = card(f"{name}, {run.info.run_name}", run.data.params, run.data.metrics, spec.class_names)
        self._client.log_text(self.run_id, text, CARD_FILE)
        return text


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


def _process_tags() -> dict[str, object]:
    """Which process writes the run, so that a reader can tell whether it still lives."""
    return {Tag.HOST: socket.gethostname(), Tag.PID: os.getpid(), "platform": platform.platform()}

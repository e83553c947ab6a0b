"""Copies runs and registered models from one store to another, and checks the copy against the original.

Where MLflow decides ids, those of the copy differ: each copy carries its original's as a tag. By it a repeated
migration finds what is there already, goes on with what was interrupted, and lets a version point to the right run.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import InputTag, LoggedModel, LoggedModelOutput, Metric, Param, Run, RunTag, ViewType
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from trainer.contract import Tag
from trainer.store.location import Store, StoreError, is_missing, is_same, reason
from trainer.store.reader import Reader, has_process_here
from trainer.store.rows import METRIC_COLUMNS, open_rows

T = TypeVar("T")
ORIGIN, WHOLE = Tag.MIGRATED_FROM, Tag.MIGRATED_WHOLE
PAGE = 1000
BATCH = {"metrics": 1000, "params": 100, "tags": 100}
"""What MLflow takes at once."""
_MODEL_SOURCE = re.compile(r"models:/(m-[0-9a-f]{32})$")
# Says where the original's models lie, under ids that the copy does not have.
_LEFT_OUT = {"mlflow.log-model.history"}
# Tags of a trial that hold the id of its sweep's run.
_PARENTS = {"mlflow.parentRunId", Tag.SWEEP_RUN}
_PROMOTION = {
    *(Tag.PROMOTED_AT, Tag.PROMOTED_BY, Tag.PROMOTED_OVER),
    *(Tag.PROMOTION_GATES, Tag.PROMOTION_REASON),
}
_FOREIGN_SOURCE = "its run was not copied, its model was deleted, or its files lie elsewhere"


@dataclass
class Report:
    """What was copied, what was there already, and what was found when the copy was read back.

    left_out: what was not copied, and why. different: what was read back otherwise than it was written.
    """

    runs: int = 0
    runs_there: int = 0
    models: int = 0
    versions: int = 0
    versions_there: int = 0
    aliases: int = 0
    values: int = 0
    files: int = 0
    size_bytes: int = 0
    checked_runs: int = 0
    checked_versions: int = 0
    left_out: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)


def migrate(
    source: Store,
    target: Store,
    *,
    check_all: bool = False,
    started: Callable[[int], None] = lambda total: None,
    advance: Callable[[], None] = lambda: None,
) -> Report:
    """Copy all runs that have ended, and all registered models, and read back what was copied.

    check_all: read back also what an earlier migration has copied. `started` is told the number of runs and versions,
    `advance` is called after each.

    Raises StoreError where a store cannot be read or written; what was copied by then is found by the next migration.
    """
    if is_same(source.uri, target.uri):
        raise StoreError(f"{source.uri} is named twice: a store is not copied into itself")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(target.uri)  # where a SQLite registry looks for a version's model, whoever asks
    try:
        return _Migration(source, target, check_all).run(started, advance)
    except MlflowException as error:
        raise StoreError(f"the migration stopped: {reason(error)}; repeat it to go on") from error
    finally:
        mlflow.set_tracking_uri(before)


class _Migration:
    def __init__(self, source: Store, target: Store, check_all: bool):
        self.source, self.target = source, target
        self.here, self.there = source.client(), target.client()
        self.rows = open_rows(source), open_rows(target)
        self.check_all = check_all
        self.report = Report()
        self.run_ids: dict[str, str] = {}
        self.earlier: dict[str, str] = {}
        """The same of what earlier migrations have copied."""
        self.model_ids: dict[str, str] = {}
        self.registered: set[str] = set()

    def run(self, started: Callable[[int], None], advance: Callable[[], None]) -> Report:
        snapshot = Reader(self.source).snapshot()
        tables = (snapshot.runs, snapshot.trials)
        living = {run_id for table in tables for run_id in table.index[table["status"] == "running"]}
        experiments = _pages(lambda token: self.here.search_experiments(page_token=token))
        # Sweeps come before their trials, whose tags hold the ids of their copies.
        runs = sorted(
            _runs(self.here),
            key=lambda run: (not _PARENTS.isdisjoint(run.data.tags), run.info.start_time or 0),
        )
        living |= _living_sweeps(runs, living)
        versions = sorted(
            _pages(lambda token: self.here.search_model_versions(max_results=PAGE, page_token=token)),
            key=lambda version: (version.name, int(version.version)),
        )
        sources = (_MODEL_SOURCE.match(version.source or "") for version in versions)
        self.registered = {found[1] for found in sources if found}
        # Those that are deleted first: of two copies the one that is there counts.
        known = sorted(_runs(self.there, ViewType.ALL), key=_is_there)
        if not {run.info.run_id for run in known}.isdisjoint(run.info.run_id for run in runs):
            raise StoreError(
                f"{self.target.uri} holds runs of {self.source.uri} under their own ids: both are one store, or one is "
                "a copy of the other's files"
            )
        started(len(runs) + len(versions))
        copies = {run.data.tags[ORIGIN]: run for run in known if ORIGIN in run.data.tags}
        self.earlier = {origin: copy.info.run_id for origin, copy in copies.items()}
        names = {experiment.experiment_id: experiment for experiment in experiments}
        for run in runs:
            name = run.info.run_name or run.info.run_id[:8]
            copy = copies.get(run.info.run_id)
            if run.info.run_id in living:
                self.report.left_out.append(f"run {name}: it goes on; repeat this when it has ended")
            elif copy is not None and not _is_there(copy):
                self.report.left_out.append(f"run {name}: its copy was deleted")
            else:
                with _named(f"run {name}"):
                    self._run(run, names[run.info.experiment_id], copy)
            advance()
        self._models(versions, advance)
        return self.report

    def _run(self, run: Run, experiment: Any, copy: Run | None) -> None:
        tags = self._tags(run)
        state = _state(run, tags)
        if copy is not None and copy.data.tags.get(WHOLE) == state:
            self.run_ids[run.info.run_id] = copy.info.run_id
            self.report.runs_there += 1
            models = self._logged_models(run, copy.info.experiment_id, copy.info.run_id)
            if self.check_all:
                self._check_run(run, copy.info.run_id, models)
            return
        if copy is None:
            experiment_id = self._experiment(experiment)
            copy = self.there.create_run(
                experiment_id, run.info.start_time, tags | {ORIGIN: run.info.run_id}, run.info.run_name
            )
        run_id = self.run_ids[run.info.run_id] = copy.info.run_id
        self._log(run_id, "tags", [RunTag(key, value) for key, value in tags.items()])
        self._log(run_id, "params", [Param(key, value) for key, value in run.data.params.items()])
        values = self._values(0, run)
        self._log(run_id, "metrics", _metrics(values))
        if run.inputs and run.inputs.dataset_inputs:
            self.there.log_inputs(run_id, run.inputs.dataset_inputs)
        self._copy_files(run.info.artifact_uri, self.there.get_run(run_id).info.artifact_uri)
        models = self._logged_models(run, copy.info.experiment_id, run_id, values)
        if run.info.status != "RUNNING":
            self.there.set_terminated(run_id, run.info.status, run.info.end_time)
        self.report.runs += 1
        self.report.values += len(values)
        if self._check_run(run, run_id, models):
            self.there.set_tag(run_id, WHOLE, state)

    def _tags(self, run: Run) -> dict[str, str]:
        """Those of its copy: a trial's parent is the copy of its sweep, where there is one."""

        def copy_of(run_id: str) -> str:
            return self.run_ids.get(run_id) or self.earlier.get(run_id, run_id)

        tags = _own_tags(run.data.tags)
        return tags | {key: copy_of(tags[key]) for key in _PARENTS & set(tags)}

    def _experiment(self, experiment: Any) -> str:
        experiment_id = self.target.experiment_id(experiment.name)
        known = self.there.get_experiment(experiment_id).tags
        for key, value in experiment.tags.items():
            if key not in known and not key.startswith("mlflow.experiment"):
                self.there.set_experiment_tag(experiment_id, key, value)
        return experiment_id

    def _log(self, run_id: str, kind: str, rows: list[Any]) -> None:
        for start in range(0, len(rows), BATCH[kind]):
            self.there.log_batch(run_id, **{kind: rows[start : start + BATCH[kind]]})

    def _values(self, side: int, run: Run) -> pd.DataFrame:
        """Every value of every metric of a run."""
        keys = list(run.data.metrics)
        found = (
            self.rows[side].history(keys, [run.info.run_id]) if keys else pd.DataFrame(columns=METRIC_COLUMNS)
        )
        order = [name for name in METRIC_COLUMNS if name != "run_id"]
        return found[order].sort_values(order, ignore_index=True)

    def _logged_models(
        self, run: Run, experiment_id: str, run_id: str, values: pd.DataFrame | None = None
    ) -> list[tuple[Any, Any]]:
        """(model, its copy) of all that a run has logged; `values` of its metrics are given where copies are made."""
        logged = set() if values is None else set(values.itertuples(index=False, name=None))
        copies = {m.tags.get(ORIGIN): m for m in _logged_models(self.there, experiment_id, run_id)}
        pairs = []
        for model in _logged_models(self.here, run.info.experiment_id, run.info.run_id):
            copy = copies.get(model.model_id)
            if values is not None and (copy is None or copy.status != model.status):
                copy = self._logged_model(model, copy, experiment_id, run_id, logged)
                step = next((out.step for out in _outputs(run) if out.model_id == model.model_id), 0)
                self.there.log_outputs(run_id, [LoggedModelOutput(copy.model_id, step)])
            if copy is not None:
                self.model_ids[model.model_id] = copy.model_id
                pairs.append((model, copy))
        return pairs

    def _logged_model(
        self, model: LoggedModel, copy: LoggedModel | None, experiment_id: str, run_id: str, logged: set[Any]
    ) -> LoggedModel:
        """Its copy, whole; `copy` is what an interrupted migration has made of it.

        logged: (key, value, time, step) of what its run logged.
        """
        copy = copy or self.there.create_logged_model(
            experiment_id, model.name, run_id, model.tags | {ORIGIN: model.model_id}, model.params,
            model.model_type or None,
        )  # fmt: skip
        self._copy_files(model.artifact_location, copy.artifact_location)
        # What was logged of the model is a part of what its run logged, except that a NaN has become zero.
        self._log(run_id, "metrics", [
            Metric(m.key, m.value, m.timestamp, m.step, copy.model_id, m.dataset_name, m.dataset_digest)
            for m in model.metrics or () if (m.key, m.value, m.timestamp, m.step) in logged
        ])  # fmt: skip
        if str(model.status) in ("READY", "FAILED"):
            self.there.finalize_logged_model(copy.model_id, str(model.status))
        return copy

    def _copy_files(self, source: str, target: str) -> None:
        """Those that are not there yet, or are others there."""
        here, there = self._repository(0, source), self._repository(1, target)
        known = self._digests(1, target)  # nothing, unless an earlier migration was interrupted
        with tempfile.TemporaryDirectory(prefix="moodify-migrate-") as scratch:
            for path in _files(here):
                local = Path(here.download_artifacts(path, scratch))
                if known.get(path) != _digest(local):
                    there.log_artifact(str(local), str(Path(path).parent) if "/" in path else None)
                    self.report.files += 1
                    self.report.size_bytes += local.stat().st_size
                if local.is_relative_to(scratch):
                    local.unlink()

    def _repository(self, side: int, address: str) -> Any:
        return get_artifact_repository(address, tracking_uri=(self.source, self.target)[side].uri)

    def _check_run(self, run: Run, run_id: str, models: list[tuple[LoggedModel, LoggedModel]]) -> bool:
        """Read the copy back, all of it; whether it is like the original."""
        copy = self.there.get_run(run_id)
        wrong = []
        for what, one, other in (
            ("status", run.info.status, copy.info.status),
            ("parameters", run.data.params, copy.data.params),
            ("tags", self._tags(run), _own_tags(copy.data.tags)),
            ("inputs", _inputs(run), _inputs(copy)),
            ("files", self._digests(0, run.info.artifact_uri), self._digests(1, copy.info.artifact_uri)),
        ):
            if one != other:
                wrong.append(what)
        if not self._values(0, run).equals(self._values(1, copy)):
            wrong.append("metrics")
        for model, its_copy in models:
            if model.model_id in self.registered:
                continue  # is checked with its version
            locations = model.artifact_location, its_copy.artifact_location
            if self._digests(0, locations[0]) != self._digests(1, locations[1]):
                wrong.append(f"files of the model {model.name}")
        self.report.checked_runs += 1
        if wrong:
            name = run.info.run_name or run.info.run_id[:8]
            self.report.different.append(f"run {name}: {', '.join(wrong)}")
        return not wrong

    def _digests(self, side: int, address: str) -> dict[str, str]:
        """Path → SHA-256 of every file."""
        repository = self._repository(side, address)
        found = {}
        with tempfile.TemporaryDirectory(prefix="moodify-migrate-") as scratch:
            for path in _files(repository):
                local = Path(repository.download_artifacts(path, scratch))
                found[path] = _digest(local)
                if local.is_relative_to(scratch):
                    local.unlink()
        return found

    def _models(self, versions: list[ModelVersion], advance: Callable[[], None]) -> None:
        models = _pages(lambda token: self.here.search_registered_models(max_results=PAGE, page_token=token))
        known = {m.name: m for m in _pages(
            lambda token: self.there.search_registered_models(max_results=PAGE, page_token=token)
        )}  # fmt: skip
        copied: dict[str, dict[str, ModelVersion]] = {}
        for version in _pages(
            lambda token: self.there.search_model_versions(max_results=PAGE, page_token=token)
        ):
            if ORIGIN in version.tags:
                copied.setdefault(version.name, {})[version.tags[ORIGIN]] = version
        for model in models:
            numbers: dict[str, str] = {}
            if model.name not in known:
                self.there.create_registered_model(model.name, model.tags, model.description)
                self.report.models += 1
            for version in versions:
                if version.name == model.name:
                    with _named(f"{model.name}/{version.version}"):
                        number = self._version(version, copied.get(model.name, {}))
                        if number is not None:
                            numbers[str(version.version)] = number
                    advance()
            self._aliases(model, known.get(model.name), numbers)

    def _version(self, version: ModelVersion, copied: dict[str, ModelVersion]) -> str | None:
        """Its number in the target; None where it was left out."""
        origin = _origin(version)
        if (copy := copied.get(origin)) is not None:
            self.report.versions_there += 1
            if self._update_version(version, copy) or self.check_all:
                self._check_version(version, copy)
            return str(copy.version)
        run_id = self.run_ids.get(version.run_id or "")
        model_id = self._model_of(version, run_id)
        if (source := self._source(version, model_id, run_id)) is None:
            self.report.left_out.append(f"{version.name}/{version.version}: {_FOREIGN_SOURCE}")
            return None
        self._skip_to(int(version.version), version.name, source, model_id)
        copy = self.there.create_model_version(
            version.name, source, run_id, dict(version.tags) | {ORIGIN: origin}, None, version.description or None,
            model_id=model_id,
        )  # fmt: skip
        self.report.versions += 1
        self._check_version(version, copy)
        return str(copy.version)

    def _update_version(self, version: ModelVersion, copy: ModelVersion) -> bool:
        """Bring what was said of it since it was copied; whether there was anything."""
        tags = {k: v for k, v in _version_tags(version, copy).items() if copy.tags.get(k) != v}
        for key, value in tags.items():
            self.there.set_model_version_tag(copy.name, str(copy.version), key, value)
        is_described_so = (version.description or "") == (copy.description or "")
        if not is_described_so:
            self.there.update_model_version(copy.name, str(copy.version), version.description or "")
        return bool(tags) or not is_described_so

    def _model_of(self, version: ModelVersion, run_id: str | None) -> str | None:
        """The id of the copy of its logged model; None where there is none. One that no run logged is copied now."""
        found = _MODEL_SOURCE.match(version.source or "")
        if found is None:
            return None
        if found[1] not in self.model_ids and run_id is not None:
            if (model := _logged_model(self.here, found[1])) is None:
                return None
            experiment_id = self.there.get_run(run_id).info.experiment_id
            copies = {m.tags.get(ORIGIN): m for m in _logged_models(self.there, experiment_id, run_id)}
            copy = self._logged_model(model, copies.get(model.model_id), experiment_id, run_id, set())
            self.model_ids[model.model_id] = copy.model_id
        return self.model_ids.get(found[1])

    def _source(self, version: ModelVersion, model_id: str | None, run_id: str | None) -> str | None:
        if model_id is not None:
            return f"models:/{model_id}"
        if run_id is None:
            return None
        root = self.here.get_run(version.run_id).info.artifact_uri.rstrip("/") + "/"
        for beginning in (f"runs:/{version.run_id}/", root):
            if version.source and version.source.startswith(beginning):
                return f"runs:/{run_id}/{version.source.removeprefix(beginning)}"
        return None

    def _skip_to(self, number: int, name: str, source: str, model_id: str | None) -> None:
        """Use up the numbers of versions that were deleted, so that the next one is `number`, where that is free."""
        quote = "'" if "'" not in name else '"'
        while True:
            taken = self.there.search_model_versions(f"name={quote}{name}{quote}", max_results=PAGE)
            others = [v for v in taken if ORIGIN not in v.tags]
            if others or max((int(v.version) for v in taken), default=0) >= number - 1:
                return
            filler = self.there.create_model_version(name, source, model_id=model_id)
            last = int(filler.version)
            self.there.delete_model_version(name, str(filler.version))
            if last >= number - 1:
                return

    def _check_version(self, version: ModelVersion, copy: ModelVersion) -> None:
        self.report.checked_versions += 1
        copy = self.there.get_model_version(copy.name, str(copy.version))
        wrong = [
            what
            for what, one, other in (
                ("tags", _version_tags(version, copy), _own_tags(copy.tags)),
                ("description", version.description or "", copy.description or ""),
                # Of a run that was deleted since, or was not copied, nothing is known.
                ("run", self.run_ids.get(version.run_id or "", copy.run_id), copy.run_id),
            )
            if one != other
        ]
        if found := _MODEL_SOURCE.match(version.source or ""):
            one = _logged_model(self.here, found[1])
            other = None if one is None else _logged_model(self.there, self._model_of(version, copy.run_id))
            if one is None:
                self.report.left_out.append(
                    f"{version.name}/{version.version}: its model was deleted: nothing to compare the copy with"
                )
            elif other is None or (
                self._digests(0, one.artifact_location) != self._digests(1, other.artifact_location)
            ):
                wrong.append("files")
        if wrong:
            self.report.different.append(f"{version.name}/{version.version}: {', '.join(wrong)}")

    def _aliases(
        self, model: RegisteredModel, known: RegisteredModel | None, numbers: dict[str, str]
    ) -> None:
        have = {} if known is None else {alias: str(number) for alias, number in known.aliases.items()}
        for alias, number in model.aliases.items():
            wanted = numbers.get(str(number))
            if wanted is None or have.get(alias) == wanted:
                continue
            if alias in have:
                self.report.left_out.append(
                    f"{model.name}@{alias}: it stays version {have[alias]} there, and would be {wanted}"
                )
                continue
            self.there.set_registered_model_alias(model.name, alias, wanted)
            self.report.aliases += 1


def _pages(ask: Callable[[str | None], Any]) -> list[Any]:
    """All that MLflow answers, page by page."""
    found, token = [], None
    while True:
        page = ask(token)
        found += page
        if not (token := page.token):
            return found


def _runs(client: MlflowClient, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    """Every run; those that were deleted where `view` says so."""
    experiments = _pages(lambda token: client.search_experiments(view, page_token=token))
    ids = [experiment.experiment_id for experiment in experiments]
    if not ids:
        return []
    return _pages(lambda token: client.search_runs(ids, "", view, PAGE, page_token=token))


def _is_there(run: Run) -> bool:
    """Whether it was not deleted."""
    return run.info.lifecycle_stage == "active"


def _living_sweeps(runs: list[Run], living: set[str]) -> set[str]:
    """Ids of the sweeps that go on: one of their trials does, or whoever has begun them is still there."""
    going = {run.data.tags.get(Tag.SWEEP_RUN) for run in runs if run.info.run_id in living}
    return {
        run.info.run_id
        for run in runs
        if Tag.SWEEP in run.data.tags
        and run.info.status == "RUNNING"
        and (run.info.run_id in going or has_process_here(run.data.tags, run.info.start_time))
    }


def _logged_model(client: MlflowClient, model_id: str | None) -> LoggedModel | None:
    """None where it was deleted, or there is none."""
    try:
        return client.get_logged_model(model_id) if model_id else None
    except MlflowException as error:
        if not is_missing(error):
            raise
        return None


def _logged_models(client: MlflowClient, experiment_id: str, run_id: str) -> list[LoggedModel]:
    return _pages(
        lambda token: client.search_logged_models(
            [experiment_id], f"source_run_id = '{run_id}'", page_token=token
        )
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(repository: Any, folder: str | None = None) -> Iterator[str]:
    """The path of every file, in all folders."""
    for item in repository.list_artifacts(folder):
        if item.is_dir:
            yield from _files(repository, item.path)
        else:
            yield item.path


def _metrics(values: pd.DataFrame) -> list[Metric]:
    columns = (values[name].tolist() for name in ("key", "value", "timestamp_ms", "step"))
    return [Metric(key, value, int(at), int(step)) for key, value, at, step in zip(*columns, strict=True)]


def _outputs(run: Run) -> Iterable[Any]:
    return run.outputs.model_outputs if run.outputs else ()


def _inputs(run: Run) -> set[tuple[str, ...]]:
    """Without their source: an experiment keeps that of the first run which brought such a dataset."""
    inputs = run.inputs.dataset_inputs if run.inputs else ()
    return {
        (one.dataset.name, one.dataset.digest, one.dataset.profile or "", *_sorted(one.tags))
        for one in inputs
    }


def _sorted(tags: Iterable[InputTag]) -> list[str]:
    return sorted(f"{tag.key}={tag.value}" for tag in tags)


def _own_tags(tags: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if key not in _LEFT_OUT | {ORIGIN, WHOLE}}


def _version_tags(version: ModelVersion, copy: ModelVersion) -> dict[str, str]:
    """Those that its copy shall have: of two promotions, here and there, the later one is kept."""
    tags = _own_tags(version.tags)
    if copy.tags.get(Tag.PROMOTED_AT, "") > tags.get(Tag.PROMOTED_AT, ""):
        tags |= {key: copy.tags[key] for key in _PROMOTION & set(copy.tags)}
    return tags


def _origin(version: ModelVersion) -> str:
    """What tells a version from every other one, of other stores as well."""
    return f"{version.name}/{version.version} {version.run_id or version.creation_timestamp}"


def _state(run: Run, tags: dict[str, str]) -> str:
    """Changes with all that MLflow shows of a run without its histories and files; `tags` are those of its copy."""
    facts = [run.info.status, run.info.end_time, run.data.params, run.data.metrics, tags]
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8).hexdigest()


class _named:  # noqa: N801 read as a clause: with _named("run x"):
    """Says of what it was that an error speaks."""

    def __init__(self, what: str):
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, MlflowException | OSError):
            raise StoreError(
                f"{self.what} could not be copied: {reason(error)}; repeat the migration to go on"
            ) from error

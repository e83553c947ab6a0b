"""Copies runs with their logged models, and reads each copy back."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import pandas as pd
from mlflow.entities import InputTag, LoggedModel, LoggedModelOutput, Metric, Param, Run, RunTag, ViewType

from trainer.contract import Tag
from trainer.store.migration.sides import ORIGIN, WHOLE, Report, Side, copy_files, is_there, own_tags
from trainer.store.rows import METRIC_COLUMNS, Rows, open_rows
from trainer.store.snapshot import has_process_here

# Tags of a trial that hold the id of its sweep's run.
PARENTS = {"mlflow.parentRunId", Tag.SWEEP_RUN}


class RunCopies:
    """registered: ids of the models that versions stand for: these are checked with their versions.

    check_all: read back also what an earlier migration has copied.
    """

    def __init__(self, here: Side, there: Side, report: Report, registered: set[str], check_all: bool):
        self.here, self.there, self.report = here, there, report
        self.registered, self.check_all = registered, check_all
        self.rows_here, self.rows_there = open_rows(here.store), open_rows(there.store)
        self.experiments = {experiment.experiment_id: experiment for experiment in here.experiments()}
        # Those that are deleted first: of two copies the one that is there counts.
        known = sorted(there.runs(ViewType.ALL), key=is_there)
        self.known = {run.info.run_id for run in known}
        self.originals = {run.info.run_id for run in known if is_there(run) and ORIGIN not in run.data.tags}
        self.earlier = {run.data.tags[ORIGIN]: run for run in known if ORIGIN in run.data.tags}
        """Id of a run → the copy that an earlier migration has made of it."""
        self.run_ids: dict[str, str] = {}
        """Of a run → of its copy; of those that this migration has gone through."""
        self.model_ids: dict[str, str] = {}
        """The same of logged models."""

    def copy(self, run: Run) -> None:
        copy = self.earlier.get(run.info.run_id)
        if copy is None and (here_already := self._at_home(run)) is not None:
            self.run_ids[run.info.run_id] = here_already
            self.report.runs_there += 1
            return
        if copy is not None and not is_there(copy):
            self.report.left_out.append(f"run {name_of(run)}: its copy was deleted")
            return
        tags = self._tags(run)
        state = _state(run, tags)
        if copy is not None and copy.data.tags.get(WHOLE) == state:
            self.run_ids[run.info.run_id] = copy.info.run_id
            self.report.runs_there += 1
            models = self._logged_models(run, copy.info.experiment_id, copy.info.run_id)
            if self.check_all:
                self._check(run, copy.info.run_id, models)
            return
        if copy is None:
            experiment_id = self._experiment(self.experiments[run.info.experiment_id])
            copy = self.there.client.create_run(
                experiment_id, run.info.start_time, tags | {ORIGIN: run.info.run_id}, run.info.run_name
            )
        run_id = self.run_ids[run.info.run_id] = copy.info.run_id
        self._log(run_id, "tags", [RunTag(key, value) for key, value in tags.items()])
        self._log(run_id, "params", [Param(key, value) for key, value in run.data.params.items()])
        values = _values(self.rows_here, run)
        self._log(run_id, "metrics", _metrics(values))
        if run.inputs and run.inputs.dataset_inputs:
            self.there.client.log_inputs(run_id, run.inputs.dataset_inputs)
        folder = self.there.client.get_run(run_id).info.artifact_uri
        copy_files(self.here, run.info.artifact_uri, self.there, folder, self.report)
        models = self._logged_models(run, copy.info.experiment_id, run_id, values)
        if run.info.status != "RUNNING":
            self.there.client.set_terminated(run_id, run.info.status, run.info.end_time)
        elif copy.info.status != "RUNNING":  # it has ended, been copied, gone on, and been lost since
            self.there.client.update_run(run_id, "RUNNING")
        self.report.runs += 1
        self.report.values += len(values)
        if self._check(run, run_id, models):
            self.there.client.set_tag(run_id, WHOLE, state)

    def _at_home(self, run: Run) -> str | None:
        """The id in the target of a run that is itself a copy: of its original, or of another whole copy of that."""
        origin = run.data.tags.get(ORIGIN)
        if origin in self.originals:
            return origin
        other = self.earlier.get(origin or "")
        return (
            other.info.run_id if other is not None and WHOLE in other.data.tags and is_there(other) else None
        )

    def _tags(self, run: Run) -> dict[str, str]:
        """Those of its copy: a trial's parent is the copy of its sweep, where there is one."""

        def copy_of(run_id: str) -> str:
            if run_id in self.run_ids:
                return self.run_ids[run_id]
            return self.earlier[run_id].info.run_id if run_id in self.earlier else run_id

        tags = own_tags(run.data.tags)
        return tags | {key: copy_of(tags[key]) for key in PARENTS & set(tags)}

    def _experiment(self, experiment: Any) -> str:
        experiment_id = self.there.store.experiment_id(experiment.name)
        known = self.there.client.get_experiment(experiment_id).tags
        for key, value in experiment.tags.items():
            if key not in known and not key.startswith("mlflow.experiment"):
                self.there.client.set_experiment_tag(experiment_id, key, value)
        return experiment_id

    def _log(self, run_id: str, kind: str, rows: list[Any]) -> None:
        if rows:
            self.there.client.log_batch(run_id, **{kind: rows})

    def _logged_models(
        self, run: Run, experiment_id: str, run_id: str, values: pd.DataFrame | None = None
    ) -> list[tuple[LoggedModel, LoggedModel]]:
        """(model, its copy) of all that a run has logged; `values` of its metrics are given where copies are made."""
        logged = set() if values is None else set(values.itertuples(index=False, name=None))
        copies = {m.tags.get(ORIGIN): m for m in self.there.logged_models(experiment_id, run_id)}
        pairs = []
        for model in self.here.logged_models(run.info.experiment_id, run.info.run_id):
            copy = copies.get(model.model_id)
            if values is not None and (copy is None or copy.status != model.status):
                copy = self.copy_model(model, copy, experiment_id, run_id, logged)
                step = next((out.step for out in _outputs(run) if out.model_id == model.model_id), 0)
                self.there.client.log_outputs(run_id, [LoggedModelOutput(copy.model_id, step)])
            if copy is not None:
                self.model_ids[model.model_id] = copy.model_id
                pairs.append((model, copy))
        return pairs

    def copy_model(
        self, model: LoggedModel, copy: LoggedModel | None, experiment_id: str, run_id: str, logged: set[Any]
    ) -> LoggedModel:
        """Its copy, whole; `copy` is what an interrupted migration has made of it.

        logged: (key, value, time, step) of what its run logged.
        """
        copy = copy or self.there.client.create_logged_model(
            experiment_id, model.name, run_id, model.tags | {ORIGIN: model.model_id}, model.params,
            model.model_type or None,
        )  # fmt: skip
        copy_files(self.here, model.artifact_location, self.there, copy.artifact_location, self.report)
        # What was logged of the model is a part of what its run logged, except that a NaN has become zero.
        self._log(run_id, "metrics", [
            Metric(m.key, m.value, m.timestamp, m.step, copy.model_id, m.dataset_name, m.dataset_digest)
            for m in model.metrics or () if (m.key, m.value, m.timestamp, m.step) in logged
        ])  # fmt: skip
        if str(model.status) in ("READY", "FAILED"):
            self.there.client.finalize_logged_model(copy.model_id, str(model.status))
        return copy

    def _check(self, run: Run, run_id: str, models: list[tuple[LoggedModel, LoggedModel]]) -> bool:
        """Read the copy back, all of it; whether it is like the original."""
        copy = self.there.client.get_run(run_id)
        wrong = []
        for what, one, other in (
            ("status", run.info.status, copy.info.status),
            ("parameters", run.data.params, copy.data.params),
            ("tags", self._tags(run), own_tags(copy.data.tags)),
            ("inputs", _inputs(run), _inputs(copy)),
            ("files", self.here.digests(run.info.artifact_uri), self.there.digests(copy.info.artifact_uri)),
        ):
            if one != other:
                wrong.append(what)
        if not _values(self.rows_here, run).equals(_values(self.rows_there, copy)):
            wrong.append("metrics")
        for model, its_copy in models:
            if model.model_id in self.registered:
                continue  # is checked with its version
            locations = model.artifact_location, its_copy.artifact_location
            if self.here.digests(locations[0]) != self.there.digests(locations[1]):
                wrong.append(f"files of the model {model.name}")
        self.report.checked_runs += 1
        if wrong:
            self.report.different.append(f"run {name_of(run)}: {', '.join(wrong)}")
        return not wrong


def in_order(runs: list[Run]) -> list[Run]:
    """Sweeps before their trials, whose tags hold the ids of their copies."""
    return sorted(runs, key=lambda run: (not PARENTS.isdisjoint(run.data.tags), run.info.start_time or 0))


def living_sweeps(runs: list[Run], living: set[str]) -> set[str]:
    """Ids of the sweeps that go on: one of their trials does, or whoever has begun them is still there."""
    going = {run.data.tags.get(Tag.SWEEP_RUN) for run in runs if run.info.run_id in living}
    return {
        run.info.run_id
        for run in runs
        if Tag.SWEEP in run.data.tags
        and run.info.status == "RUNNING"
        and (run.info.run_id in going or has_process_here(run.data.tags, run.info.start_time))
    }


def name_of(run: Run) -> str:
    return run.info.run_name or run.info.run_id[:8]


def _values(rows: Rows, run: Run) -> pd.DataFrame:
    """Every value of every metric of a run."""
    keys = list(run.data.metrics)
    found = rows.history(keys, [run.info.run_id]) if keys else pd.DataFrame(columns=METRIC_COLUMNS)
    order = [name for name in METRIC_COLUMNS if name != "run_id"]
    return found[order].sort_values(order, ignore_index=True)


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


def _state(run: Run, tags: dict[str, str]) -> str:
    """Changes with all that MLflow shows of a run without its histories and files; `tags` are those of its copy."""
    facts = [run.info.status, run.info.end_time, run.data.params, run.data.metrics, tags]
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8).hexdigest()

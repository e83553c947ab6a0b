"""Reads runs, versions and models; hands out frozen dataclasses, DataFrames and folders."""

import re
from dataclasses import dataclass
from pathlib import Path

import mlflow.artifacts
import pandas as pd
from mlflow.exceptions import MlflowException

from trainer.contract import EXTRA_FILES, SPEC_FILE, WEIGHTS_FILE, Tag, metric_key
from trainer.store.location import Store, StoreError

_REFERENCE = re.compile(r"(?:models:/)?(?P<name>[^/@:]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))$")


@dataclass(frozen=True)
class Version:
    """One version of a registered model, with the aliases that point to it."""

    name: str
    version: int
    run_id: str | None
    aliases: tuple[str, ...]
    tags: dict[str, str]

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


def runs(store: Store) -> pd.DataFrame:
    """One row a run, newest first.

    Columns: run_id, name, status, dataset, architecture, mode, recipe, epochs (trained so far), started
    (UTC), seconds, test_accuracy, test_macro_recall, versions (list of int).
    """
    client = store.client()
    experiments = {e.experiment_id: e.name for e in client.search_experiments()}
    versions: dict[str, list[int]] = {}
    for version in all_versions(store):
        versions.setdefault(version.run_id or "", []).append(version.version)
    rows, token = [], None
    while experiments:
        page = client.search_runs(list(experiments), max_results=1000, page_token=token)
        for run in page:
            info, data = run.info, run.data
            rows.append(
                {
                    "run_id": info.run_id,
                    "name": info.run_name,
                    "status": info.status,
                    "dataset": data.tags.get(Tag.DATASET, experiments[info.experiment_id]),
                    "architecture": data.tags.get(Tag.ARCHITECTURE, ""),
                    "mode": data.tags.get(Tag.MODE, ""),
                    "recipe": data.tags.get(Tag.RECIPE, ""),
                    "started": pd.Timestamp(info.start_time, unit="ms"),
                    "seconds": (info.end_time - info.start_time) / 1000 if info.end_time else float("nan"),
                    "test_accuracy": data.metrics.get(metric_key("test", "accuracy"), float("nan")),
                    "test_macro_recall": data.metrics.get(metric_key("test", "macro_recall"), float("nan")),
                    "versions": sorted(versions.get(info.run_id, [])),
                }
            )
        if not (token := page.token):
            break
    columns = [
        *("run_id", "name", "status", "dataset", "architecture", "mode", "recipe"),
        *("started", "seconds", "test_accuracy", "test_macro_recall", "versions"),
    ]
    return pd.DataFrame(rows, columns=columns).sort_values("started", ascending=False, ignore_index=True)


def all_versions(store: Store) -> list[Version]:
    """Every version of every registered model, in order of name and version."""
    client = store.client()
    aliases: dict[tuple[str, int], list[str]] = {}
    for model in client.search_registered_models(max_results=1000):
        for alias, number in model.aliases.items():
            aliases.setdefault((model.name, int(number)), []).append(alias)
    found = []
    for version in client.search_model_versions(max_results=10_000):
        key = (version.name, int(version.version))
        found.append(
            Version(*key, version.run_id or None, tuple(sorted(aliases.get(key, []))), dict(version.tags))
        )
    return sorted(found, key=lambda version: (version.name, version.version))


def find_version(store: Store, reference: str) -> Version:
    """The version that `models:/NAME/3`, `models:/NAME@ALIAS`, `NAME/3` or `NAME@ALIAS` names.

    Raises StoreError, naming what there is instead, where it names none.
    """
    match = _REFERENCE.match(reference)
    if not match:
        raise StoreError(
            f"'{reference}' names no model: write NAME@champion, NAME/3, models:/NAME/3 or a folder with "
            f"{SPEC_FILE}"
        )
    name, alias, number = match["name"], match["alias"], match["version"]
    known = all_versions(store)
    candidates = [version for version in known if version.name == name]
    for version in candidates:
        if alias in version.aliases or (number and version.version == int(number)):
            return version
    if not candidates:
        names = sorted({version.name for version in known})
        there = f"there are: {', '.join(names)}" if names else "there is none yet: `make train` makes one"
        raise StoreError(f"there is no registered model '{name}'; {there}")
    have = [f"{v.version}" + (f" ({', '.join(v.aliases)})" if v.aliases else "") for v in candidates[-10:]]
    raise StoreError(f"'{reference}': {name} has versions {', '.join(have)}")


def bundle_folder(store: Store, version: Version) -> Path:
    """A local folder with the version's weights and spec; downloaded where the store is a server.

    Raises StoreError where the version carries none (a foreign format), or they cannot be fetched.
    """
    try:
        folder = Path(mlflow.artifacts.download_artifacts(f"{version.uri}/{EXTRA_FILES}"))
    except (MlflowException, OSError) as error:
        raise StoreError(f"the files of {version.uri} cannot be fetched: {error}".splitlines()[0]) from error
    if not all((folder / name).is_file() for name in (WEIGHTS_FILE, SPEC_FILE)):
        raise StoreError(
            f"{version.uri} has no {WEIGHTS_FILE} and {SPEC_FILE}: it is not of Moodify's format"
        )
    return folder


def run_bundle_folder(store: Store, run_id: str, artifact_path: str) -> Path:
    """The same, of files that a run logged as artifacts."""
    try:
        return Path(store.client().download_artifacts(run_id, artifact_path))
    except (MlflowException, OSError) as error:
        raise StoreError(f"run {run_id} has no {artifact_path}: {error}".splitlines()[0]) from error

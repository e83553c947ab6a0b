"""Two stores, what MLflow holds in them, and how their files are copied and compared."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.entities import LoggedModel, Run, ViewType
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from trainer.contract import Tag
from trainer.store.location import Store, StoreError, is_missing, reason

ORIGIN, WHOLE = Tag.MIGRATED_FROM, Tag.MIGRATED_WHOLE
PAGE = 1000
# Says where the original's models lie, under ids that the copy does not have.
_LEFT_OUT = {"mlflow.log-model.history"}


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


class Side:
    """One of the two stores."""

    def __init__(self, store: Store):
        self.store, self.client = store, store.client()

    def experiments(self, view: int = ViewType.ACTIVE_ONLY) -> list[Any]:
        return _pages(lambda token: self.client.search_experiments(view, page_token=token))

    def runs(self, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
        """Every run; those that were deleted where `view` says so."""
        ids = [experiment.experiment_id for experiment in self.experiments(view)]
        if not ids:
            return []
        return _pages(lambda token: self.client.search_runs(ids, "", view, PAGE, page_token=token))

    def models(self) -> list[RegisteredModel]:
        return _pages(lambda token: self.client.search_registered_models(max_results=PAGE, page_token=token))

    def versions(self) -> list[ModelVersion]:
        return _pages(lambda token: self.client.search_model_versions(max_results=PAGE, page_token=token))

    def logged_model(self, model_id: str | None) -> LoggedModel | None:
        """None where it was deleted, or there is none."""
        try:
            return self.client.get_logged_model(model_id) if model_id else None
        except MlflowException as error:
            if not is_missing(error):
                raise
            return None

    def logged_models(self, experiment_id: str, run_id: str) -> list[LoggedModel]:
        return _pages(
            lambda token: self.client.search_logged_models(
                [experiment_id], f"source_run_id = '{run_id}'", page_token=token
            )
        )

    def repository(self, address: str) -> Any:
        return get_artifact_repository(address, tracking_uri=self.store.uri)

    def digests(self, address: str) -> dict[str, str]:
        """Path → SHA-256 of every file."""
        return {path: _digest(local) for path, local in _downloads(self.repository(address))}


def copy_files(here: Side, source: str, there: Side, target: str, report: Report) -> None:
    """Those that are not there yet, or are others there."""
    known = there.digests(target)  # nothing, unless an earlier migration was interrupted
    repository = there.repository(target)
    for path, local in _downloads(here.repository(source)):
        if known.get(path) != _digest(local):
            repository.log_artifact(str(local), str(Path(path).parent) if "/" in path else None)
            report.files += 1
            report.size_bytes += local.stat().st_size


def is_there(run: Run) -> bool:
    """Whether it was not deleted."""
    return run.info.lifecycle_stage == "active"


def own_tags(tags: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if key not in _LEFT_OUT | {ORIGIN, WHOLE}}


@contextmanager
def named(what: str) -> Iterator[None]:
    """Says of what it was that an error speaks."""
    try:
        yield
    except (MlflowException, OSError) as error:
        raise StoreError(
            f"{what} could not be copied: {reason(error)}; repeat the migration to go on"
        ) from error


def _downloads(repository: Any) -> Iterator[tuple[str, Path]]:
    """(path, where it can be read until the next one is asked for) of every file, in all folders."""
    with tempfile.TemporaryDirectory(prefix="moodify-migrate-") as scratch:
        for path in _files(repository):
            local = Path(repository.download_artifacts(path, scratch))
            yield path, local
            if local.is_relative_to(scratch):
                local.unlink()


def _files(repository: Any, folder: str | None = None) -> Iterator[str]:
    """The path of every file, in all folders."""
    for item in repository.list_artifacts(folder):
        if item.is_dir:
            yield from _files(repository, item.path)
        else:
            yield item.path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pages(ask: Callable[[str | None], Any]) -> list[Any]:
    """All that MLflow answers, page by page."""
    found, token = [], None
    while True:
        page = ask(token)
        found += page
        if not (token := page.token):
            return found

"""Copies runs and registered models from one store to another, and checks the copy against the original.

Where MLflow decides ids, those of the copy differ: each copy carries its original's as a tag. By it a repeated
migration finds what is there already, goes on with what was interrupted, and lets a version point to the right run.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import mlflow
from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException

from trainer.store.location import Store, StoreError, is_same, reason, redacted
from trainer.store.migration.runs import RunCopies, in_order, living_sweeps, name_of
from trainer.store.migration.sides import Report, Side, named
from trainer.store.migration.versions import MODEL_SOURCE, VersionCopies
from trainer.store.reader import Reader

__all__ = ["Report", "migrate"]


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

    Raises StoreError where a store cannot be read or written, or another migration writes to `target` (of a server:
    another one of the same user on this machine); what was copied by then is found by the next migration.
    """
    if is_same(source.uri, target.uri):
        raise StoreError(f"{source.uri} is named twice: a store is not copied into itself")
    # What is there is looked up once: two at a time would copy everything twice.
    lock = FileLock(_lock_file(target))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreError(
            f"another migration into {target.uri} goes on: repeat this when it has ended"
        ) from error
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(target.uri)  # where a SQLite registry looks for a version's model, whoever asks
    try:
        return _copy_all(Side(source), Side(target), check_all, started, advance)
    except MlflowException as error:
        raise StoreError(f"the migration stopped: {reason(error)}; repeat it to go on") from error
    finally:
        mlflow.set_tracking_uri(before)
        lock.release()


def _lock_file(target: Store) -> Path:
    if target.artifact_root is not None:
        return target.artifact_root.parent / ".migration.lock"
    address = redacted(target.uri).rstrip("/").replace("//localhost:", "//127.0.0.1:")
    digest = hashlib.sha256(address.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f".moodify-migration-{os.getuid()}-{digest}.lock")


def _copy_all(
    here: Side, there: Side, check_all: bool, started: Callable[[int], None], advance: Callable[[], None]
) -> Report:
    # Before and after: of a run that ends while all are read, what is held here is of before.
    living = _living(here.store)
    runs = in_order(here.runs())
    living |= _living(here.store)
    living |= living_sweeps(runs, living)
    versions = sorted(here.versions(), key=lambda version: (version.name, int(version.version)))
    sources = (MODEL_SOURCE.match(version.source or "") for version in versions)
    report = Report()
    run_copies = RunCopies(here, there, report, {found[1] for found in sources if found}, check_all)
    if not run_copies.known.isdisjoint(run.info.run_id for run in runs):
        raise StoreError(
            f"{there.store.uri} holds runs of {here.store.uri} under their own ids: both are one store, or one is "
            "a copy of the other's files"
        )
    started(len(runs) + len(versions))
    for run in runs:
        if run.info.run_id in living:
            report.left_out.append(f"run {name_of(run)}: it goes on; repeat this when it has ended")
        else:
            with named(f"run {name_of(run)}"):
                run_copies.copy(run)
        advance()
    VersionCopies(here, there, report, run_copies, check_all).copy(versions, advance)
    return report


def _living(store: Store) -> set[str]:
    """Ids of the runs and trials that go on."""
    snapshot = Reader(store).snapshot()
    tables = (snapshot.runs, snapshot.trials)
    return {run_id for table in tables for run_id in table.index[table["status"] == "running"]}

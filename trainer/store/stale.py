"""Runs whose process is gone: the store still calls them running, until they are marked."""

import time
from dataclasses import dataclass

import pandas as pd
from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException

from trainer.contract import LOCK_FILE, Tag
from trainer.store.location import Store, StoreError
from trainer.store.outbox import Outbox
from trainer.store.snapshot import Snapshot
from trainer.store.writer import FAILED, RUNNING

GONE = "its process ended without a word (killed, out of memory, or the machine stopped)"


@dataclass(frozen=True)
class Found:
    """A run that was found stale. left: why it was left as it is; empty where it was marked."""

    run_id: str
    name: str
    left: str = ""


def mark_stale(store: Store, snapshot: Snapshot) -> list[Found]:
    """End each stale run as FAILED, with the reason as a tag, at the time when it last logged; it can be resumed still.
    Trials of sweeps are runs, too.

    Left alone are runs of other machines, whose processes cannot be seen from here, those that are being resumed, and
    those that wait to be delivered. Raises StoreError where the store refuses.
    """
    found = []
    runs = pd.concat([snapshot.runs, snapshot.trials])
    for run_id, row in runs[runs["status"] == "stale"].iterrows():
        left = "" if row["is_local"] else "it ran on another machine: mark it there"
        if Outbox(store.undelivered, str(run_id)).is_waiting:
            left = "it waits for `python -m trainer deliver`"
        if not left and not _mark(store, str(run_id), row):
            left = "it is being resumed"
        found.append(Found(str(run_id), str(row["name"]), left))
    return found


def _mark(store: Store, run_id: str, row: object) -> bool:
    """False where somebody trains it by now."""
    client = store.client()
    store.checkpoints.mkdir(parents=True, exist_ok=True)
    path = store.checkpoints / LOCK_FILE.format(run_id=run_id)
    kept = path.exists()
    try:
        with FileLock(path).acquire(timeout=0):
            if client.get_run(run_id).info.status == RUNNING:
                client.set_tag(run_id, Tag.REASON, GONE)
                started, seconds = row["started"], row["seconds"]  # type: ignore[index]
                ended = int(started.timestamp() * 1000 + seconds * 1000) if seconds == seconds else None
                client.set_terminated(run_id, FAILED, ended or int(time.time() * 1000))
    except Timeout:
        return False
    except MlflowException as error:
        raise StoreError(f"run {run_id} cannot be marked: {error.message}") from error
    if not kept:
        path.unlink(missing_ok=True)
    return True

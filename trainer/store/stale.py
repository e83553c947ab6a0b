"""Runs whose process is gone: the store still calls them running, until they are marked."""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException

from trainer.contract import LOCK_FILE, Tag
from trainer.store.location import Store, StoreError
from trainer.store.outbox import Outbox
from trainer.store.snapshot import Snapshot, lives
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
    Trials of sweeps, sweeps of which no trial runs, and audits (which end when they began) are runs, too.

    Left alone are runs of other machines, whose processes cannot be seen from here, those that are being resumed, and
    those that wait to be delivered. Raises StoreError where the store refuses.
    """
    found = []
    for run_id, name, is_local, ended_ms in [*_trainings(snapshot), *_others(snapshot)]:
        left = "" if is_local else "it ran on another machine: mark it there"
        if Outbox(store.undelivered, run_id).is_waiting:
            left = "it waits for `python -m trainer deliver`"
        if not left and not _mark(store, run_id, ended_ms):
            left = "it is being resumed"
        found.append(Found(run_id, name, left))
    return found


def _trainings(snapshot: Snapshot) -> Iterator[tuple[str, str, bool, int]]:
    """Of stale runs and trials: id, name, whether it ran on this machine, and when it last logged (ms since 1970)."""
    runs = pd.concat([snapshot.runs, snapshot.trials])
    for run_id, row in runs[runs["status"] == "stale"].iterrows():
        started, seconds = row["started"], row["seconds"]
        ended = int(started.timestamp() * 1000 + seconds * 1000) if seconds == seconds else None
        yield str(run_id), str(row["name"]), row["is_local"], ended or int(time.time() * 1000)


def _others(snapshot: Snapshot) -> Iterator[tuple[str, str, bool, int]]:
    """The same of audits and sweeps. A sweep lives as long as any worker's trial, whoever began it."""
    trials, now = snapshot.trials, time.time() * 1000
    for head in snapshot.unended:
        of_it = trials[trials["sweep"] == head.run_id] if head.kind == Tag.SWEEP else trials[:0]
        ends = of_it["started"] + pd.to_timedelta(of_it["seconds"], unit="s")
        last = max([head.started_ms, *(round(end.timestamp() * 1000) for end in ends.dropna())])
        if "running" not in set(of_it["status"]) and not lives(head.tags, last, now):
            yield head.run_id, head.name, head.tags.get(Tag.HOST) == socket.gethostname(), last


def _mark(store: Store, run_id: str, ended_ms: int) -> bool:
    """False where somebody trains it by now."""
    client = store.client()
    store.checkpoints.mkdir(parents=True, exist_ok=True)
    path = store.checkpoints / LOCK_FILE.format(run_id=run_id)
    kept = path.exists()
    try:
        with FileLock(path).acquire(timeout=0):
            try:
                if client.get_run(run_id).info.status == RUNNING:
                    client.set_tag(run_id, Tag.REASON, GONE)
                    client.set_terminated(run_id, FAILED, ended_ms)
            finally:
                if not kept:  # while it is held: after that somebody else may hold what would be deleted
                    path.unlink(missing_ok=True)
    except Timeout:
        return False
    except MlflowException as error:
        raise StoreError(f"run {run_id} cannot be marked: {error.message}") from error
    return True

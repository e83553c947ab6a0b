"""The runs of a sweep: one parent, and a child for each trial, in an experiment of their own."""

import logging
import time
from collections.abc import Mapping
from typing import Literal

from mlflow.exceptions import MlflowException

from trainer.contract import Tag, sweep_experiment
from trainer.store.location import Store, StoreError, is_missing, reason
from trainer.store.writer import KILLED, RunWriter, process_tags

log = logging.getLogger(__name__)

BEST_SO_FAR = "best_validation_accuracy"
_PARENT = "mlflow.parentRunId"


def begin_sweep(
    store: Store, dataset: str, name: str, search: str, tags: Mapping[str, str], params: Mapping[str, object]
) -> str:
    """Make the parent run; returns its id."""
    own = {Tag.SWEEP: name, Tag.SEARCH: search, Tag.DATASET: dataset}
    writer = RunWriter.create(store, sweep_experiment(dataset), name, {**tags, **own})
    writer.log_params(params)
    return writer.run_id


def begin_trial(store: Store, dataset: str, parent: str, number: int, tags: Mapping[str, str]) -> RunWriter:
    """Make the child run of a trial."""
    own = {_PARENT: parent, Tag.SWEEP_RUN: parent, Tag.TRIAL: number, Tag.DATASET: dataset}
    return RunWriter.create(store, sweep_experiment(dataset), f"trial {number}", {**tags, **own})


def set_state(store: Store, run_id: str, state: Literal["RUNNING", "FINISHED", "KILLED"]) -> None:
    """Of a parent run. Raises StoreError where the store does not have it, or cannot be asked."""
    try:
        client = store.client()
        run = client.get_run(run_id)
        if run.info.lifecycle_stage == "deleted":
            raise StoreError(f"the run of this sweep, {run_id}, was deleted: take another --study")
        if state == "RUNNING":
            client.update_run(run_id, state)
            tags = process_tags()  # of who goes on with it
        else:
            client.set_terminated(run_id, state)
            tags = {}
        if run.data.tags.get(Tag.REASON):  # it was marked as failed meanwhile
            tags[Tag.REASON] = ""
        for key, value in tags.items():
            client.set_tag(run_id, key, str(value))
    except MlflowException as error:
        why = f"cannot be written to: {reason(error)}"
        if is_missing(error):
            why = f"is not in the store {store.uri}: take another --study"
        raise StoreError(f"the run of this sweep, {run_id}, {why}") from error


def end_lost(store: Store, run_id: str, number: int) -> None:
    """End the run of a trial whose worker died; `number` is that of the trial that tries again.

    A run that was deleted meanwhile, or cannot be written to, is no reason not to try again.
    """
    client = store.client()
    try:
        if client.get_run(run_id).info.status == "RUNNING":
            client.set_tag(run_id, Tag.REASON, f"its worker died: trial {number} tries again")
            client.set_terminated(run_id, KILLED)
    except MlflowException as error:
        log.info("How the lost run %s ended could not be logged: %s", run_id, reason(error))


def log_best(store: Store, run_id: str, accuracy: float) -> None:
    """The best of a sweep so far, as a metric of its parent; steps are seconds, so that all workers' fit together."""
    writer = RunWriter(store, run_id)
    try:
        writer.log_metrics({BEST_SO_FAR: accuracy}, step=int(time.time()))
    except (
        OSError,
        StoreError,
    ) as error:  # another worker keeps what it has to say, the disk is full, the store away
        log.info("The best so far of the sweep %s could not be kept: %s", run_id, error)
    finally:
        writer.close()

"""The runs of a sweep, where their store does not answer, or has lost them."""

from collections.abc import Callable

import pytest
from filelock import FileLock

from trainer.store.location import Store, StoreError, open_store
from trainer.store.sweeps import BEST_SO_FAR, begin_sweep, begin_trial, end_lost, log_best, set_state
from trainer.store.writer import RunWriter

GONE = Store("http://127.0.0.1:9", None)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.mark.parametrize(
    "ask", [lambda store: set_state(store, "0" * 32, "KILLED"), lambda store: RunWriter.reopen(store, "0" * 32)]
)  # fmt: skip
def test_a_run_is_missing_only_where_the_store_says_so(stocked, impatient, ask: Callable[[Store], object]):
    with pytest.raises(StoreError, match=r"is not in the store|there is no run"):
        ask(open_store())
    with pytest.raises(StoreError, match=r"cannot be .*127\.0\.0\.1"):
        ask(GONE)


def test_the_best_so_far_arrives_once_the_server_answers_again(stocked, impatient):
    store = open_store()
    parent = begin_sweep(store, "sketch", "lr", "", {}, {})
    log_best(GONE, parent, 0.5)
    with FileLock(GONE.undelivered / f"{parent}.lock"):  # of another worker
        log_best(GONE, parent, 0.4)
    back = Store(store.uri, None)  # as a server, whose runs are kept here where it does not answer
    for best in (0.6, 0.7):
        log_best(back, parent, best)
    history = store.client().get_metric_history(parent, BEST_SO_FAR)
    assert sorted(metric.value for metric in history) == [0.5, 0.6, 0.7]
    assert not (back.undelivered / parent).exists()


def test_an_experiment_that_may_not_be_made_is_told_with_the_reason(stocked):
    with pytest.raises(StoreError, match=r"neither be found nor made in .*: .*name"):
        open_store().experiment_id("x" * 1000)


def test_a_lost_trial_whose_run_is_gone_is_no_reason_to_stop(stocked, impatient):
    store = open_store()
    deleted = begin_trial(store, "sketch", "0" * 32, 0, {}).run_id
    store.client().delete_run(deleted)
    for place, run_id in ((store, deleted), (store, "1" * 32), (GONE, deleted)):
        end_lost(place, run_id, 1)
    store.client().restore_run(deleted)
    end_lost(store, deleted, 1)
    assert store.client().get_run(deleted).info.status == "KILLED"

"""Runs whose process is gone are ended, and no others; and two processes never train one run."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from filelock import FileLock, Timeout
from mlflow.entities import Metric

from tests.extra.grey_faces import write_grey_folder
from tests.extra.odd_runs import add_odd_runs
from trainer.__main__ import main
from trainer.contract import Tag, audit_experiment
from trainer.store.location import open_store
from trainer.store.outbox import Outbox
from trainer.store.reader import Reader
from trainer.store.snapshot import has_process_here
from trainer.store.sweeps import begin_sweep, begin_trial, set_state
from trainer.store.writer import RunWriter
from trainer.training.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Iterator[dict[str, str]]:
    """A store with odd runs in the working directory; what each is → its id."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder := tmp_path_factory.mktemp("stale"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MOODIFY_CACHE", str(folder / "cache"))
        yield add_odd_runs(open_store())


def test_only_runs_whose_process_is_gone_from_this_machine_are_marked(odd, capsys):
    store, found = open_store(), odd
    with Checkpoint(store.checkpoints, found["gone"]):
        assert main(["runs", "--mark-stale"]) == 0
    assert "it is being resumed" in capsys.readouterr().out
    assert Reader(store).snapshot().runs.at[found["gone"], "status"] == "stale"
    before = Reader(store).snapshot().runs["status"].to_dict()
    assert main(["runs", "--mark-stale"]) == 0
    said = capsys.readouterr().out
    assert f"gone ({found['gone']}): marked as failed" in said
    assert "go on with" not in said  # its folder is there, and holds nothing to go on from
    after = Reader(store).snapshot().runs
    assert after["status"].to_dict() == before | {found["gone"]: "failed"}
    assert "its process ended without a word" in after.at[found["gone"], "reason"]
    assert main(["runs", "--mark-stale"]) == 0
    assert "Every run that counts as running has its process." in capsys.readouterr().out


def test_a_lock_is_deleted_only_while_it_is_held(odd, monkeypatch, capsys):
    """Else a second process may hold what is deleted, and a third make it anew and hold that."""
    store, held = open_store(), []
    really = Path.unlink

    def unlink(path, missing_ok=False):
        if path.suffix == ".lock":
            with pytest.raises(Timeout):
                FileLock(path).acquire(timeout=0)
            held.append(path.name)
        really(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    gone = begin_trial(store, "odd", begin_sweep(store, "odd", "search 3", "", {}, {}), 0, {})
    gone.set_tags({Tag.PROCESS_STARTED: 1.0})
    assert main(["runs", "--mark-stale"]) == 0
    assert f"({gone.run_id}): marked as failed" in capsys.readouterr().out
    outbox = Outbox(store.undelivered, gone.run_id)
    outbox.keep(store, {"kind": "batch", "tags": [["a", "b"]]}, None)
    outbox.close()
    other = Outbox(store.undelivered, gone.run_id)
    other.deliver(store)
    other.keep(store, {"kind": "batch", "tags": [["a", "c"]]}, None)
    other.deliver(store)
    other.close()
    assert held == [f"{gone.run_id}.lock"] * 3
    assert not list(store.undelivered.glob("*.lock"))


def test_a_trial_of_a_sweep_is_marked_like_any_run(odd, capsys):
    store = open_store()
    trial = begin_trial(store, "odd", begin_sweep(store, "odd", "search", "", {}, {}), 0, {})
    trial.set_tags({Tag.PROCESS_STARTED: 1.0})
    assert Reader(store).snapshot().trials.at[trial.run_id, "status"] == "stale"
    assert main(["runs", "--mark-stale"]) == 0
    assert f"trial 0 ({trial.run_id}): marked as failed" in capsys.readouterr().out
    assert Reader(store).snapshot().trials.at[trial.run_id, "status"] == "failed"


def test_an_audit_that_was_killed_is_marked_and_a_sweep_once_none_of_its_trials_runs(odd, capsys):
    store = open_store()
    killed = {Tag.PROCESS_STARTED: 1.0}
    audit = RunWriter.create(store, audit_experiment("odd"), "audit of odd", {Tag.AUDIT: "true", **killed})
    sweep = begin_sweep(store, "odd", "search 2", "", killed, {})
    trial = begin_trial(store, "odd", sweep, 0, {})  # of another worker
    assert main(["runs", "--mark-stale"]) == 0
    said = capsys.readouterr().out
    assert f"audit of odd ({audit.run_id}): marked as failed" in said
    assert sweep not in said
    store.client().set_terminated(trial.run_id)
    assert main(["runs", "--mark-stale"]) == 0
    assert f"search 2 ({sweep}): marked as failed" in capsys.readouterr().out
    run = store.client().get_run(sweep)
    assert run.info.status == "FAILED"
    assert "without a word" in run.data.tags[Tag.REASON]
    assert run.info.end_time == store.client().get_run(trial.run_id).info.end_time
    set_state(store, sweep, "RUNNING")
    assert store.client().get_run(sweep).data.tags[Tag.REASON] == ""
    set_state(store, sweep, "FINISHED")


def test_a_clock_that_was_set_back_makes_no_run_stale_and_a_number_that_is_used_again_does(odd):
    store = open_store()
    writer = RunWriter.create(store, "odd", "set back", {})
    writer.log_rows([Metric("validation/accuracy", 0.5, 1_000_000, 1)])  # in 1970
    assert Reader(store).snapshot().runs.at[writer.run_id, "status"] == "running"
    writer.set_tags({Tag.PROCESS_STARTED: 1.0})
    assert Reader(store).snapshot().runs.at[writer.run_id, "status"] == "stale"
    store.client().delete_run(writer.run_id)


@pytest.fixture
def exploded(odd, tmp_path, capsys) -> str:
    """A run that ended because its loss was no number; its id."""
    flags = [
        "--data-dir",
        str(write_grey_folder(tmp_path / "faces")),
        "--blocks",
        "4 8",
        "--batch-size",
        "16",
    ]
    flags += ["--optimizer", "sgd", "--learning-rate", "10", "--weight-decay", "10", "--epochs", "9"]
    assert main(["train", *flags]) == 2
    assert "lower --learning-rate" in capsys.readouterr().err
    runs = Reader(open_store()).snapshot().runs
    return str(runs.index[runs["dataset"] == "fer2013"][0])


def test_a_run_that_another_process_resumes_is_refused_untouched(exploded: str, capsys):
    store = open_store()
    run = store.client().get_run(exploded)
    assert run.info.status == "FAILED"
    assert "loss became" in run.data.tags[Tag.REASON]
    with Checkpoint(store.checkpoints, exploded):
        assert main(["train", "--resume", exploded]) == 2
    assert f"run {exploded} is being trained by another process" in capsys.readouterr().err
    again = store.client().get_run(exploded)
    assert (again.info.status, again.data.tags) == (run.info.status, run.data.tags)


def test_a_process_that_nobody_has_waited_for_is_gone():
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        tags = {Tag.HOST: socket.gethostname(), Tag.PID: str(child.pid)}
        deadline = time.monotonic() + 10
        while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.01)
        assert has_process_here(tags, time.time() * 1000) is False
    assert has_process_here(tags | {Tag.PID: str(os.getpid())}, time.time() * 1000) is True

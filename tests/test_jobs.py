"""Trainings as processes: what is started is what was asked for, and only that is ever stopped."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tests.extra.grey_faces import write_grey_folder
from trainer import jobs
from trainer.config import Config, recipe_defaults
from trainer.contract import CONFIG_FILE, STATE_FILE
from trainer.jobs import Job
from trainer.settings import configuration
from trainer.store.location import open_store

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def until(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.1)


def record(folder: Path, process: psutil.Process, *, minute: int = 0, **changed: object) -> Job:
    """The record of a training, of a process that this test has started itself."""
    folder.mkdir(exist_ok=True)
    stem = folder / f"job-{minute:02}-{process.pid}"
    stem.with_suffix(".log").write_text(f"Loading …\nRun {'a' * 32}: cnn, mode full, at most 1 epochs.\n\n")
    written = {
        "pid": process.pid,
        "create_time": process.create_time(),
        "arguments": ["--epochs=1"],
        "started": f"2026-01-01T00:{minute:02}:00+00:00",
    }
    stem.with_suffix(".json").write_text(json.dumps(written | changed))
    return next(job for job in jobs.jobs(folder) if job.log == stem.with_suffix(".log"))


def test_what_cannot_be_trained_is_refused_line_by_line_and_nothing_is_started(tmp_path):
    config = Config(architecture="cnn", mode="fc", epochs=0)
    with pytest.raises(ValueError, match="--mode fc") as refused:
        jobs.start(tmp_path / "jobs", config)
    assert len(str(refused.value).splitlines()) == 2
    assert not (tmp_path / "jobs").exists()


@pytest.mark.parametrize("run_id", ["", "4f2a", "../" + "a" * 29, "--help", "a" * 31 + "\n"])
def test_only_the_id_of_a_run_can_be_resumed(tmp_path, run_id):
    with pytest.raises(ValueError, match="is no run"):
        jobs.resume(tmp_path / "jobs", run_id)
    assert not (tmp_path / "jobs").exists()


def test_a_process_that_has_another_start_time_is_not_the_training_and_is_left_alone(tmp_path):
    with subprocess.Popen(SLEEP) as child:
        try:
            process = psutil.Process(child.pid)
            job = record(tmp_path, process, create_time=process.create_time() - 3600)
            assert not job.alive
            with pytest.raises(ValueError, match="is gone, or is another program by now"):
                jobs.stop(job)
            time.sleep(0.2)
            assert process.status() != psutil.STATUS_ZOMBIE
            assert child.poll() is None
        finally:
            child.kill()


def test_a_training_is_asked_to_stop_once_and_counts_as_ended_as_a_zombie(tmp_path):
    with subprocess.Popen(SLEEP) as child:
        try:
            job = record(tmp_path, psutil.Process(child.pid))
            assert job.alive
            assert not job.stopping
            jobs.stop(job)
            until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE, 10)
            [after] = jobs.jobs(tmp_path)
            assert (after.alive, after.stopping) == (False, False)
            with pytest.raises(ValueError, match="this training has ended"):
                jobs.stop(after)
        finally:
            child.kill()


def test_who_is_stopping_is_not_asked_again_before_the_time_is_up(tmp_path):
    own = psutil.Process()
    job = record(tmp_path, own, stop_asked=time.time() - 1)
    assert job.stopping
    with pytest.raises(ValueError, match="asked to stop already"):
        jobs.stop(job)
    assert not record(tmp_path, own, stop_asked=time.time() - 2 * jobs.STOPPING_SECONDS).stopping


def test_jobs_come_newest_first_with_their_run_and_the_end_of_their_log(tmp_path):
    first = record(tmp_path, psutil.Process(), minute=1)
    second = record(tmp_path, psutil.Process(), minute=2)
    assert jobs.jobs(tmp_path) == [second, first]
    assert first.run_id == "a" * 32
    assert first.tail(1) == [f"Run {'a' * 32}: cnn, mode full, at most 1 epochs."]
    assert first.tail(9)[0] == "Loading …"


@pytest.mark.parametrize("text", ["", '{"pid": 17, "argu', "\0" * 64, "{}", "[]", "null"])
def test_a_record_that_a_power_failure_left_cut_off_is_no_job(tmp_path, text):
    job = record(tmp_path, psutil.Process(), minute=1)
    for suffix, content in ((".json", text), (".log", "Loading …\n")):
        (tmp_path / f"job-02-17{suffix}").write_text(content)
    assert jobs.jobs(tmp_path) == [job]


@pytest.mark.parametrize("names", [(), (CONFIG_FILE,), (STATE_FILE,), (CONFIG_FILE, STATE_FILE)])
def test_a_run_can_go_on_where_both_its_configuration_and_its_state_are_there(tmp_path, names):
    (tmp_path / "a").mkdir()
    for name in names:
        (tmp_path / "a" / name).touch()
    assert jobs.is_resumable(tmp_path, "a") is (len(names) == 2)


def test_a_training_can_be_stopped_where_the_disk_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "write_text", full)
    with subprocess.Popen(SLEEP) as child:
        try:
            jobs.stop(record(tmp_path, psutil.Process(child.pid)))
            assert child.wait(10) < 0
        finally:
            child.kill()


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_training_that_could_not_be_seen_is_not_left_running(tmp_path, monkeypatch):
    started = []

    def start(*arguments: object, **options: object) -> subprocess.Popen:
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return started[0]

    monkeypatch.setattr(jobs, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": start}))
    monkeypatch.setattr(jobs, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        jobs.start(tmp_path, Config())
    assert started[0].returncode is not None
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_of_two_clicks_at_once_one_starts_a_training(tmp_path, monkeypatch):
    really, started = subprocess.Popen, []

    def start(*_: object, **__: object) -> subprocess.Popen:
        time.sleep(0.2)
        started.append(really(SLEEP))
        return started[-1]

    monkeypatch.setattr(jobs, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": start}))
    try:
        with ThreadPoolExecutor(2) as pool:
            clicks = [pool.submit(jobs.start, tmp_path, Config()) for _ in range(2)]
        refused = [error for click in clicks if (error := click.exception())]
        assert [str(error) for error in refused] == [
            "exactly this training is running already: change a setting, such as the seed"
        ]
        assert len(started) == 1
    finally:
        for child in started:
            child.kill()
            child.wait()


def test_it_imports_nothing_heavy():
    code = "import sys, trainer.jobs; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "mlflow", "streamlit", "pandas", "numpy"}.isdisjoint(done.stdout.split())


def test_a_store_that_exists_or_is_a_server_is_not_begun(workplace, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert not jobs.begin_store()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workplace}/there.db")
    (workplace / "there.db").touch()
    assert not jobs.begin_store()
    assert [path.name for path in workplace.iterdir()] == ["there.db"]


def test_a_store_that_cannot_be_begun_says_why(workplace, monkeypatch):
    done = subprocess.CompletedProcess([], 1, "", "a warning\nerror: there is no room on the disk\n")
    monkeypatch.setattr(jobs, "subprocess", SimpleNamespace(run=lambda *_, **__: done))
    with pytest.raises(ValueError, match=r"^there is no room on the disk$"):
        jobs.begin_store()


@pytest.mark.slow
def test_a_training_runs_by_itself_is_stopped_and_goes_on(workplace, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    store = open_store()
    folder = store.checkpoints.parent / "jobs"
    for minute in range(jobs.KEPT + 3):  # trainings of long ago
        record(folder, psutil.Process(), minute=minute, create_time=0.0)
    faces = str(write_grey_folder(workplace / "faces"))
    small = {"blocks": "8 16", "hidden": 16, "batch_size": 16, "data_dir": faces, "epochs": 60}
    config = Config(**(vars(recipe_defaults("fast", "cnn")) | small))
    job = jobs.start(folder, config)
    try:
        assert job.alive
        assert len(jobs.jobs(folder)) == jobs.KEPT
        assert len([path for path in folder.iterdir() if path.suffix in (".json", ".log")]) == 2 * jobs.KEPT
        assert os.getsid(job.pid) == job.pid  # a session of its own
        with pytest.raises(ValueError, match="exactly this training is running already"):
            jobs.start(folder, config)
        until(lambda: any(line.startswith("epoch   2/60") for line in job.tail(99)))
        job = jobs.jobs(folder)[0]
        assert job.run_id
        jobs.stop(job)
        assert jobs.jobs(folder)[0].stopping
        until(lambda: not jobs.jobs(folder)[0].alive, 30)
        until(lambda: jobs.jobs(folder) and not psutil.pid_exists(job.pid), 10)  # no zombie is left
        assert store.client().get_run(job.run_id).info.status == "KILLED"
        assert f"--resume {job.run_id}" in "\n".join(job.tail(3))

        job = jobs.resume(folder, job.run_id)
        assert job.run_id == jobs.jobs(folder)[1].run_id
        until(lambda: not jobs.jobs(folder)[0].alive)
        run = store.client().get_run(job.run_id)
        assert run.info.status == "FINISHED", job.tail(9)
        assert configuration(run.data.params) == config
        assert len(store.client().get_metric_history(job.run_id, "validation/loss")) == 60
    finally:
        for left in jobs.jobs(folder):
            if left.alive:
                psutil.Process(left.pid).kill()

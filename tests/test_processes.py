"""What only shows between processes: stopping and resuming, starting together, serving."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tests.extra.grey_faces import Trained, write_grey_folder
from trainer import jobs
from trainer.__main__ import main
from trainer.contract import Tag, metric_key
from trainer.store.bundled import FOLDER, RECORD_FILE
from trainer.store.location import open_store
from trainer.store.registry import find_version

pytestmark = pytest.mark.slow
TRAIN = [sys.executable, "-m", "trainer", "train"]
SMALL = ["--blocks", "8 16", "--hidden", "16", "--batch-size", "16", "--ema-decay", "0.9", "--mixup", "0.2"]


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [*TRAIN, *arguments], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=150)
    assert process.returncode == 0, output
    return output


def curve(run_id: str, name: str = "validation/loss") -> list[tuple[int, float]]:
    history = open_store(create=False).client().get_metric_history(run_id, name)
    return [(metric.step, metric.value) for metric in history]


def stop_after_epoch(process: subprocess.Popen[str], epoch: int, number: signal.Signals) -> str:
    """Sends the signal once that epoch is shown; returns the run's id."""
    assert process.stdout
    run_id = ""
    for line in process.stdout:
        if found := re.match(r"Run (\w+):", line):
            run_id = found[1]
        if re.match(rf"epoch +{epoch}/", line):
            break
    process.send_signal(number)
    return run_id


def test_a_stopped_run_keeps_its_best_weights_and_ends_as_if_it_had_not_been_stopped(workplace, capsys):
    faces = write_grey_folder(workplace / "faces")
    # Long enough that the signal finds it at work.
    flags = [*SMALL, "--data-dir", str(faces), "--epochs", "40"]
    process = start(*flags)
    run_id = stop_after_epoch(process, 3, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert f"--resume {run_id}" in output
    assert "Traceback" not in output
    store = open_store(create=False)
    run = store.client().get_run(run_id)
    assert run.info.status == "KILLED"
    assert run.data.tags[Tag.REASON] == "interrupted"
    kept = {Path(item.path).name for item in store.client().list_artifacts(run_id, "best")}
    assert kept == {"weights.safetensors", "model.json"}

    face = next((faces / "train" / "happy").iterdir())
    face.rename(workplace / face.name)
    assert main(["train", "--resume", run_id]) == 2
    assert "has other images than this run began with (train" in capsys.readouterr().err
    (workplace / face.name).rename(face)
    assert store.client().get_run(run_id).info.status == "KILLED"  # nothing is said of the run for a slip

    assert main(["train", "--resume", run_id]) == 0  # in this process, which started before the run did
    assert main(["train", *flags]) == 0
    resumed, whole = store.client().search_runs([run.info.experiment_id], order_by=["start_time ASC"])
    assert resumed.info.run_id == run_id
    assert resumed.info.status == "FINISHED"
    for name in ("validation/loss", "train/loss", "learning_rate"):
        assert curve(run_id, name) == curve(whole.info.run_id, name)
    for name in ("accuracy", "log_loss", "ece"):
        key = metric_key("test", name)
        assert resumed.data.metrics[key] == whole.data.metrics[key]
    energy = "energy/estimated_kwh"  # no meter saw all of it
    assert (energy in resumed.data.metrics, energy in whole.data.metrics) == (False, True)
    assert not (store.checkpoints / run_id).exists()


def test_two_trainings_that_start_together_on_a_new_store_both_succeed(workplace):
    faces = str(write_grey_folder(workplace / "faces"))
    processes = [start(*SMALL, "--data-dir", faces, "--epochs", "1", "--seed", seed) for seed in ("1", "2")]
    for process in processes:
        finish(process)
    versions = open_store(create=False).client().search_model_versions("name='fer2013-emotion'")
    assert sorted(int(version.version) for version in versions) == [1, 2]


@pytest.mark.timeout(120)
def test_mlflow_serves_a_registered_model_as_any_other(trained: Trained):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = open_store(create=False).uri
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as in an activated environment
    command = ["-m", "mlflow", "models", "serve", "-m", "models:/fer2013-emotion@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | {"MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1", "PATH": path},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        faces = np.full((3, 1, 48, 48), 250 / 255)
        answer = ask(f"http://127.0.0.1:{port}/invocations", {"inputs": faces.tolist()})
        probabilities = np.array(answer["predictions"])
        assert probabilities.shape == (3, 5)
        assert (probabilities.argmax(1) == 3).all()  # happy, the fourth of the sorted names
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


@pytest.mark.timeout(120)
def test_a_dashboard_without_a_store_begins_with_the_model_in_the_box(workplace):
    if not (FOLDER / RECORD_FILE).is_file():
        pytest.skip("no model is in the box")
    server = subprocess.Popen(
        [sys.executable, "-m", "dashboard", "--no-browser"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert server.stdout
        shown = [server.stdout.readline() for _ in range(2)]
    finally:
        server.terminate()
        server.wait(20)
    assert shown[0].startswith("A new store: the model that comes with the program is its first champion.")
    assert shown[1].startswith("Dashboard: http://127.0.0.1:")
    assert not jobs.begin_store()
    version = find_version(open_store(create=False), "fer2013-emotion@champion")
    assert (version.version, version.tags[Tag.BUNDLED]) == (1, "true")


def ask(url: str, body: dict) -> dict:
    """The answer of a server that may still be starting."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    deadline = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionError) or time.monotonic() > deadline:
                raise
        time.sleep(0.5)

"""Several processes that train together under torchrun: one result, one run, and a new start for one that dies."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from tests.extra.grey_faces import write_grey_folder
from trainer import torchrun
from trainer.config import Config
from trainer.store.location import open_store
from trainer.training.environment import make_fabric
from trainer.training.shares import Share

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
# Nothing is left out: augmentation, dropout, the average, Muon; 17 images cannot be halved, nor can the rest be.
FLAGS = ["--blocks", "8 16", "--hidden", "16", "--dropout", "0.3", "--batch-size", "17", "--ema-decay", "0.9"]
FLAGS += ["--learning-rate", "3e-3", "--precision", "32", "--device", "cpu"]


def start(processes: int, *arguments: str, restarts: int = 0) -> subprocess.Popen[str]:
    return begin(processes, "--data-dir", "faces", *FLAGS, *arguments, restarts=restarts)


def begin(processes: int, *arguments: str, restarts: int = 0) -> subprocess.Popen[str]:
    launcher = [sys.executable]
    if processes > 1:
        launcher = [*TORCHRUN, str(processes), "--standalone", "--max-restarts", str(restarts)]
    return subprocess.Popen(
        [*launcher, "-m", "trainer", "train", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    return output


def runs() -> list:
    store = open_store(create=False)
    found = store.client().search_runs([store.experiment_id("fer2013")], order_by=["attributes.start_time"])
    assert {run.info.status for run in found} == {"FINISHED"}
    return list(found)


def curves(run_id: str) -> dict[str, list[float]]:
    client = open_store(create=False).client()
    names = ("train/loss", "train/accuracy", "validation/loss", "validation/accuracy")
    found = {name: client.get_metric_history(run_id, name) for name in names}
    for metrics in found.values():
        assert [metric.step for metric in metrics] == list(range(1, len(metrics) + 1))
    return {name: [metric.value for metric in metrics] for name, metrics in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("mixup", ["0", "0.2"])
def test_two_processes_learn_what_one_learns_and_make_one_run_of_it(workplace, mixup):
    write_grey_folder(Path("faces"))
    finish(start(1, "--epochs", "3", "--mixup", mixup))
    output = finish(start(2, "--epochs", "3", "--mixup", mixup))
    assert len(re.findall(r"^epoch +1/3", output, re.MULTILINE)) == 1, output
    assert len(re.findall(r"^Run ", output, re.MULTILINE)) == 1
    one, two = runs()
    assert (one.data.params["processes"], two.data.params["processes"]) == ("1", "2")
    for name, expected in curves(one.info.run_id).items():
        # The same sums in another order; an image may fall to the other side of a tie.
        assert curves(two.info.run_id)[name] == pytest.approx(expected, abs=2e-3), name
    assert two.data.metrics["test/log_loss"] == pytest.approx(one.data.metrics["test/log_loss"], abs=5e-3)
    versions = open_store(create=False).client().search_model_versions("name = 'fer2013-emotion'")
    assert {version.run_id for version in versions} == {one.info.run_id, two.info.run_id}
    assert len(versions) == 2


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_that_is_killed_is_started_anew_and_the_run_goes_on(workplace, rank):
    write_grey_folder(Path("faces"))
    process = start(2, "--epochs", "40", restarts=1)
    assert process.stdout
    for line in process.stdout:
        if re.match(r"epoch +12/", line):  # after the first checkpoint, whatever the machine
            break
    for worker in psutil.Process(process.pid).children():
        if worker.environ().get("RANK") == rank:
            worker.send_signal(signal.SIGKILL)
    output = finish(process)
    assert re.search(r"Resuming after epoch \d+ of 40", output), output
    (run,) = runs()
    assert all(len(values) == 40 for values in curves(run.info.run_id).values())
    versions = open_store(create=False).client().search_model_versions("name = 'fer2013-emotion'")
    assert [version.run_id for version in versions] == [run.info.run_id]


@pytest.mark.slow
def test_ctrl_c_stops_all_processes_and_the_run_is_resumed_by_two_or_by_one(workplace):
    write_grey_folder(Path("faces"))
    for processes in (2, 1):
        stopped = start(2, "--epochs", "40")
        assert stopped.stdout
        for line in stopped.stdout:
            if re.match(r"epoch +12/", line):
                break
        os.killpg(stopped.pid, signal.SIGINT)
        output, _ = stopped.communicate(timeout=100)
        assert stopped.returncode != 0
        found = re.search(r"-m trainer train --resume (\w{32})", output)
        assert found, output
        assert open_store(create=False).client().get_run(found[1]).info.status == "KILLED"
        resumed = finish(begin(processes, "--resume", found[1]))
        assert re.search(r"Resuming after epoch \d+ of 40", resumed), resumed
        # By one process epochs come to slightly other figures than those that two had logged, and are logged anew.
        losses = open_store(create=False).client().get_metric_history(found[1], "validation/loss")
        steps = [metric.step for metric in losses]
        assert (sorted(steps) if processes == 2 else sorted({*steps})) == list(range(1, 41))
    assert len(runs()) == 2


@pytest.mark.parametrize("whole", [1, 2, 7, 64])
def test_shares_are_the_batch_in_its_order_and_differ_by_one_image_at_most(whole):
    parts = [Share(rank, 3).take(whole) for rank in range(3)]
    assert [index for part in parts for index in range(whole)[part]] == list(range(whole))
    sizes = [len(range(whole)[part]) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_the_mean_of_what_the_shares_give_is_the_mean_of_the_batch():
    losses = torch.rand(7, generator=torch.Generator().manual_seed(0))
    shares = [Share(rank, 3) for rank in range(3)]
    means = [share.mean(losses[share.take(7)]) for share in shares]
    torch.testing.assert_close(torch.stack(means).mean(), losses.mean())


def launch(
    monkeypatch: pytest.MonkeyPatch, *, name: str = "job", restarts: int = 0, processes: int = 1
) -> None:
    values = {
        "TORCHELASTIC_RUN_ID": name, "TORCHELASTIC_RESTART_COUNT": restarts, "RANK": 0, "WORLD_SIZE": processes,
        "LOCAL_WORLD_SIZE": processes,
    }  # fmt: skip
    for key, value in values.items():
        monkeypatch.setenv(key, str(value))


def test_a_batch_that_is_smaller_than_the_number_of_processes_is_refused(monkeypatch):
    launch(monkeypatch, processes=8)
    with pytest.raises(ValueError, match=r"^--batch-size 4: must not lie below the number of processes, 8$"):
        make_fabric(Config(batch_size=4, device="cpu"))


AS_LAUNCHED = (
    "import sys, pathlib; from trainer.torchrun import Launch; it = Launch(pathlib.Path(sys.argv[1])); "
)
BELOW_ANOTHER = (sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:], check=True)")


def as_launched(folder: Path, code: str, *, parent: tuple[str, ...] = ()) -> str:
    """What a process prints that this one has started, as torchrun does, or that `parent` has."""
    command = [*parent, sys.executable, "-c", AS_LAUNCHED + code, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_only_what_the_same_torchrun_has_started_anew_goes_on_with_its_run(monkeypatch, tmp_path):
    launch(monkeypatch)  # how often is not asked: of several machines, only one counts
    (tmp_path / "a1").mkdir()
    recall = "print(it.recall())"
    assert as_launched(tmp_path, recall) == "None"
    as_launched(tmp_path, "it.remember('a1')")
    assert as_launched(tmp_path, recall) == "a1"
    assert as_launched(tmp_path, recall, parent=BELOW_ANOTHER) == "None"
    assert as_launched(tmp_path, recall) == "a1", "another one takes nothing away"
    (tmp_path / "a1").rmdir()
    assert as_launched(tmp_path, recall) == "a1", "its run has finished: no other is begun"
    assert as_launched(tmp_path, recall, parent=BELOW_ANOTHER) == "None"
    assert not list((tmp_path / "launches").glob("*.run")), "and somebody else clears up after it"


def test_a_process_that_trains_twice_does_not_go_on_with_its_first_run(monkeypatch, tmp_path):
    launch(monkeypatch)
    torchrun.Launch(tmp_path).remember("a1")
    (tmp_path / "launches" / "other.run").touch()  # as a power cut may leave it
    assert torchrun.Launch(tmp_path).recall() is None

"""`predict` into a folder: what it holds, how it goes on, what it refuses."""

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from filelock import FileLock
from PIL import Image

from tests.extra.drawn_photos import encoded, scene
from tests.extra.tiny_model import write_tiny_model
from trainer.__main__ import main
from trainer.commands import bulk
from trainer.commands.bulk import Meter

COUNT = 120
"""Three chunks."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model and crops, of which one is broken."""
    monkeypatch.chdir(tmp_path)
    write_tiny_model(tmp_path / "model")
    write_crops(tmp_path / "crops", COUNT)
    spoil(tmp_path / "crops/0007.png")
    return tmp_path


def write_crops(folder: Path, count: int) -> None:
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(min(count, 20)):
        Image.fromarray(generator.integers(0, 256, (48, 48), np.uint8)).save(folder / f"{number:04}.png")
    for number in range(20, count):
        (folder / f"{number:04}.png").hardlink_to(folder / f"{number % 20:04}.png")


def spoil(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()  # it has links
    path.write_bytes(data[:60])


def predict(*arguments: str) -> int:
    return main(["predict", "model", *arguments])


def parts(folder: str = "answers") -> dict[str, int]:
    """Name → when it was written."""
    return {path.name: path.stat().st_mtime_ns for path in Path(folder).glob("part-*")}


def table(folder: str = "answers") -> pd.DataFrame:
    return pd.read_parquet(folder)


def test_a_folder_holds_what_a_file_holds_and_the_failures(place, capsys):
    photos = place / "photos"
    photos.mkdir()
    (photos / "two.jpg").write_bytes(encoded(scene([(60, 60), (560, 300)])))
    (photos / "sky.png").write_bytes(encoded(Image.new("RGB", (300, 200), "skyblue"), "PNG"))
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert predict("photos", "--output", "answers.parquet") == 1
    capsys.readouterr()
    assert predict("photos", "--output", "answers/") == 1
    shown = capsys.readouterr()
    assert "answers holds 2 answers to 3 photos, 2 of which failed" in shown.out
    assert shown.err == ""
    found, wanted = table(), pd.read_parquet("answers.parquet")
    answered = found[found["failure"].isna()]
    assert list(answered["index"]) == [2, 2]
    pd.testing.assert_frame_equal(
        answered[wanted.columns].reset_index(drop=True), wanted, check_dtype=False, check_column_type=False
    )
    reasons = found.set_index("photo")["failure"].dropna()
    assert list(reasons.index) == ["photos/broken.jpg", "photos/sky.png"]
    assert reasons["photos/sky.png"].startswith("no face was found")


def test_a_finished_command_says_so_and_asks_nothing_again(place, capsys):
    assert predict("crops", "--whole", "--output", "answers") == 1
    before = parts()
    assert len(before) == 3
    assert list(table()["index"]) == list(range(COUNT))
    capsys.readouterr()
    assert predict("crops", "--whole", "--output", "answers") == 1
    assert "Everything is answered already." in capsys.readouterr().out
    assert predict("--whole", "--output", "answers", "--json") == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["photos"], facts["answers"], facts["failed"]) == (COUNT, COUNT - 1, 1)
    assert facts["photos_this_time"] == 0
    assert parts() == before


def test_a_models_folder_is_the_same_with_a_slash_at_its_end(place):
    assert main(["predict", "model", "crops", "--whole", "--output", "answers"]) == 1
    before = parts()
    assert main(["predict", "model/", "crops", "--whole", "--output", "answers"]) == 1
    assert parts() == before


def test_parts_that_are_missing_or_damaged_are_answered_anew_and_no_other(place):
    predict("crops", "--whole", "--output", "answers")
    before, whole = parts(), table()
    (place / "answers/part-000000.parquet").unlink()
    (place / "answers/part-000002.parquet").write_bytes(b"PAR1")
    predict("crops", "--whole", "--output", "answers")
    pd.testing.assert_frame_equal(table(), whole)
    assert {name for name, when in parts().items() if before[name] == when} == {"part-000001.parquet"}


def test_photos_that_came_later_are_answered_and_what_is_gone_is_told(place, caplog):
    predict("crops", "--whole", "--output", "answers")
    before = table()
    (place / "answers/part-000001.parquet").unlink()
    (place / "crops/0060.png").unlink()  # to be answered again, and gone
    (place / "crops/0001.png").unlink()  # answered before it went
    shutil.copy("crops/0002.png", "crops/0100-new.png")
    assert predict("crops", "crops/0002.png", "--whole", "--output", "answers") == 1
    assert "70 of 121 photos are answered already." in caplog.text
    now = table()
    assert list(now["index"]) == list(range(COUNT + 1))
    assert now["photo"].iloc[-1] == "crops/0100-new.png"
    assert now.loc[60, "failure"] == "the file cannot be read: No such file or directory"
    kept = [index for index in range(COUNT) if index != 60]
    pd.testing.assert_frame_equal(now.loc[kept], before.loc[kept])


def test_a_chunk_of_which_nothing_is_there_is_asked_for_again_when_it_is(place, caplog, capsys, monkeypatch):
    predict("crops", "--whole", "--output", "answers")
    whole = table()
    (place / "answers/part-000001.parquet").unlink()
    with monkeypatch.context() as elsewhere:
        (place / "other").mkdir()
        elsewhere.chdir(place / "other")
        assert main(["predict", "../model", "--whole", "--output", "../answers"]) == 2  # another model's name
        (place / "other/model").symlink_to(place / "model")
        capsys.readouterr()
        assert main(["predict", "model", "--whole", "--output", "../answers"]) == 1
    assert "passed over: of 50 photos from crops/0050.png on none is there" in caplog.text
    told = capsys.readouterr().out
    assert "Not there, and still to be answered by the same command: 50 photos." in told
    assert "already" not in told
    assert not (place / "answers/part-000001.parquet").exists()
    assert predict("--whole", "--output", "answers") == 1  # one is broken
    pd.testing.assert_frame_equal(table(), whole)


@pytest.mark.parametrize(
    "reason", ["since the disk of crops/0063.png is away: the file cannot be read", "on none is there"]
)
def test_a_chunk_whose_disk_goes_away_is_asked_for_again(place, caplog, capsys, monkeypatch, reason):
    predict("crops", "--whole", "--output", "whole")
    read = Path.read_bytes

    def away(path: Path) -> bytes:
        if path.name == "0063.png":
            if "none" not in reason:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            Path("crops").rename("elsewhere")
        return read(path)

    with monkeypatch.context() as gone:
        gone.setattr(Path, "read_bytes", away)
        assert predict("crops", "--whole", "--output", "answers") == 1
    assert "50 photos from crops/0050.png" in caplog.text
    assert reason in caplog.text
    assert "Not there, and still to be answered by the same command: " in capsys.readouterr().out
    assert "part-000001.parquet" not in parts()
    if Path("elsewhere").exists():
        Path("elsewhere").rename("crops")
    predict("crops", "--whole", "--output", "answers")
    pd.testing.assert_frame_equal(table(), table("whole"))


def test_what_does_not_belong_together_is_refused_and_nothing_is_changed(place, capsys, monkeypatch):
    predict("crops", "--whole", "--output", "answers")
    before = parts()
    capsys.readouterr()

    def refuses(message: str, *arguments: str, model: str = "model") -> None:
        assert main(["predict", model, "crops", *arguments]) == 2
        shown = capsys.readouterr()
        assert message in shown.err
        assert shown.out == ""

    refuses("answers was begun with --whole", "--output", "answers")
    write_tiny_model(place / "other")
    refuses("holds answers of model, not of other", "--whole", "--output", "answers", model="other")
    refuses("holds answers of model, not of model, other", "--output", "answers/", model="model,other")
    write_tiny_model(place / "model", seed=1)
    refuses("holds answers of model as it was before it changed", "--whole", "--output", "answers")
    with FileLock("answers/_lock"):
        refuses("another command is writing answers into answers", "--whole", "--output", "answers")
    assert parts() == before
    refuses("crops has other files in it", "--output", "crops")
    refuses("--annotate goes with a table", "--output", "new/", "--annotate", "seen")
    refuses("there is no model.json in answers", "--output", "new/", model="answers")
    assert not (place / "new").exists()
    for name, value in {"TORCHELASTIC_RUN_ID": "a", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    refuses("several processes write their answers into a folder")


def test_a_list_names_photos_from_a_file_or_another_program(place, capsys):
    Path("list").write_text("crops/0003.png\ncrops/0001.png\n")
    assert predict("--from", "list", "--whole", "--output", "answers") == 0
    assert list(table()["photo"]) == ["crops/0003.png", "crops/0001.png"]
    assert predict("--from", "list", "--whole", "--json") == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["predictions"]
    assert [row["photo"] for row in found] == ["crops/0003.png", "crops/0001.png"]


MANY = 3000


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_killed_then_gone_on_with_by_two_processes_of_which_one_is_killed_it_gives_the_same_table(place):
    write_crops(place / "many", MANY)
    spoil(place / "many/2900.png")
    predict("many", "--whole", "--output", "wanted")
    command = ["-m", "trainer", "predict", "model", "many", "--whole", "--output", "answers", "--json"]
    alone = start(*command)
    wait_for_parts(3, alone)
    alone.kill()
    alone.wait()
    kept = parts()
    assert 3 <= len(kept) < MANY // 50
    two = start(
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1", *command
    )
    wait_for_parts(len(kept) + 4, two)
    (second,) = (p for p in psutil.Process(two.pid).children() if p.environ().get("RANK") == "1")
    second.kill()
    output, error = two.communicate(timeout=120)
    assert two.returncode == 0, error
    facts = json.loads(output)
    assert (facts["photos"], facts["answers"], facts["failed"]) == (MANY, MANY - 1, 1)
    assert facts["photos_this_time"] < MANY - 50 * len(kept), "the second start begins where the first ended"
    assert "closing signal" in error  # the second was at work when it was killed
    pd.testing.assert_frame_equal(table(), table("wanted"))
    assert kept.items() <= parts().items(), "what was answered is not asked again"


def start(*command: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *command], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for_parts(count: int, process: subprocess.Popen[str]) -> None:
    while len(parts()) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_keeps_what_is_answered(place):
    write_crops(place / "many", MANY)
    process = start("-m", "trainer", "predict", "model", "many", "--whole", "--output", "answers")
    wait_for_parts(2, process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert bulk.STOPPED in error
    assert "Traceback" not in error
    kept = parts()
    assert predict("many", "--whole", "--output", "answers") == 0
    assert list(table()["index"]) == list(range(MANY))
    assert kept.items() <= parts().items()


@pytest.mark.slow
def test_many_crops_get_the_same_answers_from_the_faster_form_of_the_network(place, monkeypatch):
    predict("crops", "--whole", "--output", "slow")
    monkeypatch.setattr(bulk, "MANY", COUNT)
    predict("crops", "--whole", "--output", "fast")
    pd.testing.assert_frame_equal(table("fast"), table("slow"), rtol=0, atol=1e-5)


def test_the_meter_waits_for_the_first_photo_before_it_says_how_long_is_left(monkeypatch, caplog):
    meter = Meter(60)
    monkeypatch.setattr("trainer.commands.bulk.LINE_SECONDS", 0)
    with caplog.at_level(logging.INFO):
        meter.set(0)
        assert not caplog.messages
        meter.set(30)
    assert len(caplog.messages) == 1

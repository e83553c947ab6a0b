"""Commands whose outputs find no room: nothing half-written, nothing lost that was there or was found out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.extra.grey_faces import GREY_LEVELS, Trained, write_grey_folder
from tests.extra.small_files import small_files
from tests.extra.tiny_model import write_tiny_model
from trainer.__main__ import main
from trainer.config import Config
from trainer.contract import CONFIG_FILE
from trainer.evaluation.audit import Audit
from trainer.store.backup import back_up, restore
from trainer.store.location import StoreError, open_store
from trainer.store.reader import Reader
from trainer.training.checkpoint import Checkpoint


@pytest.fixture
def model(workplace: Path) -> Path:
    """For which there need be no store; beside it are two images that are faces as a whole."""
    (workplace / "faces").mkdir()
    for name in ("happy", "sad"):
        Image.fromarray(np.full((48, 48), GREY_LEVELS[name], np.uint8)).save(f"faces/{name}.png")
    return write_tiny_model(workplace / "model")


@pytest.mark.slow
def test_an_export_leaves_the_files_of_an_earlier_one(model: Path, capsys):
    earlier = [Path(f"exported/model{suffix}") for suffix in (".onnx", ".int8.onnx")]
    earlier[0].parent.mkdir()
    for file in earlier:
        file.write_text("of yesterday")
    with small_files(1000):
        assert main(["export", str(model), "--output", "exported"]) == 2
    assert "error: [Errno 27] File too large" in capsys.readouterr().err
    assert [file.read_text() for file in earlier] == ["of yesterday"] * 2
    assert sorted(earlier[0].parent.iterdir()) == sorted(earlier)


def test_answers_are_shown_although_their_file_cannot_be_written(model: Path, capsys):
    with small_files(100):
        arguments = ["--whole", "--json", "--output", "written/answers.csv"]
        assert main(["predict", str(model), "faces", *arguments]) == 1
    shown = capsys.readouterr()
    assert [row["photo"] for row in json.loads(shown.out)["predictions"]] == [
        "faces/happy.png",
        "faces/sad.png",
    ]
    assert shown.err == "error: not written: [Errno 27] File too large: 'written/answers.csv'\n"
    assert not list(Path("written").iterdir())


def test_answers_are_written_although_pictures_cannot_be(model: Path, capsys):
    arguments = ["--whole", "--output", "answers.csv", "--annotate", "drawn"]
    with small_files(1000):
        assert main(["predict", str(model), "faces", *arguments]) == 1
    told = capsys.readouterr().err
    assert told == "error: not written: [Errno 27] File too large: 'drawn/happy.jpg' (and 1 more)\n"
    assert len(Path("answers.csv").read_text().splitlines()) == 3
    assert not list(Path("drawn").iterdir())


def test_an_audit_that_finds_no_room_is_kept_in_the_store(trained_copy: Trained, capsys, monkeypatch):
    def full(audit: Audit) -> str:
        raise OSError(28, "No space left on device")

    from trainer.store.audits import report_html

    reports = iter([full, report_html])  # the second for the store
    monkeypatch.setattr("trainer.store.audits.report_html", lambda audit: next(reports)(audit))
    flags = ["--data-dir", str(trained_copy.data_dir), "--faces", "0", "--output", "written"]
    assert main(["audit", *flags]) == 2
    told = capsys.readouterr().err
    assert "No space left on device: 'written/" in told
    audit = Reader(open_store(create=False)).snapshot().audits[0]
    assert told.endswith(f"the report is only in the store, as run {audit.run_id}\n")
    assert not list(Path("written").iterdir())


def test_a_contact_sheet_is_whole_or_not_there(workplace, capsys):
    write_grey_folder(workplace / "faces", train=1, test=1)
    with small_files(1_000):
        assert main(["data", "grey", "--data-dir", "faces", "--contact-sheet", "sheet.png"]) == 2
    assert "File too large: 'sheet.png'" in capsys.readouterr().err
    assert not Path("sheet.png").exists()


def test_a_picture_that_nobody_can_write_is_told_before_the_images_are_loaded(workplace, capsys):
    assert main(["data", "nothing", "--contact-sheet", "sheet.xyz"]) == 2
    assert (
        "--contact-sheet sheet.xyz: the name must end in .png, .jpg or what else" in capsys.readouterr().err
    )


def test_a_restore_that_finds_no_room_leaves_none_of_it_and_can_be_repeated(trained: Trained, tmp_path):
    back_up(open_store(create=False), file := tmp_path / "store.tar")
    database = tmp_path / "new" / "mlflow.db"
    with small_files(100_000), pytest.raises(StoreError, match=r"cannot be made from .* File too large"):
        restore(file, database)
    assert {path.name for path in database.parent.iterdir()} <= {".store.lock"}
    assert restore(file, database).versions == 2


def test_a_restore_that_ends_between_two_parts_takes_the_first_one_back(
    trained: Trained, tmp_path, monkeypatch
):
    back_up(open_store(create=False), file := tmp_path / "store.tar")
    database = tmp_path / "new" / "mlflow.db"
    really = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if path.parent.name.startswith(".restoring-") and path.name == "mlflow.db":
            raise KeyboardInterrupt
        return really(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            restore(file, database)
    assert {path.name for path in database.parent.iterdir()} <= {".store.lock"}
    assert restore(file, database).versions == 2


def test_a_checkpoint_that_finds_no_room_leaves_the_one_before_and_says_how_much_there_is(tmp_path):
    with Checkpoint(tmp_path, "run") as checkpoint:
        checkpoint.save({"train": "0"}, {"epoch": torch.zeros(10)})
        with (
            small_files(3_000),
            pytest.raises(OSError, match=r"state\.pt cannot be written, where .* MB are free: "),
        ):
            checkpoint.save({"train": "1"}, {"epoch": torch.zeros(1000)})
        assert checkpoint.load()[0] == {"train": "0"}
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["state.pt"]


def test_a_configuration_that_finds_no_room_leaves_the_one_before(tmp_path):
    with Checkpoint(tmp_path, "run") as checkpoint:
        checkpoint.keep(Config())
        before = (checkpoint.folder / CONFIG_FILE).read_text()
        with small_files(10), pytest.raises(OSError, match="File too large"):
            checkpoint.keep(Config(seed=1))
        with small_files(0):
            checkpoint.keep(Config())  # as it is
        assert [path.name for path in checkpoint.folder.iterdir()] == [CONFIG_FILE]
        assert (checkpoint.folder / CONFIG_FILE).read_text() == before


def test_a_backup_that_finds_no_room_is_not_there(trained: Trained, tmp_path):
    with small_files(100_000), pytest.raises(StoreError, match=r"store\.tar is not written: "):
        back_up(open_store(create=False), tmp_path / "store.tar")
    assert not list(tmp_path.iterdir())

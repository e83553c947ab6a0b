"""Images of one's own have a name, and what is made of them has it too."""

import json
from pathlib import Path

import pytest

from tests.extra.grey_faces import write_grey_folder
from trainer.__main__ import main
from trainer.contract import CHAMPION, Tag
from trainer.store.location import open_store
from trainer.store.reader import Reader
from trainer.store.registry import all_versions, find_version

FLAGS = [
    *(
        "--architecture",
        "cnn",
        "--blocks",
        "4 8",
        "--hidden",
        "16",
        "--image-size",
        "32",
        "--optimizer",
        "adamw",
    ),
    *("--batch-size", "16", "--epochs", "1", "--learning-rate", "3e-3", "--augmentation", "0"),
]


@pytest.fixture
def faces(stocked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Their folder; one model has learned them, from the folder above."""
    write_grey_folder(stocked / "faces")
    assert main(["train", "--dataset", "office", "--data-dir", "faces", *FLAGS]) == 0
    return stocked / "faces"


def test_a_model_of_own_images_is_the_first_of_its_name_and_its_images_are_found_again(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = open_store()
    [version] = all_versions(store)
    assert (version.name, version.version, version.aliases) == ("office-emotion", 1, (CHAMPION,))
    assert version.tags[Tag.DATASET] == "office"
    [row] = Reader(store).snapshot().runs.to_dict("records")
    assert (row["dataset"], row["experiment"], row["test_images"]) == ("office", "office", 40)
    capsys.readouterr()

    assert main(["evaluate", "office-emotion@champion", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["source"], found["test"]["images"]) == (str(faces), 40)
    assert main(["evaluate", "office-emotion@champion", "--log"]) == 0
    assert find_version(store, "office-emotion/1").tags[Tag.TESTED_AT]
    capsys.readouterr()
    assert main(["export", "office-emotion@champion", "--json", "--output", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out)["int8"]["test_images"] == 40
    assert (
        main(["audit", "--dataset", "office", "--data-dir", "faces", "--faces", "0", "--output", "found"])
        == 0
    )
    assert "python -m trainer train --dataset office --data-dir faces" in capsys.readouterr().out
    [audit] = Reader(store).snapshot().audits
    assert audit.dataset == "office"


def test_images_that_have_moved_are_asked_for(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    faces.rename(faces.with_name("elsewhere"))
    capsys.readouterr()
    assert main(["evaluate", "office-emotion/1"]) == 2
    assert (
        "there is no dataset 'office': choose one of fer2013, sketch, or give --data-dir"
        in capsys.readouterr().err
    )
    assert main(["evaluate", "office-emotion/1", "--data-dir", "elsewhere", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == "elsewhere"
    assert main(["export", "office-emotion/1", "--output", str(tmp_path / "out")]) == 0
    assert "No 8-bit file" in (shown := " ".join(capsys.readouterr().out.split()))
    assert shown.count("--data-dir") == 1


def test_models_of_several_datasets_are_measured_on_one_that_is_named(
    faces: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["train", "--dataset", "home", "--data-dir", "faces", *FLAGS]) == 0
    capsys.readouterr()
    both = "office-emotion/1,home-emotion/1"
    assert main(["evaluate", both]) == 2
    assert "these models are of home, office: name one with --dataset" in capsys.readouterr().err
    assert main(["evaluate", both, "--dataset", "home", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test"]["images"] == 40

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


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


@pytest.fixture
def faces(stocked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Their folder; one model has learned them, from the folder above."""
    write_grey_folder(stocked / "faces")
    assert main(["train", "--dataset", "office", "--data-dir", "faces", *FLAGS]) == 0
    return stocked / "faces"


@pytest.mark.slow
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


@pytest.mark.slow
def test_images_that_have_moved_are_asked_for_and_found_again(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    elsewhere = faces.rename(faces.with_name("elsewhere"))
    capsys.readouterr()
    gone = f"the images of office are not at {faces} any more: --data-dir says where they are"
    for flags in ([], ["--log"]):
        assert main(["evaluate", "office-emotion/1", *flags]) == 2
        assert gone in capsys.readouterr().err
    assert main(["export", "office-emotion/1", "--output", str(tmp_path / "out")]) == 0
    assert f"No 8-bit file: its scales come from training images, and {gone}" in said(capsys)
    assert main(["evaluate", "office-emotion/1", "--data-dir", "elsewhere", "--log"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "office-emotion/1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == str(elsewhere)


@pytest.mark.slow
def test_other_images_at_the_same_place_are_said_to_be_others(
    faces: Path, capsys: pytest.CaptureFixture[str]
):
    caveat = "The run of models:/office-emotion/1 was tested on other images"
    assert main(["evaluate", "office-emotion/1"]) == 0
    assert caveat not in said(capsys)
    for part, aside in (("train", "aside"), ("test", "train"), ("aside", "test")):
        (faces / part).rename(faces / aside)
    assert main(["evaluate", "office-emotion/1"]) == 0
    assert caveat in said(capsys)
    assert main(["evaluate", "office-emotion/1", "--json"]) == 0
    assert caveat in json.loads(capsys.readouterr().out)["caveats"][0]


@pytest.mark.slow
def test_answers_and_lists_of_another_dataset_are_refused(faces: Path, capsys: pytest.CaptureFixture[str]):
    """Its images may have the same names."""
    home = ["--dataset", "home", "--data-dir", "faces"]
    audit = ["audit", "--faces", "0", "--output", "found"]
    assert main([*audit, *home, "--model", "office-emotion/1"]) == 2
    assert (
        "--model office-emotion/1: the run answered images of office, not of home" in capsys.readouterr().err
    )
    assert main([*audit, "--dataset", "office", "--data-dir", "faces", "--drop", "duplicate", "blank"]) == 0
    listed = next((faces / "train" / "sad").iterdir())
    with Path("found/exclude.txt").open("a") as file:
        file.write(f"train/sad/{listed.name}\n")
    assert main(["train", *home, *FLAGS, "--exclude", "found/exclude.txt"]) == 2
    assert "found/exclude.txt lists images of office, not of home" in capsys.readouterr().err


def test_a_slip_in_a_path_leaves_nothing_behind(workplace: Path, capsys: pytest.CaptureFixture[str]):
    for command in ("quickstart", "audit", "train"):
        assert main([command, "--dataset", "office", "--data-dir", "~nobody-here/faces"]) == 2
        assert "no images of office at" in capsys.readouterr().err
    assert main(["train", "--dataset", "office", "--data-dir="]) == 2
    assert "nothing is given to --data-dir" in capsys.readouterr().err
    assert not list(workplace.iterdir())


@pytest.mark.slow
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


@pytest.mark.slow
def test_models_that_learned_at_several_places_are_measured_at_one_that_is_named(
    faces: Path, capsys: pytest.CaptureFixture[str]
):
    write_grey_folder(faces.with_name("more"), test=4)
    assert main(["train", "--dataset", "office", "--data-dir", "more", *FLAGS]) == 0
    capsys.readouterr()
    both = "office-emotion/1,office-emotion/2"
    assert main(["evaluate", both]) == 2
    assert "the runs of these models found office at several places" in capsys.readouterr().err
    assert main(["evaluate", both, "--data-dir", "more", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["test"]["images"] == 20
    assert [caveat.split()[3] for caveat in found["caveats"]] == ["models:/office-emotion/1"]

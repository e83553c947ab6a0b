"""Images of the user's own, under a name that they give."""

import re
from pathlib import Path

import pytest

from tests.extra.small_fer2013 import BOTH, CLASSES, random_faces, write_folder, write_zip
from trainer.data import DATASETS, dataset_source, name_mistake, still_at

pytestmark = pytest.mark.usefixtures("cwd")


def test_images_of_any_name_are_a_dataset_of_that_name(tmp_path: Path) -> None:
    faces = random_faces()
    for path in (write_folder(tmp_path / "faces", faces), write_zip(tmp_path / "faces.zip", faces)):
        dataset = dataset_source("office-2").load(path, BOTH)
        assert (dataset.name, dataset.source, dataset.class_names) == ("office-2", str(path), CLASSES)
    assert dataset_source("office-2").group("test/sad/PublicTest_1.png") is None


def test_the_same_images_have_the_name_that_they_are_asked_for_by(tmp_path: Path) -> None:
    """Also where the cache has them under another one."""
    folder = write_folder(tmp_path / "faces", random_faces())
    assert [dataset_source(name).load(folder, BOTH).name for name in ("office", "home")] == ["office", "home"]


def test_a_tilde_in_the_path_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "faces", random_faces())
    assert dataset_source("office").load(Path("~/faces"), BOTH).source == str(tmp_path / "faces")


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_a_class_has_one_name_however_a_system_writes_its_accents(tmp_path: Path, write) -> None:
    names, faces = {"angry": "fro\u0308hlich", "happy": "müde"}, random_faces()
    decomposed = {
        re.sub("angry|happy", lambda match: names[match[0]], path): file for path, file in faces.items()
    }
    dataset = dataset_source("office").load(write(tmp_path / "faces.zip", decomposed), BOTH)
    assert {"fröhlich", "müde"} < set(dataset.class_names)
    counts = dataset.parts["train"].class_counts(len(dataset.class_names))
    assert counts[dataset.class_names.index("fröhlich")] == sum(
        name.startswith("train/angry/") for name in faces
    )


def test_images_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no images of office at .*/nowhere: the path does not exist"
    ):
        dataset_source("office").load(tmp_path / "nowhere", BOTH)


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("", "'' cannot name a dataset"),
        ("my faces", "cannot name a dataset: take letters, digits, - and _, 40 at most"),
        ("../faces", "cannot name a dataset"),
        ("a/b", "cannot name a dataset"),
        ("-faces", "cannot name a dataset"),
        ("faces\n", "cannot name a dataset"),
        ("f" * 41, "cannot name a dataset"),
        ("FER2013", "there is no dataset 'FER2013': write fer2013"),
        ("office-audit", "experiments of other ones end with -audit"),
        ("office-sweeps", "experiments of other ones end with -sweeps"),
    ],
)
def test_what_cannot_name_a_dataset_is_refused(name: str, mistake: str) -> None:
    assert mistake in (name_mistake(name, "faces") or "")
    with pytest.raises(ValueError, match="dataset"):
        dataset_source(name)


def test_a_name_without_a_place_is_taken_for_a_slip() -> None:
    mistake = name_mistake("fer2031", None) or ""
    assert "choose one of fer2013, sketch, or give --data-dir" in mistake
    with pytest.raises(ValueError, match="there is no dataset 'fer2031'"):
        dataset_source("fer2031").load(None, BOTH)
    for name in ("fer2031", "Büro_2", "Bu\u0308ro", "1", "лица", "कार्यालय", "f" * 40):
        assert name_mistake(name, "faces") is None
    assert [name_mistake(name, None) for name in DATASETS] == [None, None]


def test_images_that_a_run_has_found_are_there_still_or_in_their_usual_place_or_gone(tmp_path: Path) -> None:
    assert [still_at(name, str(tmp_path)) for name in ("fer2013", "office")] == [str(tmp_path)] * 2
    assert [still_at("fer2013", place) for place in (None, "", f"{tmp_path}/gone", "a\0b")] == [None] * 4
    assert still_at("office", None) is None
    with pytest.raises(
        FileNotFoundError, match=r"images of office are not at .*/gone any more: --data-dir says"
    ):
        still_at("office", f"{tmp_path}/gone")

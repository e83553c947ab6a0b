"""An audit by command: what it writes and keeps, and a training that leaves out what it lists."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.extra.grey_faces import ARCHITECTURE_FLAGS, Trained, write_grey_folder
from tests.extra.same_store import assert_same
from trainer.__main__ import main
from trainer.contract import AUDIT_FACTS, AUDIT_LIST, AUDIT_REPORT, AUDIT_TABLE
from trainer.store.location import open_store
from trainer.store.reader import Reader
from trainer.store.rows import ClientRows

BLANK, TWIN = "train/angry/Training_blank.png", "train/happy/Training_twin.png"
TWINNED = "train/sad/Training_0.png"


def soil(faces: Path) -> Path:
    """A blank image, and a copy of a sad one among the happy ones."""
    Image.fromarray(np.full((48, 48), 200, np.uint8)).save(faces / BLANK)
    ramp = np.linspace(0, 255, 48 * 48).reshape(48, 48).astype(np.uint8)
    for name in (TWIN, TWINNED):
        Image.fromarray(ramp).save(faces / name)
    return faces


def listed(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def test_where_an_audit_cannot_be_written_is_known_before_it_begins(workplace, capsys, monkeypatch):
    monkeypatch.setattr("trainer.inspection.inspect", lambda *_, **__: pytest.fail("it began"))
    Path("taken").write_text("a file")
    assert main(["audit", "--dataset", "sketch", "--output", "taken"]) == 2
    assert "taken" in capsys.readouterr().err


def test_an_audit_is_written_kept_in_the_store_and_no_run_of_a_training(trained: Trained, tmp_path, capsys):
    faces = soil(Path(shutil.copytree(trained.data_dir, tmp_path / "faces")))
    reader = Reader(open_store(create=False))
    before = reader.snapshot()
    flags = ["--data-dir", str(faces), "--model", "fer2013-emotion/1", "--output", str(tmp_path / "audit")]
    assert main(["audit", *flags, "--faces", "5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sentence"].startswith(
        "fer2013 has 1 pair of near-duplicates, 100% of them with different labels"
    )
    assert told["counts"]["train"]["angry"] == 25
    assert (told["faces_looked_at"], told["labels_judged"]) == (5, 52)
    assert sorted(path.name for path in (tmp_path / "audit").iterdir()) == sorted(
        (AUDIT_FACTS, AUDIT_LIST, AUDIT_REPORT, AUDIT_TABLE)
    )
    table = pd.read_csv(tmp_path / "audit" / AUDIT_TABLE).query("finding in ('twin', 'blank')")
    assert BLANK in table["sample_id"].tolist()
    assert {BLANK, TWIN, TWINNED} <= set(listed(tmp_path / "audit" / AUDIT_LIST))

    after = reader.snapshot()
    through_mlflow = Reader(reader.store)
    through_mlflow._rows = ClientRows(reader.store.client())
    assert_same(reader, through_mlflow)
    assert list(after.runs.index) == list(before.runs.index)
    [kept] = [run for run in after.audits if run not in before.audits]
    assert kept.dataset == "fer2013"
    audit = reader.audit(kept.run_id)
    assert audit.facts == {name: value for name, value in told.items() if name != "sentence"}
    assert {BLANK, TWIN, TWINNED} <= set(audit.thumbnails)
    assert audit.of("twin")[["sample_id", "other_sample_id"]].to_numpy().tolist() == [[TWIN, TWINNED]]


def test_an_audit_says_where_the_answers_are_to_images_that_have_changed_since(
    trained: Trained, tmp_path, capsys
):
    faces = Path(shutil.copytree(trained.data_dir, tmp_path / "faces"))
    flags = ["--model", "fer2013-emotion/1,fer2013-emotion/2", "--faces", "0", "--json"]
    by = []
    for _ in range(2):
        assert main(["audit", "--data-dir", str(faces), *flags, "--output", str(tmp_path / "audit")]) == 0
        by.append(json.loads(capsys.readouterr().out)["labels_by"])
        Image.fromarray(np.full((48, 48), 9, np.uint8)).save(next((faces / "test/sad").iterdir()))
    assert by[0] == "fer2013-emotion/1,fer2013-emotion/2, of which these are validation and test images"
    assert by[1] == f"{by[0]}, matched by name, since some of these have changed since then or are not here"


@pytest.mark.slow
def test_a_training_leaves_out_what_a_list_names_and_says_so(stocked, caplog):
    faces = write_grey_folder(stocked / "faces", train=12, test=4)
    names = [f"train/{name}/Training_{index}.png" for name in ("angry", "sad") for index in range(4)]
    (stocked / "drop.txt").write_text("\n".join([*names, "test/sad/PublicTest_0.png"]))
    flags = ["--data-dir", str(faces), *ARCHITECTURE_FLAGS["cnn"], "--epochs", "1"]
    with caplog.at_level(logging.INFO):
        assert main(["train", *flags, "--exclude", "drop.txt"]) == 0
    [said] = [record.message for record in caplog.records if record.message.startswith("Trained without")]
    store = open_store(create=False)
    snapshot = Reader(store).snapshot()
    params = snapshot.params[snapshot.runs.index[0]]
    removed = 54 - int(params["train_images"])
    assert 4 <= removed <= 8  # the rest of them are in validation
    assert params["excluded_images"] == str(removed)
    assert params["validation_images"] == "6"
    assert params["excluded_digest"] in said
    assert f"{9 - removed} more of its ids are in validation or test" in said
    assert f"Trained without {removed} images of drop.txt (digest {params['excluded_digest']})." in (
        snapshot.versions[0].description
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audit", "--folds", "1"], "--folds 1: must be 0, or lie between 2 and 20"),
        (["audit", "--folds", "4", "--model", "x/1"], "--folds and --model both judge the labels"),
        (["audit", "--faces", "-1"], "--faces -1: must be 0 or more"),
        (["audit", "--dataset", "faces"], "there is no dataset 'faces'"),
        (["audit", "--model", "nobody", "--data-dir", "{faces}"], "there is no run 'nobody'"),
        (["audit", "--folds", "20", "--data-dir", "{small}"], "--folds 20: a class has only 5 images"),
        (["train", "--exclude", "none.txt"], "/none.txt: there is no such file"),
        (["train", "--exclude", "odd.txt", "--data-dir", "{faces}"], "that the dataset does not have: train/9"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_clear_line(trained: Trained, tmp_path, monkeypatch, capsys, arguments, message):
    small = write_grey_folder(tmp_path / "small", train=4, test=1)
    (tmp_path / "odd.txt").write_text("train/9\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{trained.root / 'mlruns' / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    places = {"{faces}": str(trained.data_dir), "{small}": str(small)}
    assert main([places.get(word, word) for word in arguments]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]

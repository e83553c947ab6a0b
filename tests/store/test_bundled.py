"""The model in the box: kept from one store, it begins another, whole."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.extra.grey_faces import Trained
from trainer.__main__ import main
from trainer.contract import CHAMPION, ELSEWHERE, PREDICTIONS_FILE, Tag
from trainer.jobs import _is_empty
from trainer.store.bundled import ARTIFACTS, FOLDER, RECORD_FILE, install, keep
from trainer.store.location import StoreError, open_store
from trainer.store.models import load_bundle
from trainer.store.reader import Reader
from trainer.store.registry import Version, find_version
from trainer.store.writer import RunWriter


@pytest.fixture
def kept(trained: Trained, tmp_path, monkeypatch, empty_database):
    """(folder of a kept version, its run as the reader shows it, the version's answers), and an empty store."""
    store = open_store(create=False)
    version = find_version(store, "fer2013-emotion/1")
    keep(store, version, tmp_path / "box")
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 48, 48), dtype=np.uint8)
    answers = load_bundle(version)(images)
    run = Reader(store).snapshot().runs.loc[version.run_id]
    (tmp_path / "mlruns").mkdir()
    shutil.copyfile(empty_database, tmp_path / "mlruns" / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it when a store is opened
    return tmp_path / "box", run, (images, answers)


def test_a_kept_run_begins_a_new_store_with_all_that_is_known_of_it(kept):
    folder, before, (images, answers) = kept
    store = open_store()
    assert install(store, folder)
    version = find_version(store, "fer2013-emotion/1")
    assert version.aliases == (CHAMPION,)
    assert version.tags[Tag.BUNDLED] == "true"
    assert np.array_equal(load_bundle(version)(images), answers)
    assert version.description.startswith("# fer2013-emotion")
    assert (folder / "README.md").read_text().endswith(f"{version.description}\n")
    reader = Reader(store)
    snapshot = reader.snapshot()
    after = snapshot.runs.loc[version.run_id]
    assert after["status"] == "finished"
    assert after["name"] == "bundled-cnn"
    for column in ("dataset", "architecture", "test_accuracy", "test_macro_recall", "curve", "recalls",
                   "test_fingerprint", "best_epoch", "epochs", "training_seconds", "seconds"):  # fmt: skip
        assert after[column] == before[column], column
    assert (reader.predictions(version.run_id)["part"] == "test").sum() == 40
    curve = reader.histories([version.run_id], ["validation/accuracy"])
    assert curve["value"].tolist() == after["curve"]
    assert curve["seconds"].is_monotonic_increasing


@pytest.mark.slow
def test_a_store_in_which_something_was_trained_is_left_alone(kept, trained):
    folder, *_ = kept
    store = open_store()
    assert install(store, folder)
    assert not install(store, folder)
    store.client().delete_registered_model("fer2013-emotion")
    for run in store.client().search_runs([store.experiment_id("fer2013")]):
        store.client().delete_run(run.info.run_id)
    assert not install(store, folder)


def test_without_a_model_in_the_box_a_store_begins_empty(stocked):
    assert not install(open_store(), stocked / "nothing")


def test_no_image_of_the_data_is_kept(kept):
    folder, *_ = kept
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "record.json", "weights.safetensors", "model.json", "config.json", "predictions.parquet",
        "confusion_test.json", "confusion_test.png", "learning_curves.png", "robustness.parquet", "conditions.parquet",
    }  # fmt: skip
    record = json.loads((folder / RECORD_FILE).read_text())
    assert not any(key.startswith(("mlflow.", "system/", "host", "pid")) for key in record["tags"])
    assert str(folder.parent) not in json.dumps(record)


def test_a_version_without_a_run_cannot_be_kept(trained: Trained, tmp_path):
    version = Version("fer2013-emotion", 9, "0" * 32, (), {})
    with pytest.raises(StoreError, match="fer2013-emotion/9 has no run in this store"):
        keep(open_store(create=False), version, tmp_path)


def test_what_no_training_has_registered_leaves_what_was_kept_before(trained: Trained, tmp_path):
    store = open_store(create=False)
    version = find_version(store, "fer2013-emotion/1")
    keep(store, version, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = find_version(store, "fer2013-emotion/2")
    for broken in (dataclasses.replace(other, tags={}), dataclasses.replace(other, version=9)):
        with pytest.raises(StoreError):
            keep(store, broken, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_attempt_that_was_stopped_before_its_last_step_is_ended(kept, monkeypatch):
    folder, before, _ = kept
    store = open_store()
    with monkeypatch.context() as patch:
        patch.setattr("trainer.store.outbox.crown_first", interrupted)
        with pytest.raises(KeyboardInterrupt):
            install(store, folder)
    assert find_version(store, "fer2013-emotion/1").aliases == ()
    assert _is_empty(Path("mlruns/mlflow.db"))  # a dashboard that starts has it ended
    assert install(store, folder)
    assert not _is_empty(Path("mlruns/mlflow.db"))
    version = find_version(store, "fer2013-emotion@champion")
    after = Reader(store).snapshot().runs.loc[version.run_id]
    assert (version.version, after["status"], after["seconds"]) == (1, "finished", before["seconds"])
    store.client().delete_registered_model_alias("fer2013-emotion", CHAMPION)
    assert not install(store, folder)  # whoever takes the alias away has a reason


def test_the_command_begins_a_store_once(workplace, capsys, monkeypatch):
    if not (FOLDER / RECORD_FILE).is_file():
        pytest.skip("no model is in the box")

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found")  # as in a container that runs with any user's number

    monkeypatch.setattr("getpass.getuser", nobody)
    assert main(["bundled"]) == 0
    assert main(["bundled"]) == 0
    assert "Registered the model" in (shown := capsys.readouterr().out)
    assert shown.endswith("Nothing to do: the store is not empty.\n")
    assert find_version(open_store(create=False), "fer2013-emotion@champion").version == 1


def test_what_comes_with_the_program_is_small_and_answers_as_its_predictions_say(fer2013):
    if not (FOLDER / RECORD_FILE).is_file():
        pytest.skip("no model is in the box")
    assert (FOLDER / "weights.safetensors").stat().st_size <= 4_000_000
    assert all(p.stat().st_size <= 1_000_000 for p in FOLDER.iterdir() if p.name != "weights.safetensors")
    import pandas as pd

    from trainer.data import dataset_source
    from trainer.inference.predictor import Predictor

    predictor = Predictor.load(FOLDER)
    test = dataset_source("fer2013").load(fer2013, ("test",)).parts["test"]
    table = pd.read_parquet(FOLDER / PREDICTIONS_FILE.rpartition("/")[2]).query("part == 'test'")
    table = table.set_index("sample_id").loc[list(test.sample_ids[::60])]
    found = predictor(test.images[::60])
    expected = table[[f"p_{name}" for name in predictor.class_names]].to_numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
def test_an_attempt_that_was_interrupted_is_made_again(kept, monkeypatch):
    folder, *_ = kept
    store = open_store()
    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "register", interrupted)
        with pytest.raises(KeyboardInterrupt):
            install(store, folder)
    assert _is_empty(Path("mlruns/mlflow.db"))
    assert install(store, folder)
    assert not _is_empty(Path("mlruns/mlflow.db"))
    [run] = store.client().search_runs([store.experiment_id("fer2013")])
    assert (run.info.status, find_version(store, "fer2013-emotion@champion").version) == ("FINISHED", 1)
    assert not install(store, folder)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_cannot_be_registered_leaves_no_run_that_seems_to_go_on(kept):
    folder, *_ = kept
    (folder / "weights.safetensors").write_bytes(b"")
    store = open_store()
    with pytest.raises(ValueError, match=r"weights\.safetensors"):
        install(store, folder)
    [run] = store.client().search_runs([store.experiment_id("fer2013")])
    assert run.info.status == "FAILED"
    assert not store.client().search_registered_models()


def test_what_is_kept_replaces_all_that_was_kept_before(trained: Trained, tmp_path):
    store = open_store(create=False)
    version = find_version(store, "fer2013-emotion/1")
    for path in ARTIFACTS:
        (tmp_path / Path(path).name).write_text("of the one before")
    keep(store, version, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.read_bytes() == b"of the one before"]


def test_the_teachers_of_the_model_in_the_box_are_not_looked_for_in_the_store():
    record = json.loads((FOLDER / RECORD_FILE).read_text())
    assert record["params"]["teacher"].startswith(ELSEWHERE)

"""The embedded store in one file: whole, or refused."""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import mlflow
import optuna
import pytest

from tests.extra.grey_faces import Trained
from tests.extra.odd_runs import make_run
from tests.extra.own_store import own_store
from tests.extra.stored_files import stored_files
from trainer.__main__ import main
from trainer.store.backup import back_up, restore, verify
from trainer.store.location import Store, StoreError, embedded_uri, open_store
from trainer.store.reader import Reader
from trainer.training.sweep import open_storage


def rewritten(source: Path, target: Path, change) -> Path:
    """The archive with other members: `change(name, content)` returns new ones."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            content = old.extractfile(member).read()
            for info, data in change(member, content):
                info.size = len(data)
                new.addfile(info, io.BytesIO(data))
    return target


def test_a_restored_store_holds_the_same_and_its_models_load(trained: Trained, tmp_path, monkeypatch, capsys):
    from trainer.inference.predictor import Predictor

    before = Reader(open_store(create=False)).snapshot()
    assert main(["backup", str(tmp_path / "store.tar")]) == 0
    assert " runs, 2 versions" in capsys.readouterr().out
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it where a store is opened
    assert main(["restore", str(tmp_path / "store.tar")]) == 0
    store = open_store(create=False)
    after = Reader(store).snapshot()
    assert after.runs.drop(columns="is_local").equals(before.runs.drop(columns="is_local"))
    assert after.versions == before.versions
    for version in after.versions:
        folder = stored_files(version)
        assert folder.is_relative_to(tmp_path)
        Predictor.load(folder)
    assert main(["restore", str(tmp_path / "store.tar")]) == 2
    assert "holds a store already (mlflow.db, " in capsys.readouterr().err


@pytest.fixture
def saved(trained: Trained, tmp_path) -> Path:
    back_up(open_store(create=False), file := tmp_path / "store.tar")
    return file


def test_a_backup_of_a_store_that_is_being_written_is_restored_at_once_where_the_old_one_is_gone(
    stocked, tmp_path, monkeypatch
):
    store = open_store(create=False)
    run_id = make_run(store.client(), store.experiment_id("sketch"), status=None)
    back_up(store, file := tmp_path / "store.tar")
    (stocked / "mlruns").rename(tmp_path / "gone")  # as on another machine
    (new := tmp_path / "new").mkdir()
    (new / ".making-mlflow.db").touch()  # a first start was stopped there
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{new}/mlflow.db")
    assert main(["restore", str(file)]) == 0
    assert open_store(create=False).client().get_run(run_id).info.artifact_uri.startswith(f"{new}/artifacts/")


def test_a_store_is_not_made_beside_the_log_of_a_database_that_is_gone(saved: Path, tmp_path: Path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mlflow.db-wal").touch()
    with pytest.raises(StoreError, match=r"holds a store already \(mlflow\.db-wal\)"):
        restore(saved, tmp_path / "new" / "mlflow.db")
    assert [path.name for path in (tmp_path / "new").iterdir() if path.name != ".store.lock"] == [
        "mlflow.db-wal"
    ]


def test_the_studies_of_sweeps_are_restored_and_never_replaced(stocked, tmp_path: Path):
    store = open_store(create=False)
    back_up(store, old := tmp_path / "old.tar")  # as all were before studies were copied
    study = optuna.create_study(storage=open_storage(store, 60), study_name="lr")
    study.add_trial(optuna.trial.create_trial(value=0.5))
    back_up(store, file := tmp_path / "store.tar")
    restore(file, tmp_path / "new" / "mlflow.db")
    restored = open_store(create=False, uri=f"sqlite:///{tmp_path}/new/mlflow.db")
    found = optuna.load_study(storage=open_storage(restored, 60), study_name="lr")
    assert [trial.value for trial in found.trials] == [0.5]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sweeps.db").write_bytes(b"mine")
    with pytest.raises(StoreError, match=r"holds a store already \(sweeps\.db\)"):
        restore(file, tmp_path / "mine" / "mlflow.db")
    assert not (tmp_path / "mine" / "mlflow.db").exists()
    restore(old, tmp_path / "mine" / "mlflow.db")
    assert (tmp_path / "mine" / "sweeps.db").read_bytes() == b"mine"


def test_files_of_any_name_are_saved_and_links_to_files_as_what_they_lead_to(stocked, tmp_path, caplog):
    store = open_store()
    run = store.client().get_run(make_run(store.client(), store.experiment_id("x")))
    folder = Path(run.info.artifact_uri, "model")
    folder.mkdir(parents=True)
    for name in ("uv.lock", "weights.new"):
        (folder / name).write_text(name)
    (tmp_path / "elsewhere.bin").write_text("far")
    (folder / "far.bin").symlink_to(tmp_path / "elsewhere.bin")
    (folder / "lost").symlink_to(tmp_path / "nothing")
    store.checkpoints.mkdir()
    (store.checkpoints / "x.lock").touch()
    back_up(store, file := tmp_path / "store.tar")
    restore(file, tmp_path / "new" / "mlflow.db")
    restored = {path.name: path.read_text() for path in (tmp_path / "new").rglob("model/*")}
    assert restored == {"uv.lock": "uv.lock", "weights.new": "weights.new", "far.bin": "far"}
    assert f"{folder}/lost is a link to a folder, or to nothing: it is not in the backup." in caplog.text
    assert not list((tmp_path / "new").rglob("x.lock"))


def test_a_version_is_looked_for_where_it_lies(stocked, other: Store, tmp_path: Path):
    store = open_store(uri=embedded_uri())
    client = store.client()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "MLmodel").write_text("flavors: {}")
    run_id = make_run(client, store.experiment_id("x"))
    client.create_registered_model("faces")
    for path in ("model", "models/best"):
        client.log_artifacts(run_id, tmp_path / "m", path)
        client.create_model_version("faces", f"runs:/{run_id}/{path}", run_id)
        mlflow.register_model(f"runs:/{run_id}/{path}", "faces")  # MLflow keeps the whole path of this one
    assert back_up(store, tmp_path / "own.tar").elsewhere == ()
    folder = other.artifact_root / "models" / "m-0" / "artifacts"
    folder.mkdir(parents=True)
    client.create_model_version("faces", str(folder))
    assert back_up(store, tmp_path / "other.tar").elsewhere == ("faces/5",)


def test_files_that_plain_mlflow_logged_are_saved_and_runs_that_keep_theirs_elsewhere_are_named(
    workplace, tmp_path: Path, monkeypatch, capsys
):
    (tmp_path / "plain").mkdir()
    monkeypatch.chdir(tmp_path / "plain")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/plain/mlflow.db")
    client = open_store().client()
    # As a plain MLflow that opens the database in this folder makes them.
    inside = client.create_experiment("inside", f"{tmp_path}/plain/mlruns/1")
    outside = client.create_experiment("outside", f"{tmp_path}/plain/mlruns/../../far")
    run_id = make_run(client, inside)
    client.log_text(run_id, "kept", "a.txt")
    far = make_run(client, outside)
    Path("mlruns", "other.txt").write_text("somebody else's")
    assert main(["backup", "store.tar"]) == 0
    assert (
        f"In other folders, which are not in it, lie the files of 1 of the runs: {far}\n"
        in capsys.readouterr().out
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/new/mlflow.db")
    assert main(["restore", "store.tar"]) == 0
    restored = open_store(create=False).client().get_run(run_id).info.artifact_uri
    assert restored == f"{tmp_path}/new/mlruns/1/{run_id}/artifacts"
    assert Path(restored, "a.txt").read_text() == "kept"
    assert not (tmp_path / "new" / "mlruns" / "other.txt").exists()
    (tmp_path / "taken" / "mlruns").mkdir(parents=True)
    (tmp_path / "taken" / "mlruns" / "mine").touch()
    with pytest.raises(StoreError, match=r"holds a store already \(mlruns\)"):
        restore(Path("store.tar"), tmp_path / "taken" / "mlflow.db")


def test_a_version_whose_files_the_store_has_lost_keeps_nothing_else_from_being_saved(
    trained_once: Trained, workplace, tmp_path: Path, monkeypatch, capsys
):
    own_store(trained_once)
    [first, *_] = sorted(Path("mlruns/artifacts/models").iterdir())
    shutil.rmtree(first)
    assert main(["backup", "store.tar"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "not all there any more" in line]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/new/mlflow.db")
    assert main(["restore", "store.tar"]) == 0
    gone = verify(Path("store.tar")).gone[0]
    assert line == f"The files of {gone} are not all there any more: it was copied as it is."
    assert f"The files of {gone} were not all there any more when" in capsys.readouterr().out


def test_a_list_of_lost_versions_that_is_none_is_refused(saved: Path, tmp_path: Path):
    def change(member, content):
        if member.name == "backup.json":
            content = json.dumps(json.loads(content) | {"gone": None}).encode()
        return [(member, content)]

    with pytest.raises(StoreError, match="its list of lost versions is none"):
        verify(rewritten(saved, tmp_path / "made-up.tar", change))


@pytest.mark.parametrize("facts", ["[1]", '"x"', '{"format": 1}', '{"format": 1, "files": []}', "{}"])
def test_a_made_up_list_is_no_list(tmp_path: Path, facts: str):
    with tarfile.open(tmp_path / "store.tar", "w") as archive:
        info = tarfile.TarInfo("backup.json")
        info.size = len(facts)
        archive.addfile(info, io.BytesIO(facts.encode()))
    with pytest.raises(StoreError, match="its list of files is missing"):
        restore(tmp_path / "store.tar", tmp_path / "new" / "mlflow.db")


def test_an_address_that_cannot_be_used_is_told_before_anything_is_restored(
    saved: Path, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/q?x/mlflow.db")
    assert main(["restore", str(saved)]) == 2
    assert "cannot be used" in capsys.readouterr().err
    assert not list(tmp_path.glob("q*"))


def test_a_folder_that_may_not_be_listed_makes_no_backup(stocked, tmp_path, monkeypatch):
    run_id = make_run(open_store().client(), open_store().experiment_id("x"), "one")
    open_store().client().log_text(run_id, "of somebody else", "secret/a.txt")
    listed = os.scandir

    def refuse(path):
        if not isinstance(path, int) and Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises((OSError, StoreError), match="Permission denied"):
        back_up(open_store(), tmp_path / "store.tar")
    assert not (tmp_path / "store.tar").exists()


def test_a_file_with_two_names_is_saved_under_both(stocked, tmp_path: Path):
    store = open_store()
    run = store.client().get_run(make_run(store.client(), store.experiment_id("x")))
    folder = Path(run.info.artifact_uri)
    folder.mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"x" * 1000)
    (folder / "b.bin").hardlink_to(folder / "a.bin")
    back_up(store, file := tmp_path / "store.tar")
    restore(file, tmp_path / "new" / "mlflow.db")
    assert [path.stat().st_size for path in (tmp_path / "new").rglob("?.bin")] == [1000, 1000]


def test_a_file_is_never_overwritten_and_none_is_left_half(saved: Path, trained: Trained):
    with pytest.raises(StoreError, match="exists already"):
        back_up(open_store(create=False), saved)
    with pytest.raises(StoreError, match="is not written"):
        back_up(open_store(create=False), saved.parent / "missing" / "store.tar")
    assert [path.name for path in saved.parent.iterdir()] == ["store.tar"]


def wrong_bit(member, content):
    if member.name.endswith("weights.safetensors"):
        content = content[:-1] + bytes([content[-1] ^ 1])
    return [(member, content)]


def without_weights(member, content):
    return [] if member.name.endswith("weights.safetensors") else [(member, content)]


def way_out(member, content):
    return [(member, content), (tarfile.TarInfo("artifacts/../../evil"), b"x")]


def link(member, content):
    info = tarfile.TarInfo("artifacts/link")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return [(member, content), (info, b"")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (wrong_bit, "is damaged: .*weights.safetensors is not what was backed up"),
        (without_weights, "is damaged"),
        (way_out, "does not belong into a backup"),
        (link, "does not belong into a backup"),
        (
            lambda member, content: [] if member.name == "backup.json" else [(member, content)],
            "list of files is missing",
        ),
    ],
)
def test_a_backup_that_is_not_whole_makes_no_store(saved: Path, tmp_path, change, reason: str):
    other = rewritten(saved, tmp_path / "other.tar", change)
    with pytest.raises(StoreError, match=reason):
        verify(other)
    with pytest.raises(StoreError, match=reason):
        restore(other, tmp_path / "new" / "mlflow.db")
    assert [path.name for path in (tmp_path / "new").iterdir()] == [".store.lock"]
    assert not list(tmp_path.rglob("evil"))


def test_a_half_file_and_another_one_are_refused(saved: Path, tmp_path):
    Path(tmp_path, "half.tar").write_bytes(saved.read_bytes()[:5000])
    Path(tmp_path, "text.tar").write_text("hello")
    for name in ("half.tar", "text.tar", "none.tar"):
        with pytest.raises(StoreError, match="is no whole backup"):
            verify(tmp_path / name)

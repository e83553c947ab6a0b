"""The store is opened safely: made once, found again after a move, and refused with a reason."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from sqlalchemy.exc import OperationalError

from tests.extra.grey_faces import Trained
from tests.extra.odd_runs import make_run
from tests.extra.servers import postgres_programs, start_postgres
from tests.extra.stored_files import stored_files
from trainer.__main__ import main
from trainer.store.location import Store, StoreError, embedded_uri, open_store, reason, store_uri
from trainer.store.registry import find_version


def test_a_new_store_is_in_wal_mode_and_inside_mlruns(workplace):
    store = open_store()
    assert store.uri == f"sqlite:///{workplace}/mlruns/mlflow.db"
    with sqlite3.connect(workplace / "mlruns/mlflow.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    experiment = store.client().get_experiment(store.experiment_id("sketch"))
    assert experiment.artifact_location == f"{workplace}/mlruns/artifacts"


@pytest.mark.slow
def test_a_store_whose_making_was_stopped_is_made_anew(workplace, monkeypatch):
    def half(*_: object, **__: object) -> None:
        with closing(sqlite3.connect(workplace / "mlruns/mlflow.db")) as connection:
            connection.execute("DROP TABLE alembic_version")  # MLflow would make all tables again, and fail
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr("mlflow.MlflowClient.search_experiments", half)
        with pytest.raises(KeyboardInterrupt):
            open_store()
    with pytest.raises(StoreError, match="no tracking store"):
        open_store(create=False)
    store = open_store()
    assert store.client().get_experiment(store.experiment_id("sketch"))
    assert open_store(create=False) == store  # not once more
    assert find_all(workplace / "mlruns/mlflow.db") == {"Default", "sketch"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_is_killed_while_it_makes_a_store_leaves_none_that_is_broken(workplace, number):
    code = "from trainer.store.location import open_store; open_store().experiment_id('sketch')"
    # Where these tests run in the background SIGINT may be ignored, and a child would do so, too.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    first = subprocess.Popen([sys.executable, "-c", heed + code], stderr=subprocess.DEVNULL)
    database = workplace / "mlruns/mlflow.db"
    while not (database.exists() and database.stat().st_size > 100_000):  # some of its tables
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(number)
    first.wait(60)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert find_all(database) == {"Default", "sketch"}


def test_a_mark_that_stayed_behind_deletes_no_store_with_runs(stocked):
    store = open_store()
    run_id = make_run(store.client(), store.experiment_id("sketch"))
    (stocked / "mlruns/.making-mlflow.db").touch()  # as a copy made at that moment brings it
    assert open_store(create=False).client().get_run(run_id)
    assert not (stocked / "mlruns/.making-mlflow.db").exists()


def test_reading_makes_no_store(workplace):
    with pytest.raises(StoreError, match=r"no tracking store .* yet: `make train` makes one"):
        open_store(create=False)
    assert not (workplace / "mlruns").exists()


@pytest.mark.slow
def test_a_store_that_was_deleted_or_replaced_meanwhile_is_opened_anew(workplace, other):
    first = open_store(uri=embedded_uri())
    first.experiment_id("first")
    shutil.rmtree(workplace / "mlruns")
    second = open_store()
    assert second.client().get_experiment_by_name("first") is None
    second.experiment_id("second")
    assert find_all(workplace / "mlruns/mlflow.db") == {"Default", "second"}
    other.experiment_id("third")
    shutil.rmtree(workplace / "mlruns")
    shutil.move(workplace / "other", workplace / "mlruns")
    third = open_store()
    assert third.client().get_experiment_by_name("second") is None
    third.client().create_registered_model("faces")
    third.experiment_id("fourth")
    assert find_all(workplace / "mlruns/mlflow.db") == {"Default", "third", "fourth"}
    assert find_all(workplace / "mlruns/mlflow.db", "registered_models") == {"faces"}


def find_all(database: Path, table: str = "experiments") -> set[str]:
    """What is in the file that lies there, whoever holds on to another."""
    with closing(sqlite3.connect(database)) as connection:
        return {name for (name,) in connection.execute(f"SELECT name FROM {table}")}


def test_a_deleted_experiment_is_restored_when_it_is_trained_in_again(new_store):
    store = open_store()
    before = store.experiment_id("sketch")
    store.client().delete_experiment(before)
    assert store.experiment_id("sketch") == before
    assert store.client().get_experiment(before).lifecycle_stage == "active"


@pytest.mark.parametrize("uri", ["/some/folder", "file:///some/folder", "gopher://host"])
def test_a_uri_of_another_kind_is_refused(workplace, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(StoreError, match="must be the address of an MLflow server"):
        open_store()


def test_a_file_that_is_no_database_is_refused_in_one_line(workplace, monkeypatch):
    path = workplace / "notes.db"
    path.write_text("not a database " * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    with pytest.raises(StoreError, match="cannot be opened"):
        open_store()
    assert path.read_text().startswith("not a database")


@pytest.mark.parametrize("name", ["my%20project", "what?"])
def test_a_folder_that_mlflow_would_take_for_another_is_refused_and_nothing_is_made(
    workplace, monkeypatch, capsys, name
):
    (workplace / name).mkdir()
    monkeypatch.chdir(workplace / name)
    for arguments in (["runs"], ["train", "--dataset", "sketch"]):
        assert main(arguments) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert f"{name}/mlruns/mlflow.db cannot be used" in line
    assert list((workplace / name).iterdir()) == []


def test_what_sqlalchemy_makes_of_a_store_is_told_in_one_line(stocked, monkeypatch):
    def fail(*arguments: object, **options: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("disk I/O error"))

    monkeypatch.setattr("trainer.store.location.MlflowClient.search_experiments", fail)
    with pytest.raises(StoreError, match=r"cannot be opened: .*disk I/O error"):
        open_store()


def test_a_server_that_is_down_is_named_at_once(workplace, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(
        StoreError, match=r"http://127.0.0.1:9 .*does not answer.*: nothing listens at 127.0.0.1:9$"
    ):
        open_store()


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("postgresql://ann:s3c/ret@127.0.0.1:9/x", "Connection refused"),
        ("postgresql+psycopg2://ann:s3cret@127.0.0.1:9/x", "Connection refused"),
        ("postgresql+nothing://ann:s3cret@127.0.0.1/x", "Can't load plugin"),
        ("mysql+pymysql://ann:s3cret@127.0.0.1/x", "its driver is not installed (No module named 'pymysql')"),
        ("postgresql://ann:s3cret@127.0.0.1:s3c:1/x", "is no address of a database"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_at_once(workplace, monkeypatch, capsys, uri, reason):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert main(["runs"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert reason in line
    assert "s3c" not in line


@pytest.mark.slow
def test_a_database_without_a_server_is_a_store(workplace, monkeypatch, capsys):
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    postgres = start_postgres()
    try:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.uri())  # as a user writes it, without a driver
        store = open_store()
        assert store.artifact_root is None
        assert store.experiment_id("sketch") == store.experiment_id("sketch")
        assert main(["ui", "--no-browser"]) == 2
        assert "which has no UI" in capsys.readouterr().err
    finally:
        postgres.process.send_signal(signal.SIGINT)
        postgres.process.wait(30)
        shutil.rmtree(postgres.folder, ignore_errors=True)


@pytest.mark.parametrize("has_display", [True, False])
@pytest.mark.parametrize("uri", ["postgresql+psycopg2://ann:s3cret@host/x", "http://127.0.0.1:5000"])
def test_only_a_server_is_opened_in_the_browser_and_only_on_a_screen(
    workplace, monkeypatch, capsys, uri, has_display
):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0" if has_display else "")
    monkeypatch.setenv("WAYLAND_DISPLAY", "")
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("trainer.store.location.open_store", lambda: Store(uri, None))
    is_server = uri.startswith("http")
    assert main(["ui"]) == (0 if is_server else 2)
    shown = capsys.readouterr()
    assert opened == ([uri] if is_server and has_display else [])
    if not is_server:
        [line] = shown.err.splitlines()
        assert "start a server on it (`make server`)" in line
        assert "s3cret" not in line


@pytest.mark.slow
def test_processes_that_open_a_new_store_together_all_succeed(workplace):
    code = "from trainer.store.location import open_store; print(open_store().experiment_id('sketch'))"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    answers = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(set(answers)) == 1


def test_a_moved_project_keeps_its_artifacts(trained_copy: Trained, tmp_path, caplog, capsys):
    store = open_store(create=False)
    assert f"{tmp_path}/mlruns; its artifact paths were set right" in caplog.text
    version = find_version(store, "fer2013-emotion@champion")
    assert stored_files(version).is_relative_to(tmp_path)
    run = store.client().get_run(version.run_id)
    assert run.info.artifact_uri.startswith(str(tmp_path))
    assert store.client().list_artifacts(version.run_id, "evaluation")
    assert (
        main(
            [
                "predict",
                "fer2013-emotion@champion",
                str(next(trained_copy.data_dir.rglob("*.png"))),
                "--whole",
            ]
        )
        == 0
    )
    caplog.clear()
    open_store(create=False)
    assert "set right" not in caplog.text


@pytest.mark.parametrize("kept", ["", "mlruns", "\n"])
def test_a_store_that_does_not_remember_where_it_was_keeps_its_paths(stocked, kept: str):
    store = open_store()
    before = store.client().get_experiment(store.experiment_id("sketch")).artifact_location
    (stocked / "mlruns/.location").write_text(kept)  # as a power cut leaves it
    assert open_store().client().get_experiment_by_name("sketch").artifact_location == before
    assert (stocked / "mlruns/.location").read_text() == f"{stocked}/mlruns\n"


def test_a_store_that_was_copied_without_its_hidden_files_keeps_its_artifacts(stocked, tmp_path, caplog):
    store = open_store()
    client, text = store.client(), "sure"
    run_id = make_run(client, store.experiment_id("sketch"))
    client.log_text(run_id, text, "note.txt")
    (tmp_path / "new").mkdir()
    for path in (stocked / "mlruns").glob("[!.]*"):  # as `cp -r mlruns/* new/` does
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, tmp_path / "new" / path.name)
    new = open_store(uri=f"sqlite:///{tmp_path}/new/mlflow.db")
    assert f"from {stocked}/mlruns to {tmp_path}/new; its artifact paths were set right" in caplog.text
    assert new.client().get_run(run_id).info.artifact_uri.startswith(f"{tmp_path}/new/artifacts/")
    assert new.client().get_experiment_by_name("sketch").artifact_location == f"{tmp_path}/new/artifacts"


def test_a_store_that_is_being_written_by_another_path_keeps_its_paths(stocked, tmp_path, monkeypatch):
    client = open_store().client()
    run_id = make_run(client, open_store().experiment_id("sketch"), status=None)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", stocked / "mlruns", copy], check=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mount").symlink_to(stocked / "mlruns")  # as another place where the same disk is mounted
    with pytest.raises(
        StoreError, match=rf"a run is being written .* as {stocked}/mlruns, and here it is {tmp_path}"
    ):
        open_store(uri=f"sqlite:///{tmp_path}/mount/mlflow.db")
    assert open_store(uri=f"sqlite:///{copy}/mlflow.db")  # what is a copy is set right
    client.set_terminated(run_id)
    assert open_store(uri=f"sqlite:///{tmp_path}/mount/mlflow.db")


def test_a_folder_that_somebody_chose_for_artifacts_is_not_taken_for_the_stores(stocked):
    client = open_store().client()
    client.create_experiment("mine", artifact_location="/srv/faces/artifacts")
    (stocked / "mlruns/.location").unlink()
    assert open_store().client().get_experiment_by_name("mine").artifact_location == "/srv/faces/artifacts"


def test_a_broken_file_of_credentials_hides_no_other_error(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow/credentials").write_text("[mlflow]\nmlflow_tracking_password = 50%off%x\n")
    assert reason(OSError("disk full")) == "disk full"
    refused = MlflowException("no", error_code=PERMISSION_DENIED)
    assert "may not do that on this server" in reason(refused)
    (tmp_path / ".mlflow/credentials").write_text(
        "[mlflow]\nmlflow_tracking_username = ann\nmlflow_tracking_password = x\n"
    )
    assert "the account 'ann' may not do that" in reason(refused)


def test_an_address_that_was_copied_from_a_page_is_taken_without_the_pages_mark(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http:\u2060//127.0.0.1:5000")
    assert store_uri() == "http://127.0.0.1:5000"
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"

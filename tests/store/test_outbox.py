"""What a run logs while its server is down is kept, and arrives as if it had not been."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from tests.extra.grey_faces import Trained
from trainer.__main__ import main
from trainer.contract import Tag
from trainer.store.location import Store, StoreError, open_store, redacted, store_uri
from trainer.store.outbox import JOURNAL_FILE, Outbox, deliver, outboxes
from trainer.store.registry import all_versions
from trainer.store.writer import RunWriter

NOBODY = "http://ann:topsecret@127.0.0.1:9"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("trainer.store.location._SHORT_PATIENCE", {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"})


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[Store]:
    """A new one, for all of these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("outbox"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield open_store()


def cut_off(store: Store, name: str = "odd") -> RunWriter:
    """A run of `store` that is written to by a server that is gone."""
    run_id = RunWriter.create(store, name, "cut off", {}).run_id
    return RunWriter(Store(NOBODY, None), run_id)


def test_what_no_server_takes_is_kept_in_order_and_delivered(store, impatient, caplog, monkeypatch):
    writer = cut_off(store)
    writer.log_params({"epochs": 3, "blocks": None})
    writer.log_metrics({"validation/loss": 0.5}, step=1)
    writer.log_metrics({"validation/loss": float("nan")}, step=2)
    writer.log_dataset("faces", "/data", {"test": ("0123", {"happy": 4})})
    Path("files").mkdir()
    Path("files", "a.txt").write_text("kept")
    writer.log_folder(Path("files"))
    Path("files", "a.txt").write_text("changed later")
    with pytest.raises(ValueError, match="no luck"), writer:
        raise ValueError("no luck at http://ann:topsecret@host/")
    assert writer.is_waiting
    assert "does not answer" in caplog.text
    kept = [path.read_text() for path in store.undelivered.rglob("*") if path.is_file()]
    # MLflow's own warnings repeat an address as it was given; `store_uri` takes the password out of it before that.
    said = [record.getMessage() for record in caplog.records if record.name.startswith("trainer")]
    assert not any("topsecret" in text for text in [*kept, *said])
    [box] = outboxes(store.undelivered)
    assert box.server == "http://127.0.0.1:9"

    journal = box.folder / JOURNAL_FILE
    with journal.open("a") as file:
        file.write('{"kind": "batch", "metr')  # its writer was killed at this
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # it was killed as it tidied up
        assert deliver(store, box) == []
    assert not writer.is_waiting
    run = store.client().get_run(writer.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags[Tag.REASON] == "ValueError: no luck at http://host/"
    assert run.data.params == {"epochs": "3", "blocks": ""}
    assert [m.step for m in store.client().get_metric_history(writer.run_id, "validation/loss")] == [1, 2]
    assert json.loads(run.inputs.dataset_inputs[0].dataset.profile)["class_counts"] == {"happy": 4}
    assert Path(store.client().download_artifacts(writer.run_id, "a.txt")).read_text() == "kept"
    assert outboxes(store.undelivered) == []


def test_who_writes_to_a_run_later_delivers_first_what_was_kept_of_it(store, impatient):
    writer = cut_off(store)
    writer.log_metrics({"test/accuracy": 0.5})
    writer.close()
    later = RunWriter(store, writer.run_id)
    later.log_metrics({"export/bytes": 9.0})
    assert not later.is_waiting
    assert store.client().get_run(writer.run_id).data.metrics == {"test/accuracy": 0.5, "export/bytes": 9.0}


@pytest.mark.parametrize("before", [0, 2])
def test_a_line_that_a_full_disk_cut_off_spoils_no_other(store, before: int):
    run_id = RunWriter.create(store, "odd", "torn", {}).run_id
    box = Outbox(store.undelivered, run_id)
    for number in range(before):
        box.keep(store, {"kind": "batch", "tags": [[f"tag {number}", "kept"]]}, None)
    box.folder.mkdir(parents=True, exist_ok=True)
    with (box.folder / JOURNAL_FILE).open("a") as file:
        file.write('{"kind": "batch", "metr')
    box.keep(store, {"kind": "end", "status": "FINISHED", "end_ms": 1}, None)
    assert deliver(store, box) == []
    run = store.client().get_run(run_id)
    assert run.info.status == "FINISHED"
    assert [key for key in run.data.tags if key.startswith("tag ")] == [f"tag {n}" for n in range(before)]


def test_an_error_without_a_word_is_told_by_its_kind(store, impatient, monkeypatch):
    def reset(*_):
        raise ConnectionResetError

    monkeypatch.setattr("trainer.store.outbox.send", reset)
    writer = cut_off(store)
    writer.log_metrics({"validation/loss": 0.5}, step=1)
    writer.close()
    with pytest.raises(StoreError, match=f"run {writer.run_id} is not delivered: ConnectionResetError"):
        deliver(store, Outbox(store.undelivered, writer.run_id))
    shutil.rmtree(store.undelivered / writer.run_id)


def test_deliver_without_an_address_names_the_server_that_runs_wait_for(
    tmp_path, monkeypatch, impatient, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["deliver"]) == 2
    assert "there is no tracking store" in capsys.readouterr().err
    nobody = Store(NOBODY, None)
    box = Outbox(nobody.undelivered, "0" * 32)
    box.keep(nobody, {"kind": "end", "status": "FINISHED", "end_ms": 1}, None)
    box.close()
    assert main(["deliver"]) == 2
    assert "set MLFLOW_TRACKING_URI=http://127.0.0.1:9\n" in capsys.readouterr().err


@pytest.mark.slow
def test_a_delivery_that_was_cut_short_makes_nothing_twice(trained: Trained, impatient):
    store = open_store(create=False)
    bundle = next((trained.root / "mlruns" / "artifacts" / "models").glob("*/artifacts/extra_files"))
    writer = cut_off(store, "fer2013")
    before = len(all_versions(store))
    with writer:
        assert writer.register(bundle, {Tag.DATASET: "fer2013"}) is None
    journal = store.undelivered / writer.run_id / JOURNAL_FILE
    whole = journal.read_text()
    journal.write_text(whole + '{"kind": "unheard of"}\n')
    with pytest.raises(StoreError, match="is not delivered: a record of an unknown kind"):
        deliver(store, outboxes(store.undelivered)[0])
    journal.write_text(whole)
    [made] = deliver(store, outboxes(store.undelivered)[0])
    assert (made.version, made.is_champion) == (before + 1, False)
    assert len(all_versions(store)) == before + 1
    store.client().delete_model_version("fer2013-emotion", str(made.version))
    store.client().delete_run(writer.run_id)


def test_system_metrics_go_on_when_a_server_answers_again(store, impatient, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    writer = cut_off(store)
    with writer:
        writer.log_params({"epochs": 3})
        assert writer.is_waiting
        until(lambda: not monitors())
        monkeypatch.setattr("trainer.store.writer.RETRY_SECONDS", 0)
        writer.store = store
        writer.log_metrics({"validation/loss": 0.5})
        assert not writer.is_waiting
        assert len(monitors()) == 1
    assert not monitors()
    run = store.client().get_run(writer.run_id)
    assert (run.info.status, run.data.metrics["validation/loss"]) == ("FINISHED", 0.5)


def monitors() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "SystemMetricsMonitor"]


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_run_whose_server_is_down_at_its_end_is_not_in_the_way_of_the_next(store, impatient):
    lost = cut_off(store)
    lost.log_params({"epochs": 3})
    with pytest.raises(KeyboardInterrupt), lost:
        raise KeyboardInterrupt
    assert mlflow.active_run() is None
    with RunWriter.create(store, "odd", "the next", {}) as following:
        following.log_params({"epochs": 3})
    assert store.client().get_run(following.run_id).info.status == "FINISHED"
    assert deliver(store, outboxes(store.undelivered)[0]) == []
    assert store.client().get_run(lost.run_id).info.status == "KILLED"


def test_what_a_store_refuses_is_not_kept_but_said(store):
    writer = RunWriter.create(store, "odd", "refused", {})
    writer.log_params({"epochs": 3})
    with pytest.raises(StoreError, match=r"cannot be logged: .*epochs"):
        writer.log_params({"epochs": 4})
    assert not writer.is_waiting


@pytest.mark.parametrize(
    "text",
    [
        NOBODY,
        "postgresql://ann:topsecret@db:5432/x",
        "postgresql+psycopg2://a:topsecret@h/x",
        "postgresql://ann:with/a/slash/topsecret@db/x",
        "postgresql://ann:with a blank, topsecret@db/x",
        "http://ann:with a blank, topsecret@host:1/x",
        "http://ann:with/a/slash/topsecret@host:1/x",
        "http://ann:p@ss/topsecret@host:1/x",
    ],
)
def test_no_message_holds_a_password(text: str):
    assert "topsecret" not in redacted(f"the store {text} is down")
    assert "topsecret" not in str(StoreError(f"API request to {text}/api failed"))


@pytest.mark.parametrize(
    "text",
    [
        "the server http://127.0.0.1:5000 has no fer2013-emotion@champion",
        "http://host:5000/models/x@champion and https://host/models:/x@champion",
        "there is no fer2013-emotion in http://host: name another than fer2013-emotion@champion",
        "http://[::1]:5000/x@champion",
        "sqlite:////home/ann@work/mlflow.db",
    ],
)
def test_what_is_no_password_stays_in_a_message(text: str):
    assert redacted(text) == text


@pytest.mark.parametrize("password", ["top secret", "top/secret", "t@p secret"])
def test_a_password_with_any_character_goes_to_where_mlflow_looks_for_it(monkeypatch, password: str):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:{password}@host:5000/mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    assert store_uri() == "http://host:5000/mlflow"
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == (
        "ann",
        password,
    )


def test_a_password_in_the_address_goes_to_where_mlflow_looks_for_it(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:top%20secret@host:5000/mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    assert store_uri() == "https://host:5000/mlflow"
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == (
        "ann",
        "top secret",
    )
    assert store_uri() == "https://host:5000/mlflow"

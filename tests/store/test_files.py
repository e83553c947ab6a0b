"""A file of a run is read in one request of a server, and in MLflow's own way where that gives none."""

from pathlib import Path

import pytest
import requests

from tests.extra.servers import Server
from trainer.store import files
from trainer.store.files import read_file
from trainer.store.location import Store, StoreError, open_store

PATH = "evaluation/words.txt"


@pytest.fixture
def run_id(new_store: Path) -> str:
    store = open_store()
    run_id = store.client().create_run(store.experiment_id("fer2013")).info.run_id
    store.client().log_text(run_id, "what it says", PATH)
    return run_id


def words(run_id: str, path: str = PATH) -> str | None:
    return read_file(open_store(), run_id, path, Path.read_text)


def test_a_file_is_read_and_one_that_is_not_there_is_none(run_id: str):
    assert words(run_id) == "what it says"
    assert words(run_id, "evaluation/other.txt") is None
    assert words(run_id, "other/words.txt") is None


def test_what_cannot_be_read_is_told_with_its_name(run_id: str):
    def refuse(file: Path) -> None:
        raise ValueError("half of it is missing")

    with pytest.raises(
        StoreError, match=rf"{PATH} of run {run_id[:8]} cannot be read: half of it is missing"
    ):
        read_file(open_store(), run_id, PATH, refuse)


def test_a_run_that_is_not_there_is_told(run_id: str):
    with pytest.raises(StoreError, match=f"{PATH} of run 00000000 cannot be fetched"):
        words("0" * 32)


def test_an_id_that_leads_out_of_the_store_reads_nothing(stocked: Path):
    store = open_store()
    assert store.artifact_root is not None
    (store.artifact_root / "artifacts").mkdir(parents=True)
    (store.artifact_root / "artifacts" / "words.txt").write_text("nobody's")
    with pytest.raises(StoreError, match="cannot be fetched"):
        read_file(store, ".", "words.txt", Path.read_text)


@pytest.mark.slow
def test_a_server_is_asked_once(server: Server, monkeypatch):
    store = open_store()
    run_id = store.client().create_run(store.experiment_id("fer2013")).info.run_id
    store.client().log_text(run_id, "what it says", PATH)
    asked, really = [], requests.Session.request
    monkeypatch.setattr(
        requests.Session, "request",
        lambda self, method, url, **more: asked.append(url) or really(self, method, url, **more),
    )  # fmt: skip
    assert read_file(store, run_id, PATH, Path.read_text) == "what it says"
    assert asked == [f"{server.uri}/get-artifact"]


@pytest.mark.slow
@pytest.mark.parametrize(("status", "headers"), [(404, {}), (500, {}), (200, {"Content-Type": "text/html"})])
def test_where_it_answers_something_else_mlflow_asks_in_its_own_way(
    server: Server, monkeypatch, status, headers
):
    """As behind a proxy that lets nothing but the API through, or shows a page of its own."""
    store: Store = open_store()
    run_id = store.client().create_run(store.experiment_id("fer2013")).info.run_id
    store.client().log_text(run_id, "what it says", PATH)
    answer = requests.Response()
    answer.status_code, answer._content = status, b"<h1>Log in</h1>"
    answer.headers.update(headers)
    monkeypatch.setattr(files, "http_request", lambda *args, **more: answer)
    assert read_file(store, run_id, PATH, Path.read_text) == "what it says"
    assert read_file(store, run_id, "evaluation/other.txt", Path.read_text) is None

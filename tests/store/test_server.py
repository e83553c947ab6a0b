"""A shared server: refused where its settings are not whole, silent about secrets, strict about who may do what."""

import gc
import importlib.util
import socket
from io import StringIO
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pytest
import requests
import streamlit as st
from mlflow.exceptions import MlflowException
from streamlit.testing.v1 import AppTest

from tests.extra.odd_runs import make_run
from tests.extra.servers import (
    ADMIN,
    ADMIN_PASSWORD,
    DATABASE_PASSWORD,
    SECRET_KEY,
    Server,
    client_environment,
    free_port,
)
from trainer.__main__ import main
from trainer.commands.models import load_any
from trainer.commands.user import new_password
from trainer.contract import BEST_FOLDER, CHAMPION, Tag
from trainer.store.accounts import AuthServiceClient, delete_account, set_account
from trainer.store.bundled import FOLDER as BUNDLED
from trainer.store.foreign import TRUST
from trainer.store.location import StoreError, open_store
from trainer.store.server import ServerError, read_settings, write_login
from trainer.store.version_window import VersionWindow

WHOLE = {
    "MLFLOW_BACKEND_STORE_URI": "postgresql://moodify:s3cr%25et@db.example/moodify",
    "MLFLOW_ARTIFACTS_DESTINATION": "/tmp/moodify/artifacts",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": SECRET_KEY,
    "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN_PASSWORD,
}
APP = Path(__file__).parents[2] / "dashboard/app.py"
VIEWER_PASSWORD = "a viewer's password"


def write(file: Path, settings: dict[str, str]) -> Path:
    file.write_text("".join(f'{key}="{value}"\n' for key, value in settings.items()))
    file.chmod(0o600)
    return file


def test_the_databases_password_leaves_its_address(tmp_path):
    settings = read_settings(
        write(tmp_path / "env", WHOLE), {"PATH": "/bin", "MLFLOW_TRACKING_PASSWORD": "mine"}
    )
    assert settings["PGPASSWORD"] == "s3cr%et"
    assert settings["MLFLOW_BACKEND_STORE_URI"] == "postgresql+psycopg2://moodify@db.example/moodify"
    assert settings["PATH"] == "/bin"
    assert "MLFLOW_TRACKING_PASSWORD" not in settings
    login = write_login(tmp_path, settings).read_text()
    assert "s3cr" not in login
    assert ADMIN_PASSWORD not in login


@pytest.mark.parametrize("query", ["password=s3cret", "sslmode=require&password=s3cret"])
def test_so_does_one_that_stands_behind_the_address(tmp_path, query):
    address = f"postgresql://moodify@db.example/moodify?{query}"
    settings = read_settings(write(tmp_path / "env", WHOLE | {"MLFLOW_BACKEND_STORE_URI": address}), {})
    assert settings["PGPASSWORD"] == "s3cret"
    assert "s3cret" not in settings["MLFLOW_BACKEND_STORE_URI"]
    assert settings["MLFLOW_BACKEND_STORE_URI"].endswith("?sslmode=require") == ("sslmode" in query)


def test_what_is_set_already_counts_instead_of_the_file(tmp_path):
    settings = read_settings(
        write(tmp_path / "env", WHOLE | {"MLFLOW_PORT": "5000"}), {"MLFLOW_PORT": "6000"}
    )
    assert settings["MLFLOW_PORT"] == "6000"
    assert read_settings(tmp_path / "nowhere", WHOLE)["MLFLOW_HOST"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"MLFLOW_BACKEND_STORE_URI": ""}, "MLFLOW_BACKEND_STORE_URI is not set"),
        ({"MLFLOW_BACKEND_STORE_URI": "sqlite:///x.db"}, "keeps its runs in PostgreSQL"),
        ({"MLFLOW_BACKEND_STORE_URI": "postgres s3cr%25et"}, "is no address of a database"),
        ({"MLFLOW_ARTIFACTS_DESTINATION": "artifacts"}, "must be an absolute path or an address"),
        ({"MLFLOW_ARTIFACTS_DESTINATION": "/etc/passwd/artifacts"}, "cannot be written by this user"),
        ({"MLFLOW_ARTIFACTS_DESTINATION": "s3://bucket/moodify"}, "needs boto3"),
        ({"MLFLOW_FLASK_SERVER_SECRET_KEY": "change-me"}, "MLFLOW_FLASK_SERVER_SECRET_KEY is not set"),
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": "short"}, "has 5 characters; at least 12 are needed"),
        ({"MLFLOW_HOST": "0.0.0.0"}, "lets other machines in: name in MLFLOW_SERVER_ALLOWED_HOSTS"),
        ({"MLFLOW_PORT": "many"}, "MLFLOW_PORT is 'many', and must be a number"),
    ],
)
def test_a_setting_that_cannot_work_is_named(tmp_path, changed, message):
    if "boto3" in message and importlib.util.find_spec("boto3"):
        pytest.skip("boto3 is installed")
    with pytest.raises(ServerError, match=message) as raised:
        read_settings(write(tmp_path / "env", WHOLE | changed), {})
    assert "s3cr" not in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_the_example_is_refused_until_it_is_filled_in(tmp_path):
    example = Path(__file__).parents[2] / "docs/server/server.env.example"
    (file := tmp_path / "env").write_text(example.read_text())
    file.chmod(0o600)
    with pytest.raises(ServerError, match="is not set"):
        read_settings(file, {})


def test_a_file_that_is_no_text_is_named(tmp_path):
    (file := tmp_path / "env").write_bytes(b"A=\xff\xfe")
    file.chmod(0o600)
    with pytest.raises(ServerError, match="env is no environment file: it is no text in UTF-8"):
        read_settings(file, {})


def test_without_a_file_that_is_ones_own_the_user_is_told_in_one_line(workplace, capsys, monkeypatch):
    for name in WHOLE:
        monkeypatch.delenv(name, raising=False)
    assert main(["server"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: there is no .server.env: copy docs/server/server.env.example"
    )
    write(workplace / ".server.env", WHOLE).chmod(0o644)
    assert main(["server"]) == 2
    assert "can be read by other users of this machine: chmod 600" in capsys.readouterr().err


def test_a_database_that_does_not_answer_is_told_without_its_password(workplace, capsys):
    address = f"postgresql://moodify:s3cr%25et@127.0.0.1:{free_port()}/moodify"
    write(workplace / ".server.env", WHOLE | {"MLFLOW_BACKEND_STORE_URI": address})
    assert main(["server", "--check"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "does not answer" in line
    assert "Connection refused" in line
    assert "s3cr" not in line


@pytest.mark.slow
def test_no_secret_is_among_its_arguments_or_in_its_log(server: Server):
    open_store().client().search_experiments()
    process = psutil.Process(server.pid)
    family = [process, *process.children(recursive=True)]
    assert len(family) >= 3  # the command, MLflow, and the server that it starts
    seen = "\n".join([*(" ".join(one.cmdline()) for one in family), server.log.read_text()])
    for secret in (ADMIN_PASSWORD, DATABASE_PASSWORD, SECRET_KEY, DATABASE_PASSWORD.replace("%", "%25")):
        assert secret not in seen
    assert "Uvicorn running" in seen
    assert len(family) <= 6  # and no processes for jobs that are never sent


@pytest.mark.slow
def test_it_lets_in_nobody_without_a_password_and_no_other_host_name(server: Server, monkeypatch):
    known = {"auth": (ADMIN, ADMIN_PASSWORD), "timeout": 10}
    assert requests.get(server.uri, **known).status_code == 200
    assert requests.get(server.uri, headers={"Host": "evil.example"}, **known).status_code == 403
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    with pytest.raises(StoreError, match="does not let in 'admin' with this password") as raised:
        open_store()
    assert "wrong" not in str(raised.value)
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    with pytest.raises(StoreError, match="does not let in anybody without a name"):
        open_store()


@pytest.fixture
def viewed(server: Server, monkeypatch) -> dict[str, str]:
    """A run and a version, and an account that may only read them, as which is asked from now on."""
    store = open_store()
    client = store.client()
    run_id = make_run(
        client, store.experiment_id("fer2013"), "seen", metrics={"test/accuracy": 0.5}, curve=[0.4]
    )
    model = client.create_logged_model(client.get_run(run_id).info.experiment_id, "model", run_id)
    client.create_registered_model("fer2013-emotion")
    for _ in range(2):
        client.create_model_version(
            "fer2013-emotion", f"models:/{model.model_id}", run_id, model_id=model.model_id
        )
    client.set_registered_model_alias("fer2013-emotion", CHAMPION, "1")
    client.set_registered_model_alias("fer2013-emotion", "challenger", "2")
    set_account(store, "viewer", "viewer", VIEWER_PASSWORD)
    for name, value in client_environment(server.uri, "viewer", VIEWER_PASSWORD).items():
        monkeypatch.setenv(name, value)
    return {"run": run_id, "model": model.model_id}


@pytest.mark.slow
def test_a_viewer_reads_everything_and_changes_nothing(viewed, server: Server, capsys):
    client = open_store().client()
    assert client.get_run(viewed["run"]).data.metrics["test/accuracy"] == 0.5
    experiment_id, name = client.get_run(viewed["run"]).info.experiment_id, "fer2013-emotion"
    tries = {
        "make an experiment": lambda: client.create_experiment("mine"),
        "make a run": lambda: client.create_run(experiment_id),
        "make a run by default": lambda: client.create_run("0"),
        "log": lambda: client.log_metric(viewed["run"], "x", 1.0),
        "set a tag": lambda: client.set_tag(viewed["run"], "x", "y"),
        "send a file": lambda: client.log_text(viewed["run"], "x", "x.txt"),
        "delete a run": lambda: client.delete_run(viewed["run"]),
        "make a logged model": lambda: client.create_logged_model(experiment_id),
        "make a model": lambda: client.create_registered_model("mine"),
        "register": lambda: client.create_model_version(
            name, f"models:/{viewed['model']}", model_id=viewed["model"]
        ),
        "promote": lambda: client.set_registered_model_alias(name, CHAMPION, "2"),
        "delete a version": lambda: client.delete_model_version(name, "2"),
    }
    answers = {}
    for what, attempt in tries.items():
        try:
            answers[what] = attempt()
        except Exception as error:  # of whatever kind: what it says is looked at
            answers[what] = "refused" if "Permission denied" in str(error) else error
    assert answers == dict.fromkeys(tries, "refused")
    capsys.readouterr()
    assert main(["promote", name, "2", "--alias", "challenger"]) == 2
    refused = "the account 'viewer' may not do that on this server, or there is no such thing"
    shown = capsys.readouterr().err.strip()
    assert shown == f"error: fer2013-emotion version 2 cannot become challenger: {refused}"
    assert main(["user", "viewer", "--role", "trainer", "--keep-password"]) == 2
    assert "the account 'viewer' may not do that" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_fetched_of_a_model_lies_here_no_longer_than_it_is_used(
    server: Server, tmp_path, monkeypatch
):
    class ReadsLater(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return np.tile(np.loadtxt(context.artifacts["answer"]), (len(model_input), 1))

    (tmp_path / "answer.txt").write_text("0.25 0.75")
    store = open_store()
    client = store.client()
    run_id = make_run(client, store.experiment_id("fer2013"), "best so far", metrics={}, curve=[0.4])
    client.log_artifacts(run_id, str(BUNDLED), BEST_FOLDER)
    monkeypatch.setenv(TRUST, "1")
    with mlflow.start_run(run_id=run_id):
        mlflow.pyfunc.log_model(
            name="model", python_model=ReadsLater(), artifacts={"answer": str(tmp_path / "answer.txt")},
            registered_model_name="strange", pip_requirements=["numpy"],
        )  # fmt: skip
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    model, _ = load_any("strange/1")
    assert len(list(scratch.iterdir())) == 1
    answers = model(np.zeros((2, model.channels, model.size, model.size), np.uint8))
    np.testing.assert_allclose(answers, [[0.25, 0.75]] * 2)
    del model
    gc.collect()
    best, _ = load_any(f"runs:/{run_id}")
    assert len(best.class_names) == 7
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
def test_a_host_name_that_the_server_does_not_have_is_told(server: Server, monkeypatch):
    really = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo",
        lambda host, *rest, **more: really("127.0.0.1" if host == "moodify.example" else host, *rest, **more),
    )  # fmt: skip
    with pytest.raises(StoreError, match="MLFLOW_SERVER_ALLOWED_HOSTS does not have it"):
        open_store(uri=server.uri.replace("127.0.0.1", "moodify.example"))


@pytest.mark.slow
def test_the_dashboard_reads_as_a_viewer_and_tells_what_is_refused(viewed):
    st.cache_resource.clear()
    app = AppTest.from_file(str(APP), default_timeout=60)
    app.switch_page("app_pages/registry.py")
    app.run()
    assert not app.exception
    app.selectbox(key="version").set_value(2).run()
    app.selectbox(key="alias").set_value("challenger").run()
    app.button(key="remove").click().run()
    assert not app.exception
    [error] = app.error
    assert "the account" in error.value
    assert "may not do that on this server" in error.value
    assert "challenger" in open_store().client().get_registered_model("fer2013-emotion").aliases


@pytest.mark.slow
def test_a_model_that_is_gone_stops_no_viewers_dashboard(viewed, server: Server, capsys):
    """A server tells all but administrators that they may not see it."""
    window = VersionWindow(open_store(), most=1)
    assert window.want("fer2013-emotion/1") == viewed["run"]
    assert window.want("fer2013-emotion/9") is None
    assert window.want("faces/1") is None
    window.read({}, anew=True)
    assert [version.version for version in window.versions()] == [1, 2]
    with pytest.MonkeyPatch.context() as as_admin:
        for name, value in client_environment(server.uri, ADMIN, ADMIN_PASSWORD).items():
            as_admin.setenv(name, value)
        open_store().client().delete_registered_model("fer2013-emotion")
    window.read({}, anew=True)
    assert window.versions() == []
    capsys.readouterr()
    assert main(["promote", "fer2013-emotoin", "1", "--check"]) == 2
    assert "there is no registered model 'fer2013-emotoin'" in capsys.readouterr().err


@pytest.mark.slow
def test_who_is_a_viewer_from_now_on_may_not_change_what_they_have_made_either(
    server: Server, monkeypatch, capsys
):
    store = open_store()
    set_account(store, "anna", "trainer", VIEWER_PASSWORD)
    with monkeypatch.context() as as_anna:
        for name, value in client_environment(server.uri, "anna", VIEWER_PASSWORD).items():
            as_anna.setenv(name, value)
        client = open_store().client()
        run_id = make_run(client, open_store().experiment_id("hers"), "hers")
        model = client.create_logged_model(client.get_run(run_id).info.experiment_id, "model", run_id)
        client.create_registered_model("hers")
        client.create_model_version("hers", f"models:/{model.model_id}", run_id, model_id=model.model_id)
        assert main(["promote", "hers", "1", "--reason", "the first"]) == 0
    tags = store.client().get_model_version("hers", "1").tags
    assert tags[Tag.PROMOTED_BY] == "anna"
    assert main(["user", "anna", "--role", "viewer", "--keep-password"]) == 0
    for name, value in client_environment(server.uri, "anna", VIEWER_PASSWORD).items():
        monkeypatch.setenv(name, value)
    for attempt in (
        lambda: client.log_metric(run_id, "x", 1.0),
        lambda: client.delete_run(run_id),
        lambda: client.set_registered_model_alias("hers", CHAMPION, "1"),
        lambda: client.delete_model_version("hers", "1"),
        lambda: client.create_run(client.get_run(run_id).info.experiment_id),
    ):
        with pytest.raises(MlflowException, match="Permission denied"):
            attempt()
    assert client.get_run(run_id).info.status == "FINISHED"


@pytest.mark.slow
def test_a_role_takes_away_no_refusal_that_somebody_gave_on_purpose(server: Server, monkeypatch):
    store = open_store()
    run_id = make_run(store.client(), experiment := store.experiment_id("secret"))
    set_account(store, "anna", "trainer", VIEWER_PASSWORD)
    AuthServiceClient(store.uri).grant_user_permission("anna", "experiment", experiment, "DENY")
    set_account(store, "anna", "viewer", None)
    for name, value in client_environment(server.uri, "anna", VIEWER_PASSWORD).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MlflowException, match="Permission denied"):
        store.client().get_run(run_id)


@pytest.mark.slow
def test_an_administrator_changes_their_own_password_and_is_given_no_role(
    server: Server, monkeypatch, capsys
):
    monkeypatch.setenv("MOODIFY_NEW_PASSWORD", "quite another password")
    assert main(["user", ADMIN]) == 0
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "quite another password")
    assert main(["user", ADMIN, "--role", "viewer", "--keep-password"]) == 2
    assert (
        "'admin' is an administrator, who may do everything: no role changes that" in capsys.readouterr().err
    )
    monkeypatch.setenv("MOODIFY_NEW_PASSWORD", ADMIN_PASSWORD)
    assert main(["user", ADMIN]) == 0
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN_PASSWORD)
    assert open_store().uri == server.uri
    assert main(["user", "an:na"]) == 2
    assert "has a colon: nobody could log in by it" in capsys.readouterr().err


@pytest.mark.slow
def test_a_role_can_be_changed_and_an_account_removed(server: Server, monkeypatch, capsys):
    store = open_store()
    monkeypatch.setenv("MOODIFY_NEW_PASSWORD", "the first password")
    assert main(["user", "anna"]) == 0
    assert main(["user", "anna", "--role", "trainer", "--keep-password"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "anna is there already, as a trainer."
    assert main(["user", "anna"]) == 0  # the password anew
    assert capsys.readouterr().out.splitlines()[-1] == "anna is there already, with the role that it had."
    with monkeypatch.context() as as_anna:
        for name, value in client_environment(server.uri, "anna", "the first password").items():
            as_anna.setenv(name, value)
        assert open_store().experiment_id("x").isdigit()
    with pytest.raises(StoreError, match="has 5 characters"):
        set_account(store, "anna", "viewer", "short")
    delete_account(store, "anna")
    with pytest.raises(StoreError, match="there is no account 'anna' yet"):
        set_account(store, "anna", "viewer", None)


def test_a_password_that_is_not_given_is_told_and_one_from_windows_has_no_end_of_line(monkeypatch):
    def nothing(_: str) -> str:
        raise EOFError

    monkeypatch.delenv("MOODIFY_NEW_PASSWORD", raising=False)
    monkeypatch.setattr("sys.stdin", StringIO("a password from a file\r\n"))
    assert new_password("anna") == "a password from a file"
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("trainer.commands.user.getpass", nothing)
    with pytest.raises(ValueError, match="no password was given"):
        new_password("anna")


def test_an_embedded_store_has_no_accounts(stocked, capsys):
    assert main(["user", "anna"]) == 2
    assert "is no server" in capsys.readouterr().err

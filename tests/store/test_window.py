"""Of a server the newest runs are held, what goes on, and what was asked for; and whatever changes there is noticed."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import streamlit as st
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from streamlit.testing.v1 import AppTest

from dashboard import cache
from tests.extra.odd_runs import add_odd_runs, log_predictions, make_run, predictions
from tests.extra.same_store import assert_same
from trainer.__main__ import main
from trainer.contract import CHAMPION, Tag, sweep_experiment
from trainer.store.location import Store, StoreError, open_store
from trainer.store.reader import Reader
from trainer.store.registry import find_version

APP = Path(__file__).parents[2] / "dashboard/app.py"
NEWEST = 4
MODEL = "fer2013-emotion"


@pytest.fixture
def store(new_store: Path, monkeypatch) -> Store:
    """Empty; a reader takes it for a server, whichever it is."""
    monkeypatch.setattr("trainer.store.window.STEP", 2)
    monkeypatch.setattr("trainer.store.version_window.STEP", 2)
    return Store(open_store().uri, None)


def begin(client: MlflowClient, experiment: str, number: int, status: str | None = "FINISHED") -> str:
    """The run `run-NUMBER`, which began so many seconds after the first."""
    run_id = client.create_run(experiment, (number + 1) * 1000, run_name=f"run-{number}").info.run_id
    if status:
        client.set_terminated(run_id, status, number * 1000 + 1500)
    return run_id


def begin_many(store: Store, count: int) -> tuple[MlflowClient, str, list[str]]:
    """The oldest one first."""
    client, experiment = store.client(), store.experiment_id("fer2013")
    return client, experiment, [begin(client, experiment, number) for number in range(1, count + 1)]


def names(reader: Reader) -> list[str]:
    return list(reader.snapshot().runs["name"])


def register(client: MlflowClient, run_id: str, alias: str | None = None) -> int:
    model = client.create_logged_model(client.get_run(run_id).info.experiment_id, "model", run_id)
    version = client.create_model_version(
        MODEL, f"models:/{model.model_id}", run_id, model_id=model.model_id
    ).version
    if alias:
        client.set_registered_model_alias(MODEL, alias, str(version))
    return int(version)


def test_whoever_waited_for_a_server_that_fails_is_told_and_does_not_wait_again(store: Store, monkeypatch):
    begin_many(store, 2)
    reader, asked = Reader(store, NEWEST), []

    def silent(*_, **__):
        asked.append(time.monotonic())
        time.sleep(0.3)
        raise MlflowException("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "search_experiments", silent)
        patch.setattr("trainer.store.reader.SILENT_SECONDS", 60.0)
        with ThreadPoolExecutor(4) as pool:
            errors = [task.exception() for task in [pool.submit(reader.snapshot) for _ in range(4)]]
    assert [str(error) for error in errors] == [f"the store {store.uri} cannot be read: no answer"] * 4
    assert len(asked) == 1
    with pytest.raises(StoreError, match="no answer"):
        reader.histories(["x"])
    reader._silent_until = 0.0
    assert names(reader) == ["run-2", "run-1"]


def test_the_newest_are_read_and_older_ones_when_they_are_asked_for(store: Store):
    client, _, ids = begin_many(store, 9)
    client.update_run(ids[0], name="run-9")
    reader = Reader(store, newest=NEWEST)
    snapshot = reader.snapshot()
    assert list(snapshot.runs["name"]) == ["run-9", "run-8", "run-7", "run-6"]
    assert snapshot.has_older
    for reference in (ids[1], ids[1][:12], "run-2"):
        found, run_id = Reader(store, newest=NEWEST).find(reference)
        assert run_id == ids[1]
        assert list(found.runs["name"]) == ["run-9", "run-8", "run-7", "run-6", "run-2"]
    with pytest.raises(StoreError, match="any of 2 runs"):  # though only one of them is among the newest
        reader.find("run-9")
    for nothing in ("run-77", "'", "x' OR 'y", "00000000", ""):
        with pytest.raises(StoreError, match="there is no run"):
            reader.find(nothing)
    assert reader.want_named("RUN-3", 10) == 1
    with pytest.raises(ValueError, match="names with quotes or backslashes cannot be looked for"):
        reader.want_named("it's", 10)
    assert "run-3" in names(reader)
    reader.reach(7)
    assert {f"run-{number}" for number in range(3, 10)} <= set(names(reader))
    reader.reach(100)
    assert len(names(reader)) == 9
    assert not reader.snapshot().has_older


def test_what_begins_ends_changes_or_goes_is_noticed_and_nothing_else_is_lost(store: Store):
    client, experiment, ids = begin_many(store, 10)
    running = begin(client, experiment, 0, None)
    reader = Reader(store, newest=8)
    held = [f"run-{number}" for number in range(10, 2, -1)]
    assert names(reader) == [*held, "run-0"]  # the oldest of all, and the only one that goes on
    client.set_terminated(running, "FAILED", 1700)
    new = begin(client, experiment, 11)
    snapshot = reader.snapshot()
    assert snapshot.runs.at[running, "status"] == "failed"  # whoever has watched it sees how it ended
    assert snapshot.runs.index[0] == new
    held = ["run-11", *held[:-1], "run-0"]
    client.delete_run(ids[9])  # among the newest
    client.delete_run(ids[4])  # among those that are looked at from time to time
    client.set_tag(ids[5], Tag.TESTED_AT, "later")
    held.remove("run-10")
    held.remove("run-5")
    seen = [set(names(reader)) for _ in range(8)]
    assert all(set(held) <= one for one in seen)
    assert seen[-1] == {*held, "run-3", "run-2"}  # the newest eight again, and the one that was watched
    assert reader.snapshot().runs.at[ids[5], "tested_at"] == "later"
    client.restore_run(ids[9])
    for _ in range(6):
        last = names(reader)
    assert "run-10" in last
    for number in (12, 13, 14):  # wherever the reader is in its round
        new = begin(client, experiment, number)
        assert reader.snapshot().runs.index[0] == new
    client.delete_experiment(experiment)
    assert names(reader) == []


def test_what_aliases_point_to_is_held_however_old_and_followed_when_they_move(store: Store):
    client, experiment, ids = begin_many(store, 2)
    client.create_registered_model(MODEL)
    old = register(client, ids[0], CHAMPION)
    client.set_model_version_tag(MODEL, str(register(client, ids[1])), "x", "y")
    for number in range(3, 8):
        register(client, begin(client, experiment, number))
    reader = Reader(store, newest=NEWEST)
    snapshot = reader.snapshot()
    assert names(reader) == ["run-7", "run-6", "run-5", "run-4", "run-1"]
    assert snapshot.runs.at[ids[0], "aliases"] == [CHAMPION]
    assert snapshot.has_older_versions
    assert [version.version for version in snapshot.versions] == [1, 4, 5, 6, 7]
    assert reader.find(f"{MODEL}/2")[1] == ids[1]
    assert reader.find(f"{MODEL}@{CHAMPION}")[1] == ids[0]
    client.set_registered_model_alias(MODEL, CHAMPION, "3")
    [champion] = [version for version in reader.snapshot().versions if CHAMPION in version.aliases]
    assert champion.version == 3
    assert champion.run_id in reader.snapshot().runs.index
    client.delete_model_version(MODEL, "7")
    client.delete_registered_model_alias(MODEL, CHAMPION)
    for _ in range(6):
        snapshot = reader.snapshot()
    assert 7 not in [version.version for version in snapshot.versions]
    assert old not in [version.version for version in snapshot.versions if version.aliases]
    assert snapshot.runs.iloc[0]["versions"] == []
    assert snapshot.runs.iloc[1]["versions"] == [f"{MODEL}/6"]


@pytest.mark.slow
def test_where_there_are_fewer_than_are_held_all_is_as_in_a_whole_reading(store: Store):
    add_odd_runs(store)
    client, sweeps = store.client(), store.experiment_id(sweep_experiment("fer2013"))
    parent = make_run(client, sweeps, "sweep", tags={Tag.SWEEP: "sweep"})
    for number in range(3):
        tags = {Tag.SWEEP_RUN: parent, Tag.TRIAL: str(number)}
        make_run(client, sweeps, f"trial {number}", tags=tags, curve=[0.1, 0.2])
    make_run(client, store.experiment_id("fer2013-audit"), tags={Tag.AUDIT: "true", Tag.DATASET: "fer2013"})
    client.create_registered_model(MODEL)
    register(client, make_run(client, store.experiment_id("fer2013"), curve=[0.5]), CHAMPION)
    window = Reader(store, newest=100)
    assert_same(Reader(store), window)
    assert_same(Reader(store), window)  # and when it is looked at again
    assert not window.snapshot().has_older
    few = Reader(store, newest=1)
    assert len(few.snapshot().trials) == 1
    few.want_trials(parent)
    assert len(few.snapshot().trials) == 3


@pytest.mark.slow
def test_commands_reach_every_run(store: Store, capsys):
    client, _, ids = begin_many(store, 30)
    for run_id in ids[:2]:
        log_predictions(client, run_id, predictions(("cat", "dog")))
    make_run(client, store.experiment_id("other"), "odd-one")
    assert main(["compare", "run-1", ids[1][:10]]) == 0
    assert "run-2" in capsys.readouterr().out
    assert main(["runs", "--limit", "2"]) == 0
    out = capsys.readouterr().out
    assert [name in out for name in ("odd-one", "run-30", "run-29")] == [True, True, False]
    assert main(["runs", "--limit", "2", "--dataset", "fer2013"]) == 0
    out = capsys.readouterr().out
    assert [name in out for name in ("odd-one", "run-30", "run-29", "run-28")] == [False, True, True, False]
    assert main(["runs", "--limit", "0"]) == 0
    assert "run-1 " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("new_store", ["postgresql"], indirect=True)
def test_the_dashboard_loads_older_runs_when_somebody_asks(store: Store, monkeypatch):
    _, _, ids = begin_many(store, 12)
    monkeypatch.setattr(cache, "NEWEST", NEWEST)
    st.cache_resource.clear()
    app = AppTest.from_file(str(APP), default_timeout=60)
    app.query_params["runs"] = [ids[0][:8], ids[11][:8]]  # a link to the oldest and the newest
    app.run()
    assert not app.exception
    assert app.header[0].value == "5 runs loaded on fer2013."
    assert set(app.dataframe[0].value["run"]) == {"run-12", "run-11", "run-10", "run-9", "run-1"}
    assert app.session_state["runs"] == [ids[0], ids[11]]
    [told] = [caption.value for caption in app.caption if "Loaded are" in caption.value]
    assert told.startswith("Loaded are the newest 4 runs of this server and 1 older one")
    app.text_input(key="text").set_value("run-5").run()
    assert [text.value for text in app.markdown if "No run fits" in text.value]
    app.button(key="search-server").click().run()
    assert list(app.dataframe[0].value["run"]) == ["run-5"]
    app.text_input(key="text").set_value("").run()
    app.button(key="older-200").click().run()
    assert not app.exception
    assert app.header[0].value == "12 runs on fer2013."
    assert app.query_params["loaded"] in ("204", ["204"])
    assert not [caption.value for caption in app.caption if "Loaded are" in caption.value]


def test_a_version_that_is_not_there_is_told_with_the_newest_and_those_with_aliases(store: Store):
    client, _, ids = begin_many(store, 14)
    client.create_registered_model(MODEL)
    for run_id in ids:
        register(client, run_id, CHAMPION if run_id == ids[1] else None)
    with pytest.raises(StoreError) as told:
        find_version(store, f"{MODEL}/99")
    newest = ", ".join(map(str, range(5, 15)))
    assert str(told.value).endswith(f"has versions 2 ({CHAMPION}), {newest}, and 3 older ones")

"""A store is read at once, from its tables or through MLflow, and whatever stands in it."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from tests.extra.grey_faces import GREY_LEVELS, Trained
from tests.extra.odd_runs import add_odd_runs, make_run
from tests.extra.own_store import own_store
from tests.extra.same_store import assert_same
from trainer.contract import Tag, metric_key
from trainer.store import reader as reading
from trainer.store.location import Store, StoreError, open_store
from trainer.store.reader import Reader
from trainer.store.registry import all_versions
from trainer.store.rows import ClientRows
from trainer.store.snapshot import find_run


@pytest.fixture
def reader(trained: Trained) -> Reader:
    return Reader(open_store(create=False))


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def odd(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[tuple[Store, dict[str, str]]]:
    """A store of either kind with odd runs; tests add what they need."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as used:
        folder = tmp_path_factory.mktemp("odd")
        shutil.copyfile(request.getfixturevalue("empty_database"), folder / "mlflow.db")
        uri = f"sqlite:///{folder}/mlflow.db"
        if request.param == "postgresql":
            server, in_use = request.getfixturevalue("shared_server")
            used.enter_context(in_use)
            server.empty()
            uri = server.uri
            for name, value in server.environment.items():
                patch.setenv(name, value)
        store = open_store(uri=uri)
        yield store, add_odd_runs(store)


def through_mlflow(store: Store) -> Reader:
    reader = Reader(store)
    reader._rows = ClientRows(MlflowClient(store.uri, store.uri))
    return reader


def test_a_finished_run_is_read_with_all_that_the_dashboard_shows(reader: Reader):
    runs = reader.snapshot().runs
    assert list(runs["architecture"]) == ["resnet18", "cnn"]  # newest first
    run = runs.iloc[1]
    assert run["status"] == "finished"
    assert (run["dataset"], run["mode"], run["recipe"]) == ("fer2013", "full", "fast")
    assert run["test_accuracy"] == run["test_macro_recall"] == 1.0
    assert run["recalls"] == dict.fromkeys(sorted(GREY_LEVELS), 1.0)
    assert run["supports"] == dict.fromkeys(sorted(GREY_LEVELS), 8.0)
    assert (run["epochs"], run["epochs_done"], len(run["curve"])) == (8, 8, 8)
    assert run["validation_accuracy"] == max(run["curve"])
    assert run["versions"] == ["fer2013-emotion/1"]
    assert run["aliases"] == ["champion"]
    for cost in ("parameters", "size_bytes", "gmacs", "latency_ms", "latency_32_ms", "training_seconds"):
        assert run[cost] > 0, cost


def test_the_tables_and_mlflow_say_the_same(reader: Reader):
    assert_same(reader, through_mlflow(reader.store))


def test_the_tables_and_mlflow_say_the_same_of_odd_runs(odd):
    assert_same(Reader(odd[0]), through_mlflow(odd[0]))


def test_a_class_has_its_own_name_whatever_mlflow_takes_in_that_of_a_metric(odd):
    store, _ = odd
    names = ["दुख", "sad & tired", "plain"]
    metrics = {metric_key("test", "recall", name): 0.1 * number for number, name in enumerate(names, 1)}
    experiment = store.experiment_id("odd")
    for tags, shown in (
        ({Tag.CLASSES: json.dumps(names)}, set(names)),
        ({Tag.CLASSES: "[1"}, {"द_ख", "sad _ tired", "plain"}),
        ({Tag.CLASSES: "7"}, {"द_ख", "sad _ tired", "plain"}),
    ):
        run_id = make_run(store.client(), experiment, tags=tags, metrics=metrics)
        recalls = Reader(store).snapshot().runs.at[run_id, "recalls"]
        assert set(recalls) == shown
        assert sorted(recalls.values()) == pytest.approx([0.1, 0.2, 0.3])


def test_each_odd_run_has_the_state_that_it_is_in(odd):
    store, ids = odd
    runs = Reader(store).snapshot().runs
    assert "deleted" not in {kind for kind, run_id in ids.items() if run_id in runs.index}
    states = {kind: runs.loc[run_id, "status"] for kind, run_id in ids.items() if kind != "deleted"}
    assert states["gone"] == "stale"
    assert states["running"] == states["other_machine"] == "running"
    assert states["failed"] == "failed"
    assert runs.loc[ids["failed"], "reason"] == "ValueError: no data"
    assert runs.loc[ids["running"], "seconds_left"] == 180.0
    assert np.isnan(runs.loc[ids["nan"], "test_accuracy"])
    assert np.isnan(runs.loc[ids["nan"], "test_log_loss"])
    assert runs.loc[ids["nan"], "validation_accuracy"] == 0.3


@pytest.mark.parametrize(
    ("progressive", "done", "seconds"),
    [("", 2, 180.0), ("20:0.5", 2, 480.0), ("20:0.5", 10, 400.0), ("20:0.5", 12, 80.0), ("half", 2, 180.0)],
)
def test_what_is_left_of_a_run_is_told_by_the_size_of_the_images_to_come(
    new_store, progressive, done, seconds
):
    """Of 20 epochs, the last of which took 10 s; those at 40 px take four times as long as those at 20 px."""
    store = open_store()
    run_id = make_run(
        store.client(), store.experiment_id("odd"), status=None, tags={Tag.HOST: "elsewhere"},
        params={"epochs": "20", "image_size": "40", "progressive": progressive},
        metrics={"epoch_seconds": 10.0}, curve=[0.2] * done,
    )  # fmt: skip
    assert Reader(store).snapshot().runs.loc[run_id, "seconds_left"] == pytest.approx(seconds)


@pytest.mark.parametrize("epochs", ["1e15", "1.7e308", "nan", "-3", "many"])
def test_however_many_epochs_a_stranger_names_the_store_is_read(new_store, epochs):
    store = open_store()
    run_id = make_run(
        store.client(), store.experiment_id("odd"), status=None, tags={Tag.HOST: "elsewhere"},
        params={"epochs": epochs, "image_size": "40", "progressive": "20:0.5"},
        metrics={"epoch_seconds": 10.0}, curve=[0.2],
    )  # fmt: skip
    assert Reader(store).snapshot().runs.loc[run_id, "status"] == "running"


def test_a_silent_run_on_another_machine_turns_stale(odd, monkeypatch):
    store, ids = odd
    reader = Reader(store)
    assert reader.snapshot().runs.loc[ids["other_machine"], "status"] == "running"
    later = time.time() + 3600
    monkeypatch.setattr("trainer.store.reader.time.time", lambda: later)
    runs = reader.snapshot().runs
    assert runs.loc[ids["other_machine"], "status"] == "stale"
    assert runs.loc[ids["running"], "status"] == "running"  # its process is seen to live


def test_a_snapshot_is_read_again_only_when_the_store_has_changed(reader: Reader):
    first = reader.snapshot()
    assert reader.snapshot() is first
    client = reader.store.client()
    run_id = make_run(client, reader.store.experiment_id("fer2013"), "new")
    try:
        assert "new" in set(reader.snapshot().runs["name"])
    finally:
        client.delete_run(run_id)
    assert "new" not in set(reader.snapshot().runs["name"])


def test_versions_are_read_again_only_when_something_was_said_of_one(
    trained_once: Trained, workplace, monkeypatch
):
    store = own_store(trained_once)
    reader, client, asked = Reader(store), store.client(), []
    monkeypatch.setattr(reading, "all_versions", lambda store: asked.append(store) or all_versions(store))
    run_id = make_run(client, store.experiment_id("x"), status=None)
    for value in range(3):
        client.log_metric(run_id, "train/loss", float(value))
        version = reader.snapshot().versions[0]
    assert len(asked) == 1
    name, number = version.name, str(version.version)
    for change in (
        lambda: client.set_model_version_tag(name, number, "a", "b"),
        lambda: client.set_model_version_tag(name, number, "a", "c"),
        lambda: client.set_registered_model_alias(name, "other", number),
        lambda: client.update_model_version(name, number, "another card"),
        lambda: client.delete_registered_model_alias(name, "other"),
        lambda: client.delete_model_version(name, number),
    ):
        change()
        assert list(reader.snapshot().versions) == all_versions(store)
    assert len(asked) == 7


def test_an_empty_store_gives_empty_tables(new_store):
    snapshot = Reader(open_store()).snapshot()
    assert snapshot.runs.empty
    assert {"name", "status", "test_accuracy", "curve", "aliases"} <= set(snapshot.runs)
    assert snapshot.versions == ()


def test_a_step_that_was_logged_twice_counts_once_and_the_later_value(odd):
    store, _ = odd
    client = store.client()
    run_id = make_run(client, store.experiment_id("x"), curve=[0.1, 0.2])
    client.log_metric(run_id, "validation/accuracy", 0.5, int(time.time() * 1000) + 10_000, step=2)
    history = Reader(store).histories([run_id], ["validation/accuracy"])
    assert list(history["value"]) == [0.1, 0.5]


def test_time_is_that_of_training_without_the_pause_before_a_resume(odd):
    store, _ = odd
    client, experiment = store.client(), store.experiment_id("x")
    run_id, bare = (make_run(client, experiment) for _ in range(2))
    for step, (seconds, hour) in enumerate(((60.0, 0), (30.0, 0), (30.0, 12)), start=1):
        now = 1_700_000_000_000 + hour * 3_600_000 + step
        client.log_metric(run_id, "epoch_seconds", seconds, now, step)
        for one in (run_id, bare):
            client.log_metric(one, "validation/accuracy", 0.5, now, step)
    history = Reader(store).histories([run_id, bare], ["validation/accuracy"])
    assert list(history.loc[history["run_id"] == run_id, "seconds"]) == [60, 90, 120]
    assert history.loc[history["run_id"] == bare, "seconds"].iloc[-1] > 43_000  # it logged nothing else
    assert set(history["key"]) == {"validation/accuracy"}


def test_a_run_that_was_tested_again_has_the_new_test_set_among_its_parameters(odd):
    store, _ = odd
    client, experiment = store.client(), store.experiment_id("x")
    params, supports = (
        {"epochs": "3", "test_images": "40"},
        {"test/support/cat": 50.0, "test/support/dog": 30.0},
    )
    tags = {Tag.TEST_FINGERPRINT: "new", Tag.TESTED_AT: "2026-01-01T00:00:00+00:00"}
    again = make_run(
        client, experiment, params=params | {"test_fingerprint": "old"}, metrics=supports, tags=tags
    )
    fresh = make_run(
        client, experiment, params=params | {"test_fingerprint": "new", "test_images": "80"},
        metrics=supports, tags={Tag.TEST_FINGERPRINT: "new"},
    )  # fmt: skip
    snapshot = Reader(store).snapshot()
    assert snapshot.params[again] == snapshot.params[fresh]
    assert snapshot.runs.at[again, "configuration"] == snapshot.runs.at[fresh, "configuration"]


def test_seeds_share_a_configuration_and_other_changes_do_not(odd):
    store, _ = odd
    client, experiment = store.client(), store.experiment_id("x")
    params = {"learning_rate": "0.1", "epochs": "3"}
    same = [make_run(client, experiment, params=params | {"seed": seed, "git_commit": seed}) for seed in "01"]
    other = make_run(client, experiment, params=params | {"seed": "0", "learning_rate": "0.2"})
    runs = Reader(store).snapshot().runs["configuration"]
    assert runs[same[0]] == runs[same[1]] != runs[other]


@pytest.mark.parametrize("newest", [None, 20])
def test_a_tag_that_a_user_gave_hides_no_run(stocked, newest):
    store = open_store()
    client, tags = store.client(), (Tag.AUDIT, Tag.SWEEP, Tag.SWEEP_RUN)
    for tag in tags:
        make_run(client, store.experiment_id("x"), f"my {tag}", tags={tag: "passed"})
    reader = Reader(Store(store.uri, None), newest)
    for _ in range(2):
        snapshot = reader.snapshot()
        assert set(snapshot.runs["name"]) == {f"my {tag}" for tag in tags}
        assert (snapshot.audits, snapshot.sweeps, len(snapshot.trials)) == ((), (), 0)


def test_predictions_are_read_refused_or_missing_with_a_reason(odd):
    store, ids = odd
    reader = Reader(store)
    assert reader.predictions(ids["bare"]) is None
    assert set(reader.predictions(ids["other_classes"])["part"]) == {"test"}
    with pytest.raises(StoreError, match="they lack label"):
        reader.predictions(ids["foreign_table"])
    with pytest.raises(StoreError, match="cannot be read"):
        reader.predictions(ids["broken_table"])


def test_a_run_keeps_pictures_of_its_worst_mistakes(reader: Reader):
    run_id = reader.snapshot().runs.index[0]
    pictures = reader.worst_images(run_id)
    assert len(pictures) == 40  # all test images: there are fewer than a run keeps
    assert all(data.startswith(b"\x89PNG") for data in pictures.values())


@pytest.mark.parametrize(
    "write", [lambda id_, run: id_, lambda id_, run: id_[:7], lambda id_, run: run["name"]]
)
def test_a_run_is_found_by_id_beginning_or_name(reader: Reader, write):
    snapshot = reader.snapshot()
    run_id = snapshot.runs.index[0]
    assert find_run(snapshot, write(run_id, snapshot.runs.iloc[0])) == run_id


def test_a_run_is_found_by_its_version_or_alias_and_else_the_user_is_told(reader: Reader):
    snapshot = reader.snapshot()
    assert find_run(snapshot, "fer2013-emotion@champion") == snapshot.runs.index[1]
    assert find_run(snapshot, "fer2013-emotion/2") == snapshot.runs.index[0]
    with pytest.raises(StoreError, match="there is no run 'nothing'"):
        find_run(snapshot, "nothing")


def test_a_store_in_an_odd_folder_is_read(tmp_path: Path, monkeypatch):
    folder = tmp_path / "a folder with #odd names"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = open_store()
    make_run(store.client(), store.experiment_id("x"), "odd")
    assert list(Reader(store).snapshot().runs["name"]) == ["odd"]


def test_a_run_whose_clock_was_set_back_has_no_length(reader: Reader):
    client = reader.store.client()
    run_id = make_run(client, reader.store.experiment_id("fer2013"), "clock")
    try:
        client.set_terminated(run_id, "FINISHED", client.get_run(run_id).info.start_time - 1)
        assert np.isnan(reader.snapshot().runs.loc[run_id, "seconds"])
    finally:
        client.delete_run(run_id)

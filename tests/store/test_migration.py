"""Runs and models move to another store whole, however often it is tried."""

import shutil
import socket
from pathlib import Path

import mlflow.pytorch
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from tests.extra.grey_faces import Trained
from tests.extra.odd_runs import add_odd_runs, make_run
from trainer.__main__ import main
from trainer.contract import CHAMPION, EPOCH_METRICS, Tag
from trainer.store.location import Store, StoreError, embedded_uri, open_store
from trainer.store.migration import migrate
from trainer.store.migration.sides import Side
from trainer.store.models import load_bundle
from trainer.store.reader import Reader
from trainer.store.registry import find_version
from trainer.store.sweeps import begin_sweep, begin_trial, set_state


@pytest.fixture
def third(tmp_path: Path, empty_database: Path) -> Store:
    """One more store, besides `stocked` and `other`."""
    (tmp_path / "third").mkdir()
    shutil.copyfile(empty_database, tmp_path / "third/mlflow.db")
    return open_store(uri=f"sqlite:///{tmp_path}/third/mlflow.db")


def embedded() -> Store:
    return open_store(uri=embedded_uri(), create=False)


def originals(store: Store) -> dict[str, str]:
    """Id of a run → id of its original."""
    runs = store.client().search_runs([e.experiment_id for e in store.client().search_experiments()])
    return {run.info.run_id: run.data.tags[Tag.MIGRATED_FROM] for run in runs}


@pytest.mark.slow
def test_a_store_moves_to_a_server_and_its_models_answer_as_before(
    trained_copy: Trained, server, monkeypatch, capsys
):
    assert main(["migrate"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Copied 2 runs (0 were there), 2 versions (0 were there), 1 aliases")
    assert shown.endswith("Read back 2 runs and 2 versions, every value and file: all are alike.\n")
    here, there = embedded(), open_store(uri=server.uri)
    before, after = Reader(here).snapshot().runs, Reader(there).snapshot().runs
    known = originals(there)
    assert set(known.values()) == set(before.index)
    for run_id, row in after.iterrows():
        original = before.loc[known[run_id]]
        different = [c for c in before.columns if c != "configuration" and not same(row[c], original[c])]
        assert different == []
    one, other = Reader(here), Reader(there)
    for run_id, original in known.items():
        curves = [
            r.histories([i], EPOCH_METRICS).drop(columns="run_id")
            for r, i in ((one, original), (other, run_id))
        ]
        assert curves[0].equals(curves[1])
        assert one.predictions(original).equals(other.predictions(run_id))
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 48, 48), dtype=np.uint8)
    for number in (1, 2):
        versions = [find_version(store, f"fer2013-emotion/{number}") for store in (here, there)]
        assert versions[0].aliases == versions[1].aliases
        assert known[versions[1].run_id] == versions[0].run_id
        answers = []
        for store, version in zip((here, there), versions, strict=True):
            open_store(uri=store.uri)
            answers.append(load_bundle(version)(images))
        assert np.array_equal(*answers)
    as_mlflow = mlflow.pytorch.load_model(f"models:/fer2013-emotion@{CHAMPION}")
    with torch.no_grad():
        found = as_mlflow(torch.from_numpy(images / np.float32(255)))
    champion = load_bundle(find_version(there, f"fer2013-emotion@{CHAMPION}"))
    np.testing.assert_allclose(found.numpy(), champion(images), atol=1e-5)
    assert main(["migrate", "--from", here.uri]) == 0
    assert "Copied 0 runs (2 were there), 0 versions (2 were there), 0 aliases" in capsys.readouterr().out


def same(one: object, other: object) -> bool:
    return one == other or (one != one and other != other)


@pytest.mark.slow
def test_an_interrupted_migration_goes_on_and_nothing_is_there_twice(trained_copy: Trained, other: Store):
    def pull_the_plug() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migrate(embedded(), other, advance=pull_the_plug)
    known = originals(other)
    assert len(known) == 1
    # As if it had happened within the run: it is not marked whole, and a file was sent by half.
    client, run_id = other.client(), next(iter(known))
    client.delete_tag(run_id, Tag.MIGRATED_WHOLE)
    file = other.artifact_root / run_id / "artifacts" / "evaluation" / "predictions.parquet"
    file.write_bytes(file.read_bytes()[:-7] + b"garbage")
    report = migrate(embedded(), other)
    assert (report.runs, report.runs_there, report.versions, report.different) == (2, 0, 2, [])
    assert sorted(originals(other).values()) == sorted(Reader(embedded()).snapshot().runs.index)
    again = migrate(embedded(), other, check_all=True)
    assert (again.runs, again.files, again.checked_runs, again.checked_versions) == (0, 0, 2, 2)
    assert not again.different


def test_a_copy_that_was_changed_is_found(trained_copy: Trained, other: Store, capsys):
    migrate(embedded(), other)
    client = other.client()
    run_id = next(iter(originals(other)))
    client.log_metric(run_id, "test/accuracy", 0.123)
    weights = next(other.artifact_root.glob("models/*/artifacts/extra_files/weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert main(["migrate", "--from", embedded_uri(), "--to", other.uri, "--check"]) == 1
    shown = capsys.readouterr().out
    assert "metrics" in shown
    assert "differs: fer2013-emotion/" in shown
    assert "2 differ." in shown


def test_what_changes_in_a_run_later_is_copied_again(trained_copy: Trained, other: Store):
    migrate(embedded(), other)
    run_id = Reader(embedded()).snapshot().runs.index[0]
    client = embedded().client()
    client.log_metric(run_id, "export/fp32_bytes", 5.0)
    try:
        report = migrate(embedded(), other)
    finally:
        client.delete_run(run_id)
        client.restore_run(run_id)
    assert (report.runs, report.runs_there) == (1, 1)
    copy = next(key for key, value in originals(other).items() if value == run_id)
    assert other.client().get_run(copy).data.metrics["export/fp32_bytes"] == 5.0


def test_a_dataset_may_lie_elsewhere_in_a_store_that_knows_it_already(stocked, other: Store):
    here = open_store(uri=embedded_uri())
    for store, folder in ((here, "data/fer2013"), (other, "/srv/fer2013")):
        run_id = make_run(store.client(), store.experiment_id("fer2013-emotion"))
        dataset = Dataset("fer2013-train", "2b74a014", "local", f'{{"uri": "{folder}"}}')
        store.client().log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "train")])])
    report = migrate(here, other)
    assert (report.runs, report.different) == (1, [])
    (copy,) = (
        run.info.run_id for run in other.client().search_runs(["1"], f"tags.`{Tag.MIGRATED_FROM}` != ''")
    )
    (known,) = other.client().get_run(copy).inputs.dataset_inputs
    assert (known.dataset.name, known.dataset.digest) == ("fer2013-train", "2b74a014")


def test_odd_runs_are_copied_as_they_are_and_running_ones_are_left(stocked, other: Store):
    here, there = open_store(uri=embedded_uri()), other
    ids = add_odd_runs(here)
    report = migrate(here, there)
    assert report.different == []
    assert sorted(line.partition(":")[0] for line in report.left_out) == ["run other", "run running"]
    back = {value: key for key, value in originals(there).items()}
    assert set(back) == set(ids.values()) - {ids["running"], ids["other_machine"], ids["deleted"]}
    assert np.isnan(there.client().get_run(back[ids["nan"]]).data.metrics["test/accuracy"])
    assert Reader(there).snapshot().runs.loc[back[ids["gone"]], "status"] == "stale"


def add_sweep(store: Store) -> tuple[str, str]:
    """Ids of a sweep that this process has begun, and of its trial, which has ended."""
    sweep = begin_sweep(store, "x", "lr", "learning_rate=0.001:0.1:log", {}, {"epochs": 3})
    with begin_trial(store, "x", sweep, 0, {}) as trial:
        trial.log_metrics({"validation/accuracy": 0.4}, step=1)
    return sweep, trial.run_id


def sweep_of_trials(store: Store) -> tuple[list[str], list[str]]:
    """Ids of the sweeps, and for each trial that of its sweep, by both of its tags."""
    snapshot = Reader(store).snapshot()
    parents = [store.client().get_run(i).data.tags["mlflow.parentRunId"] for i in snapshot.trials.index]
    assert parents == list(snapshot.trials["sweep"])
    return [sweep.run_id for sweep in snapshot.sweeps], parents


def test_a_copied_sweep_keeps_its_trials(stocked, other: Store, monkeypatch):
    here = open_store(uri=embedded_uri())
    sweep, _ = add_sweep(here)
    set_state(here, sweep, "FINISHED")
    with monkeypatch.context() as patch:  # as migrations were before they knew of sweeps
        patch.setattr("trainer.store.migration.runs.PARENTS", set())
        migrate(here, other)
    assert sweep_of_trials(other)[1] == [sweep]
    for copied in (1, 0):
        report = migrate(here, other, check_all=True)
        assert (report.runs, report.runs_there, report.different) == (copied, 2 - copied, [])
        [copy], parents = sweep_of_trials(other)
        assert copy != sweep
        assert parents == [copy]


def test_a_sweep_that_goes_on_is_left_out_and_has_its_trials_later(stocked, other: Store):
    here = open_store(uri=embedded_uri())
    sweep, trial = add_sweep(here)
    report = migrate(here, other)
    assert report.left_out == ["run lr: it goes on; repeat this when it has ended"]
    assert sweep_of_trials(other) == ([], [sweep])
    here.client().set_tag(
        sweep, Tag.PID, "999999999"
    )  # begun by a worker that is gone, gone on with by another
    here.client().update_run(trial, "RUNNING")
    assert len(migrate(here, other).left_out) == 2
    here.client().set_terminated(trial, "KILLED")
    assert migrate(here, other, check_all=True).left_out == []
    [copy], parents = sweep_of_trials(other)
    assert parents == [copy]


@pytest.mark.slow
def test_a_copy_is_copied_on_and_found_again(stocked, other: Store, third: Store):
    here = open_store(uri=embedded_uri())
    make_run(here.client(), here.experiment_id("x"), "one")
    migrate(here, other)
    for copied in (1, 0):
        report = migrate(other, third)
        assert (report.runs, report.runs_there, report.different) == (copied, 1 - copied, [])
    assert set(originals(third).values()) == set(originals(other))


def test_what_comes_back_to_where_it_began_is_there_already(stocked, other: Store, third: Store):
    here = open_store(uri=embedded_uri())
    run_id = make_run(here.client(), here.experiment_id("x"), "one")
    here.client().create_registered_model("x-emotion")
    here.client().create_model_version("x-emotion", f"runs:/{run_id}/model", run_id)
    migrate(here, other)
    own = make_run(other.client(), other.experiment_id("x"), "two")
    report = migrate(other, here)
    assert (report.runs, report.runs_there, report.versions, report.versions_there) == (1, 1, 0, 1)
    assert (report.left_out, report.different) == ([], [])
    runs = here.client().search_runs([here.experiment_id("x")])
    assert {run.info.run_name: run.data.tags.get(Tag.MIGRATED_FROM) for run in runs} == {
        "one": None,
        "two": own,
    }
    migrate(here, third)
    report = migrate(other, third)  # "one" has come there from elsewhere, and "two" as a copy's copy
    assert (report.runs_there, report.versions, report.versions_there) == (1, 0, 1)


def test_a_run_that_ends_while_the_store_is_read_is_left_for_the_next_time(
    stocked, other: Store, monkeypatch
):
    here = open_store(uri=embedded_uri())
    run_id = make_run(here.client(), here.experiment_id("x"), "one", status=None)
    read = Side.runs

    def ends(side: Side, *view: int) -> list:
        found = read(side, *view)
        if side.store == here:
            here.client().set_terminated(run_id)
        return found

    monkeypatch.setattr(Side, "runs", ends)
    assert migrate(here, other).left_out == ["run one: it goes on; repeat this when it has ended"]
    monkeypatch.undo()
    assert migrate(here, other).runs == 1


def test_a_copy_of_a_failed_run_that_has_gone_on_and_was_lost_goes_on_too(stocked, other: Store):
    here = open_store(uri=embedded_uri())
    gone = {Tag.HOST: socket.gethostname(), Tag.PID: "999999999"}
    run_id = make_run(here.client(), here.experiment_id("x"), "one", status="FAILED", tags=gone)
    migrate(here, other)
    here.client().update_run(run_id, "RUNNING")
    for _ in range(2):
        assert migrate(here, other).different == []
    [copy] = other.client().search_runs([other.experiment_id("x")])
    assert copy.info.status == "RUNNING"


def test_versions_keep_their_numbers_and_an_alias_that_is_taken_stays(stocked, other: Store):
    there, here = other, open_store(uri=embedded_uri())
    client = here.client()
    run_id = make_run(client, here.experiment_id("x"), "one")
    model = client.create_logged_model(client.get_run(run_id).info.experiment_id, "model", run_id)
    client.finalize_logged_model(model.model_id, "READY")
    client.create_registered_model("x-emotion")
    for _ in range(4):
        client.create_model_version("x-emotion", f"models:/{model.model_id}", run_id)
    for number in ("1", "3"):
        client.delete_model_version("x-emotion", number)
    client.set_registered_model_alias("x-emotion", CHAMPION, "4")
    assert migrate(here, there).different == []
    versions = there.client().search_model_versions("name='x-emotion'")
    assert sorted(int(version.version) for version in versions) == [2, 4]
    assert there.client().get_registered_model("x-emotion").aliases == {CHAMPION: 4}
    client.set_registered_model_alias("x-emotion", CHAMPION, "2")
    report = migrate(here, there)
    assert report.left_out == ["x-emotion@champion: it stays version 4 there, and would be 2"]


def add_version(store: Store, name: str = "x-emotion") -> tuple[str, str]:
    """NAME/1, of a run and its model, whose ids are returned."""
    client = store.client()
    run_id = make_run(client, store.experiment_id("x"), "one")
    model = client.create_logged_model(client.get_run(run_id).info.experiment_id, "model", run_id)
    client.finalize_logged_model(model.model_id, "READY")
    client.create_registered_model(name)
    client.create_model_version(name, f"models:/{model.model_id}", run_id, {"old": "1"})
    return run_id, model.model_id


@pytest.mark.slow
def test_a_version_whose_model_was_deleted_is_left_out_and_stops_nothing(stocked, other: Store):
    here = open_store(uri=embedded_uri())
    _, early = add_version(here, "a")
    here.client().delete_logged_model(early)
    _, late = add_version(here, "b")
    report = migrate(here, other)
    assert (report.versions, report.different) == (1, [])
    assert report.left_out == [
        "a/1: its run was not copied, its model was deleted, or its files lie elsewhere"
    ]
    here.client().delete_logged_model(late)
    report = migrate(here, other, check_all=True)
    assert (report.versions_there, report.different) == (1, [])
    assert report.left_out[1:] == ["b/1: its model was deleted: nothing to compare the copy with"]


def test_runs_that_are_deleted_here_or_there_make_no_difference_and_do_not_come_back(stocked, other: Store):
    here = open_store(uri=embedded_uri())
    (gone, _), (kept, _) = add_version(here, "a"), add_version(here, "b")
    migrate(here, other)
    here.client().delete_run(gone)
    report = migrate(here, other, check_all=True)
    assert (report.left_out, report.different, report.checked_versions) == ([], [], 2)
    copy = next(key for key, value in originals(other).items() if value == kept)
    other.client().delete_run(copy)
    report = migrate(here, other, check_all=True)
    assert (report.runs, report.different) == (0, [])
    assert report.left_out == ["run one: its copy was deleted"]
    assert len(originals(other)) == 1


def test_a_model_with_quotes_in_its_name_is_copied(stocked, other: Store):
    here = open_store(uri=embedded_uri())
    for name in ("o'brien", 'a "better" one'):
        add_version(here, name)
    for copied in (2, 0):
        report = migrate(here, other)
        assert (report.versions, report.left_out, report.different) == (copied, [], [])


def test_what_is_said_of_a_version_later_is_brought(stocked, other: Store):
    here = open_store(uri=embedded_uri())
    add_version(here)
    migrate(here, other)
    client = here.client()
    tags = {Tag.PROMOTED_AT: "2026-01-02", Tag.PROMOTED_BY: "ann", Tag.TEST_ACCURACY: "0.7", "old": "2"}
    for key, value in tags.items():
        client.set_model_version_tag("x-emotion", "1", key, value)
    client.update_model_version("x-emotion", "1", "better")
    for checked in (1, 0):
        report = migrate(here, other)
        assert (report.versions_there, report.checked_versions, report.different) == (1, checked, [])
    copy = other.client().get_model_version("x-emotion", "1")
    assert copy.description == "better"
    assert {key: copy.tags[key] for key in tags} == tags
    assert Tag.MIGRATED_FROM in copy.tags


def test_a_later_promotion_in_the_other_store_is_kept(stocked, other: Store):
    here = open_store(uri=embedded_uri())
    add_version(here)
    migrate(here, other)
    for store, day, who in ((here, "2026-01-02", "ann"), (other, "2026-01-03", "pia")):
        store.client().set_model_version_tag("x-emotion", "1", Tag.PROMOTED_AT, day)
        store.client().set_model_version_tag("x-emotion", "1", Tag.PROMOTED_BY, who)
    assert migrate(here, other, check_all=True).different == []
    assert other.client().get_model_version("x-emotion", "1").tags[Tag.PROMOTED_BY] == "pia"


@pytest.mark.slow
def test_what_fills_a_number_is_deleted_by_who_may_delete(stocked, other: Store, third: Store, monkeypatch):
    here = open_store(uri=embedded_uri())
    run_id, model_id = add_version(here)
    for _ in range(2):
        here.client().create_model_version("x-emotion", f"models:/{model_id}", run_id)
    here.client().delete_model_version("x-emotion", "2")

    def refuse(*_: object) -> None:
        raise MlflowException("Permission denied", error_code=PERMISSION_DENIED)

    for _ in range(2):
        with monkeypatch.context() as as_trainer:
            as_trainer.setattr(MlflowClient, "delete_model_version", refuse)
            report = migrate(here, other)
        [line] = report.left_out
        assert line.startswith("x-emotion/3: its number needs version 2 to be made and deleted again")
    assert migrate(other, third).versions == 1  # what fills a number is no version
    assert migrate(here, other).left_out == []
    found = other.client().search_model_versions("name = 'x-emotion'")
    assert sorted(int(version.version) for version in found) == [1, 3]
    assert all(Tag.MIGRATED_FROM in version.tags for version in found)


def test_two_migrations_into_one_store_do_not_run_at_once(stocked, other: Store):
    make_run(embedded().client(), "0")
    refused = []

    def another(*_: object) -> None:
        with pytest.raises(
            StoreError, match=r"another migration into .* goes on: repeat this when it has ended"
        ):
            migrate(embedded(), other)
        refused.append(True)

    assert migrate(embedded(), other, started=another).runs == 1
    assert refused
    assert migrate(embedded(), other).runs_there == 1


def test_a_store_is_not_copied_into_itself(stocked, capsys):
    store = open_store()
    with pytest.raises(StoreError, match="is named twice"):
        migrate(store, store)
    assert main(["migrate"]) == 2
    assert "name the one that receives with --to" in capsys.readouterr().err


@pytest.mark.parametrize(
    "address", ["mlruns/mlflow.db", "{}/mlruns/../mlruns/mlflow.db", "{}/link/mlflow.db"]
)
def test_a_store_that_goes_by_two_addresses_is_not_copied_into_itself(stocked, capsys, address: str):
    client = open_store().client()
    make_run(client, "0")
    (stocked / "link").symlink_to("mlruns")
    assert main(["migrate", "--from", embedded_uri(), "--to", f"sqlite:///{address.format(stocked)}"]) == 2
    assert "both stores are" in capsys.readouterr().err
    assert len(client.search_runs(["0"])) == 1


def test_a_store_is_not_copied_into_one_that_holds_its_runs_under_their_own_ids(stocked, capsys):
    store = open_store()
    make_run(store.client(), store.experiment_id("x"))
    shutil.copytree("mlruns", "again")
    again = open_store(uri=f"sqlite:///{stocked}/again/mlflow.db")
    with pytest.raises(StoreError, match="both are one store, or one is a copy"):
        migrate(store, again)
    assert len(again.client().search_runs([again.experiment_id("x")])) == 1

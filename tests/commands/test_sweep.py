"""A sweep by command: its trials, workers that share a study, come and go, and what is refused."""

import multiprocessing
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from unittest.mock import Mock

import pandas as pd
import pytest
import torch
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState
from sqlalchemy.exc import OperationalError

from tests.extra.grey_faces import Trained
from tests.extra.same_store import assert_same
from trainer.__main__ import main
from trainer.commands.sweep import parse
from trainer.contract import Tag
from trainer.search import default_space, parse_space
from trainer.store.location import StoreError, open_store
from trainer.store.reader import Reader
from trainer.store.rows import ClientRows
from trainer.store.snapshot import Snapshot
from trainer.training.loop import CompilationError, Epoch, fit

FLAGS = [
    "--hidden",
    "32",
    "--image-size",
    "32",
    "--progressive",
    "None",
    "--batch-size",
    "16",
    "--augmentation",
    "0",
    "--device",
    "cpu",
]
FLAGS += ["--blocks", "8 16"]
SEARCH = ["--search", "learning_rate=1e-3:1e-1:log", "--search", "dropout=0:0.5"]
FORK = multiprocessing.get_context("fork")  # a new interpreter would import torch for seconds


@pytest.fixture
def faces(trained: Trained) -> list[str]:
    """The flags that name the data."""
    return ["--data-dir", str(trained.data_dir)]


def sweep(faces: list[str], *flags: str) -> int:
    return main(["sweep", *faces, *FLAGS, *flags])


def snapshot() -> Snapshot:
    return Reader(open_store(create=False)).snapshot()


def trials_of(study: str) -> pd.DataFrame:
    """In the order of their numbers."""
    found = snapshot()
    runs = [sweep.run_id for sweep in found.sweeps if sweep.name == study]
    return found.trials[found.trials["sweep"].isin(runs)].sort_values("trial")


def worker(faces: list[str], *flags: str) -> "multiprocessing.context.ForkProcess":
    def work() -> None:
        os._exit(sweep(faces, *flags))

    process = FORK.Process(target=work)
    process.start()
    return process


def test_trials_are_children_of_one_run_prune_what_falls_behind_and_never_see_test(faces, capsys):
    flags = [
        "--epochs",
        "2",
        "--startup",
        "1",
        "--search",
        "learning_rate=0.004,1e-9,2e-9,3e-9,4e-9",
        "--search",
        "seed=0,1",
    ]
    assert sweep(faces, *flags) == 2  # the best seed is no setting
    flags, before = flags[:-2], snapshot()
    assert sweep(faces, *flags, "--trials", "8", "--study", "rates") == 0
    said = capsys.readouterr().out
    found, trials = snapshot(), trials_of("rates")
    [parent] = [one for one in found.sweeps if one.name == "rates"]
    assert (parent.name, [str(one) for one in parent.space]) == (
        "rates",
        ["learning_rate=0.004,1e-09,2e-09,3e-09,4e-09"],
    )
    assert list(found.runs.index) == list(before.runs.index)
    assert found.versions == before.versions
    assert len(trials) == 8
    assert set(trials["sweep"]) == {parent.run_id}
    assert sorted(trials["trial"]) == list(range(8))
    slow = [found.params[run_id]["learning_rate"] != "0.004" for run_id in trials.index]
    pruned = trials["status"] == "pruned"
    assert pruned.any()
    assert trials.index[pruned].isin(trials.index[slow]).all()
    assert set(trials.loc[pruned, "epochs_done"]) == {1}
    assert set(trials.loc[~pruned, "epochs_done"]) == {2}
    assert trials["test_accuracy"].isna().all()
    assert not any("test" in name for run_id in trials.index for name in found.params[run_id])
    client = open_store().client()
    run = client.get_run(trials.index[0])
    assert run.data.tags["mlflow.parentRunId"] == parent.run_id
    assert not any(key.startswith("test") for key in run.data.metrics)
    assert client.get_run(parent.run_id).info.status == "FINISHED"
    best = trials.loc[trials["validation_accuracy"].idxmax()]
    assert f"with {best['validation_accuracy']:.3f} validation accuracy: learning_rate 0.004" in said
    assert f"8 trials, {pruned.sum()} pruned." in said

    through_mlflow = Reader(open_store())
    through_mlflow._rows = ClientRows(client)
    assert_same(Reader(open_store()), through_mlflow)

    [command] = [
        shlex.split(line) for line in said.splitlines() if line.startswith("  python -m trainer train ")
    ]
    from trainer.commands.train import parse as parse_train

    config, _ = parse_train(command[4:])
    assert (config.learning_rate, config.blocks, config.epochs) == (
        0.004,
        "8 16",
        36,
    )  # the recipe's, in full


@pytest.fixture(params=["sqlite", "postgresql"])
def anywhere(request: pytest.FixtureRequest, faces: list[str]) -> list[str]:
    """`faces`, for sweeps in the embedded store, then on a server whose PostgreSQL also holds the studies."""
    if request.param == "postgresql":
        server, patch = request.getfixturevalue("server"), request.getfixturevalue("monkeypatch")
        patch.setenv("MOODIFY_SWEEP_STORAGE", new_database(server.database))
    return faces


def new_database(address: str) -> str:
    """Another one in the same PostgreSQL, empty; its address."""
    import psycopg2

    connection = psycopg2.connect(address)
    connection.autocommit = True
    connection.cursor().execute("DROP DATABASE IF EXISTS sweeps WITH (FORCE)")
    connection.cursor().execute("CREATE DATABASE sweeps")
    connection.close()
    return address.rpartition("/")[0] + "/sweeps"


@pytest.mark.slow
def test_two_workers_share_a_study_and_the_same_command_goes_on_with_it(anywhere):
    faces = anywhere
    common = [*SEARCH, "--epochs", "1", "--study", "shared"]
    workers = [worker(faces, *common, "--trials", "4") for _ in range(2)]
    for process in workers:
        process.join(60)
        assert process.exitcode == 0
    assert trials_of("shared")["trial"].tolist() == [0, 1, 2, 3]
    assert [one.name for one in snapshot().sweeps].count("shared") == 1
    assert sweep(faces, *common, "--trials", "5") == 0
    assert len(trials_of("shared")) == 5
    assert sweep(faces, *common, "--trials", "5") == 0  # it has them
    assert len(trials_of("shared")) == 5


def test_a_trial_that_diverges_after_an_epoch_has_failed_and_was_not_pruned(faces, monkeypatch, capsys):
    monkeypatch.setattr("trainer.training.sweep.fit", diverging)
    assert sweep(faces, "--epochs", "2", "--trials", "1", "--search", "dropout=0:0.5", "--study", "late") == 0
    assert "1 trials, 0 pruned, 1 could not be trained" in capsys.readouterr().out


OUT_OF_MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 99999999999 bytes."


@pytest.mark.parametrize(
    ("error", "search"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "dropout=0:0.5"),
        (RuntimeError(OUT_OF_MEMORY), "dropout=0:0.5"),
        (CompilationError("the network cannot be compiled here"), "compile=False,True"),
    ],
)
def test_a_setting_that_this_machine_cannot_train_ends_its_trial_alone(
    faces, monkeypatch, capsys, error, search
):
    monkeypatch.setattr("trainer.training.sweep.fit", Mock(side_effect=error))
    flags = ["--epochs", "1", "--trials", "1", "--search", search, "--study", type(error).__name__]
    assert sweep(faces, *flags) == 0
    assert "1 trials, 0 pruned, 1 could not be trained" in capsys.readouterr().out


@pytest.mark.slow
def test_where_every_trial_would_be_compiled_and_cannot_be_the_sweep_ends(faces, monkeypatch, capsys):
    error = CompilationError("the network cannot be compiled here: give --compile False")
    monkeypatch.setattr("trainer.training.sweep.fit", Mock(side_effect=error))
    assert sweep(faces, "--compile", "True", "--search", "dropout=0:0.5", "--study", "compiled") == 2
    assert "error: the network cannot be compiled here: give --compile False" in capsys.readouterr().err


def diverging(*arguments: object) -> Iterator[Epoch]:
    for epoch in fit(*arguments):
        yield epoch
        raise FloatingPointError("the training loss became nan in epoch 2: lower --learning-rate")


def test_joining_with_other_settings_or_other_data_is_refused(faces, trained, tmp_path, capsys):
    assert sweep(faces, *SEARCH, "--epochs", "1", "--trials", "1") == 0
    [trial] = trials_of("fer2013-cnn-fast").index
    run = open_store().client().get_run(trial)
    assert (run.data.tags[Tag.TRIAL], run.info.run_name) == ("0", "trial 0")
    assert sweep(faces, *SEARCH, "--epochs", "2", "--trials", "1") == 2
    assert "begun with other settings (they differ in: epochs)" in capsys.readouterr().err
    assert sweep(faces, *SEARCH[:2], "--epochs", "1", "--trials", "1") == 2
    assert "dropout=0:0.5" in capsys.readouterr().err
    fewer = tmp_path / "fewer"
    subprocess.run(["cp", "-r", trained.data_dir, fewer], check=True)
    next((fewer / "train" / "happy").iterdir()).unlink()
    assert sweep(["--data-dir", str(fewer)], *SEARCH, "--epochs", "1", "--trials", "2") == 2
    assert "begun with other data" in capsys.readouterr().err


def test_what_stops_a_sweep_is_told_also_where_its_store_is_gone_by_then(faces, monkeypatch, capsys, caplog):
    def fail(*arguments: object) -> None:
        monkeypatch.setattr("trainer.training.sweep.set_state", lost)
        raise ValueError("no luck")

    def lost(*arguments: object) -> None:
        raise StoreError("the store is gone")

    monkeypatch.setattr("trainer.training.sweep.Worker.work", fail)
    assert sweep(faces, *SEARCH, "--epochs", "1", "--trials", "1", "--study", "gone") == 2
    assert "no luck" in capsys.readouterr().err
    assert "How the sweep ended could not be logged: the store is gone" in caplog.text
    [parent] = [one.run_id for one in snapshot().sweeps if one.name == "gone"]
    open_store().client().delete_run(parent)


@pytest.mark.parametrize("where", ["set_trial_intermediate_value", "set_trial_state_values"])
def test_a_database_that_fails_on_the_way_is_told_in_one_line(faces, monkeypatch, capsys, where):
    really = getattr(RDBStorage, where)

    def fails(storage: RDBStorage, *given: object, **named: object) -> object:
        """As a trial goes on, or as its end is written down."""
        if named.get("state") == TrialState.RUNNING:
            return really(storage, *given, **named)
        raise StorageInternalError from OperationalError("SELECT 1", {}, Exception("the disk is away"))

    monkeypatch.setattr(RDBStorage, where, fails)
    assert sweep(faces, *SEARCH, "--epochs", "1", "--trials", "3", "--study", where) == 2
    said = capsys.readouterr().err
    assert "error: the storage of sweeps cannot be used (see MOODIFY_SWEEP_STORAGE): the disk is away" in said
    assert "Traceback" not in said


def test_whose_trial_another_has_taken_over_takes_the_next(faces, monkeypatch, capsys, caplog):
    reported = Trial.report

    def late(trial: Trial, value: float, step: int) -> None:
        if trial.number == 0:
            # As whoever finds it silent.
            trial.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        reported(trial, value, step)

    monkeypatch.setattr(Trial, "report", late)
    assert sweep(faces, *SEARCH, "--epochs", "1", "--trials", "1", "--study", "silent") == 0
    assert "another has taken over its trial" in caplog.text
    assert "Study silent: 1 trials" in capsys.readouterr().out


def test_what_the_store_does_not_take_is_tried_again(faces, monkeypatch, capsys):
    def away(*_: object) -> None:
        raise StoreError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr("trainer.training.sweep.begin_trial", away)
        assert sweep(faces, *SEARCH, "--epochs", "1", "--trials", "1", "--study", "away") == 2
    assert "the store is away" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(
            "trainer.training.sweep.set_state", lambda *given: away() if given[2] != "RUNNING" else None
        )
        assert sweep(faces, *SEARCH, "--epochs", "1", "--trials", "1", "--study", "away") == 0
    # The recipe itself, which would have been the first trial; and what came of it is told.
    assert "learning_rate 0.004, dropout 0.3" in capsys.readouterr().out


@pytest.mark.slow
def test_mlflows_own_database_is_refused_and_stays_as_it_is(faces, server, monkeypatch, capsys):
    monkeypatch.setenv("MOODIFY_SWEEP_STORAGE", server.database)
    before = tables(server.database)
    assert sweep(faces, *SEARCH, "--epochs", "1", "--trials", "1") == 2
    assert "MLflow's tables: make a database for sweeps alone" in capsys.readouterr().err
    assert tables(server.database) == before


def tables(address: str) -> tuple[list[str], str]:
    """Their names, and the version that MLflow keeps of itself."""
    import psycopg2

    with psycopg2.connect(address) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        names = [name for (name,) in cursor.fetchall()]
        cursor.execute("SELECT version_num FROM alembic_version")
        return names, cursor.fetchone()[0]


@pytest.mark.slow
def test_the_trial_of_a_killed_worker_and_of_a_stopped_one_is_tried_again(anywhere):
    faces = anywhere
    common = [*SEARCH, "--epochs", "4000", "--trials", "1", "--patience", "2", "--study", "unlucky"]
    values = []
    for number in (signal.SIGKILL, signal.SIGINT):
        process = worker(faces, *common)
        running = wait_for_an_epoch(len(values))
        values.append([snapshot().params[running][name] for name in ("learning_rate", "dropout")])
        os.kill(process.pid, number)
        process.join(30)
        assert process.exitcode != 0
    trials = trials_of("unlucky")
    assert values[0] == values[1]
    assert trials["status"].tolist() == ["stopped", "stopped"]
    assert trials["reason"].tolist() == ["its worker died: trial 1 tries again", "interrupted"]
    parent = open_store().client().get_run(trials["sweep"].iloc[0])
    assert parent.info.status == "KILLED"
    import optuna

    storage = os.environ.get("MOODIFY_SWEEP_STORAGE", "sqlite:///mlruns/sweeps.db")
    study = optuna.load_study(
        study_name="unlucky", storage=storage.replace("postgresql:", "postgresql+psycopg2:")
    )
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL", "WAITING"]
    assert study.trials[2].system_attrs["fixed_params"] == study.trials[1].params


def wait_for_an_epoch(trial: int) -> str:
    """The id of the run of a trial, once it has logged an epoch."""
    for _ in range(200):
        time.sleep(0.1)
        trials = trials_of("unlucky")
        begun = trials[(trials["trial"] == trial) & (trials["epochs_done"] > 0)]
        if len(begun):
            return str(begun.index[0])
    raise AssertionError("no epoch was logged")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--search", "colour=1:2"], "there is no setting 'colour'"),
        (["--search", "learning_rate"], "write NAME=LOW:HIGH"),
        (["--search", "dropout=0.5:0.1"], "the range is empty"),
        (["--search", "dropout=0.5:0.5"], "the range is empty"),
        (["--search", "dropout=nan:0.5"], "the range is empty"),
        (["--search", "dropout=0:0.5:log"], "a logarithmic range must begin above 0"),
        (["--search", "dropout=0:0.5:lin"], "only :log may follow"),
        (["--search", "dropout=0:2"], "--dropout 2.0: must lie between 0 and 0.95"),
        (["--search", "dropout=low:high"], "'low:high' is no range of numbers"),
        (["--search", "batch_size=1.5:8"], "is no range of whole numbers"),
        (["--search", "optimizer=sgd,sdg"], "optimizer takes no such value"),
        (["--search", "mixup=0:0.4"], "begin there, or name choices such as mixup=0,0.1,0.2"),
        (["--search", "optimizer=sgd"], "there is nothing to choose between; give --optimizer instead"),
        (["--search", "dropout=0:0.1", "--search", "dropout=0:0.2"], "it is given twice"),
        (["--search", "seed=0:9"], "seed is not searched"),
        (["--search", "validation_seed=0:9"], "judged on different images"),
        (["--teacher", "fer2013-emotion/1"], "a sweep's trials learn from the labels alone"),
        (["--search", "teacher-weight=0:1"], "trials learn from the labels alone"),
        (["--search", "start-from=a/1,b/1"], "trials begin with random weights or ImageNet's"),
        (["--search", "batch-size=16,32"], "--batch-size is given, and searched as well"),
        (["--trials", "0"], "--trials 0: must be 1 or more"),
        (["--patience", "0"], "--patience 0: must be 2 or more"),
        (["--patience", "40000000000"], "--patience 40000000000: must be 604800 or less"),
        (["--study", " "], "--study: a name"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_clear_line(workplace, capsys, flags, message):
    assert main(["sweep", "--batch-size", "32", *flags]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert message in errors[0]
    assert not (workplace / "mlruns").exists()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("sqlite:////proc/none/sweeps.db", "unable to open database file"),
        ("postgresql://ann:hush-hush@127.0.0.1:9/sweeps", "onnection refused"),
        ("postgresql://ann:hush-hush@127.0.0.1:port/sweeps", "cannot be used"),
        ("mysql://ann:hush-hush@127.0.0.1/sweeps", "must be postgresql://"),
    ],
)
def test_a_storage_that_cannot_be_used_is_told_without_its_password(
    trained, monkeypatch, capsys, address, message
):
    monkeypatch.setenv("MOODIFY_SWEEP_STORAGE", address)
    assert main(["sweep", "--dataset", "sketch", "--trials", "1"]) == 2
    said = capsys.readouterr()
    [error] = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert message in error
    assert "hush" not in said.err + said.out


def test_without_a_search_what_matters_varies_around_the_recipe():
    config = parse([]).config
    assert [str(one) for one in default_space(config)] == [
        "learning_rate=0.0008:0.02:log", "dropout=0:0.6", "label_smoothing=0:0.2", "augmentation=0:1.5",
    ]  # fmt: skip
    texts = [str(one) for one in default_space(config)]
    assert [str(one) for one in parse_space(texts, config)] == texts


def test_a_sweep_settles_once_where_its_networks_begin_and_varies_what_it_says(trained: Trained, monkeypatch):
    monkeypatch.setattr(
        "trainer.models.resnet.imagenet_state", Mock(side_effect=OSError("there is no network"))
    )
    flags = ["--data-dir", str(trained.data_dir), "--architecture", "resnet18", "--pretrained", "auto"]
    flags += ["--width", "8", "--search", "optimizer=adamw,sgd", "--trials", "2", "--epochs", "1"]
    assert main(["sweep", *flags, "--study", "settled"]) == 0
    snapshot = Reader(open_store(create=False)).snapshot()
    sweep = next(one for one in snapshot.sweeps if one.name == "settled")
    trials = snapshot.trials[snapshot.trials["sweep"] == sweep.run_id]
    tried = [snapshot.params[run_id] for run_id in trials.index]
    assert {params["pretrained"] for params in tried} == {"none"}
    assert {params["optimizer"] for params in tried} <= {"adamw", "sgd"}

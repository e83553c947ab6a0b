"""What most tests share: a place of their own for store and cache, and runs that were really trained."""

import contextlib
import functools
import json
import os
import shutil
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Tests run two at a time: threads of both on the same cores would slow each other down more than tenfold.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from filelock import FileLock

from tests.extra.grey_faces import ARCHITECTURE_FLAGS, Trained, write_grey_folder
from tests.extra.servers import Server, postgres_programs, start_server

# Where tests run two at a time, a third process reads this file, too, and the others wait for it: import little.
if TYPE_CHECKING:
    from trainer.store.location import Store

REQUIRED = bool(os.environ.get("MOODIFY_NO_SKIP"))
FIRST = (
    *("e2e/test_dashboard.py", "training/test_loop.py", "e2e/test_try_it.py", "models/test_pretrained.py"),
    *(
        "inference/test_faces.py",
        "evaluation/test_statistics.py",
        "commands/test_bulk.py",
        "data/test_loading.py",
    ),
    *("tests/test_processes.py", "training/test_distributed.py", "dashboard/test_pages.py"),
)
"""Files are dealt out whole: where a long one came last, one worker would wait for the other. The first one trains what
others need; meanwhile the second worker has files that do without."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, and what makes nobody wait."""
    rank = {name: index for index, name in enumerate(FIRST)}
    items.sort(key=lambda item: rank.get("/".join(item.path.parts[-2:]), len(FIRST)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI a skipped test is a failed one."""
    report = yield
    if REQUIRED and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"may not be skipped here: {reason}"
    return report


def _together(config: pytest.Config) -> Path:
    """A folder that all workers of this session share."""
    base = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def pytest_sessionfinish(session: pytest.Session):
    """The server is stopped by whoever started the workers, when all have done."""
    if "PYTEST_XDIST_WORKER" not in os.environ and (_together(session.config) / "server.json").exists():
        _read_server(_together(session.config)).stop()


def _read_server(folder: Path) -> Server:
    facts = json.loads((folder / "server.json").read_text())
    paths = {key: Path(facts[key]) for key in ("folder", "postgres_folder")}
    return Server(**facts | paths)


@pytest.fixture(autouse=True, scope="session")
def newest_schema_is_looked_up_once() -> Iterator[None]:
    """MLflow runs all its migration files to know it, at each store that is opened."""
    from mlflow.store.db import utils

    with pytest.MonkeyPatch.context() as patch:
        once = functools.cache(utils._get_latest_schema_revision)
        patch.setattr(utils, "_get_latest_schema_revision", once)
        yield


@pytest.fixture(scope="session")
def empty_database(request: pytest.FixtureRequest) -> Path:
    """Of a store without runs, made by whoever needs it first: to make one takes seconds, to copy it does not."""
    folder = _together(request.config) / "empty"
    with FileLock(f"{folder}.lock"):
        if not (folder / "mlflow.db").exists():
            from trainer.store.location import open_store

            folder.mkdir(exist_ok=True)
            open_store(uri=f"sqlite:///{folder}/unfinished.db")
            with contextlib.closing(sqlite3.connect(folder / "unfinished.db")) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            shutil.copyfile(folder / "unfinished.db", folder / "mlflow.db")  # which nobody has open
    return folder / "mlflow.db"


@pytest.fixture
def stocked(workplace: Path, empty_database: Path) -> Path:
    """A working directory with an embedded store that is there, and empty."""
    (workplace / "mlruns").mkdir()
    shutil.copyfile(empty_database, workplace / "mlruns/mlflow.db")
    return workplace


@pytest.fixture
def other(tmp_path: Path, empty_database: Path) -> "Store":
    """One more embedded store, elsewhere."""
    from trainer.store.location import open_store

    (tmp_path / "other").mkdir()
    shutil.copyfile(empty_database, tmp_path / "other/mlflow.db")
    return open_store(uri=f"sqlite:///{tmp_path}/other/mlflow.db")


@pytest.fixture(scope="session")
def shared_server(request: pytest.FixtureRequest) -> tuple[Server, FileLock]:
    """A PostgreSQL-backed server, started by the first worker that needs it; who uses it holds the lock meanwhile."""
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    folder = _together(request.config)
    with FileLock(folder / "server-start.lock"):
        if not (folder / "server.json").exists():
            (folder / "server").mkdir()
            facts = vars(start_server(folder / "server"))
            (folder / "server.json").write_text(json.dumps(facts, default=str))
    return _read_server(folder), FileLock(folder / "server-use.lock")


@pytest.fixture
def server(
    workplace: Path, shared_server: tuple[Server, FileLock], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """The server, as new and for this test alone; its administrator is who asks."""
    server, in_use = shared_server
    with in_use:
        server.empty()
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def new_store(request: pytest.FixtureRequest, workplace: Path) -> Path:
    """A working directory whose store is empty: the embedded one, then that of a server."""
    request.getfixturevalue("server" if request.param == "postgresql" else "stocked")
    return workplace


@pytest.fixture(scope="session")
def fer2013() -> Path:
    """The real dataset, where it is at hand."""
    path = Path(os.environ.get("MOODIFY_FER2013", "data/fer2013")).absolute()
    if not path.exists():
        pytest.skip(f"FER-2013 is not at {path}; set MOODIFY_FER2013")
    return path


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a new embedded store and a cache of its own."""
    move_into(tmp_path, monkeypatch)
    return tmp_path


def move_into(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MOODIFY_FER2013", raising=False)
    monkeypatch.delenv("MOODIFY_GATES", raising=False)
    monkeypatch.setenv("MOODIFY_CACHE", str(folder / "cache"))
    monkeypatch.setenv("MOODIFY_OFFLINE", "1")


@pytest.fixture(scope="session")
def trained_untouched(request: pytest.FixtureRequest, empty_database: Path) -> Path:
    """A folder with the trained store and its data that no test opens; made by the first worker that needs it."""
    shared = _together(request.config) / "trained-once"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            unfinished = shared.with_suffix(".unfinished")
            (unfinished / "mlruns").mkdir(parents=True)
            shutil.copyfile(empty_database, unfinished / "mlruns/mlflow.db")
            train_on_greys(unfinished)
            unfinished.rename(shared)
    return shared


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory, trained_untouched: Path) -> Trained:
    """A copy for each worker, which its tests may change."""
    root = tmp_path_factory.mktemp("trained")
    shutil.copytree(trained_untouched, root, dirs_exist_ok=True)
    return Trained(root, root / "faces")


def train_on_greys(root: Path) -> None:
    """A store with one run of each architecture, and the data, below `root`."""
    from trainer.__main__ import main

    data_dir = write_grey_folder(root / "faces")
    with pytest.MonkeyPatch.context() as monkeypatch:
        move_into(root, monkeypatch)
        common = ["--data-dir", str(data_dir), "--batch-size", "16", "--learning-rate", "3e-3"]
        common += ["--optimizer", "adamw"]  # of batches this small Muon would take most of the time
        for flags in ARCHITECTURE_FLAGS.values():
            assert main(["train", *flags, *common, "--epochs", "8", "--augmentation", "0"]) == 0


@pytest.fixture
def trained(trained_once: Trained, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The trained store, as the working directory."""
    move_into(trained_once.root, monkeypatch)
    return trained_once


@pytest.fixture
def trained_copy(trained_untouched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """A copy of the trained store that this test alone changes, as the working directory.

    Of the one that is open in no process: who reads the file of an open database closes it again, and with that go all
    locks on it.
    """
    shutil.copytree(trained_untouched, tmp_path, dirs_exist_ok=True)
    move_into(tmp_path, monkeypatch)
    # MLflow remembers by a run's id where its files are: here two stores have the same runs.
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._artifact_repos_cache", OrderedDict())
    return Trained(tmp_path, tmp_path / "faces")


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with its own caches, and no way to Kaggle."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MOODIFY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    monkeypatch.setenv("MOODIFY_OFFLINE", "1")
    monkeypatch.delenv("MOODIFY_FER2013", raising=False)
    return tmp_path / "work"

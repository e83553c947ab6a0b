"""What most tests share: a place of their own for store and cache, and runs that were really trained."""

import os
from pathlib import Path

# Tests run two at a time: threads of both on the same cores would slow each other down more than tenfold.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis.internal.conjecture import providers

from tests.extra.grey_faces import ARCHITECTURE_FLAGS, Trained, write_grey_folder

# Hypothesis asks every module for its file, and MLflow's lazy ones answer by importing all that they can: 25 s.
providers._get_local_constants = lambda: providers._local_constants

REQUIRED = bool(os.environ.get("MOODIFY_NO_SKIP"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI a skipped test is a failed one."""
    report = yield
    if REQUIRED and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"may not be skipped here: {reason}"
    return report


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
    _move_into(tmp_path, monkeypatch)
    return tmp_path


def _move_into(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MOODIFY_FER2013", raising=False)
    monkeypatch.setenv("MOODIFY_CACHE", str(folder / "cache"))
    monkeypatch.setenv("MOODIFY_OFFLINE", "1")


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    from trainer.__main__ import main

    root = tmp_path_factory.mktemp("trained")
    data_dir = write_grey_folder(root / "faces")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _move_into(root, monkeypatch)
        common = ["--data-dir", str(data_dir), "--batch-size", "16", "--learning-rate", "3e-3"]
        for flags in ARCHITECTURE_FLAGS.values():
            assert main(["train", *flags, *common, "--epochs", "8", "--augmentation", "0"]) == 0
    return Trained(root, data_dir)


@pytest.fixture
def trained(trained_once: Trained, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The trained store, as the working directory."""
    _move_into(trained_once.root, monkeypatch)
    return trained_once

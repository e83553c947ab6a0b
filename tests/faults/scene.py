"""Where faults are made: a store of its own, tiny data, and trainings as processes that can be killed."""

import ctypes
import logging
import os
import pickle
import re
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch comes: threads of several trainings on the same cores slow each other down more than tenfold.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.extra.grey_faces import write_grey_folder

SMALL = ("--blocks", "8 16", "--hidden", "16", "--batch-size", "16", "--augmentation", "0.5")


@dataclass
class Training:
    """A training in a process of its own, and what it has said."""

    pid: int
    log: Path

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def run_id(self) -> str | None:
        found = re.search(r"^Run (\w{32}):", self.said(), re.MULTILINE)
        return found[1] if found else None

    def wait_for(self, words: str, seconds: float = 120) -> bool:
        """Whether it said `words` before it ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if words in self.said():
                return True
            if self.ended() is not None:
                return words in self.said()
            time.sleep(0.005)
        raise TimeoutError(f"it never said '{words}':\n{self.said()}")

    def ended(self) -> int | None:
        """Its exit status; None while it runs. Negative: the signal that ended it."""
        if not hasattr(self, "_status"):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid == 0:
                return None
            self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def finish(self, seconds: float = 300) -> int:
        deadline = time.monotonic() + seconds
        while (status := self.ended()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"it did not end in {seconds} s:\n{self.said()}")
            time.sleep(0.02)
        return status

    def kill(self) -> None:
        if self.ended() is None:
            os.kill(self.pid, signal.SIGKILL)
            while self.ended() is None:
                time.sleep(0.005)


@contextmanager
def place(images: int = 24) -> Iterator[Path]:
    """An empty working directory with tiny data in faces/, and a store and a cache of its own."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="moodify-fault-") as folder:
        os.chdir(folder)
        for name in ("MLFLOW_TRACKING_URI", "MOODIFY_FER2013", "MOODIFY_GATES"):
            os.environ.pop(name, None)
        os.environ |= {"MOODIFY_CACHE": f"{folder}/cache", "MOODIFY_OFFLINE": "1"}
        write_grey_folder(Path("faces"), train=images)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def command(*arguments: str, log: Path | None = None, before: Callable[[], object] | None = None) -> Training:
    """`python -m trainer …` in a process of its own: a copy of this one, which has imported what it needs.

    before: called in it first.
    """
    import trainer.training.run  # noqa: F401 once, and not in each process

    log = log or Path(f"{time.monotonic_ns()}.log")
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            with log.open("wb", buffering=0) as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: none outlives who made it
            logging.getLogger().handlers.clear()  # they write to the terminal of this process
            if before is not None:
                before()
            from trainer.__main__ import main

            status = main(list(arguments))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    return Training(pid, log)


def train(*flags: str, before: Callable[[], object] | None = None) -> Training:
    return command("train", "--data-dir", "faces", *SMALL, *flags, before=before)


def slowly() -> None:
    """Each epoch takes as long as a real one might, so that an outage falls into it."""
    from trainer.training import loop

    at_once = loop.train_epoch

    def train_epoch(*arguments: object) -> object:
        time.sleep(2)
        return at_once(*arguments)  # type: ignore[arg-type]

    loop.train_epoch = train_epoch  # type: ignore[assignment]


def apart(function: Callable[..., Any], *arguments: object) -> Any:
    """What `function` returns, in a process of its own: a connection to a database does not survive a fork."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            result: Any = (True, function(*arguments))
        except BaseException:
            result = (False, traceback.format_exc())
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(result, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        good, value = pickle.load(pipe)
    os.waitpid(pid, 0)
    if not good:
        raise AssertionError(value)
    return value


def whole(uri: str | None = None) -> dict[str, Any]:
    """The store as readers see it; AssertionError where it cannot be read or a version in it is half.

    runs: run_id → status, reason and curve. versions: (name, version, run_id).
    """
    from trainer.contract import Tag
    from trainer.store.location import SQLITE_PREFIX, open_store
    from trainer.store.reader import Reader
    from trainer.store.registry import bundle_folder

    if uri is not None:
        os.environ["MLFLOW_TRACKING_URI"] = uri
    store = open_store(create=False)
    if store.uri.startswith(SQLITE_PREFIX):
        with closing(sqlite3.connect(store.uri.removeprefix(SQLITE_PREFIX))) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    snapshot = Reader(store).snapshot()
    for version in snapshot.versions:
        assert {Tag.ARCHITECTURE, Tag.TEST_ACCURACY, Tag.TEST_FINGERPRINT} <= set(version.tags), version
        from trainer.inference.predictor import Predictor

        with tempfile.TemporaryDirectory() as scratch:
            Predictor.load(bundle_folder(version, Path(scratch)))  # reads and checks every weight
    rows = snapshot.runs[["name", "status", "reason", "epochs_done"]].to_dict("index")
    return {
        "runs": {str(run_id): row for run_id, row in rows.items()},
        "versions": [(v.name, v.version, v.run_id) for v in snapshot.versions],
    }


def result(run_id: str) -> dict[str, Any]:
    """What a run came to: curves, and the figures on test."""
    from trainer.store.location import open_store

    client = open_store(create=False).client()
    run = client.get_run(run_id)
    curves = {
        key: sorted({(m.step, m.value) for m in client.get_metric_history(run_id, key)})
        for key in ("train/loss", "validation/loss", "learning_rate")
    }
    figures = {key: run.data.metrics.get(f"test/{key}") for key in ("accuracy", "log_loss", "ece", "brier")}
    params = {
        key: value for key, value in run.data.params.items() if key in ("test_fingerprint", "epochs", "seed")
    }
    files = sorted(item.path for item in client.list_artifacts(run_id, "evaluation"))
    return {
        "status": run.info.status,
        "curves": curves,
        "figures": figures,
        "params": params,
        "files": files,
        "inputs": len(run.inputs.dataset_inputs),
    }

"""Trainings as processes of their own: they outlive whoever started them, who finds them again by their folder."""

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from filelock import FileLock

from trainer.config import Config, check
from trainer.contract import CONFIG_FILE, STATE_FILE, Tag
from trainer.drafts import write_text
from trainer.settings import flags

COMMAND = ("-m", "trainer", "train")
RESUME = "--resume"
KEPT = 20
"""Ended trainings whose log is kept; older ones go when the next training starts."""
STOPPING_SECONDS = 60
"""A training that was asked to stop keeps its best weights first; after so long it may be asked again."""
_CLOCK_SECONDS = 2.0  # two readings of one process's start differ by less, also where the clock was set
_HEAD_BYTES, _TAIL_BYTES = 65_536, 16_384
_RUN = re.compile(r"^Run ([0-9a-f]{32}):", re.MULTILINE)
# Whoever is not waited for stays as a zombie until its parent ends, and a dashboard runs for weeks.
_children: set[subprocess.Popen[bytes]] = set()


def begin_store() -> bool:
    """Register the model that comes with the program where the embedded store is empty or not there; whether it did.

    In a process of its own: it needs torch and MLflow, which whoever asks may do without. Raises ValueError where it
    could not be registered.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlruns/mlflow.db"
    if not uri.startswith("sqlite:///") or not _is_empty(Path(uri.removeprefix("sqlite:///"))):
        return False
    done = subprocess.run([sys.executable, "-m", "trainer", "bundled"], capture_output=True, text=True)
    if done.returncode:
        why = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ValueError(why[-1].removeprefix("error: "))
    return done.stdout.startswith("Registered")


def _is_empty(database: Path) -> bool:
    """As `trainer.store.bundled` asks it, without MLflow: whether it has something to begin, or an attempt to end.

    False for what is not MLflow's.
    """
    if not database.exists():
        return True
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            [found] = connection.execute(
                "WITH attempts AS (SELECT run_uuid FROM runs JOIN tags USING (run_uuid) "
                "WHERE key = ? AND status <> 'FINISHED') "
                "SELECT (SELECT count(*) FROM runs WHERE run_uuid NOT IN attempts) + "
                "(SELECT count(*) FROM model_versions WHERE run_id IS NULL OR run_id NOT IN attempts)",
                (Tag.BUNDLED,),
            ).fetchone()
    except sqlite3.Error:
        return False
    return found == 0


@dataclass(frozen=True)
class Job:
    """A training that was started here, as it is at the moment.

    create_time: start of the process in seconds since 1970; tells it from another that has its number by now.
    arguments: those of `python -m trainer train`. started: in UTC. log: what it wrote. alive: whether its
    process still runs. stopping: whether it was asked to stop a moment ago. run_id: None until it is known.
    begun: whether its run began, or went on. is_resume: whether it is to go on with a run of before.
    """

    pid: int
    create_time: float
    started: datetime
    arguments: tuple[str, ...]
    log: Path
    alive: bool
    stopping: bool
    run_id: str | None
    begun: bool

    @property
    def is_resume(self) -> bool:
        return self.arguments[:1] == (RESUME,)

    def tail(self, lines: int) -> list[str]:
        """The last lines of the log that say something, the last one last."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
        return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


def start(folder: Path, config: Config) -> Job:
    """Start training `config`, in the working directory and with the environment of this process.

    Raises ValueError, with one line for each mistake, where it cannot be trained or is being trained
    already; then nothing is started.
    """
    check(config)
    return _launch(folder, flags(config))


def resume(folder: Path, run_id: str) -> Job:
    """Go on with an interrupted run. Raises ValueError where `run_id` is none, or is being resumed already."""
    if not re.fullmatch(r"[0-9a-f]{32}", run_id):
        raise ValueError(f"'{run_id}' is no run: an id has 32 hex digits")
    return _launch(folder, [RESUME, run_id])


def is_resumable(checkpoints: Path, run_id: str) -> bool:
    """Whether this machine has what the run needs to go on; for the state, written last, there may be no room."""
    return all((checkpoints / run_id / name).is_file() for name in (CONFIG_FILE, STATE_FILE))


def jobs(folder: Path) -> list[Job]:
    """What was started with this folder, newest first."""
    found = [_read(record) for record in folder.glob("*.json")]
    for child in list(_children):
        if child.poll() is not None:
            _children.discard(child)
    return sorted((job for job in found if job is not None), key=lambda job: job.started, reverse=True)


def stop(job: Job) -> None:
    """Ask a training to stop: its run ends as KILLED with its best weights, and can be resumed.

    Raises ValueError where its process is gone, is another's by now, or was asked a moment ago.
    """
    if job.stopping:
        raise ValueError("it was asked to stop already, and keeps its best weights first")
    process = _process(job.pid, job.create_time)
    if process is None:
        raise ValueError(f"this training has ended: process {job.pid} is gone, or is another program by now")
    try:
        process.terminate()  # psutil looks at the start time once more
    except psutil.Error as error:
        raise ValueError(f"this training could not be stopped: {error}") from error
    record = job.log.with_suffix(".json")
    with contextlib.suppress(OSError):  # a full disk is a reason to stop one, and no obstacle
        write_text(record, json.dumps(json.loads(record.read_text()) | {"stop_asked": time.time()}, indent=2))


def _launch(folder: Path, arguments: list[str]) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):  # of two clicks at once the second finds the first one's training
        return _launch_alone(folder, arguments)


def _launch_alone(folder: Path, arguments: list[str]) -> Job:
    before = jobs(folder)
    if any(job.alive and job.arguments == tuple(arguments) for job in before):
        raise ValueError("exactly this training is running already: change a setting, such as the seed")
    for old in [job for job in before if not job.alive][KEPT - 1 :]:
        old.log.with_suffix(".json").unlink(missing_ok=True)
        old.log.unlink(missing_ok=True)
    started = datetime.now(UTC)
    draft = folder / f".{time.time_ns()}.log"
    try:
        with draft.open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, *COMMAND, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C and the end of a terminal do not reach it
            )
    except (OSError, ValueError):
        draft.unlink()
        raise
    log_path = folder / f"{started:%Y%m%d-%H%M%S}-{child.pid}.log"
    try:
        draft.rename(log_path)
        record = {
            "pid": child.pid,
            "create_time": psutil.Process(child.pid).create_time(),
            "arguments": arguments,
            "started": started.isoformat(),
        }
        write_text(log_path.with_suffix(".json"), json.dumps(record, indent=2))
    except BaseException:  # nobody could see or stop it
        child.kill()
        child.wait()
        for left in (draft, log_path):
            left.unlink(missing_ok=True)
        raise
    _children.add(child)
    job = _read(log_path.with_suffix(".json"))
    assert job is not None
    return job


def _read(path: Path) -> Job | None:
    """None where the job was cleared away meanwhile, and where its record is not whole."""
    log = path.with_suffix(".log")
    try:
        record = json.loads(path.read_text())
        arguments = tuple(record["arguments"])
        started = datetime.fromisoformat(record["started"])
        pid, create_time = int(record["pid"]), float(record["create_time"])
        with log.open("rb") as file:
            head = file.read(_HEAD_BYTES).decode(errors="replace")
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    begun = _RUN.search(head)
    alive = _process(pid, create_time) is not None
    return Job(
        pid=pid,
        create_time=create_time,
        started=started,
        arguments=arguments,
        log=log,
        alive=alive,
        stopping=alive and time.time() - record.get("stop_asked", 0) < STOPPING_SECONDS,
        run_id=begun[1] if begun else arguments[1] if arguments[:1] == (RESUME,) else None,
        begun=begun is not None,
    )


def _process(pid: int, create_time: float) -> psutil.Process | None:
    """The process, where it still is the one that was started; a zombie has ended."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - create_time) < _CLOCK_SECONDS
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None

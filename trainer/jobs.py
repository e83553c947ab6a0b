"""Trainings as processes of their own: they outlive whoever started them, who finds them again by their folder."""

import contextlib
import dataclasses
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import psutil

from trainer.config import Config, check, recipe_defaults
from trainer.contract import ELSEWHERE, Tag
from trainer.models import listing

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

    In a process of its own: it needs torch and MLflow, which whoever asks may do without.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlruns/mlflow.db"
    if not uri.startswith("sqlite:///") or not _is_empty(Path(uri.removeprefix("sqlite:///"))):
        return False
    done = subprocess.run([sys.executable, "-m", "trainer", "bundled"], capture_output=True, text=True)
    return done.returncode == 0 and done.stdout.startswith("Registered")


def _is_empty(database: Path) -> bool:
    """As `trainer.store.bundled` asks it, without MLflow. False for what is not MLflow's."""
    if not database.exists():
        return True
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            [found] = connection.execute(
                "SELECT (SELECT count(*) FROM model_versions) + (SELECT count(*) FROM runs WHERE "
                "status = 'FINISHED' OR run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = ?))",
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
    record = job.log.with_suffix(".json")
    _write(record, json.loads(record.read_text()) | {"stop_asked": time.time()})
    try:
        process.terminate()  # psutil looks at the start time once more
    except psutil.Error as error:
        raise ValueError(f"this training could not be stopped: {error}") from error


def flags(config: Config) -> list[str]:
    """The shortest arguments of `train` that mean `config`: what differs from its recipe's defaults."""
    values, plain = dataclasses.asdict(config), dataclasses.asdict(Config())
    given = [name for name in ("recipe", "architecture", "mode") if values[name] != plain[name]]
    if config.pretrained != recipe_defaults(config.recipe, config.architecture, config.mode).pretrained:
        given.append("pretrained")
    defaults = dataclasses.asdict(defaults_of(config))
    given += [name for name in values if values[name] != defaults[name]]
    # One word each, so that a value may begin with a dash.
    return [f"--{name.replace('_', '-')}={values[name]}" for name in given]


def defaults_of(config: Config) -> Config:
    """What the recipe of `config` sets for its architecture, mode and initial weights."""
    return recipe_defaults(config.recipe, config.architecture, config.mode, config.pretrained)


def configuration(params: Mapping[str, str]) -> Config:
    """The configuration among the parameters that a run logged; others are passed over.

    What the run did not log, because its version had no such setting, is the recipe's default; of its network, the
    architecture's own, which it had by then.
    Raises ValueError where it logged no recipe, or a value that cannot be read.
    """
    kinds = get_type_hints(Config)
    values = {name: parse_value(name, params[name], kind) for name, kind in kinds.items() if name in params}
    if "recipe" not in values or "architecture" not in values:
        raise ValueError("the run logged no configuration of Moodify's")
    values = dict.fromkeys(listing(values["architecture"]).options) | values
    mode, pretrained = values.get("mode", "full"), values.get("pretrained")
    return dataclasses.replace(
        recipe_defaults(values["recipe"], values["architecture"], mode, pretrained), **values
    )


def repeatable(params: Mapping[str, str]) -> Config:
    """The same, to train it again. Raises ValueError where it learned from models of another store, too."""
    config = configuration(params)
    if any((name or "").startswith(ELSEWHERE) for name in (config.teacher, config.start_from)):
        raise ValueError("it learned from models that are not in this store")
    return config


def parse_value(name: str, text: str, kind: Any) -> Any:
    """A logged parameter as a value of its field's type; MLflow keeps None as an empty text. Raises ValueError."""
    is_union = get_origin(kind) not in (None, Literal)
    options = get_args(kind) if is_union else (kind,)
    if text == "" and NoneType in options:
        return None
    for option in options:
        if get_origin(option) is Literal:
            for value in get_args(option):
                if str(value) == text:
                    return value
        elif option is bool:
            if text in ("True", "False"):
                return text == "True"
        elif option in (int, float, str):
            with contextlib.suppress(ValueError):
                return option(text)
        else:
            assert option is NoneType, f"a field of a new kind: {name}"
    raise ValueError(f"the parameter {name} of the run is '{text}', which cannot be read")


def _launch(folder: Path, arguments: list[str]) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
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
        _write(log_path.with_suffix(".json"), record)
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


def _write(path: Path, record: Mapping[str, object]) -> None:
    """At once: whoever reads meanwhile sees the old record or the new one."""
    draft = path.with_suffix(".new")
    try:
        with draft.open("w") as file:
            file.write(json.dumps(record, indent=2))
            file.flush()
            os.fsync(file.fileno())  # else a power failure may leave the new name with nothing in it
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    draft.replace(path)


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

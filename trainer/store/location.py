"""Where the tracking store is, and how it is opened so that nothing in it breaks."""

import configparser
import logging
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import mlflow
import sqlalchemy
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.tracking._model_registry import utils as registry_stores
from mlflow.tracking._tracking_service import utils as tracking_stores
from mlflow.utils.credentials import MlflowCreds, read_mlflow_creds
from sqlalchemy.exc import SQLAlchemyError

from trainer.drafts import write_text

log = logging.getLogger(__name__)

SQLITE_PREFIX = "sqlite:///"
LOCATION_FILE = ".location"
_WRITTEN_MINUTES = 2
"""A run that has said nothing for so long (system metrics come every 10 s) is not being written."""
# Columns in which MLflow keeps absolute paths, as table → column.
_PATH_COLUMNS = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}
_ENVIRONMENT = threading.Lock()
_SHORT_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
_SILENCES = {
    "NameResolutionError": "no machine is called {0}",
    "Connection refused": "nothing listens at {0}:{1}",
    "timed out": "{0}:{1} did not answer in time",
    "unreachable": "there is no way to {0}",
    "No route to host": "there is no way to {0}",
}
"""What stands at the end of urllib3's long messages → what it means, of host and port."""
_PLACE = re.compile(r"host='([^']+)', port=(\d+)")
_DATABASES = ("postgresql", "mysql", "mssql")
_PATIENCE_SECONDS = 5
_PATIENT_DRIVERS = {"psycopg2", "psycopg", "pymysql", "mysqldb"}
"""Those that can be told how long to wait for a database."""
File = tuple[int, int]
_opened: dict[str, File | None] = {}
"""SQLite store → its file when MLflow opened it here."""

# A name and a password reach to the last @, whatever stands in the password, unless what follows the colon is a port.
_PAIR = r"[^/\s:@\[]*:(?!\s|\d+(?:[/\s?#'\"),;:]|$))(?:(?!://)[^\n])*"
# SQLAlchemy takes a database's password with slashes in it as it is written.
_CREDENTIALS = re.compile(
    rf"((?:{'|'.join(_DATABASES)})[+\w]*://)(?:{_PAIR}|[^/\s]*|[^@\s]*)@|(://)(?:{_PAIR}|[^/\s]*)@"
)


def redacted(text: str) -> str:
    """`text` without the names and passwords that stand in addresses.

    >>> redacted("the server https://ann:secret@host/mlflow is down")
    'the server https://host/mlflow is down'
    """
    return _CREDENTIALS.sub(r"\1\2", text)


class StoreError(ValueError):
    """The tracking store cannot be used; the message says why and what to do, and holds no password."""

    def __init__(self, message: str):
        super().__init__(redacted(message))


@dataclass(frozen=True)
class Store:
    """An opened tracking store.

    artifact_root: folder of the artifacts where the store is a local one, else None (a server decides).
    """

    uri: str
    artifact_root: Path | None

    @property
    def checkpoints(self) -> Path:
        """Folder of what unfinished runs keep to be resumed from; on this machine in every case."""
        root = self.artifact_root.parent if self.artifact_root else Path("mlruns").absolute()
        return root / "checkpoints"

    @property
    def undelivered(self) -> Path:
        """Folder of what runs could not send to a server that was down; beside the checkpoints."""
        return self.checkpoints.with_name("undelivered")

    def client(self) -> MlflowClient:
        return MlflowClient(self.uri, self.uri)

    def experiment_id(self, name: str) -> str:
        """The experiment `name`, made where it is missing (also where two processes do so at once)."""
        client = self.client()
        location = str(self.artifact_root) if self.artifact_root else None
        if (found := client.get_experiment_by_name(name)) is None:
            try:
                return client.create_experiment(name, artifact_location=location)
            except MlflowException as error:
                if (found := client.get_experiment_by_name(name)) is None:
                    raise StoreError(
                        f"the experiment '{name}' can neither be found nor made in {self.uri}: {reason(error)}"
                    ) from error
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return found.experiment_id


def store_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the embedded store `mlruns/mlflow.db` of the working directory.

    A name and a password in a server's address go to where MLflow looks for them as well: it writes the address
    into its messages.
    """
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if (
        "\u2060" in address
    ):  # copied from a page, which shows addresses with a mark that keeps them from being links
        os.environ["MLFLOW_TRACKING_URI"] = address = address.replace("\u2060", "")
    plain = redacted(address)
    if address.startswith(("http://", "https://")) and plain != address:
        credentials = address.partition("://")[2][: len(address) - len(plain) - len("@")]
        name, has_password, password = credentials.partition(":")
        if has_password:
            os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(name)
            os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(password)
            os.environ["MLFLOW_TRACKING_URI"] = plain
    return os.environ.get("MLFLOW_TRACKING_URI") or embedded_uri()


def embedded_uri() -> str:
    """Of the store in the working directory, whether it is there or not."""
    return f"{SQLITE_PREFIX}{Path('mlruns/mlflow.db').absolute()}"


def open_store(*, create: bool = True, uri: str | None = None) -> Store:
    """Open the store, that of `store_uri` where none is named, and make it MLflow's current one.

    A new SQLite store is made under a file lock, in WAL mode. Where its folder was moved or copied, the
    paths that MLflow keeps inside are set right.

    Raises StoreError where it cannot be used, or where there is none and `create` is false.
    """
    uri = uri or store_uri()
    database = embedded_database(uri)
    artifact_root = None
    if database is not None:
        artifact_root = database.parent / "artifacts"
        _open_database(uri, database, create)
    else:
        uri = with_driver(uri)
        _check_answer(uri)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return Store(uri, artifact_root)


def which_file(uri: str) -> File | None:
    """Device and number of a SQLite store's file: another may come in its place. None for a server, and without one."""
    if not uri.startswith(SQLITE_PREFIX):
        return None
    try:
        found = Path(uri.removeprefix(SQLITE_PREFIX)).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_same(one: str, other: str) -> bool:
    """Whether two addresses name one store, as far as that can be told without asking it."""
    return one == other or (which_file(one) is not None and which_file(one) == which_file(other))


def reason(error: Exception) -> str:
    """What went wrong, in one line for the user: in words where a server refuses or cannot be reached, else the error's
    first line."""
    text = error.message if isinstance(error, MlflowException) else str(error)
    return refusal(error) or _silence(text) or next(iter(text.splitlines()), type(error).__name__)[:300]


def _silence(text: str) -> str | None:
    place = _PLACE.search(text)
    words = next((words for mark, words in _SILENCES.items() if mark in text), None)
    return words.format(*place.groups()) if place and words else None


def is_missing(error: MlflowException) -> bool:
    """Whether a store answered that there is no such thing, rather than not at all."""
    return error.error_code == "RESOURCE_DOES_NOT_EXIST"


def credentials() -> MlflowCreds:
    """Name and password that a server is given: of the environment, or of ~/.mlflow/credentials."""
    try:
        return cast(MlflowCreds, read_mlflow_creds())
    except configparser.Error:  # MLflow will say so where it needs them
        return MlflowCreds(None, None)


def refusal(error: Exception) -> str | None:
    """What it means that a server lets the user not in, or not do something; None for any other error."""
    code = error.error_code if isinstance(error, MlflowException) else ""
    status = getattr(getattr(error, "response", None), "status_code", None)  # artifacts go by HTTP alone
    if code == "UNAUTHENTICATED" or status == 401 or "error code 401" in str(error):
        name = credentials().username
        who = f"'{name}' with this password" if name else "anybody without a name"
        return f"it does not let in {who} (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD)"
    if code == "PERMISSION_DENIED" or status == 403 or "error code 403" in str(error):
        if "Invalid Host header" in str(error):
            return "it is not to be asked by this name: its MLFLOW_SERVER_ALLOWED_HOSTS does not have it"
        # It says the same of what is not there to all but administrators.
        return f"the account '{credentials().username}' may not do that on this server, or there is no such thing"
    return None


def embedded_database(uri: str) -> Path | None:
    """The file of a SQLite store; None for a server or another database. Raises StoreError for what is neither."""
    if uri.startswith(SQLITE_PREFIX):
        database = Path(uri.removeprefix(SQLITE_PREFIX)).absolute()
        if unquote(str(database)) != str(database) or "?" in str(database):
            raise StoreError(
                f"the store {database} cannot be used: MLflow reads a '?' and codes such as %20 in a path as something "
                "else; give the folder another name"
            )
        return database
    if uri.startswith(("http://", "https://", *_DATABASES, "databricks")):
        return None
    raise StoreError(
        f"{_called(uri)} is '{uri}'; it must be the address of an MLflow server (http://…) "
        "or a SQLite file (sqlite:////absolute/path/mlflow.db)"
    )


def _called(uri: str) -> str:
    """Where the user has written an address."""
    return "MLFLOW_TRACKING_URI" if os.environ.get("MLFLOW_TRACKING_URI") == uri else "the store's address"


def with_driver(address: str) -> str:
    """A PostgreSQL database's address, with the driver that is installed: SQLAlchemy 2.1 would look for psycopg 3."""
    return re.sub("^postgresql:", "postgresql+psycopg2:", address)


def _check_answer(uri: str) -> None:
    """One short request, so that a server that is down is told at once and not after MLflow's retries."""
    name = f"tracking server {uri}"
    if uri.startswith(_DATABASES):
        name = f"database {_check_connection(uri)}"
    try:
        with _short_patience():
            MlflowClient(uri, uri).search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        if (refused := refusal(error)) is not None:
            raise StoreError(f"the {name}: {refused}") from error
        raise StoreError(f"the {name} does not answer as a tracking server: {reason(error)}") from error


@contextmanager
def _short_patience() -> Iterator[None]:
    """MLflow is told by the environment, which all threads share: one at a time, so that what was there comes back."""
    with _ENVIRONMENT:
        before = {name: os.environ.get(name) for name in _SHORT_PATIENCE}
        os.environ.update(_SHORT_PATIENCE)
        retries = logging.getLogger("urllib3.connectionpool")
        level = retries.level
        retries.setLevel(logging.ERROR)  # what comes of it is told in a line
        try:
            yield
        finally:
            retries.setLevel(level)
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})


def _check_connection(uri: str) -> str:
    """The address of a database, without its password. Raises StoreError where no connection can be made."""
    try:
        address = sqlalchemy.make_url(uri)
    except (SQLAlchemyError, ValueError):  # which may repeat a part of it
        raise StoreError(
            f"{_called(uri)} is no address of a database (postgresql://USER:PASSWORD@HOST/NAME)"
        ) from None
    if (why := unreachable(address)) is not None:
        raise StoreError(f"the database {address.render_as_string()} does not answer: {why}")
    return address.render_as_string()


def unreachable(address: sqlalchemy.URL, **arguments: Any) -> str | None:
    """Why no connection to a database can be made, in one line; None where it can. `arguments` are for its driver."""
    try:
        if address.get_driver_name() in _PATIENT_DRIVERS:
            arguments = {"connect_timeout": _PATIENCE_SECONDS} | arguments
        engine = sqlalchemy.create_engine(address, connect_args=arguments)
        try:
            with engine.connect():
                return None
        finally:
            engine.dispose()
    except ImportError as error:
        return f"its driver is not installed ({error})"
    except SQLAlchemyError as error:
        return " ".join(str(getattr(error, "orig", None) or error).split())[:300]


def answers(uri: str) -> bool:
    """Whether a server can be reached now."""
    try:
        _check_answer(uri)
    except StoreError:
        return False
    return True


def _open_database(uri: str, database: Path, create: bool) -> None:
    missing = StoreError(f"there is no tracking store at {database} yet: `make train` makes one")
    if not create and not database.exists():
        raise missing
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        # Two processes that make the tables at the same time break the store for good.
        with FileLock(database.with_name(".store.lock")):
            # Whoever made the tables was stopped, and MLflow does not go on with half of them.
            if (making := mark_of_making(database)).exists():
                if not _holds_runs(database):
                    for suffix in ("", "-wal", "-shm", "-journal"):
                        Path(f"{database}{suffix}").unlink(missing_ok=True)
                making.unlink()
            is_new = not database.exists() or database.stat().st_size == 0
            if is_new and not create:
                raise missing
            if uri in _opened and (is_new or _opened[uri] != which_file(uri)):
                _let_go(uri)
            if not is_new:
                with closing(sqlite3.connect(database, timeout=30)) as connection:
                    _check_tables(connection)
                    _repair_paths(connection, database.parent)
            else:
                making.touch()
                _opened[uri] = None  # so that this process lets go of it, where it is stopped after that
            MlflowClient(uri, uri).search_experiments(
                max_results=1
            )  # makes the tables, or says what is amiss
            if is_new:
                with closing(sqlite3.connect(database, timeout=30)) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")  # it persists
                    _repair_paths(connection, database.parent)
                making.unlink()
            _opened[uri] = which_file(uri)
    except (OSError, sqlite3.Error, SQLAlchemyError, MlflowException) as error:
        raise StoreError(
            f"the tracking store {database} cannot be opened: {error}".splitlines()[0]
        ) from error


def mark_of_making(database: Path) -> Path:
    """A file that is there while the tables of a new store are made."""
    return database.with_name(f".making-{database.name}")


def _holds_runs(database: Path) -> bool:
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        has_table = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone()
        return bool(has_table and connection.execute("SELECT 1 FROM runs").fetchone())


def _let_go(uri: str) -> None:
    """Of what MLflow keeps: its connections hold on to a file that was deleted, and it makes no tables twice."""
    client = MlflowClient(uri, uri)
    for store in (client._tracking_client.store, client._get_registry_client().store):
        store.engine.dispose()
    tracking_stores._tracking_store_registry._get_store_with_resolved_uri.cache_clear()
    registry_stores._get_store_registry()._get_store_with_resolved_uri.cache_clear()


def _check_tables(connection: sqlite3.Connection) -> None:
    """MLflow would make its tables in any database, also in somebody else's."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
        raise sqlite3.DatabaseError("it is a database, but not MLflow's")


def _repair_paths(connection: sqlite3.Connection, folder: Path) -> None:
    """Where the store's folder was moved or copied, replace its old path by the new one.

    MLflow keeps absolute paths and would list no artifacts, without an error. The folder remembers where it was in a
    file of its own, which `cp -r old/* new/` leaves behind; paths outside of the old folder are left alone.

    Raises StoreError where a run is being written by the old path: its files would go where nobody looks for them.
    """
    memory = folder / LOCATION_FILE
    known = remembered(folder)
    old = known or _recorded(connection, folder) or str(folder)
    if old != str(folder):
        if _is_written(connection) and not _is_another(Path(old), folder):
            raise StoreError(
                f"a run is being written into this store as {old}, and here it is {folder}: use that path, or wait "
                f"until the run has ended (or {_WRITTEN_MINUTES} minutes, where its process is gone or this is a copy)"
            )
        move_paths(connection, old, str(folder))
        log.warning("The store was moved from %s to %s; its artifact paths were set right.", old, folder)
    if known != str(folder):
        write_text(memory, f"{folder}\n")


def move_paths(connection: sqlite3.Connection, old: str, new: str) -> None:
    """Of what lies in the folder `old`, say that it lies in `new`."""
    with connection:  # one transaction
        for table, column in _PATH_COLUMNS.items():
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 our own names
                f"WHERE substr({column}, 1, ?) = ? || '/'",
                (new, len(old) + 1, len(old) + 1, old),
            )


def _is_written(connection: sqlite3.Connection) -> bool:
    """Whether a run that has not ended has said something lately."""
    (last_ms,) = connection.execute(
        "SELECT max(max(start_time), coalesce(max(timestamp), 0)) FROM runs LEFT JOIN latest_metrics USING (run_uuid) "
        "WHERE status = 'RUNNING' AND lifecycle_stage = 'active'"
    ).fetchone()
    return last_ms is not None and time.time() * 1000 - last_ms < _WRITTEN_MINUTES * 60_000


def _is_another(old: Path, folder: Path) -> bool:
    """Whether what lies at the old path is another folder: then this one is a copy."""
    return old.is_dir() and not old.samefile(folder)


def remembered(folder: Path) -> str | None:
    """Where a store's folder was when it was opened last; None where nothing, or no whole path, was kept."""
    memory = folder / LOCATION_FILE
    text = memory.read_text().strip() if memory.exists() else ""
    return text if text.startswith("/") else None


def _recorded(connection: sqlite3.Connection, folder: Path) -> str | None:
    """The folder where most experiments were made; None where one was made in this one, or its artifacts are not here.

    An experiment of somebody else's may keep its artifacts in any folder.
    """
    rows = connection.execute(
        "SELECT artifact_location FROM experiments WHERE artifact_location LIKE '/%/artifacts'"
    )
    found = [place.removesuffix("/artifacts") for (place,) in rows]
    if str(folder) in found or not (folder / "artifacts").is_dir():
        return None
    return max(found, key=found.count, default=None)

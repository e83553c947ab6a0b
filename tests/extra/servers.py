"""A real PostgreSQL and a real MLflow server on it, in a temporary folder and on free ports of this machine."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

DATABASE_USER, DATABASE_PASSWORD = "moodify", "p%40ss/word: with 'signs'"
ADMIN, ADMIN_PASSWORD = "admin", "a long admin password"
SECRET_KEY = "0123456789abcdef0123456789abcdef"
START_SECONDS = 90


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's programs; Debian keeps them off the path."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


@dataclass
class Postgres:
    """A cluster with one empty database. `log`: what it wrote."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def uri(self) -> str:
        secret = quote(DATABASE_PASSWORD, safe="")
        return f"postgresql://{DATABASE_USER}:{secret}@127.0.0.1:{self.port}/{DATABASE_USER}"


def start_postgres() -> Postgres:
    """As another user where this one is root, which PostgreSQL refuses. Raises FileNotFoundError without PostgreSQL."""
    programs = postgres_programs()
    if programs is None:
        raise FileNotFoundError("PostgreSQL is not installed (apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="moodify-postgres-"))
    how = _plain(folder)
    if how["user"]:
        shutil.chown(folder, how["user"])
    secret = folder / "secret"
    secret.write_text(DATABASE_PASSWORD)
    secret.chmod(0o644)
    subprocess.run(
        [programs / "initdb", "-D", folder / "data", "-U", DATABASE_USER, "--pwfile", secret, "-A", "scram-sha-256",
         "--no-sync", "--encoding", "UTF8", "--locale", "C.UTF-8"],
        check=True, capture_output=True, **how,
    )  # fmt: skip
    secret.unlink()
    found = run_postgres(folder, free_port())
    import psycopg2

    connection = psycopg2.connect(found.uri().rpartition("/")[0] + "/postgres")
    connection.autocommit = True
    connection.cursor().execute(f"CREATE DATABASE {DATABASE_USER}")
    connection.close()
    return found


def run_postgres(folder: Path, port: int) -> Postgres:
    """Start PostgreSQL on the cluster in `folder`, as often as you like; waits until it answers."""
    ready = b"ready to accept connections"
    log_file = folder / "log"
    before = log_file.read_bytes().count(ready) if log_file.exists() else 0
    programs = postgres_programs()
    assert programs is not None
    with log_file.open("ab") as log:
        # Nothing here has to survive a power cut; what is committed survives the death of PostgreSQL.
        settings = ["fsync=off", "full_page_writes=off", "listen_addresses=127.0.0.1", f"port={port}",
                    f"unix_socket_directories={folder}"]  # fmt: skip
        process = subprocess.Popen(
            [programs / "postgres", "-D", folder / "data", *(part for item in settings for part in ("-c", item))],
            stdout=log, stderr=log, start_new_session=True, **_plain(folder),
        )  # fmt: skip
    deadline = time.monotonic() + START_SECONDS
    while log_file.read_bytes().count(ready) == before:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(log_file.read_text()[-2000:])
        time.sleep(0.05)
    return Postgres(folder, port, process)


def _plain(folder: Path) -> dict[str, Any]:
    """As whom, where and with what environment PostgreSQL's programs run: never as root."""
    user = None
    if os.geteuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
    return {"user": user, "cwd": folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}}


# What MLflow puts into its tables when it makes them, and the accounts.
_KEPT = {
    *("alembic_version", "alembic_version_auth", "workspaces", "experiments", "users", "roles"),
    *("role_permissions", "user_role_assignments"),
}


@dataclass
class Server:
    """`python -m trainer server` on a database of its own. `folder`: its environment file, log and artifacts."""

    folder: Path
    port: int
    pid: int
    database: str
    postgres_folder: Path
    postgres_pid: int

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def environment(self) -> dict[str, str]:
        """Of a client that may do everything."""
        return client_environment(self.uri, ADMIN, ADMIN_PASSWORD)

    def empty(self) -> None:
        """As new, but for the accounts."""
        import psycopg2

        with (
            contextlib.closing(psycopg2.connect(self.database)) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            tables = ", ".join(f'"{name}"' for (name,) in cursor.fetchall() if name not in _KEPT)
            cursor.execute(f"TRUNCATE {tables}")
            cursor.execute("DELETE FROM experiments WHERE experiment_id <> 0")

    def stop_postgres(self, *, at_once: bool) -> None:
        """As an administrator does, or with SIGKILL for all of its processes."""
        if at_once:
            os.killpg(self.postgres_pid, signal.SIGKILL)
        _end(self.postgres_pid, signal.SIGINT)  # a fast shutdown

    def start_postgres(self) -> None:
        port = urlsplit(self.database).port
        assert port is not None
        self.postgres_pid = run_postgres(self.postgres_folder, port).process.pid

    def stop(self) -> None:
        _end(self.pid, signal.SIGTERM)
        _end(self.postgres_pid, signal.SIGINT)  # a fast shutdown
        shutil.rmtree(self.postgres_folder, ignore_errors=True)


def client_environment(uri: str, name: str, password: str) -> dict[str, str]:
    return {
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_TRACKING_USERNAME": name,
        "MLFLOW_TRACKING_PASSWORD": password,
    }


def _end(pid: int, how: signal.Signals) -> None:
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        process.send_signal(how)
        process.wait(30)


def start_server(folder: Path, workers: int = 1) -> Server:
    """Waits until it answers; in a session of its own, so that it outlives the worker that needed it first."""
    postgres = start_postgres()
    port = free_port()
    env_file = folder / "server.env"
    env_file.write_text(
        f"MLFLOW_BACKEND_STORE_URI={postgres.uri()}\nMLFLOW_ARTIFACTS_DESTINATION={folder / 'artifacts'}\n"
        f"MLFLOW_FLASK_SERVER_SECRET_KEY={SECRET_KEY}\n"
        f'MLFLOW_AUTH_ADMIN_PASSWORD="{ADMIN_PASSWORD}"\nMLFLOW_PORT={port}\nMLFLOW_WORKERS={workers}\n'
    )
    env_file.chmod(0o600)
    plain = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer", "server", "--env-file", env_file],
            stdout=log, stderr=log, start_new_session=True, env=plain, cwd=Path(__file__).parents[2],
        )  # fmt: skip
    server = Server(folder, port, process.pid, postgres.uri(), postgres.folder, postgres.process.pid)
    deadline = time.monotonic() + START_SECONDS
    while not answers(f"{server.uri}/health"):
        if process.poll() is not None or time.monotonic() > deadline:
            server.stop()
            raise RuntimeError(server.log.read_text()[-3000:])
        time.sleep(0.1)
    return server


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running_server(workers: int = 1) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="moodify-server-") as folder:
        server = start_server(Path(folder), workers)
        try:
            yield server
        finally:
            server.stop()

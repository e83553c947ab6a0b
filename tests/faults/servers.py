"""A tracking server that is down at the start, for a minute, or for good; and one behind a slow network."""

import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.extra.servers import postgres_programs, running_server
from tests.faults.disk import clear
from tests.faults.scene import Training, apart, command, place, result, slowly, train, whole

EPOCHS = "12"
SECRET = "topsecret"


class Server:
    """MLflow's own, with a SQLite database and proxied artifacts, on one port."""

    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """With a password, which must turn up nowhere."""
        return f"http://ann:{SECRET}@127.0.0.1:{self.port}"

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        flags = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1", "--serve-artifacts"]
        flags += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        flags += ["--artifacts-destination", str(self.folder / "artifacts")]
        environment = os.environ | {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"
        }  # fmt: skip
        environment.pop("MLFLOW_TRACKING_URI", None)
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *flags],
                env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).read()
                return
            except OSError:
                assert time.monotonic() < deadline, (self.folder / "log.txt").read_text()
                time.sleep(0.2)

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextmanager
def server() -> Iterator[Server]:
    with place() as folder:
        it = Server(folder / "server")
        it.start()
        os.environ["MLFLOW_TRACKING_URI"] = it.uri
        try:
            yield it
        finally:
            it.stop()


def _reference() -> dict:
    first = train("--epochs", EPOCHS)
    assert first.finish() == 0, first.said()
    return apart(result, first.run_id)


def _delivered(victim: Training, expected: dict) -> str:
    found = apart(result, victim.run_id)
    assert found == expected, (found, expected)
    seen = apart(whole)
    assert len([version for version in seen["versions"] if version[2] == victim.run_id]) == 1
    assert not list(Path("mlruns/undelivered").glob("*/journal.jsonl"))
    told = [path for path in Path.cwd().rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert not told, told
    return (
        "every curve, figure, file and one version are in the store, equal to a run without the fault; the password "
        "in the address stands in no log, table, artifact or journal"
    )


def _warning(victim: Training) -> str:
    return next(line for line in victim.said().splitlines() if "does not answer" in line)[:230]


def _bridged(victim: Training) -> str:
    """How a training came over an outage that ended before it did; what is left is delivered."""
    said = "MLflow's retries bridged it"
    if "does not answer" in victim.said():
        said = f"said: {_warning(victim)}"
    if list(Path("mlruns/undelivered").glob("*/journal.jsonl")):
        done = command("deliver")
        assert done.finish() == 0, done.said()
        said += "; the rest was sent by `deliver`"
    return said


def at_start() -> list[str]:
    with place():
        os.environ["MLFLOW_TRACKING_URI"] = "http://ann:topsecret@127.0.0.1:9"
        started = time.monotonic()
        refused = train("--epochs", "1")
        assert refused.finish() == 2, refused.said()
        assert "topsecret" not in refused.said()
        return [f"after {time.monotonic() - started:.0f} s: {clear(refused.said())}"]


def for_a_minute() -> list[str]:
    """60 s, in the middle of an epoch; the training ends after the server is back."""
    with server() as it:
        expected = _reference()
        victim = train("--epochs", EPOCHS, before=slowly)
        assert victim.wait_for("epoch   2/"), victim.said()
        it.stop()
        time.sleep(60)
        it.start()
        assert victim.finish(600) == 0, victim.said()
        return [_bridged(victim), _delivered(victim, expected)]


def for_good() -> list[str]:
    """Until after the training has ended; delivered, twice interrupted, by one command."""
    with server() as it:
        expected = _reference()
        victim = train("--epochs", EPOCHS, before=slowly)
        assert victim.wait_for("epoch   2/"), victim.said()
        it.stop()
        assert victim.finish(600) == 0, victim.said()
        assert "Traceback" not in victim.said(), victim.said()
        lines = [f"said: {_warning(victim)}", f"ended with: {victim.said().strip().splitlines()[-1]}"]
        refused = command("deliver")
        assert refused.finish() == 2, refused.said()
        lines.append(f"`deliver` while it is down: {clear(refused.said())}")
        it.start()
        marked = command("runs", "--mark-stale")
        assert marked.finish() == 0, marked.said()
        assert "waits for" in marked.said(), marked.said()
        cut = command("deliver")
        time.sleep(1.5)
        cut.kill()
        done = command("deliver")
        assert done.finish() == 0, done.said()
        lines.append(f"`deliver` was killed after 1.5 s and run again: {done.said().strip().splitlines()}")
        return [*lines, _delivered(victim, expected)]


def database() -> list[str]:
    """PostgreSQL below the server: restarted as an administrator does, then killed and away for 30 s."""
    if postgres_programs() is None:
        raise PermissionError("PostgreSQL is not installed (apt-get install postgresql)")
    with running_server() as it, place():
        os.environ |= it.environment
        expected, lines = _reference(), []
        for at_once, seconds in ((False, 0), (True, 30)):
            victim = train("--epochs", EPOCHS, before=slowly)
            assert victim.wait_for("epoch   2/"), victim.said()
            it.stop_postgres(at_once=at_once)
            time.sleep(seconds)
            it.start_postgres()
            assert victim.finish(600) == 0, victim.said()
            lines.append(f"{'killed, and away for 30 s' if at_once else 'restarted'}: {_bridged(victim)}")
            lines.append(_delivered(victim, expected))
        return lines


def slow() -> list[str]:
    """Each piece of an answer comes 0.2 s late."""
    with server() as it:
        expected = _reference()
        with _slow_road(it.port, 0.2) as port:
            os.environ["MLFLOW_TRACKING_URI"] = f"http://ann:{SECRET}@127.0.0.1:{port}"
            started = time.monotonic()
            victim = train("--epochs", EPOCHS)
            assert victim.finish(900) == 0, victim.said()
            took = time.monotonic() - started
        os.environ["MLFLOW_TRACKING_URI"] = it.uri
        kept = "does not answer" in victim.said()
        return [
            f"took {took:.0f} s; {'something was kept' if kept else 'nothing had to be kept'}",
            _delivered(victim, expected),
        ]


@contextmanager
def _slow_road(port: int, seconds: float) -> Iterator[int]:
    """A port that passes everything on to `port`, late."""

    class Road(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as there:
                back = threading.Thread(target=self._pass, args=(there, self.request, seconds), daemon=True)
                back.start()
                self._pass(self.request, there, 0)
                back.join()

        @staticmethod
        def _pass(source: socket.socket, target: socket.socket, late: float) -> None:
            try:
                while piece := source.recv(65536):
                    time.sleep(late)
                    target.sendall(piece)
                target.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Road) as road:
        road.daemon_threads = True
        threading.Thread(target=road.serve_forever, daemon=True).start()
        try:
            yield road.server_address[1]
        finally:
            road.shutdown()

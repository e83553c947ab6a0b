"""Many trainings and dashboards on one SQLite store, and many sessions on each dashboard."""

import os
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from tests.faults.scene import Training, apart, place, train, whole

ROOT = Path(__file__).parents[2]
PAGES = ("", "compare", "recall", "registry")


def load(seconds: float = 600, trainings: int = 8, dashboards: int = 4, sessions: int = 20) -> list[str]:
    """Trainings follow one another and sessions change pages until the time is up; AssertionError for any error.

    Args:
        seconds: How long.
        trainings: At the same time; each is tiny and of four epochs, and another one follows.
        dashboards: Servers on the same store.
        sessions: Over all dashboards together, each a websocket as a browser opens it.
    """
    with place() as folder, ExitStack() as opened:
        first = train("--epochs", "4")
        assert first.finish() == 0, first.said()
        servers = [opened.enter_context(_dashboard(folder / f"dashboard{n}.log")) for n in range(dashboards)]
        ports = [_port(folder / f"dashboard{n}.log") for n in range(dashboards)]
        deadline = time.monotonic() + seconds
        waits: list[float] = []
        errors: list[str] = []
        people = [
            threading.Thread(target=_visit, args=(ports[n % dashboards], n, deadline, waits, errors))
            for n in range(sessions)
        ]
        going: list[Training] = [train("--epochs", "4", "--seed", str(n)) for n in range(trainings)]
        for person in people:
            person.start()
        ended, most = 0, 0
        while going:
            for training in list(going):
                if (status := training.ended()) is None:
                    continue
                assert status == 0, training.said()
                ended += 1
                going.remove(training)
                if time.monotonic() < deadline:
                    going.append(train("--epochs", "4", "--seed", str(100 + ended)))
            most = max(most, *(psutil.Process(server.pid).memory_info().rss for server in servers))
            time.sleep(0.5)
        for person in people:
            person.join()
        logs = "".join((folder / f"dashboard{n}.log").read_text() for n in range(dashboards))
        assert not errors, errors[:3]
        assert "Traceback" not in logs, logs[-3000:]
        seen = apart(whole)
        finished = [row for row in seen["runs"].values() if row["status"] == "finished"]
        assert len(finished) == len(seen["runs"]) == len(seen["versions"]) == ended + 1
        waits.sort()
        return [
            f"{seconds:.0f} s, {trainings} trainings at once, {dashboards} dashboards, {sessions} sessions, "
            f"on {len(os.sched_getaffinity(0))} CPU core(s)",
            f"{ended} trainings finished, each with one version; the store is whole",
            f"{len(waits)} page views: median {statistics.median(waits):.2f} s, "
            f"95% within {waits[int(0.95 * len(waits))]:.2f} s, longest {waits[-1]:.2f} s; no error",
            f"a dashboard took at most {most / 2**20:.0f} MiB",
        ]


class _dashboard:  # noqa: N801 a context manager
    def __init__(self, log: Path):
        self.log = log

    def __enter__(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dashboard", "--no-browser"], env=environment, stdout=file, stderr=file
            )
        deadline = time.monotonic() + 180
        while "Dashboard: " not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.3)
        time.sleep(3)  # it says so just before it listens; the next one is to find the port taken
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)


def _port(log: Path) -> int:
    line = next(line for line in log.read_text().splitlines() if line.startswith("Dashboard: "))
    return int(line.split(":")[3].split()[0])


def _visit(port: int, number: int, deadline: float, waits: list[float], errors: list[str]) -> None:
    """One session: a page, two seconds, another page."""
    try:
        with connect(
            f"ws://127.0.0.1:{port}/_stcore/stream", subprotocols=["streamlit"],
            origin=f"http://127.0.0.1:{port}", max_size=None, open_timeout=120,
        ) as channel:  # fmt: skip
            turn = number
            while time.monotonic() < deadline:
                started = time.monotonic()
                ask = BackMsg()
                ask.rerun_script.page_name = PAGES[turn % len(PAGES)]
                channel.send(ask.SerializeToString())
                while True:
                    answer = ForwardMsg()
                    answer.ParseFromString(channel.recv(timeout=120))
                    kind = answer.WhichOneof("type")
                    if kind == "delta" and answer.delta.new_element.WhichOneof("type") == "exception":
                        errors.append(str(answer.delta.new_element.exception)[:500])
                    if kind == "script_finished":
                        break
                waits.append(time.monotonic() - started)
                turn += 1
                time.sleep(2)
    except Exception as error:
        errors.append(f"session {number}: {type(error).__name__}: {error}")

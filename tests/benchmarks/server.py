"""How the dashboard fares with a shared server as its runs grow: a real MLflow server on a real PostgreSQL.

A worker imports this file, so it imports nothing heavy itself.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.benchmarks.dashboard import APP, COMPARED, View, open_app, view, visit
from tests.benchmarks.worker import Worker
from tests.extra.servers import Server, running_server

SIZES = (100, 1_000, 10_000)
"""Runs on the server, one after the other."""
PAGES = ("compare", "registry")
"""Whose first views are measured, beside that of Runs."""
MOST_READ_WHOLE = 1_000
AGAIN = 3
"""Readings of a process after its first one, and runs that are logged meanwhile."""


@dataclass(frozen=True)
class ServerReading:
    """Seconds of one process's readings.

    first: what a new dashboard reads. first_cpu: CPU seconds of this process, of MLflow and of PostgreSQL together
    meanwhile. unchanged: again. after_run: after somebody has logged a new run.
    """

    first: float
    first_cpu: float
    unchanged: list[float]
    after_run: list[float]


@dataclass(frozen=True)
class ServerSize:
    """All that was measured with so many runs on the server.

    held: how many of them the first reading holds. whole: seconds that all of them take, read once; None where that
    would take minutes.
    pages: name → first view in each process.
    """

    runs: int
    held: int
    whole: float | None
    readings: list[ServerReading] = field(default_factory=list)
    pages: dict[str, list[View]] = field(default_factory=dict)


def measure_server(sizes: Sequence[int], rounds: int, say: Callable[[str], None]) -> list[ServerSize]:
    """Raises FileNotFoundError where there is no PostgreSQL."""
    found = []
    with running_server(workers=2) as server:
        for runs in sizes:
            say(f"logging {runs:,} invented runs to the server")
            with Worker(server.environment) as worker:
                predicted = worker.call(_fill, server, runs)
            with Worker(server.environment) as worker:
                size = ServerSize(runs, *worker.call(_read_whole, runs <= MOST_READ_WHOLE))
            for index in range(rounds):
                say(f"{runs:,} runs, new processes {index + 1} of {rounds}")
                with Worker(server.environment) as worker:
                    size.readings.append(worker.call(_read, server))
                with Worker(server.environment) as worker:
                    worker.call(open_app, APP)
                    size.pages.setdefault("runs", []).append(worker.call(view))
                    for page in PAGES:
                        first = worker.call(_visit_later, page, predicted[:COMPARED])
                        size.pages.setdefault(page, []).append(first)
            found.append(size)
    return found


# What follows runs in workers.


def _fill(server: Server, runs: int) -> list[str]:
    from tests.benchmarks.big_server import fill_server

    return [run_id[:8] for run_id in fill_server(server, runs)]


def _visit_later(page: str, runs: Sequence[str]) -> View:
    """When what was read is not fresh any more, so that each page reads again what has changed."""
    from dashboard.cache import FRESH_SECONDS

    time.sleep(FRESH_SECONDS)
    return visit(APP, page, runs)


def _read_whole(whole: bool) -> tuple[int, float | None]:
    """How many runs the first reading holds, and seconds of a reading of all, where that is wanted."""
    from dashboard.cache import NEWEST
    from tests.benchmarks.reading import seconds
    from trainer.store.location import open_store
    from trainer.store.reader import Reader

    store = open_store(create=False)
    held = len(Reader(store, newest=NEWEST).snapshot().runs)
    return held, seconds(Reader(store).snapshot) if whole else None


def _cpu_seconds(server: Server) -> float:
    """Of this process, and of the server's and the database's that live."""
    import psutil

    parents = [psutil.Process(), psutil.Process(server.pid), psutil.Process(server.postgres_pid)]
    family = [*parents, *(child for parent in parents[1:] for child in parent.children(recursive=True))]
    return sum(times.user + times.system for times in (process.cpu_times() for process in family))


def _read(server: Server) -> ServerReading:
    from dashboard.cache import NEWEST
    from tests.benchmarks.reading import seconds
    from trainer.store.location import open_store
    from trainer.store.reader import Reader

    store = open_store(create=False)
    reader, before = Reader(store, newest=NEWEST), _cpu_seconds(server)
    first = seconds(reader.snapshot)
    first_cpu = _cpu_seconds(server) - before
    unchanged = [seconds(reader.snapshot) for _ in range(AGAIN)]
    client, experiment = store.client(), store.experiment_id("fer2013")
    after, logged = [], []
    for _ in range(AGAIN):
        logged.append(client.create_run(experiment, run_name="new").info.run_id)
        after.append(seconds(reader.snapshot))
        assert logged[-1] in reader.snapshot().runs.index
    for run_id in logged:
        client.delete_run(run_id)
    return ServerReading(first, first_cpu, unchanged, after)

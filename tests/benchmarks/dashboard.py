"""How long the dashboard's pages take on a big store, and the memory that its process needs.

What is measured is the script on the server, from its start to its last message, by Streamlit's AppTest in a new
process; the browser and the network come on top. A worker imports this file, so it imports nothing heavy itself.
"""

import itertools
import json
import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.alone import peak_mib
from tests.benchmarks.worker import Worker

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

    from tests.benchmarks.reading import Reading

APP = Path("dashboard/app.py").absolute()
PAGES = "app_pages"
COMPARED = 10
REPEATS = 4
"""Filters, selections and second views of a process."""
PAUSE_SECONDS = 2.2
"""Between two clicks: longer than the dashboard trusts what it has read."""
TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class View:
    """One run of a page's script: seconds without imports, and seconds of the imports that it caused."""

    seconds: float
    importing: float


@dataclass(frozen=True, kw_only=True)
class Pages:
    """What a user does, in this order, in one process: first on the Runs page, then in a new tab for each page."""

    first: View
    filters: list[View]
    selections: list[View]
    beside_training: list[View]
    """A filter just after a running training has logged."""
    compare_first: View
    compare_later: list[View]
    others: dict[str, View]
    """First views of the other pages, with the same runs."""
    peak_mib: float
    torch_imported: bool


@dataclass(frozen=True, kw_only=True)
class DashboardResult:
    reading: "Reading"
    pages: list[Pages]
    """One of each new process."""


def measure_dashboard(
    scratch: Path, runs: int, given: Path | None, rounds: int, say: Callable[[str], None]
) -> DashboardResult:
    """On a store of invented runs in `scratch`: a new one, or a copy of `given`, which stays as it is."""
    folder = scratch / "runs"
    if given is None:
        say(f"writing a store of {runs:,} invented runs")
        with Worker() as worker:
            worker.call(_write, folder, runs)
    else:
        say(f"copying {given}")
        shutil.copytree(given, folder)
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder.absolute()}/mlflow.db"}
    say("reading the store")
    with Worker(store) as worker:
        reading = worker.call(_read, rounds)
    pages = []
    for index in range(rounds):
        say(f"pages, process {index + 1} of {rounds}")
        with Worker(store) as training, Worker(store) as worker:
            compared = training.call(_runs_to_compare)
            worker.call(open_app, APP)
            pages.append(_use(worker, training, compared))
    return DashboardResult(reading=reading, pages=pages)


def _use(worker: Worker, training: Worker, compared: Sequence[str]) -> Pages:
    first = worker.call(view)
    filters = [worker.call(_filter) for _ in _clicks()]
    selections = [worker.call(_select, list(range(index + 2))) for index in _clicks()]
    training.call(_begin_training)
    beside = []
    for _ in _clicks():
        training.call(_log)
        beside.append(worker.call(_filter))
    training.call(_end_training)
    worker.call(view)
    compare_first = worker.call(visit, APP, "compare", compared)
    compare_later = [worker.call(view) for _ in _clicks()]
    others = {
        path.stem: worker.call(visit, APP, path.stem, compared)
        for path in sorted(APP.with_name(PAGES).glob("*.py"))
        if path.stem not in ("runs", "compare")
    }
    peak_mib, torch_imported = worker.call(_cost)
    return Pages(
        first=first,
        filters=filters,
        selections=selections,
        beside_training=beside,
        compare_first=compare_first,
        compare_later=compare_later,
        others=others,
        peak_mib=peak_mib,
        torch_imported=torch_imported,
    )


def _clicks() -> Iterator[int]:
    for index in range(REPEATS):
        time.sleep(PAUSE_SECONDS)
        yield index


# What follows runs in workers. Each keeps what it has begun.
_kept: dict[str, Any] = {}


def _write(folder: Path, runs: int) -> None:
    from tests.benchmarks.big_store import write_store

    write_store(folder, runs)


def _read(rounds: int) -> "Reading":
    from tests.benchmarks.reading import measure_reading

    return measure_reading(rounds)


def _runs_to_compare() -> list[str]:
    """The first eight digits of runs with predictions."""
    from tests.benchmarks.big_store import runs_with_predictions
    from trainer.store.location import open_store

    return [run_id[:8] for run_id in runs_with_predictions(open_store(create=False))[:COMPARED]]


def _begin_training() -> None:
    from tests.benchmarks.reading import Training
    from trainer.store.location import open_store

    _kept["training"] = Training(open_store(create=False))


def _log() -> None:
    _kept["training"].log()


def _end_training() -> None:
    _kept["training"].end()


def open_app(script: Path) -> None:
    """Nothing of the app is imported yet."""
    from streamlit.testing.v1 import AppTest

    # It warns of every thread that is not a script's.
    logging.getLogger("streamlit.runtime.scriptrunner_utils.script_run_context").disabled = True
    _kept["clock"] = ScriptClock()
    _kept["architectures"] = itertools.cycle(("cnn", "resnet18", "any"))
    _kept["app"] = AppTest.from_file(str(script), default_timeout=TIMEOUT_SECONDS)


def view() -> View:
    """Run the page that is open, as after any click on it."""
    return _timed(_kept["app"].run)


def visit(script: Path, page: str, runs: Sequence[str]) -> View:
    """Open a page with these chosen runs in its URL, as a new tab of the browser does."""
    from streamlit.testing.v1 import AppTest

    app = AppTest.from_file(str(script), default_timeout=TIMEOUT_SECONDS)
    app.switch_page(f"app_pages/{page}.py")
    app.query_params["runs"] = list(runs)
    _kept["app"] = app
    return view()


def _filter() -> View:
    """Another architecture than before."""
    app: AppTest = _kept["app"]
    return _timed(app.selectbox(key="architecture").set_value(next(_kept["architectures"])).run)


def _select(rows: list[int]) -> View:
    """Tick rows of the table, as the browser would tell it."""
    app: AppTest = _kept["app"]
    states = app._tree.get_widget_states()
    state = states.widgets.add()
    state.id = app.dataframe[0].proto.id
    state.string_value = json.dumps({"selection": {"rows": rows, "columns": [], "cells": []}})
    return _timed(lambda: app._run(states))


def _timed(run: Callable[[], object]) -> View:
    """Raises RuntimeError where the page shows an exception."""
    view = _kept["clock"].time(run)
    if exceptions := _kept["app"].exception:
        raise RuntimeError("\n".join([exceptions[0].message, *map(str, exceptions[0].stack_trace)]))
    return view


def _cost() -> tuple[float, bool]:
    """Peak memory of this process in MiB, and whether it has imported torch."""
    return peak_mib(), "torch" in sys.modules


class ScriptClock:
    """Times Streamlit's script runs, and the imports in their threads apart."""

    def __init__(self) -> None:
        from importlib import _bootstrap  # type: ignore[attr-defined]

        from streamlit.runtime.scriptrunner.script_runner import ScriptRunner

        self._seconds = self._importing = 0.0
        self._thread = threading.local()
        run_script, find_and_load = ScriptRunner._run_script, _bootstrap._find_and_load

        def timed_run(runner: ScriptRunner, *args: Any) -> None:
            self._thread.runs, started = True, time.perf_counter()
            try:
                run_script(runner, *args)
            finally:
                self._seconds += time.perf_counter() - started
                self._thread.runs = False

        def timed_import(*args: Any) -> Any:
            if not getattr(self._thread, "runs", False):  # another thread, or an import within an import
                return find_and_load(*args)
            self._thread.runs, started = False, time.perf_counter()
            try:
                return find_and_load(*args)
            finally:
                self._importing += time.perf_counter() - started
                self._thread.runs = True

        ScriptRunner._run_script = timed_run  # type: ignore[method-assign]
        _bootstrap._find_and_load = timed_import

    def time(self, run: Callable[[], object]) -> View:
        self._seconds = self._importing = 0.0
        run()
        return View(self._seconds - self._importing, self._importing)

"""The dashboard and MLflow's own interface on one store that tests may change, and a browser that is watched."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mlflow import MlflowClient
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.extra.grey_faces import Trained
from trainer.contract import CHAMPION
from trainer.store.location import Store, open_store
from trainer.store.reader import Reader

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
MODEL = "fer2013-emotion"
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),  # a camera, and nobody to ask
)
PROBES = ("/_stcore/health", "/_stcore/host-config")
"""Opened by a link, a page first asks for these below its own address, before it asks at the root."""


@dataclass(frozen=True)
class Place:
    """A copy of the trained store, with two versions of one model, and who serves it.

    runs: architecture → run id. dashboard, mlflow: addresses. logs: where the servers write. gates: their file.
    """

    store: Store
    runs: dict[str, str]
    dashboard: str
    mlflow: str
    logs: Path
    gates: Path

    @property
    def client(self) -> MlflowClient:
        return self.store.client()

    @property
    def query(self) -> str:
        """That chooses the cnn and the resnet18."""
        return "&".join(f"runs={self.runs[name][:8]}" for name in ("cnn", "resnet18"))


@dataclass(frozen=True)
class Browser:
    """Two people's: they share no cookies, no storage and no connection."""

    one: BrowserContext
    other: BrowserContext


@dataclass
class Tab:
    """A page, what it asked of other hosts, and what it complained about."""

    page: Page
    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self._note(request.url))
        self.page.on("websocket", lambda channel: self._note(channel.url))
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def check(self) -> None:
        assert (self.outside, self.errors) == ([], [])

    def _note(self, url: str) -> None:
        if not url.startswith((f"http://{HOST}:", f"ws://{HOST}:", "data:", "blob:")):
            self.outside.append(url)

    def _listen(self, message: ConsoleMessage) -> None:
        address = message.location["url"]
        below_a_page = address.endswith(PROBES) and address.count("/") == 5
        if message.type == "error" and not (below_a_page and "404" in message.text):
            self.errors.append(f"{message.text} ({address})")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Contexts are kept for all tests: a new one would load and compile three megabytes of scripts again."""
    path = os.environ.get("MOODIFY_CHROMIUM", "/usr/bin/chromium")
    if not Path(path).exists():
        pytest.skip(f"Chromium is not at {path}; install Debian's package or set MOODIFY_CHROMIUM")
    expect.set_options(timeout=15_000)
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path, args=FLAGS) as chromium,
    ):
        yield Browser(*(chromium.new_context(reduced_motion="reduce") for _ in range(2)))


@pytest.fixture(scope="session")
def place(
    browser: Browser, trained_once: Trained, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """The dashboard is started here, MLflow's server where it is needed."""
    root = tmp_path_factory.mktemp("browser")
    shutil.copytree(trained_once.root / "mlruns", root / "mlruns")
    uri = f"sqlite:///{root / 'mlruns' / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as monkeypatch, ExitStack() as servers:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MOODIFY_CACHE", str(trained_once.root / "cache"))
        monkeypatch.setenv("MOODIFY_OFFLINE", "1")
        store = open_store(create=False)
        runs = Reader(store).snapshot().runs
        mlflow_port, port = unused_port(), unused_port()
        monkeypatch.setenv("MOODIFY_MLFLOW_URL", f"http://{HOST}:{mlflow_port}")
        gates = root / "gates.toml"
        gates.write_text("")
        monkeypatch.setenv("MOODIFY_GATES", str(gates))
        servers.enter_context(serving(root / "dashboard.log", "dashboard", "--port", str(port)))
        addresses = (f"http://{HOST}:{port}", f"http://{HOST}:{mlflow_port}")
        wait_for(f"{addresses[0]}/_stcore/health")
        yield Place(store, dict(zip(runs["architecture"], runs.index, strict=True)), *addresses, root, gates)


@pytest.fixture(scope="session")
def mlflow_ui(place: Place) -> Iterator[str]:
    port = place.mlflow.rpartition(":")[2]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", place.store.uri)
        with serving(place.logs / "mlflow.log", "trainer", "ui", "--port", port):
            wait_for(f"{place.mlflow}/health")
            yield place.mlflow


@pytest.fixture
def first_is_champion(place: Place) -> Iterator[None]:
    """Before and after a test that promotes."""

    def crown() -> None:
        for alias in place.client.get_registered_model(MODEL).aliases:
            place.client.delete_registered_model_alias(MODEL, alias)
        place.client.set_registered_model_alias(MODEL, CHAMPION, "1")

    crown()
    yield
    crown()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A wide, light page; afterwards it has asked no other host and complained of nothing."""
    with opened(browser.one) as tab:
        yield tab.page
        tab.check()


@contextmanager
def opened(context: BrowserContext, *, width: int = 1440, scheme: str = "light") -> Iterator[Tab]:
    page = context.new_page()
    try:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        yield Tab(page)
    finally:
        page.close()


@contextmanager
def serving(log: Path, *command: str) -> Iterator[int]:
    """`python -m` something that listens until it is told to stop; its process id."""
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", *command, "--no-browser"],
            cwd=ROOT,
            start_new_session=True,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield server.pid
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(15)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(server.pid, signal.SIGKILL)


def wait_for(url: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With a failure come what the servers wrote last, and a picture of the page."""
    report = yield
    found = getattr(item, "funcargs", {})
    if report.failed and isinstance(place := found.get("place"), Place):
        for log in sorted(place.logs.glob("*.log")):
            report.sections.append((log.name, log.read_text()[-4000:]))
        shown = [one.page if isinstance(one, Tab) else one for one in found.values()]
        for number, page in enumerate(one for one in shown if isinstance(one, Page) and not one.is_closed()):
            picture = place.logs / f"{item.name}-{number}.png"
            page.screenshot(path=picture)
            report.sections.append(("page", f"{page.url}, as in {picture}"))
    return report

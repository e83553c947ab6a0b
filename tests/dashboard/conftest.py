"""What tests of pages share: what a server keeps while it runs, `AppTest` would make anew for each page."""

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.runtime.scriptrunner.script_cache import ScriptCache
from streamlit.testing.v1 import app_test, local_script_runner

from tests.conftest import move_into
from tests.extra.odd_runs import add_odd_runs
from trainer.store.location import open_store


@pytest.fixture(autouse=True, scope="session")
def what_a_server_does_once() -> Iterator[None]:
    """To look for components among all installed packages, and to compile the pages."""
    compiled = ScriptCache()
    with pytest.MonkeyPatch.context() as patch:
        once = functools.cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", once)
        for module in (app_test, local_script_runner):
            patch.setattr(module, "ScriptCache", lambda: compiled)
        yield


@pytest.fixture(scope="session")
def odd_store(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> tuple[Path, dict[str, str]]:
    """A folder with a store of odd runs; what each is → its id."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "mlruns").mkdir()
    shutil.copyfile(empty_database, folder / "mlruns/mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        move_into(folder, patch)
        return folder, add_odd_runs(open_store())


@pytest.fixture
def odd(odd_store: tuple[Path, dict[str, str]], monkeypatch) -> dict[str, str]:
    """That store in the working directory, for tests that only read it."""
    move_into(odd_store[0], monkeypatch)
    return odd_store[1]

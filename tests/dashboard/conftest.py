"""What tests of pages share: what a server keeps while it runs, `AppTest` would make anew for each page."""

import functools
from collections.abc import Iterator

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.runtime.scriptrunner.script_cache import ScriptCache
from streamlit.testing.v1 import app_test, local_script_runner


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

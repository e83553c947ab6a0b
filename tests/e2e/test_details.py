"""What a store shows only when it is fuller than the others' here: a sweep, an audit, and all of Compare."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.commands.test_sweep import FLAGS, SEARCH
from tests.e2e.conftest import HOST, Browser, opened, serving, unused_port, wait_for
from tests.e2e.test_dashboard import DARK, LIGHT, PHONE_PX, assert_readable, beyond_the_screen, visit
from tests.extra.grey_faces import Trained

DETAILS = (
    *(
        "What was done differently",
        "What it cost",
        "Each class",
        "Slices",
        "Worse images",
        "What it looks at",
    ),
    "Parallel coordinates",
)
VIEWS = ("sweep", "sweep?view=All trials", "audit", *(f"compare?detail={name}" for name in DETAILS))


@pytest.fixture(scope="module")
def dashboard(browser: Browser, trained_once: Trained, tmp_path_factory) -> Iterator[str]:
    """Its address, on a copy of the trained store with a sweep of four trials and an audit, made by the commands."""
    root = tmp_path_factory.mktemp("details")
    data = ["--data-dir", str(trained_once.data_dir)]
    commands = (
        ["backup", str(root / "store.tar")],
        ["restore", str(root / "store.tar")],
        ["sweep", *data, *FLAGS, *SEARCH, "--epochs", "1", "--trials", "4"],
        ["audit", *data, "--model", "fer2013-emotion@champion"],
    )
    for command in commands:
        store = trained_once.root if command[0] == "backup" else root
        environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlruns/mlflow.db"}
        done = subprocess.run(
            [sys.executable, "-m", "trainer", *command], cwd=root, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlruns/mlflow.db")
        patch.setenv("MOODIFY_CACHE", str(trained_once.root / "cache"))
        patch.setenv("MOODIFY_OFFLINE", "1")
        with serving(root / "dashboard.log", "dashboard", "--port", str(port := unused_port())):
            wait_for(f"http://{HOST}:{port}/_stcore/health")
            yield f"http://{HOST}:{port}"


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
def test_it_is_named_and_readable_on_a_desk_and_on_a_phone_at_night(
    dashboard: str, browser: Browser, view: str
):
    with opened(browser.one) as desk, opened(browser.one, width=PHONE_PX, scheme="dark") as phone:
        for tab, background in ((desk, LIGHT), (phone, DARK)):
            visit(tab.page, f"{dashboard}/{view}")
            if detail := view.partition("detail=")[2]:  # a name that is none would open the first tab
                expect(tab.page.get_by_role("tab", name=detail)).to_have_attribute("aria-selected", "true")
            assert_readable(tab.page, background)
            drawn = tab.page.locator('[data-testid="stPlotlyChart"], [data-testid="stDataFrameResizable"]')
            expect(drawn.first).to_be_visible()
            names = drawn.evaluate_all("all => all.map(one => one.getAttribute('aria-label') || '')")
            assert all(len(name) > 10 for name in names), names
            tab.check()
        assert beyond_the_screen(phone.page) == []


@pytest.mark.slow
def test_each_trial_is_a_line_through_its_settings(dashboard: str, browser: Browser):
    with opened(browser.one) as tab:
        visit(tab.page, f"{dashboard}/sweep")
        chart = tab.page.get_by_role("figure", name="Settings and accuracy of 4 trials as parallel lines")
        expect(chart).to_be_visible()
        expect(chart.locator(".scatterlayer path.js-line")).not_to_have_count(0)
        heights = chart.locator(".scatterlayer path.js-line").evaluate_all(
            "all => all.map(one => one.getBoundingClientRect().height)"
        )
        assert max(heights) > 30, heights
        expect(chart).not_to_contain_text("WebGL")
        tab.check()

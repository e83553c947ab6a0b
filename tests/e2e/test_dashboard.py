"""The dashboard as a person uses it: in a browser, beside MLflow's own interface, on really trained runs."""

import base64
import re
from collections.abc import Iterator
from io import BytesIO
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from dashboard.app import PAGES
from tests.e2e.conftest import MODEL, Browser, Place, Tab, opened
from tests.extra.grey_faces import GREY_LEVELS
from tests.extra.same_store import assert_same
from trainer.contract import CHAMPION, EPOCH_METRICS, Tag
from trainer.evaluation.comparison import Predictions, compare, verdict
from trainer.store.location import Store
from trainer.store.reader import Reader
from trainer.store.writer import RunWriter

CLASSES = sorted(GREY_LEVELS)
PHONE_PX, ROW_PX = 390, 35
LIGHT, DARK = (255, 255, 255), (20, 23, 26)
"""The backgrounds that dashboard/.streamlit/config.toml names."""
LEAST_CONTRAST = 4.5
TABLES = '[data-testid="stDataFrame"]'


def address(place: Place, file: str, query: str = "") -> str:
    path = "" if file == "runs.py" else file.removesuffix(".py")
    return f"{place.dashboard}/{path}{'?' if query else ''}{query}"


def visit(page: Page, url: str) -> None:
    page.goto(url)
    settle(page)


def go_to(page: Page, title: str) -> None:
    """By the list of pages, which a phone keeps folded."""
    if (fold := page.get_by_test_id("stExpandSidebarButton")).is_visible():
        fold.click()
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=title, exact=True).click()
    expect(page.get_by_test_id("stCaptionContainer").first).to_have_text(title)
    settle(page)


def settle(page: Page) -> None:
    """The script has run to its end without an error, and what it made is drawn."""
    expect(answer(page)).to_be_visible(timeout=30_000)
    rest(page)
    expect(page.get_by_test_id("stException")).to_have_count(0)
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)
    for chart in page.get_by_test_id("stPlotlyChart").all():
        expect(chart.locator(".main-svg").first).to_be_visible()


def rest(page: Page) -> None:
    expect(page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]')).to_be_visible()


def answer(page: Page) -> Locator:
    """The sentence that a page opens with."""
    return page.get_by_role("heading", level=2).first


def matrix(page: Page, architecture: str) -> Locator:
    return page.get_by_role("figure", name=f"Confusion matrix, {architecture}")


def click_cell(page: Page, chart: Locator, truth: str, prediction: str) -> None:
    chart.scroll_into_view_if_needed()
    index = CLASSES.index(truth) * len(CLASSES) + CLASSES.index(prediction)
    box = chart.locator(".textpoint").nth(index).bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def tick(page: Page, row: int) -> None:
    """The table is a canvas: its header and rows are equally high, and boxes to tick come first."""
    page.locator(TABLES).click(position={"x": 16, "y": ROW_PX * (row + 1.5)})


def select(page: Page, name: str, option: str) -> None:
    rest(page)
    box = page.get_by_role("combobox", name=name, exact=True)
    # Whatever scrolls closes the list: scroll first, let two frames pass, and click without scrolling to the option.
    box.evaluate("one => one.scrollIntoView({block: 'center'})")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    entry = page.get_by_role("option", name=option, exact=True)
    for _ in range(5):
        box.click()
        if wait_visible(entry):
            break  # else the page was drawn anew and closed the list
    entry.dispatch_event("click")
    expect(box).to_have_value(option)


def wait_visible(entry: Locator) -> bool:
    """Whether it shows within some seconds."""
    try:
        entry.wait_for(timeout=4000)
    except PlaywrightTimeoutError:
        return False
    return True


def press(page: Page, group: str, option: str) -> None:
    page.get_by_role("radiogroup", name=group).get_by_text(option, exact=True).click()


def assert_faces(page: Page, label: str, count: int) -> None:
    """So many are shown, and they are of this class: each class is one level of grey."""
    pictures = page.locator(".faces img")
    expect(page.get_by_role("img", name=f"a face labelled {label}")).to_have_count(count)
    expect(pictures).to_have_count(count)
    sources = pictures.evaluate_all("images => images.map(image => image.src)")
    files = (BytesIO(base64.b64decode(source.partition(",")[2])) for source in sources)
    levels = {round(np.asarray(Image.open(file).convert("L")).mean()) for file in files}
    assert levels == {GREY_LEVELS[label]}


def test_two_runs_are_ticked_and_compared(page: Page, place: Place):
    visit(page, place.dashboard)
    for row in (0, 1):  # the two best are chosen from the start
        tick(page, row)
        expect(page.get_by_text(("1 run chosen", "Tick two or more runs")[row])).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Compare"))).to_be_disabled()
    for row, chosen in ((1, "1 run chosen"), (0, "2 runs chosen")):  # the newest is on top: resnet18, cnn
        tick(page, row)
        expect(page.get_by_text(chosen)).to_be_visible()
    page.get_by_role("button", name="Compare 2 runs").click()

    reader, ids = Reader(place.store), [place.runs["cnn"], place.runs["resnet18"]]
    found = compare(*(Predictions.from_table(reader.predictions(run_id)) for run_id in ids))
    expect(answer(page)).to_have_text(verdict(found, "cnn", "resnet18"))
    settle(page)
    url = urlsplit(page.url)
    assert url.path == "/compare"
    assert parse_qs(url.query)["runs"] == [run_id[:8] for run_id in ids]


def test_a_click_on_a_cell_shows_its_images_and_sets_the_boxes(page: Page, place: Place):
    visit(page, address(place, "confusion.py", place.query))
    click_cell(page, matrix(page, "resnet18"), "fear", "fear")
    expect(page.get_by_text("8 images of fear are found as such:")).to_be_visible()
    for name in ("Truth", "Taken for"):
        expect(page.get_by_role("combobox", name=name)).to_have_value("fear")
    expect(page.get_by_role("radio", name="resnet18")).to_be_checked()
    assert_faces(page, "fear", 8)
    click_cell(page, matrix(page, "cnn"), "angry", "happy")
    expect(page.get_by_text("0 images of angry are taken for happy.")).to_be_visible()
    expect(page.locator(".faces img")).to_have_count(0)


@pytest.mark.slow
def test_the_boxes_choose_a_cell_as_a_click_does_and_a_click_can_choose_again(page: Page, place: Place):
    visit(page, address(place, "confusion.py", place.query))
    click_cell(page, matrix(page, "cnn"), "fear", "fear")
    expect(page.get_by_text("8 images of fear are found as such:")).to_be_visible()
    select(page, "Truth", "sad")
    expect(page.get_by_text("0 images of sad are taken for fear.")).to_be_visible()
    select(page, "Taken for", "sad")
    expect(page.get_by_text("8 images of sad are found as such:")).to_be_visible()
    assert_faces(page, "sad", 8)
    click_cell(page, matrix(page, "cnn"), "fear", "fear")
    expect(page.get_by_text("8 images of fear are found as such:")).to_be_visible()


@pytest.mark.slow
@pytest.mark.usefixtures("first_is_champion")
def test_a_promotion_in_mlflow_shows_on_the_registry_page_without_a_reload(
    page: Page, place: Place, browser: Browser, mlflow_ui: str
):
    visit(page, address(place, "registry.py"))
    expect(answer(page)).to_contain_text("Version 1 (cnn) is the champion")
    page.evaluate("window.sameDocument = true")
    with opened(browser.other) as theirs:
        theirs.page.goto(f"{mlflow_ui}/#/models/{MODEL}/versions/2")
        theirs.page.get_by_role("button", name="Add").first.click()  # the first thing to add is an alias
        dialog = theirs.page.get_by_role("dialog", name="Add/Edit alias")
        dialog.get_by_role("combobox").fill(CHAMPION)
        dialog.get_by_role("combobox").press("Enter")
        dialog.get_by_role("button", name="Save aliases").click()
        expect(dialog).to_have_count(0)
        expect(theirs.page.get_by_role("status").filter(has_text=CHAMPION)).to_be_visible()
    expect(answer(page)).to_contain_text("Version 2 (resnet18) is the champion", timeout=10_000)
    assert page.evaluate("window.sameDocument")


@pytest.mark.slow
@pytest.mark.usefixtures("first_is_champion")
def test_a_promotion_on_the_registry_page_can_be_left_or_made_and_shows_in_mlflow(
    page: Page, place: Place, browser: Browser, mlflow_ui: str
):
    visit(page, address(place, "registry.py"))
    promote, dialog = (
        page.get_by_role("button", name="Make version 2 the champion"),
        page.get_by_role("dialog"),
    )
    promote.click()
    dialog.get_by_role("button", name="Leave it as it is").click()
    expect(dialog).to_have_count(0)
    assert int(place.client.get_model_version_by_alias(MODEL, CHAMPION).version) == 1

    promote.click()
    expect(dialog).to_contain_text("Version 1 loses champion.")
    dialog.get_by_role("button", name="Make version 2 the champion").click()
    expect(page.get_by_text(f"{MODEL} version 2 is now champion.")).to_be_visible()
    expect(answer(page)).to_contain_text("Version 2 (resnet18) is the champion")
    assert int(place.client.get_model_version_by_alias(MODEL, CHAMPION).version) == 2
    link = page.locator(TABLES).first.get_by_test_id(re.compile("glide-cell")).filter(has_text="/versions/2")
    with opened(browser.other) as theirs:
        theirs.page.goto(link.text_content() or "")
        expect(theirs.page.get_by_role("status").filter(has_text=CHAMPION)).to_be_visible(timeout=30_000)
        assert theirs.page.url.startswith(f"{mlflow_ui}/#/models/{MODEL}/versions/2")


@pytest.mark.slow
@pytest.mark.usefixtures("first_is_champion")
def test_a_promotion_against_a_gate_waits_for_a_reason(page: Page, place: Place):
    place.gates.write_text("maximum_latency_ms = 0.0001\n")
    try:
        visit(page, address(place, "registry.py"))
        page.get_by_role("button", name="Make version 2 the champion").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("latency, not passed")
        confirm = dialog.get_by_role("button", name="Make version 2 the champion")
        expect(confirm).to_be_disabled()
        reason = dialog.get_by_role("textbox", name="Why it becomes champion all the same")
        reason.fill("for the demo")
        reason.press("Tab")
        confirm.click()
        expect(page.get_by_role("alert").filter(has_text="for the demo")).to_be_visible()
        version = place.client.get_model_version_by_alias(MODEL, CHAMPION)
        assert (int(version.version), version.tags[Tag.PROMOTION_REASON]) == (2, "for the demo")
    finally:
        place.gates.write_text("")


@pytest.mark.slow
def test_going_back_brings_back_the_runs_that_were_chosen(page: Page, place: Place):
    visit(page, address(place, "compare.py", place.query))
    link, said = page.url, answer(page).inner_text()
    page.get_by_role("combobox", name="Runs").press("Backspace")
    expect(answer(page)).to_contain_text("choose a second run to compare")
    expect(page).not_to_have_url(link)
    page.go_back()
    expect(page).to_have_url(link)
    expect(answer(page)).to_have_text(said)
    rest(page)
    assert page.url == link


@pytest.mark.slow
def test_a_copied_link_opens_the_same_comparison(page: Page, place: Place, browser: Browser):
    visit(page, address(place, "compare.py", place.query))
    press(page, "Learning curve", "loss")
    press(page, "Axis", "time")
    for _ in range(3):
        page.get_by_role("slider").press("ArrowRight")
    expect(page).to_have_url(re.compile("smoothing=0.15"))
    expect(page.get_by_role("figure", name="loss of 2 runs over time")).to_be_visible()
    with opened(browser.other) as copy:
        visit(copy.page, page.url)
        expect(copy.page.get_by_role("figure", name="loss of 2 runs over time")).to_be_visible()
        expect(copy.page.get_by_role("slider")).to_have_value("0.15")
        assert copy.page.url == page.url
        copy.check()


@pytest.mark.slow
def test_a_copied_link_opens_the_same_recalls(page: Page, place: Place, browser: Browser):
    visit(page, address(place, "recall.py", place.query))
    press(page, "Metric", "precision")
    press(page, "Sort classes", "name")
    expect(page).to_have_url(re.compile("order=name"))
    with opened(browser.other) as copy:
        visit(copy.page, page.url)
        expect(copy.page.get_by_role("figure", name=re.compile("precision of each class"))).to_be_visible()
        expect(copy.page.get_by_role("radio", name="name")).to_be_checked()
        assert copy.page.url == page.url
        copy.check()


@pytest.mark.slow
def test_a_copied_link_opens_the_same_cell(page: Page, place: Place, browser: Browser):
    visit(page, address(place, "confusion.py", place.query))
    press(page, "Share of", "counts")
    select(page, "Truth", "happy")
    select(page, "Taken for", "happy")
    expect(page.get_by_text("8 images of happy are found as such:")).to_be_visible()
    before = page.url
    press(page, "By", "resnet18")
    expect(page).not_to_have_url(before)
    with opened(browser.other) as copy:
        visit(copy.page, page.url)
        expect(copy.page.get_by_text("8 images of happy are found as such:")).to_be_visible()
        for chosen in ("counts", "resnet18"):
            expect(copy.page.get_by_role("radio", name=chosen)).to_be_checked()
        assert copy.page.url == page.url
        copy.check()


@pytest.mark.slow
def test_a_running_training_shows_its_progress_without_a_reload(page: Page, place: Place):
    writer = RunWriter.create(
        place.store, "fer2013", "at-work", {"architecture": "cnn", "dataset": "fer2013"}
    )
    try:
        writer.log_params({"epochs": 5})
        writer.log_metrics({"validation/accuracy": 0.3, "epoch_seconds": 20.0}, step=1)
        visit(page, place.dashboard)
        page.evaluate("window.sameDocument = true")
        progress = page.get_by_test_id("stProgress")
        expect(progress).to_contain_text("epoch 2 of 5, 1 min 20 s left")
        writer.log_metrics({"validation/accuracy": 0.4, "epoch_seconds": 20.0}, step=2)
        expect(progress).to_contain_text("epoch 3 of 5, 1 min 0 s left", timeout=10_000)
        expect(page.get_by_test_id("stMetricValue")).to_have_text("0.400")
        place.client.set_terminated(writer.run_id, "KILLED")
        expect(progress).to_have_count(0, timeout=10_000)
        assert page.evaluate("window.sameDocument")
    finally:
        place.client.delete_run(writer.run_id)


@pytest.fixture(scope="module", params=list(PAGES))
def linked(request: pytest.FixtureRequest, browser: Browser, place: Place) -> Iterator[Tab]:
    """Each page, as a link to it opens it."""
    with opened(browser.one) as tab:
        visit(tab.page, address(place, request.param, place.query))
        yield tab


@pytest.mark.slow
def test_a_page_asks_no_other_host(linked: Tab):
    assert linked.outside == []


@pytest.mark.slow
def test_a_page_logs_no_error(linked: Tab):
    assert linked.errors == []


@pytest.mark.slow
def test_every_chart_and_table_and_picture_has_a_name(linked: Tab):
    charts = linked.page.locator('[data-testid="stPlotlyChart"], [data-testid="stDataFrameResizable"]')
    names = charts.evaluate_all("all => all.map(one => one.getAttribute('aria-label') || '')")
    assert all(len(name) > 10 for name in names), names
    assert linked.page.locator("img:not([alt])").count() == 0


@pytest.mark.slow
def test_charts_can_be_read_by_day(linked: Tab):
    assert_readable(linked.page, LIGHT)


@pytest.fixture(scope="module")
def night(browser: Browser, place: Place) -> Iterator[Tab]:
    """A dark page on which both runs are chosen."""
    with opened(browser.one, scheme="dark") as tab:
        visit(tab.page, f"{place.dashboard}?{place.query}")
        yield tab


@pytest.mark.slow
@pytest.mark.parametrize("title", PAGES.values())
def test_charts_can_be_read_at_night(night: Tab, title: str):
    go_to(night.page, title)
    assert_readable(night.page, DARK)
    night.check()


@pytest.fixture(scope="module")
def phone(browser: Browser, place: Place) -> Iterator[Tab]:
    """A narrow page on which both runs are chosen."""
    with opened(browser.one, width=PHONE_PX) as tab:
        visit(tab.page, f"{place.dashboard}?{place.query}")
        yield tab


@pytest.mark.slow
@pytest.mark.parametrize("title", PAGES.values())
def test_a_page_fits_a_phone(phone: Tab, title: str):
    go_to(phone.page, title)
    blocks = 'document.scrollingElement, ...document.querySelectorAll("[data-testid^=stMain]")'
    assert max(phone.page.evaluate(f"[{blocks}].map(block => block.scrollWidth)")) <= PHONE_PX
    assert beyond_the_screen(phone.page) == []
    phone.check()


def beyond_the_screen(page: Page) -> list[str]:
    """Charts, tables, cells, pictures and texts of charts that do not lie wholly between its left and right edge."""
    return page.evaluate(
        """() => [...document.querySelectorAll(
            "[data-testid=stPlotlyChart], [data-testid=stDataFrame], [data-testid=stTable] td, " +
            ".faces img, .main-svg text"
        )].filter(one => {
            const box = one.getBoundingClientRect()
            return box.width && (box.left < 0 || box.right > innerWidth)
        }).map(one => one.getAttribute("aria-label") || one.textContent || one.tagName)"""
    )


def assert_readable(page: Page, background: tuple[int, ...]) -> None:
    """Everything stands on the theme's background, and the texts of charts stand out from it."""
    expect(page.get_by_test_id("stApp")).to_have_css("background-color", f"rgb{background}")
    charts = page.get_by_test_id("stPlotlyChart").all()
    corners = [Image.open(BytesIO(chart.screenshot())).convert("RGB").getpixel((1, 1)) for chart in charts]
    assert corners == [background] * len(charts)
    texts = page.locator(".main-svg .xtick text, .ytick text, .xtitle, .ytitle, .legendtext").evaluate_all(
        "all => all.map(one => [one.textContent, getComputedStyle(one).fill])"
    )
    assert len(texts) >= len(charts)
    ratios = {text: contrast(rgb(fill), background) for text, fill in texts}
    assert all(ratio >= LEAST_CONTRAST for ratio in ratios.values()), ratios


def rgb(colour: str) -> tuple[float, ...]:
    return tuple(float(value) for value in re.findall(r"[\d.]+", colour)[:3])


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG 2.2's ratio, 1 to 21, of two sRGB colours with channels from 0 to 255."""

    def luminance(colour: tuple[float, ...]) -> float:
        share = np.array(colour) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.slow
def test_a_server_says_the_same_as_the_tables(place: Place, mlflow_ui: str):
    served = Reader(Store(mlflow_ui, None))
    assert_same(Reader(place.store), served)
    history = served.histories([place.runs[name] for name in ("cnn", "resnet18")], EPOCH_METRICS)
    assert len(history) == 2 * 8 * len(EPOCH_METRICS)
    assert served.predictions(place.runs["cnn"]) is not None

"""Trying models on photos in a browser: uploads, the camera, adjusting, and where the photo is not found afterwards."""

import json
import re
import secrets
import socket
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.e2e.conftest import HOST, Browser, Place, opened, serving, unused_port, wait_for
from tests.e2e.test_dashboard import PHONE_PX, address, answer, go_to, rest, settle, visit
from tests.extra.drawn_photos import encoded, scene

pytestmark = (
    pytest.mark.slow
)  # what the page says is tested without a browser in tests/dashboard/test_try_it.py
ONE, TWO = [(300, 100)], [(80, 60), (600, 300)]
MARKED_BYTES = 5_000_000
FORGOTTEN_SECONDS = 60


@pytest.fixture
def try_it(page: Page, place: Place) -> Page:
    visit(page, address(place, "try_it.py", "models=fer2013-emotion/1&models=fer2013-emotion/2"))
    return page


def photo(places=ONE, **options) -> dict[str, object]:
    return {
        "name": "drawn.jpg",
        "mimeType": "image/jpeg",
        "buffer": encoded(scene(places, **options), quality=92),
    }


def upload(page: Page, *files: dict[str, object]) -> None:
    page.get_by_test_id("stFileUploader").first.locator("input[type=file]").set_input_files(list(files))
    rest(page)


def test_a_photo_is_answered_by_two_models_side_by_side(try_it: Page):
    upload(try_it, photo(TWO))
    expect(answer(try_it)).to_contain_text("Two faces. Left: ")
    settle(try_it)
    expect(try_it.locator(".face")).to_have_count(2)
    expect(try_it.locator(".face .said")).to_have_count(4)
    expect(try_it.get_by_role("img", name="drawn.jpg: 2 numbered faces")).to_be_visible()
    expect(try_it.get_by_role("img", name="the input of face 1")).to_be_visible()
    expect(try_it.locator('.face img[alt^="what spoke for"]')).to_have_count(4)
    natural = try_it.locator('img[alt="the input of face 1"]').evaluate("image => image.naturalWidth")
    assert natural == 48


def test_a_face_is_left_out_adjusted_and_added(try_it: Page):
    upload(try_it, photo(TWO))
    expect(answer(try_it)).to_contain_text("Two faces")
    try_it.get_by_text("Use face 1").click()
    expect(answer(try_it)).to_contain_text("One face")
    expect(try_it.locator(".face")).to_have_count(1)
    shown = try_it.get_by_role("img", name="the input of face 2")
    before = shown.get_attribute("src")
    try_it.get_by_role("button", name="Adjust face 2").click()
    slider = try_it.get_by_role("slider", name="Side")
    slider.focus()
    for _ in range(5):
        try_it.keyboard.press("ArrowRight")
    rest(try_it)
    expect(shown).not_to_have_attribute("src", before)
    try_it.keyboard.press("Escape")
    try_it.get_by_role("button", name="Draw a face").click()
    chart = try_it.get_by_role("dialog").locator(".nsewdrag").first
    box = chart.bounding_box()
    try_it.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * 0.1)
    try_it.mouse.down()
    try_it.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.4, steps=8)
    try_it.mouse.up()
    try_it.get_by_role("button", name="Take this square").click()
    expect(answer(try_it)).to_contain_text("Two faces")
    drawn = try_it.get_by_role("img", name="the input of face 3")
    expect(drawn).to_be_visible()
    try_it.get_by_text("Take the whole image as the face", exact=True).click()
    expect(answer(try_it)).to_contain_text("One face")


def test_answers_are_downloaded(try_it: Page):
    upload(try_it, photo(TWO))
    expect(answer(try_it)).to_contain_text("Two faces")
    settle(try_it)
    found = {}
    for name in ("Answers as CSV", "Answers as JSON", "Annotated picture"):
        with try_it.expect_download() as download:
            try_it.get_by_role("button", name=name).click()
        found[name] = Path(download.value.path())
    content = json.loads(found["Answers as JSON"].read_text())
    assert [row["face"] for row in content["predictions"]] == [1, 1, 2, 2]
    assert len(found["Answers as CSV"].read_text().splitlines()) == 5
    assert Image.open(found["Annotated picture"]).size == (960, 640)


def test_many_photos_and_a_broken_one(try_it: Page):
    broken = {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": photo()["buffer"][:700]}
    upload(try_it, photo(), photo(TWO), broken)
    expect(answer(try_it)).to_contain_text("3 photos, three faces")
    expect(answer(try_it)).to_contain_text("1 cannot be read")
    settle(try_it)


def test_the_page_fits_a_phone_at_night(browser: Browser, place: Place):
    with opened(browser.one, width=PHONE_PX, scheme="dark") as tab:
        visit(tab.page, address(place, "try_it.py", "models=fer2013-emotion/1"))
        upload(tab.page, photo(TWO))
        expect(answer(tab.page)).to_contain_text("Two faces")
        settle(tab.page)
        widths = "() => [document.documentElement.scrollWidth, innerWidth]"
        scrolled, inner = tab.page.evaluate(widths)
        assert scrolled <= inner
        tab.check()


def test_the_server_sends_a_strict_policy(page: Page, place: Place):
    headers = page.goto(address(place, "try_it.py")).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert not re.search(r"https?://|\*", policy)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    settle(page)


def test_a_picture_of_the_camera_is_taken(browser: Browser, place: Place):
    context = browser.one.browser.new_context(permissions=["camera"])
    with opened(context) as tab:
        visit(tab.page, address(place, "try_it.py", "models=fer2013-emotion/1"))
        tab.page.get_by_role("tab", name="The camera").click()
        # Before the camera has shown anything, the button takes nothing.
        expect(tab.page.locator("video")).to_have_js_property("readyState", 4)
        take, taken = (tab.page.get_by_role("button", name=name) for name in ("Take Photo", "Clear photo"))
        for _ in range(5):
            take.click()
            with suppress(AssertionError):
                expect(taken).to_be_visible(timeout=5000)
                break
        expect(answer(tab.page)).to_contain_text(re.compile("face", re.IGNORECASE))
        expect(tab.page.get_by_text("Take the whole image as the face", exact=True)).to_be_visible()
        settle(tab.page)
        tab.check()
    context.close()


@dataclass(frozen=True)
class Watched:
    """A server of its own whose memory and disk are searched: it writes below `root`, temporary files in `root/tmp`."""

    url: str
    root: Path
    pid: int

    def in_memory(self, marks: list[bytes]) -> int:
        """How often any of the marks stands in memory that the server can write to; the rest is files of libraries."""
        count = 0
        for line in Path(f"/proc/{self.pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            start, end = (int(text, 16) for text in span.split("-"))
            with Path(f"/proc/{self.pid}/mem").open("rb", buffering=0) as memory:
                memory.seek(start)
                try:
                    block = memory.read(end - start)
                except OSError:
                    continue
            count += sum(block.count(mark) for mark in marks)
        return count

    def on_disk(self, marks: list[bytes], *folders: Path) -> list[str]:
        """Files that hold a mark; a downloaded or temporary file would be one of them."""
        return [
            str(path)
            for folder in (self.root, *folders)
            for path in folder.rglob("*")
            if path.is_file() and any(mark in path.read_bytes() for mark in marks)
        ]


@pytest.fixture
def watched(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    if sys.platform != "linux":
        pytest.skip("a process's memory is searched in /proc, which is Linux's")
    (tmp_path / "tmp").mkdir()
    port = unused_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place.store.uri)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    with ExitStack() as servers:
        pid = servers.enter_context(serving(tmp_path / "dashboard.log", "dashboard", "--port", str(port)))
        url = f"http://{HOST}:{port}"
        wait_for(f"{url}/_stcore/health")
        yield Watched(url, tmp_path, pid)


def marked_photo(mark: bytes) -> bytes:
    """An uncompressed photo with a face on it, whose lower half says `mark` again and again, in file and pixels."""
    image = scene(ONE, size=(1280, 1300))
    pixels = np.asarray(image).copy()
    text = np.frombuffer(mark * (pixels[650:].size // len(mark) + 1), np.uint8)
    pixels[650:] = text[: pixels[650:].size].reshape(pixels[650:].shape)
    return encoded(Image.fromarray(pixels), "PPM")


def send_in_pieces(data: bytes) -> Callable[[Route], None]:
    """Uploads `data` in the browser's place, its end in pieces of some hundred bytes, as a slow line does."""
    boundary = "of-one-part"

    def send(route: Route) -> None:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="marked.ppm"\r\n\r\n'
        body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
        headers = {name: value for name, value in route.request.headers.items() if name != "content-length"}
        headers |= {
            "content-type": f"multipart/form-data; boundary={boundary}",
            "content-length": str(len(body)),
        }
        address = urllib.parse.urlsplit(route.request.url)
        lines = [f"PUT {address.path} HTTP/1.1", f"host: {address.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()] + ["connection: close", "", ""]
        with socket.create_connection((HOST, address.port), 60) as line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line.sendall("\r\n".join(lines).encode() + body[:-200_000])
            for start in range(len(body) - 200_000, len(body), 500):
                line.sendall(body[start : min(start + 500, len(body))])
                time.sleep(0.002)
            answer = line.recv(1000)
        route.fulfill(status=int(answer.split()[1]))

    return send


def test_nothing_of_a_photo_is_left_on_disk_or_in_memory(watched: Watched, browser: Browser, place: Place):
    """Two people look at a photo; one closes the tab, the other, who has a slow line, goes to another page."""
    closed, left = (secrets.token_hex(24).encode() for _ in range(2))
    with opened(browser.one) as one, opened(browser.other) as other:
        for tab, mark in ((one, closed), (other, left)):
            visit(tab.page, f"{watched.url}/try_it?models=fer2013-emotion/1")
            data = marked_photo(mark)
            assert len(data) >= MARKED_BYTES * 0.98
            if mark == left:
                tab.page.route("**/_stcore/upload_file/**", send_in_pieces(data))
            upload(tab.page, {"name": "marked.ppm", "mimeType": "image/x-portrait-pixmap", "buffer": data})
            expect(answer(tab.page)).to_contain_text("One face")
            settle(tab.page)
            with tab.page.expect_download():
                tab.page.get_by_role("button", name="Annotated picture").click()
            assert watched.in_memory([mark]) > 1000  # what is looked for can be found
        one.page.close()
        go_to(other.page, "Runs")
        wait_until_forgotten(watched, left)
    wait_until_forgotten(watched, closed)
    assert watched.on_disk([closed, left, b"marked.ppm"], place.store.artifact_root.parent) == []


def wait_until_forgotten(watched: Watched, mark: bytes) -> None:
    """Within the minute that is promised."""
    deadline = time.monotonic() + FORGOTTEN_SECONDS
    while (found := watched.in_memory([mark])) and time.monotonic() < deadline:
        time.sleep(4)
    assert found == 0

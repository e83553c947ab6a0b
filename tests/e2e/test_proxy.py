"""The dashboard behind nginx, with the configuration that docs/server holds: who has no login sees nothing."""

import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import HOST, ROOT, Browser, Place, opened, unused_port, wait_for
from tests.e2e.test_dashboard import answer, settle
from tests.e2e.test_try_it import photo, upload

pytestmark = pytest.mark.slow
NAME, PASSWORD = "anna", "a long password"


@pytest.fixture(scope="module")
def proxy(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of nginx; it has a certificate that nobody has signed."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed (apt-get install nginx-light)")
    folder, port = tmp_path_factory.mktemp("nginx"), unused_port()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={HOST}",
         "-keyout", folder / "key", "-out", folder / "certificate"],
        check=True, capture_output=True,
    )  # fmt: skip
    hashed = subprocess.run(
        ["openssl", "passwd", "-apr1", PASSWORD], check=True, capture_output=True, text=True
    )
    (folder / "accounts").write_text(f"{NAME}:{hashed.stdout}")
    server = (ROOT / "docs/server/nginx.conf").read_text()
    for ours, here in {
        "listen 443 ssl": f"listen {HOST}:{port} ssl",
        "/etc/ssl/moodify.pem": str(folder / "certificate"),
        "/etc/ssl/moodify.key": str(folder / "key"),
        "/etc/nginx/moodify.htpasswd": str(folder / "accounts"),
        "http://127.0.0.1:8501": place.dashboard,
    }.items():
        assert ours in server
        server = server.replace(ours, here)
    paths = "\n".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers may not read the folder of a test
    (folder / "nginx.conf").write_text(
        f"daemon off; {user} pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log {folder}/access.log; {paths}\n{server} }}\n"
    )
    process = subprocess.Popen([nginx, "-p", folder, "-c", folder / "nginx.conf"], stderr=subprocess.DEVNULL)
    try:
        with suppress(urllib.error.URLError):  # its certificate is refused: it is there
            wait_for(f"https://{HOST}:{port}/", 1)
        yield f"https://{HOST}:{port}"
    finally:
        process.terminate()
        process.wait(10)


def test_nobody_without_a_login_reaches_a_page_a_file_or_the_channel(proxy: str, browser: Browser):
    context = browser.one.browser.new_context(ignore_https_errors=True)
    for path in ("", "train", "_stcore/health", "_stcore/stream", "_stcore/upload_file/a/b", "media/x.jpg"):
        assert context.request.get(f"{proxy}/{path}").status == 401, path
    context.close()


def test_with_a_login_photos_are_answered_and_no_training_can_be_started(proxy: str, browser: Browser):
    context = browser.one.browser.new_context(
        ignore_https_errors=True, http_credentials={"username": NAME, "password": PASSWORD}
    )
    with opened(context) as tab:
        tab.page.goto(f"{proxy}/try_it?models=fer2013-emotion/1")
        expect(answer(tab.page)).to_be_visible()
        upload(tab.page, photo())
        expect(answer(tab.page)).to_contain_text("One face")
        settle(tab.page)
        tab.page.goto(f"{proxy}/train")
        expect(answer(tab.page)).to_contain_text("comes through a proxy")
        expect(tab.page.get_by_role("button", name=re.compile("^Start"))).to_have_count(0)
        assert tab.errors == []
    context.close()

"""The server around the pages: uploads that stay in memory and within bounds, and headers on every answer."""

import asyncio
import copy
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from streamlit.proto.Common_pb2 import FileURLs
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec

from dashboard import server
from dashboard.server import ALL_UPLOADS_BYTES, POLICY, UPLOAD_MB, Guard, keep_uploads_in_memory

T = TypeVar("T")
UPLOAD = "/_stcore/upload_file/session/file"
FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n%b\r\n--x--\r\n'


async def on_disk(request: Request) -> PlainTextResponse:
    """Whether the upload was written to a temporary file."""
    async with request.form() as form:
        (upload,) = (value for value in form.values() if isinstance(value, UploadFile))
        return PlainTextResponse(str(upload.file._rolled))


Answer = tuple[int, dict[str, str], str]


def ask(method: str, path: str, body: bytes = b"", *, length: bool = True) -> Answer:
    """Status, headers and text of the answer, by way of the guard."""
    return run(answer(guarded(), method, path, body, length=length))


def run(asking: Coroutine[None, None, T]) -> T:
    with ThreadPoolExecutor(1) as pool:  # this thread may have a loop already: Playwright's
        return pool.submit(asyncio.run, asking).result()


def guarded() -> Starlette:
    routes = [
        Route(UPLOAD, on_disk, methods=["PUT"]),
        Route("/page", lambda request: PlainTextResponse("page")),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, policy=POLICY)])


async def answer(
    app: Starlette, method: str, path: str, body: bytes = b"", *, length: bool = True,
    pause: Callable[[], Awaitable[object]] | None = None,
) -> Answer:  # fmt: skip
    """pause: what is waited for before the first byte of the body comes."""
    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    headers += [(b"content-length", str(len(body)).encode())] if length else []
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": headers, "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 80),
    }  # fmt: skip
    chunks = [body[start : start + 65_536] for start in range(0, len(body), 65_536)] or [b""]
    sent = []

    async def receive() -> dict[str, object]:
        if pause is not None:
            await pause()
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(message["body"] for message in sent[1:]).decode()


@pytest.fixture(autouse=True)
def room_for_50_mb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "held_bytes", lambda: ALL_UPLOADS_BYTES - 50 * 1024**2)


@pytest.mark.parametrize("megabytes", [0.1, 5, UPLOAD_MB])
def test_no_upload_of_a_size_that_is_taken_is_written_to_a_disk(megabytes):
    keep_uploads_in_memory()
    status, _, rolled = ask("PUT", UPLOAD, FORM % (b"x" * int(megabytes * 1024**2)))
    assert (status, rolled) == (200, "False")


def test_uploads_beyond_what_the_server_may_hold_are_refused():
    status, _, text = ask("PUT", UPLOAD, FORM % (b"x" * 51 * 1024**2))
    assert (status, text) == (413, "The server holds as many photos as it can")


@pytest.mark.parametrize("broken_off", [False, True])
def test_uploads_that_are_on_their_way_count_until_they_end(broken_off: bool):
    body = FORM % (b"x" * 40 * 1024**2)

    async def three_uploads() -> list[int]:
        app, go_on = guarded(), asyncio.Event()

        async def pause() -> None:
            await go_on.wait()
            if broken_off:
                raise ConnectionResetError

        first = asyncio.create_task(answer(app, "PUT", UPLOAD, body, pause=pause))
        await asyncio.sleep(0.1)
        second = await answer(app, "PUT", UPLOAD, body)
        go_on.set()
        [ended] = await asyncio.gather(first, return_exceptions=True)
        assert isinstance(ended, ConnectionResetError) if broken_off else ended[0] == 200
        third = await answer(app, "PUT", UPLOAD, body)
        return [second[0], third[0]]

    assert run(three_uploads()) == [413, 200]


def test_the_copies_that_a_page_is_given_of_an_upload_share_its_bytes():
    server.hold_uploads_once()
    record = UploadedFileRec("1", "a.jpg", "image/jpeg", b"x" * 1000)
    photo = UploadedFile(record, FileURLs(file_id="1"))
    for _ in range(2):  # each is read from its beginning
        [given] = copy.deepcopy([photo])
        assert given.read() == record.data
        assert given.getvalue() is record.data
        assert (given, given.name, given.size, given._file_urls.file_id) == (photo, "a.jpg", 1000, "1")


def test_an_upload_of_unknown_size_is_refused():
    assert ask("PUT", UPLOAD, FORM % b"x", length=False)[0] == 411


@pytest.mark.parametrize("path", ["/page", "/nothing", "/media/x.jpg"])
def test_every_answer_has_the_headers(path):
    _, headers, _ = ask("GET", path)
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers.get("cache-control") == ("no-store" if path.startswith("/media/") else None)


def test_the_policy_allows_streamlits_own_inline_script_and_no_other():
    (script,) = server._inline_scripts().split()
    assert script.startswith("'sha256-")
    assert "unsafe-eval" not in POLICY


def test_freed_memory_is_overwritten_where_there_is_glibc():
    if server._glibc() is None:
        pytest.skip("there is no glibc here")
    code = (
        "import ctypes\nfrom dashboard.server import forget_freed_memory\nforget_freed_memory()\n"
        "libc = ctypes.CDLL('libc.so.6')\nlibc.malloc.restype = ctypes.c_void_p\n"
        "libc.free.argtypes = [ctypes.c_void_p]\nblock = libc.malloc(50_000)\n"
        "ctypes.memset(block, 7, 50_000)\nguard = libc.malloc(50_000)\nlibc.free(block)\n"
        "print(ctypes.string_at(block + 1000, 4000).count(7))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "0"

"""The server around the pages: what it lets a browser do, and that nothing of a photo outlives its session."""

import asyncio
import contextlib
import copyreg
import ctypes
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.datastructures import Headers, MutableHeaders
from starlette.formparsers import MultiPartParser
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit import runtime
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec

from dashboard import photos

UPLOAD_MB = 40
"""Of one photo; also the limit that the browser tells."""
ALL_UPLOADS_BYTES = 1024**3
"""Of all photos in all sessions together: what the server holds in memory at most."""
SWEEP_SECONDS = 2
GONE_SECONDS = 10
"""So long after its tab was closed a session and its photos are dropped; until then a lost connection can come back."""
# Streamlit's own page starts one script from its text, named here by its hash; the camera reads a data: address.
POLICY = (
    "default-src 'none'; script-src 'self' {inline}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def make_app() -> st.App:
    """The pages behind the headers, and the sweeper beside them."""
    keep_uploads_in_memory()
    hold_uploads_once()
    forget_freed_memory()
    policy = POLICY.format(inline=_inline_scripts())
    return st.App(
        Path(__file__).with_name("app.py"),
        lifespan=_sweeping,
        middleware=[Middleware(Guard, policy=policy)],
    )


class Guard:
    """Adds the headers that keep a page to its own server, and refuses uploads beyond what memory is there for."""

    def __init__(self, app: ASGIApp, policy: str):
        self.app = app
        self._arriving_bytes = 0
        self._headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        arriving_bytes = 0
        if "/_stcore/upload_file/" in scope["path"] and scope["method"] == "PUT":
            announced = Headers(scope=scope).get("content-length", "")
            if not announced.isdigit():
                await PlainTextResponse("Content-Length is missing", 411)(scope, receive, send)
                return
            arriving_bytes = int(announced)
            if held_bytes() + self._arriving_bytes + arriving_bytes > ALL_UPLOADS_BYTES:
                await PlainTextResponse("The server holds as many photos as it can", 413)(
                    scope, receive, send
                )
                return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                if "/media/" in scope["path"] or "/_stcore/" in scope["path"]:
                    headers["Cache-Control"] = "no-store"
            await send(message)

        self._arriving_bytes += arriving_bytes
        try:
            await self.app(scope, receive, answer)
        finally:
            self._arriving_bytes -= arriving_bytes


def held_bytes() -> int:
    """Of all uploads that the server holds now."""
    families = runtime.get_instance().uploaded_file_mgr.get_stats()
    return sum(stat.byte_length for stats in families.values() for stat in stats)  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def _sweeping(_app: st.App) -> AsyncIterator[None]:
    task = asyncio.create_task(_sweep())
    try:
        yield
    finally:
        task.cancel()


async def _sweep() -> None:
    """Close sessions whose tab is gone; Streamlit keeps them, with their uploads, until something else happens."""
    gone: dict[str, float] = {}
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        now = asyncio.get_running_loop().time()
        server = runtime.get_instance()
        for session_id in photos.known_sessions():
            if server.is_active_session(session_id):
                gone.pop(session_id, None)
            elif now - gone.setdefault(session_id, now) >= GONE_SECONDS:
                photos.forget_session(session_id)
                del gone[session_id]
                await asyncio.to_thread(release_memory)


def keep_uploads_in_memory() -> None:
    """Of what is larger than a megabyte Starlette would make a temporary file while it reads it."""
    MultiPartParser.spool_max_size = (UPLOAD_MB + 1) * 1024**2


def hold_uploads_once() -> None:
    """At every rerun Streamlit copies what an uploader holds: let the copies share its bytes."""

    def parts(file: UploadedFile) -> tuple[type[UploadedFile], tuple[UploadedFileRec, object]]:
        record = UploadedFileRec(file.file_id, file.name, file.type, file.getvalue())
        return UploadedFile, (record, file._file_urls)

    copyreg.pickle(UploadedFile, parts)


def forget_freed_memory() -> None:
    """Make glibc overwrite memory when it is freed, and give large blocks back to the system at once (Linux).

    Small blocks need more: `OVERWRITTEN` of __main__.py.
    """
    if (libc := _glibc()) is not None:
        mmap_threshold, perturb = -3, -6  # malloc.h
        libc.mallopt(mmap_threshold, 128 * 1024)
        libc.mallopt(perturb, 0x5A)


def release_memory() -> None:
    gc.collect()
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> Any:
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if hasattr(libc, "mallopt") else None
    except OSError:
        return None


def _inline_scripts() -> str:
    """The hashes of the scripts that stand in Streamlit's page itself."""
    import base64
    import hashlib
    import re

    page = (Path(st.__file__).parent / "static" / "index.html").read_text()
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)

"""`python -m dashboard`: the dashboard at 127.0.0.1, on the store that MLFLOW_TRACKING_URI names."""

import contextlib
import os
import sys
from typing import Annotated

import tyro

from trainer.commands.ui import check_port, free_port, has_display

HOST = "127.0.0.1"
OVERWRITTEN = {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
"""Without these, blocks below a kilobyte would lie as they are after they are freed, whatever server.py tells glibc."""


def dashboard(
    *,
    port: Annotated[int, tyro.conf.arg(metavar="N")] = 8501,
    browser: bool = True,
) -> None:
    """Open the dashboard, for this machine only. Ctrl-C ends it.

    Args:
        port: Where to listen; the next free port is taken where it is in use.
        browser: Open the page in the browser.
    """
    check_port(port)
    os.environ.setdefault("STREAMLIT_LOGGER_LEVEL", "warning")
    # What the pages need is imported, and the store read, before the server says that it is up.
    import pyarrow.parquet  # noqa: F401

    import dashboard.cache
    import dashboard.report
    import dashboard.table
    import dashboard.trainings
    from dashboard.server import UPLOAD_MB, make_app
    from trainer.jobs import begin_store
    from trainer.store.location import StoreError

    try:
        if begin_store():
            print("A new store: the model that comes with the program is its first champion.", flush=True)
    except ValueError as error:
        print(f"The model that comes with the program could not be registered: {error}", flush=True)
    with contextlib.suppress(StoreError):  # the pages say what is amiss
        dashboard.cache.reader().snapshot()
    port = free_port(port)
    print(f"Dashboard: http://{HOST}:{port}  (Ctrl-C ends it)", flush=True)
    make_app().run(
        config={
            "server.port": port,
            "server.headless": not (browser and has_display()),
            "server.maxUploadSize": UPLOAD_MB,
        }
    )


def begin_overwriting() -> None:
    """Begin this process anew with OVERWRITTEN, which is heeded only at its start; what it starts is spared them."""
    if not sys.platform.startswith("linux"):
        return
    if os.environ | OVERWRITTEN != os.environ:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | OVERWRITTEN)  # noqa: S606
    for name in OVERWRITTEN:
        del os.environ[name]


def main() -> int:
    """Returns the exit code, as that of `python -m trainer`: 2 for a mistake of the user's, 130 for Ctrl-C."""
    try:
        begin_overwriting()
        tyro.cli(dashboard, prog="python -m dashboard")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if os.environ.get("MOODIFY_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

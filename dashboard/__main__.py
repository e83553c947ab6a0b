"""`python -m dashboard`: the dashboard at 127.0.0.1, on the store that MLFLOW_TRACKING_URI names."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated

import tyro

HOST = "127.0.0.1"


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
    # What the pages need is imported, and the store read, before the server says that it is up.
    import pyarrow.parquet  # noqa: F401
    from streamlit.web import cli

    import dashboard.cache
    import dashboard.report
    import dashboard.table
    import dashboard.trainings
    from trainer.commands.ui import free_port, has_display
    from trainer.store.location import StoreError

    with contextlib.suppress(StoreError):  # the pages say what is amiss
        dashboard.cache.reader().snapshot()
    port = free_port(port)
    flags = {"server.port": port, "server.headless": str(not (browser and has_display())).lower()}
    print(f"Dashboard: http://{HOST}:{port}  (Ctrl-C ends it)", flush=True)
    script = Path(__file__).with_name("app.py")
    os.environ.setdefault("STREAMLIT_LOGGER_LEVEL", "warning")
    sys.argv = ["streamlit", "run", str(script), *(f"--{name}={value}" for name, value in flags.items())]
    cli.main()


def main() -> None:
    tyro.cli(dashboard, prog="python -m dashboard")


if __name__ == "__main__":
    main()

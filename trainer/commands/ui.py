"""`ui`: MLflow's own interface on the same store."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import webbrowser

import tyro

HOST = "127.0.0.1"
PORT = 5000
"""Where the dashboard's links lead."""
LAST_PORT = 65_535


def main(arguments: list[str]) -> int:
    return tyro.cli(ui, args=arguments, prog="python -m trainer ui")


def ui(*, port: int = PORT, browser: bool = True) -> int:
    """Open the MLflow UI on the store, for this machine only. Ctrl-C ends it.

    Args:
        port: Where to listen; the next free port is taken where it is in use.
        browser: Open the page in the browser.
    """
    check_port(port)
    from trainer.store.location import StoreError, open_store, redacted

    store = open_store()
    if store.artifact_root is None:
        if not store.uri.startswith(("http://", "https://")):
            raise StoreError(
                "the store is a database, which has no UI: start a server on it (`make server`), or name one by "
                "MLFLOW_TRACKING_URI (http://…)"
            )
        print(f"The store is a server with a UI of its own: {redacted(store.uri)}")
        if browser and has_display():
            webbrowser.open(store.uri)
        return 0
    port = free_port(port)
    address = f"http://{HOST}:{port}"
    hint = "" if port == PORT else f"; MOODIFY_MLFLOW_URL={address} tells the dashboard's links"
    arguments = ["server", "--host", HOST, "--port", str(port), "--backend-store-uri", store.uri]
    arguments += ["--default-artifact-root", str(store.artifact_root), "--workers", "1"]
    # Without the variable the server starts eight more processes for jobs that are never sent.
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with subprocess.Popen([sys.executable, "-m", "mlflow", *arguments], env=environment) as server:
        try:
            print(f"MLflow UI: {address}  (Ctrl-C ends it{hint})", flush=True)
            if browser and has_display() and answers(port):
                webbrowser.open(address)
            return server.wait()
        except KeyboardInterrupt:
            server.terminate()
            return 0


def has_display() -> bool:
    """Without one, `webbrowser` would take over the terminal."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def answers(port: int, seconds: float = 30.0) -> bool:
    """Whether somebody listens on `port` before the time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return True
        time.sleep(0.2)
    return False


def check_port(port: int) -> None:
    """Raises ValueError for what is no port."""
    if not 1 <= port <= LAST_PORT:
        raise ValueError(f"--port {port}: must lie between 1 and {LAST_PORT}")


def free_port(wanted: int) -> int:
    """`wanted`, or the next port above it on which nothing listens.

    Raises ValueError where 50 are taken, or the user may not listen there.
    """
    last = min(wanted + 49, LAST_PORT)
    for port in range(wanted, last + 1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except PermissionError as error:
                raise ValueError(
                    f"you may not listen on port {port} ({error.strerror}): give another with --port, from 1024 on"
                ) from error
            except OSError:
                continue
            return port
    raise ValueError(f"ports {wanted} to {last} are in use; give another with --port")

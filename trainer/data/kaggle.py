"""A dataset from Kaggle, where Kaggle can be reached."""

import contextlib
import logging
import os
import queue
import ssl
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

KAGGLE_API = "https://api.kaggle.com"
PATIENCE_SECONDS = 6.0

logger = logging.getLogger(__name__)


class DownloadError(Exception):
    """Why there is no download, in one line."""


def download(dataset: str) -> Path:
    """Folder of version 1 of a dataset "owner/name", downloaded where kagglehub does not have it yet.

    Answers within about PATIENCE_SECONDS where Kaggle cannot be reached; MOODIFY_OFFLINE=1 does not even try.

    Raises DownloadError.
    """
    if (folder := _downloaded_before(dataset)) is not None:
        return folder
    if os.environ.get("MOODIFY_OFFLINE", "0") not in ("", "0"):
        raise DownloadError("MOODIFY_OFFLINE is set")
    # kagglehub itself waits without a limit where a firewall swallows its packets.
    if (reason := unreachable(KAGGLE_API, PATIENCE_SECONDS)) is not None:
        raise DownloadError(f"{KAGGLE_API} cannot be reached ({reason})")
    logger.info("downloading %s from Kaggle, once", dataset)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the command's result
            import kagglehub

            # With a version, kagglehub answers from its own folder later, without a network.
            return Path(kagglehub.dataset_download(f"{dataset}/versions/1"))
    except Exception as error:  # whatever stops kagglehub, the user's way out is the same
        raise DownloadError(" ".join(f"{type(error).__name__}: {error}".split())) from error


def _downloaded_before(dataset: str) -> Path | None:
    """Where kagglehub keeps a finished download; importing it to ask would take over a second."""
    root = Path(os.environ.get("KAGGLEHUB_CACHE") or Path.home() / ".cache/kagglehub") / "datasets" / dataset
    folder = root / "versions/1"
    return folder if (root / "1.complete").exists() and folder.is_dir() else None


def unreachable(url: str, seconds: float) -> str | None:
    """None where a server answers at `url` within `seconds`, otherwise the reason."""
    answers: queue.Queue[str | None] = queue.Queue()

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")  # noqa: S310 (a constant of this module)
            # An opener of its own: urlopen keeps the proxies of its first call.
            urllib.request.build_opener().open(request, timeout=seconds).close()
            answers.put(None)
        except urllib.error.HTTPError:
            answers.put(None)  # an answer, if not a welcome
        except Exception as error:
            if isinstance(getattr(error, "reason", None), ssl.SSLError):
                answers.put(None)  # kagglehub knows certificates of its own
            answers.put(str(getattr(error, "reason", error)) or type(error).__name__)

    # In a thread, because no timeout bounds the look-up of the name.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=seconds)
    except queue.Empty:
        return f"no answer in {seconds:g} s"

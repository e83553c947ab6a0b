"""What an unfinished run keeps on this machine, so that it can be resumed."""

import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from trainer.config import Config
from trainer.contract import CONFIG_FILE, LOCK_FILE, STATE_FILE
from trainer.drafts import write_text
from trainer.jobs import is_resumable

LEAST_SECONDS = 5.0
"""Between two that are kept: where an epoch takes a second, writing each would cost a third of the time."""


class Checkpoint:
    """The folder of one run; a context manager that keeps other processes from resuming it meanwhile."""

    def __init__(self, root: Path, run_id: str):
        self.folder = root / run_id
        self._lock = FileLock(root / LOCK_FILE.format(run_id=run_id))
        self._saved = -math.inf

    def __enter__(self) -> "Checkpoint":
        """Raises ValueError where another process trains this run, and OSError where there can be no folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ValueError(f"run {self.folder.name} is being trained by another process") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def is_due(self) -> bool:
        """Whether the last one was written long enough ago, or there is none."""
        return time.monotonic() - self._saved >= LEAST_SECONDS

    def begin(self, config: Config, fingerprints: dict[str, str], state: dict[str, Any]) -> None:
        """Keep what a training starts from, so that it can be resumed before its first epoch has ended."""
        self.keep(config)
        self.save(fingerprints, state)
        self._saved = -math.inf

    def keep(self, config: Config) -> None:
        """The configuration that the run goes on with, whose images may have moved meanwhile. Raises OSError."""
        text, file = config.to_json(), self.folder / CONFIG_FILE
        if file.is_file() and file.read_text() == text:
            return
        write_text(file, text)  # without a whole one the run could not be resumed

    def save(self, fingerprints: dict[str, str], state: dict[str, Any]) -> None:
        """Replace what is there, at once: a crash leaves the old state or the new one. Raises OSError."""
        draft = self.folder / f"{STATE_FILE}.new"
        try:
            torch.save({"fingerprints": fingerprints, "training": state}, draft)
        except (OSError, RuntimeError) as error:  # torch has words of its own for a full disk
            draft.unlink(missing_ok=True)
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            free = shutil.disk_usage(self.folder).free
            raise OSError(
                f"the checkpoint {self.folder / STATE_FILE} cannot be written, where {free / 1e6:,.0f} MB are free: "
                f"{reason}"
            ) from error
        with draft.open("rb+") as file:
            os.fsync(file.fileno())  # else a power cut may leave the new name with nothing in it
        draft.replace(self.folder / STATE_FILE)
        self._saved = time.monotonic()

    def exists(self) -> bool:
        """Whether there is one to go on from."""
        return (self.folder / STATE_FILE).is_file()

    def load(self) -> tuple[dict[str, str], dict[str, Any]]:
        """(fingerprints of the data, state of the training), on the CPU; only tensors and plain values are read.

        Raises ValueError, with a message for the user, where the file is damaged or cannot be read.
        """
        path = self.folder / STATE_FILE
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            return state["fingerprints"], state["training"]
        except Exception as error:  # torch raises whatever its parsers of zip and pickle stumble over
            raise ValueError(
                f"the checkpoint {path} is damaged or cannot be read ({type(error).__name__}): train anew, "
                f"or put a {STATE_FILE} of this run from a backup in its place"
            ) from error

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        Path(self._lock.lock_file).unlink(missing_ok=True)


def stored_config(root: Path, run_id: str) -> Config:
    """The configuration of a run that can be resumed. ValueError where this machine holds none."""
    if not is_resumable(root, run_id):
        raise ValueError(
            f"run {run_id} cannot be resumed: {root / run_id} holds no checkpoint "
            "(it is kept on the machine that trained, from the run's beginning until it finishes)"
        )
    return Config.from_json((root / run_id / CONFIG_FILE).read_text())

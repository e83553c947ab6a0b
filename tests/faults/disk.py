"""A disk that is full while a training caches, logs or registers; and a store that cannot be written."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.scene import apart, command, place, result, train, whole

EPOCHS = "3"


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own at `folder`, in memory. PermissionError where that is not allowed."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs"]
    if subprocess.run(["mount", *options, str(folder)], capture_output=True).returncode:
        raise PermissionError("mounting a small file system needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def fill(folder: Path, spare: int = 0) -> Path:
    """Take all but `spare` bytes of its file system."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        space = os.statvfs(folder)
        os.posix_fallocate(file.fileno(), 0, max(1, space.f_bavail * space.f_frsize - spare))
    return ballast


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def clear(said: str) -> str:
    """The message, which is one line and no traceback."""
    assert "Traceback" not in said, said
    line = last_line(said)
    assert line.startswith("error: "), said
    return line


def cache() -> list[str]:
    """Caching fails, training does not."""
    with place() as folder, small_disk(folder / "small", 1):
        fill(folder / "small", 20_000)
        os.environ["MOODIFY_CACHE"] = str(folder / "small" / "cache")
        done = train("--epochs", "1")
        assert done.finish() == 0, done.said()
        warning = next(line for line in done.said().splitlines() if "cache could not be written" in line)
        assert not list((folder / "small").glob("cache/*.safetensors"))
        assert not list((folder / "small").glob("cache/*.tmp"))
        return [f"full while caching: {warning}", "the training finished and was registered"]


def log() -> list[str]:
    """The store's disk is full during an epoch: an end with one line; with room again it goes on."""
    return [
        f"full while logging an epoch: {_fill_at('epoch   1/')}",
        f"full while registering: {_fill_at('Evaluating')}",
    ]


def _fill_at(words: str) -> str:
    with place() as folder:
        first = train("--epochs", EPOCHS)
        assert first.finish() == 0, first.said()
        expected = apart(result, first.run_id)
        shutil.rmtree("mlruns")
        with small_disk(folder / "mlruns", 40):
            victim = train("--epochs", EPOCHS)
            assert victim.wait_for(words), victim.said()
            ballast = fill(folder / "mlruns")
            status = victim.finish()
            assert status == 2, victim.said()
            told = clear(victim.said())
            assert f"train --resume {victim.run_id}" in victim.said()
            ballast.unlink()
            seen = apart(whole)
            row = seen["runs"][victim.run_id]
            assert row["status"] in ("stale", "failed")
            assert not seen["versions"]
            resumed = command("train", "--resume", str(victim.run_id))
            assert resumed.finish() == 0, resumed.said()
            assert apart(result, victim.run_id) == expected
            assert len(apart(whole)["versions"]) == 1
            return (
                f"{told} | shown as {row['status']}; with room again resumed to the same result, one version"
            )


def read_only() -> list[str]:
    """A store on a file system that is mounted read-only."""
    with place() as folder, small_disk(folder / "mlruns", 40):
        first = train("--epochs", "1")
        assert first.finish() == 0, first.said()
        subprocess.run(["mount", "-o", "remount,ro", str(folder / "mlruns")], check=True)
        refused = train("--epochs", "1")
        assert refused.finish() == 2, refused.said()
        listed = command("runs")
        status = listed.finish()
        seen = last_line(listed.said())
        subprocess.run(["mount", "-o", "remount,rw", str(folder / "mlruns")], check=True)
        assert len(apart(whole)["runs"]) == 1
        return [f"training: {clear(refused.said())}", f"`runs` (exit status {status}): {seen}"]

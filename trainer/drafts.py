"""Files that take the place of earlier ones whole, or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Of which the system does not say in which file."""


@contextmanager
def drafts(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Where to write instead of `files`; they are there when the block has ended.

    Where it ends with an error, earlier files of these names stay as they were, and nothing else is left. Of those that
    the block has not written an earlier one goes: it would pass for a part of this work. Links and modes are kept.
    Raises OSError before the block where its files could not be kept.
    """
    places = [Path(os.path.realpath(file)) for file in files]  # what a link leads to
    with ExitStack() as stack:
        written = [stack.enter_context(_beside(place)) for place in places]
        try:
            yield written
        except OSError as error:
            if error.errno in NO_ROOM and not error.filename:
                error.filename = str(files[0])
            raise
        for draft, place in zip(written, places, strict=True):
            if not draft.exists():
                place.unlink(missing_ok=True)
                continue
            if place.exists():
                shutil.copymode(place, draft)
            draft.replace(place)


def write_text(file: Path, text: str) -> None:
    """Replace what is there at once: whoever reads, also after a power cut, finds the old text or this one. OSError."""
    unfinished = file.with_name(f".{file.name}.new")
    try:
        with unfinished.open("w") as writing:
            writing.write(text)
            writing.flush()
            os.fsync(writing.fileno())  # else the new name may be there with nothing in it
        unfinished.replace(file)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


@contextmanager
def draft(file: Path) -> Iterator[Path]:
    """`drafts` of one file."""
    with drafts([file]) as [written]:
        yield written


def check_writable(file: Path) -> None:
    """Raises OSError where `draft` could not be given it."""
    with _beside(Path(os.path.realpath(file))):
        pass


@contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """A file of the same name in a folder that is gone afterwards, on the same file system. Raises OSError."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))
    if place.exists() and not os.access(place, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".new-", ignore_cleanup_errors=True) as scratch:
        yield Path(scratch, place.name)

"""Files that take the place of earlier ones whole, or not at all."""

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Of which the system does not say in which file."""


@contextmanager
def drafts(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Where to write instead of `files`, which lie in one folder; they are there when the block has ended.

    Where it ends with an error, earlier files of these names stay as they were, and nothing else is left. Of those that
    the block has not written an earlier one goes: it would pass for a part of this work.
    Raises OSError before the block where its files could not be kept.
    """
    folder = files[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-", ignore_cleanup_errors=True) as scratch:
        written = [Path(scratch, file.name) for file in files]
        try:
            yield written
        except OSError as error:
            if error.errno in NO_ROOM and not error.filename:
                error.filename = str(files[0])
            raise
        for draft, file in zip(written, files, strict=True):
            if draft.exists():
                draft.replace(file)
            else:
                file.unlink(missing_ok=True)


@contextmanager
def draft(file: Path) -> Iterator[Path]:
    """`drafts` of one file."""
    with drafts([file]) as [written]:
        yield written

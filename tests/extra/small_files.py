"""A disk that has no room, for files of this process."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def small_files(size_bytes: int) -> Iterator[None]:
    """No file can be made larger meanwhile: writing fails as on a full disk, by the system's own word."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

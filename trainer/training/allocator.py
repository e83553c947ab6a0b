"""Keeps the memory of large activations in the process instead of returning it to the kernel each step."""

import ctypes
import sys
from collections.abc import Callable

# <malloc.h> of glibc.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_memory() -> bool:
    """Tell glibc's malloc to reuse what was freed; returns whether it listened.

    By default every allocation above some megabytes is a mapping of its own, which the kernel has to
    clear page by page at every step: about a quarter of a small CNN's training time. Elsewhere than on
    glibc this does nothing.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is None:
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 256 * 2**20))
    return all(mallopt(name, value) == 1 for name, value in settings)


def return_memory() -> bool:
    """Give the kernel back what was freed and kept, before other work begins; returns whether there was any.

    After the steps of an epoch come blocks of other sizes, for which new memory would be taken beside what is kept:
    270 MiB in a few epochs of a ResNet18. Giving back takes some hundredths of a second.
    """
    trim = _of_glibc("malloc_trim")
    return trim is not None and trim(0) == 1


def _of_glibc(name: str) -> Callable[..., int] | None:
    """A function of glibc; None where the process runs on another C library."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except OSError:
        return None

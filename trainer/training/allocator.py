"""Keeps the memory of large activations in the process instead of returning it to the kernel each step."""

import ctypes
import sys

# <malloc.h> of glibc.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_memory() -> bool:
    """Tell glibc's malloc to reuse what was freed; returns whether it listened.

    By default every allocation above some megabytes is a mapping of its own, which the kernel has to
    clear page by page at every step: about a quarter of a small CNN's training time. Elsewhere than on
    glibc this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has none
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 256 * 2**20))
    return all(mallopt(name, value) == 1 for name, value in settings)

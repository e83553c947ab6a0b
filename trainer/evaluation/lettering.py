"""The fonts that pictures are lettered with (light to import)."""

import logging
import string
from array import array
from bisect import bisect_left
from functools import cache, lru_cache
from pathlib import Path

log = logging.getLogger(__name__)


def font_file(text: str = "") -> str:
    """DejaVu Sans, which comes with matplotlib: Pillow's own font knows no letter beyond ASCII.

    Where it lacks letters of `text`, as Chinese ones, the first font of this machine that has all of them, else one
    that has those; where there is none, they are boxes, and a warning says so.
    """
    letters = frozenset(letter for letter in text if letter.isprintable() and not letter.isascii())
    return _usual() if not _lacking(_usual(), letters) else _other(letters) or _usual()


@cache
def _usual() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@lru_cache(256)
def _other(letters: frozenset[str]) -> str | None:
    from matplotlib.font_manager import fontManager

    missing, with_some = _lacking(_usual(), letters), None
    for font in sorted(fontManager.ttflist, key=lambda font: (font.style != "normal", font.weight != 400)):
        if font.name.startswith("Last Resort"):  # it has a box for every letter
            continue
        if _lacking(font.fname, missing.union(string.ascii_letters, string.digits)):
            continue
        if not _lacking(font.fname, letters):
            return font.fname
        with_some = with_some or font.fname
    if with_some is None:
        _warn("".join(sorted(missing)))
    return with_some


def _lacking(file: str, letters: frozenset[str]) -> frozenset[str]:
    """Which of them the font has not."""
    known = _code_points(file)
    places = ((letter, bisect_left(known, ord(letter))) for letter in letters)
    return frozenset(letter for letter, at in places if at == len(known) or known[at] != ord(letter))


@cache
def _code_points(file: str) -> "array[int]":
    """Of the letters of a font, in order; none where it is gone, or cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return array("L", sorted(FT2Font(file).get_charmap()))
    except (OSError, RuntimeError):
        return array("L")


_warned = False


def _warn(letters: str) -> None:
    """Once: a training draws the names of all classes."""
    global _warned
    if not _warned:
        log.warning("no font of this machine has such letters as %s: pictures show boxes", letters)
    _warned = True

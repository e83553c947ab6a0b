"""The fonts that pictures are lettered with (light to import)."""

import logging
import string
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)


def font_file(text: str = "") -> str:
    """DejaVu Sans, which comes with matplotlib: Pillow's own font knows no letter beyond ASCII.

    Where it lacks letters of `text`, as Chinese ones, the first font of this machine that has them; where there is
    none, they are boxes, and a warning says so.
    """
    missing = frozenset(filter(str.isprintable, text)) - _letters(usual := _usual())
    return (_other(missing) or usual) if missing else usual


@cache
def _usual() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@cache
def _other(missing: frozenset[str]) -> str | None:
    from matplotlib.font_manager import fontManager

    wanted = missing.union(string.digits, string.ascii_letters)
    for font in sorted(fontManager.ttflist, key=lambda font: (font.style != "normal", font.weight != 400)):
        # "Last Resort" has a box for every letter.
        if not font.name.startswith("Last Resort") and wanted <= _letters(font.fname):
            return font.fname
    log.warning("no font of this machine has the letters %s: pictures show boxes", " ".join(sorted(missing)))
    return None


@cache
def _letters(file: str) -> frozenset[str]:
    """Those of a font; none where it is gone, or cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(file).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()

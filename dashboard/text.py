"""How numbers and names are written, and made safe for Markdown and HTML."""

import base64
import html
import math
import re

import pandas as pd

from trainer import wording
from trainer.evaluation import metrics
from trainer.wording import several as several

DASH = "–"
LONGEST_NAME = 48
_ACTIVE = re.compile(r"(?<!\\)\\*([\[\]<>$:!&~@])")
_ADDRESS = re.compile(r"https?\\*:(?=\\*/\\*/)|www(?=\\*\.)|@(?=[-\w\\]+\.[-\w\\])", re.IGNORECASE)
"""What Streamlit's Markdown makes a link of, backslashes or not, by the letters that it ends up with."""
_WORD_JOINER = "\u2060"
_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])")


def plain(text: object) -> str:
    """Text of a stranger's, so that Markdown shows it as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", _unlinked(" ".join(str(text).split())))


def document(text: str, level: int = 4) -> str:
    """Markdown of a stranger's: paragraphs, lists, tables and headings (from `level` on) are kept, and it can neither
    link, nor fetch a picture, nor hold HTML, formulas or colours."""
    safe = _ACTIVE.sub(r"\\\1", _unlinked(text))
    return re.sub(r"^#+ ", lambda found: "#" * (level - 2) + found[0], safe, flags=re.MULTILINE)


def _unlinked(text: str) -> str:
    """With a mark of no width where an address would begin."""
    return _ADDRESS.sub(rf"\g<0>{_WORD_JOINER}", text)


def tag(text: object) -> str:
    """Any text as HTML that shows it, within an attribute, too."""
    return html.escape(str(text), quote=True)


def source(data: bytes, kind: str) -> str:
    """A picture (PNG or JPEG) as the address of itself."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def printable(text: str) -> str:
    """A file's name without what breaks lines or turns the direction of writing; shortened."""
    return short("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text))


def short(text: str, longest: int = LONGEST_NAME) -> str:
    """The beginning and the end of a long name."""
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 9]}…{text[-8:]}"


def number(value: float, digits: int = 3) -> str:
    """Missing is not zero."""
    return DASH if _missing(value) else f"{value:,.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    return DASH if _missing(value) else f"{value:+,.{digits}f}".replace("-", "−")


def percent(value: float) -> str:
    """As metrics.percent."""
    return DASH if _missing(value) else metrics.percent(value)


def count(value: float) -> str:
    return DASH if _missing(value) else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`."""
    return DASH if _missing(seconds) else wording.duration(seconds)


def large(value: float) -> str:
    """`1.2 M`, `11 M`, `850 k`."""
    if _missing(value):
        return DASH
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.2g}{unit}" if value < 10 * limit else f"{value / limit:.0f}{unit}"
    return f"{value:.0f}"


def _missing(value: object) -> bool:
    return value is None or bool(pd.isna(value)) or (isinstance(value, float) and math.isinf(value))

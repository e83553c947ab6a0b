"""Numbers and names as people read them, and what strangers write made harmless."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.text import (
    count,
    document,
    duration,
    large,
    number,
    percent,
    plain,
    several,
    short,
    signed,
    tag,
)

NAN = float("nan")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (number(0.12345), "0.123"),
        (number(-0.5), "−0.500"),
        (number(NAN), "–"),
        (number(float("inf")), "–"),
        (signed(0.03), "+0.030"),
        (signed(-0.03), "−0.030"),
        (percent(0.417), "42%"),
        (percent(NAN), "–"),
        (percent(0.0), "0%"),
        (percent(0.003), "<1%"),
        (percent(0.0051), "1%"),
        (percent(0.9949), "99%"),
        (percent(0.996), ">99%"),
        (percent(1.0), "100%"),
        (percent(1.002), "100%"),
        (count(3589.0), "3,589"),
        (duration(45), "45 s"),
        (duration(200), "3 min 20 s"),
        (duration(7500), "2 h 5 min"),
        (duration(NAN), "–"),
        (large(2_456_807), "2.5 M"),
        (large(11_172_423), "11 M"),
        (large(850), "850"),
        (several(1, "run"), "1 run"),
        (several(1200, "run"), "1,200 runs"),
    ],
)
def test_numbers_are_written_with_units_and_missing_is_no_zero(written: str, expected: str):
    assert written == expected


def test_a_long_name_keeps_its_beginning_and_its_end():
    name = short("x" * 40 + "y" * 40)
    assert len(name) == 48
    assert name.startswith("xxx")
    assert name.endswith("yyy")


@pytest.mark.parametrize(
    "hostile", ["**b**", "[a](http://b)", "$x$", ":smile:", "<i>", "# h", "`c`", "![i](x)", "a\nb"]
)
def test_markdown_of_a_stranger_is_escaped(hostile: str):
    written = plain(hostile)
    assert "\n" not in written
    for index, letter in enumerate(written):
        if letter in "*[$:<#`!":
            assert written[index - 1] == "\\"


def test_a_strangers_document_keeps_its_structure():
    written = document("# Name\n\n## Part\n\n- **bold** word\n\n| a | b |\n|---|---|\n| 1 | 2 |")
    assert written == ("### Name\n\n#### Part\n\n- **bold** word\n\n| a | b |\n|---|---|\n| 1 | 2 |")


@pytest.mark.parametrize(
    "hostile",
    [
        "![i](http://b)",
        "[a](b)",
        "<img src=x>",
        "$x$",
        ":red[x]",
        "https://b.c",
        "a@b.c",
        "&lt;i&gt;",
        "[a]: //b",
    ],
)
def test_a_strangers_document_neither_links_nor_fetches(hostile: str):
    written = document(hostile)
    for index, letter in enumerate(written):
        if letter in "[]<>$:!&@":
            assert written[index - 1] == "\\"


LINKS = re.compile(r"https?://[-.\w]+|www\.[-.\w]+|[-.\w+]+@[-\w]+(?:\.[-\w]+)+", re.IGNORECASE)
"""What mdast-util-gfm-autolink-literal, which Streamlit has, looks for in text that has no backslashes any more."""


@pytest.mark.parametrize("write", [plain, document])
@pytest.mark.parametrize(
    "hostile",
    [
        "http://b.c/d", "HTTPS://b.c", "see www.b.c", "WWW.b.c", "a@b.c", "a+b@c-d.e", "<http://b.c>", "x_http://b.c",
        r"http\://b.c", r"http:\//b.c", r"http:/\/b.c", r"www\.b.c", r"a@b\.c", r"a\@b.c", r"a@b\-c.d", r"a@b\_c.d",
    ],
)  # fmt: skip
def test_an_address_of_a_strangers_becomes_no_link(write, hostile: str):
    shown = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", write(hostile))  # as Markdown takes backslashes away
    assert not LINKS.search(shown)
    assert shown.replace("\u2060", "").replace("\\", "") == hostile.replace("\\", "")


def test_a_models_reference_can_be_copied():
    for reference in ("fer2013-emotion@champion", "fer2013-emotion/1", "sketch v1.2@challenger"):
        assert plain(reference).replace("\\", "") == reference


@pytest.mark.parametrize("hostile", [r"\[a](//b)", r"\\[a](//b)", r"\$x$", r"\<b>", r"\\\![i](b)"])
def test_a_strangers_backslashes_do_not_take_ours_away(hostile: str):
    for found in re.finditer(r"(\\*)[\[\]<>$!]", document(hostile)):
        assert len(found[1]) % 2 == 1, document(hostile)


@given(st.text())
def test_html_of_a_stranger_is_escaped(text: str):
    written = tag(text)
    assert not {"<", ">", '"', "'"} & set(written)

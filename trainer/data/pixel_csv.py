"""The original fer2013.csv."""

import csv
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import IO

import numpy as np

from trainer.data.images import ImageError
from trainer.data.layouts import Found, file_signature

SIDE_PX = 48
CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")
COLUMNS = ("emotion", "pixels", "usage")
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # in the order of their codes
CODES = {str(code): emotion for code, emotion in enumerate(EMOTIONS)}
USAGES = {"Training": "train", "PublicTest": "test", "PrivateTest": "test"}


class PixelCsv:
    """Columns emotion (0 to 6), pixels and Usage; one row for each image. The classes are the emotions that occur."""

    unused: tuple[str, ...] = ()

    def __init__(self, path: Path, parts: tuple[str, ...]) -> None:
        self.path, self.parts = path, parts
        self.title = f"the images of {path}"

    def signature(self) -> str:
        return f"csv {file_signature(self.path)}"

    def read(self) -> dict[str, Found]:
        with self.path.open("rb") as file:
            return read_rows(file, str(self.path), self.parts)


def read_rows(content: IO[bytes], name: str, parts: tuple[str, ...]) -> dict[str, Found]:
    """What a CSV file holds of each part. Raises ValueError, which calls it `name`, where that cannot be told."""
    found = {part: Found() for part in parts}
    named: dict[str, set[str]] = {part: set() for part in USAGES.values()}  # emotions, also of unwanted parts
    part = "train"
    rows = csv.reader(TextIOWrapper(content, encoding="utf-8-sig", errors="replace", newline=""))
    try:
        columns = _columns(rows, name)
        for number, row in enumerate(row for row in rows if row):
            emotion, pixels, usage = (row[column].strip() if column < len(row) else "" for column in columns)
            # A truncated row has no Usage; it counts for the part of the row before it.
            part = USAGES.get(usage, part)
            if usage in USAGES and emotion in CODES:
                named[part].add(CODES[emotion])
            if part in found:
                _add_row(found[part], part, number, emotion, pixels, usage)
    except csv.Error as error:
        raise ValueError(f"{name}, line {rows.line_num}: {error}") from error
    for wanted in parts:
        if not found[wanted].samples and not found[wanted].skipped:
            usages = " or ".join(usage for usage, its_part in USAGES.items() if its_part == wanted)
            raise ValueError(f"{name} has no row with Usage {usages}, so it has no {wanted} part")
    every = set().union(*named.values())
    for wanted in parts:
        found[wanted].class_names = set(every)
        if found[wanted].skipped:  # these rows may be the missing ones
            continue
        if len(every) < 2:
            raise ValueError(
                f"{name} has rows of one emotion alone, {', '.join(every)}: it needs two or more"
            )
        if missing := sorted(every - named[wanted]):
            raise ValueError(
                f"{name} has no {wanted} row of {', '.join(missing)}; train and test need the same emotions"
            )
    return found


def _columns(rows: Iterator[list[str]], name: str) -> list[int]:
    """Positions of emotion, pixels and Usage; some copies write spaces into the header."""
    header = [title.strip().lower() for title in next(rows, [])]
    if not set(COLUMNS) <= set(header):
        there = ", ".join(header)[:100] or "none"
        raise ValueError(f"{name} needs the columns emotion, pixels and Usage; its first line has: {there}")
    return [header.index(column) for column in COLUMNS]


def _add_row(found: Found, part: str, number: int, emotion: str, pixels: str, usage: str) -> None:
    if usage not in USAGES:
        found.skipped.append(
            f"{part}/row_{number}: its Usage is '{usage[:20]}', not one of {', '.join(USAGES)}"
        )
    elif emotion not in CODES:
        found.skipped.append(f"{part}/{usage}_{number}: its emotion is '{emotion[:20]}', not 0 to 6")
    else:
        found.add(CODES[emotion], f"{part}/{usage}_{number}", _parse_pixels, pixels)


def _parse_pixels(text: str) -> np.ndarray:
    """uint8 (48, 48) from 2,304 numbers with spaces between them; ImageError for anything else."""
    try:
        values = np.fromstring(text, dtype=np.int64, sep=" ")  # five times as fast as int() of each
    except ValueError as error:
        raise ImageError("its pixels are not whole numbers with spaces between them") from error
    if len(values) != SIDE_PX**2:
        raise ImageError(f"it has {len(values):,} pixels, not {SIDE_PX**2:,}")
    if values.min() < 0 or values.max() > 255:
        raise ImageError("a pixel lies outside of 0 to 255")
    return values.astype(np.uint8).reshape(SIDE_PX, SIDE_PX)

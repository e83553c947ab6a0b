"""Photos with their faces drawn on them."""

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainer.evaluation.lettering import font_file
from trainer.inference.faces import Face, Photo

OUTLINE, INK, PAPER = "#FFFFFF", "#0B5C8A", "#FFFFFF"
LEAST_PX = 480
"""A smaller photo is drawn so many times as large that its longer side is at least this: a label takes some room."""
_MARK = b"drawn by Moodify"


def annotated(photo: Photo, faces: Sequence[Face], labels: Sequence[str], most_px: int) -> Image.Image:
    """The photo, its longer side from LEAST_PX to `most_px`, with a square around each face and its label at it."""
    image = Image.fromarray(photo.pixels)
    image.thumbnail(
        (most_px, most_px), Image.Resampling.BICUBIC, reducing_gap=1.0
    )  # to look at, not to measure
    if faces and (times := math.ceil(LEAST_PX / max(image.size))) > 1:
        image = image.resize((times * image.width, times * image.height), Image.Resampling.BICUBIC)
    scale = image.width / photo.width
    draw = ImageDraw.Draw(image)
    text_px = max(14, round(max(image.size) / 42))
    width = max(2, round(max(image.size) / 350))
    for face in faces:
        outline = [(float(x), float(y)) for x, y in face.region.corners() * scale]
        ring = [*outline, outline[0], outline[1]]
        draw.line(ring, fill=OUTLINE, width=width + 2, joint="curve")
        draw.line(ring, fill=INK, width=width, joint="curve")
    for face, label in zip(faces, labels, strict=True):  # above every square
        corners = face.region.corners() * scale
        font = ImageFont.truetype(font_file(label), text_px)
        _tag(draw, label, font, corners.min(0), image.size)
    return image


def _tag(
    draw: ImageDraw.ImageDraw, label: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    lower: np.ndarray, size: tuple[int, int],
) -> None:  # fmt: skip
    """A label at the upper left of a square; within the picture."""
    left, top, right, bottom = draw.textbbox((0, 0), label, font=font)
    width, height = right - left + 10, bottom - top + 8
    x = float(np.clip(lower[0], 0, max(0, size[0] - width)))
    y = float(np.clip(lower[1] - height, 0, max(0, size[1] - height)))
    draw.rectangle((x, y, x + width, y + height), fill=INK)
    draw.text((x + 5 - left, y + 4 - top), label, font=font, fill=PAPER)


def overlay(image: np.ndarray, saliency: np.ndarray, size: int) -> Image.Image:
    """A face under what a model looked at: grey where nothing spoke for the answer, orange where much did.

    image: uint8 (C, S, S). saliency: float (S, S) from 0 to 1. size: side of the result in px.
    """
    face = as_image(image).convert("L").resize((size, size), Image.Resampling.BICUBIC).convert("RGB")
    mask = Image.fromarray(np.uint8(saliency * 170)).resize((size, size), Image.Resampling.BICUBIC)
    return Image.composite(Image.new("RGB", (size, size), "#E69F00"), face, mask)


def as_image(pixels: np.ndarray) -> Image.Image:
    """Of what a model is shown, uint8 (C, S, S)."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **({"quality": 88} if kind == "JPEG" else {}))
    return stream.getvalue()


def as_ours(image: Image.Image) -> bytes:
    """A JPEG that `is_ours` tells from photos."""
    stream = BytesIO()
    image.save(stream, "JPEG", quality=88, comment=_MARK)
    return stream.getvalue()


def is_ours(path: Path) -> bool:
    """Whether it is a picture that was written with `as_ours`, and no link to one."""
    try:
        with Image.open(path) as image:
            return image.info.get("comment") == _MARK and not path.is_symlink()
    except Exception:  # Pillow raises anything on what is damaged
        return False

"""From any image file to grey pixels."""

import warnings
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

PIXEL_LIMIT = 64_000_000
"""Larger images are refused before they are decoded: width × height."""

# A list, because some of Pillow's other plugins start programs (EPS starts Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jfif",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".pgm",
        ".ppm",
        ".pbm",
        ".pnm",
    )
)

# Pillow warns between its limit and twice that, and decodes all the same; ours lies lower, so this
# only turns a warning beside our refusal into part of it.
warnings.simplefilter("error", Image.DecompressionBombWarning)


class ImageError(ValueError):
    """An image that cannot be used; the message is one line that gives the reason, without a file name."""


def read_grey(source: Path | bytes | BinaryIO, size: int | None = 48) -> np.ndarray:
    """Decode one image: upright by its EXIF orientation, grey, transparent parts on white.

    White, because a portrait that was cut out is drawn for a white page; black would read as dark hair
    or a frame. Grey is ITU-R 601 luma (Pillow's "L"), so that a grey image saved as RGB keeps its values.

    Args:
        size: side of the result in px. Other sizes are cropped to the central square, then resized
            with an antialiasing bicubic filter; a grey image of that size passes bit by bit. None
            keeps the image as it is.

    Returns:
        uint8 (size, size), or (H, W) where `size` is None; 0 is black.

    Raises:
        ImageError: unreadable, empty, truncated, not an image, or more than PIXEL_LIMIT pixels.
    """
    image = _open(_read(source))
    try:
        ImageOps.exif_transpose(image, in_place=True)
        if size is not None and image.width != image.height:
            image = image.crop(_central_square(*image.size))
        pixels = _grey(image)
        if size is not None and pixels.shape != (size, size):
            pixels = np.array(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever their parser stumbles over
        raise ImageError(f"the image is damaged: {_one_line(error)}") from error
    return pixels


def _read(source: Path | bytes | BinaryIO) -> bytes:
    if isinstance(source, Path):
        try:
            source = source.read_bytes()
        except OSError as error:
            raise ImageError(f"the file cannot be read: {error.strerror}") from error
    data = source if isinstance(source, bytes) else source.read()
    if not data:
        raise ImageError("the file is empty")
    return data


def _open(data: bytes) -> Image.Image:
    """Read the header only."""
    too_large = f"the image has more than {PIXEL_LIMIT:,} pixels"
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"not an image that can be read ({', '.join(FORMATS)})") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageError(too_large) from error
    except Exception as error:  # as in read_grey
        raise ImageError(f"the image is damaged: {_one_line(error)}") from error
    if image.width * image.height > PIXEL_LIMIT:
        raise ImageError(too_large)
    return image


def _central_square(width: int, height: int) -> tuple[int, int, int, int]:
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _grey(image: Image.Image) -> np.ndarray:
    """uint8 (H, W) of an image of any mode."""
    if image.mode == "F":
        raise ImageError("floating-point pixels have no known white; save the image with 8 or 16 bits")
    if image.mode.startswith("I"):
        return _from_16_bits(np.asarray(image))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    if image.mode not in ("L", "1"):
        image = image.convert("RGB")  # not every mode (CMYK, LAB) has a direct way to grey
    return np.array(image.convert("L"))


def _from_16_bits(values: np.ndarray) -> np.ndarray:
    """Scale 0..65535 to 0..255; where mode I holds larger values, its largest is white."""
    values = values.astype(np.float64).clip(0)
    white = max(65535.0, values.max())
    return np.rint(values * (255 / white)).astype(np.uint8)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

"""From any image file to pixels: grey faces for data sets, photos in colour."""

import warnings
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, features

PIXEL_LIMIT = 64_000_000
"""Larger images are refused before they are decoded: width × height."""

# A list, because some of Pillow's other plugins start programs (EPS starts Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", *(("AVIF",) if features.check("avif") else ()))
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
        ".avif",
    )
)

_ORIENTATION, _LYING = 0x0112, (5, 6, 7, 8)
"""EXIF's tag, and those of its values that exchange width and height."""

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


def read_colour(source: Path | bytes | BinaryIO, most_px: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode one photo: upright by its EXIF orientation, transparent parts on white, the first of several frames.

    Memory while decoding stays below about 12 bytes a pixel, so below 0.8 GB at PIXEL_LIMIT.

    Args:
        most_px: the longer side is scaled down to this. A JPEG is decoded at a half, a quarter or an eighth where
            both sides keep at least three quarters of it, which takes a quarter of the time or less.

    Returns:
        uint8 (H, W, 3), red first; and the width and height in px that the upright photo has itself.

    Raises:
        ImageError: as read_grey.
    """
    image = _open(_read(source))
    width, height = image.size
    try:
        if image.format == "JPEG":
            image.draft(None, (most_px * 3 // 4,) * 2)
        turned = image.getexif().get(_ORIENTATION) in _LYING
        factor = max(image.size) // most_px
        if factor > 1 and image.mode in ("L", "RGB", "RGBA", "CMYK"):
            exif = image.getexif()
            image = image.reduce(factor)
            image.info["exif"] = exif.tobytes()
        ImageOps.exif_transpose(image, in_place=True)
        image = _colour(image)
        image.thumbnail((most_px, most_px), Image.Resampling.BICUBIC)
        pixels = np.array(image)
    except ImageError:
        raise
    except Exception as error:  # as in read_grey
        raise ImageError(f"the image is damaged: {_one_line(error)}") from error
    return pixels, (height, width) if turned else (width, height)


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
        raise ImageError(_unidentified(data)) from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageError(too_large) from error
    except Exception as error:  # as in read_grey
        raise ImageError(f"the image is damaged: {_one_line(error)}") from error
    if image.width * image.height > PIXEL_LIMIT:
        raise ImageError(too_large)
    return image


def _unidentified(data: bytes) -> str:
    readable = f"not an image that can be read ({', '.join(FORMATS)})"
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return f"HEIC is {readable}; save it as JPEG"
    return readable


def _central_square(width: int, height: int) -> tuple[int, int, int, int]:
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _grey(image: Image.Image) -> np.ndarray:
    """uint8 (H, W) of an image of any mode."""
    image = _flat(image)
    if image.mode not in ("L", "1"):
        image = image.convert("RGB")  # not every mode (CMYK, LAB) has a direct way to grey
    return np.array(image.convert("L"))


def _colour(image: Image.Image) -> Image.Image:
    """Mode RGB of an image of any mode."""
    return _flat(image).convert("RGB")


def _flat(image: Image.Image) -> Image.Image:
    """Without transparency, and with 8 bits a channel."""
    if image.mode == "F":
        raise ImageError("floating-point pixels have no known white; save the image with 8 or 16 bits")
    if image.mode.startswith("I"):
        return Image.fromarray(_from_16_bits(np.asarray(image)))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA"))
    return image


def _from_16_bits(values: np.ndarray) -> np.ndarray:
    """Scale 0..65535 to 0..255; where mode I holds larger values, its largest is white."""
    values = values.astype(np.float64).clip(0)
    white = max(65535.0, values.max())
    return np.rint(values * (255 / white)).astype(np.uint8)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

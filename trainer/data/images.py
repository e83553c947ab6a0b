"""From any image file to pixels: grey faces for data sets, photos in colour."""

import errno
import math
import re
import stat
import warnings
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, TiffImagePlugin, features

PIXEL_LIMIT = 64_000_000
"""Larger images are refused before they are decoded: width × height."""

FILE_LIMIT = 8 * PIXEL_LIMIT
"""Bytes of a file, which is read whole: those of the largest image, uncompressed, with 16 bits and transparency."""

SCAN_LIMIT = 100 * PIXEL_LIMIT
"""A JPEG of some kilobytes can have thousands of scans, each of which goes over all pixels: scans × pixels."""
SEGMENT_LIMIT = 1000
"""Of a JPEG. Pillow joins those with EXIF one by one: for 40 MB of the shortest, that would take some minutes."""
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
"""In a JPEG, the start of a segment that has a length; or its end, D9."""
_WHITES = (255, 4095, 65535)
"""Of 8, 12 and 16 bits."""

# A list, because some of Pillow's other plugins start programs (EPS starts Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", *(("AVIF",) if features.check("avif") else ()))
UNREADABLE = frozenset((".heic", ".heif"))
"""Suffixes of photos that cannot be read, and of which it is said what to do."""
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

_WHITE_IS_ZERO = "white is zero"
"""Key in what Pillow knows of an image."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)
"""EXIF's tag; what brings a photo upright for each of its values; and those that exchange width and height."""
_AWAY = {errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH}
"""What a disk on a network says that does not answer. EIO is not among them: it may be one bad sector for ever."""

# Pillow warns between its limit and twice that, and decodes all the same; ours lies lower, so this
# only turns a warning beside our refusal into part of it.
warnings.simplefilter("error", Image.DecompressionBombWarning)
# "Corrupt EXIF data" and the like: either the pixels can be read all the same, or there is an error.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class ImageError(ValueError):
    """An image that cannot be used; the message is one line that gives the reason, without a file name."""


class UnreadError(ImageError):
    """The file could not be read, as where a mount is gone or the memory is full; another time it may be."""


class AwayError(UnreadError):
    """The disk of the file does not answer, or not any more."""


def read_grey(source: Path | bytes | IO[bytes], size: int | None = 48) -> np.ndarray:
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
        image = _upright(image, _orientation(image))
        if size is not None and image.width != image.height:
            image = image.crop(_central_square(*image.size))
        pixels = _grey(image)
        if size is not None and pixels.shape != (size, size):
            pixels = np.array(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever their parser stumbles over
        raise _explained(error) from error
    return pixels


def read_colour(source: Path | bytes | IO[bytes], most_px: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode one photo: upright by its EXIF orientation, transparent parts on white, the first of several frames.

    Memory while decoding stays below about 12 bytes a pixel, so below 0.8 GB at PIXEL_LIMIT; a WebP takes up to 17
    bytes a pixel, 1.1 GB, which is libwebp's own.

    Args:
        most_px: the longer side is scaled down to this. A JPEG is decoded at a half, a quarter or an eighth where
            the longer side keeps at least three quarters of it, which takes a quarter of the time or less.

    Returns:
        uint8 (H, W, 3), red first; and the width and height in px that the upright photo has itself.

    Raises:
        ImageError: as read_grey.
    """
    image = _open(_read(source))
    width, height = image.size
    try:
        if image.format in ("JPEG", "MPO"):  # a phone's JPEG that carries further pictures is opened as MPO
            share = 0.75 * most_px / max(image.size)
            image.draft(None, (max(1, round(width * share)), max(1, round(height * share))))
        orientation = _orientation(image)
        if image.format == "TIFF":  # turned upright by Pillow itself
            width, height = image.size
        if (factor := max(image.size) // most_px) > 1:
            image = _reducible(image)  # in two steps: the former pixels are let go in between
            image = image.reduce(factor)
        image = _colour(_upright(image, orientation))
        image.thumbnail((most_px, most_px), Image.Resampling.BICUBIC)
        pixels = np.array(image)
    except ImageError:
        raise
    except Exception as error:  # as in read_grey
        raise _explained(error) from error
    return pixels, (height, width) if orientation in _LYING else (width, height)


def _read(source: Path | bytes | IO[bytes]) -> bytes:
    if isinstance(source, Path):
        try:
            status = source.stat()
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                raise ImageError("not a file, but a pipe, a socket or a device")
            if (size := status.st_size) > FILE_LIMIT:
                raise ImageError(
                    f"the file has {size / 1e6:,.0f} MB; at most {FILE_LIMIT / 1e6:,.0f} MB are read"
                )
            source = source.read_bytes()
        except OSError as error:
            kind: type[ImageError] = AwayError if error.errno in _AWAY else UnreadError
            if isinstance(error, FileNotFoundError):
                kind = ImageError
            raise kind(f"the file cannot be read: {error.strerror}") from error
    data = source if isinstance(source, bytes) else source.read(FILE_LIMIT + 1)
    if len(data) > FILE_LIMIT:
        raise ImageError(f"the file has more than {FILE_LIMIT / 1e6:,.0f} MB, the most that is read")
    if not data:
        raise ImageError("the file is empty")
    return data


def _open(data: bytes) -> Image.Image:
    """Read the header only."""
    scans = 0
    if data.startswith(b"\xff\xd8"):
        segments, scans = _jpeg_parts(data)
        if segments > SEGMENT_LIMIT:
            raise ImageError(f"the image has {segments:,} segments, which would take too long")
    too_large = f"the image has more than {PIXEL_LIMIT:,} pixels"
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise ImageError(_unidentified(data)) from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageError(too_large) from error
    except Exception as error:  # as in read_grey
        raise _explained(error) from error
    pixels = image.width * image.height
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # a tile is decoded as a whole, and may be larger
        sides = [image.tag_v2.get(tag) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)]
        pixels = max(pixels, math.prod(side for side in sides if isinstance(side, int)))
        # Pillow turns those of 8 bits only; what is cut out of the image knows no TIFF's tags any more.
        image.info[_WHITE_IS_ZERO] = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    if pixels > PIXEL_LIMIT:
        raise ImageError(too_large)
    if scans * pixels > SCAN_LIMIT:
        raise ImageError(f"the image has {scans:,} scans, which would take too long")
    return image


def _jpeg_parts(data: bytes) -> tuple[int, int]:
    """How many segments it has, and how many of them are scans: one, or about ten where it is progressive."""
    place, segments, scans = 2, 0, 0
    while (marker := _MARKER.search(data, place)) and marker[1] != b"\xd9":
        segments += 1
        scans += marker[1] == b"\xda"
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return segments, scans


def _unidentified(data: bytes) -> str:
    readable = f"not an image that can be read ({', '.join(FORMATS)})"
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return f"HEIC is {readable}; save it as JPEG"
    return readable


def _central_square(width: int, height: int) -> tuple[int, int, int, int]:
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _orientation(image: Image.Image) -> int:
    """Decode; then EXIF's number for how the pixels lie. A photo whose EXIF is damaged is taken as it lies."""
    image.load()  # a PNG may have its EXIF after the pixels
    try:
        orientation = image.getexif().get(_ORIENTATION)
        return orientation if orientation in _TURNS else 1
    except Exception:  # as in read_grey
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _grey(image: Image.Image) -> np.ndarray:
    """uint8 (H, W) of an image of any mode."""
    image = _flat(image)
    if image.mode not in ("L", "1"):
        image = image.convert("RGB")  # not every mode (CMYK, LAB) has a direct way to grey
    return np.array(image.convert("L"))


def _colour(image: Image.Image) -> Image.Image:
    """Mode RGB of an image of any mode."""
    image = _flat(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _flat(image: Image.Image) -> Image.Image:
    """Without transparency, and with 8 bits a channel."""
    image = _8_bits(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA"))
    return image


def _reducible(image: Image.Image) -> Image.Image:
    """In a mode whose pixels can be averaged: 8 bits a channel, no palette; transparency is kept."""
    image = _8_bits(image)
    if image.has_transparency_data and image.mode not in ("RGBA", "LA"):
        return image.convert("RGBA")
    return image.convert("RGB") if image.mode in ("1", "P") else image


def _8_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageError("floating-point pixels have no known white; save the image with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    clear = values == image.info["transparency"] if "transparency" in image.info else None
    pixels = _of_integers(values if clear is None else np.where(clear, 0, values))
    if image.info.get(_WHITE_IS_ZERO):
        pixels = ~pixels
    if clear is not None:
        pixels[clear] = 255
    return Image.fromarray(pixels)


def _of_integers(values: np.ndarray) -> np.ndarray:
    """Scale values of 16 or 32 bits to 0..255.

    Cameras and scanners also put 8 or 12 bits into them, and few say so: white is the first of _WHITES that no value
    exceeds, or else the largest value.
    """
    largest = values.max()
    scale = 255 / next((white for white in _WHITES if white >= largest), largest)
    pixels = np.empty(values.shape, np.uint8)
    for row, line in zip(pixels, values, strict=True):  # one by one: as float64 all of them would be large
        row[:] = np.rint(line.astype(np.float64).clip(0) * scale)
    return pixels


def _explained(error: Exception) -> ImageError:
    """What Pillow stumbled over, in words."""
    if isinstance(error, MemoryError):
        return UnreadError("there is not enough memory to decode the image")
    return ImageError(f"the image is damaged: {_one_line(error)}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

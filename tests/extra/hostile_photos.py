"""Photos as nobody should send them: damaged, disguised, oversized or just odd files, and what each must give."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image, ImageCms

from tests.extra.drawn_photos import encoded, scene
from trainer.data.images import FORMATS

Bytes = Callable[[], bytes]

NO_IMAGE = rf"not an image that can be read \({', '.join(FORMATS)}\)"
TOO_LARGE = "the image has more than 64,000,000 pixels"
TRUNCATED = r"the image is damaged: image file is truncated( \(\d+ bytes not processed\))?"
DAMAGED = "the image is damaged: .+"
SUFFIX = {"JPEG": "jpg", "TIFF": "tif"}
"""Of a file's name, where it is not the format's own."""


@dataclass(frozen=True)
class Case:
    """A file. build: its bytes. message: the whole ImageError as a pattern, or None where it can be read.

    size: of the upright photo. shows: its pixels, up to what JPEG changes. either: it may be read, or refused with
    the message.
    """

    name: str
    build: Bytes
    message: str | None = None
    size: tuple[int, int] | None = None
    shows: Image.Image | None = None
    either: bool = False


def _picture() -> Image.Image:
    """Whatever turn or mirror image is made of it looks different."""
    picture = Image.new("RGB", (60, 40), "white")
    picture.paste((200, 0, 0), (0, 0, 20, 20))
    picture.paste((0, 0, 200), (40, 0, 60, 20))
    return picture


PICTURE = _picture()
GREY = PICTURE.convert("L").convert("RGB")
WHITE = Image.new("RGB", PICTURE.size, "white")
BLACK = Image.new("RGB", PICTURE.size)
STRIP = Image.new("RGB", (4200, 20), (90, 90, 90))
FACE_NAMES = (
    "two\nlines.jpg",
    "<script>alert(1)<script>.jpg",
    "<img src=x onerror=alert(1)>.jpg",
    "photo\u202egpj.exe.jpg",
    "a" * 251 + ".jpg",
    "--output.jpg",
    "=cmd('calc').jpg",
    "\x1b[2Jcleared.jpg",
    "%s {0} $HOME `id`.jpg",
    "twice 1.jpg",
    "twice 2.jpg",
    " .jpg",
)


def face_files() -> dict[str, bytes]:
    """Good photos, each with one face that is found, under names as nobody should give them."""
    photo = encoded(scene([(40, 40)], size=(320, 320)))
    return dict.fromkeys(FACE_NAMES, photo)


# What files are made of


def png_chunk(kind: bytes, data: bytes, *, length: int | None = None, crc: int | None = None) -> bytes:
    length = len(data) if length is None else length
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", length) + kind + data + struct.pack(">I", crc)


def png(
    width: int, height: int, rows: bytes | None = None, *, bits: int = 8, colour: int = 2, interlaced: int = 0,
    before: bytes = b"", after: bytes = b"",
) -> bytes:  # fmt: skip
    """rows: as they are before they are deflated; None where there is no IDAT."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    pixels = b"" if rows is None else png_chunk(b"IDAT", zlib.compress(rows, 1))
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + before + pixels + after + png_chunk(b"IEND", b"")
    )


def png_rows(pixels: np.ndarray) -> bytes:
    """Unfiltered rows of uint8 (H, W, C), or big-endian uint16."""
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def png_interlaced() -> bytes:
    pixels, rows = np.array(PICTURE), b""
    passes = (
        (0, 8, 0, 8),
        (0, 8, 4, 8),
        (4, 8, 0, 4),
        (0, 4, 2, 4),
        (2, 4, 0, 2),
        (0, 2, 1, 2),
        (1, 2, 0, 1),
    )
    for y, down, x, across in passes:
        rows += png_rows(pixels[y::down, x::across])
    return png(60, 40, rows, interlaced=1)


def png_with(*chunks: bytes) -> bytes:
    return png(60, 40, png_rows(np.array(PICTURE)), before=b"".join(chunks))


def huge_png(colour: int, channels: int, *, bits: int = 8, side: int = 8000, before: bytes = b"") -> bytes:
    """64 megapixels, made without having them in memory."""
    compressor = zlib.compressobj(1)
    row = bytes(1 + side * channels * bits // 8)
    data = b"".join(compressor.compress(row) for _ in range(side)) + compressor.flush()
    return png(side, side, colour=colour, bits=bits, before=before + png_chunk(b"IDAT", data))


def tiff(
    tags: Mapping[int, tuple[int, int, int]], data: bytes = b"", *, following: int = 0, order: str = "<"
) -> bytes:
    """tags: number → type, count, value. following: the place of the next directory. data: begins at 400."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(order + "H", len(tags))
    for tag, (kind, count, value) in sorted(tags.items()):
        packed = struct.pack(order + ("HH" if kind == 3 else "I"), *((value, 0) if kind == 3 else (value,)))
        directory += struct.pack(order + "HHI", tag, kind, count) + packed
    head = mark + struct.pack(order + "I", 8) + directory + struct.pack(order + "I", following)
    return head.ljust(400, b"\0") + data


def grey_tiff(
    width: int = 60, height: int = 40, bits: int = 8, **changed: tuple[int, int, int]
) -> dict[int, tuple[int, int, int]]:
    """Tags of an uncompressed grey image in one strip; changed: _NUMBER=…"""
    size = width * height * bits // 8 % 2**32
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, bits), 259: (3, 1, 1), 262: (3, 1, 1),
            273: (4, 1, 400), 277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, size)}  # fmt: skip
    return tags | {int(name[1:]): value for name, value in changed.items()}


GREY_PIXELS = np.array(PICTURE.convert("L"))


def twelve_bits(values: np.ndarray) -> bytes:
    """Two values in three bytes."""
    first, second = values.reshape(-1, 2).T
    return (
        np.stack([first >> 4, first % 16 << 4 | second >> 8, second % 256], axis=1).astype(np.uint8).tobytes()
    )


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def exif_bytes(kind: int, value: bytes) -> bytes:
    """An orientation of any type."""
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01" + struct.pack("<HI", kind, 1) + value + bytes(4)


def lying(orientation: int) -> Image.Image:
    """PICTURE as a camera stores it that was held so."""
    way = Image.Transpose
    back = {2: way.FLIP_LEFT_RIGHT, 3: way.ROTATE_180, 4: way.FLIP_TOP_BOTTOM, 5: way.TRANSPOSE, 6: way.ROTATE_90,
            7: way.TRANSVERSE, 8: way.ROTATE_270}  # fmt: skip
    return PICTURE.transpose(back[orientation]) if orientation in back else PICTURE


def patched(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def jpeg_frame(data: bytes) -> int:
    """Where the frame header of a baseline JPEG begins: FF C0, length (2), precision (1), height (2), width (2)."""
    return data.index(b"\xff\xc0\0\x11\x08")


def jpeg_sized(width: int, height: int) -> bytes:
    data = encoded(PICTURE)
    return patched(data, jpeg_frame(data) + 5, struct.pack(">HH", height, width))


def jpeg_with(data: bytes, marker: int = 0xE1) -> bytes:
    """With one more segment at the start."""
    whole = encoded(PICTURE)
    return whole[:2] + bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data + whole[2:]


def endless_jpeg(side: int, scans: int) -> bytes:
    """Its last scan is repeated: small, and slow to decode."""
    data = encoded(Image.new("L", (side, side), 90), progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * scans + b"\xff\xd9"


def restart_markers_damaged() -> bytes:
    data = bytearray(encoded(PICTURE, restart_marker_blocks=1))
    for place in range(data.index(b"\xff\xda"), len(data) - 2):
        if data[place] == 0xFF and 0xD0 <= data[place + 1] <= 0xD7:
            data[place + 1] = 0xD0 | (data[place + 1] * 5 + 3 & 7)
    return bytes(data)


def archive(**files: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        for name, text in files.items():
            opened.writestr(name, text)
    return stream.getvalue()


def lossless(kind: str) -> bytes:
    """PICTURE in a format."""
    return encoded(PICTURE, kind)


def flipped(kind: str, seed: int) -> bytes:
    """With 1 to 5 flipped bits anywhere."""
    random, data = Random(f"{kind} {seed}"), bytearray(lossless(kind))
    for _ in range(random.randint(1, 5)):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(data)


def webp_canvas() -> bytes:
    """A lossless WebP whose header claims 16,384 × 16,384 px."""
    data = encoded(PICTURE, "WEBP", lossless=True)
    return patched(data, data.index(b"VP8L") + 9, struct.pack("<I", 0x3FFF | 0x3FFF << 14))


def gif_frame_sized(width: int, height: int) -> bytes:
    data = lossless("GIF")
    frame = data.index(b"\x2c", 13 + 3 * 2 ** ((data[10] & 7) + 1) * (data[10] >> 7))
    return patched(data, frame + 5, struct.pack("<HH", width, height))


def lab() -> Image.Image:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    found = ImageCms.profileToProfile(PICTURE, *profiles, outputMode="LAB")
    assert found is not None
    return found


def animated(kind: str, **options: object) -> bytes:
    others = [BLACK.copy(), BLACK.copy()]  # copies: an image remembers what it was saved with before
    return encoded(PICTURE.copy(), kind, save_all=True, append_images=others, duration=100, **options)


def palette() -> bytes:
    image = Image.new("P", PICTURE.size, 1)
    image.putpalette([200, 0, 0, 0, 0, 0])
    image.paste(0, (0, 0, 60, 20))
    return encoded(image, "PNG", transparency=1)


def palette_shows() -> Image.Image:
    shown = WHITE.copy()
    shown.paste((200, 0, 0), (0, 0, 60, 20))
    return shown


# What is tried


def of_every_format() -> Iterator[Case]:
    """Whole, cut off, and with flipped bits."""
    for kind in FORMATS:
        suffix = SUFFIX.get(kind, kind.lower())
        whole = lossless(kind)
        yield Case(f"whole.{suffix}", lambda whole=whole: whole, None, (60, 40), PICTURE)
        yield Case(
            f"cut in half.{suffix}", lambda whole=whole: whole[: len(whole) // 2], f"{DAMAGED}|{NO_IMAGE}"
        )
        yield Case(f"cut after 20 bytes.{suffix}", lambda whole=whole: whole[:20], f"{DAMAGED}|{NO_IMAGE}")
        yield Case(f"only its first 4 bytes.{suffix}", lambda whole=whole: whole[:4], f"{DAMAGED}|{NO_IMAGE}")
        for seed in range(3):
            build = lambda kind=kind, seed=seed: flipped(kind, seed)  # noqa: E731
            yield Case(
                f"bits flipped {seed}.{suffix}", build, f"{DAMAGED}|{NO_IMAGE}|{TOO_LARGE}", either=True
            )


def no_images() -> Iterator[Case]:
    yield Case("empty.jpg", lambda: b"", "the file is empty")
    for name, data in {
        "one byte.jpg": b"\xff",
        "drawing.svg.png": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "document.pdf.jpg": b"%PDF-1.7\n1 0 obj\n<</Type/Catalog>>\nendobj\ntrailer<</Root 1 0 R>>\n%%EOF\n",
        "page.jpg": b"<!DOCTYPE html><html><body><script>alert(1)</script></body></html>",
        "text.png": b"The quick brown fox jumps over the lazy dog.\n" * 20,
        "program.jpg": b"#!/bin/sh\nid\n",
        "letter.ps.jpg": b"%!PS-Adobe-3.0\n(%pipe%id) (r) file\nshowpage\n",
        "zeros.jpg": bytes(2000),
        "noise.jpg": Random(0).randbytes(2000),
    }.items():
        yield Case(name, lambda data=data: data, NO_IMAGE)
    yield Case("archive.jpg", lambda: archive(page="text"), NO_IMAGE)
    for kind in ("EPS", "ICO", "TGA", "PCX", "JPEG2000", "SGI", "ICNS", "DDS", "MSP"):
        made = PICTURE.convert("1") if kind == "MSP" else PICTURE
        yield Case(f"format {kind}.png", lambda kind=kind, made=made: encoded(made, kind), NO_IMAGE)
    for brand in (b"heic", b"heix", b"mif1"):
        box = b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1" + brand + bytes(200)
        name = f"iphone {brand.decode()}.jpg"
        yield Case(name, lambda box=box: box, f"HEIC is {NO_IMAGE}; save it as JPEG")
    yield Case("junk before.jpg", lambda: b"\0" + encoded(PICTURE), NO_IMAGE)


def bombs() -> Iterator[Case]:
    for side in (8001, 100_000, 2**31 - 1):
        yield Case(f"bomb of {side}.png", lambda side=side: png(side, side, b"\0"), TOO_LARGE)
    yield Case("bomb.jpg", lambda: jpeg_sized(65_000, 65_000), TOO_LARGE)
    yield Case("bomb.gif", lambda: patched(lossless("GIF"), 6, b"\xff" * 4), TOO_LARGE)
    yield Case("bomb by its frame.gif", lambda: gif_frame_sized(65_000, 65_000), TOO_LARGE)
    yield Case("bomb.webp", webp_canvas, f"{TOO_LARGE}|{DAMAGED}")
    yield Case("bomb.tif", lambda: tiff(grey_tiff(100_000, 100_000)), TOO_LARGE)
    yield Case(
        "bomb.bmp", lambda: patched(lossless("BMP"), 18, struct.pack("<ii", 50_000, 50_000)), TOO_LARGE
    )
    yield Case("bomb.ppm", lambda: b"P6 100000 100000 255\n", TOO_LARGE)
    yield Case("bomb in words.ppm", lambda: b"P3 9000 9000 255\n1 2 3\n", TOO_LARGE)
    tiles = {
        "_322": (4, 1, 40_000),
        "_323": (4, 1, 40_000),
        "_324": (4, 1, 400),
        "_325": (4, 1, 9),
        "_259": (3, 1, 5),
    }
    yield Case("bomb by its tiles.tif", lambda: tiff(grey_tiff(**tiles), bytes(99)), TOO_LARGE)
    too_long = "which would take too long"
    yield Case(
        "bomb by its scans.jpg", lambda: endless_jpeg(3000, 900), rf"the image has 9\d\d scans, {too_long}"
    )
    yield Case(
        "20000 scans.jpg", lambda: endless_jpeg(64, 20_000), rf"the image has 20,\d+ segments, {too_long}"
    )
    exifs = b"\xff\xe1\0\x09Exif\0\0x" * 200_000
    build = lambda: encoded(PICTURE)[:2] + exifs + encoded(PICTURE)[2:]  # noqa: E731
    yield Case("200000 times exif.jpg", build, rf"the image has 200,\d+ segments, {too_long}")
    yield Case("800 scans, small.jpg", lambda: endless_jpeg(64, 800), None, (64, 64))
    for size in ((100_000, 1), (1, 100_000), (1, 1), (3, 4096), (5000, 3), (2, 3000)):
        name = f"{size[0]} by {size[1]}.png"
        yield Case(name, lambda size=size: encoded(Image.new("RGB", size), "PNG"), None, size)
    yield Case("65500 by 1.jpg", lambda: encoded(Image.new("RGB", (65_500, 1))), None, (65_500, 1))
    yield Case("nothing wide.png", lambda: png(0, 40, b""), f"{DAMAGED}|{NO_IMAGE}")


def two_in_one() -> Iterator[Case]:
    page, jar = (
        b"<html><script>alert(1)</script></html>",
        archive(**{"META-INF/MANIFEST.MF": "Main-Class: X"}),
    )
    for name, data in {
        "page behind.jpg": encoded(PICTURE) + page,
        "archive behind.jpg": encoded(PICTURE) + jar,
        "gifar.gif": lossless("GIF") + jar,
        "document behind.png": lossless("PNG") + b"%PDF-1.7\n",
        "photo behind.jpg": encoded(PICTURE) + encoded(BLACK),
        "page within.jpg": jpeg_with(page, 0xFE),
        "page within.png": png_with(png_chunk(b"tEXt", b"Comment\0" + page)),
    }.items():
        yield Case(name, lambda data=data: data, None, (60, 40), PICTURE)


def many_frames() -> Iterator[Case]:
    for name, build in {
        "animated.gif": lambda: animated("GIF", loop=0),
        "animated.webp": lambda: animated("WEBP", lossless=True),
        "animated.png": lambda: animated("PNG"),
        "pages.tif": lambda: animated("TIFF"),
        "pages lzw.tif": lambda: animated("TIFF", compression="tiff_lzw"),
        "of a phone (MPO).jpg": lambda: encoded(PICTURE, "MPO", save_all=True, append_images=[BLACK.copy()]),
    }.items():
        yield Case(name, build, None, (60, 40), PICTURE)
    if "AVIF" in FORMATS:
        yield Case("animated.avif", lambda: animated("AVIF"), None, (60, 40), PICTURE)


def modes() -> Iterator[Case]:
    cmyk = encoded(PICTURE.convert("CMYK"), "JPEG", quality=95)
    adobe = cmyk.index(b"\xff\xee")
    clear = Image.new("RGBA", PICTURE.size, (9, 9, 9, 0))
    deep = GREY_PIXELS.astype(np.uint16) * 257
    deep_colour = np.array(PICTURE).astype(">u2") * 257
    black = Image.new("LA", PICTURE.size, (0, 0))
    white_or_not = PICTURE.convert("1", dither=Image.Dither.NONE)
    known: dict[str, tuple[Bytes, Image.Image]] = {
        "cmyk by Adobe.jpg": (lambda: cmyk, PICTURE),
        "cmyk without Adobe.jpg": (lambda: cmyk[:adobe] + cmyk[adobe + 16 :], PICTURE),
        "cmyk.tif": (lambda: encoded(PICTURE.convert("CMYK"), "TIFF"), PICTURE),
        "grey.jpg": (lambda: encoded(PICTURE.convert("L")), GREY),
        "16 bits grey.png": (lambda: encoded(Image.fromarray(deep), "PNG"), GREY),
        "16 bits colour.png": (lambda: png(60, 40, png_rows(deep_colour.astype(">u2")), bits=16), PICTURE),
        "16 bits.tif": (lambda: encoded(Image.fromarray(deep), "TIFF"), GREY),
        "16 bits big-endian.tif": (lambda: tiff(grey_tiff(bits=16), deep.astype(">u2").tobytes(), order=">"), GREY),
        "32 bits.tif": (lambda: encoded(Image.fromarray(deep.astype(np.int32)), "TIFF"), GREY),
        "8 bits of 16.tif": (lambda: encoded(Image.fromarray(GREY_PIXELS.astype(np.uint16)), "TIFF"), GREY),
        "8 bits of 32.tif": (lambda: encoded(Image.fromarray(GREY_PIXELS.astype(np.int32)), "TIFF"), GREY),
        "12 bits of 16.tif": (lambda: encoded(Image.fromarray(deep // 16), "TIFF"), GREY),
        "12 bits.tif": (lambda: tiff(grey_tiff(bits=12), twelve_bits(deep // 16)), GREY),
        "16 bits.pgm": (lambda: b"P5 60 40 65535\n" + deep.astype(">u2").tobytes(), GREY),
        "1 bit.png": (lambda: encoded(white_or_not, "PNG"), white_or_not.convert("RGB")),
        "1 bit.pbm": (lambda: encoded(white_or_not, "PPM"), white_or_not.convert("RGB")),
        "1 bit fax.tif": (lambda: encoded(white_or_not, "TIFF", compression="group4"), white_or_not.convert("RGB")),
        "palette with a transparent entry.png": (palette, palette_shows()),
        "grey and transparent.png": (lambda: encoded(black, "PNG"), WHITE),
        "all transparent.png": (lambda: encoded(clear, "PNG"), WHITE),
        "all transparent.webp": (lambda: encoded(clear, "WEBP", lossless=True), WHITE),
        "all transparent.gif": (lambda: encoded(Image.new("P", PICTURE.size, 0), "GIF", transparency=0), WHITE),
        "one colour transparent.png": (lambda: encoded(PICTURE, "PNG", transparency=(200, 0, 0)), None),
        "lab.tif": (lambda: encoded(lab(), "TIFF"), PICTURE),
        "ycbcr.tif": (lambda: encoded(PICTURE.convert("YCbCr"), "TIFF"), PICTURE),
        "lossless.webp": (lambda: encoded(PICTURE, "WEBP", lossless=True), PICTURE),
        "lossy.webp": (lambda: encoded(PICTURE, "WEBP", quality=80), PICTURE),
        "progressive.jpg": (lambda: encoded(PICTURE, progressive=True), PICTURE),
        "restart markers.jpg": (lambda: encoded(PICTURE, restart_marker_blocks=1), PICTURE),
        "interlaced.png": (png_interlaced, PICTURE),
        "in words.ppm": (lambda: b"P3 60 40 255\n" + " ".join(map(str, np.array(PICTURE).ravel())).encode(), PICTURE),
        "upside down rows.bmp": (
            lambda: patched(lossless("BMP"), 22, struct.pack("<i", -40)), lying(4),
        ),
    }  # fmt: skip
    for name, (build, shows) in known.items():
        yield Case(name, build, None, (60, 40), shows)
    floating = "floating-point pixels have no known white; save the image with 8 or 16 bits"
    yield Case("floating.tif", lambda: encoded(Image.new("F", (60, 40), 0.5), "TIFF"), floating)
    yield Case("floating.pgm", lambda: b"Pf\n60 40\n-1.0\n" + bytes(9600), f"{floating}|{NO_IMAGE}")


def turned() -> Iterator[Case]:
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", *(["AVIF"] if "AVIF" in FORMATS else [])):
        for orientation in range(1, 9) if kind in ("JPEG", "TIFF") else (3, 6):
            name = f"turned {orientation}.{SUFFIX.get(kind, kind.lower())}"
            build = lambda kind=kind, way=orientation: encoded(lying(way), kind, exif=exif(way))  # noqa: E731
            yield Case(name, build, None, (60, 40), PICTURE)
    lzw = lambda: encoded(lying(6), "TIFF", compression="tiff_lzw", exif=exif(6))  # noqa: E731
    yield Case("turned 6 lzw.tif", lzw, None, (60, 40), PICTURE)
    packet = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="3"/></x:xmpmeta>'
    yield Case("turned 3 by XMP.jpg", lambda: jpeg_with(packet), None, (60, 40), PICTURE.rotate(180))
    for kind in ("JPEG", "PNG", "TIFF"):
        build = lambda kind=kind: encoded(STRIP, kind, exif=exif(6))  # noqa: E731
        yield Case(f"long and turned.{SUFFIX.get(kind, kind.lower())}", build, None, (20, 4200))


def descriptions() -> Iterator[Case]:
    """EXIF, colour profiles and texts that are damaged or huge; the pixels are fine."""
    broken = {
        "garbage": b"Exif\0\0garbage",
        "cut": b"Exif\0\0II*\0",
        "orientation 0": exif_bytes(3, struct.pack("<I", 0)),
        "orientation 9": exif_bytes(3, struct.pack("<I", 9)),
        "orientation in letters": exif_bytes(2, b"6\0\0\0"),
        "65535 entries": b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40,
        "points at itself": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
        "points beyond": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
    }
    for name, data in broken.items():
        for kind in ("JPEG", "PNG", "WEBP"):
            build = lambda kind=kind, data=data: encoded(PICTURE, kind, exif=data)  # noqa: E731
            yield Case(f"exif {name}.{SUFFIX.get(kind, kind.lower())}", build, None, (60, 40), PICTURE)
    letters = exif_bytes(2, b"abc\0")
    yield Case("exif in letters, long.jpg", lambda: encoded(STRIP, exif=letters), None, (4200, 20))
    for name, profile in {
        "broken": b"no profile",
        "empty": b"\0" * 128,
        "huge": Random(0).randbytes(900_000),
    }.items():
        for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
            build = lambda kind=kind, data=profile: encoded(PICTURE, kind, icc_profile=data)  # noqa: E731
            yield Case(f"profile {name}.{SUFFIX.get(kind, kind.lower())}", build, None, (60, 40), PICTURE)
    text = zlib.compress(bytes(80_000_000), 9)
    yield Case("text bomb.png", lambda: png_with(png_chunk(b"zTXt", b"a\0\0" + text)), DAMAGED)
    yield Case("profile bomb.png", lambda: png_with(png_chunk(b"iCCP", b"a\0\0" + text)), DAMAGED)
    yield Case(
        "profile not deflated.png",
        lambda: png_with(png_chunk(b"iCCP", b"a\0\0junk")),
        None,
        (60, 40),
        PICTURE,
    )
    yield Case(
        "long text.png",
        lambda: png_with(png_chunk(b"tEXt", b"a\0" + b"x" * 500_000)),
        None,
        (60, 40),
        PICTURE,
    )


def inconsistent() -> Iterator[Case]:
    """Headers that do not fit the pixels."""
    whole_png, whole_jpeg = lossless("PNG"), encoded(PICTURE)
    start = jpeg_frame(whole_jpeg)
    yield Case("declared too low.jpg", lambda: jpeg_sized(60, 20), None, (60, 20))
    yield Case("declared too high.jpg", lambda: jpeg_sized(60, 400), None, (60, 400))
    yield Case("declared 0 by 0.jpg", lambda: jpeg_sized(0, 0), f"{DAMAGED}|{NO_IMAGE}")
    yield Case("12 bits.jpg", lambda: patched(whole_jpeg, start + 4, b"\x0c"), f"{DAMAGED}|{NO_IMAGE}")
    yield Case("no end.jpg", lambda: whole_jpeg[:-2], TRUNCATED, (60, 40), PICTURE, either=True)
    yield Case("restart markers damaged.jpg", restart_markers_damaged, DAMAGED, (60, 40), either=True)
    yield Case("no tables.jpg", lambda: whole_jpeg.replace(b"\xff\xdb", b"\xff\xee"), DAMAGED)
    yield Case(
        "bad sum of the header.png", lambda: patched(whole_png, 29, b"\0\0\0\0"), f"{DAMAGED}|{NO_IMAGE}"
    )
    spoilt = png(60, 40, before=png_chunk(b"IDAT", zlib.compress(png_rows(np.array(PICTURE))), crc=0))
    yield Case("bad sum of the pixels.png", lambda: spoilt, DAMAGED, (60, 40), PICTURE, either=True)
    yield Case("no pixels.png", lambda: png(60, 40), DAMAGED)
    yield Case("too few rows.png", lambda: png(60, 40, png_rows(np.array(PICTURE)[:20])), None, (60, 40))
    yield Case("no end.png", lambda: whole_png[:-12], DAMAGED, (60, 40), PICTURE, either=True)
    huge_chunk = png_chunk(b"IDAT", b"x", length=2**31 - 1)
    yield Case("chunk of 2 GB.png", lambda: png(60, 40, before=huge_chunk), DAMAGED)
    yield Case("colour type 5.png", lambda: png(60, 40, b"\0", colour=5), f"{DAMAGED}|{NO_IMAGE}")
    yield Case(
        "no palette.png", lambda: png(60, 40, bytes(40 * 61), colour=3), DAMAGED, (60, 40), either=True
    )
    yield Case("frame of 0 by 0.gif", lambda: gif_frame_sized(0, 0), DAMAGED)
    yield Case("no frame.gif", lambda: lossless("GIF")[:13] + b";", f"{DAMAGED}|{NO_IMAGE}")
    pixels = GREY_PIXELS.tobytes()
    yield Case(
        "directory that follows itself.tif",
        lambda: tiff(grey_tiff(), pixels, following=8),
        None,
        (60, 40),
        GREY,
    )
    yield Case("directory beyond.tif", lambda: b"II*\0\xff\xff\xff\xff", f"{DAMAGED}|{NO_IMAGE}")
    many = {"_273": (4, 2**32 - 1, 8), "_279": (4, 2**32 - 1, 8)}
    yield Case("4 billion strips.tif", lambda: tiff(grey_tiff(**many), pixels), f"{DAMAGED}|{NO_IMAGE}")
    yield Case("65535 tags.tif", lambda: b"II*\0\x08\0\0\0\xff\xff" + bytes(500), f"{DAMAGED}|{NO_IMAGE}")
    yield Case("strip beyond.tif", lambda: tiff(grey_tiff(_273=(4, 1, 2**32 - 9)), pixels), DAMAGED)
    yield Case("no width.tif", lambda: tiff({257: (4, 1, 40)}), f"{DAMAGED}|{NO_IMAGE}")
    yield Case("pixels beyond.bmp", lambda: patched(lossless("BMP"), 10, b"\xff\xff\xff\x7f"), DAMAGED)
    yield Case(
        "header of 4 GB.bmp", lambda: patched(lossless("BMP"), 14, b"\xff" * 4), f"{DAMAGED}|{NO_IMAGE}"
    )
    yield Case("no white.pgm", lambda: b"P5 60 40 0\n" + pixels, f"{DAMAGED}|{NO_IMAGE}")
    yield Case("letters.ppm", lambda: b"P3 60 40 255\nred green blue\n", DAMAGED)
    yield Case("endless token.ppm", lambda: b"P3 60 40 255\n" + b"1" * 100_000, DAMAGED)
    yield Case(
        "wrong length.webp",
        lambda: patched(lossless("WEBP"), 4, b"\xff\xff\xff\x7f"),
        f"{DAMAGED}|{NO_IMAGE}",
    )


def cases() -> list[Case]:
    kinds = (
        of_every_format,
        no_images,
        bombs,
        two_in_one,
        many_frames,
        modes,
        turned,
        descriptions,
        inconsistent,
    )
    return [case for kind in kinds for case in kind()]

"""Any image file becomes the grey pixels that it shows, or one clear refusal."""

import os
import sys
import zlib
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, TiffImagePlugin

from trainer.data import images
from trainer.data.images import ImageError, UnreadError, read_colour, read_grey

GREY_48 = arrays(np.uint8, (48, 48))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gradient(width: int, height: int) -> np.ndarray:
    return np.add.outer(np.arange(height) * 2, np.arange(width)).astype(np.uint8)


@given(GREY_48)
@settings(max_examples=15, deadline=None)
def test_a_grey_image_of_the_right_size_passes_bit_by_bit(pixels: np.ndarray) -> None:
    image = Image.fromarray(pixels)
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        assert np.array_equal(read_grey(encoded(image, kind)), pixels)


@given(GREY_48)
@settings(max_examples=15, deadline=None)
def test_grey_survives_being_stored_as_colour_alpha_or_16_bits(pixels: np.ndarray) -> None:
    grey = Image.fromarray(pixels)
    for mode in ("RGB", "RGBA", "LA", "P"):
        assert np.array_equal(read_grey(encoded(grey.convert(mode))), pixels), mode
    pixels[0, 0] = 255  # values that all lie below 4096, nearly black here, are taken for 12 bits
    sixteen = Image.fromarray(pixels.astype(np.uint16) * 257)
    assert sixteen.mode == "I;16"
    assert np.array_equal(read_grey(encoded(sixteen)), pixels)
    thirty_two = Image.fromarray(pixels.astype(np.int32) * 257)
    assert np.array_equal(read_grey(encoded(thirty_two, "TIFF")), pixels)


@pytest.mark.parametrize("white", [255, 4095, 65535])
@given(arrays(np.uint16, (5, 7)))
@settings(max_examples=25, deadline=None)
def test_8_12_and_16_bits_of_16_are_scaled_to_the_nearest_of_8(white: int, values: np.ndarray) -> None:
    values = np.minimum(values, np.uint16(white))
    values[0, 0] = white
    pixels = read_grey(encoded(Image.fromarray(values)), size=None)
    step = white / 255
    assert np.abs(pixels * step - values).max() <= step / 2


def test_32_bit_values_above_16_bits_are_scaled_by_the_largest() -> None:
    values = np.array([[0, 500_000], [1_000_000, -3]], np.int32)
    pixels = read_grey(encoded(Image.fromarray(values), "TIFF"), size=None)
    assert pixels.tolist() == [[0, 128], [255, 0]]


def test_a_one_bit_image_is_black_and_white() -> None:
    bits = np.eye(48, dtype=bool)
    pixels = read_grey(encoded(Image.fromarray(bits)))
    assert np.array_equal(pixels, bits * np.uint8(255))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_lie_on_white(mode: str) -> None:
    image = Image.new("RGBA", (48, 48), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 24, 48))
    image.putpixel((0, 0), (0, 0, 0, 128))
    pixels = read_grey(encoded(image.convert(mode)))
    assert (pixels[1:, :24] == 0).all()
    assert (pixels[:, 24:] == 255).all()
    assert pixels[0, 0] == 127


def test_a_transparent_palette_entry_lies_on_white() -> None:
    image = Image.new("P", (48, 48), 0)
    image.putpalette([200, 0, 0, 100, 100, 100])
    image.paste(1, (0, 0, 48, 24))
    pixels = read_grey(encoded(image, transparency=0))
    assert (pixels[:24] == 100).all()
    assert (pixels[24:] == 255).all()


def test_a_transparent_grey_of_16_bits_lies_on_white_and_sets_no_scale() -> None:
    values = np.array([[0, 4095, 60_000]], np.uint16)
    data = encoded(Image.fromarray(values), transparency=60_000)
    assert read_grey(data, size=None).tolist() == [[0, 255, 255]]
    assert read_colour(data, 10)[0][0, :, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_whose_white_is_zero_is_no_negative(bits: int) -> None:
    values = np.array([[0, 2**bits - 1]], f"u{bits // 8}")
    file = BytesIO()
    Image.fromarray(values).save(file, "TIFF", tiffinfo={TiffImagePlugin.PHOTOMETRIC_INTERPRETATION: 1})
    before = b"\x06\x01\x03\x00\x01\x00\x00\x00"  # the tag, a short, one of it; then its value
    data = file.getvalue()
    assert data.count(before + b"\x01") == 1
    assert read_grey(data, size=None).tolist() == [[0, 255]]
    turned = data.replace(before + b"\x01", before + b"\x00")
    assert read_grey(turned, size=None).tolist() == [[255, 0]]
    assert read_colour(turned, 10)[0][0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("read", [read_grey, partial(read_colour, most_px=100)])
def test_an_image_that_the_memory_does_not_hold_is_not_called_damaged(monkeypatch, read) -> None:
    def lacks(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", lacks)
    with pytest.raises(UnreadError, match="there is not enough memory"):
        read(encoded(Image.new("CMYK", (48, 48)), "JPEG"))


def test_colour_becomes_luma() -> None:
    pixels = read_grey(encoded(Image.new("RGB", (48, 48), (255, 0, 0))))
    assert (pixels == round(0.299 * 255)).all()


def test_cmyk_is_read() -> None:
    grey = Image.fromarray(np.full((48, 48), 90, np.uint8))
    pixels = read_grey(encoded(grey.convert("RGB").convert("CMYK"), "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - 90).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = Image.fromarray(gradient(48, 48))
    turn_back = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for step in turn_back.get(orientation, []):
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(read_grey(encoded(stored, exif=exif)), np.array(upright))


def test_a_wide_image_is_cropped_to_its_centre_and_resized() -> None:
    wide = np.zeros((96, 200), np.uint8)
    wide[:, 52:148] = 77
    assert (read_grey(encoded(Image.fromarray(wide))) == 77).all()
    assert (read_grey(encoded(Image.fromarray(wide.T))) == 77).all()


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((480, 480), np.uint8)
    stripes[:, ::2] = 255
    pixels = read_grey(encoded(Image.fromarray(stripes)))
    assert np.abs(pixels.astype(int) - 127).max() <= 5  # the edges have less to average


def test_without_a_size_the_image_keeps_its_own() -> None:
    pixels = gradient(31, 17)
    assert np.array_equal(read_grey(encoded(Image.fromarray(pixels)), size=None), pixels)


def test_a_path_bytes_and_an_open_file_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "face.png"
    path.write_bytes(encoded(Image.fromarray(gradient(48, 48))))
    with path.open("rb") as file:
        assert np.array_equal(read_grey(file), read_grey(path))
    assert np.array_equal(read_grey(path.read_bytes()), read_grey(path))


def test_what_is_not_an_image_is_refused_in_one_line(tmp_path: Path) -> None:
    whole = encoded(Image.fromarray(gradient(480, 480)), "JPEG")
    eps = encoded(Image.new("RGB", (8, 8)), "EPS")
    refused = {
        b"": "empty",
        b"not an image at all": "not an image",
        eps: "not an image",
        whole[: len(whole) // 2]: "damaged.*truncated",
        encoded(Image.new("F", (8, 8)), "TIFF"): "floating-point",
    }
    for data, reason in refused.items():
        with pytest.raises(ImageError, match=reason) as caught:
            read_grey(data)
        assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match="No such file"):
        read_grey(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="cannot be read"):
        read_grey(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="it has no named pipes in folders")
def test_what_is_no_file_is_refused_before_it_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    for path in (tmp_path / "x.jpg", Path(os.devnull)):
        for read in (read_grey, partial(read_colour, most_px=100)):
            with pytest.raises(ImageError, match=r"^not a file, but a pipe, a socket or a device$"):
                read(path)


def test_a_file_of_many_gigabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "scan.tif").open("wb") as file:
        file.truncate(20_000_000_000)  # takes no room
    with pytest.raises(ImageError, match="the file has 20,000 MB; at most 512 MB are read"):
        read_colour(tmp_path / "scan.tif", 2048)


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")  # pytest resets ours
@pytest.mark.parametrize("side", [8_001, 10_000, 14_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    # The header of a huge PNG is enough: nothing after it may be looked at.
    image = encoded(Image.new("1", (8, 8)))
    header = b"IHDR" + side.to_bytes(4, "big") * 2 + image[24:29]
    bomb = image[:12] + header + zlib.crc32(header).to_bytes(4, "big") + image[33:]
    with pytest.raises(ImageError, match=f"more than {images.PIXEL_LIMIT:,} pixels"):
        read_grey(bomb)


@given(st.data())
@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_anywhere_gives_pixels_or_a_refusal_and_nothing_else(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]))
    file = bytearray(encoded(Image.fromarray(gradient(20, 12)), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    file = file[: data.draw(st.integers(0, len(file)))]
    try:
        pixels = read_grey(bytes(file), size=12)
    except ImageError:
        return
    assert pixels.shape == (12, 12)
    assert pixels.dtype == np.uint8

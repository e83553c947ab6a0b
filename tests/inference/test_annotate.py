"""Pictures with faces drawn on them."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.inference.annotate import LEAST_PX, annotated, as_ours, encoded, is_ours
from trainer.inference.faces import Photo, whole


def picture(label: str, side: int = 600) -> np.ndarray:
    photo = Photo(np.full((side, side, 3), 200, np.uint8), side, side)
    return np.asarray(annotated(photo, [whole(photo)], [label], 1600))


@pytest.mark.parametrize("letters", ["éü", "ćł", "шщ", "αβ", "ⒶⒷ"])
def test_letters_beyond_ascii_have_shapes_of_their_own(letters):
    """The last two are in no DejaVu, but in another font that comes with matplotlib."""
    first, second = map(picture, letters)
    assert (first != second).any()


def test_a_crop_is_enlarged_so_that_its_label_leaves_most_of_the_face_free():
    drawn = picture("1  surprise 0.93", side=48)
    assert LEAST_PX <= max(drawn.shape) < LEAST_PX + 48
    assert (drawn == 200).all(-1).mean() > 0.9


def test_a_picture_of_ours_is_told_from_photos_links_and_whatever_else_there_is(tmp_path: Path):
    image = Image.new("RGB", (60, 40))
    (tmp_path / "ours.jpg").write_bytes(as_ours(image))
    assert Image.open(io.BytesIO(as_ours(image))).size == image.size
    (tmp_path / "photo.jpg").write_bytes(encoded(image, "JPEG"))
    (tmp_path / "damaged.jpg").write_bytes(as_ours(image)[:20])
    (tmp_path / "link.jpg").symlink_to(tmp_path / "ours.jpg")
    (tmp_path / "folder.jpg").mkdir()
    assert {path.name for path in tmp_path.iterdir() if is_ours(path)} == {"ours.jpg"}
    assert not is_ours(tmp_path / "missing.jpg")

"""Pictures are found behind sample ids, and only those that the run was tested on."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.extra.grey_faces import write_grey_folder
from trainer.data.base import Split
from trainer.data.cache_file import cache_files
from trainer.data.fer2013 import load
from trainer.data.pictures import find_pictures, image_table, png


@pytest.fixture
def test_part(workplace) -> tuple[Split, tuple[str, ...]]:
    dataset = load(write_grey_folder(workplace / "faces"), ("train", "test"))
    return dataset.parts["test"], dataset.class_names


def find(split: Split, names: tuple[str, ...], fingerprint: str | None = None) -> np.ndarray | None:
    labels = [names[index] for index in split.target]
    wanted = split.fingerprint(names) if fingerprint is None else fingerprint
    return find_pictures("fer2013", split.sample_ids, labels, names, wanted)


def test_the_pictures_of_a_test_set_are_those_that_were_decoded(test_part):
    np.testing.assert_array_equal(find(*test_part), test_part[0].images[:, 0])


def test_a_part_of_it_in_another_order_is_found_too(test_part):
    some = test_part[0].select([5, 3, 20])
    np.testing.assert_array_equal(find(some, test_part[1]), some.images[:, 0])


def test_pictures_with_another_fingerprint_are_not_taken_for_the_run_s(test_part):
    assert find(*test_part, fingerprint="0" * 32) is None


def test_without_the_data_or_with_a_damaged_cache_there_are_none(test_part):
    (path,) = cache_files("fer2013")
    path.write_bytes(path.read_bytes()[:1000])
    assert find(*test_part) is None
    path.unlink()
    assert find(*test_part) is None


def test_the_worst_images_are_kept_as_files(test_part):
    split, _ = test_part
    loss = np.arange(len(split), dtype=float)
    table = image_table(split.images.numpy(), split.sample_ids, loss, 3)
    assert list(table["sample_id"]) == list(split.sample_ids[:-4:-1])
    first = np.asarray(Image.open(io.BytesIO(table["png"][0])))
    np.testing.assert_array_equal(first, split.images[-1, 0])


def test_a_png_holds_every_grey_level():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(levels)))), levels)


def test_looking_for_pictures_does_not_import_torch():
    code = "import sys, trainer.data.pictures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

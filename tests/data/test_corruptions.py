"""Corruptions: the same at every call, worse with every strength, and what their names say."""

import numpy as np
import pytest
import torch

from trainer.contract import STRENGTHS
from trainer.data.corruptions import CORRUPTIONS, corrupt


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """uint8 (8, 1, 48, 48): smooth, as faces are."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(8, 1, 8, 8, generator=generator)
    return (torch.nn.functional.interpolate(coarse, size=48, mode="bilinear") * 200 + 25).to(torch.uint8)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_strength_is_farther_from_the_image_and_always_the_same(images: torch.Tensor, kind: str):
    before = images.clone()
    versions = [corrupt(images, kind, strength) for strength in STRENGTHS]
    assert torch.equal(images, before)
    assert all(version.shape == images.shape and version.dtype == torch.uint8 for version in versions)
    distances = [float((version.float() - images.float()).abs().mean()) for version in versions]
    assert distances[0] > 0
    assert distances == sorted(distances)
    assert torch.equal(corrupt(images, kind, 3), versions[2])


def test_brightness_goes_both_ways_and_contrast_keeps_the_mean(images: torch.Tensor):
    lighter = corrupt(images, "brightness", 3).float().mean(dim=(1, 2, 3)) - images.float().mean(
        dim=(1, 2, 3)
    )
    assert (lighter[0::2] > 30).all()
    assert (lighter[1::2] < -30).all()
    flat = corrupt(images, "contrast", 5).float()
    assert torch.allclose(flat.mean(dim=(1, 2, 3)), images.float().mean(dim=(1, 2, 3)), atol=1)
    assert (flat.std(dim=(1, 2, 3)) < 0.2 * images.float().std(dim=(1, 2, 3))).all()


def test_a_shift_moves_the_image_by_its_share_of_the_side_one_way_after_the_other():
    image = torch.zeros(1, 1, 40, 40, dtype=torch.uint8)
    image[..., 20, 20] = 255
    moved = corrupt(image.repeat(4, 1, 1, 1), "shift", 2)  # a tenth: 4 px
    places = [tuple(int(i) for i in np.argwhere(one[0].numpy() > 128)[0]) for one in moved]
    assert sorted(places) == [(16, 20), (20, 16), (20, 24), (24, 20)]


def test_a_rotation_turns_by_its_degrees_left_and_right():
    image = torch.zeros(1, 1, 81, 81, dtype=torch.uint8)
    image[..., 39:42, 65:68] = 255  # 26 px right of the middle
    turned = corrupt(image.repeat(2, 1, 1, 1), "rotation", 5).float()  # 45 degrees
    angles = []
    for one in turned:
        rows, columns = np.nonzero(one[0].numpy() > 100)
        angles.append(np.degrees(np.arctan2(rows.mean() - 40, columns.mean() - 40)))
    assert sorted(angles) == pytest.approx([-45, 45], abs=2)


def test_eyes_and_mouth_are_covered_and_nothing_else():
    white = torch.full((1, 1, 48, 48), 255, dtype=torch.uint8)
    for kind, top, bottom in (("eyes covered", 12, 25), ("mouth covered", 30, 45)):
        rows, columns = np.nonzero(corrupt(white, kind, 5)[0, 0].numpy() == 0)
        assert top <= rows.min() < rows.max() < bottom
        assert columns.min() + columns.max() == 47  # in the middle

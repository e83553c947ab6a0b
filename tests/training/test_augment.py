"""Augmentation, by what it does to images whose transform can be read off."""

import math

import pytest
import torch

from trainer.config import Config
from trainer.training.augment import Augmentation, cutmix, mixup
from trainer.training.schedule import make_augmentation

SIDE = 64
MIDDLE = (SIDE - 1) / 2
EVERYTHING = {"flip": True, "rotation": 20.0, "zoom": 0.2, "shift": 0.1, "erase": 0.5}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(batch: int, side: int = 24) -> torch.Tensor:
    return torch.rand(batch, 1, side, side, generator=generator(99))


def dots(batch: int, across: float, down: float) -> torch.Tensor:
    """(batch, 1, SIDE, SIDE) with a round dot so many px right of and below the middle."""
    pixel = torch.arange(SIDE) - MIDDLE
    squared = (pixel[None, :] - across) ** 2 + (pixel[:, None] - down) ** 2
    return torch.exp(-squared / 8).expand(batch, 1, SIDE, SIDE).clone()


def centres(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(px right of the middle, px below the middle) of the centre of mass of each image."""
    pixel = torch.arange(SIDE) - MIDDLE
    mass = images.sum((1, 2, 3))
    return (images.sum((1, 2)) * pixel).sum(1) / mass, (images.sum((1, 3)) * pixel).sum(1) / mass


def test_no_element_is_the_identity():
    images = noise(5)
    assert torch.equal(Augmentation()(images.clone(), generator()), images)


def test_strength_0_is_the_identity_even_where_every_element_is_set():
    images = noise(5)
    assert torch.equal(
        make_augmentation(Config(augmentation=0.0, **EVERYTHING))(images.clone(), generator()), images
    )
    assert not torch.equal(make_augmentation(Config(**EVERYTHING))(images.clone(), generator()), images)


def test_strength_multiplies_the_amplitudes():
    config = Config(augmentation=2.0, flip=True, rotation=10.0, zoom=0.1, shift=0.05, erase=0.7, jitter=0.1)
    assert make_augmentation(config) == Augmentation(
        flip=True, rotation=20, zoom=0.2, shift=0.1, erase=1.0, jitter=0.2
    )


@pytest.mark.parametrize(
    "element",
    [{"rotation": 20.0}, {"zoom": 0.2}, {"shift": 0.1}, {"erase": 1.0}],
    ids=lambda e: next(iter(e)),
)
def test_each_image_of_a_batch_draws_its_own_transform(element):
    images = noise(1).expand(8, -1, -1, -1)
    found = Augmentation(**element)(images, generator())
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    for first in range(8):
        assert not torch.equal(found[first], images[first])
        for second in range(first):
            assert not torch.equal(found[first], found[second])


@pytest.mark.parametrize("element", [{"flip": True}, EVERYTHING])
def test_the_generator_alone_decides_the_transforms(element):
    images = noise(16)
    augmentation = Augmentation(**element)
    torch.manual_seed(1)
    first = augmentation(images, generator(3))
    torch.manual_seed(2)
    assert torch.equal(augmentation(images, generator(3)), first)
    assert not torch.equal(augmentation(images, generator(4)), first)


def test_the_images_that_go_in_are_not_changed():
    images = noise(16)
    before = images.clone()
    Augmentation(**EVERYTHING)(images, generator())
    assert torch.equal(images, before)


@pytest.mark.parametrize("more", [{}, {"rotation": 1e-4}], ids=["alone", "with_a_rotation"])
def test_a_flip_mirrors_left_and_right_of_half_of_the_images(more):
    images = noise(400)
    found = Augmentation(flip=True, **more)(images, generator())
    kept, mirrored = (
        (found - expected).abs().amax((1, 2, 3)) < 1e-3 for expected in (images, images.flip(3))
    )
    assert (kept ^ mirrored).all()
    assert 160 < mirrored.sum() < 240  # four standard deviations


def test_a_rotation_turns_about_the_middle_to_both_sides_and_no_further_than_asked():
    found = Augmentation(rotation=40.0)(dots(300, across=18, down=0), generator())
    across, down = centres(found)
    torch.testing.assert_close(torch.hypot(across, down), torch.full((300,), 18.0), atol=0.1, rtol=0)
    degrees = torch.rad2deg(torch.atan2(down, across))
    assert degrees.abs().max() < 40.3
    assert degrees.min() < -36
    assert degrees.max() > 36
    assert degrees.mean().abs() < 6


def test_one_rotation_turns_the_whole_image_by_one_angle():
    augmentation = Augmentation(rotation=90.0)
    angles = []
    for across, down in ((18, 0), (0, 18), (-12, 12)):
        found_across, found_down = centres(augmentation(dots(50, across, down), generator()))
        turned = torch.atan2(found_down, found_across) - math.atan2(down, across)
        angles.append(torch.stack([turned.cos(), turned.sin()]))
    torch.testing.assert_close(angles[0], angles[1], atol=0.02, rtol=0)
    torch.testing.assert_close(angles[0], angles[2], atol=0.02, rtol=0)


def test_a_zoom_scales_about_the_middle_and_enlarges_what_it_moves_outwards():
    images = dots(300, across=12, down=-12)
    found = Augmentation(zoom=0.25)(images, generator())
    across, down = centres(found)
    torch.testing.assert_close(across, -down, atol=0.1, rtol=0)
    scale = torch.hypot(across, down) / math.hypot(12, 12)
    assert 0.74 < scale.min() < 0.78
    assert 1.22 < scale.max() < 1.26
    area = found.sum((1, 2, 3)) / images.sum((1, 2, 3))
    torch.testing.assert_close(area, scale**2, atol=0.03, rtol=0)


def test_a_shift_moves_by_up_to_its_share_of_the_side_in_both_directions():
    across, down = centres(Augmentation(shift=0.125)(dots(300, 0, 0), generator()))
    for moved in (across, down):
        assert -8.1 < moved.min() < -7
        assert 7 < moved.max() < 8.1
    assert torch.corrcoef(torch.stack([across, down]))[0, 1].abs() < 0.2


def test_no_transform_brings_in_a_colour_that_was_not_there():
    images = torch.full((50, 1, 24, 24), 0.7)
    found = Augmentation(**EVERYTHING)(images, generator())
    torch.testing.assert_close(found, images)


def test_erasing_fills_a_rectangle_with_the_mean_of_its_image():
    images = noise(200, 48)
    found = Augmentation(erase=1.0)(images, generator())
    areas = []
    for before, after in zip(images[:, 0], found[:, 0], strict=True):
        hole = before != after
        rows, columns = hole.any(1), hole.any(0)
        assert torch.equal(hole, rows[:, None] & columns[None, :])
        for line in (rows, columns):  # without a gap
            assert (line.int().diff() != 0).sum() <= 2
        torch.testing.assert_close(after[hole], before.mean().expand(int(hole.sum())))
        areas.append(hole.float().mean().item())
    assert min(areas) > 0.01
    assert max(areas) < 0.23  # 20%, and the rounding to whole px
    assert max(areas) > 0.15


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_erasing_hits_its_share_of_the_images(probability):
    images = noise(1000)
    erased = (Augmentation(erase=probability)(images, generator()) != images).any(dim=(1, 2, 3)).sum()
    deviation = math.sqrt(1000 * probability * (1 - probability))
    assert abs(erased - 1000 * probability) < 4 * deviation


def numbered(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Image i has the value i throughout, and class i."""
    images = torch.arange(batch).float()[:, None, None, None].expand(batch, 1, 4, 4)
    return images, torch.eye(batch)


@pytest.mark.parametrize("alpha", [0.1, 0.4, 2.0])
def test_mixup_blends_images_and_targets_alike_and_keeps_the_image_the_larger_part(alpha):
    torch.manual_seed(0)
    images, target = numbered(64)
    mixed, blended = mixup(images, target, alpha, generator())
    torch.testing.assert_close(blended.sum(1), torch.ones(64))
    own = blended.diagonal()
    assert (own >= 0.5).all()
    assert ((blended > 0).sum(1) <= 2).all()
    # What the target says of the image is what the image is.
    torch.testing.assert_close(mixed[:, 0, 0, 0], blended @ torch.arange(64).float())
    assert (mixed == mixed[:, :, :1, :1]).all()
    assert (own < 1).sum() > 10


def test_mixup_draws_a_share_for_each_image_and_a_larger_alpha_blends_more():
    torch.manual_seed(0)
    images, target = numbered(256)
    little, much = (mixup(images, target, alpha, generator())[1].diagonal() for alpha in (0.1, 2.0))
    assert much.unique().numel() > 200
    assert little.mean() > much.mean() + 0.1


def test_mixup_repeats_itself_from_the_same_seeds():
    images, target = numbered(16)
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        results.append(mixup(images, target, 0.4, generator(6)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_cutmix_puts_one_square_of_another_image_into_each_and_divides_the_target_as_the_pixels(alpha):
    torch.manual_seed(0)
    images = torch.arange(64).float()[:, None, None, None].expand(64, 1, 24, 24)
    mixed, divided = cutmix(images, torch.eye(64), alpha, generator())
    torch.testing.assert_close(divided.sum(1), torch.ones(64))
    kept = mixed == images
    torch.testing.assert_close(divided.diagonal(), kept.float().mean((1, 2, 3)))
    assert ((divided > 0).sum(1) <= 2).all()
    assert (divided.diagonal() >= 0.45).all()  # half of it, but for whole pixels
    assert divided.diagonal().unique().numel() > 5
    for image, own in zip(mixed, kept, strict=True):
        rows, columns = torch.where(~own[0])
        if len(rows):
            height, width = (int(extent.max() - extent.min()) + 1 for extent in (rows, columns))
            assert len(rows) == height * width, "a rectangle without holes"
            assert abs(height - width) <= 1
            assert image[0][rows, columns].unique().numel() == 1


def test_cutmix_repeats_itself_from_the_same_seeds():
    images, results = noise(16), []
    for seed in (6, 6, 7):
        torch.manual_seed(5)
        results.append(cutmix(images, torch.eye(16), 1.0, generator(seed)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert not torch.equal(results[0][0], results[2][0])

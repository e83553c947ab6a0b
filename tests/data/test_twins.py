"""Near-duplicates, by what was done to an image; and the number that FER-2013 holds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data import dataset_source
from trainer.data.twins import LARGEST_DIFFERENCE, LEAST_CORRELATION, twin_pairs


def noise(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(40, 200, (count, 1, 24, 24), generator=generator, dtype=torch.uint8)


def test_an_image_is_found_again_through_brightness_and_a_little_noise():
    images = noise(6)
    changed = (
        images[[4, 1]].float() + 5 + torch.randn(2, 1, 24, 24, generator=torch.Generator().manual_seed(1))
    )
    assert twin_pairs(images, changed.byte()).tolist() == [[1, 1], [4, 0]]
    assert twin_pairs(images, noise(6, seed=1)).tolist() == []


def test_what_is_much_brighter_or_turned_is_no_twin():
    images = noise(3)
    assert len(twin_pairs(images, images + 20)) == 0
    assert len(twin_pairs(images, images.flip(3))) == 0


def test_pairs_inside_of_a_part_are_named_once_and_never_an_image_with_itself():
    images = noise(5)
    together = torch.cat([images, images[[2]], images[[0]], images[[2]]])
    assert twin_pairs(together).tolist() == [[0, 6], [2, 5], [2, 7], [5, 7]]


def test_blank_images_have_no_twins():
    blank = torch.full((3, 1, 24, 24), 90, dtype=torch.uint8)
    assert twin_pairs(blank).tolist() == []
    assert twin_pairs(blank, noise(3)).tolist() == []


@pytest.mark.parametrize(("first", "second"), [(0, 3), (3, 0), (0, 0)])
def test_nothing_has_no_twins(first, second):
    assert twin_pairs(noise(first), noise(second)).shape == (0, 2)
    assert twin_pairs(noise(first)).shape == (0, 2)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 30), strength=st.floats(0, 40))
def test_the_pairs_are_those_of_numpy(seed, count, strength):
    generator = np.random.default_rng(seed)
    base = generator.integers(0, 256, (count, 1, 12, 12))
    images = base[generator.integers(0, count, 2 * count)] + generator.normal(
        0, strength, (2 * count, 1, 12, 12)
    )
    images = images.clip(0, 255).astype(np.uint8)
    flat = images.reshape(2 * count, -1)
    correlation = np.corrcoef(flat.astype(np.float64))
    difference = np.abs(flat[:, None].astype(int) - flat[None].astype(int)).mean(2)
    near = (correlation > LEAST_CORRELATION) & (difference < LARGEST_DIFFERENCE)
    if (np.abs(correlation - LEAST_CORRELATION) < 1e-6).any():
        return  # float32 may decide otherwise
    assert twin_pairs(torch.from_numpy(images)).tolist() == np.argwhere(np.triu(near, 1)).tolist()


@pytest.mark.slow
def test_publictest_of_fer2013_has_293_images_with_a_twin_in_train(fer2013):
    parts = dataset_source("fer2013").load(fer2013, ("train", "test")).parts
    test = parts["test"]
    public = [i for i, name in enumerate(test.sample_ids) if "PublicTest_" in name]
    assert len(np.unique(twin_pairs(test.images[public], parts["train"].images)[:, 0])) == 293

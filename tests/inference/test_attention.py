"""Mean maps of a class lie where the class comes from, faces lie over each other, and random weights move them."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dashboard.gallery import attention_row
from tests.inference.test_saliency import SIDE, Corners
from trainer.evaluation.attention import Attention
from trainer.inference.attention import _similarity, attention
from trainer.models.base import Classifier

NAMES = ("upper left", "upper right", "<b>lower left</b>", "lower right")
COUNT = 12


def places(angle: float = 0.0, side: float = 1.0) -> pd.DataFrame:
    """A face in the middle of every image."""
    values = {"face x": 0.5, "face y": 0.5, "face side": side, "face angle": angle}
    return pd.DataFrame(values, index=range(COUNT))


def looked(angle: float = 0.0) -> Attention:
    classifier = Classifier(Corners(), image_size=SIDE, mean=(0,), std=(1,)).eval()
    images = torch.full((COUNT, 1, SIDE, SIDE), 180, dtype=torch.uint8)
    target = np.arange(COUNT) % 3
    found = attention(
        classifier, images, target, np.where(np.arange(COUNT) == 0, 3, target), places(angle), NAMES
    )
    assert found is not None
    return found


def test_each_class_is_looked_at_where_it_is_and_only_right_answers_count():
    found = looked()
    assert found.images.tolist() == [3, 4, 4, 0]
    for index, (rows, columns) in enumerate(((0, 0), (0, 1), (1, 0))):
        quadrant = found.maps[index].reshape(2, 24, 2, 24)[rows, :, columns]
        assert quadrant.sum() > 0.9 * found.maps[index].sum()
    assert found.lower_share(2) > 0.9 > 0.1 > found.lower_share(0)
    assert np.isnan(found.lower_share(3))


def test_faces_are_turned_upright():
    """A face that leans a quarter to the right has its upper left where the image has its upper right."""
    quadrant = looked(angle=90).maps[1].reshape(2, 24, 2, 24)[0, :, 0]
    assert quadrant.sum() > 0.9 * looked().maps[1].sum()


def test_random_weights_change_the_maps_of_a_network(tmp_path: Path):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 5, padding=2), torch.nn.ReLU(), torch.nn.MaxPool2d(4), torch.nn.Flatten(),
        torch.nn.Linear(8 * 144, 4),
    )  # fmt: skip
    classifier = Classifier(network, image_size=SIDE, mean=(0.5,), std=(0.25,)).eval()
    images = (torch.rand(COUNT, 1, SIDE, SIDE) * 255).to(torch.uint8)
    target = np.arange(COUNT) % 4
    found = attention(classifier, images, target, target, places(), NAMES)
    assert found is not None
    assert abs(found.random_similarity) < 0.5
    found.save(tmp_path / "attention.npz")
    again = Attention.load(tmp_path / "attention.npz")
    assert again.class_names == NAMES
    assert np.abs(again.maps - found.maps).max() < 0.003
    assert again.random_similarity == found.random_similarity
    html = attention_row(again)
    assert html.count("<img") == 4
    assert "&lt;b&gt;lower left" in html


def test_flat_maps_of_random_weights_check_nothing():
    maps = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    others = maps.clone()
    others[1:] = 0
    assert _similarity(maps, others) == pytest.approx(1, abs=1e-5)
    assert np.isnan(_similarity(maps, torch.zeros_like(maps)))
    found = looked()
    for similarity, words in (
        (np.nan, "the same images have flat maps: that checks nothing"),
        (-0.04, "correlate with these by −0.04: they are not those of random weights"),
        (0.8, "by 0.80: they tell of the images rather than of what was learned"),
    ):
        assert dataclasses.replace(found, random_similarity=similarity).checked().endswith(words)


def test_without_a_face_or_with_another_file_there_is_nothing(tmp_path: Path):
    classifier = Classifier(Corners(), image_size=SIDE, mean=(0,), std=(1,)).eval()
    images, target = torch.zeros(COUNT, 1, SIDE, SIDE, dtype=torch.uint8), np.zeros(COUNT, np.int64)
    assert attention(classifier, images, target, target, places() * np.nan, NAMES) is None
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", class_names=np.array([{}], dtype=object))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:100])
    for name in ("other", "pickled", "cut"):
        with pytest.raises(ValueError, match=r"not what Moodify keeps|pickle"):
            Attention.load(tmp_path / f"{name}.npz")

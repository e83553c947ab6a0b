"""Watermarks: the network sees drawn writing over drawn faces, which it was not taught on, and its teacher works."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.extra.drawn_photos import portrait
from trainer.inference.watermarks import SIDE, WEIGHTS, watermark
from trainer.training import watermarks as teacher


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    """Drawn faces, uint8 (24, 1, SIDE, SIDE)."""
    drawn = [np.asarray(portrait(seed).convert("L").resize((SIDE, SIDE))) for seed in range(24)]
    return torch.from_numpy(np.stack(drawn))[:, None]


def masks(count: int) -> torch.Tensor:
    generator = np.random.default_rng(1)
    return torch.from_numpy(np.stack([teacher.draw(generator) for _ in range(count)])).float() / 255


def test_a_face_under_writing_is_told_from_the_same_face_without(faces: torch.Tensor):
    torch.manual_seed(0)
    marked = teacher.written_over(faces.float() / 255, masks(24)).mul(255).round().byte()
    plain, found = watermark(faces.numpy()), watermark(marked.numpy())
    assert ((plain >= 0) & (plain <= 1)).all()
    assert (found > plain).mean() > 0.8
    assert np.median(found) > 0.9
    assert np.median(plain) < 0.5


def test_larger_images_are_looked_at_in_the_same_way(faces: torch.Tensor):
    larger = faces.repeat_interleave(2, 2).repeat_interleave(2, 3)
    np.testing.assert_allclose(watermark(larger.numpy()), watermark(faces.numpy()), atol=1e-3)
    assert watermark(np.empty((0, 1, SIDE, SIDE), np.uint8)).shape == (0,)


def test_writing_changes_nothing_beside_itself(faces: torch.Tensor):
    torch.manual_seed(0)
    images, mask = faces.float() / 255, masks(1)
    assert mask.max() > 0.5
    beside = (mask[0] == 0) & (mask[0].roll((1, 1), (0, 1)) == 0)
    written = teacher.written_over(images, mask)
    torch.testing.assert_close(written[:, 0, beside], images[:, 0, beside])
    assert (written != images).flatten(1).any(1).all()


@pytest.mark.slow
def test_the_network_is_taught_by_one_command(
    faces: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    images = SimpleNamespace(images=faces.repeat(40, 1, 1, 1))
    monkeypatch.setattr(teacher, "load_splits", lambda *_: SimpleNamespace(train=images, test=images))
    # After so few steps a network may find writing everywhere, and leave nothing to learn from.
    monkeypatch.setattr(teacher, "answers", lambda _, images: torch.linspace(0, 1, len(images)))
    output, sheet = tmp_path / "weights.safetensors", tmp_path / "sheet.png"
    options = ["--overlays", "20", "--epochs", "1", "1", "--output", str(output), "--sheet", str(sheet)]
    monkeypatch.setattr(sys, "argv", ["watermarks", *options])
    teacher.main()
    assert load_file(output).keys() == load_file(WEIGHTS).keys()
    assert Image.open(sheet).size == (1920, 1152)
    assert "48 of 960 test images at 0.95" in capsys.readouterr().out

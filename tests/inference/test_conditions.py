"""What images are like: measured once for a test set, and missing where no face is found."""

import numpy as np
import pandas as pd
import pytest

from tests.extra.drawn_photos import portrait
from trainer.data.cache_file import cache_folder
from trainer.inference import conditions as module
from trainer.inference.conditions import conditions, measure


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """A face, the same half as bright, the same with half the contrast, and a blank image."""
    face = np.asarray(portrait(3).convert("L").resize((48, 48)), dtype=np.float64)
    versions = [face, face * 0.5, face.mean() + (face - face.mean()) * 0.5, np.full((48, 48), 90.0)]
    return np.stack(versions).round().astype(np.uint8)[:, None]


def test_brightness_contrast_sharpness_size_and_pose_are_measured(images: np.ndarray):
    table = measure(images, ["face", "dark", "flat", "blank"]).set_index("sample_id")
    assert table.at["dark", "brightness"] == pytest.approx(table.at["face", "brightness"] / 2, abs=0.005)
    assert table.at["flat", "contrast"] == pytest.approx(table.at["face", "contrast"] / 2, abs=0.005)
    assert table.at["flat", "sharpness"] == pytest.approx(table.at["face", "sharpness"], rel=0.1)
    assert 0.2 < table.at["face", "face size"] < 1
    assert table.at["face", "turned away"] < 0.5
    assert table.loc["blank", ["face size", "turned away"]].isna().all()


def test_a_test_set_is_measured_once(workplace, images: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    first = conditions(images, ["a", "b", "c", "d"], "f00d")
    monkeypatch.setattr(module, "measure", lambda *_: pytest.fail("it was measured before"))
    again = conditions(images, ["a", "b", "c", "d"], "f00d")
    assert again.equals(first)


def test_what_a_full_disk_has_cut_off_is_not_left_there(workplace, images: np.ndarray, monkeypatch, caplog):
    def cut_off(self, path, **_):
        path.write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", cut_off)
    assert len(conditions(images, ["a", "b", "c", "d"], "full")) == 4
    assert "No space left" in caplog.text
    assert [path.name for path in cache_folder().iterdir() if "full" in path.name] == []

"""Lists of images that leave train, and nothing but train."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.extra import levels_dataset
from trainer.data import DATASETS
from trainer.data.base import Split
from trainer.data.exclusion import exclude, read_list
from trainer.data.splits import Splits, load_splits

NAMES = ("angry", "happy")


@pytest.fixture
def train() -> Split:
    ids = tuple(f"train/{index}" for index in range(6))
    return Split(torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1), torch.tensor([0, 1] * 3), ids)


def write(folder, text: str):
    path = folder / "drop.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_list_has_one_id_a_line_and_comments_between(tmp_path):
    path = write(tmp_path, "\ufeff# found by an audit\r\ntrain/a #1.png\r\n\n  train/b \n#train/c\ntrain/b\n")
    assert read_list(path) == {"train/a #1.png", "train/b"}


def test_listed_images_leave_train_and_the_others_stay_as_they_are(tmp_path, train):
    path = write(tmp_path, "train/1\ntest/7\ntrain/4\n")
    kept, what = exclude(path, train, NAMES, {"test/7", "test/8"}, "office")
    assert kept.sample_ids == ("train/0", "train/2", "train/3", "train/5")
    assert kept.images.flatten().tolist() == [0, 2, 3, 5]
    assert kept.target.tolist() == [0, 0, 1, 1]
    assert (what.name, what.images, what.elsewhere) == ("drop.txt", 2, 1)
    assert what.sentence() == (
        f"Trained without 2 images of drop.txt (digest {what.digest}). 1 more of its ids are in validation or test and "
        "stay there."
    )


def test_the_digest_names_the_ids_in_whatever_order(tmp_path, train):
    digests = [
        exclude(write(tmp_path, text), train, NAMES, (), "office")[1].digest
        for text in ("train/1\ntrain/4\n", "# twice\ntrain/4\ntrain/1\ntrain/4", "train/1\n")
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n\n", "lists no sample id"),
        ("train/1\ntrain/9\n", "lists images that the dataset does not have: train/9"),
        ("a\nb\nc\nd\ne", "lists images that the dataset does not have: a, b, c and 2 more"),
        ("train/1\ntrain/3\ntrain/5", "leaves no training image of happy"),
        ("# Images of home (faces) that may leave;\ntrain/1", "lists images of home, not of office"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused_in_one_line(tmp_path, train, text, message):
    with pytest.raises(ValueError, match=f"^--exclude .*drop.txt {message}") as caught:
        exclude(write(tmp_path, text), train, NAMES, (), "office")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_list_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_list(tmp_path / "none.txt")
    (tmp_path / "picture.png").write_bytes(bytes(range(128, 256)))
    with pytest.raises(ValueError, match="no text in UTF-8"):
        read_list(tmp_path / "picture.png")


def test_validation_and_test_are_those_of_a_training_without_a_list(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "levels", levels_dataset.__name__)
    before = load_splits("levels")
    ids = [before.train.sample_ids[0], before.validation.sample_ids[0], before.test.sample_ids[0]]
    after = load_splits("levels", exclude_list=str(write(tmp_path, "\n".join(ids))))
    assert dataclasses.replace(after.exclusion, digest="") == dataclasses.replace(
        after.exclusion, digest="", images=1, elsewhere=2
    )
    assert before.exclusion is None
    assert after.train.sample_ids == before.train.sample_ids[1:]
    assert changed(before, after) == {"train"}
    assert np.array_equal(after.validation.images, before.validation.images)


def changed(one: Splits, other: Splits) -> set[str]:
    fingerprints = one.fingerprints(), other.fingerprints()
    return {part for part in fingerprints[0] if fingerprints[0][part] != fingerprints[1][part]}

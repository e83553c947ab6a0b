"""Answers to photos, where a model fails on some of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.commands.predict import write_annotated
from trainer.inference.model import asked
from trainer.inference.stream import BATCH_FACES, ask_all


class Moody:
    """A stranger's model, which fails on all of what it is asked where one image is black."""

    class_names = ("happy", "sad")
    size, channels, temperature, notes, size_bytes = 8, 1, 1.0, (), 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if not images.any(axis=(1, 2, 3)).all():
            raise ValueError("it fails on black")
        return np.tile(np.float32([0.75, 0.25]), (len(images), 1))

    def saliency(self, images: np.ndarray, classes: object) -> None:
        return None


class Calm(Moody):
    def __call__(self, images: np.ndarray) -> np.ndarray:
        return np.full((len(images), 2), np.float32(0.5))


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    names = [str(tmp_path / f"{index}.png") for index in range(3)]
    for name, grey in zip(names, (90, 0, 200), strict=True):
        Image.new("L", (20, 20), grey).save(name)
    return names


def test_an_image_that_a_model_fails_on_costs_no_other_its_answer(photos):
    items = list(ask_all(photos, {"moody/1": Moody()}, whole=True, keep_pixels=False))
    assert [[row["answer"] for row in item.rows] for item in items] == [["happy"], [], ["happy"]]
    assert [item.failure for item in items] == [
        "",
        "moody/1 gives no answer to face 1: it fails on black",
        "",
    ]


def test_another_model_still_answers_it(photos):
    models = {"moody/1": Moody(), "calm/1": Calm()}
    items = list(ask_all(photos, models, whole=True, keep_pixels=False))
    assert [[row["model"] for row in item.rows] for item in items] == [
        ["moody/1", "calm/1"],
        ["calm/1"],
        ["moody/1", "calm/1"],
    ]


def test_failures_that_come_together_end_nothing_once_the_model_has_answered(photos):
    items = ask_all(
        [*[photos[0]] * BATCH_FACES, *[photos[1]] * 9], {"moody/1": Moody()}, whole=True, keep_pixels=False
    )
    assert [bool(item.rows) for item in items] == [True] * BATCH_FACES + [False] * 9


def test_a_photo_with_one_face_that_a_model_fails_on_is_drawn_with_the_others(photos, tmp_path):
    (item,) = ask_all([photos[0]], {"calm/1": Calm()}, whole=True, keep_pixels=True)
    item.faces = [*item.faces, *item.faces]
    write_annotated(item, tmp_path, set())
    assert (tmp_path / "0.jpg").exists()


def test_a_model_that_answers_nothing_ends_it(photos):
    black = [photos[1]] * 8
    with pytest.raises(ValueError, match="moody/1 gives no answer: it fails on black"):
        list(ask_all(black, {"moody/1": Moody()}, whole=True, keep_pixels=False))


def test_without_images_nothing_is_asked_for():
    assert asked(Moody(), np.empty((0, 1, 8, 8), np.uint8)) == []

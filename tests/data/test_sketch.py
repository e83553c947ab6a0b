from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.data import sketch
from trainer.data.sketch import CLASS_NAMES, FER2013_COUNTS, SOURCE, draw_face, draw_part, part_counts
from trainer.data.sketch_face import Expression

ONE_OF_EACH = dict.fromkeys(CLASS_NAMES, 1)


def generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(key))


def test_every_machine_draws_the_same_faces():
    """Fingerprints decide which runs are compared; where this fails on purpose, raise sketch.VERSION."""
    split = draw_part("test", dict.fromkeys(CLASS_NAMES, 4), seed=0)
    assert (sketch.VERSION, split.fingerprint(CLASS_NAMES)) == (2, "c6495fe4fdbdcd4f9731c3d40befb7b4")


def test_another_seed_and_another_part_draw_other_faces():
    first, *others = (
        draw_part(part, {"happy": 3}, seed) for part, seed in (("test", 0), ("test", 1), ("train", 0))
    )
    for other in others:
        assert not (first.images == other.images).flatten(1).all(dim=1).any()


def test_a_face_does_not_depend_on_the_others():
    few, many = draw_part("train", {"sad": 3}, seed=5), draw_part("train", {"sad": 6}, seed=5)
    assert torch.equal(few.images, many.images[:3])
    assert few.sample_ids == many.sample_ids[:3]


def test_faces_of_one_part_differ():
    images = draw_part("test", {"neutral": 12}, seed=0).images
    assert len({image.numpy().tobytes() for image in images}) == 12


def test_a_part_is_a_split_of_the_wanted_faces_in_mixed_order():
    counts = {"angry": 5, "fear": 2, "surprise": 9}
    split = draw_part("test", counts, seed=0)
    assert split.images.shape == (16, 1, 48, 48)
    assert split.images.dtype == torch.uint8
    assert split.target.dtype == torch.int64
    assert split.class_counts(7) == [counts.get(name, 0) for name in CLASS_NAMES]
    assert split.target.tolist() != sorted(split.target.tolist())
    assert split.sample_ids == tuple(f"test/{index:05d}" for index in range(16))


@pytest.mark.parametrize(("part", "size"), [("train", 6_600), ("test", 1_400)])
def test_the_classes_are_as_unequal_as_those_of_fer2013(part: str, size: int):
    counts = part_counts(part)
    assert tuple(counts) == CLASS_NAMES == tuple(sorted(CLASS_NAMES))
    assert sum(counts.values()) == size
    assert sum(FER2013_COUNTS.values()) == 28_709
    for name, count in counts.items():
        assert abs(count - size * FER2013_COUNTS[name] / 28_709) < 1
        assert count >= 20


@pytest.mark.parametrize("class_name", CLASS_NAMES)
def test_every_class_can_be_drawn_at_every_strength(class_name: str):
    for person, intensity in enumerate((0.0, 0.3, 0.6, 1.0, 1.3, None)):
        image = draw_face(generator(person), class_name, intensity)
        assert image.shape == (48, 48)
        assert image.dtype == np.uint8


def test_pictures_are_neither_dark_nor_flat():
    images = draw_part("train", dict.fromkeys(CLASS_NAMES, 12), seed=3).images.flatten(1).double()
    assert 90 < images.mean() < 150
    assert 40 < images.std() < 80
    assert images.std(dim=1).min() > 8
    assert images.std(dim=1).median() > 25


def test_happy_and_sad_differ_most_around_the_mouth():
    people = range(16)
    happy, sad = (
        np.stack([draw_face(generator(person), class_name, 1.0) for person in people]).astype(float)
        for class_name in ("happy", "sad")
    )
    change = np.abs(happy - sad).mean(axis=0)
    mouth = np.zeros((48, 48), bool)
    mouth[30:43, 14:34] = True
    assert change[mouth].mean() > 3 * change[~mouth].mean()


def test_a_face_without_intensity_is_neutral_whatever_its_class():
    neutral, sad = (Expression.from_facs(sketch.PROTOTYPES[name][0]) for name in ("neutral", "sad"))
    assert neutral == Expression()
    assert sad != Expression()
    same_draws = [sketch.draw_expression(generator(4), name, 0.0) for name in ("fear", "sad")]
    assert same_draws[0] == same_draws[1]


def test_facs_codes_give_units_and_strengths():
    assert Expression.from_facs("6D+12E") == Expression(cheek_raise=0.8, lip_corner_pull=1.0)


def test_the_source_draws_once_and_then_reads_its_cache(workplace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sketch.PART_SIZES, "test", 70)
    drawn, read = SOURCE.load(None, ["test"]), SOURCE.load(None, ["test"])
    assert drawn.name == "sketch"
    assert drawn.class_names == CLASS_NAMES
    assert list(drawn.parts) == ["test"]
    assert len(drawn.parts["test"]) == 70
    assert list(workplace.rglob("sketch-*.safetensors"))
    assert read.parts["test"].fingerprint(CLASS_NAMES) == drawn.parts["test"].fingerprint(CLASS_NAMES)


def test_a_data_folder_is_refused():
    with pytest.raises(ValueError, match="takes no --data-dir"):
        SOURCE.load(Path("faces"), ["test"])


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="no part 'validation'; choose from train, test"):
        SOURCE.load(None, ["validation"])


def test_an_unknown_class_is_refused():
    with pytest.raises(ValueError, match="no class 'contempt'"):
        draw_face(generator(0), "contempt")

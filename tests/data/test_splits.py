"""The validation protocols, on real files in the Kaggle layout."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.model_selection import train_test_split

from trainer.data.splits import load_splits, stratified_index

CLASSES = {"angry": 20, "happy": 60, "sad": 40}
ALL_TEST = {"PublicTest": 2, "PrivateTest": 3}


def write_faces(root, train=CLASSES, test=ALL_TEST):
    """train/<class>/Training_<i>.png and test/<class>/<prefix>_<i>.png, no two pictures alike."""
    generator = np.random.default_rng(0)
    for name in CLASSES:
        for part, counts in (("train", {"Training": train[name]}), ("test", test)):
            folder = root / part / name
            folder.mkdir(parents=True)
            for prefix, count in counts.items():
                for index in range(count):
                    pixels = generator.integers(0, 256, (48, 48), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{prefix}_{index}.png")
    return root


@pytest.fixture
def faces(workplace):
    return write_faces(workplace / "faces")


def load(root, **protocol):
    return load_splits("fer2013", str(root), **protocol)


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(2, 60), min_size=2, max_size=7),
    fraction=st.floats(0.01, 0.5),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_stratified_validation_keeps_the_class_shares(counts, fraction, seed):
    target = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    train, validation = stratified_index(target, fraction, seed)
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(len(target)))
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(validation) > 0)
    wanted = max(round(len(target) * fraction), len(counts))
    expected = np.array(counts) * wanted / len(target)
    found = np.bincount(target[validation], minlength=len(counts))
    assert np.all(np.abs(found - expected) <= 1)
    assert found.min() >= 1
    assert np.bincount(target[train]).min() >= 1
    drawn = train_test_split(np.arange(len(target)), test_size=wanted, stratify=target, random_state=seed)[1]
    assert set(drawn) <= set(validation)
    assert len(set(validation) - set(drawn)) == len(set(target) - set(target[drawn]))


def test_a_rare_class_has_an_image_in_validation():
    target = np.repeat([0, 1, 2], [200, 60, 3])
    train, validation = stratified_index(target, 0.1, 0)
    assert np.bincount(target[validation]).tolist() == [20, 6, 1]
    assert np.bincount(target[train]).tolist() == [180, 54, 2]


def test_a_validation_that_is_much_larger_than_asked_for_is_told_in_one_line(workplace, caplog):
    root = write_faces(workplace / "faces", train=dict.fromkeys(CLASSES, 3))
    for _ in range(2):
        assert len(load(root).validation) == 3
    assert [record.message for record in caplog.records if record.name == "trainer.data.splits"] == [
        f"{root}: validation is 33% of train instead of 10%, to have an image of each of the 3 classes"
    ]


def test_the_seed_decides_the_validation():
    target = np.repeat([0, 1, 2], 40)
    first, again, other = (stratified_index(target, 0.2, seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_class_with_one_image_is_refused_where_the_data_are_loaded(workplace):
    root = write_faces(workplace / "faces", train={"angry": 1, "happy": 9, "sad": 9})
    with pytest.raises(ValueError, match=r"^only one training image of angry: .* needs two or more of each"):
        load(root)
    assert len(load(root, protocol="public").train) == 19


def test_stratified_takes_validation_from_train_and_leaves_test_alone(faces):
    splits = load(faces, fraction=0.25, seed=3)
    assert splits.dataset == "fer2013"
    assert splits.class_names == ("angry", "happy", "sad")
    assert splits.train.class_counts(3) == [15, 45, 30]
    assert splits.validation.class_counts(3) == [5, 15, 10]
    assert splits.test.class_counts(3) == [5, 5, 5]
    train, validation = set(splits.train.sample_ids), set(splits.validation.sample_ids)
    assert len(train | validation) == 120
    assert train.isdisjoint(validation)
    assert set(splits.parts()) == {"train", "validation", "test"}


def test_every_image_keeps_its_label_and_its_name(faces):
    splits = load(faces)
    for split in splits.parts().values():
        assert len(split.images) == len(split.target) == len(split.sample_ids) > 0
        for image, label, sample_id in zip(split.images, split.target, split.sample_ids, strict=True):
            path = faces / sample_id
            assert path.parent.name == splits.class_names[label]
            assert np.array_equal(np.asarray(Image.open(path)), image[0].numpy())


def test_the_official_halves_of_test_are_known_by_position(faces):
    splits = load(faces)
    assert set(splits.test_groups) == {"public", "private"}
    for group, prefix, count in (("public", "PublicTest", 6), ("private", "PrivateTest", 9)):
        named = [splits.test.sample_ids[position] for position in splits.test_groups[group]]
        assert len(named) == count
        assert all(prefix in name for name in named)


def test_public_validates_on_publictest_tests_on_privatetest_and_trains_on_all_of_train(faces):
    splits = load(faces, protocol="public")
    assert splits.train.class_counts(3) == list(CLASSES.values())
    assert splits.validation.class_counts(3) == [2, 2, 2]
    assert splits.test.class_counts(3) == [3, 3, 3]
    assert all("PublicTest" in name for name in splits.validation.sample_ids)
    assert all("PrivateTest" in name for name in splits.test.sample_ids)
    assert splits.test_groups == {}


def test_public_says_which_test_images_it_leaves_out(workplace, caplog):
    root = write_faces(workplace / "faces", test=ALL_TEST | {"extra": 4})
    splits = load(root, protocol="public")
    assert (len(splits.validation), len(splits.test)) == (6, 9)
    assert "12 test images are neither PublicTest's nor PrivateTest's, and left out" in caplog.text


@pytest.mark.parametrize(
    ("test", "found"), [({"PublicTest": 3}, "public"), ({"PrivateTest": 3}, "private"), ({"face": 3}, "none")]
)
def test_public_needs_both_halves_and_says_what_there_is(workplace, test, found):
    root = write_faces(workplace / "faces", test=test)
    with pytest.raises(ValueError, match=rf"^--validation public needs .* has: {found}\. Take"):
        load(root, protocol="public")


def test_the_same_split_has_the_same_fingerprints_and_another_seed_changes_only_what_it_divides(faces):
    first, again, other = (load(faces, seed=seed).fingerprints() for seed in (0, 0, 1))
    assert first == again
    assert first["test"] == other["test"]
    assert first["train"] != other["train"]
    assert first["validation"] != other["validation"]
    assert len(set(first.values())) == 3


def test_an_unknown_dataset_is_named_beside_those_that_exist():
    with pytest.raises(ValueError, match="no dataset 'faces': choose one of fer2013, sketch"):
        load_splits("faces")


def test_twins_that_leave_a_class_without_images_are_refused(faces):
    first = faces / "train" / "sad" / "Training_0.png"
    for other in (faces / "train" / "sad").iterdir():
        other.write_bytes(first.read_bytes())
    assert len(load(faces).train) == 108
    with pytest.raises(ValueError, match="--drop-twins leaves no training image of sad"):
        load(faces, drop_twins=True)

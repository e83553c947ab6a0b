"""Answers out of fold: nobody judges what it has learned."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.extra.levels_dataset import CLASS_NAMES, SOURCE
from trainer.data.base import Split
from trainer.evaluation.label_errors import suspected_labels
from trainer.training.folds import fold_config, fold_numbers, learned_index, out_of_fold

NO_TWINS = np.empty((0, 2), dtype=np.int64)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000), size=st.integers(4, 60), folds=st.integers(2, 4), pairs=st.integers(0, 30))
def test_no_network_learns_an_image_that_it_judges_or_a_twin_of_one(seed, size, folds, pairs):
    generator = np.random.default_rng(seed)
    numbers = generator.integers(0, folds, size)
    twins = generator.integers(0, size, (pairs, 2))
    for fold in range(folds):
        learned = set(learned_index(numbers, fold, twins).tolist())
        judged = set(np.flatnonzero(numbers == fold).tolist())
        assert learned.isdisjoint(judged)
        lost = set(range(size)) - judged - learned
        twins_of_judged = {
            one for i, j in twins.tolist() for one, other in ((i, j), (j, i)) if other in judged
        }
        assert lost == twins_of_judged - judged


def test_each_fold_has_its_share_of_each_class():
    target = np.repeat([0, 1, 2], [40, 8, 12])
    numbers = fold_numbers(target, 4, seed=0)
    for fold in range(4):
        assert np.bincount(target[numbers == fold]).tolist() == [10, 2, 3]
    assert not np.array_equal(numbers, fold_numbers(target, 4, seed=1))
    with pytest.raises(ValueError, match="--folds 9: a class has only 8 images"):
        fold_numbers(target, 9, seed=0)


@pytest.mark.slow
def test_wrong_labels_are_suspected_most_by_networks_that_have_not_seen_them():
    train = SOURCE.load(None, ("train",)).parts["train"]
    wrong = np.array([3, 30, 60, 90])
    target = train.target.clone()
    target[wrong] = (target[wrong] + 1) % len(CLASS_NAMES)
    data = Split(train.images, target, train.sample_ids)
    config = dataclasses.replace(
        fold_config(epochs=12, seed=0), blocks="8 16", layout="plain", batch_size=8, augmentation=0.0,
        optimizer="adamw", learning_rate=3e-3, precision="32",
    )  # fmt: skip
    seen = []
    answers = [
        out_of_fold(
            data, NO_TWINS, len(CLASS_NAMES), config, 2, lambda fold, epoch: seen.append((fold, epoch.number))
        )
        for _ in range(2)
    ]
    assert np.array_equal(*answers)
    assert seen == 2 * [(fold, number) for fold in range(2) for number in range(1, 13)]
    np.testing.assert_allclose(answers[0].sum(1), 1, atol=1e-5)
    found = suspected_labels(target.numpy(), answers[0]).head(len(wrong))
    assert set(found["position"]) == set(wrong.tolist())
    assert torch.equal(
        torch.tensor(found.sort_values("position")["suggested"].to_numpy()), train.target[wrong]
    )


def test_images_that_are_all_twins_are_told_instead_of_learned():
    data, size = Split(torch.zeros(12, 1, 8, 8, dtype=torch.uint8), torch.arange(12) % 3, ("",) * 12), 12
    pairs = np.array([(i, j) for i in range(size) for j in range(i)])
    with pytest.raises(ValueError, match="--folds 4: nothing is left to learn"):
        out_of_fold(data, pairs, 3, fold_config(1, 0), 4)

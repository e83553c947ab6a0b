"""Suspected labels, where it is known which labels are wrong."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from trainer.evaluation.label_errors import suspected_labels

SHARES = (0.14, 0.02, 0.14, 0.25, 0.17, 0.17, 0.11)
"""Of FER-2013's classes, nearly."""


def noisy(seed: int, rate: float, size: int = 3000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of which a share is wrong, out-of-fold probabilities of a model that learned from them, and which are."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(len(SHARES), size, p=SHARES)
    features = generator.normal(0, 1.6, (len(SHARES), 6))[truth] + generator.normal(0, 1, (size, 6))
    flipped = generator.random(size) < rate
    target = np.where(flipped, (truth + generator.integers(1, len(SHARES), size)) % len(SHARES), truth)
    model = LogisticRegression(max_iter=300)
    return target, cross_val_predict(model, features, target, cv=3, method="predict_proba"), flipped


@pytest.mark.parametrize("seed", range(3))
def test_most_wrong_labels_are_found_and_the_first_suspects_are_nearly_all_wrong(seed):
    target, probabilities, flipped = noisy(seed, 0.1)
    found = suspected_labels(target, probabilities)
    wrong = flipped[found["position"]]
    assert wrong.sum() > 0.8 * flipped.sum()
    assert wrong.mean() > 3 * flipped.mean()
    assert wrong[: flipped.sum() // 2].mean() > 0.85
    assert found["margin"].is_monotonic_increasing


def test_where_no_label_is_wrong_few_are_suspected():
    target, probabilities, _ = noisy(0, 0.0)
    assert len(suspected_labels(target, probabilities)) < 0.08 * len(target)


def test_each_suspect_comes_with_the_answer_and_its_margin():
    target, probabilities, _ = noisy(1, 0.1)
    found = suspected_labels(target, probabilities)
    of = probabilities[found["position"]]
    assert (found["suggested"] == of.argmax(1)).all()
    assert (found["suggested"] != target[found["position"]]).all()
    expected = of[np.arange(len(found)), target[found["position"]]] - of.max(1)
    np.testing.assert_allclose(found["margin"], expected)


@pytest.mark.parametrize("classes", [[2], [0, 2], [0, 1, 2]])
def test_few_images_or_classes_that_do_not_occur_are_no_error(classes):
    target = np.repeat(classes, 4)
    probabilities = np.full((len(target), 3), 0.05)
    probabilities[np.arange(len(target)), target] = 0.9
    assert len(suspected_labels(target, probabilities)) == 0

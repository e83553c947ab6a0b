"""The temperature, against simulations whose truth is known and an independent minimiser."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import log_loss

from trainer.evaluation.calibration import HIGHEST, PRIOR_WEIGHT, averaged, cross_entropy, fit_temperature


def simulated(count: int, temperature: float, seed: int = 0, views: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(logits, target): labels drawn from what the views say at that temperature."""
    generator = np.random.default_rng(seed)
    centre = generator.normal(0, 2, (1, count, 5))
    logits = centre + generator.normal(0, 0.5, (views, count, 5))
    probabilities = softmax(logits / temperature, axis=2).mean(0)
    target = (probabilities.cumsum(1) > generator.random((count, 1))).argmax(1)
    return logits, target


@pytest.mark.parametrize("views", [1, 2, 10])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_drew_the_labels_is_found(temperature, views):
    found = fit_temperature(*simulated(20_000, temperature, views=views))
    assert found == pytest.approx(temperature, rel=0.04)


def test_the_error_over_repeated_samples_is_not_biased():
    found = [fit_temperature(*simulated(1_000, 1.6, seed)) for seed in range(40)]
    standard_error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - 1.6) < 3 * standard_error + 0.02


@pytest.mark.parametrize("count", [10, 25, 100])
def test_few_images_make_the_probabilities_no_worse_than_none(count):
    """Without a mistake among them, the cross-entropy alone would take each answer for certain."""
    with_fit, without = [], []
    for seed in range(100):
        logits, target = simulated(count, 1.0, seed)
        others, their_target = simulated(2_000, 1.0, 1_000 + seed)
        with_fit.append(cross_entropy(others, their_target, fit_temperature(logits, target)))
        without.append(cross_entropy(others, their_target, 1.0))
    assert np.mean(with_fit) < np.mean(without) + 0.05
    sure = np.eye(5)[None, np.arange(5)] * 3.0  # five images, each answered rightly
    assert 0.4 < fit_temperature(sure, np.arange(5)) < 1.0


def test_it_is_the_minimum_that_pytorch_finds():
    logits, target = simulated(2_000, 1.7)
    parameter = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameter], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        scaled = torch.from_numpy(logits[0]) / parameter.exp()
        loss = torch.nn.functional.cross_entropy(scaled, torch.from_numpy(target))
        loss = loss + PRIOR_WEIGHT * parameter.square().sum() / len(target)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert fit_temperature(logits, target) == pytest.approx(parameter.exp().item(), rel=1e-3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_cross_entropy_is_that_of_scikit_learn_on_the_averaged_probabilities(temperature):
    logits, target = simulated(300, 1.0, views=4)
    mean = softmax(logits / temperature, axis=2).mean(0)
    expected = log_loss(target, mean, labels=range(5))
    assert cross_entropy(logits, target, temperature) == pytest.approx(expected)
    np.testing.assert_allclose(averaged(logits, temperature), mean, atol=1e-7)


def test_extreme_logits_end_at_the_bounds_and_nothing_to_fit_is_1():
    target = np.array([0, 1])
    right = np.eye(5)[None, target] * 1e4  # every temperature is as good
    assert fit_temperature(right, target) == pytest.approx(1.0, abs=1e-3)
    wrong = np.eye(5)[None, target + 1] * 1e4
    assert fit_temperature(wrong, target) == pytest.approx(HIGHEST, rel=0.01)
    assert fit_temperature(np.empty((2, 0, 5)), np.empty(0, int)) == 1.0

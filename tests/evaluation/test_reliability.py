"""Calibration, coverage and their chance levels, against scikit-learn, the textbook and simulations."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from trainer.evaluation.metrics import ECE_BINS, brier, expected_calibration_error
from trainer.evaluation.reliability import (
    brier_decomposition,
    chance_error,
    coverage_curve,
    error_difference,
    measure,
    reliability_table,
    surer_than,
    surest,
)
from trainer.evaluation.statistics import wilson


def calibrated(size: int, seed: int = 0, num_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """(target, probabilities): labels are drawn from the probabilities."""
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(num_classes, 0.6), size)
    return drawn(probabilities, generator), probabilities


def drawn(probabilities: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return (
        (probabilities.cumsum(1) < generator.random((len(probabilities), 1)))
        .sum(1)
        .clip(max=probabilities.shape[1] - 1)
    )


def test_the_diagram_has_the_points_of_scikit_learn():
    target, probabilities = calibrated(15 * 40)
    table = reliability_table(target, probabilities)
    right = probabilities.argmax(1) == target
    accuracy, confidence = calibration_curve(
        right, probabilities.max(1), n_bins=ECE_BINS, strategy="quantile"
    )
    np.testing.assert_allclose(table["accuracy"], accuracy)
    np.testing.assert_allclose(table["confidence"], confidence)
    assert table["images"].tolist() == [40] * ECE_BINS


@pytest.mark.parametrize("size", [4, 100, 613])
def test_the_gaps_of_the_diagram_average_to_the_calibration_error(size: int):
    target, probabilities = calibrated(size)
    table = reliability_table(target, probabilities)
    gaps = (table["confidence"] - table["accuracy"]).abs()
    error = expected_calibration_error(target, probabilities)
    assert (gaps * table["images"]).sum() / size == pytest.approx(error)
    assert table["images"].sum() == size
    assert table["images"].max() - table["images"].min() <= 1
    assert (table["lowest"] <= table["confidence"]).all()
    assert (table["highest"].shift() <= table["lowest"]).iloc[1:].all()
    low, high = wilson((table["accuracy"] * table["images"]).round().to_numpy(), table["images"].to_numpy())
    np.testing.assert_allclose(table[["low", "high"]], np.stack([low, high], axis=1))


@pytest.mark.parametrize("bins", [1, 7, ECE_BINS, 400])
@pytest.mark.parametrize("size", [1, 10, 300])
def test_the_parts_of_the_brier_score_add_up_to_it_whatever_the_bins(size: int, bins: int):
    target, probabilities = calibrated(size, seed=size)
    parts = brier_decomposition(target, probabilities, bins).sum()
    score = parts["reliability"] - parts["resolution"] + parts["uncertainty"]
    theirs = sklearn_metrics.brier_score_loss(target, probabilities, labels=range(4), scale_by_half=False)
    assert score == pytest.approx(theirs, abs=1e-12)
    assert score == pytest.approx(brier(target, probabilities), abs=1e-12)


def test_where_a_bin_holds_one_probability_the_parts_are_murphys():
    said = np.repeat([0.1, 0.5, 0.8], 40)
    target = np.concatenate(
        [np.repeat([1, 0], [8, 32]), np.repeat([1, 0], [20, 20]), np.repeat([1, 0], [36, 4])]
    )
    rates, rate = np.array([0.2, 0.5, 0.9]), 64 / 120
    parts = brier_decomposition(target, np.stack([1 - said, said], axis=1), 3)
    # Murphy, J. Applied Meteorology 12 (1973), 595–600, for the class; the other class mirrors it.
    np.testing.assert_allclose(parts["reliability"], ((np.array([0.1, 0.5, 0.8]) - rates) ** 2).mean())
    np.testing.assert_allclose(parts["resolution"], ((rates - rate) ** 2).mean())
    np.testing.assert_allclose(parts["uncertainty"], rate * (1 - rate))


def test_nothing_depends_on_the_order_of_images_also_where_many_are_equally_sure():
    target, probabilities = calibrated(613)
    said, other = (np.round(p * 8) / 8 for p in (probabilities, probabilities[:, ::-1]))
    order = np.lexsort((probabilities.argmax(1) == target, target))
    found, again = measure(target, said), measure(target[order], said[order])
    for name in ("error", "by_chance", "at_most", "brier"):
        assert getattr(again, name) == pytest.approx(getattr(found, name), abs=1e-12), name
    pd.testing.assert_frame_equal(again.bins, found.bins)
    assert found.brier_score == pytest.approx(brier(target, said), abs=1e-12)
    first, second = (error_difference(target[i], said[i], other[i]) for i in (np.arange(613), order))
    assert (second.value, second.high) == pytest.approx((first.value, first.high), abs=1e-3)
    assert second.value == pytest.approx(first.value, abs=1e-12)


def test_chance_alone_gives_as_much_to_a_model_that_is_always_equally_sure():
    generator = np.random.default_rng(0)
    probabilities = np.tile([0.6, 0.3, 0.1], (900, 1))
    errors = [expected_calibration_error(drawn(probabilities, generator), probabilities) for _ in range(1000)]
    mean, at_most = chance_error(probabilities)
    assert np.mean(errors) == pytest.approx(mean, rel=0.05)
    assert 0.92 <= np.mean(np.array(errors) <= at_most) <= 0.97


def test_chance_alone_gives_a_calibrated_model_the_error_that_is_told():
    _, probabilities = calibrated(1500)
    generator = np.random.default_rng(0)
    errors = [expected_calibration_error(drawn(probabilities, generator), probabilities) for _ in range(1000)]
    mean, at_most = chance_error(probabilities)
    assert np.mean(errors) == pytest.approx(mean, rel=0.02)
    assert 0.93 <= np.mean(np.array(errors) <= at_most) <= 0.97


def test_the_surest_answers_are_those_above_a_threshold():
    target, probabilities = calibrated(200)
    curve, confidence = coverage_curve(target, probabilities), probabilities.max(1)
    right = probabilities.argmax(1) == target
    for _, row in curve.iloc[::20].iterrows():
        answered = confidence >= row["threshold"]
        assert (row["images"], row["right"]) == (answered.sum(), right[answered].sum())
        assert row["coverage"] == answered.mean()
        assert row["accuracy"] == right[answered].mean()
    assert curve.iloc[-1]["coverage"] == 1.0
    found = surest(curve, 0.8)
    assert (found.images, found.coverage, found.size) == (160, 0.8, 200)
    assert (confidence >= found.threshold).sum() == 160
    sure = surer_than(curve, 0.5)
    assert sure.images == (confidence >= 0.5).sum()
    assert sure.accuracy == right[confidence >= 0.5].mean()
    assert sure.interval == tuple(map(float, wilson(sure.right, sure.images)))


def test_equally_sure_answers_are_given_together():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.6, 0.4]])
    curve = coverage_curve(np.array([0, 0, 1, 1]), probabilities)
    assert curve["images"].tolist() == [1, 4]
    assert surest(curve, 0.5).coverage == 1.0
    assert surest(curve, 0.25).accuracy == 1.0


def test_nobody_answers_above_the_highest_confidence_and_nothing_is_told_without_images():
    target, probabilities = np.array([0, 1]), np.array([[0.6, 0.4], [0.6, 0.4]])
    none = surer_than(coverage_curve(target, probabilities), 0.7)
    assert (none.images, none.coverage) == (0, 0.0)
    assert math.isnan(none.accuracy)
    empty = measure(np.empty(0, np.int64), np.empty((0, 3)))
    assert np.isnan([empty.error, empty.by_chance, empty.at_most, empty.brier_score]).all()
    assert empty.bins.empty
    assert empty.curve.empty
    assert math.isnan(surest(empty.curve, 0.8).accuracy)
    assert math.isnan(surer_than(empty.curve, 0.5).coverage)


def sharpened(
    probabilities: np.ndarray, power: float, generator: np.random.Generator, noise: float = 0.3
) -> np.ndarray:
    """Answers of a model that knows these true probabilities roughly, and is too sure of them where power is over 1."""
    known = probabilities**power * np.exp(generator.normal(0, noise, probabilities.shape))
    return known / known.sum(1, keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("power_a", "power_b", "noise", "least"),
    [
        (0.9, 1.6, 0.3, 0.93), (0.9, 0.9, 0.3, 0.93), (1.4, 2.0, 0.3, 0.93), (1.2, 1.2, 0.3, 0.93),
        (1.0, 1.3, 0.3, 0.93), (1.0, 1.1, 0.1, 0.93), (1.0, 1.3, 0.1, 0.93),
        (0.8, 1.3, 0.3, 0.9),  # errors of 0.020 and 0.074: the former is as large as what chance adds
    ],
)  # fmt: skip
def test_intervals_of_a_difference_of_calibration_errors_cover_that_of_endless_images(
    power_a: float, power_b: float, noise: float, least: float
):
    generator = np.random.default_rng(0)

    def answers(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        target, truth = calibrated(size, generator.integers(2**32))
        a, b = (sharpened(truth, power, generator, noise) for power in (power_a, power_b))
        return target, a, b

    target, a, b = answers(1_000_000)
    true = expected_calibration_error(target, b) - expected_calibration_error(target, a)
    found = [error_difference(*answers(3589), resamples=300) for _ in range(1000)]
    assert least <= np.mean([interval.low <= true <= interval.high for interval in found]) <= 0.98


def test_where_models_are_far_off_the_interval_is_that_of_images_drawn_anew():
    target, truth = calibrated(1500)
    generator = np.random.default_rng(0)
    a, b = (sharpened(truth, power, generator) for power in (3.0, 6.0))
    found = error_difference(target, a, b)
    images = generator.integers(0, 1500, (600, 1500))
    drawn = [
        expected_calibration_error(target[i], b[i]) - expected_calibration_error(target[i], a[i])
        for i in images
    ]
    assert found.value == pytest.approx(
        expected_calibration_error(target, b) - expected_calibration_error(target, a), rel=1e-3
    )
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.std(drawn), rel=0.1)


def test_a_model_is_calibrated_as_well_as_itself_and_swapping_flips_the_difference():
    target, a = calibrated(300)
    b = sharpened(a, 2.0, np.random.default_rng(0))
    same = error_difference(target, a, a)
    assert (same.value, same.low, same.high) == pytest.approx((0, 0, 0), abs=1e-7)
    forth, back = error_difference(target, a, b), error_difference(target, b, a)
    assert forth.value == -back.value
    assert forth.low == pytest.approx(-back.high, abs=(forth.high - forth.low) / 15)
    assert np.isnan(error_difference(target[:0], a[:0], b[:0]).value)


def test_errors_that_are_the_same_on_every_image_have_a_difference_without_an_interval():
    target = np.zeros(40, np.int64)
    a, b = (np.tile(np.float32([sure, 1 - sure]), (40, 1)) for sure in (0.9, 0.7))
    found = error_difference(target, a, b)
    assert found.value == pytest.approx(0.2)
    assert np.isnan([found.low, found.high]).all()

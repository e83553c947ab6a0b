"""Intervals and tests against scipy and statsmodels, and their coverage where the truth is known."""

import gc
import math
import statistics

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats import contingency_tables
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from trainer.evaluation.metrics import class_metrics, confusion_matrix, evaluate
from trainer.evaluation.statistics import (
    RARE_IMAGES,
    Interval,
    bootstrap_differences,
    group_difference,
    holm,
    images_needed,
    joint_table,
    mcnemar,
    mean_difference,
    paired_difference,
    sampling_error,
    seed_difference,
    seed_spread,
    wilson,
)

SIMULATIONS = 1000


@st.composite
def discordances(draw):
    """(only_a, only_b, size) of two models over the same images, size at least 1."""
    size = draw(st.integers(1, 4000))
    only_a = draw(st.integers(0, size))
    return only_a, draw(st.integers(0, size - only_a)), size


@st.composite
def paired_answers(draw):
    """(target, preds_a, preds_b, K): some classes have no example, some are never predicted."""
    num_classes, size = draw(st.integers(2, 7)), draw(st.integers(1, 60))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    drawn = [draw(st.sets(st.integers(0, num_classes - 1), min_size=1)) for _ in range(3)]
    return *(generator.choice(sorted(classes), size) for classes in drawn), num_classes


def similar_answers(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth and the predictions of two fair models that mostly agree, of three classes."""
    generator = np.random.default_rng(seed)
    target = generator.choice(3, size, p=[0.5, 0.3, 0.2])
    preds_a = np.where(generator.random(size) < 0.6, target, generator.integers(0, 3, size))
    own_b = np.where(generator.random(size) < 0.7, target, generator.integers(0, 3, size))
    return target, preds_a, np.where(generator.random(size) < 0.7, preds_a, own_b)


def covers(low, high, truth) -> float:
    """The share of intervals that contain the truth."""
    return float(np.mean((np.asarray(low) <= truth) & (truth <= np.asarray(high))))


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 4000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1),
    st.sampled_from([0.8, 0.95, 0.99]),
)
def test_a_proportion_has_the_wilson_interval_of_statsmodels(counts, confidence):
    successes, trials = np.array(counts).T
    low, high = wilson(successes, trials, confidence)
    expected = proportion_confint(successes, trials, alpha=1 - confidence, method="wilson")
    np.testing.assert_allclose(low, expected[0], atol=1e-12)
    np.testing.assert_allclose(high, expected[1], atol=1e-12)
    share = successes / trials
    assert np.all((low >= 0) & (low <= share) & (share <= high) & (high <= 1))
    low_of_failures, high_of_failures = wilson(trials - successes, trials, confidence)
    np.testing.assert_allclose(low_of_failures, 1 - high, atol=1e-12)
    np.testing.assert_allclose(high_of_failures, 1 - low, atol=1e-12)


def test_a_proportion_of_nothing_has_no_interval():
    low, high = wilson(np.array([0, 1]), np.array([0, 2]))
    assert np.isnan([low[0], high[0]]).all()
    assert np.isfinite([low[1], high[1]]).all()


def test_successes_and_trials_broadcast():
    low, high = wilson(np.array([[0], [3]]), np.array([5, 10, 20]))
    assert low.shape == high.shape == (2, 3)
    assert (low[1, 0], high[1, 0]) == tuple(map(float, wilson(3, 5)))


@settings(deadline=None)
@given(discordances())
def test_mcnemar_is_the_exact_test_of_statsmodels(counts):
    only_a, only_b, size = counts
    expected = contingency_tables.mcnemar([[size - only_a - only_b, only_a], [only_b, 0]], exact=True).pvalue
    assert mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(only_a, only_b) == mcnemar(only_b, only_a)
    assert type(mcnemar(only_a, only_b)) is float


def test_mcnemar_takes_arrays():
    only_a, only_b = np.array([[6, 0], [16, 10]]), np.array([[16, 0], [6, 10]])
    found = mcnemar(only_a, only_b)
    # Cavo et al. 2012 in Fagerland, Lydersen, Laake, Statistical Analysis of Contingency Tables, ch. 8.
    np.testing.assert_allclose(found, [[0.052479, 1.0], [0.052479, 1.0]], atol=1e-6)


def test_models_that_never_differ_are_no_evidence():
    assert mcnemar(0, 0) == 1.0


def test_the_difference_of_a_textbook_has_the_interval_of_the_textbook():
    # Cavo et al. 2012, as above; the chapter and its R package contingencytables give four digits.
    found = paired_difference(only_a=16, only_b=6, size=161)
    assert found == pytest.approx((-0.0621, -0.1240, -0.0054), abs=5e-5)


@settings(deadline=None)
@given(discordances(), st.sampled_from([0.8, 0.95, 0.99]))
def test_swapping_the_models_flips_their_difference(counts, confidence):
    only_a, only_b, size = counts
    value, low, high = paired_difference(only_a, only_b, size, confidence)
    assert paired_difference(only_b, only_a, size, confidence) == (-value, -high, -low)
    assert value == (only_b - only_a) / size
    assert -1 <= low <= value <= high <= 1


@settings(deadline=None)
@given(discordances())
def test_the_difference_leaves_zero_out_where_mcnemars_score_test_rejects(counts):
    only_a, only_b, size = counts
    assume(only_a + only_b)
    score_test = contingency_tables.mcnemar([[0, only_a], [only_b, 0]], exact=False, correction=False)
    _, low, high = paired_difference(only_a, only_b, size)
    assert (low > 0 or high < 0) == (score_test.pvalue < 0.05)


def test_models_that_never_differ_may_still_differ_by_a_little():
    # Without discordance Tango's equation is size·d² = z²·d·(1 − d).
    z = stats.norm.ppf(0.975)
    limit = z**2 / (100 + z**2)
    assert paired_difference(0, 0, 100) == pytest.approx((0.0, -limit, limit), abs=1e-12)


def test_without_images_there_is_no_difference():
    assert np.isnan(paired_difference(0, 0, 0)).all()


@settings(deadline=None, max_examples=20)  # statsmodels takes 50 ms a call
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_holm_adjusts_as_statsmodels_does(p_values):
    adjusted = holm(np.array(p_values))
    gc.freeze()  # statsmodels collects garbage at each call: a second for all that other tests have imported
    expected = multipletests(p_values, method="holm")[1]
    gc.unfreeze()
    np.testing.assert_allclose(adjusted, expected, atol=1e-15)
    assert np.all((adjusted >= p_values) & (adjusted <= 1))


def test_holm_keeps_the_shape_and_does_not_count_what_is_missing():
    p_values = np.array([[[0.01, np.nan], [0.04, 0.03]]])
    np.testing.assert_allclose(holm(p_values), [[[0.03, np.nan], [0.06, 0.06]]])
    assert np.isnan(holm(np.full((2, 2), np.nan))).all()
    assert holm(np.empty(0)).shape == (0,)


@settings(deadline=None)
@given(paired_answers())
def test_the_joint_table_adds_up_to_both_confusion_matrices(answers):
    target, preds_a, preds_b, num_classes = answers
    table = joint_table(target, preds_a, preds_b, num_classes)
    assert table.shape == (num_classes,) * 3
    assert table.dtype == np.int64
    np.testing.assert_array_equal(table.sum(2), confusion_matrix(target, preds_a, num_classes))
    np.testing.assert_array_equal(table.sum(1), confusion_matrix(target, preds_b, num_classes))
    np.testing.assert_array_equal(
        table.sum(0), confusion_matrix(preds_a, preds_b, num_classes), err_msg="agreement"
    )


@settings(deadline=None)
@given(paired_answers())
def test_the_bootstrap_starts_from_the_differences_of_the_metrics(answers):
    target, preds_a, preds_b, num_classes = answers
    names = [f"class {index}" for index in range(num_classes)]
    a, b = (evaluate(target, np.eye(num_classes)[preds], names) for preds in (preds_a, preds_b))
    found = bootstrap_differences(joint_table(target, preds_a, preds_b, num_classes), resamples=20)
    assert list(found) == ["accuracy", "macro_recall", "macro_f1", "recall", "precision", "f1"]
    for name in ("accuracy", "macro_recall", "macro_f1"):
        interval = found[name]
        assert interval.value == pytest.approx(b.summary[name] - a.summary[name], abs=1e-12)
        assert -1 <= interval.low <= interval.high <= 1 or (math.isnan(interval.low) and interval.value)
    for name in ("recall", "precision", "f1"):
        values = [interval.value for interval in found[name]]
        np.testing.assert_allclose(values, b.per_class[name] - a.per_class[name], atol=1e-12)
        for interval in found[name]:
            assert -1 <= interval.low <= interval.high <= 1 or (math.isnan(interval.low) and interval.value)
            assert math.isnan(interval.low) == math.isnan(interval.high) >= math.isnan(interval.value)


def test_swapping_the_models_flips_the_bootstrap_up_to_its_draws():
    table = joint_table(*similar_answers(400), 3)
    found, swapped = bootstrap_differences(table), bootstrap_differences(table.transpose(0, 2, 1))
    for name in ("accuracy", "macro_recall", "macro_f1"):
        width = found[name].high - found[name].low
        assert swapped[name].value == -found[name].value
        assert swapped[name].low == pytest.approx(-found[name].high, abs=width / 15)
        assert swapped[name].high == pytest.approx(-found[name].low, abs=width / 15)


def test_resampling_the_table_is_resampling_the_images():
    target, preds_a, preds_b = similar_answers(1500)
    table = joint_table(target, preds_a, preds_b, 3)
    assert 0 < table.min() <= RARE_IMAGES < table.max()  # both ways of drawing a cell

    def figures(preds, images):
        per_class = class_metrics(confusion_matrix(target[images], preds[images], 3))
        return np.array([per_class["f1"].mean(), per_class["precision"][2], per_class["recall"][1]])

    found = bootstrap_differences(table, resamples=4000)
    expected = stats.bootstrap(
        (np.arange(1500),),
        lambda images: figures(preds_b, images) - figures(preds_a, images),
        n_resamples=4000,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    ours = [found["macro_f1"], found["precision"][2], found["recall"][1]]
    for interval, low, high in zip(ours, expected.low, expected.high, strict=True):
        assert interval.low == pytest.approx(low, abs=(high - low) / 15)
        assert interval.high == pytest.approx(high, abs=(high - low) / 15)


def test_the_bootstrap_repeats_itself():
    table = joint_table(*similar_answers(200), 3)
    assert bootstrap_differences(table, seed=1) == bootstrap_differences(table, seed=1)
    assert bootstrap_differences(table, seed=1) != bootstrap_differences(table, seed=2)


def test_models_that_never_disagree_have_no_difference_in_any_resample():
    target, preds, _ = similar_answers(200)
    found = bootstrap_differences(joint_table(target, preds, preds, 3))
    for name in ("recall", "precision", "f1"):
        assert found[name] == [Interval(0.0, 0.0, 0.0)] * 3
    assert found["accuracy"] == found["macro_f1"] == Interval(0.0, 0.0, 0.0)


def test_a_class_that_one_model_never_predicts_has_no_difference_of_precision():
    target, preds_a, preds_b = np.array([0, 1, 2, 2]), np.array([0, 1, 0, 1]), np.array([0, 1, 2, 2])
    found = bootstrap_differences(joint_table(target, preds_a, preds_b, 4))
    assert [math.isnan(interval.value) for interval in found["precision"]] == [False, False, True, True]
    assert [math.isnan(interval.low) for interval in found["precision"]] == [False, False, True, True]
    assert [math.isnan(interval.value) for interval in found["recall"]] == [False, False, False, True]
    assert found["recall"][2].value == 1.0
    assert np.isnan(
        [found["recall"][2].low, found["recall"][2].high]
    ).all()  # no resample can show anything else


def test_a_table_without_images_has_no_differences():
    found = bootstrap_differences(np.zeros((3, 3, 3), np.int64))
    for interval in (found["accuracy"], found["macro_recall"], found["macro_f1"], *found["f1"]):
        assert np.isnan([interval.value, interval.low, interval.high]).all()


@settings(deadline=None)
@given(
    st.integers(2, 200),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.8, 0.95, 0.99]),
)
def test_a_mean_difference_has_the_interval_of_the_paired_t_test(size, seed, confidence):
    values_a, values_b = np.random.default_rng(seed).exponential(size=(2, size))
    found = mean_difference(values_a, values_b, confidence)
    expected = stats.ttest_rel(values_b, values_a).confidence_interval(confidence)
    assert found.value == pytest.approx((values_b - values_a).mean(), abs=1e-12)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert mean_difference(values_b, values_a, confidence) == Interval(-found.value, -found.high, -found.low)


def test_one_image_has_a_difference_without_an_interval_and_none_has_neither():
    one, none = mean_difference([1.0], [3.0]), mean_difference([], [])
    assert one.value == 2.0
    assert np.isnan([one.low, one.high]).all()
    assert np.isnan([none.value, none.low, none.high]).all()


def test_values_that_all_differ_by_the_same_have_a_difference_without_an_interval():
    values = np.linspace(0.1, 0.7, 7)
    found, same = mean_difference(values, values + 0.2), mean_difference(values, values)
    assert found.value == pytest.approx(0.2)
    assert np.isnan([found.low, found.high]).all()
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_the_images_needed_are_those_of_connors_formula():
    # powerandsamplesize.com, "McNemar's Z-test, 2-Sided Equality", cites Connor, page 209.
    assert images_needed(only_a=45, only_b=5, size=100) == 23
    assert images_needed(only_a=5, only_b=45, size=100) == 23


def chance_that_mcnemar_rejects(rate_a: float, rate_b: float, size: int) -> float:
    """Exact power at 5%, over all numbers of discordant images and of those that A won."""
    discordant = np.arange(size + 1)
    won_by_a = np.arange(size + 1)[:, np.newaxis]
    with np.errstate(invalid="ignore"):
        rejected = (won_by_a <= discordant) & (mcnemar(won_by_a, np.maximum(discordant - won_by_a, 0)) < 0.05)
        split = stats.binom.pmf(won_by_a, discordant, rate_a / (rate_a + rate_b))
    power = (rejected * split).sum(0)
    return float((power * stats.binom.pmf(discordant, size, rate_a + rate_b)).sum())


@pytest.mark.parametrize(("only_a", "only_b", "power"), [(5, 20, 0.8), (20, 35, 0.8), (10, 22, 0.9)])
def test_with_the_images_needed_mcnemar_has_about_the_power(only_a, only_b, power):
    size = images_needed(only_a, only_b, 100, power)
    assert chance_that_mcnemar_rejects(only_a / 100, only_b / 100, size) == pytest.approx(power, abs=0.05)


@settings(deadline=None)
@given(discordances())
def test_more_power_and_more_confidence_need_more_images(counts):
    only_a, only_b, size = counts
    assume(only_a != only_b)
    assert images_needed(only_a, only_b, size) >= 1
    assert images_needed(only_a, only_b, size, power=0.9) >= images_needed(only_a, only_b, size)
    assert images_needed(only_a, only_b, size, confidence=0.99) >= images_needed(only_a, only_b, size)


def test_no_number_of_images_shows_a_difference_of_zero():
    assert images_needed(7, 7, 100) is None
    assert images_needed(0, 0, 0) is None


def test_the_spread_of_seeds_is_the_sample_standard_deviation():
    values = [0.61, 0.64, 0.6, 0.66]
    assert seed_spread(values) == pytest.approx((statistics.mean(values), statistics.stdev(values)))
    assert seed_spread([0.5])[0] == 0.5
    assert math.isnan(seed_spread([0.5])[1])
    assert np.isnan(seed_spread([])).all()


def test_a_difference_between_seeds_has_the_interval_of_welchs_t_test():
    a, b = [0.61, 0.64, 0.6], [0.66, 0.652, 0.655, 0.67]
    found = seed_difference(a, b)
    expected = stats.ttest_ind(b, a, equal_var=False).confidence_interval()
    assert found.value == pytest.approx(np.mean(b) - np.mean(a))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    for few in (seed_difference([0.6], b), seed_difference([0.6, 0.6], [0.7, 0.7])):
        assert few.value > 0
        assert np.isnan([few.low, few.high]).all()


def test_the_sampling_error_is_that_of_a_binomial_share():
    assert sampling_error(0.73, 3589) == pytest.approx(stats.binom(3589, 0.73).std() / 3589)
    assert math.isnan(sampling_error(0.5, 0))


@pytest.mark.parametrize(("share", "trials"), [(0.05, 100), (0.4, 55), (0.7, 3589), (0.98, 400)])
def test_wilson_intervals_cover_the_truth(share, trials):
    successes = np.random.default_rng(0).binomial(trials, share, SIMULATIONS)
    assert 0.93 <= covers(*wilson(successes, trials), share) <= 0.97


@pytest.mark.parametrize(("trials", "least", "most"), [(5, 0.89, 1), (16, 0.92, 0.985), (55, 0.93, 0.97)])
def test_wilson_intervals_of_few_trials_cover_exactly_what_is_told(trials, least, most):
    shares, successes = np.linspace(0.1, 0.9, 161)[:, np.newaxis], np.arange(trials + 1)
    low, high = wilson(successes, trials)
    covered = (stats.binom.pmf(successes, trials, shares) * ((low <= shares) & (shares <= high))).sum(1)
    assert least <= covered.min()
    assert covered.max() <= most


@pytest.mark.parametrize(
    ("rate_a", "rate_b", "size"),
    [(0.2, 0.1, 16), (0.2, 0.1, 40), (0.1, 0.1, 100), (0.01, 0.03, 300), (0.08, 0.1, 3589)],
)
def test_intervals_of_a_paired_difference_cover_the_truth(rate_a, rate_b, size):
    rates = [rate_a, rate_b, 1 - rate_a - rate_b]
    counts = np.random.default_rng(0).multinomial(size, rates, SIMULATIONS)
    intervals = np.array([paired_difference(int(a), int(b), size) for a, b, _ in counts])
    assert 0.93 <= covers(intervals[:, 1], intervals[:, 2], rate_b - rate_a) <= 0.97


@pytest.mark.slow
def test_bootstrap_intervals_cover_the_truth():
    population = joint_table(*similar_answers(100_000), 3)
    truth = bootstrap_differences(population, resamples=1)
    shares = population.ravel() / population.sum()
    tables = np.random.default_rng(0).multinomial(1500, shares, SIMULATIONS).reshape(-1, 3, 3, 3)
    found = [bootstrap_differences(table, resamples=400, seed=seed) for seed, table in enumerate(tables)]
    for name in ("accuracy", "macro_recall", "macro_f1"):
        low, high = zip(*((each[name].low, each[name].high) for each in found), strict=True)
        assert 0.93 <= covers(low, high, truth[name].value) <= 0.97, name
    for name in ("recall", "precision", "f1"):
        low, high = zip(*((each[name][1].low, each[name][1].high) for each in found), strict=True)
        assert 0.93 <= covers(low, high, truth[name][1].value) <= 0.97, name


@pytest.mark.parametrize(("skew", "size"), [(0.5, 40), (1.0, 300), (1.0, 3589)])
def test_intervals_of_a_mean_difference_cover_the_truth(skew, size):
    logs = np.random.default_rng(0).normal(0, skew, (SIMULATIONS, 2, size))
    losses = np.exp(logs + np.array([[0.1], [0.0]]))  # B loses a tenth less, of losses with a long tail
    found = [mean_difference(a, b) for a, b in losses]
    low, high = zip(*((interval.low, interval.high) for interval in found), strict=True)
    assert 0.93 <= covers(low, high, math.exp(skew**2 / 2) * (1 - math.exp(0.1))) <= 0.97


@pytest.mark.parametrize(
    ("seeds_a", "seeds_b", "deviation_b"),
    [(3, 3, 1.0), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((3, 5, 0.5), (10, 10, 3.0)))],
)
def test_intervals_of_a_difference_between_seeds_cover_the_truth(seeds_a, seeds_b, deviation_b):
    generator = np.random.default_rng(0)
    accuracies_a = generator.normal(0.68, 0.004, (SIMULATIONS, seeds_a))
    accuracies_b = generator.normal(0.69, 0.004 * deviation_b, (SIMULATIONS, seeds_b))
    found = [seed_difference(a, b) for a, b in zip(accuracies_a, accuracies_b, strict=True)]
    low, high = zip(*((interval.low, interval.high) for interval in found), strict=True)
    assert 0.93 <= covers(low, high, 0.01) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "own", "taste"), [(3, 0.03, 1.0), (5, 0.06, 1.0), (10, 0.15, 1.0), (10, 0.0, 0.5)]
)
def test_intervals_of_a_difference_between_groups_of_seeds_cover_the_truth_for_both_reasons(
    seeds, own, taste
):
    """Each configuration has images of its own taste, and each seed a level of its own; on average they are equal."""
    generator = np.random.default_rng(0)

    def answered() -> np.ndarray:
        configuration, seed = generator.normal(0, taste, 1000), generator.normal(0, own, (seeds, 1))
        return difficulty + configuration + seed + generator.normal(0, 0.5, (seeds, 1000)) > 0

    found = []
    for _ in range(SIMULATIONS):
        difficulty = generator.normal(0.9, 1.5, 1000)
        found.append(group_difference(answered(), answered()))
    low, high = zip(*((interval.low, interval.high) for interval in found), strict=True)
    assert 0.93 <= covers(low, high, 0) <= 0.99

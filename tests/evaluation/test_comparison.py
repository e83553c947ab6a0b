"""Two models on the same images: figures against independent ones, and sentences against what they must say."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics
from statsmodels.stats.contingency_tables import mcnemar

from tests.extra.odd_runs import predictions
from trainer.evaluation.comparison import (
    Predictions,
    compare,
    difference_matrix,
    same_images,
    seed_verdict,
    verdict,
)
from trainer.evaluation.metrics import prediction_table
from trainer.evaluation.statistics import images_needed, mean_difference, seed_difference

NAMES = ("angry", "disgust", "happy")


def answers(target: np.ndarray, preds: np.ndarray, names=NAMES) -> Predictions:
    """Predictions that are sure of `preds`."""
    probabilities = np.full((len(target), len(names)), 0.1 / (len(names) - 1), np.float32)
    probabilities[np.arange(len(target)), preds] = 0.9
    return Predictions(names, tuple(map(str, range(len(target)))), target, probabilities)


@pytest.fixture
def pair() -> tuple[Predictions, Predictions]:
    """B is right where A is, and more often."""
    generator = np.random.default_rng(0)
    target = generator.integers(0, 3, 900)
    a = np.where(generator.random(900) < 0.6, target, (target + 1) % 3)
    b = np.where(generator.random(900) < 0.2, target, a)
    return answers(target, a), answers(target, b)


def test_predictions_come_back_from_the_table_that_a_run_logs():
    target, probabilities = np.array([2, 0]), np.array([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]], np.float32)
    table = prediction_table("test", ["x", "y"], target, probabilities, NAMES)
    found = Predictions.from_table(table)
    assert (found.class_names, found.sample_ids) == (NAMES, ("x", "y"))
    np.testing.assert_array_equal(found.target, target)
    np.testing.assert_array_equal(found.probabilities, probabilities)
    np.testing.assert_allclose(found.loss, -np.log([0.7, 0.5]), rtol=1e-6)


def test_a_part_without_predictions_and_an_unknown_label_are_refused():
    table = predictions(NAMES)
    with pytest.raises(ValueError, match="no predictions for private"):
        Predictions.from_table(table, "private")
    with pytest.raises(ValueError, match="the label fear is not among the classes"):
        Predictions.from_table(table.assign(label="fear"))


def test_the_figures_are_those_of_scikit_learn_and_statsmodels(pair):
    a, b = pair
    found = compare(a, b)
    metrics = found.metrics.set_index("metric")
    for column, run in (("a", a), ("b", b)):
        assert metrics.loc["accuracy", column] == sklearn_metrics.accuracy_score(run.target, run.preds)
        assert metrics.loc["macro_f1", column] == pytest.approx(
            sklearn_metrics.f1_score(run.target, run.preds, average="macro")
        )
        np.testing.assert_allclose(
            found.classes[column], sklearn_metrics.recall_score(run.target, run.preds, average=None)
        )
    assert found.both_right + found.only_a + found.only_b + found.both_wrong == found.size == 900
    table = [[found.both_right, found.only_a], [found.only_b, found.both_wrong]]
    assert found.p == pytest.approx(mcnemar(table, exact=True).pvalue)
    for name, row in metrics.iterrows():
        # That of ECE is told without what chance adds to each error.
        assert row["difference"] == pytest.approx(row["b"] - row["a"], abs=0.01 if name == "ece" else 1e-9), (
            name
        )
        assert row["low"] < row["difference"] < row["high"], name


def test_swapping_the_runs_turns_every_difference_around(pair):
    forth, back = compare(*pair), compare(*pair[::-1])
    np.testing.assert_allclose(forth.metrics["difference"], -back.metrics["difference"], atol=1e-12)
    np.testing.assert_allclose(forth.classes["low"], -back.classes["high"], atol=1e-9)
    assert forth.p == back.p


def test_a_run_does_not_differ_from_itself(pair):
    found = compare(pair[0], pair[0])
    assert (found.only_a, found.only_b, found.p) == (0, 0, 1.0)
    assert not found.classes["decided"].any()
    assert verdict(found, "A", "B").startswith("No difference in accuracy that 900 images can show")


def test_the_verdict_names_the_better_run_whichever_comes_first(pair):
    sentence = verdict(compare(*pair), "old", "new")
    gain = 100 * compare(*pair).accuracy.value
    assert sentence.startswith(f"new is better than old by {gain:.1f} points of accuracy (")
    assert "on the same 900 images" in sentence
    assert verdict(compare(*pair[::-1]), "new", "old").startswith(
        f"new is better than old by {gain:.1f} points"
    )


def test_the_verdict_tells_where_it_is_won_and_what_is_undecided():
    target = np.repeat([0, 1, 2], [400, 6, 400])
    a, b = target.copy(), target.copy()
    a[:100] = 2  # B finds a quarter more of angry …
    b[1:3] = 2
    a[400:403] = 0  # … and half more of six faces of disgust, which decides nothing
    sentence = verdict(compare(answers(target, a), answers(target, b)), "A", "B")
    assert "angry gains most (+24.5)" in sentence
    assert "disgust (6 images) and 1 more are undecided" in sentence


def test_a_small_difference_is_not_called_one_and_the_images_it_would_take_are_told():
    target = np.zeros(200, np.int64)
    a, b = target.copy(), target.copy()
    a[:5], b[5:8] = 1, 1
    sentence = verdict(compare(answers(target, a), answers(target, b)), "A", "B")
    assert sentence.startswith("No difference in accuracy that 200 images can show: B against A +1.0 (−")
    assert "would take about" in sentence


def test_no_fewer_images_are_asked_for_than_were_not_enough():
    target = np.zeros(5, np.int64)
    found = compare(answers(target, target + 1), answers(target, target))
    assert (found.p, images_needed(found.only_a, found.only_b, found.size)) == (0.0625, 4)
    assert verdict(found, "A", "B").startswith(
        "No difference in accuracy that 5 images can show: B against A +100.0 ("
    )
    assert "would take" not in verdict(found, "A", "B")


@pytest.mark.parametrize(("differing", "decided"), [(4, False), (19, False), (20, True)])
def test_few_images_that_tell_two_models_apart_decide_nothing_but_accuracy(differing: int, decided: bool):
    target = np.arange(3589) % 3
    a = target.copy()
    a[:differing] = (target[:differing] + 1) % 3  # B is right on all
    found = compare(answers(target, a), answers(target, target))
    assert (found.metrics["apart"] == differing).all()
    told = found.decided_metrics
    assert told.pop("accuracy") == (differing >= 6)  # as the exact test says
    assert (told == decided).all()


def test_the_same_answers_with_other_probabilities_differ_in_what_judges_these():
    target = np.arange(900) % 3
    preds = np.where(np.arange(900) % 4, target, (target + 1) % 3)
    a = answers(target, preds)
    b = Predictions(NAMES, a.sample_ids, target, np.where(a.probabilities > 0.5, 0.8, 0.1).astype(np.float32))
    found = compare(a, b)
    assert found.metrics["apart"].tolist() == [0, 0, 0, 900, 900, 900]
    assert found.decided_metrics.tolist() == [False, False, False, True, True, True]


def test_what_one_comparison_decides_one_of_many_does_not():
    target = np.arange(600) % 3
    a, b = target.copy(), target.copy()
    a[:30], b[30:43] = (target[:30] + 1) % 3, (target[30:43] + 1) % 3
    one = compare(answers(target, a), answers(target, b))
    many = replace(one, among=12)
    assert one.p == many.p == pytest.approx(0.0137, abs=1e-4)
    assert one.decided_metrics[["accuracy", "macro_recall", "log_loss", "brier"]].all()
    assert not many.decided_metrics.any()
    assert verdict(one, "A", "B").startswith("B is better than A")
    assert verdict(many, "A", "B").startswith(
        "No difference in accuracy that 600 images can show in one of 12 comparisons: B against A +2.8 (+0.7 to"
    )
    assert replace(one, among=3).decided_metrics["accuracy"]


def test_only_the_same_images_and_classes_are_compared(pair):
    a, _ = pair
    other_ids = Predictions(NAMES, tuple(f"x{i}" for i in range(900)), a.target, a.probabilities)
    assert "different images" in (same_images(a, other_ids) or "")
    other_names = Predictions(("a", "b", "c"), a.sample_ids, a.target, a.probabilities)
    assert "classes differ" in (same_images(a, other_names) or "")
    with pytest.raises(ValueError, match="cannot be compared"):
        compare(a, other_ids)


def test_a_run_that_answers_with_no_number_is_compared_as_wrong(pair):
    a, b = pair
    broken = Predictions(NAMES, a.sample_ids, a.target, np.full_like(a.probabilities, np.nan))
    found = compare(broken, b)
    assert (found.both_right, found.only_a, found.only_b) == (0, 0, (b.preds == b.target).sum())
    unknown = found.metrics.set_index("metric").loc[["log_loss", "brier", "ece"], ["difference", "low"]]
    assert np.isnan(unknown.to_numpy()).all()


def test_the_difference_matrix_counts_points_of_the_truth_and_marks_what_is_decided():
    target = np.repeat([0, 1], [100, 4])
    a, b = target.copy(), target.copy()
    b[:30] = 2  # B takes 30 of 100 angry faces for happy; disgust differs by one face
    b[100] = 0
    points, decided = difference_matrix(answers(target, a), answers(target, b))
    assert points[0].tolist() == [-30.0, 0.0, 30.0]
    assert points[1].tolist() == [25.0, -25.0, 0.0]
    assert np.isnan(points[2]).all()  # no happy face was tested
    assert decided.tolist() == [[True, False, True], [False] * 3, [False] * 3]


def seeds(accuracy: float, count: int, size: int = 2000, seed: int = 0) -> list[Predictions]:
    """Runs of one configuration, which mostly agree."""
    generator = np.random.default_rng(seed)
    target = np.random.default_rng(9).integers(0, 3, size)
    hard = generator.random(size)
    noise = generator.normal(0, 0.05, (count, size))
    return [answers(target, np.where(hard + own < accuracy, target, (target + 1) % 3)) for own in noise]


def test_two_groups_of_seeds_are_told_apart_by_what_seeds_and_images_would_change_together():
    a, b = seeds(0.60, 3), seeds(0.66, 2)
    found = seed_verdict(a, b, "old", "new")
    means = [np.mean([run.evaluation.summary["accuracy"] for run in group]) for group in (a, b)]
    gain = 100 * (means[1] - means[0])
    assert found.startswith(
        f"new is better than old by {gain:.1f} points of accuracy on the average of 2 and 3 seeds ("
    )
    accuracies = [[run.evaluation.summary["accuracy"] for run in group] for group in (a, b)]
    between = stats.ttest_ind(*accuracies[::-1], equal_var=False).confidence_interval()
    rights = [np.mean([run.preds == run.target for run in group], axis=0) for group in (a, b)]
    sampled = stats.ttest_rel(*rights[::-1]).confidence_interval()
    reach = 100 * np.hypot(*((ends.high - ends.low) / 2 for ends in (between, sampled)))
    assert f"({gain - reach:.1f} to {gain + reach:.1f}, for other seeds and images)" in found
    assert seed_verdict(b, a, "new", "old") == found


def test_what_leaves_out_zero_by_seeds_and_by_images_alone_may_be_chance_together():
    a = [seeds(accuracy, 1)[0] for accuracy in (0.58, 0.60, 0.62)]
    b = [seeds(accuracy, 1, seed=1)[0] for accuracy in (0.625, 0.645, 0.665)]
    rights = [np.stack([run.preds == run.target for run in group]) for group in (a, b)]
    assert seed_difference(*(right.mean(1) for right in rights)).low > 0
    assert mean_difference(*(right.mean(0) for right in rights)).low > 0
    assert seed_verdict(a, b, "A", "B").startswith("No difference in accuracy that 3 and 3 seeds")


def test_two_groups_of_seeds_that_seeds_or_images_may_explain_are_not_told_apart():
    a, b = seeds(0.60, 3, size=200), seeds(0.61, 3, size=200, seed=1)
    assert seed_verdict(a, b, "A", "B").startswith(
        "No difference in accuracy that 3 and 3 seeds on 200 images can show:"
    )
    assert "(what other seeds would change is not told)" in seed_verdict(a[:1], b[:1], "A", "B")
    with pytest.raises(ValueError, match="cannot be compared: they were tested on different images"):
        seed_verdict(a, seeds(0.6, 2, size=300), "A", "B")

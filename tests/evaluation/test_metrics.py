"""Metrics against scikit-learn and their textbook formulas."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from trainer.contract import CLASS_METRICS, SUMMARY_METRICS
from trainer.evaluation.metrics import (
    ECE_BINS,
    Evaluation,
    brier,
    class_metrics,
    confused_pairs,
    confusion_matrix,
    evaluate,
    expected_calibration_error,
    prediction_table,
    sample_loss,
)


@st.composite
def answers(draw):
    """(target, probabilities, K): some classes have no example, some are never predicted."""
    num_classes = draw(st.integers(2, 7))
    size = draw(st.integers(1, 80))
    classes = st.sets(st.integers(0, num_classes - 1), min_size=1)
    occurring, predictable = sorted(draw(classes)), sorted(draw(classes))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = generator.normal(size=(size, num_classes)) * draw(st.sampled_from([0.1, 1.0, 3.0]))
    logits[:, sorted(set(range(num_classes)) - set(predictable))] -= 15
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return generator.choice(occurring, size), probabilities, num_classes


@pytest.fixture(autouse=True)
def quiet_about_empty_classes():
    """scikit-learn warns of each class without examples; here they are wanted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def names(num_classes: int) -> list[str]:
    return [f"class {index}" for index in range(num_classes)]


def nearly(value: float):
    return pytest.approx(value, abs=1e-9, nan_ok=True)


@settings(deadline=None)
@given(answers())
@example((np.array([1, 1]), np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1]]), 3))
def test_the_summary_is_what_scikit_learn_computes(given_answers):
    target, probabilities, num_classes = given_answers
    preds, labels = probabilities.argmax(1), np.arange(num_classes)
    missing_is_nan = {"labels": labels, "average": "macro", "zero_division": np.nan}
    summary = evaluate(target, probabilities, names(num_classes)).summary
    assert tuple(summary) == SUMMARY_METRICS
    assert summary["accuracy"] == nearly(sklearn_metrics.accuracy_score(target, preds))
    assert summary["balanced_accuracy"] == nearly(sklearn_metrics.balanced_accuracy_score(target, preds))
    assert summary["macro_recall"] == summary["balanced_accuracy"]
    assert summary["macro_f1"] == nearly(sklearn_metrics.f1_score(target, preds, **missing_is_nan))
    assert summary["macro_precision"] == nearly(
        sklearn_metrics.precision_score(target, preds, **missing_is_nan)
    )
    clipped = np.clip(probabilities, 1e-12, 1)  # scikit-learn's own limit is another one
    assert summary["log_loss"] == pytest.approx(
        sklearn_metrics.log_loss(target, clipped, labels=labels), abs=1e-6
    )


@settings(deadline=None)
@given(answers())
def test_each_class_has_the_figures_of_scikit_learn_and_nan_where_it_has_none(given_answers):
    target, probabilities, num_classes = given_answers
    preds, labels = probabilities.argmax(1), np.arange(num_classes)
    found = evaluate(target, probabilities, names(num_classes))
    expected = sklearn_metrics.precision_recall_fscore_support(
        target, preds, labels=labels, zero_division=np.nan
    )
    assert tuple(found.per_class) == CLASS_METRICS
    for name, values in zip(CLASS_METRICS, expected, strict=True):
        np.testing.assert_allclose(found.per_class[name], values, atol=1e-12, err_msg=name)
        assert found.per_class[name].dtype == np.float64
    np.testing.assert_array_equal(
        found.confusion, sklearn_metrics.confusion_matrix(target, preds, labels=labels)
    )
    assert found.size == len(target)


@settings(deadline=None)
@given(answers())
def test_the_brier_score_is_the_squared_distance_to_the_one_hot_truth(given_answers):
    target, probabilities, num_classes = given_answers
    one_hot = np.eye(num_classes)[target]
    expected = np.mean([np.sum((p - o) ** 2) for p, o in zip(probabilities, one_hot, strict=True)])
    assert brier(target, probabilities) == nearly(expected)
    theirs = sklearn_metrics.brier_score_loss(
        target, probabilities, labels=np.arange(num_classes), scale_by_half=False
    )
    assert brier(target, probabilities) == nearly(theirs)


def calibration_error_by_hand(target, probabilities, bins):
    """Nixon et al., arXiv 1904.01685, in plain Python."""
    rows = sorted(
        ((max(row), int(np.argmax(row)) == label) for row, label in zip(probabilities, target, strict=True)),
        key=lambda pair: pair[0],
    )
    total, start = 0.0, 0
    for index in range(bins):
        stop = start + len(rows) // bins + (index < len(rows) % bins)
        members, start = rows[start:stop], stop
        if members:
            confidence = sum(pair[0] for pair in members) / len(members)
            accuracy = sum(pair[1] for pair in members) / len(members)
            total += len(members) / len(rows) * abs(confidence - accuracy)
    return total


@settings(deadline=None)
@given(answers(), st.integers(1, 20))
def test_the_calibration_error_averages_the_gaps_of_bins_of_equal_mass(given_answers, bins):
    target, probabilities, _ = given_answers
    assert expected_calibration_error(target, probabilities, bins) == nearly(
        calibration_error_by_hand(target, probabilities, bins)
    )


def test_the_summary_holds_the_calibration_error_over_fifteen_bins():
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(4), 200)
    target = generator.integers(0, 4, 200)
    assert ECE_BINS == 15
    assert evaluate(target, probabilities, names(4)).summary["ece"] == nearly(
        calibration_error_by_hand(target, probabilities, 15)
    )


def test_a_calibrated_model_has_no_calibration_error_and_an_overconfident_one_has_its_excess():
    probabilities = np.tile([0.75, 0.25], (400, 1))
    right_three_times_in_four = np.tile([0, 0, 0, 1], 100)
    assert expected_calibration_error(right_three_times_in_four, probabilities, 1) == nearly(0.0)
    right_once_in_four = np.tile([0, 1, 1, 1], 100)
    assert expected_calibration_error(right_once_in_four, probabilities, 1) == nearly(0.5)


def test_a_model_that_always_says_the_shares_is_calibrated_in_whatever_order_the_images_lie():
    target = np.repeat([0, 1, 2], [150, 90, 60])
    assert expected_calibration_error(target, np.tile([0.5, 0.3, 0.2], (300, 1))) == nearly(0.0)


def test_certain_and_wrong_is_the_worst_there_is():
    target, probabilities = np.array([0, 0]), np.array([[0.0, 1.0], [0.0, 1.0]])
    summary = evaluate(target, probabilities, names(2)).summary
    assert summary["brier"] == 2.0
    assert summary["ece"] == 1.0
    assert summary["log_loss"] == pytest.approx(12 * math.log(10))
    assert summary["accuracy"] == summary["macro_recall"] == 0.0


def test_certain_and_right_is_the_best_there_is():
    target = np.array([0, 1, 2, 2])
    summary = evaluate(target, np.eye(3)[target], names(3)).summary
    assert {name: summary[name] for name in ("brier", "ece", "log_loss")} == {
        "brier": 0,
        "ece": 0,
        "log_loss": 0,
    }
    assert {value for name, value in summary.items() if "acc" in name or "macro" in name} == {1.0}


def test_single_precision_gives_the_figures_of_double_precision():
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(7), 500)
    target = generator.integers(0, 7, 500)
    double = evaluate(target, probabilities, names(7)).summary
    single = evaluate(target, probabilities.astype(np.float32), names(7)).summary
    assert single == pytest.approx(double, abs=1e-6)


def test_a_class_without_examples_has_no_recall():
    found = class_metrics(np.array([[3, 1], [0, 0]]))
    assert math.isnan(found["recall"][1])
    assert found["precision"][1] == 0.0  # it was predicted once, wrongly
    assert found["f1"][1] == 0.0
    assert found["support"].tolist() == [4.0, 0.0]


def test_a_class_that_was_never_predicted_has_no_precision():
    found = class_metrics(np.array([[3, 0], [2, 0]]))
    assert math.isnan(found["precision"][1])
    assert found["recall"][1] == 0.0
    assert found["f1"][1] == 0.0


def test_a_class_that_neither_occurs_nor_is_predicted_has_no_f1_and_counts_in_no_mean():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.1, 0.9, 0.0]])
    found = evaluate(np.array([0, 1, 1]), probabilities, names(3))
    assert [math.isnan(found.per_class[name][2]) for name in ("precision", "recall", "f1")] == [True] * 3
    assert found.summary["macro_recall"] == nearly((1 + 1 / 2) / 2)
    assert found.summary["macro_precision"] == nearly((1 / 2 + 1) / 2)


def test_without_images_every_figure_is_missing_and_none_is_zero():
    found = evaluate(np.empty(0, np.int64), np.empty((0, 3)), names(3))
    assert all(math.isnan(value) for value in found.summary.values())
    assert found.confusion.tolist() == [[0] * 3] * 3
    assert found.size == 0


def test_an_answer_that_is_no_number_is_wrong_and_leaves_no_mean_over_the_images():
    target = np.array([0, 0, 1, 2])
    probabilities = np.eye(3)[target]
    probabilities[[0, 3]] = np.nan
    found = evaluate(target, probabilities, names(3))
    assert found.summary["accuracy"] == 0.5
    assert found.per_class["recall"].tolist() == [0.5, 1.0, 0.0]
    assert found.summary["macro_recall"] == 0.5
    assert all(math.isnan(found.summary[name]) for name in ("log_loss", "brier", "ece"))


def test_rows_of_the_confusion_matrix_are_the_truth():
    found = confusion_matrix(np.array([0, 0, 2]), np.array([1, 1, 0]), 3)
    assert found.tolist() == [[0, 2, 0], [0, 0, 0], [1, 0, 0]]
    assert found.dtype == np.int64


def test_the_loss_of_a_sample_is_in_nats_and_bounded():
    probabilities = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)
    found = sample_loss(np.array([0, 1]), probabilities)
    assert found == pytest.approx([math.log(4), -math.log(1e-12)])
    assert found.dtype == np.float64


def evaluation(confusion: list[list[int]], class_names: tuple[str, ...]) -> Evaluation:
    counts = np.array(confusion)
    return Evaluation(class_names, {}, class_metrics(counts), counts)


def test_confused_pairs_come_by_their_share_of_the_truth():
    counts = [[50, 30, 20], [0, 3, 1], [0, 0, 0]]
    table = confused_pairs(evaluation(counts, ("angry", "fear", "sad")))
    assert table.to_dict("records") == [
        {"truth": "angry", "prediction": "fear", "count": 30, "share": 0.3},
        {"truth": "fear", "prediction": "sad", "count": 1, "share": 0.25},
        {"truth": "angry", "prediction": "sad", "count": 20, "share": 0.2},
    ]


def test_a_perfect_model_confuses_no_pair():
    table = confused_pairs(evaluation([[2, 0], [0, 5]], ("angry", "sad")))
    assert list(table.columns) == ["truth", "prediction", "count", "share"]
    assert table.empty


def test_the_prediction_table_has_one_row_an_image_and_a_column_a_class():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])
    table = prediction_table(
        "test", ("a.png", "b.png"), np.array([0, 1]), probabilities, ("angry", "fear", "sad")
    )
    assert list(table.columns) == ["part", "sample_id", "label", "p_angry", "p_fear", "p_sad", "loss"]
    assert table["part"].tolist() == ["test", "test"]
    assert table["sample_id"].tolist() == ["a.png", "b.png"]
    assert table["label"].tolist() == ["angry", "fear"]
    np.testing.assert_allclose(table[["p_angry", "p_fear", "p_sad"]], probabilities, rtol=1e-6)
    np.testing.assert_allclose(table["loss"], [-math.log(0.7), math.log(4)], rtol=1e-6)


def test_the_prediction_table_keeps_its_types_through_parquet(tmp_path):
    class_names = ("angry", "sad")
    for size in (3, 0):
        target, probabilities = np.zeros(size, np.int64), np.full((size, 2), 0.5)
        ids = [f"test/{index}" for index in range(size)]
        table = prediction_table("validation", ids, target, probabilities, class_names)
        assert len(table) == size
        table.to_parquet(tmp_path / "predictions.parquet", index=False)
        read = pd.read_parquet(tmp_path / "predictions.parquet")
        assert list(read.columns) == list(table.columns)
        for found in (table, read):
            assert {str(found[name].dtype) for name in ("p_angry", "p_sad", "loss")} == {"float32"}
            for name in ("part", "sample_id", "label"):
                assert size == 0 or pd.api.types.is_string_dtype(found[name])

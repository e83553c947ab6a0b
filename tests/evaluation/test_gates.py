"""Promotion gates: what the file may say, and what each gate decides."""

import dataclasses
import math
import shutil

import numpy as np
import pytest

from trainer.evaluation.comparison import Comparison, Predictions, compare
from trainer.evaluation.gates import GATES_FILE, PYPROJECT_FILE, Gates, failed, judge, read_gates

pytestmark = pytest.mark.usefixtures("workplace")
NAMES = ("angry", "happy")
ROW = {
    "test_fingerprint": "abc", "test_accuracy": 0.7, "test_macro_recall": 0.65, "test_ece": 0.03, "robustness": 0.8,
    "latency_ms": 4.0,
    "size_bytes": 2e6, "recalls": {"angry": 0.5, "happy": 0.8},
}  # fmt: skip


def predictions(right: np.ndarray, target: np.ndarray) -> Predictions:
    """Of a model that is right where `right`, and sure of itself."""
    preds = np.where(right, target, 1 - target)
    probabilities = np.where(np.arange(2) == preds[:, None], 0.9, 0.1).astype(np.float32)
    return Predictions(NAMES, tuple(map(str, range(len(target)))), target, probabilities)


def comparison(gain_angry: int, gain_happy: int, size: int = 400) -> Comparison:
    """Of two models on `size` images of each class; the second is right on so many more of them."""
    target = np.repeat([0, 1], size)
    before = np.concatenate([np.arange(size) < size // 2] * 2)
    after = np.concatenate([np.arange(size) < size // 2 + gain for gain in (gain_angry, gain_happy)])
    return compare(predictions(before, target), predictions(after, target))


def never() -> Comparison:
    raise AssertionError("nothing is to be compared")


@pytest.mark.parametrize(
    ("limit", "value", "passed"),
    [
        ("minimum_accuracy", 0.7, True),
        ("minimum_accuracy", 0.71, False),
        ("minimum_macro_recall", 0.66, False),
        ("minimum_class_recall", 0.5, True),
        ("minimum_class_recall", 0.51, False),
        ("maximum_ece", 0.03, True),
        ("maximum_ece", 0.02, False),
        ("minimum_robustness", 0.8, True),
        ("minimum_robustness", 0.81, False),
        ("maximum_latency_ms", 3.9, False),
        ("maximum_size_mb", 2, True),
        ("maximum_size_mb", 1.9, False),
    ],
)
def test_a_limit_is_passed_where_it_is_met(limit: str, value: float, passed: bool):
    verdict, *others = judge(Gates(**{limit: value}), ROW, None, never)
    assert verdict.passed is passed
    assert f"{value:g}" in verdict.text
    assert all(other.passed for other in others)  # without a champion nothing is compared
    missing = {"recalls": {"angry": math.nan}}
    assert judge(Gates(**{limit: value}), missing, None, never)[0].passed is None


@pytest.mark.parametrize(
    ("limit", "row", "text"),
    [
        ({"minimum_accuracy": 0.65}, {"test_accuracy": 0.64996}, "0.64996; at least 0.65 is"),
        (
            {"minimum_class_recall": 0.4},
            {"recalls": {"fear": 0.3999}},
            "0.3999 for fear, the lowest; at least 0.4 is",
        ),
        ({"maximum_ece": 0.05}, {"test_ece": 0.0501}, "0.0501; at most 0.05 is"),
        ({"maximum_latency_ms": 20}, {"latency_ms": 20.04}, "20.04 ms; at most 20 ms is"),
        ({"minimum_accuracy": 0.65000001}, {"test_accuracy": 0.65}, "0.650; at least 0.65000001 is"),
    ],
)
def test_no_text_is_rounded_to_the_contrary_of_its_verdict(limit, row, text):
    [verdict, *_] = judge(Gates(**limit), ROW | row, None, never)
    assert verdict.passed is False
    assert verdict.text.startswith(text)


def test_the_weakest_class_is_named():
    [verdict, *_] = judge(Gates(minimum_class_recall=0.6), ROW, None, never)
    assert verdict.text == "0.500 for angry, the lowest; at least 0.6 is asked for"


def test_a_class_that_could_not_be_measured_is_named_and_does_not_pass():
    row = ROW | {"recalls": {"angry": math.nan, "happy": 0.8}}
    [verdict, *_] = judge(Gates(minimum_class_recall=0.6), row, None, never)
    assert verdict.passed is None
    assert verdict.text.startswith(
        "0.800 for happy, the lowest; at least 0.6 is asked for; that of angry was not"
    )
    [verdict, *_] = judge(Gates(minimum_class_recall=0.9), row, None, never)
    assert verdict.passed is False
    happy, right = np.ones(400, np.int64), np.arange(400) < 200
    found = compare(*(predictions(some, happy) for some in (right, right)))
    verdict = judge(Gates(), ROW, ROW, lambda: found)[-1]
    assert (verdict.passed, verdict.text) == (None, "no test image shows angry")
    found = compare(*(predictions(some, happy) for some in (right, right & (np.arange(400) < 100))))
    assert judge(Gates(), ROW, ROW, lambda: found)[-1].passed is False


def test_what_is_significantly_worse_does_not_pass():
    same, accuracy, recalls = judge(Gates(), ROW, ROW, lambda: comparison(-60, -60))
    assert (same.passed, accuracy.passed, recalls.passed) == (True, False, False)
    assert accuracy.text.startswith("significantly lower: −15.0 (")
    assert recalls.text == "significantly lower, in points: angry −15.0, happy −15.0"


def test_a_class_that_loses_is_found_behind_a_gain_in_accuracy():
    verdicts = judge(Gates(), ROW, ROW, lambda: comparison(-40, 120))
    assert failed(verdicts) == ["recalls against the champion"]
    assert verdicts[-1].text == "significantly lower, in points: angry −10.0"


def test_what_chance_can_do_passes():
    verdicts = judge(Gates(), ROW, ROW, lambda: comparison(-2, -2))
    assert not failed(verdicts)
    assert "no difference that can be shown" in verdicts[1].text


def test_other_test_images_cannot_be_compared():
    verdicts = judge(Gates(), ROW, ROW | {"test_fingerprint": "other"}, never)
    assert [verdict.passed for verdict in verdicts] == [False, None, None]
    unknown = judge(Gates(), {}, {}, never)
    assert [verdict.passed for verdict in unknown] == [False, None, None]


def test_predictions_that_are_gone_leave_the_comparison_open():
    def gone() -> Comparison:
        raise ValueError("it logged no predictions")

    verdicts = judge(Gates(), ROW, ROW, gone)
    assert [verdict.passed for verdict in verdicts] == [True, None, None]
    assert verdicts[1].text == "it logged no predictions"


def test_a_gate_that_is_switched_off_says_nothing():
    off = Gates(same_test_set=False, accuracy_not_worse=False, class_recall_not_worse=False)
    assert judge(off, ROW, ROW, lambda: comparison(-60, -60)) == []


def test_gates_are_read_from_their_own_file_or_from_pyproject(tmp_path, monkeypatch):
    assert read_gates(tmp_path) == Gates()
    (tmp_path / PYPROJECT_FILE).write_text("[project]\nname = 'x'\n")
    assert read_gates(tmp_path) == Gates()
    (tmp_path / PYPROJECT_FILE).write_text("[tool.moodify.gates]\nminimum_accuracy = 0.6\n")
    assert read_gates(tmp_path) == Gates(minimum_accuracy=0.6)
    (tmp_path / GATES_FILE).write_text("maximum_ece = 0.05\naccuracy_not_worse = false\n")
    assert read_gates(tmp_path) == Gates(maximum_ece=0.05, accuracy_not_worse=False)
    monkeypatch.setenv("MOODIFY_GATES", str(tmp_path / "other.toml"))
    with pytest.raises(ValueError, match=r"other\.toml cannot be read: "):
        read_gates(tmp_path)
    (tmp_path / "other.toml").write_text("maximum_size_mb = 4\n")
    assert read_gates(tmp_path) == Gates(maximum_size_mb=4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "minimum_acuracy = 0.6",
            "there is no gate 'minimum_acuracy'; there are same_test_set, accuracy_not_worse",
        ),
        ("maximum_size_mb = '4'", "maximum_size_mb = '4' is not a positive number"),
        ("maximum_size_mb = true", "maximum_size_mb = True is not a positive number"),
        ("maximum_size_mb = inf", "is not a positive number"),
        ("minimum_accuracy = '0.6'", "minimum_accuracy = '0.6' is not a share above 0 and at most 1"),
        ("minimum_accuracy = nan", "is not a share above 0 and at most 1"),
        ("minimum_accuracy = 65", "minimum_accuracy = 65 is not a share above 0 and at most 1"),
        ("minimum_macro_recall = 1.01", "is not a share above 0 and at most 1"),
        ("minimum_class_recall = 40", "is not a share above 0 and at most 1"),
        ("maximum_ece = 5", "maximum_ece = 5 is not a share above 0 and at most 1"),
        ("minimum_robustness = 70", "minimum_robustness = 70 is not a share above 0 and at most 2"),
        ("same_test_set = 1", "same_test_set = 1 is not true or false"),
        ("minimum_accuracy =", "cannot be read"),
    ],
)
def test_a_mistake_in_the_file_is_named_in_one_line(tmp_path, text: str, message: str):
    (tmp_path / GATES_FILE).write_text(text)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        read_gates(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / GATES_FILE))
    assert message in str(caught.value)
    (tmp_path / PYPROJECT_FILE).mkdir()  # a folder of that name is no file
    shutil.move(tmp_path / GATES_FILE, tmp_path / "elsewhere")
    assert read_gates(tmp_path) == Gates()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("tool = 3", "tool = 3"),
        ("tool.moodify = true", "moodify = True"),
        ("[tool.moodify]\ngates = 'gates.toml'", "gates = 'gates.toml'"),
        ("[[tool.moodify.gates]]\nminimum_accuracy = 0.6", "gates = [{'minimum_accuracy': 0.6}]"),
    ],
)
def test_gates_that_are_no_table_are_told_with_their_place(tmp_path, text: str, key: str):
    (tmp_path / PYPROJECT_FILE).write_text(text)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        read_gates(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / PYPROJECT_FILE}: {key} is no table; gates stand below [tool.moodify.gates]"
    )


def test_a_share_may_be_all_and_robustness_a_little_more(tmp_path):
    (tmp_path / GATES_FILE).write_text("minimum_accuracy = 1\nmaximum_ece = 1.0\nminimum_robustness = 1.02\n")
    assert read_gates(tmp_path) == Gates(minimum_accuracy=1, maximum_ece=1.0, minimum_robustness=1.02)


def test_every_gate_can_be_set_and_is_judged():
    for field in dataclasses.fields(Gates):
        value = True if field.type is bool else 0.5
        everything = {name.name: False for name in dataclasses.fields(Gates) if name.type is bool}
        gates = Gates(**everything | {field.name: value})
        assert len(judge(gates, ROW, ROW, lambda: comparison(0, 0))) == 1, field.name

"""Slices: who belongs to which, what is the slice's own, and what a user's file may hold."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import StratifiedTable

from trainer.evaluation.slices import (
    CONDITIONS,
    FEWEST_MARKED,
    MARKED,
    MARKED_FROM,
    NOT_MEASURED,
    UNMARKED,
    WATERMARK,
    Slices,
    adjusted_difference,
    by_condition,
    read_groups,
    recall_table,
    slice_table,
    worst_slice,
)

IDS = [f"test/angry/{i}.jpg" for i in range(9)]


def test_thirds_are_of_equal_size_and_what_was_not_measured_is_in_none():
    conditions = pd.DataFrame(
        {
            "sample_id": IDS[::-1],
            "brightness": np.arange(9.0),
            "face size": [1.0, 2, 3, np.nan, np.nan, 4, 5, 6, np.nan],
        }
    )
    found = by_condition(conditions, IDS)
    assert set(found.groupings) == {"brightness", "face size"}
    darkest, medium, brightest = CONDITIONS["brightness"]
    assert list(found.groupings["brightness"]) == [brightest] * 3 + [medium] * 3 + [darkest] * 3
    sizes = pd.Series(found.groupings["face size"]).value_counts().to_dict()
    assert sizes == {NOT_MEASURED: 3} | dict.fromkeys(CONDITIONS["face size"], 2)
    assert by_condition(conditions.assign(brightness=5.0), IDS).groupings.keys() == {"face size"}


def test_images_with_a_watermark_are_a_slice_where_there_are_enough():
    ids = [str(i) for i in range(100)]
    seen = np.where(np.arange(100) < FEWEST_MARKED, MARKED_FROM, 0.5)
    conditions = pd.DataFrame({"sample_id": ids, WATERMARK: seen})
    assert list(by_condition(conditions, ids).groupings[WATERMARK]) == [MARKED] * 20 + [UNMARKED] * 80
    assert not by_condition(conditions, ids[1:]).groupings
    conditions.loc[60:, WATERMARK] = np.nan
    labels = [MARKED] * 20 + [UNMARKED] * 40 + [NOT_MEASURED] * 40
    assert list(by_condition(conditions, ids).groupings[WATERMARK]) == labels
    conditions.loc[20 + FEWEST_MARKED - 1 :, WATERMARK] = np.nan  # the unknown ones are no others
    assert not by_condition(conditions, ids).groupings


def drawn(
    generator: np.random.Generator, size: int, effect: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three classes of different difficulty, the slice mainly of the hard one; in it `effect` more are right."""
    target = generator.choice(3, size, p=[0.6, 0.3, 0.1])
    inside = generator.random(size) < np.array([0.1, 0.5, 0.6])[target]
    right = generator.random(size) < np.array([0.9, 0.6, 0.5])[target] + effect * inside
    return target, right, inside


def test_a_slice_of_hard_classes_is_not_called_weak_for_that():
    target, right, inside = drawn(np.random.default_rng(0), 20_000, effect=0.0)
    assert right[inside].mean() - right[~inside].mean() < -0.15
    assert abs(adjusted_difference(target, right, inside)[0].value) < 0.02


def test_the_interval_covers_the_truth_and_the_test_agrees_with_statsmodels():
    generator = np.random.default_rng(1)
    covered, p_values = 0, []
    for _ in range(1000):
        target, right, inside = drawn(generator, 400, effect=-0.1)
        interval, p_value = adjusted_difference(target, right, inside)
        covered += interval.low <= -0.1 <= interval.high
        if len(p_values) < 50:
            tables = [
                [
                    [(right & chosen & (target == c)).sum(), (~right & chosen & (target == c)).sum()]
                    for chosen in (inside, ~inside)
                ]
                for c in range(3)
            ]
            theirs = StratifiedTable(np.array(tables, float).transpose(1, 2, 0)).test_null_odds().pvalue
            p_values.append((p_value, theirs))
    assert 930 <= covered <= 970
    ours, theirs = np.array(p_values).T
    difference = ours - theirs  # the exact test is more careful than the one that takes counts for normal
    assert -0.02 < difference.min() <= difference.max() < 0.12
    assert np.corrcoef(ours, theirs)[0, 1] > 0.99


def test_of_one_class_the_test_is_fishers():
    generator = np.random.default_rng(3)
    for size in (4, 12, 60):
        right, inside = generator.random(size) < 0.6, np.arange(size) % 3 == 0
        table = [
            [(inside & right).sum(), (inside & ~right).sum()],
            [(~inside & right).sum(), (~inside & ~right).sum()],
        ]
        found = adjusted_difference(np.zeros(size, int), right, inside)[1]
        assert found == pytest.approx(stats.fisher_exact(table).pvalue)


@pytest.mark.parametrize(("size", "p"), [(1, 0.35), (2, 0.1), (3, 0.04)])
def test_a_slice_of_a_few_wrong_answers_is_no_proof(size, p):
    target = np.zeros(500, int)
    right = np.arange(500) >= 175
    inside = np.arange(500) < size
    interval, p_value = adjusted_difference(target, right, inside)
    assert interval.value < -0.64
    assert np.isnan([interval.low, interval.high]).all()
    assert p_value >= p
    groups = np.where(inside, "few", "many").astype(object)
    table = slice_table(target, right, Slices({"group": groups, "none": np.full(500, "all", dtype=object)}))
    assert not table["decided"].any()


def test_what_is_decided_has_an_interval_without_zero():
    generator = np.random.default_rng(5)
    target = generator.integers(0, 3, 900)
    for effect in np.linspace(0.0, 0.2, 41):
        labels = generator.choice(np.array(["a", "b", "c", "d"], dtype=object), 900)
        right = generator.random(900) < np.where(labels == "a", 0.7 - effect, 0.7)
        table = slice_table(target, right, Slices({"group": labels}))
        decided = table[table["decided"]]
        assert ((decided["difference_low"] > 0) | (decided["difference_high"] < 0)).all()
        assert (decided["p"] < 0.05).all()


@pytest.mark.parametrize("seed", [79, 107])
def test_what_has_an_interval_around_zero_is_not_decided_though_its_p_is_low(seed):
    """The exact test and the approximate interval may differ where a slice is small."""
    generator = np.random.default_rng(seed)
    target = generator.integers(0, 3, 120)
    labels = generator.choice(np.array(["a", "b"], dtype=object), 120, p=[0.2, 0.8])
    right = generator.random(120) < np.where(labels == "a", 0.55, 0.8)
    table = slice_table(target, right, Slices({"group": labels}))
    assert (table["p"] < 0.05).any()
    assert ((table["difference_low"] <= 0) & (table["difference_high"] >= 0)).all()
    assert not table["decided"].any()


def test_of_a_users_grouping_that_is_named_like_a_condition_no_slice_is_lost():
    labels = np.array(["low", "medium", "high"] * 3, dtype=object)
    table = slice_table(np.zeros(9, int), np.arange(9) < 5, Slices({"brightness": labels}))
    assert list(table["slice"]) == ["medium", "high", "low"]


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (["10", "5", "20"], ["5", "10", "20"]),
        (["1.5", "-2", "1e1"], ["-2", "1.5", "1e1"]),
        (["10", "5", "unknown"], ["10", "5", "unknown"]),
        (["10", "5", "nan"], ["10", "5", "nan"]),
    ],
)
def test_groups_that_are_numbers_come_in_their_order(labels: list[str], order: list[str]):
    slices = Slices({"age": np.array(labels * 3, dtype=object)})
    assert list(slice_table(np.zeros(9, int), np.arange(9) < 5, slices)["slice"]) == order
    assert list(recall_table(np.zeros(9, int), np.arange(9) < 5, ("a",), slices)["slice"]) == order


def test_the_worst_slice_is_found_and_chance_is_not():
    generator = np.random.default_rng(2)
    target = generator.integers(0, 3, 3000)
    labels = generator.choice(np.array(["one", "two", "three"], dtype=object), 3000)
    right = generator.random(3000) < np.where(labels == "two", 0.55, 0.7)
    chance = generator.choice(np.array(["x", "y"], dtype=object), 3000)
    table = slice_table(target, right, Slices({"group": labels, "chance": chance}))
    assert list(table["slice"]) == ["one", "three", "two", "x", "y"]
    worst = worst_slice(table)
    assert worst is not None
    assert worst["slice"] == "two"
    assert worst["difference_low"] < -0.15 < worst["difference_high"] < 0
    assert not table[table["grouping"] == "chance"]["decided"].any()
    assert worst_slice(table[table["grouping"] == "chance"]) is None
    assert worst["accuracy"] == pytest.approx(right[labels == "two"].mean())
    recalls = recall_table(target, right, ("a", "b", "c"), Slices({"group": labels}))
    assert recalls.set_index("slice").at["two", "b"] == pytest.approx(
        right[(labels == "two") & (target == 1)].mean()
    )


def test_a_users_groups_are_read_and_what_is_no_such_file_is_told_in_a_line():
    text = "\ufeffsample_id,set,lab\n" + f"{IDS[0]},a,x\n{IDS[3]}, b ,\nelsewhere,a,y\n"
    found = read_groups(text, IDS)
    assert found.ignored == 1
    assert (found.groupings["set"][0], found.groupings["set"][3]) == ("a", "b")
    assert list(found.groupings["lab"][[0, 3]]) == ["x", NOT_MEASURED]
    for wrong, reason in (
        ("", "must be CSV with the column sample_id"),
        ("id,group\n1,a\n", "must be CSV with the column sample_id"),
        ("sample_id\nx\n", "must be CSV with the column sample_id"),
        ("sample_id,g\nnowhere,a\n", f"one of these is {IDS[0]}"),
        (f"sample_id,g\n{IDS[0]},\n{IDS[1]}, \n", "no test image has a value in the groups' column g"),
        (f"sample_id,g\n{IDS[0]},a\n{IDS[0]},b\n", "line 3 of the groups"),
        ('sample_id,g\n"open,a\n', "cannot be read as CSV"),
        ("sample_id," + ",".join(f"g{i}" for i in range(11)) + f"\n{IDS[0]}" + ",a" * 11, "11 groupings"),
    ):
        with pytest.raises(ValueError, match=reason):
            read_groups(wrong, IDS)

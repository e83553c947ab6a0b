"""What pages open with: each sentence says what its rounded figures say."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from dashboard import calibrations, recalls
from dashboard.robustness import robustness_sentence, robustness_table
from dashboard.selection import Chosen
from dashboard.weaknesses import class_text, slice_sentence
from trainer.evaluation.comparison import Predictions
from trainer.evaluation.reliability import measure
from trainer.evaluation.robustness import Robustness

CHOSEN = [Chosen(name, name, "#000000", "solid", "circle") for name in ("A", "B")]


def finds(fear: int) -> Predictions:
    """Of 1,000 faces of fear so many, and of as many happy ones all."""
    target = np.repeat([0, 1], 1000)
    preds = np.where(np.arange(2000) < 1000 - fear, 1, target)
    return Predictions(
        ("fear", "happy"), tuple(map(str, range(2000))), target, np.eye(2, dtype=np.float32)[preds]
    )


@pytest.mark.parametrize(("other", "end"), [(463, "no run exceeds 46%."), (472, "another run reaches 47%.")])
def test_a_run_does_not_reach_more_where_it_is_the_same_rounded(other: int, end: str):
    found = {"A": finds(460), "B": finds(other)}
    found["B"].evaluation.summary["macro_recall"] = 0.0  # by which the first is the best
    sentence = recalls.opening(found, CHOSEN)
    assert sentence.startswith("Fear is found in 46% of cases by A")
    assert sentence.endswith(end)


def test_a_recall_that_misses_some_is_not_called_all():
    found = {"A": finds(996), "B": finds(997)}
    found["B"].evaluation.summary["macro_recall"] = 0.0
    alone = recalls.opening({"A": found["A"]}, CHOSEN[:1]).replace("\\", "")
    assert alone == "Fear is found in >99% of cases, and is most often taken for happy."
    assert recalls.opening(found, CHOSEN).endswith("of cases by A, and is most often taken for happy.")
    found["B"] = finds(1000)
    found["B"].evaluation.summary["macro_recall"] = 0.0
    assert recalls.opening(found, CHOSEN).endswith("; another run reaches 100%.")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (0.0234, "2.34 points off on average, more than chance explains (up to 2.31 on"),
        (0.0222, "2.2 points off on average, no more than chance explains (up to 2.3 on"),
    ],
)
def test_an_error_and_what_chance_explains_are_told_apart(error: float, words: str):
    answers = finds(460)
    found = dataclasses.replace(measure(answers.target, answers.probabilities), error=error, at_most=0.0231)
    assert words in calibrations.opening("A", found, None)


def test_of_answers_that_are_no_numbers_no_error_is_told():
    answers = finds(460)
    found = dataclasses.replace(
        measure(answers.target, answers.probabilities), error=float("nan"), at_most=float("nan")
    )
    assert calibrations.opening("A", found, None) == (
        "How far the probabilities of A are off cannot be told: some are no numbers."
    )


def test_a_classs_name_keeps_its_letters():
    found = {"A": dataclasses.replace(finds(460), class_names=("aU12", "happy"))}
    assert recalls.opening(found, CHOSEN[:1]).startswith("AU12 is found in 46% of cases")


def test_the_weakest_slice_is_the_one_that_lies_farthest_below_and_is_decided():
    rows = [
        ("blur", "sharpest", 0.4, -0.3, False),
        ("size", "smallest", 0.6, -0.1, True),
        ("size", "largest", 0.5, -0.2, True),
    ]
    table = pd.DataFrame(rows, columns=["grouping", "slice", "accuracy", "difference", "decided"])
    low, high = table["difference"] - 0.05, table["difference"] + 0.05
    table = table.assign(images=1200, difference_low=low, difference_high=high)
    assert slice_sentence({"A": table}, CHOSEN[:1]).replace("\\", "") == (
        "A is weakest in the slice “largest” (by size): 50% of its 1,200 images are right, 20.0 points (15.0 to 25.0) "
        "fewer than of other images of the same classes."
    )


def test_classes_without_images_have_dashes_and_a_star_stands_where_it_is_decided():
    nothing = float("nan")
    rows = [("happy", 1200, 0.5, 0.4, -0.1, -0.15, -0.05, 0.01, True), ("sad", 0, *[nothing] * 6, False)]
    columns = ["class", "support", "a", "b", "difference", "low", "high", "p", "decided"]
    table = class_text(pd.DataFrame(rows, columns=columns), "A", "B")
    assert list(table.columns[2:5]) == ["difference (points)", "recall A (%)", "recall B (%)"]
    assert list(table.iloc[0]) == ["happy", "1,200", "−10.0 (−15.0 to −5.0) *", "50.0", "40.0", "0.010"]
    assert list(table.iloc[1]) == ["sad", "0", "–", "–", "–", "–"]


def test_what_a_run_keeps_that_gets_nothing_right_is_a_dash_at_the_end():
    none, every = (np.full((40, 1, 5), right) for right in (False, True))
    ids = tuple(map(str, range(40)))
    found = {
        "A": Robustness(ids, ("blur",), none[:, 0, 0], none),
        "B": Robustness(ids, ("blur",), every[:, 0, 0], every),
    }
    assert robustness_sentence(found, CHOSEN).endswith(
        "the runs keep: B 100% (100 to 100%), A –."
    )  # nothing is lost
    assert robustness_table(found, CHOSEN)["difference"].tolist() == ["+1.000 *", "+1.000 *"]


def test_what_costs_most_is_told_with_the_run_that_it_costs_most():
    ids, kinds = tuple(map(str, range(40))), ("blur", "noise")
    clean = np.ones(40, dtype=bool)

    def kept(blur: int, noise: int) -> Robustness:
        right = np.zeros((40, 2, 5), dtype=bool)
        right[:blur, 0], right[:noise, 1] = True, True
        return Robustness(ids, kinds, clean, right)

    said = robustness_sentence({"A": kept(20, 30), "B": kept(18, 2)}, CHOSEN)
    assert "Most is lost to noise by B: 5% right are left." in said
    alone = robustness_sentence({"A": kept(20, 30)}, CHOSEN[:1])
    assert alone.startswith("Of its accuracy, on 40 test images that are made worse in 2 ways, A keeps 62%")
    assert alone.endswith("Most is lost to blur: 50% right are left.")
    weak = Robustness(ids, kinds, np.arange(40) < 8, kept(4, 6).worse)  # has less to lose
    said = robustness_sentence({"A": weak, "B": kept(30, 10)}, CHOSEN)
    assert "Most is lost to noise by B: 25% right are left." in said

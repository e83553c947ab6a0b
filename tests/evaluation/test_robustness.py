"""What is kept when images are made worse: scores, their intervals, and who keeps more."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from trainer.contract import STRENGTHS
from trainer.evaluation.robustness import (
    CLEAN,
    Robustness,
    answer_table,
    by_kind,
    column,
    compare_robustness,
    curves,
    relative,
)

NAMES = ("angry", "happy", "sad")
KINDS = ("blur", "low resolution")


def answers(right: np.ndarray, clean: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """As a run logs them. right: bool (N, 2, 5). clean: bool (N,)."""
    wrong = (labels + 1) % len(NAMES)
    said = {CLEAN: np.where(clean, labels, wrong)}
    for i, kind in enumerate(KINDS):
        said |= {column(kind, s): np.where(right[:, i, s - 1], labels, wrong) for s in STRENGTHS}
    return answer_table([f"image {i}" for i in range(len(labels))], labels, said, NAMES)


def drawn(generator: np.random.Generator, size: int, share: float = 0.7, kept: float = 0.8) -> Robustness:
    """A model that is right on `share` of the images, and on `kept` of those when they are made worse."""
    clean = generator.random(size) < share
    right = clean[:, None, None] & (generator.random((size, 2, 5)) < kept)
    return Robustness.from_table(answers(right, clean, generator.integers(0, 3, size)))


def test_a_table_comes_back_as_what_was_right(tmp_path):
    generator = np.random.default_rng(0)
    clean, right = generator.random(30) < 0.5, generator.random((30, 2, 5)) < 0.5
    answers(right, clean, generator.integers(0, 3, 30)).to_parquet(tmp_path / "table.parquet")
    found = Robustness.from_table(pd.read_parquet(tmp_path / "table.parquet"))
    assert found.kinds == KINDS
    assert np.array_equal(found.worse, right)
    assert np.array_equal(found.clean, clean)
    table = curves(found).set_index(["kind", "strength"])
    assert table.at[("low resolution", 4), "accuracy"] == pytest.approx(right[:, 1, 3].mean())
    assert table.at[("blur", 0), "accuracy"] == pytest.approx(clean.mean())
    assert by_kind(found)["blur"] == pytest.approx(right[:, 0].mean())


def test_a_table_of_something_else_is_refused():
    for table in (pd.DataFrame({"sample_id": []}), pd.DataFrame({"label": ["a"], "blur · 1": ["a"]})):
        with pytest.raises(ValueError, match="not Moodify's"):
            Robustness.from_table(table)


def test_the_score_is_one_where_nothing_is_lost_and_missing_where_nothing_is_right():
    labels = np.zeros(20, np.int64)
    clean = np.arange(20) < 10
    same = Robustness.from_table(answers(np.tile(clean[:, None, None], (1, 2, 5)), clean, labels))
    score = relative(same)
    assert (score.value, score.low, score.high) == pytest.approx((1, 1, 1))
    nothing = Robustness.from_table(answers(np.zeros((20, 2, 5), bool), np.zeros(20, bool), labels))
    assert np.isnan(relative(nothing).value)


def test_the_interval_of_the_score_holds_the_truth_in_95_of_100_cases():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        clean = generator.random(200) < 0.7
        worse = clean[:, None, None] & (generator.random((200, 2, 5)) < 0.8)
        interval = relative(Robustness((), KINDS, clean, worse))
        covered += interval.low <= 0.8 <= interval.high
    assert 930 <= covered <= 970


def test_two_models_are_compared_image_by_image_as_scipy_does():
    generator = np.random.default_rng(2)
    a, b = drawn(generator, 300, kept=0.8), drawn(generator, 300, kept=0.5)
    table = compare_robustness(a, b).set_index("kind")
    assert list(table.index) == [*KINDS, "all"]
    test = stats.ttest_rel(b.worse.mean(axis=(1, 2)), a.worse.mean(axis=(1, 2)))
    low, high = test.confidence_interval(0.95)
    row = table.loc["all"]
    assert (row["p"], row["low"], row["high"]) == pytest.approx((test.pvalue, low, high))
    assert row["decided"]
    assert row["difference"] < 0
    assert not compare_robustness(a, a)["decided"].any()


@pytest.mark.parametrize(("size", "p"), [(1, 1.0), (2, 0.5), (8, 2**-7)])
def test_a_difference_that_is_the_same_on_every_image_is_no_more_certain_than_their_number(
    size: int, p: float
):
    clean, worse = np.ones(size, bool), np.zeros((size, 1, 5), bool)
    a, b = (Robustness(tuple(map(str, range(size))), KINDS[:1], clean, right) for right in (worse, ~worse))
    row = compare_robustness(a, b).iloc[-1]
    assert (row["difference"], row["p"]) == (1.0, p)
    assert np.isnan([row["low"], row["high"]]).all()


def test_a_few_images_that_differ_by_chance_decide_nothing():
    """The t test would: three of four differ to one side by chance in half of all cases."""
    clean, right = np.ones(500, bool), np.ones((500, 2, 5), bool)
    a, b = Robustness((), KINDS, clean, right), Robustness((), KINDS, clean, right.copy())
    b.worse[:4, 0, 0] = False
    last = compare_robustness(a, b).set_index("kind").loc["all"]
    assert last["p"] == pytest.approx(2 * 0.5**4)
    assert not last["decided"]
    b.worse[:8, 0, 0] = False
    assert compare_robustness(a, b).set_index("kind").at["all", "decided"]


def test_answers_to_other_images_are_not_compared():
    a, b = drawn(np.random.default_rng(3), 50), drawn(np.random.default_rng(3), 60)
    with pytest.raises(ValueError, match="different images"):
        compare_robustness(a, b)

"""How much of its accuracy a model keeps when images are made worse, from what it answered to them."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from trainer.contract import STRENGTHS
from trainer.evaluation.comparison import ALPHA, FEWEST_APART
from trainer.evaluation.statistics import Interval, holm, is_constant, mcnemar, mean_difference, wilson

CLEAN = "clean"
_SEPARATOR = " · "


@dataclass(frozen=True, eq=False)
class Robustness:
    """Which answers were right.

    sample_ids: N names. kinds: C kinds of corruption. clean: bool (N,), for the images as they are.
    worse: bool (N, C, 5), for each kind in each of STRENGTHS.
    """

    sample_ids: tuple[str, ...]
    kinds: tuple[str, ...]
    clean: np.ndarray
    worse: np.ndarray

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> "Robustness":
        """From the columns of `answer_table`. Raises ValueError where some are missing."""
        kinds = list(dict.fromkeys(c.rpartition(_SEPARATOR)[0] for c in table if _SEPARATOR in c))
        columns = [column(kind, strength) for kind in kinds for strength in STRENGTHS]
        missing = {"sample_id", "label", CLEAN, *columns} - set(table)
        if missing or not kinds or table.empty:
            raise ValueError("the answers to worse images are not Moodify's")
        label = table["label"].astype(str).to_numpy()
        right = table[[CLEAN, *columns]].astype(str).to_numpy() == label[:, np.newaxis]
        return cls(
            sample_ids=tuple(map(str, table["sample_id"].tolist())),
            kinds=tuple(kinds),
            clean=right[:, 0],
            worse=right[:, 1:].reshape(len(table), len(kinds), len(STRENGTHS)),
        )

    def __len__(self) -> int:
        return len(self.clean)


def column(kind: str, strength: int) -> str:
    """The name of the column that holds the answers to one kind in one strength."""
    return f"{kind}{_SEPARATOR}{strength}"


def answer_table(
    sample_ids: list[str], labels: np.ndarray, answers: dict[str, np.ndarray], class_names: tuple[str, ...]
) -> pd.DataFrame:
    """One row an image: sample_id, label, and the answer to each of its versions, as class names.

    Args:
        labels: int64 (N,). answers: CLEAN or `column(…)` → int64 (N,).
    """
    names = list(class_names)
    coded = {"label": labels} | answers
    columns = {key: pd.Categorical.from_codes(values, names) for key, values in coded.items()}
    return pd.DataFrame({"sample_id": sample_ids} | columns)


def curves(found: Robustness) -> pd.DataFrame:
    """Columns kind, strength (0: the images as they are), accuracy, low, high (95% interval, Wilson)."""
    rows = []
    for index, kind in enumerate(found.kinds):
        for strength in (0, *STRENGTHS):
            right = found.worse[:, index, strength - 1] if strength else found.clean
            low, high = wilson(int(right.sum()), len(found))
            rows.append((kind, strength, float(right.mean()), float(low), float(high)))
    return pd.DataFrame(rows, columns=["kind", "strength", "accuracy", "low", "high"])


def relative(found: Robustness) -> Interval:
    """The score: mean accuracy over all kinds and strengths, as a share of that on the images as they are.

    1 where nothing is lost. The interval is that of a ratio of two means over the same images, by linearisation
    (Cochran, Sampling Techniques, 1977, chapter 6); NaN where nothing is right on the images as they are.
    """
    worse, clean = found.worse.mean(axis=(1, 2)), found.clean.astype(np.float64)
    if not clean.any():
        return Interval(math.nan, math.nan, math.nan)
    ratio = worse.mean() / clean.mean()
    deviation = float(np.std(worse - ratio * clean, ddof=1)) if len(found) > 1 else math.nan
    reach = float(stats.norm.ppf(0.975)) * deviation / clean.mean() / math.sqrt(len(found))
    return Interval(float(ratio), float(ratio - reach), float(ratio + reach))


def by_kind(found: Robustness) -> dict[str, float]:
    """kind → mean accuracy over its strengths."""
    return dict(zip(found.kinds, map(float, found.worse.mean(axis=(0, 2))), strict=True))


def compare_robustness(a: Robustness, b: Robustness) -> pd.DataFrame:
    """B against A: one row a kind, and a last one, `all`, for their mean.

    Columns kind, a, b (mean accuracies over the strengths), difference (B − A), low, high (95%, paired t over the
    images), p (paired t test, or the sign test of few; after Holm for the number of kinds), decided.

    Raises ValueError where the two were not asked the same.
    """
    if a.sample_ids != b.sample_ids or a.kinds != b.kinds:
        raise ValueError("their answers are to different images")
    pairs = [(a.worse[:, i].mean(axis=1), b.worse[:, i].mean(axis=1)) for i in range(len(a.kinds))]
    pairs.append((a.worse.mean(axis=(1, 2)), b.worse.mean(axis=(1, 2))))
    rows, p_values = [], []
    for kind, (first, second) in zip((*a.kinds, "all"), pairs, strict=True):
        interval = mean_difference(first, second)
        rows.append((kind, first.mean(), second.mean(), interval.value, interval.low, interval.high))
        p_values.append(_p(second - first))
    table = pd.DataFrame(rows, columns=["kind", "a", "b", "difference", "low", "high"])
    table["p"] = [*holm(np.array(p_values[:-1])), p_values[-1]]
    return table.assign(decided=table["p"] < ALPHA)


def _p(differences: np.ndarray) -> float:
    """Of the paired t test; where fewer than FEWEST_APART images differ, or all by the same, that of the sign test, and
    1 where the two never differ.
    """
    if not differences.any() or len(differences) < 2:
        return 1.0
    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    if better + worse < FEWEST_APART:
        return mcnemar(worse, better)
    if is_constant(differences):  # no t; the sign test's is the least that so many images can give
        return min(2.0 ** (1 - len(differences)), 1.0)
    return float(stats.ttest_1samp(differences, 0.0).pvalue)

"""Where a model is weak: accuracy in slices of the test set, by what the images are like or by a user's groups.

Slices differ in their classes, and classes in how hard they are. So a slice is compared with all other images class by
class, and what remains is the slice's own. Missing is NaN, never zero.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from trainer.evaluation.statistics import Interval, wilson

ALPHA = 0.05
NOT_MEASURED = ""
"""The slice of an image that belongs to none."""
CONDITIONS: Mapping[str, tuple[str, str, str]] = {
    "brightness": ("darkest", "medium", "brightest"),
    "contrast": ("flattest", "medium", "richest in contrast"),
    "sharpness": ("most blurred", "medium", "sharpest"),
    "face size": ("smallest faces", "medium", "largest faces"),
    "turned away": ("most frontal", "medium", "most turned away"),
}
"""What is measured of each image, and what its lowest, middle and highest third are called."""
WATERMARK = "watermark"
MARKED, UNMARKED = "with a watermark", "without one"
MARKED_FROM = 0.95
"""`watermarks.watermark` from which on an image counts as marked."""
FEWEST_MARKED = 20
"""With fewer on either side there are no such slices."""
MOST_GROUPINGS, MOST_GROUPS = 10, 30
FEWEST_EXPECTED = 5
"""Right answers, and wrong ones, that must be expected in a slice and outside of it for an interval."""


@dataclass(frozen=True, eq=False)
class Slices:
    """Groupings of the same images: name → label of each image, object (N,); NOT_MEASURED where it has none."""

    groupings: Mapping[str, np.ndarray]
    ignored: int = 0
    """Rows of a user's file whose sample ids are not among the images."""


def by_condition(conditions: pd.DataFrame, sample_ids: Sequence[str]) -> Slices:
    """Each of CONDITIONS that `conditions` (columns sample_id and float ones) holds, cut into three of equal size, and
    the images with and without a WATERMARK.
    """
    values = conditions.set_index("sample_id").reindex(list(sample_ids))
    groupings = {}
    for name, words in CONDITIONS.items():
        if name not in values or values[name].nunique() < len(words):
            continue
        rank = values[name].rank(method="first", pct=True).to_numpy()
        label = np.full(len(values), NOT_MEASURED, dtype=object)
        known = ~np.isnan(rank)
        label[known] = np.array(words, dtype=object)[np.ceil(rank[known] * len(words)).astype(int) - 1]
        groupings[name] = label
    if WATERMARK in values:
        known = values[WATERMARK].notna().to_numpy()
        marked = (values[WATERMARK] >= MARKED_FROM).to_numpy()
        if FEWEST_MARKED <= marked.sum() <= known.sum() - FEWEST_MARKED:
            label = np.where(marked, MARKED, UNMARKED).astype(object)
            label[~known] = NOT_MEASURED
            groupings[WATERMARK] = label
    return Slices(groupings)


def read_groups(text: str, sample_ids: Sequence[str]) -> Slices:
    """Groups that a user brings: CSV with the column `sample_id` and one column for each grouping.

    Raises ValueError, with one line for the user, where it is something else.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), strict=True))
    except csv.Error as error:
        raise ValueError(f"the groups cannot be read as CSV: {error}") from error
    names = [name for name in (rows[0] if rows else {}) if name and name != "sample_id"]
    if not rows or "sample_id" not in rows[0] or not names:
        raise ValueError("the groups must be CSV with the column sample_id and one column for each grouping")
    if len(names) > MOST_GROUPINGS:
        raise ValueError(f"there are {len(names)} groupings; at most {MOST_GROUPINGS} are compared at once")
    position = {sample_id: index for index, sample_id in enumerate(sample_ids)}
    groupings = {name: np.full(len(position), NOT_MEASURED, dtype=object) for name in names}
    ignored = 0
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        sample_id = (row["sample_id"] or "").strip()
        if sample_id in seen:
            raise ValueError(f"line {number} of the groups: {sample_id} was there before")
        seen.add(sample_id)
        if sample_id not in position:
            ignored += 1
            continue
        for name in names:
            groupings[name][position[sample_id]] = (row[name] or "").strip()
    if ignored == len(rows):
        raise ValueError(
            f"none of the {len(rows):,} sample ids of the groups is among the test images; one of these is "
            f"{next(iter(position), 'missing')}"
        )
    if all((label == NOT_MEASURED).all() for label in groupings.values()):
        raise ValueError(f"no test image has a value in the groups' column {' or '.join(names)}")
    for name, label in groupings.items():
        if (found := len(set(label) - {NOT_MEASURED})) > MOST_GROUPS:
            raise ValueError(f"{name} has {found} groups; at most {MOST_GROUPS} are compared")
    return Slices(groupings, ignored)


def slice_table(target: np.ndarray, right: np.ndarray, slices: Slices) -> pd.DataFrame:
    """Accuracy in every slice, and how far it is from the other images of the same classes.

    Args:
        target: int64 (N,), the true classes. right: bool (N,).

    Returns:
        One row a slice that holds an image: grouping, slice, images, accuracy, low, high (95% interval, Wilson),
        difference (from all other images that the grouping covers; see `adjusted_difference`), difference_low,
        difference_high (95% for all slices together), p (corrected for their number; both after Bonferroni), decided
        (by p, and where there is an interval, it leaves out 0). A difference is NaN where no class occurs both in the
        slice and outside, its ends also where there are too few images.
    """
    rows = []
    for grouping, labels in slices.groupings.items():
        covered = labels != NOT_MEASURED
        for name in dict.fromkeys(_in_order(grouping, labels[covered])):
            inside = labels == name
            hits, images = int(right[inside].sum()), int(inside.sum())
            low, high = (float(end) for end in wilson(hits, images))
            rows.append((grouping, name, images, hits / images, low, high, inside, covered))
    columns = ["grouping", "slice", "images", "accuracy", "low", "high"]
    table = pd.DataFrame([row[:6] for row in rows], columns=columns)
    confidence = 1 - ALPHA / max(len(rows), 1)
    found = [
        adjusted_difference(target[covered], right[covered], inside[covered], confidence)
        for *_, inside, covered in rows
    ]
    table["difference"] = [interval.value for interval, _ in found]
    table["difference_low"] = [interval.low for interval, _ in found]
    table["difference_high"] = [interval.high for interval, _ in found]
    table["p"] = np.minimum([p * len(rows) for _, p in found], 1.0)
    around_zero = (table["difference_low"] <= 0) & (table["difference_high"] >= 0)
    return table.assign(decided=(table["p"] < ALPHA) & ~around_zero)


def adjusted_difference(
    target: np.ndarray, right: np.ndarray, inside: np.ndarray, confidence: float = 0.95
) -> tuple[Interval, float]:
    """Accuracy inside − outside with classes weighed alike, its interval, and the two-sided p value.

    The Mantel–Haenszel difference of proportions over the classes, with Sato's variance (Biometrics 45, 1989,
    1323–1324), which holds for a few large classes as well as for many small ones. It is too small where hardly an
    answer is wrong, or right: with less than FEWEST_EXPECTED of either, inside or outside, the ends of the interval
    are NaN. The p value is exact for any number.

    Args:
        target: int64 (N,). right, inside: bool (N,).
    """
    num_classes = int(target.max()) + 1 if len(target) else 0

    def count(chosen: np.ndarray) -> np.ndarray:
        return np.bincount(target[chosen], minlength=num_classes).astype(np.float64)

    n1, n0, y1, y0 = count(inside), count(~inside), count(inside & right), count(~inside & right)
    both = (n1 > 0) & (n0 > 0)
    n1, n0, y1, y0 = (values[both] for values in (n1, n0, y1, y0))
    if not len(n1):
        return Interval(np.nan, np.nan, np.nan), float("nan")
    n = n1 + n0
    weight = (n1 * n0 / n).sum()
    difference = float(((y1 * n0 - y0 * n1) / n).sum() / weight)
    p_part = ((n1**2 * y0 - n0**2 * y1 + n1 * n0 * (n0 - n1) / 2) / n**2).sum()
    q_part = ((y1 * (n0 - y0) + y0 * (n1 - y1)) / (2 * n)).sum()
    deviation = float(np.sqrt(max(difference * p_part + q_part, 0.0)) / weight)
    reach = float(stats.norm.ppf((1 + confidence) / 2)) * deviation
    rate = (y1 + y0) / n
    expected = [(images * share).sum() for images in (n1, n0) for share in (rate, 1 - rate)]
    if min(expected) < FEWEST_EXPECTED:
        reach = np.nan
    return Interval(difference, difference - reach, difference + reach), exact_p(n1, n0, y1, y0)


def exact_p(n1: np.ndarray, n0: np.ndarray, y1: np.ndarray, y0: np.ndarray) -> float:
    """Two-sided p of as many right answers inside, were those of each class spread over its images by chance alone.

    The exact form of the Cochran–Mantel–Haenszel test: Fisher's, over several classes.

    Args:
        n1, n0: Images of each class inside and outside, (K,). y1, y0: How many of them were answered rightly.
    """
    chances, fewest = np.ones(1), 0
    for inside, outside, right in zip(n1, n0, y1 + y0, strict=True):
        first, last = int(max(0, right - outside)), int(min(right, inside))
        of_class = stats.hypergeom.pmf(np.arange(first, last + 1), inside + outside, right, inside)
        chances, fewest = np.convolve(chances, of_class), fewest + first
    seen = chances[int(y1.sum()) - fewest]
    return min(float(chances[chances <= seen * (1 + 1e-7)].sum()), 1.0)


def worst_slice(table: pd.DataFrame) -> pd.Series | None:
    """The row of `slice_table` that lies farthest below the other images, where that is decided; else None."""
    below = table[table["decided"] & (table["difference"] < 0)]
    return None if below.empty else below.loc[below["difference"].idxmin()]


def recall_table(
    target: np.ndarray, right: np.ndarray, class_names: Sequence[str], slices: Slices
) -> pd.DataFrame:
    """Recall of each class in every slice: columns grouping, slice and one a class; NaN where it has no image there."""
    rows = []
    for grouping, labels in slices.groupings.items():
        for name in dict.fromkeys(_in_order(grouping, labels[labels != NOT_MEASURED])):
            inside = labels == name
            recalls = [
                float(right[of_class].mean()) if (of_class := inside & (target == index)).any() else np.nan
                for index in range(len(class_names))
            ]
            rows.append((grouping, name, *recalls))
    return pd.DataFrame(rows, columns=["grouping", "slice", *class_names])


def _in_order(grouping: str, labels: np.ndarray) -> list[str]:
    """The slices of a grouping: thirds from low to high, a user's groups by name, or by size where all are numbers."""
    found = set(labels)
    known = [name for name in CONDITIONS.get(grouping, ()) if name in found]
    others = pd.Series(sorted(found.difference(known)), dtype=object)
    numbers = pd.to_numeric(others, errors="coerce")
    if numbers.notna().all():
        others = others[numbers.sort_values(kind="stable").index]
    return known + list(others)

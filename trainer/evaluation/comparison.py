"""Two models on the same test images: what differs, how sure that is, and one sentence that says so."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import pandas as pd
from scipy import stats

from trainer.evaluation.metrics import Evaluation, answered, evaluate, sample_loss
from trainer.evaluation.reliability import error_difference
from trainer.evaluation.statistics import (
    Interval,
    bootstrap_differences,
    group_difference,
    holm,
    images_needed,
    joint_table,
    mcnemar,
    mean_difference,
    paired_difference,
)

RESAMPLES = 1000
ALPHA = 0.05
"""A difference is called decided where its p value is below this."""
FEWEST_APART = 20
"""With fewer images that tell two models apart, intervals of means and of resamples are too narrow to decide by: one
of macro recall left out 0 in 11% of simulations of equal models with 4 such images, in 8% with 10."""
CALIBRATION_NOTE = "The difference in ECE leaves out what chance adds to each error."
"""Stands wherever the metrics of a `Comparison` are shown."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What one model said of one part.

    target: int64 (N,), an index into class_names. probabilities: float32 (N, K). loss: float64 (N,), in nats.
    """

    class_names: tuple[str, ...]
    sample_ids: tuple[str, ...]
    target: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def from_table(cls, table: pd.DataFrame, part: str = "test") -> "Predictions":
        """From the columns of `metrics.prediction_table`.

        Raises ValueError where the part is empty, or a label is not among the classes.
        """
        rows = table[table["part"] == part]
        if rows.empty:
            raise ValueError(f"there are no predictions for {part}")
        names = tuple(name.removeprefix("p_") for name in table.columns if name.startswith("p_"))
        target = pd.Index(names).get_indexer(pd.Index(rows["label"]))
        if (target < 0).any():
            unknown = rows["label"].iloc[int((target < 0).argmax())]
            raise ValueError(f"the label {unknown} is not among the classes {', '.join(names)}")
        return cls(
            class_names=names,
            sample_ids=tuple(map(str, rows["sample_id"].tolist())),
            target=target.astype(np.int64),
            probabilities=rows[[f"p_{name}" for name in names]].to_numpy(np.float32),
        )

    @cached_property
    def preds(self) -> np.ndarray:
        """int64 (N,)."""
        return answered(self.target, self.probabilities)

    @cached_property
    def loss(self) -> np.ndarray:
        return sample_loss(self.target, self.probabilities)

    @cached_property
    def evaluation(self) -> Evaluation:
        return evaluate(self.target, self.probabilities, self.class_names)

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True, eq=False)
class Comparison:
    """B against A; every difference is B − A.

    metrics: columns metric, a, b, difference, low, high (95% interval), apart (the number of images on which what the
        metric is made of differs); of ECE the difference without what chance adds to each
        (`reliability.error_difference`).
    classes: columns class, support, a, b (recalls), difference, low, high, p (exact McNemar, corrected after
        Holm for the number of classes), decided.
    both_right, only_a, only_b, both_wrong: number of images. p: exact McNemar on them.
    among: how many comparisons are made at once; what is called decided is corrected for them (Bonferroni), but neither
        p, nor intervals, nor classes are.
    """

    size: int
    metrics: pd.DataFrame
    classes: pd.DataFrame
    both_right: int
    only_a: int
    only_b: int
    both_wrong: int
    p: float
    among: int = 1

    @property
    def accuracy(self) -> Interval:
        row = self.metrics.iloc[0]
        return Interval(row["difference"], row["low"], row["high"])

    @property
    def decided(self) -> bool:
        return self.p * self.among < ALPHA

    @property
    def decided_metrics(self) -> pd.Series:
        """metric → bool. Accuracy by p; the others where the interval for all comparisons together leaves out 0 and at
        least FEWEST_APART images tell the two apart."""
        table = self.metrics.set_index("metric")
        value = table["difference"]
        reach = (value - table["low"]).where(value > 0, table["high"] - value)
        # So much farther off a normal distribution has the ends of an interval of that confidence.
        wider = stats.norm.ppf(1 - ALPHA / 2 / self.among) / stats.norm.ppf(1 - ALPHA / 2)
        decided = (value.abs() > wider * reach) & (table["apart"] >= FEWEST_APART)
        # Tango's interval and the exact test may differ on the verge: a page gives one verdict.
        decided["accuracy"] = self.decided
        return decided


def same_images(a: Predictions, b: Predictions) -> str | None:
    """Why the two cannot be compared image by image, or None where they can."""
    if a.class_names != b.class_names:
        return f"their classes differ ({', '.join(a.class_names)} and {', '.join(b.class_names)})"
    if a.sample_ids != b.sample_ids or not np.array_equal(a.target, b.target):
        return f"they were tested on different images ({len(a):,} and {len(b):,})"
    return None


def compare(a: Predictions, b: Predictions) -> Comparison:
    """Raises ValueError where the two were not tested on the same images."""
    if reason := same_images(a, b):
        raise ValueError(f"these runs cannot be compared: {reason}")
    size, num_classes = len(a), len(a.class_names)
    right_a, right_b = a.preds == a.target, b.preds == b.target
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    resampled = bootstrap_differences(joint_table(a.target, a.preds, b.preds, num_classes), RESAMPLES)
    differences = {
        "accuracy": Interval(*paired_difference(only_a, only_b, size)),
        "macro_recall": cast(Interval, resampled["macro_recall"]),
        "macro_f1": cast(Interval, resampled["macro_f1"]),
        "log_loss": mean_difference(a.loss, b.loss),
        "brier": mean_difference(_squared_distance(a), _squared_distance(b)),
        "ece": error_difference(a.target, a.probabilities, b.probabilities),
    }
    apart = {
        "accuracy": right_a != right_b,
        "macro_recall": right_a != right_b,
        "macro_f1": a.preds != b.preds,
        "log_loss": a.loss != b.loss,
        "brier": (a.probabilities != b.probabilities).any(1),
        "ece": (a.probabilities != b.probabilities).any(1),
    }
    rows = []
    for name, interval in differences.items():
        first, second = a.evaluation.summary[name], b.evaluation.summary[name]
        ends = (interval.value, interval.low, interval.high)
        rows.append((name, first, second, *ends, int(apart[name].sum())))
    return Comparison(
        size=size,
        metrics=pd.DataFrame(rows, columns=["metric", "a", "b", "difference", "low", "high", "apart"]),
        classes=_classes(a, b, right_a, right_b),
        both_right=int((right_a & right_b).sum()),
        only_a=only_a,
        only_b=only_b,
        both_wrong=int((~right_a & ~right_b).sum()),
        p=mcnemar(only_a, only_b),
    )


def _classes(a: Predictions, b: Predictions, right_a: np.ndarray, right_b: np.ndarray) -> pd.DataFrame:
    rows, p_values = [], []
    for index, name in enumerate(a.class_names):
        here = a.target == index
        support = int(here.sum())
        only_a, only_b = int((here & right_a & ~right_b).sum()), int((here & right_b & ~right_a).sum())
        recalls = (e.evaluation.per_class["recall"][index] for e in (a, b))
        rows.append((name, support, *recalls, *paired_difference(only_a, only_b, support)))
        p_values.append(mcnemar(only_a, only_b) if support else np.nan)
    table = pd.DataFrame(rows, columns=["class", "support", "a", "b", "difference", "low", "high"])
    table["p"] = holm(np.array(p_values))
    table["decided"] = table["p"] < ALPHA
    return table


def _squared_distance(predictions: Predictions) -> np.ndarray:
    """float64 (N,), of the probabilities to the one-hot truth: what the Brier score averages."""
    one_hot = np.eye(len(predictions.class_names))[predictions.target]
    return ((predictions.probabilities - one_hot) ** 2).sum(1)


def difference_matrix(a: Predictions, b: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Where B puts more or fewer of each true class than A.

    Returns:
        points, float64 (K, K): share of the row in B minus that in A, in percentage points; NaN for an empty row.
        decided, bool (K, K): exact McNemar in each cell, corrected after Holm over all cells.
    """
    num_classes = len(a.class_names)
    table = joint_table(a.target, a.preds, b.preds, num_classes)  # truth × A × B
    in_a, in_b, in_both = table.sum(2), table.sum(1), np.diagonal(table, axis1=1, axis2=2)
    support = table.sum((1, 2))[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        points = np.where(support > 0, 100 * (in_b - in_a) / support, np.nan)
    return points, holm(mcnemar(in_a - in_both, in_b - in_both)) < ALPHA


def verdict(comparison: Comparison, name_a: str, name_b: str) -> str:
    """One sentence: which is better, by how much, how sure, and where."""
    c, accuracy = comparison, comparison.accuracy
    on = f"on the same {c.size:,} images"
    if not c.decided:
        needed = images_needed(c.only_a, c.only_b, c.size, confidence=1 - ALPHA / c.among)
        # By an approximation: on the verge it may ask for fewer images than were not enough.
        more = (
            f"; to show a difference this small would take about {_round(needed)} images"
            if needed and needed > c.size
            else ""
        )
        among = f" in one of {c.among} comparisons" if c.among > 1 else ""
        return (
            f"No difference in accuracy that {c.size:,} images can show{among}: {name_b} against {name_a} "
            f"{signed(accuracy)} points{more}."
        )
    better, worse, sign = (name_b, name_a, 1) if accuracy.value > 0 else (name_a, name_b, -1)
    gain = accuracy if sign > 0 else Interval(-accuracy.value, -accuracy.high, -accuracy.low)
    text = (
        f"{better} is better than {worse} by {100 * gain.value:.1f} points of accuracy "
        f"({100 * gain.low:.1f} to {100 * gain.high:.1f}) {on}"
    )
    return f"{text}{_where(c.classes, sign)}."


def _where(classes: pd.DataFrame, sign: int) -> str:
    """`; surprise gains most (+9.1), fear loses (−3.0), disgust is undecided (55 images)`."""
    change = classes.assign(gain=sign * classes["difference"])
    decided = change[change["decided"]].sort_values("gain", ascending=False)
    parts = []
    if len(decided) and decided.iloc[0]["gain"] > 0:
        parts.append(f"{decided.iloc[0]['class']} gains most ({100 * decided.iloc[0]['gain']:+.1f})")
    losses = [
        f"{row['class']} loses ({100 * row['gain']:+.1f})" for _, row in decided.iterrows() if row["gain"] < 0
    ]
    parts += losses
    undecided = change[~change["decided"] & (change["support"] > 0)].sort_values("support")
    if len(undecided) == len(change):
        parts.append("no single class decides it")
    elif len(undecided):
        row = undecided.iloc[0]
        others = f" and {len(undecided) - 1} more" if len(undecided) > 1 else ""
        verb = "are" if others else "is"
        parts.append(f"{row['class']} ({row['support']:,} images){others} {verb} undecided")
    return "; " + ", ".join(parts) if parts else ""


def seed_verdict(a: Sequence[Predictions], b: Sequence[Predictions], name_a: str, name_b: str) -> str:
    """One sentence on two groups of runs, each several seeds of one configuration, by their mean accuracies.

    Two things could have come out otherwise, the seeds and the images; a difference is called one where an interval
    that holds both (`statistics.group_difference`) leaves out 0.

    Raises ValueError where the runs were not tested on the same images.
    """
    for other in (*a[1:], *b):
        if reason := same_images(a[0], other):
            raise ValueError(f"these runs cannot be compared: {reason}")
    right_a, right_b = (
        np.stack([run.preds == run.target for run in group]) for group in (a, b)
    )  # (seeds, N)
    if right_b.mean() < right_a.mean():
        a, b, name_a, name_b, right_a, right_b = b, a, name_b, name_a, right_b, right_a
    found = group_difference(right_a, right_b)
    size, counts = f"{len(a[0]):,} images", f"{len(b)} and {len(a)} seeds"
    ends = f"{100 * found.low:.1f} to {100 * found.high:.1f}, for other seeds and images".replace("-", "−")
    if np.isnan(found.low):
        ends = "what other seeds would change is not told"
    if not found.low > 0:
        gain = f"{100 * found.value:+.1f}"
        return (
            f"No difference in accuracy that {counts} on {size} can show: {name_b} against {name_a} {gain} points on "
            f"average ({ends})."
        )
    return (
        f"{name_b} is better than {name_a} by {100 * found.value:.1f} points of accuracy on the average of {counts} "
        f"({ends}) on the same {size}."
    )


def signed(interval: Interval) -> str:
    """`+1.2 (−0.3 to +2.7)`, in points."""
    value, low, high = (
        f"{100 * x:+.1f}".replace("-", "−") for x in (interval.value, interval.low, interval.high)
    )
    return f"{value} ({low} to {high})"


def _round(number: int) -> str:
    """Two significant digits are all that such a figure has."""
    digits = max(len(str(number)) - 2, 0)
    return f"{round(number, -digits):,}"


def reference_order(accuracies: Sequence[float]) -> list[int]:
    """Positions, best accuracy first; missing ones last."""
    return sorted(
        range(len(accuracies)), key=lambda i: -accuracies[i] if accuracies[i] == accuracies[i] else np.inf
    )

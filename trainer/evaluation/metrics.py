"""Metrics as pure functions of labels and probabilities; missing is NaN, never zero."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

ECE_BINS = 15


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How one model did on one part.

    summary: metric → value. per_class: metric → float64 (K,), NaN where a class gives no value.
    confusion: int64 (K, K), rows are the truth, columns the prediction, both in the order of class_names.
    """

    class_names: tuple[str, ...]
    summary: dict[str, float]
    per_class: dict[str, np.ndarray]
    confusion: np.ndarray

    @property
    def size(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())


def evaluate(target: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]) -> Evaluation:
    """All metrics of one part.

    Args:
        target: int64 (N,), indices into class_names.
        probabilities: float (N, K), rows sum to 1.
    """
    confusion = confusion_matrix(target, answered(target, probabilities), len(class_names))
    per_class = class_metrics(confusion)
    macro_recall = _mean(per_class["recall"])
    size = len(target)
    summary = {
        "accuracy": float(np.trace(confusion) / size) if size else float("nan"),
        # One number under the two names that people search for: scikit-learn's balanced accuracy
        # is the mean recall of the classes that occur.
        "balanced_accuracy": macro_recall,
        "macro_recall": macro_recall,
        "macro_precision": _mean(per_class["precision"]),
        "macro_f1": _mean(per_class["f1"]),
        "log_loss": float(sample_loss(target, probabilities).mean()) if size else float("nan"),
        "brier": brier(target, probabilities),
        "ece": expected_calibration_error(target, probabilities),
    }
    return Evaluation(tuple(class_names), summary, per_class, confusion)


def percent(share: float) -> str:
    """`42%`; `<1%` and `>99%` where rounding would say none or all of what is some."""
    text = f"{share:.0%}"
    return "<1%" if text == "0%" and share > 0 else ">99%" if text == "100%" and share < 1 else text


def answered(target: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The class of the highest probability, int64 (N,).

    Where one is NaN there is no answer, which counts as a wrong one: the class that follows the truth stands for it.
    """
    missing = np.isnan(probabilities).any(1)
    return np.where(missing, (target + 1) % max(probabilities.shape[1], 1), probabilities.argmax(1))


def confusion_matrix(target: np.ndarray, preds: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 (K, K) counts; rows are the truth, columns the prediction."""
    flat = np.asarray(target, dtype=np.int64) * num_classes + preds
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_metrics(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall, F1 and support of each class, float64 (K,).

    Recall is NaN for a class without examples, precision for one that was never predicted, F1 where
    both are.
    """
    hits = np.diag(confusion).astype(np.float64)
    support, predicted = confusion.sum(1), confusion.sum(0)
    return {
        "precision": _divide(hits, predicted),
        "recall": _divide(hits, support),
        "f1": _divide(2 * hits, support + predicted),
        "support": support.astype(np.float64),
    }


def sample_loss(target: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Negative log probability of the truth, in nats, float64 (N,); probabilities below 1e-12 count as that."""
    return -np.log(np.clip(_of_truth(target, probabilities), 1e-12, 1.0))


def brier(target: np.ndarray, probabilities: np.ndarray) -> float:
    """Brier score over all classes: mean squared distance to the one-hot truth, in [0, 2]."""
    probabilities = probabilities.astype(np.float64)
    distance = (probabilities**2).sum(1) - 2 * _of_truth(target, probabilities) + 1
    return float(distance.mean()) if len(distance) else float("nan")


def expected_calibration_error(target: np.ndarray, probabilities: np.ndarray, bins: int = ECE_BINS) -> float:
    """ECE of the predicted class over bins of equal mass (Nixon et al., arXiv 1904.01685), in [0, 1].

    Images sorted by confidence are cut into `bins` runs whose sizes differ by at most one; the gaps
    between mean confidence and accuracy are averaged by size. NaN without images.
    """
    if not len(target):
        return float("nan")
    confidence = probabilities.max(1).astype(np.float64)
    gaps = mean_of_ties(confidence - (probabilities.argmax(1) == target), confidence)
    return float(np.abs(np.bincount(equal_mass_bins(confidence, bins), gaps, bins)).sum() / len(target))


def equal_mass_bins(values: np.ndarray, bins: int = ECE_BINS) -> np.ndarray:
    """Which of `bins` runs of the sorted values each one lies in, int64 (N,); their sizes differ by at most one.

    Equal values may lie in several: what is added up over a bin is to be a `mean_of_ties`.
    """
    size = len(values)
    found = np.empty(size, dtype=np.int64)
    found[np.argsort(values, kind="stable")] = np.repeat(
        np.arange(bins), size // bins + (np.arange(bins) < size % bins)
    )
    return found


def mean_of_ties(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Each of the values as the mean over all images of equal `by`, so that their order does not matter.

    Args:
        values: float (N, …). by: float (N,).
    """
    _, group, count = np.unique(by, return_inverse=True, return_counts=True)
    if len(count) == len(values):  # no two are equal
        return values
    ordered = values[np.argsort(group, kind="stable")]
    means = np.add.reduceat(ordered, np.cumsum(count) - count, axis=0).T / count
    return means.T[group]


def confused_pairs(evaluation: Evaluation) -> pd.DataFrame:
    """Columns truth, prediction, count, share (of the truth's images), most frequent share first."""
    confusion = evaluation.confusion
    share = _divide(confusion.astype(np.float64), confusion.sum(1, keepdims=True))
    rows = [
        (truth, prediction, int(confusion[i, j]), float(share[i, j]))
        for i, truth in enumerate(evaluation.class_names)
        for j, prediction in enumerate(evaluation.class_names)
        if i != j and confusion[i, j]
    ]
    table = pd.DataFrame(rows, columns=["truth", "prediction", "count", "share"])
    return table.sort_values("share", ascending=False, ignore_index=True)


def prediction_table(
    part: str,
    sample_ids: Sequence[str],
    target: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
) -> pd.DataFrame:
    """One row an image: part, sample_id, label (its name), `p_<class>` for each class, loss in nats."""
    columns: dict[str, object] = {
        "part": part,
        "sample_id": list(sample_ids),
        "label": np.asarray(class_names, dtype=object)[target],
    }
    columns |= {f"p_{name}": probabilities[:, i].astype(np.float32) for i, name in enumerate(class_names)}
    columns["loss"] = sample_loss(target, probabilities).astype(np.float32)
    return pd.DataFrame(columns)


def _of_truth(target: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    return probabilities[np.arange(len(target)), target].astype(np.float64)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def _mean(values: np.ndarray) -> float:
    """Mean over the classes that have a value; NaN where none has."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")

"""Recall, precision and F1 of each class with intervals, over runs, and what is said of them; pure functions."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from dashboard.selection import Chosen
from dashboard.text import number, percent, plain
from trainer.evaluation.comparison import Predictions
from trainer.evaluation.metrics import confused_pairs
from trainer.evaluation.statistics import wilson

ORDERS = ("worst first", "name", "difference")


def class_table(predictions: Mapping[str, Predictions], metric: str) -> pd.DataFrame:
    """Columns run_id, class, support, value, low, high (Wilson; NaN for F1, which has no such interval).

    metric: recall, precision or F1.
    """
    rows = []
    for run_id, found in predictions.items():
        confusion = found.evaluation.confusion
        hits, support, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
        values = found.evaluation.per_class[metric.lower()]
        if metric == "F1":
            low = high = np.full(len(values), np.nan)
        else:
            low, high = wilson(hits, support if metric == "recall" else predicted)
        for index, name in enumerate(found.class_names):
            rows.append((run_id, name, int(support[index]), values[index], low[index], high[index]))
    return pd.DataFrame(rows, columns=["run_id", "class", "support", "value", "low", "high"])


def sort_classes(table: pd.DataFrame, order: str) -> pd.DataFrame:
    """`worst first` by the mean over runs, `name`, or `difference` (largest between any two runs first)."""
    groups = table.groupby("class", sort=False)["value"]
    if order == "name":
        ranks = pd.Series({name: index for index, name in enumerate(sorted(groups.groups))})
    elif order == "difference":
        ranks = (groups.min() - groups.max()).fillna(0)
    else:
        ranks = groups.mean().fillna(2)
    return (
        table.assign(rank=table["class"].map(ranks)).sort_values("rank", kind="stable").drop(columns="rank")
    )


def wide_table(table: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """A row a class, in the order of `table`: its images, and for each run the value with its interval, as text.

    labels: run_id → the name of its column.
    """
    classes = table.drop_duplicates("class").set_index("class")
    wide = pd.DataFrame({"images": classes["support"]})
    for run_id, label in labels.items():
        rows = table[table["run_id"] == run_id].set_index("class")
        cells = [_cell(*row) for row in rows[["value", "low", "high"]].itertuples(index=False)]
        wide[label] = pd.Series(cells, rows.index, dtype=str)
    return wide


def _cell(value: float, low: float, high: float) -> str:
    return number(value) if np.isnan(low) else f"{number(value)} ({number(low)} to {number(high)})"


def macro_values(table: pd.DataFrame) -> dict[str, float]:
    """run_id → mean over the classes that have a value."""
    return table.groupby("run_id")["value"].mean().to_dict()


def worst_class(
    table: pd.DataFrame, predictions: Mapping[str, Predictions], best: str
) -> tuple[str, float, str, float]:
    """(class that `best` recalls worst, its recall, what it is most often taken for, the highest recall of any run)."""
    own = table[(table["run_id"] == best) & table["value"].notna()]
    row = own.loc[own["value"].idxmin()]
    pairs = confused_pairs(predictions[best].evaluation)
    pairs = pairs[pairs["truth"] == row["class"]]
    taken = pairs.iloc[0]["prediction"] if len(pairs) else ""
    return (
        row["class"],
        float(row["value"]),
        taken,
        float(table[table["class"] == row["class"]]["value"].max()),
    )


def opening(found: Mapping[str, Predictions], chosen: Sequence[Chosen]) -> str:
    """The worst class of the best run, what it is taken for, and whether any run does better; Markdown."""
    labels = {run.run_id: run.label for run in chosen}
    best = max(found, key=lambda run_id: found[run_id].evaluation.summary["macro_recall"])
    name, recall, taken, highest = worst_class(class_table(found, "recall"), found, best)
    mistaken = f", and is most often taken for {plain(taken)}" if taken else ""
    where = f" by {plain(labels[best])}" if len(found) > 1 else ""
    other = ""
    if len(found) > 1 and percent(highest) != percent(recall):
        other = f"; another run reaches {percent(highest)}"
    elif len(found) > 1 and percent(highest)[0].isdigit():  # nothing exceeds more than 99%
        other = f"; no run exceeds {percent(highest)}"
    if recall == 1:
        return f"Every class is found in every case{where}."
    return f"{plain(name[:1].upper() + name[1:])} is found in {percent(recall)} of cases{where}{mistaken}{other}."

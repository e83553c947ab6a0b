"""What is told of classes and of slices of the test set: sentences and tables, as pure functions of what was read."""

from collections.abc import Mapping, Sequence

import pandas as pd

from dashboard.selection import Chosen
from dashboard.text import DASH, number, percent, plain
from trainer.evaluation.comparison import Predictions
from trainer.evaluation.slices import Slices, slice_table, worst_slice


def slice_tables(found: Mapping[str, Predictions], slices: Mapping[str, Slices]) -> dict[str, pd.DataFrame]:
    """run_id → `slice_table`, of runs that have both."""
    return {
        run_id: slice_table(answers.target, answers.preds == answers.target, slices[run_id])
        for run_id, answers in found.items()
        if run_id in slices and slices[run_id].groupings
    }


def slice_sentence(tables: Mapping[str, pd.DataFrame], chosen: Sequence[Chosen]) -> str:
    """The worst slice of each run; Markdown."""
    parts = []
    for run in chosen:
        worst = worst_slice(tables[run.run_id])
        if worst is None:
            parts.append(f"{plain(run.label)} has no slice in which it is worse by more than chance.")
            continue
        parts.append(
            f"{plain(run.label)} is weakest in the slice “{plain(worst['slice'])}” (by {plain(worst['grouping'])}): "
            f"{percent(worst['accuracy'])} of its {worst['images']:,} images are right, {_fewer(worst)} than of other "
            "images of the same classes."
        )
    return " ".join(parts)


def class_text(classes: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """`classes` of a `Comparison` of two runs as text; a, b: their labels."""
    ends = classes.rename(columns={"low": "difference_low", "high": "difference_high"})
    return pd.DataFrame(
        {
            "class": classes["class"],
            "images": classes["support"].map("{:,}".format),
            "difference (points)": _differences(ends),
            f"recall {a} (%)": (100 * classes["a"]).map(lambda value: number(value, 1)),
            f"recall {b} (%)": (100 * classes["b"]).map(lambda value: number(value, 1)),
            "p (Holm)": classes["p"].map(number),
        }
    )


def slice_text(table: pd.DataFrame) -> pd.DataFrame:
    """The table of one run as text."""
    return pd.DataFrame(
        {
            "by": table["grouping"],
            "slice": table["slice"],
            "images": table["images"].map("{:,}".format),
            "accuracy": table["accuracy"].map(number),
            "difference (points)": _differences(table),
            "p (Bonferroni)": table["p"].map(number),
        }
    )


def _differences(table: pd.DataFrame) -> list[str]:
    """With their intervals; a star where it is decided."""
    return [
        (_points(row) if row["difference"] == row["difference"] else DASH) + (" *" if row["decided"] else "")
        for _, row in table.iterrows()
    ]


def _fewer(row: pd.Series) -> str:
    """`5.1 points (2.2 to 8.0) fewer`, of a slice that is decidedly worse."""
    value, low, high = (
        number(-100 * row[name], 1) for name in ("difference", "difference_high", "difference_low")
    )
    return f"{value} points{f' ({low} to {high})' if low != DASH else ''} fewer"


def _points(row: pd.Series) -> str:
    """`−5.1 (−8.0 to −2.2)`; without the interval where there is none."""
    value, low, high = (
        f"{100 * row[name]:+.1f}".replace("-", "−")
        for name in ("difference", "difference_low", "difference_high")
    )
    return f"{value} ({low} to {high})" if row["difference_low"] == row["difference_low"] else value

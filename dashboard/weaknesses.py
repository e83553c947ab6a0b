"""What is told of slices of the test set: sentences and tables, as pure functions of what was read."""

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
            f"{plain(run.label)} is weakest where {plain(worst['grouping'])} is “{plain(worst['slice'])}”: "
            f"{percent(worst['accuracy'])} of {worst['images']:,} images are right, {_points(worst)} points from the "
            "other images of the same classes."
        )
    return " ".join(parts)


def slice_text(table: pd.DataFrame) -> pd.DataFrame:
    """The table of one run as text."""
    return pd.DataFrame(
        {
            "by": table["grouping"],
            "slice": table["slice"],
            "images": table["images"].map("{:,}".format),
            "accuracy": table["accuracy"].map(number),
            "difference (points)": [
                (_points(row) if row["difference"] == row["difference"] else DASH)
                + (" *" if row["decided"] else "")
                for _, row in table.iterrows()
            ],
            "p (Holm)": table["p"].map(number),
        }
    )


def _points(row: pd.Series) -> str:
    """`−5.1 (−8.0 to −2.2)`; without the interval where there is none."""
    value, low, high = (
        f"{100 * row[name]:+.1f}".replace("-", "−")
        for name in ("difference", "difference_low", "difference_high")
    )
    return f"{value} ({low} to {high})" if row["difference_low"] == row["difference_low"] else value

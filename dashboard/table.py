"""The table of runs: its columns, and seeds of one configuration folded into one row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from trainer.evaluation.statistics import seed_spread

_METRIC = "%.3f"
COLUMNS = {
    "run": "name",
    "test accuracy": "test_accuracy",
    "macro recall": "test_macro_recall",
    "recalls": "recalls",
    "validation": "validation_accuracy",
    "curve": "curve",
    "status": "status",
    "dataset": "dataset",
    "architecture": "architecture",
    "mode": "mode",
    "recipe": "recipe",
    "seed": "seed",
    "version": "version",
    "aliases": "aliases",
    "training time": "training_minutes",
    "parameters": "parameters",
    "energy": "estimated_kwh",
    "latency": "latency_ms",
    "macro F1": "test_macro_f1",
    "log loss": "test_log_loss",
    "ECE": "test_ece",
    "started": "started",
}
"""What can be shown: the name that people choose → the column of the snapshot."""
DEFAULT_COLUMNS = [
    *(
        "run",
        "status",
        "dataset",
        "architecture",
        "mode",
        "validation",
        "test accuracy",
        "macro recall",
        "recalls",
    ),
    *("curve", "training time", "parameters", "energy", "version", "aliases"),
]
_AVERAGED = (
    "validation_accuracy",
    "test_accuracy",
    "test_macro_recall",
    "test_macro_f1",
    "test_log_loss",
    "test_ece",
)


def state_of(runs: pd.DataFrame) -> frozenset[tuple[str, ...]]:
    """Which runs there are, and what the table says of them that changes otherwise than by a training that goes on."""
    facts = [runs[name] for name in ("status", "name", "registered", "tested_at")]
    return frozenset(zip(runs.index, runs["aliases"].map(" ".join), *facts, strict=True))


def run_table(
    runs: pd.DataFrame, names: dict[str, str], columns: Sequence[str]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table that is shown, and its column configuration. `runs` as in `Snapshot.runs`, or folded."""
    table = runs.reset_index()
    table["name"] = [names.get(run_id, run_id) for run_id in table["run_id"]]
    if "members" in table:
        table["name"] += table["seeds"].map(lambda n: f"  ({n} seeds)" if n > 1 else "")
    table["recalls"] = [list(recalls.values()) for recalls in table["recalls"]]
    table["version"] = table["versions"].map(_number_first)
    table["aliases"] = table["aliases"].map(", ".join)
    table["training_minutes"] = table["training_seconds"] / 60
    config = column_config()
    if "members" in table:  # their averages are text, which a column of numbers shows as errors
        averaged = [name for name, column in COLUMNS.items() if column in _AVERAGED]
        config |= {name: st.column_config.TextColumn(name, width=130, alignment="right") for name in averaged}
        for name in _AVERAGED:
            table[name] = [
                _with_spread(mean, deviations[name])
                for mean, deviations in zip(table[name], table["deviations"], strict=True)
            ]
    shown = [name for name in COLUMNS if name in columns] or ["run"]
    table = table[[COLUMNS[name] for name in shown]].set_axis(shown, axis=1)
    return table, {name: value for name, value in config.items() if name in shown}


def _number_first(pairs: Sequence[str]) -> str:
    """`faces/9` as `9 (faces)`: a narrow column cuts off the model's name, which most rows share."""
    return ", ".join(f"{number} ({name})" for name, _, number in (pair.rpartition("/") for pair in pairs))


def column_config() -> dict[str, Any]:
    column = st.column_config
    numbers = {
        name: column.NumberColumn(name, format=_METRIC, width=90)
        for name in ("validation", "test accuracy", "macro recall", "macro F1", "log loss", "ECE")
    }
    return numbers | {
        "run": column.TextColumn("run", pinned=True, width="medium"),
        "recalls": column.BarChartColumn(
            "recall by class",
            y_min=0,
            y_max=1,
            width=120,
            help="Classes in alphabetical order; full height is 1.",
        ),
        "curve": column.LineChartColumn("validation curve", y_min=0, y_max=1, width=120),
        "seed": column.NumberColumn("seed", format="%d", width=60),
        "version": column.TextColumn("version", width=140),
        "aliases": column.TextColumn("aliases", width=90),
        "training time": column.NumberColumn("training (min)", format="%.1f", width=105),
        "parameters": column.NumberColumn("parameters", format="compact", width=90),
        "latency": column.NumberColumn(
            "latency (ms)", format="%.1f", width=90, help="One image on the CPU of the machine that trained."
        ),
        "energy": column.NumberColumn(
            "energy (kWh)", format="%.4f", width=100, help="An estimate by codecarbon."
        ),
        "started": column.DatetimeColumn("started (UTC)", format="YYYY-MM-DD HH:mm"),
    }


def fold_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a configuration, in the order of `runs`: metrics are means over seeds.

    What goes on, was stopped or failed has no part in them where other seeds were tested. Adds `members`: the run ids
    of the row, `seeds`: how many different ones were tested, and `deviations`: metric → standard deviation over seeds
    (NaN for one seed). `status` is that of all members, `started` that of the newest; curves and recalls are means over
    the runs that have them, and everything else is the first such run's.
    """
    rows = []
    for _, group in runs.groupby("configuration", sort=False):
        each = one_of_each_seed(group)
        tested = each[each["test_accuracy"].notna()]
        each = tested if len(tested) else each
        row = each.iloc[0].copy()
        row["members"] = list(group.index)
        row["seeds"] = len(tested)
        row["status"] = _statuses(group["status"])
        row["started"] = group["started"].max()
        spreads = {name: seed_spread(each[name].dropna().to_numpy()) for name in _AVERAGED}
        for name, (mean, _) in spreads.items():
            row[name] = mean
        row["deviations"] = {name: deviation for name, (_, deviation) in spreads.items()}
        if len(group) > 1:
            row["curve"] = _mean_curve(each["curve"])
            names = dict.fromkeys(name for recalls in each["recalls"] for name in recalls)
            row["recalls"] = {
                name: float(np.mean([recalls[name] for recalls in each["recalls"] if name in recalls]))
                for name in names
            }
            row["training_seconds"] = each["training_seconds"].mean()
            row["versions"] = sorted({pair for pairs in group["versions"] for pair in pairs}, key=_in_order)
            row["aliases"] = sorted({alias for aliases in group["aliases"] for alias in aliases})
        rows.append(row)
    folded = pd.DataFrame(rows, columns=[*runs.columns, "members", "seeds", "deviations"])
    folded.index.name = "run_id"
    return folded


def _statuses(statuses: pd.Series) -> str:
    """`finished`, or `3 finished, 1 running` where they differ."""
    counts = statuses.value_counts().sort_index()
    if len(counts) == 1:
        return str(counts.index[0])
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def _with_spread(mean: float, deviation: float) -> str | None:
    if mean != mean:
        return None
    return f"{mean:.3f} ± {deviation:.3f}" if deviation == deviation else f"{mean:.3f}"


def one_of_each_seed(runs: pd.DataFrame) -> pd.DataFrame:
    """Without those that repeat a seed of their configuration: the newest that was tested is kept, else the newest."""
    tested = runs["test_accuracy"].notna()
    ranked = runs.assign(tested=tested).sort_values(["tested", "started"], ascending=False, kind="stable")
    repeated = ranked.duplicated(["configuration", "seed"]) & ranked["seed"].notna()
    return runs[~repeated.reindex(runs.index)]


def _in_order(pair: str) -> tuple[str, int]:
    """`faces/9` comes before `faces/10`."""
    name, _, number = pair.rpartition("/")
    return name, int(number)


def _mean_curve(curves: pd.Series) -> list[float]:
    """Over the epochs that all runs with a curve have."""
    known = [curve for curve in curves if curve]
    length = min(map(len, known), default=0)
    return np.mean([curve[:length] for curve in known], axis=0).tolist() if length else []

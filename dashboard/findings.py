"""What the Compare page and its report say: which runs can be compared, and sentences and tables on how they differ."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from dashboard import cache, frame
from dashboard.selection import Chosen, differing_parameters
from dashboard.table import one_of_each_seed
from dashboard.text import DASH, duration, large, number, plain, signed
from trainer.evaluation.comparison import (
    CALIBRATION_NOTE,
    FEWEST_APART,
    Comparison,
    Predictions,
    reference_order,
    seed_verdict,
    verdict,
)
from trainer.evaluation.statistics import sampling_error, seed_spread, wilson
from trainer.store.snapshot import Snapshot

METRICS = {
    "accuracy": "accuracy",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "log_loss": "log loss ↓",
    "brier": "Brier score ↓",
    "ece": "ECE ↓",
}
COSTS = {
    "training time": ("training_seconds", "s", duration),
    "parameters": ("parameters", "number", large),
    "size": ("size_bytes", "MB", lambda v: DASH if v != v else f"{v / 1e6:.1f} MB"),
    "latency": ("latency_ms", "ms, one image on the CPU", lambda v: DASH if v != v else f"{v:.1f} ms"),
    "multiply-adds": ("gmacs", "GMACs", lambda v: DASH if v != v else f"{v:.3f} G"),
    "energy": ("estimated_kwh", "Wh, an estimate", lambda v: DASH if v != v else f"{1000 * v:.1f} Wh"),
}
"""Name → column of the runs, unit of a chart (see `cost_values`), and how a table writes a value."""
_PER_UNIT = {"size": 1e-6, "energy": 1000.0}
_LONG_SECONDS = 120
LEAST_POINTS = 0.05
"""Of accuracy for which a price is told: less is written as 0.0."""
_SEED = re.compile(r" · seed \d+")


def compare_all(snapshot: Snapshot, chosen: Sequence[Chosen]) -> tuple[dict[str, Comparison], dict[str, str]]:
    """Each run against the first: run_id → comparison, corrected for their number, and run_id → why there is none,
    which names the run."""
    found: dict[str, Comparison] = {}
    reasons: dict[str, str] = {}
    for run in chosen[1:]:
        if reason := _obstacle(snapshot, chosen[0], run):
            reasons[run.run_id] = reason
        else:
            found[run.run_id] = cache.comparison(chosen[0].run_id, run.run_id)
    return {run_id: replace(one, among=len(found)) for run_id, one in found.items()}, reasons


def _obstacle(snapshot: Snapshot, first: Chosen, second: Chosen) -> str:
    """Why two runs cannot be compared, with the label of that which has nothing to be compared by; empty where they
    can."""
    for run in (first, second):
        if (status := snapshot.runs.loc[run.run_id, "status"]) != "finished":
            return f"{run.label} is {status} and has no test results"
    answers = {}
    for run in (first, second):
        if isinstance(found := cache.predictions(run.run_id, "finished"), str):
            return f"{run.label}: {found}"
        answers[run.run_id] = found
    if reason := frame.different_tests(snapshot, answers, first.run_id, second.run_id):
        return f"{second.label} was tested on other data than {first.label} ({reason})"
    return ""


def headline(
    runs: pd.DataFrame,
    chosen: Sequence[Chosen],
    comparisons: Mapping[str, Comparison],
    reasons: Mapping[str, str],
) -> str:
    """The verdict on the first two, or on the best against the second best, of configurations where two or more have
    several seeds, else of runs; Markdown."""
    if len(chosen) == 1:
        row = runs.iloc[0]
        tested = row["test_accuracy"] == row["test_accuracy"]
        has = (
            f"has {number(row['test_accuracy'])} test accuracy"
            if tested
            else f"is {row['status']}, without test results"
        )
        return f"{plain(chosen[0].label)} {has}; choose a second run to compare."
    if not comparisons:
        cannot = "These runs cannot be compared"
        if len(chosen) > 2:
            cannot = f"No run can be compared with {plain(chosen[0].label)}, the first one"
        return f"{cannot}. {plain(next(iter(reasons.values())))}."
    labels = {run.run_id: run.label for run in chosen}
    if len(chosen) == 2:
        return plain(verdict(next(iter(comparisons.values())), chosen[0].label, chosen[1].label))
    comparable = [chosen[0].run_id, *comparisons]
    seeds = one_of_each_seed(runs.loc[comparable])
    groups = [list(runs_of.index) for _, runs_of in seeds.groupby("configuration", sort=False)]
    if len(groups) == 1 and len(seeds) > 1:
        return _one_configuration(seeds["test_accuracy"].to_numpy(), next(iter(comparisons.values())).size)
    repeated = [group for group in groups if len(group) > 1]
    if len(repeated) > 1:
        order = reference_order([runs.loc[group, "test_accuracy"].mean() for group in repeated])
        which = " with several seeds" if len(repeated) < len(groups) else ""
        next_best = f", the next best of {len(repeated)} configurations{which}," if len(groups) > 2 else ""
        return _two_configurations([repeated[order[i]] for i in (1, 0)], labels, next_best)
    order = reference_order(list(runs.loc[comparable, "test_accuracy"]))
    best, second = (comparable[order[i]] for i in (0, 1))
    pair = replace(cache.comparison(second, best), among=len(comparisons))  # as in the table
    return plain(verdict(pair, f"{labels[second]}, the next best of {len(comparable)} runs,", labels[best]))


def _one_configuration(accuracies: np.ndarray, size: int) -> str:
    """What seeds change, beside what another test set of that size would."""
    mean, deviation = seed_spread(accuracies)
    return (
        f"{len(accuracies)} seeds of one configuration: test accuracy {number(mean)} ± {number(deviation)} between "
        f"seeds (standard deviation), beside ± {number(sampling_error(mean, size))} by the sampling of {size:,} images "
        "(standard error of one accuracy)."
    )


def _two_configurations(groups: Sequence[Sequence[str]], labels: Mapping[str, str], next_best: str) -> str:
    """The verdict on their seeds; groups: ids of runs that are compared with each other. next_best: said of the first
    group."""
    names = [_SEED.sub("", labels[group[0]]) for group in groups]
    if names[0] == names[1]:
        names = [" and ".join(labels[run_id] for run_id in group) for group in groups]
    found = [[cache.predictions(run_id, "finished") for run_id in group] for group in groups]
    a, b = ([answers for answers in group if isinstance(answers, Predictions)] for group in found)
    return plain(seed_verdict(a, b, names[0] + next_best, names[1]))


def metric_table(
    runs: pd.DataFrame, chosen: Sequence[Chosen], comparisons: Mapping[str, Comparison]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics of the runs, and for each comparison the difference with its interval.

    Returns:
        text: rows are metrics.
        decided, bool, the same shape: see `Comparison.decided_metrics`.
    """
    text: dict[str, list[str]] = {}
    decided: dict[str, list[bool]] = {}
    for run in chosen:
        row = runs.loc[run.run_id]
        text[run.label] = [number(row[f"test_{name}"]) for name in METRICS]
        decided[run.label] = [False] * len(METRICS)
    for run in chosen[1:]:
        if run.run_id not in comparisons:
            continue
        found = comparisons[run.run_id].metrics.set_index("metric").loc[list(METRICS)]
        column = "difference" if len(chosen) == 2 else f"{run.label} − {chosen[0].label}"
        intervals = zip(found["difference"], found["low"], found["high"], strict=True)
        text[column] = [
            signed(value) + (f" ({signed(low)} to {signed(high)})" if low == low else "")
            for value, low, high in intervals
        ]
        decided[column] = list(comparisons[run.run_id].decided_metrics[list(METRICS)])
    index = pd.Index(METRICS.values(), name="metric")
    return pd.DataFrame(text, index=index), pd.DataFrame(decided, index=index)


def metric_note(chosen: Sequence[Chosen], comparisons: Mapping[str, Comparison], mark: str = "bold") -> str:
    """What stands below `metric_table`, where there are differences; no Markdown. mark: that of what is decided."""
    pair = next(iter(comparisons.values()))
    together = f", corrected for {pair.among} comparisons after Bonferroni" if pair.among > 1 else ""
    return (
        f"Differences are to {chosen[0].label}, with 95% intervals, over the same {pair.size:,} images; {mark}: "
        f"decided (accuracy by exact McNemar, the others where the interval leaves out 0 and {FEWEST_APART} images or "
        f"more tell the two apart{together}); ↓: lower is better. {CALIBRATION_NOTE}"
    )


def parameter_table(snapshot: Snapshot, chosen: Sequence[Chosen], everything: bool = False) -> pd.DataFrame:
    """Rows are parameters, columns runs; only those that differ, unless `everything`."""
    ids = [run.run_id for run in chosen]
    if everything:
        keys = sorted({key for run_id in ids for key in snapshot.params.get(run_id, {})})
        rows = {key: {run_id: snapshot.params.get(run_id, {}).get(key, "") for run_id in ids} for key in keys}
    else:
        rows = differing_parameters(snapshot, ids)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=ids).rename_axis("parameter")
    return table.replace("", DASH).set_axis([run.label for run in chosen], axis=1)


def cost_table(runs: pd.DataFrame, chosen: Sequence[Chosen]) -> pd.DataFrame:
    """One row a run, text; with low and high, the 95% interval of its accuracy. The index is run_id."""
    table = pd.DataFrame({"run": [run.label for run in chosen]}, index=runs.index)
    for name, (column, _, write) in COSTS.items():
        table[name] = runs[column].map(write)
    factor = runs["uncertainty_factor"]
    between = [
        "" if f != f else f" ({1000 * kwh / f:.1f} to {1000 * kwh * f:.1f})"
        for kwh, f in zip(runs["estimated_kwh"], factor, strict=True)
    ]
    table["energy"] += between
    images = runs["test_images"].fillna(0)
    table["low"], table["high"] = wilson(
        (runs["test_accuracy"].fillna(0) * images).to_numpy(), images.to_numpy()
    )
    table.insert(1, "test accuracy", runs["test_accuracy"].map(number))
    return table


def cost_values(runs: pd.DataFrame, cost: str) -> tuple[pd.Series, str]:
    """What each run cost, and the unit, for a chart: that of the tables, and one of minutes from two minutes on."""
    column, unit, _ = COSTS[cost]
    if unit == "s" and runs[column].max() >= _LONG_SECONDS:
        return runs[column] / 60, "min"
    return runs[column] * _PER_UNIT.get(cost, 1.0), unit


def price_table(runs: pd.DataFrame, chosen: Sequence[Chosen], cost: str) -> pd.DataFrame:
    """What a further point of test accuracy costs, from each run that nothing beats to the next dearer one.

    Text; one row a step of LEAST_POINTS or more along the Pareto front of accuracy and `cost`, a key of COSTS; empty
    where one run is the cheapest and the best, or where test sets differ.
    """
    column, _, write = COSTS[cost]
    labels = {run.run_id: run.label for run in chosen}
    known = runs[runs[column].notna() & runs["test_accuracy"].notna()].sort_values(
        [column, "test_accuracy"], ascending=[True, False]
    )
    columns = ["from", "to", "more accuracy (points)", f"more {cost}", f"{cost} for each point"]
    if known["test_fingerprint"].nunique() > 1 or known.empty:
        return pd.DataFrame(columns=columns)
    steps = []
    runs_up = known.iterrows()
    cheap, before = next(runs_up)
    for dear, after in runs_up:
        points = 100 * (after["test_accuracy"] - before["test_accuracy"])
        if points < LEAST_POINTS:
            continue
        added = after[column] - before[column]
        steps.append(
            (labels[str(cheap)], labels[str(dear)], number(points, 1), write(added), write(added / points))
        )
        cheap, before = dear, after
    return pd.DataFrame(steps, columns=columns)


def parallel_table(snapshot: Snapshot, chosen: Sequence[Chosen], most: int = 8) -> pd.DataFrame:
    """One row a run, by its label: parameters that differ, and results; only runs that have a test accuracy."""
    runs = snapshot.runs.loc[[run.run_id for run in chosen]]
    skipped = {"data_dir", "git_commit", "device_used"}
    differing = {
        k: v
        for k, v in differing_parameters(snapshot, list(runs.index)).items()
        if k not in skipped and "fingerprint" not in k
    }
    table = pd.DataFrame(differing).reindex(runs.index).fillna("")
    table = table[list(table.columns[:most])]
    table["training minutes"] = runs["training_seconds"] / 60
    table["macro recall"] = runs["test_macro_recall"]
    table["test accuracy"] = runs["test_accuracy"]
    return table.set_axis([run.label for run in chosen])[table["test accuracy"].notna().to_numpy()]

"""Prints results for people: outcomes, evaluations with slices, comparisons and audits, as tables and sentences."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.wording import duration

if TYPE_CHECKING:
    import pandas as pd

    from trainer.evaluation.audit import Audit
    from trainer.evaluation.comparison import Comparison
    from trainer.evaluation.metrics import Evaluation
    from trainer.training.run import Outcome


LEAST_COLUMNS = 60
"""In fewer, tables would be cut within their figures."""


def screen() -> Console:
    """Standard output; where a terminal is narrow, lines wrap, and figures stay whole."""
    return Console(width=max(Console().width, LEAST_COLUMNS))


def outcome_table(outcomes: Sequence["Outcome"]) -> None:
    """One column a run: what it reached on test, what it cost, and where to look next."""
    table = Table(title="Test results of the best validation epoch", title_justify="left", show_edge=False)
    table.add_column()
    rows: dict[str, list[str]] = {}
    for outcome in outcomes:
        config = outcome.config
        table.add_column(f"{config.architecture} · {config.mode}", justify="right")
        values = {
            "accuracy": number(outcome.test.summary["accuracy"]),
            "macro recall": number(outcome.test.summary["macro_recall"]),
            **{f"recall of {escape(name)}": value for name, value in recalls(outcome.test).items()},
            "test images": f"{outcome.test.size:,}",
            "best epoch": f"{outcome.best_epoch.number} of {outcome.epochs}",
            "training time": duration(outcome.training_seconds),
            "images/s": f"{outcome.images_per_second:,.0f}",
            "version": "waits for the server"
            if outcome.version is None
            else escape(f"{outcome.model_name}/{outcome.version}")
            + (" @champion" if outcome.is_champion else ""),
        }
        for name, value in values.items():
            rows.setdefault(name, []).append(value)
    for name, row in rows.items():
        table.add_row(name, *row)
    console = screen()
    console.print(table)
    last = outcomes[-1]
    if last.version is None:
        console.print("\nSend it to the server: python -m trainer deliver", highlight=False, markup=False)
        return
    alias = "@champion" if any(outcome.is_champion for outcome in outcomes) else f"/{last.version}"
    console.print(
        f"\nCompare the runs:    make dashboard\n"
        f"List them here:      python -m trainer runs\n"
        f"Try a model:         python -m trainer predict {last.model_name}{alias} IMAGE\n"
        f"Promote a version:   python -m trainer promote {last.model_name} {last.version}",
        highlight=False,
        markup=False,
        soft_wrap=True,  # commands are copied
    )


def evaluation_table(title: str, evaluation: "Evaluation") -> None:
    """Precision, recall, F1 and support of each class, then summary metrics and the most confused pairs."""
    from trainer.evaluation.metrics import confused_pairs, percent

    table = Table(title=escape(title), title_justify="left", show_edge=False)
    for column in ("class", "recall", "precision", "F1", "support"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for index, name in enumerate(evaluation.class_names):
        values = {metric: column[index] for metric, column in evaluation.per_class.items()}
        shown = [number(values[metric]) for metric in ("recall", "precision", "f1")]
        table.add_row(escape(name), *shown, f"{values['support']:,.0f}")
    console = screen()
    console.print(table)
    summary = "  ".join(
        f"{name.replace('_', ' ')} {number(value)}" for name, value in evaluation.summary.items()
    )
    console.print(f"\n{evaluation.size:,} images: {summary}", highlight=False, soft_wrap=True)
    pairs = confused_pairs(evaluation).head(5)
    worst = "; ".join(
        f"{truth} taken for {prediction} {percent(share)} ({count})"
        for truth, prediction, count, share in pairs.itertuples(index=False)
    )
    if worst:
        console.print(f"Most confused: {worst}\n", highlight=False, soft_wrap=True, markup=False)


def comparison_tables(comparison: "Comparison", name_a: str, name_b: str) -> None:
    """Metrics, then the recall of each class, with the difference B − A and its 95% interval."""
    from trainer.evaluation.comparison import CALIBRATION_NOTE

    console = screen()
    metrics = Table(title=escape(f"A: {name_a}, B: {name_b}"), title_justify="left", show_edge=False)
    for column in ("metric", "A", "B", "B − A", "95% interval"):
        metrics.add_column(column, justify="left" if column == "metric" else "right")
    for row in comparison.metrics.itertuples():
        interval = "–" if math.isnan(row.low) else f"{row.low:+.3f} to {row.high:+.3f}"
        metrics.add_row(
            row.metric.replace("_", " "), number(row.a), number(row.b), difference(row.difference), interval
        )
    console.print(metrics)
    console.print(CALIBRATION_NOTE, highlight=False, soft_wrap=True)
    classes = Table(title="Recall of each class", title_justify="left", show_edge=False)
    for column in ("class", "images", "A", "B", "B − A", "95% interval", "p (Holm)"):
        classes.add_column(column, justify="left" if column == "class" else "right")
    for _, row in comparison.classes.iterrows():
        interval = "–" if math.isnan(row["low"]) else f"{row['low']:+.3f} to {row['high']:+.3f}"
        classes.add_row(
            escape(row["class"]), f"{row['support']:,}", number(row["a"]), number(row["b"]),
            difference(row["difference"]), interval, p_value(row["p"], row["decided"]),
        )  # fmt: skip
    console.print(classes)
    c = comparison
    console.print(
        f"{c.size:,} images: both right {c.both_right:,}, only A {c.only_a:,}, only B {c.only_b:,}, "
        f"both wrong {c.both_wrong:,}; exact McNemar p = {c.p:.3g}. * decided, corrected after Holm.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def audit_tables(audit: "Audit") -> None:
    """Images of each class and part, twins, and how much of each kind was found."""
    from trainer.evaluation.audit import class_counts, sections, suggestions, twin_counts

    console = screen()
    counts = class_counts(audit)
    classes = Table(title="Images", title_justify="left", show_edge=False)
    for column in ("class", *counts.columns):
        classes.add_column(column, justify="left" if column == "class" else "right")
    for name, row in counts.iterrows():
        classes.add_row(
            escape(str(name)), *(f"{value:,}" for value in row), end_section=name == counts.index[-2]
        )
    console.print(classes)
    twins = Table(title="Near-duplicates", title_justify="left", show_edge=False)
    for column in ("parts", "pairs", "with different labels"):
        twins.add_column(column, justify="left" if column == "parts" else "right")
    for parts, pairs, differing, share in twin_counts(audit).itertuples(index=False):
        twins.add_row(parts, f"{pairs:,}", f"{differing:,} ({share:.1%})")
    if twins.row_count:
        console.print(twins)
    for section in sections(audit):
        count = f"{len(section.rows):,}" if section.looked_for else "not looked for"
        console.print(f"{section.title}: {count}", highlight=False, markup=False)
    worst = [f"{label} rather {other} ({count:,})" for label, other, count in suggestions(audit.of("label"))]
    if worst:
        console.print(
            f"Most suspected: {'; '.join(worst[:5])}", highlight=False, soft_wrap=True, markup=False
        )


def slice_table(table: "pd.DataFrame") -> None:
    """Accuracy in each slice, and how far it is from the other images of the same classes."""
    shown = Table(title="Slices of the test set", title_justify="left", show_edge=False)
    for column in ("by", "slice", "images", "accuracy", "points", "p (Bonferroni)"):
        text = column in ("by", "slice")  # where it is narrow, names go on in a second line, figures do not
        shown.add_column(column, justify="left" if text else "right", no_wrap=not text)
    for row in table.itertuples():
        points = [100 * value for value in (row.difference, row.difference_low, row.difference_high)]
        interval = "" if math.isnan(row.difference_low) else " ({:+.1f}…{:+.1f})".format(*points[1:])
        difference = "–" if math.isnan(row.difference) else f"{points[0]:+.1f}{interval}"
        shown.add_row(
            escape(row.grouping), escape(row.slice), f"{row.images:,}", number(row.accuracy),
            difference,
            p_value(row.p, row.decided),
        )  # fmt: skip
    console = screen()
    console.print(shown)
    console.print(
        "Points: accuracy less that of all other images, class by class (Mantel–Haenszel), with intervals that hold "
        "together in 95% of cases, as p is corrected after Bonferroni. * decided.\n",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def recalls(evaluation: "Evaluation") -> dict[str, str]:
    values = evaluation.per_class["recall"].tolist()
    return dict(zip(evaluation.class_names, map(number, values), strict=True))


def p_value(p: float, decided: bool) -> str:
    """With a star where it decides; as it stands in the last column, figures stay below each other."""
    shown = "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"
    return f"{shown} {'*' if decided else ' '}"


def difference(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.3f}"


def number(value: float) -> str:
    """Three decimals; missing is not zero."""
    return "–" if math.isnan(value) else f"{value:.3f}"

"""A comparison as one HTML file that opens without a network."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pandas as pd
import plotly.graph_objects as go

from dashboard import cache, charts
from dashboard.findings import cost_table, headline, metric_note, metric_table, parameter_table
from dashboard.recalls import class_table, macro_values
from dashboard.selection import Chosen
from dashboard.text import tag
from trainer.evaluation.comparison import (
    Comparison,
    Predictions,
    difference_matrix,
    verdict,
)
from trainer.store.snapshot import Snapshot

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1b1f24;max-width:1100px;margin:2.5rem auto;padding:0 1.25rem}
h1{font-size:1.55rem;line-height:1.3;margin:0 0 1.5rem}h2{font-size:1.15rem;margin:2.25rem 0 .6rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;max-width:100%}
th,td{padding:.3rem .9rem .3rem 0;border-bottom:1px solid #dde2e7;text-align:right;vertical-align:top}
th:first-child,td:first-child,tbody th{text-align:left;font-weight:400}thead th{font-weight:600}
.scroll{overflow-x:auto}p.small{color:#5b636b;font-size:.87rem}
"""


def comparison_html(
    snapshot: Snapshot,
    chosen: Sequence[Chosen],
    comparisons: Mapping[str, Comparison],
    reasons: Mapping[str, str],
) -> str:
    """The findings of the Compare page with their tables and charts."""
    runs = snapshot.runs.loc[[run.run_id for run in chosen]]
    sentence = headline(runs, chosen, comparisons, reasons).replace("\\", "")
    history = cache.histories([run.run_id for run in chosen], cache.progress(runs))
    metrics, decided = metric_table(runs, chosen, comparisons)
    parts = [
        f"<h1>{tag(sentence)}</h1>",
        _table("Test metrics", metrics.mask(decided, metrics + " *")),
        f'<p class="small">{tag(metric_note(chosen, comparisons, mark="*"))}</p>' if comparisons else "",
        _table("What was done differently", parameter_table(snapshot, chosen)),
        _table("What it cost", cost_table(runs, chosen).drop(columns=["low", "high"]).set_index("run")),
    ]
    figures = [
        charts.learning_curves(
            history, chosen, quantity, axis="epoch", smoothing=0.0, best_epochs=runs["best_epoch"].to_dict()
        )
        for quantity in ("accuracy", "loss")
    ]
    answers = {run.run_id: cache.predictions(run.run_id, runs.at[run.run_id, "status"]) for run in chosen}
    found = {run_id: answer for run_id, answer in answers.items() if isinstance(answer, Predictions)}
    with_classes = [
        run for run in chosen if run.run_id in {chosen[0].run_id, *comparisons} and run.run_id in found
    ]
    if with_classes:
        table = class_table({run.run_id: found[run.run_id] for run in with_classes}, "recall")
        figures.append(charts.class_dots(table, with_classes, "recall", macro_values(table)))
    for run in chosen[1:]:
        if run.run_id in comparisons:
            a, b = found[chosen[0].run_id], found[run.run_id]
            if len(comparisons) > 1:
                parts.append(f"<p>{tag(verdict(comparisons[run.run_id], chosen[0].label, run.label))}</p>")
            title = f"Confusion of {tag(run.label)} − {tag(chosen[0].label)}, points; grey: may be chance"
            points, decided = difference_matrix(a, b)
            figures.append(charts.difference_matrix(points, decided, a.class_names, title, theme="light"))
    parts += [_chart(figure, first=index == 0) for index, figure in enumerate(figures)]
    parts += [f'<p class="small">{tag(f"Not compared: {reason}")}</p>' for reason in reasons.values()]
    lines = [f"{run.label}: run {run.run_id}, {runs.at[run.run_id, 'name']}" for run in chosen]
    parts += ["<h2>Runs</h2>", *(f'<p class="small">{tag(line)}</p>' for line in lines)]
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts.append(f'<p class="small">Made by Moodify on {made}.</p>')
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Comparison</title><style>{STYLE}</style><body>{''.join(parts)}</body></html>"
    )


def _table(title: str, table: pd.DataFrame) -> str:
    if table.empty:
        return ""
    return f'<h2>{tag(title)}</h2><div class="scroll">{table.to_html(border=0, escape=True, index_names=False)}</div>'


def _chart(figure: go.Figure, *, first: bool) -> str:
    """Under its title; Plotly's own code is written into the file, once."""
    chart = figure.to_html(
        full_html=False, include_plotlyjs="inline" if first else False, config={"displaylogo": False}
    )
    return f"<h2>{charts.title_of(figure)}</h2>{chart}"

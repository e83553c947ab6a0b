"""What a run cost for what it reached, and which settings mattered."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard.charts.style import interval, style
from dashboard.selection import Chosen
from dashboard.text import percent, tag

LONGEST_BESIDE = 20
"""Letters of a name that has room beside its point on a phone."""


def cost_scatter(table: pd.DataFrame, chosen: Sequence[Chosen], cost: str, unit: str) -> go.Figure:
    """Test accuracy against what it cost. table: index run_id, columns cost and test_accuracy, low, high.

    Names stand beside the points where nothing crosses them, else in a legend.
    """
    figure = go.Figure()
    table = table.loc[[run.run_id for run in chosen]]
    table = table[np.isfinite(table[cost]) & np.isfinite(table["test_accuracy"])]
    drawn = [run for run in chosen if run.run_id in table.index]
    beside = _names_fit(table, drawn)
    for run in drawn:
        row = table.loc[run.run_id]
        figure.add_scatter(
            x=[row[cost]], y=[row["test_accuracy"]], mode="markers+text" if beside else "markers",
            text=[tag(run.label)], name=tag(run.label), showlegend=not beside, cliponaxis=False,
            textposition="middle right" if 2 * row[cost] <= table[cost].max() else "middle left",
            marker={"color": run.colour, "size": 12, "symbol": run.marker},
            error_y=interval(table.loc[[run.run_id]], "test_accuracy", run.colour),
            hovertemplate=f"{tag(run.label)}<br>{cost} %{{x:,.4g}} {unit}<br>accuracy %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    style(figure, f"Test accuracy against {cost}", 380)
    figure.update_layout(showlegend=not beside)
    figure.update_xaxes(title_text=f"{cost} ({unit})", rangemode="tozero")
    figure.update_yaxes(title_text="test accuracy (95% interval)")
    return figure


def _names_fit(table: pd.DataFrame, drawn: Sequence[Chosen]) -> bool:
    """Whether no name is long, and none stands at the height of another run's interval."""
    if not drawn or max(len(run.label) for run in drawn) > LONGEST_BESIDE:
        return False
    height = table["test_accuracy"].to_numpy()[:, None]
    room = 0.04 * (table["high"].max() - table["low"].min())
    crossed = (table["low"].to_numpy() - room <= height) & (height <= table["high"].to_numpy() + room)
    return int(crossed.sum()) == len(table)  # each by its own alone


def importance_bars(shares: Mapping[str, float]) -> go.Figure:
    """Setting → share in [0, 1], the largest on top."""
    names = [tag(name.replace("_", " ")) for name in shares]
    figure = go.Figure(
        go.Bar(
            x=list(shares.values()), y=names, orientation="h", marker={"color": "#0072B2"},
            text=[percent(share) for share in shares.values()], textposition="outside", cliponaxis=False,
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )  # fmt: skip
    style(figure, "What mattered", 90 + 44 * len(names))
    figure.update_xaxes(range=[0, 1.12], tickformat=".0%", dtick=0.25)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure

"""What settings and cost have to do with what was reached."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard.charts.style import style
from dashboard.selection import Chosen
from dashboard.text import DASH, percent, tag


def cost_scatter(table: pd.DataFrame, chosen: Sequence[Chosen], cost: str, unit: str) -> go.Figure:
    """Test accuracy against what it cost. table: index run_id, columns cost and test_accuracy, low, high."""
    figure = go.Figure()
    for run in chosen:
        row = table.loc[run.run_id]
        if not np.isfinite(row[cost]) or not np.isfinite(row["test_accuracy"]):
            continue
        figure.add_scatter(
            x=[row[cost]], y=[row["test_accuracy"]], mode="markers+text", text=[tag(run.label)], name=tag(run.label),
            textposition="top center", marker={"color": run.colour, "size": 12, "symbol": run.marker},
            error_y={
                "type": "data", "array": [row["high"] - row["test_accuracy"]],
                "arrayminus": [row["test_accuracy"] - row["low"]], "color": run.colour, "width": 0, "thickness": 1.4,
            },
            hovertemplate=f"{tag(run.label)}<br>{cost} %{{x:,.4g}} {unit}<br>accuracy %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    style(figure, f"Test accuracy against {cost}", 380)
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title_text=f"{cost} ({unit})", rangemode="tozero")
    figure.update_yaxes(title_text="test accuracy (95% interval)")
    return figure


def parallel_coordinates(table: pd.DataFrame, colour_by: str) -> go.Figure:
    """Each run a line through its parameters and results.

    table: one row a run, numeric columns or text, which may lack values; the column `colour_by` decides the colour.
    """
    dimensions = [
        {"label": tag(str(name).replace("_", " ")), **_dimension(column)} for name, column in table.items()
    ]
    line = {
        "color": table[colour_by],
        "colorscale": "Cividis",
        "showscale": True,
        "colorbar": {"title": colour_by.replace("_", " ")},
    }
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line))
    style(figure, "", 420)
    figure.update_layout(margin={"l": 70, "r": 40, "t": 60, "b": 30})
    return figure


def _dimension(column: pd.Series) -> dict[str, Any]:
    """Numbers where every run has one; else a place for each value, in the order of numbers where they are such."""
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.notna().all():
        return {"values": numbers}
    missing = column.isna() | (column == "")
    kinds = pd.DataFrame({"text": column.astype(object).where(~missing, DASH).map(_short), "number": numbers})
    kinds = kinds[~missing].drop_duplicates("text")
    kinds = kinds.sort_values("text" if numbers[~missing].isna().any() else "number")
    names = [*([DASH] if missing.any() else []), *kinds["text"]]
    places = column.astype(object).where(~missing, DASH).map(_short).map(names.index)
    return {"values": places, "tickvals": list(range(len(names))), "ticktext": [tag(name) for name in names]}


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:18]


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

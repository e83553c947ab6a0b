"""A dot for each class or slice."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard.charts.style import interval, style
from dashboard.selection import GREY, Chosen
from dashboard.text import count, tag
from trainer.evaluation.slices import CONDITIONS, WATERMARK

MARKER_PX = 11
"""From one run's marker to the next one's, within a class."""


def class_dots(
    table: pd.DataFrame, chosen: Sequence[Chosen], metric: str, macro: Mapping[str, float]
) -> go.Figure:
    """Dots with 95% intervals, classes on the rows; two runs are joined to dumbbells.

    table: columns run_id, class, support, value, low, high; classes from top to bottom in the order they come.
    macro: run_id → the mean over classes, a vertical line.
    """
    classes = list(dict.fromkeys(table["class"]))
    support = table.groupby("class")["support"].first()
    labels = [f"{tag(name)}  n = {count(support[name])}" for name in classes]
    position = {name: -index for index, name in enumerate(classes)}
    figure = go.Figure()
    if len(chosen) == 2:
        wide = table.pivot(index="class", columns="run_id", values="value").reindex(classes)
        first, second = (wide.get(run.run_id, pd.Series(np.nan, wide.index)) for run in chosen)
        x = [v for pair in zip(first, second, strict=True) for v in (*pair, None)]
        y = [v for name in classes for v in (position[name],) * 2 + (None,)]
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": GREY, "width": 5},
            opacity=0.35,
            hoverinfo="skip",
            showlegend=False,
        )
    # Runs stand one above the other within a class, so that their intervals can be told apart.
    gap = 0.18 if len(chosen) <= 2 else min(0.16, 0.7 / len(chosen))
    row_px = max(52, MARKER_PX * (len(chosen) + 1))
    ends = (
        " (%{customdata[1]:.3f} to %{customdata[2]:.3f})" if metric != "F1" else ""
    )  # which has no interval
    for index, run in enumerate(chosen):
        rows = table[table["run_id"] == run.run_id]
        shift = (index - (len(chosen) - 1) / 2) * gap
        figure.add_scatter(
            x=rows["value"], y=[position[name] - shift for name in rows["class"]], mode="markers", name=tag(run.label),
            marker={"color": run.colour, "size": 10 if len(chosen) < 5 else 8, "symbol": run.marker},
            error_x=interval(rows, "value", run.colour),
            customdata=np.stack([rows["class"].map(tag), rows["low"], rows["high"]], axis=1) if len(rows) else None,
            hovertemplate=f"{tag(run.label)}<br>%{{customdata[0]}}: {metric} %{{x:.3f}}{ends}<extra></extra>",
        )  # fmt: skip
    means = [
        (run.colour, macro[run.run_id])
        for run in chosen
        if run.run_id in macro and macro[run.run_id] == macro[run.run_id]
    ]
    line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "opacity": 0.8}
    shapes = [
        line | {"x0": mean, "x1": mean, "line": {"color": c, "width": 1, "dash": "dot"}} for c, mean in means
    ]
    bars = " with 95% intervals" if metric != "F1" else ""
    name = metric[0].upper() + metric[1:]
    style(figure, f"{name} of each class{bars}; dotted: mean over classes", 90 + row_px * len(classes))
    figure.update_layout(shapes=shapes)
    figure.update_xaxes(range=[-0.01, 1.01], title_text=metric, dtick=0.2)
    figure.update_yaxes(
        tickvals=[position[name] for name in classes], ticktext=labels, showgrid=False, zeroline=False
    )
    return figure


def slice_dots(tables: Mapping[str, pd.DataFrame], chosen: Sequence[Chosen]) -> go.Figure:
    """Accuracy in each slice with 95% intervals, slices on the rows.

    tables: run_id → `trainer.evaluation.slices.slice_table`; a run may have been asked about fewer slices.
    """
    every = pd.concat(list(tables.values()))
    groupings = list(dict.fromkeys(every["grouping"]))
    keys = list(dict.fromkeys(zip(every["grouping"], every["slice"], strict=True)))
    keys.sort(key=lambda key: groupings.index(key[0]))
    # A gap between groupings tells them apart.
    position = {key: -(index + groupings.index(key[0])) for index, key in enumerate(keys)}
    figure = go.Figure()
    for index, run in enumerate(chosen):
        table = tables[run.run_id]
        shift = (index - (len(chosen) - 1) / 2) * min(0.25, 0.8 / len(chosen))
        rows = [position[key] - shift for key in zip(table["grouping"], table["slice"], strict=True)]
        figure.add_scatter(
            x=table["accuracy"], y=rows, mode="markers", name=tag(run.label),
            marker={"color": run.colour, "size": 9 if len(chosen) < 5 else 7, "symbol": run.marker},
            error_x=interval(table, "accuracy", run.colour),
            customdata=np.stack([[*map(_slice_name, table["grouping"], table["slice"])], table["images"]], axis=1),
            hovertemplate=f"{tag(run.label)}<br>%{{customdata[0]}}, %{{customdata[1]:,}} images: "
            "%{x:.3f}<extra></extra>",
        )  # fmt: skip
    row_px = max(30, 8 * (len(chosen) + 1))
    style(figure, "Accuracy in each slice, with 95% intervals", 90 + row_px * (len(keys) + len(groupings)))
    figure.update_xaxes(title_text="accuracy")
    figure.update_yaxes(
        tickvals=list(position.values()),
        ticktext=[_slice_name(*key) for key in keys],
        showgrid=False, zeroline=False,
    )  # fmt: skip
    return figure


def _slice_name(grouping: str, name: str) -> str:
    """`darkest`, `medium brightness`, and of what a person has grouped by `yes (glasses)`."""
    if grouping not in {*CONDITIONS, WATERMARK}:
        return tag(f"{name} ({grouping})")
    return tag(f"{name} {grouping}" if name == "medium" else name)

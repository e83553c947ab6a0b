"""Curves over epochs, times, trials, versions and strengths of corruption."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.charts.style import SHARES, interval, style
from dashboard.selection import GREY, Chosen
from dashboard.text import tag

MOST_TICKS = 10
"""Of whole numbers that are each told on an axis."""
RAW = 0.6
"""Opacity of a raw line under its smoothed one: it stays visible on a light and on a dark page."""


def learning_curves(
    history: pd.DataFrame, chosen: Sequence[Chosen], quantity: str, *, axis: str, smoothing: float,
    best_epochs: Mapping[str, float],
) -> go.Figure:  # fmt: skip
    """Validation solid, train thin; the chosen epoch marked; the raw line stays visible under a smoothed one.

    history: columns run_id, key, step, value, seconds. axis: `epoch` or `time`. smoothing: weight of the past,
    0 to 0.95. best_epochs: run_id → epoch.
    """
    figure = go.Figure()
    across = "step" if axis == "epoch" else "minutes"
    history = history[np.isfinite(history["value"])].assign(minutes=history["seconds"] / 60)
    widths = {"validation": 2.4, "train": 1.2}
    wanted = history[history["key"].isin([f"{part}/{quantity}" for part in widths])]
    curves = dict(iter(wanted.groupby(["run_id", "key"], sort=False)))
    for run in chosen:
        for part, width in widths.items():
            rows = curves.get((run.run_id, f"{part}/{quantity}"))
            if rows is None:
                continue
            line = {
                "color": run.colour,
                "width": width,
                "dash": run.dash if part == "validation" else "solid",
            }
            hover = f"{tag(run.label)}, {part}: %{{y:.3f}}<extra></extra>"
            if smoothing:
                figure.add_scatter(
                    x=rows[across], y=rows["value"], mode="lines", line=line | {"width": 1}, opacity=RAW,
                    hoverinfo="skip", showlegend=False,
                )  # fmt: skip
            smooth = rows["value"].ewm(alpha=1 - smoothing).mean() if smoothing else rows["value"]
            figure.add_scatter(
                x=rows[across], y=smooth, mode="lines" if len(rows) > 1 else "markers", line=line,
                name=tag(run.label), legendgroup=run.run_id, showlegend=part == "validation", hovertemplate=hover,
            )  # fmt: skip
            if part == "validation" and (at := rows[rows["step"] == best_epochs.get(run.run_id)]).size:
                ring = {"width": 1.5, "color": "white"}
                epoch = int(at["step"].iloc[0])
                figure.add_scatter(
                    x=at[across], y=at["value"], mode="markers", showlegend=False,
                    marker={"color": run.colour, "size": 11, "symbol": run.marker, "line": ring},
                    hovertemplate=f"{tag(run.label)}: chosen, epoch {epoch}: %{{y:.3f}}<extra></extra>",
                )  # fmt: skip
    title = (
        f"{quantity.replace('_', ' ').capitalize()}: validation thick, train thin, the chosen epoch marked"
    )
    unit = " (nats)" if quantity == "loss" else ""
    style(figure, title, 380)
    figure.update_xaxes(title_text="epoch" if axis == "epoch" else "minutes of training", rangemode="tozero")
    figure.update_yaxes(title_text=quantity.replace("_", " ") + unit, **({} if unit else SHARES))
    if axis == "epoch" and len(wanted) and wanted["step"].max() <= MOST_TICKS:
        figure.update_xaxes(dtick=1)  # there is no half an epoch
    return figure


def best_so_far(table: pd.DataFrame, axis: str) -> go.Figure:
    """Each trial a mark, those that were pruned, stopped, lost or failed hollow; the best finished one so far a line.

    table: columns trial, minutes, accuracy, best, status, as they ended. axis: `trial`, by their numbers, or `time`.
    """
    figure = go.Figure()
    if axis == "trial":
        table = table.sort_values("trial", kind="stable")
        finished = table["accuracy"].where(table["status"] == "finished")
        table = table.assign(best=finished.cummax().ffill())
    across = table["minutes" if axis == "time" else "trial"]
    figure.add_scatter(
        x=across, y=table["best"], mode="lines", name="best so far",
        line={"color": "#0072B2", "width": 2.2, "shape": "hv"}, hovertemplate="best so far: %{y:.3f}<extra></extra>",
    )  # fmt: skip
    for name, colour, symbol, rows in (
        ("finished", "#0072B2", "circle", table["status"] == "finished"),
        ("not finished", GREY, "circle-open", table["status"] != "finished"),
    ):
        figure.add_scatter(
            x=across[rows], y=table.loc[rows, "accuracy"], mode="markers", name=name,
            marker={"color": colour, "size": 8, "symbol": symbol}, customdata=table.loc[rows, "trial"],
            hovertemplate=f"trial %{{customdata:.0f}}, {name}: %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    style(figure, "Validation accuracy of each trial, and the best so far", 340)
    if axis == "time":
        figure.update_xaxes(title_text="minutes since the first trial began", rangemode="tozero")
    else:
        few = table["trial"].max() < MOST_TICKS
        figure.update_xaxes(title_text="trial", dtick=1 if few else None, zeroline=False)
    figure.update_yaxes(title_text="validation accuracy", **SHARES)
    return figure


def version_lines(table: pd.DataFrame) -> go.Figure:
    """Accuracy and macro recall over the versions of a model.

    table: columns version, label, test_accuracy, test_macro_recall.
    """
    figure = go.Figure()
    for column, name, colour, symbol in (
        ("test_accuracy", "accuracy", "#0072B2", "circle"),
        ("test_macro_recall", "macro recall", "#E69F00", "square"),
    ):
        figure.add_scatter(
            x=table["version"], y=table[column], mode="lines+markers", name=name, line={"color": colour},
            marker={"size": 9, "symbol": symbol}, customdata=table["label"].map(tag),
            hovertemplate="version %{x}, %{customdata}: %{y:.3f}" + f"<extra>{name}</extra>",
        )  # fmt: skip
    style(figure, "Test metrics over versions", 320)
    ends = (table["version"].min() - 0.5, table["version"].max() + 0.5)  # of one version, no tick for others
    figure.update_xaxes(title_text="version", dtick=1 if len(table) < 25 else None, range=ends)
    figure.update_yaxes(title_text="share", **SHARES)
    return figure


def corruption_curves(table: pd.DataFrame, chosen: Sequence[Chosen], columns: int = 5) -> go.Figure:
    """Accuracy over the strength of each kind of corruption, one small chart a kind.

    table: columns run_id, kind, strength (0: the images as they are), accuracy, low, high.
    """
    kinds = list(dict.fromkeys(table["kind"]))
    rows = -(-len(kinds) // columns)
    figure = make_subplots(
        rows, columns, subplot_titles=[tag(kind).replace(" ", "<br>") for kind in kinds],
        shared_xaxes=True, shared_yaxes=True, horizontal_spacing=0.02, vertical_spacing=0.2,
    )  # fmt: skip
    for run in chosen:
        of_run = table[table["run_id"] == run.run_id]
        for index, kind in enumerate(kinds):
            values = of_run[of_run["kind"] == kind]
            figure.add_scatter(
                x=values["strength"], y=values["accuracy"], mode="lines+markers", name=tag(run.label),
                legendgroup=run.run_id, showlegend=index == 0,
                line={"color": run.colour, "dash": run.dash, "width": 2},
                marker={"symbol": run.marker, "size": 6},
                error_y=interval(values, "accuracy", run.colour, 1),
                hovertemplate=f"{tag(run.label)}<br>{tag(kind)}, strength %{{x}}: %{{y:.3f}}<extra></extra>",
                row=index // columns + 1, col=index % columns + 1,
            )  # fmt: skip
    style(figure, "Accuracy over the strength of each corruption, with 95% intervals", 80 + 210 * rows)
    figure.update_layout(margin={"t": 60}, legend={"y": 1.08})
    figure.update_annotations(font_size=13)
    figure.update_xaxes(dtick=1)
    figure.update_xaxes(title_text="strength", row=rows, col=columns // 2 + 1)
    figure.update_yaxes(range=[0, 1], dtick=0.25)
    return figure

"""Reliability diagrams and curves of coverage."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard.charts.style import interval, style
from dashboard.selection import GREY, Chosen
from dashboard.text import tag
from trainer.evaluation.reliability import Reliability, surer_than

HISTOGRAM_BINS = 20
"""Of the probabilities from 0 to 1, under a reliability diagram."""
CURVE_POINTS = 200
"""More would cost time and show no more."""
LEAST_ANSWERED = 20


def reliability_diagram(
    calibrated: Mapping[str, Reliability], before: Mapping[str, Reliability], chosen: Sequence[Chosen]
) -> go.Figure:
    """Accuracy against what was said, with 95% intervals; below it how many images were told with what confidence.

    calibrated, before: run_id → its reliability with the temperature, and without (dotted).
    """
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "width": 1}, hoverinfo="skip", showlegend=False
    )
    for run in chosen:
        if run.run_id in before:
            _add_bins(figure, run, before[run.run_id].bins, dotted=True)
        _add_bins(figure, run, calibrated[run.run_id].bins)
        edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
        curve = calibrated[run.run_id].curve
        images = np.diff(curve["images"], prepend=0)
        counts = np.histogram(curve["threshold"], edges, weights=images)[0]
        figure.add_scatter(
            x=(edges[1:] + edges[:-1]) / 2, y=counts, mode="lines", showlegend=False, yaxis="y2",
            line={"color": run.colour, "width": 1.5, "shape": "hvh", "dash": run.dash},
            customdata=np.stack([edges[:-1], edges[1:]], axis=1),
            hovertemplate=f"{tag(run.label)}<br>%{{y:,}} images with %{{customdata[0]:.2f}} to "
            "%{customdata[1]:.2f}<extra></extra>",
        )  # fmt: skip
    dotted = "; dotted: before calibration" if before else ""
    style(figure, f"How often an answer is right, by what was said{dotted}; grey: exactly as said", 460)
    figure.update_xaxes(title_text="probability of the answer", range=[0, 1.01], dtick=0.2)
    figure.update_layout(
        yaxis={
            "title": {"text": "share that is right"},
            "range": [0, 1.01],
            "domain": [0.27, 1],
            "dtick": 0.2,
        },
        yaxis2={
            "title": {"text": "images"},
            "domain": [0, 0.17],
            "rangemode": "tozero",
            "nticks": 3,
            "automargin": True,
        },
        xaxis={"anchor": "y2"},
    )
    return figure


def _add_bins(figure: go.Figure, run: Chosen, bins: pd.DataFrame, dotted: bool = False) -> None:
    """One point a bin, joined; with 95% intervals unless `dotted`."""
    name = tag(f"{run.label} before calibration" if dotted else run.label)
    size, width, dash, symbol = (5, 1, "dot", f"{run.marker}-open") if dotted else (8, 2, "solid", run.marker)
    error = interval(bins, "accuracy", run.colour, 1.2) | {"visible": not dotted}
    figure.add_scatter(
        x=bins["confidence"], y=bins["accuracy"], mode="lines+markers", name=name, showlegend=not dotted,
        opacity=0.7 if dotted else 1, error_y=error, line={"color": run.colour, "width": width, "dash": dash},
        marker={"size": size, "symbol": symbol},
        customdata=np.stack([bins["images"], bins["low"], bins["high"]], axis=1),
        hovertemplate=f"{name}<br>said %{{x:.3f}}, right in %{{y:.3f}} (%{{customdata[1]:.3f}} to "
        "%{customdata[2]:.3f})<br>%{customdata[0]:,} images<extra></extra>",
    )  # fmt: skip


def coverage_curves(
    found: Mapping[str, Reliability], chosen: Sequence[Chosen], coverage: float, threshold: float
) -> go.Figure:
    """Accuracy when only the surest answers are given; a line at `coverage`, a ring where `threshold` is reached.

    Below LEAST_ANSWERED images a curve is not drawn: it would show chance.
    """
    figure = go.Figure()
    for run in chosen:
        curve = found[run.run_id].curve
        curve = curve[curve["images"] >= min(LEAST_ANSWERED, curve["images"].max())]
        shown = curve.iloc[np.unique(np.linspace(0, len(curve) - 1, CURVE_POINTS).astype(int))]
        figure.add_scatter(
            x=shown["coverage"], y=shown["accuracy"], mode="lines", name=tag(run.label),
            line={"color": run.colour, "width": 2, "dash": run.dash},
            customdata=np.stack([shown["images"], shown["threshold"]], axis=1),
            hovertemplate=f"{tag(run.label)}<br>the surest %{{x:.0%}} (%{{customdata[0]:,}} images): accuracy "
            "%{y:.3f}<br>from a probability of %{customdata[1]:.3f}<extra></extra>",
        )  # fmt: skip
        ring = {"width": 1.5, "color": "white"}
        at = surer_than(found[run.run_id].curve, threshold)
        if at.images:
            figure.add_scatter(
                x=[at.coverage], y=[at.accuracy], mode="markers", showlegend=False,
                marker={"color": run.colour, "size": 11, "symbol": run.marker, "line": ring},
                hovertemplate=f"{tag(run.label)}<br>sure, {threshold:.2f} or more: %{{x:.0%}} of the images, accuracy "
                "%{y:.3f}<extra></extra>",
            )  # fmt: skip
    style(
        figure,
        f"Accuracy of the surest answers; marked: where a model counts as sure, at {threshold:.2f}",
        460,
    )
    line = {"color": GREY, "width": 1, "dash": "dot"}
    figure.add_shape(type="line", x0=coverage, x1=coverage, yref="paper", y0=0, y1=1, line=line)
    figure.update_xaxes(
        title_text="share of the images that is answered", range=[0, 1.01], tickformat=".0%", dtick=0.2
    )
    figure.update_yaxes(title_text="accuracy of these")
    return figure

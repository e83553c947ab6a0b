"""Confusion matrices, of one run and the difference of two."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from dashboard.charts.style import readable, style
from dashboard.selection import GREY
from dashboard.text import DASH, percent, several, tag

SEQUENTIAL = {
    "light": ((0, "#F4F7FA"), (0.25, "#C3DAEA"), (0.5, "#7FB2D3"), (0.75, "#2F7FB3"), (1, "#063F66")),
    "dark": ((0, "#1B2227"), (0.25, "#1F4A66"), (0.5, "#2C7DAF"), (0.75, "#7DBBE0"), (1, "#E3F2FB")),
}
# Blue for more in B, orange for more in A: told apart by everybody, and neither means good.
DIVERGING = {
    "light": ((0, "#B35806"), (0.25, "#F1A35F"), (0.5, "#F7F7F7"), (0.75, "#6BAED6"), (1, "#08519C")),
    "dark": ((0, "#F0A04B"), (0.25, "#8A5A2B"), (0.5, "#20262B"), (0.75, "#2C6E9B"), (1, "#7CC0EC")),
}
INK = {"light": "#14171A", "dark": "#E7EAED"}
ON_COLOUR = ("#000000", "#FFFFFF")
"""Of which one can be read on every colour."""
UNDECIDED = {"light": "#D9DDE1", "dark": "#3A4147"}
DIFFERENCE_LIMIT = 20
"""Points at which the colours of a difference matrix end; larger differences are written in the cell."""


def confusion_matrix(
    counts: np.ndarray,
    class_names: Sequence[str],
    title: str,
    *,
    normalise: str,
    theme: str,
    most: int | None = None,
) -> go.Figure:
    """Rows are the truth, columns the prediction; share and count in the cells; one scale for all runs.

    counts: int64 (K, K). normalise: `truth` (rows: the diagonal is recall), `prediction` (columns: precision), `none`.
    most: images of the darkest cell for `none`, the highest count of all runs that are shown; None: of this one.
    """
    share = counts / max(most or counts.max(), 1) if normalise == "none" else _shares(counts, normalise)
    text = [
        [
            f"{percent(share[i, j])}<br>{counts[i, j]:,}" if normalise != "none" else f"{counts[i, j]:,}"
            for j in range(len(counts))
        ]
        for i in range(len(counts))
    ]
    colours = [
        [INK[theme] if value != value else readable(SEQUENTIAL[theme], value, ON_COLOUR) for value in row]
        for row in share
    ]
    of = {"truth": " of the truth", "prediction": " of the prediction", "none": ""}[normalise]
    told = [
        [(f"{percent(share[i, j])}{of}, " if of else "") + several(n, "image") for j, n in enumerate(row)]
        for i, row in enumerate(counts.tolist())
    ]
    return _matrix(share, text, told, colours, class_names, title, SEQUENTIAL[theme], (0, 1))


def difference_matrix(
    points: np.ndarray, decided: np.ndarray, class_names: Sequence[str], title: str, *, theme: str
) -> go.Figure:
    """How many points more of each truth B puts where; cells that may be chance are grey.

    points: float64 (K, K), NaN without images. decided: bool (K, K).
    """
    shown = np.where(decided, np.clip(points, -DIFFERENCE_LIMIT, DIFFERENCE_LIMIT), np.nan)
    text = [[DASH if v != v else f"{v:+.1f}".replace("-", "−") for v in row] for row in points]
    quiet = "#5B636B" if theme == "light" else "#A7AFB6"
    colours = [
        [
            quiet
            if value != value
            else readable(DIVERGING[theme], 0.5 + value / (2 * DIFFERENCE_LIMIT), ON_COLOUR)
            for value in row
        ]
        for row in shown
    ]
    figure = _matrix(
        shown,
        text,
        [[f"{words} points" for words in row] for row in text],
        colours,
        class_names,
        title,
        DIVERGING[theme],
        (-DIFFERENCE_LIMIT, DIFFERENCE_LIMIT),
    )
    figure.update_layout(plot_bgcolor=UNDECIDED[theme])
    return figure


def _shares(counts: np.ndarray, normalise: str) -> np.ndarray:
    """float64 (K, K) in [0, 1], NaN where there is nothing to take a share of."""
    total = counts.sum(axis=1, keepdims=True) if normalise == "truth" else counts.sum(axis=0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, counts / total, np.nan)


def _matrix(
    values: np.ndarray,
    text: list[list[str]],
    told: list[list[str]],
    text_colours: list[list[str]],
    class_names: Sequence[str],
    title: str,
    scale: Sequence[tuple[float, str]],
    limits: tuple[float, float],
) -> go.Figure:
    """text: in the cells; told: of the one that is pointed at."""
    size, names = len(class_names), [tag(name) for name in class_names]
    figure = go.Figure()
    figure.add_heatmap(
        z=values,
        colorscale=scale,
        zmin=limits[0],
        zmax=limits[1],
        xgap=1,
        ygap=1,
        showscale=False,
        hoverinfo="skip",
    )
    # Plotly selects points, not cells of a heatmap: one invisible square on each cell is what is clicked.
    rows, columns = (index.ravel() for index in np.indices((size, size)))
    cells = [text[i][j] for i, j in zip(rows, columns, strict=True)]
    figure.add_scatter(
        x=columns, y=rows, mode="markers+text", text=cells,
        textfont={"color": [text_colours[i][j] for i, j in zip(rows, columns, strict=True)], "size": 11},
        marker={"size": 34, "symbol": "square", "opacity": 0.0, "color": GREY},
        customdata=[[names[i], names[j], told[i][j]] for i, j in zip(rows, columns, strict=True)],
        hovertemplate="%{customdata[0]} taken for %{customdata[1]}: %{customdata[2]}<extra></extra>",
        selected={"marker": {"opacity": 0.25}}, unselected={"marker": {"opacity": 0.0}},
    )  # fmt: skip
    outline = {"type": "rect", "line": {"color": GREY, "width": 1.6}}
    diagonal = [outline | {"x0": i - 0.5, "x1": i + 0.5, "y0": i - 0.5, "y1": i + 0.5} for i in range(size)]
    style(figure, title, 110 + 50 * size)
    figure.update_layout(
        showlegend=False, clickmode="event+select", dragmode=False, hovermode="closest", shapes=diagonal
    )
    ticks = {"tickvals": list(range(size)), "ticktext": names, "showgrid": False, "zeroline": False}
    figure.update_xaxes(title_text="prediction", side="bottom", range=[-0.5, size - 0.5], **ticks)
    figure.update_yaxes(title_text="truth", range=[size - 0.5, -0.5], **ticks)
    return figure

"""What all charts have in common."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb, sample_colorscale, unlabel_rgb

CONFIG = {"displaylogo": False, "modeBarButtons": [["toImage"]], "toImageButtonOptions": {"scale": 2}}
"""Of every chart: its picture can be downloaded, and nothing else clutters it."""
INK = """<style>
[data-testid="stPlotlyChart"] :is([class$="tick"], [class^="g-"][class$="title"], .annotation, .colorbar) text
{fill: currentColor !important; fill-opacity: 0.8 !important}
</style>"""
"""Of ticks, titles of axes and notes: in Streamlit's own grey they do not reach a contrast of 4.5:1 on a light page."""
SHARES = {"autorangeoptions": {"clipmin": -0.02, "clipmax": 1.02}}
"""Of an axis of shares: around equal values, or a single one, it would reach from one below to one above."""
LEGEND_LINE_PX = 19
CAMERA_PX = 34
"""Right of the legend, whose last name the camera would cover."""


def style(figure: go.Figure, title: str, height: int) -> None:
    """What all charts have in common; colours of text and grid come from Streamlit's theme.

    height: in px, with a legend of two lines; it grows by what more names take on a phone, so that they take nothing
    from the curves.
    """
    names = [trace for trace in figure.data if trace.name and trace.showlegend is not False]
    legend_px = LEGEND_LINE_PX * len(names)
    figure.update_layout(
        meta={"title": title},
        height=height + max(0, legend_px - 2 * LEGEND_LINE_PX),
        margin={"l": 10, "r": CAMERA_PX if names else 10, "t": 30, "b": 10},
        legend={
            "orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "left", "x": 0,
            "maxheight": max(legend_px + 20, 60), "tracegroupgap": 0,
        },
        hoverlabel={"namelength": -1},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )  # fmt: skip
    figure.update_xaxes(automargin=True)  # a saved report has no theme that would say so
    figure.update_yaxes(automargin=True)


def interval(table: pd.DataFrame, value: str, colour: str, thickness: float = 1.4) -> dict[str, Any]:
    """Bars from `low` to `high` of a table, without caps, around its column `value`: error_x or error_y of a trace."""
    return {
        "type": "data", "array": table["high"] - table[value], "arrayminus": table[value] - table["low"],
        "color": colour, "thickness": thickness, "width": 0,
    }  # fmt: skip


def title_of(figure: go.Figure) -> str:
    """What a chart shows, as HTML; it stands above the chart, where it can wrap."""
    return (figure.layout.meta or {}).get("title", "")


def readable(scale: Sequence[tuple[float, str]], place: float, inks: Sequence[str]) -> str:
    """The ink that stands out most from the colour at `place`, in [0, 1], of a colour scale.

    Contrast as WCAG 2.2 defines it. inks, and the colours of the scale, in hex.
    """
    [found] = sample_colorscale([list(stop) for stop in scale], float(place))
    below = _luminance(unlabel_rgb(found))

    def contrast(ink: str) -> float:
        over = _luminance(hex_to_rgb(ink))
        return (max(over, below) + 0.05) / (min(over, below) + 0.05)

    return max(inks, key=contrast)


def _luminance(rgb: Sequence[float]) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

"""Settings and results of many runs at once: parallel coordinates."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from dashboard.charts.style import style
from dashboard.selection import GREY
from dashboard.text import DASH, large, short, tag

RESULTS = [[0.0, "#0072B2"], [0.5, "#8A8F98"], [1.0, "#D55E00"]]
"""From low to high; each stands out from a white and from a dark page (3:1 or more)."""
SHADES = 25
"""Runs of one shade are one trace: a browser draws some hundreds of lines as fast as these."""
LINE_PX = 46
"""Of the lines from one axis to the next."""
LETTERS, MOST_TICKS = 40, 5
"""Of ticks: what one line holds on a phone, and how many numbers an axis has."""


def parallel_coordinates(table: pd.DataFrame, colour_by: str, logarithmic: Sequence[str] = ()) -> go.Figure:
    """Each run a line through its parameters and results, one axis below the other: names and ticks fit on a phone.

    Drawn as scatter lines: Plotly's own parallel coordinates compile code in the browser, which our policy forbids.

    table: one row a run, by its name; numeric columns or text, which may lack values; the column `colour_by`, which
    lacks none, decides the colour. logarithmic: columns with a logarithmic axis.
    """
    table = table.sort_values(colour_by, kind="stable")  # the best is drawn last, and lies on top
    rows = [_axis(column, log=name in logarithmic) for name, column in table.items()]
    heights = [axis.strip_px for axis in rows]
    tops = np.cumsum([0, *(LINE_PX + height for height in heights[:-1])])
    bottoms = tops + heights
    figure = go.Figure()
    shades = (_share(table[colour_by]) * (SHADES - 1)).round().to_numpy()
    places = np.stack([axis.places for axis in rows]).round(4)
    across = places[:-1]
    figure.add_scatter(
        x=np.stack([across, across, across * np.nan], axis=-1).ravel(), y=_levels(tops[:-1], bottoms[:-1], len(table)),
        mode="lines", line={"color": GREY, "width": 1}, opacity=0.35, hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    for group in np.unique(shades):
        begin, end = places[:-1, shades == group], places[1:, shades == group]
        [colour] = sample_colorscale(RESULTS, group / (SHADES - 1))
        figure.add_scatter(
            x=np.stack([begin, end, end * np.nan], axis=-1).ravel(),
            y=_levels(bottoms[:-1], tops[1:], begin.shape[1]), mode="lines",
            line={"color": colour, "width": 1.6}, hoverinfo="skip", showlegend=False,
        )  # fmt: skip
    figure.add_scatter(
        x=places.ravel(), y=np.repeat(tops, len(table)), mode="markers", showlegend=False,
        marker={"color": np.tile(table[colour_by], len(rows)), "coloraxis": "coloraxis", "size": 6},
        text=[_told(name, row) for name, row in table.iterrows()] * len(rows), hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    ticks = [(x, top, text) for top, axis in zip(tops, rows, strict=True) for x, text in axis.ticks]
    figure.add_scatter(
        x=[x for x, _, _ in ticks], y=[y for _, y, _ in ticks], mode="markers", hoverinfo="skip", showlegend=False,
        marker={"symbol": "line-ns-open", "size": 8, "color": GREY},
    )  # fmt: skip
    written = {"showarrow": False, "yanchor": "top", "yshift": -3, "font": {"size": 11}}
    style(figure, "", 160 + int(bottoms[-1]))
    line = {"type": "line", "x0": 0, "x1": 1, "line": {"color": GREY, "width": 1}, "layer": "below"}
    bar = {
        "orientation": "h",
        "thickness": 10,
        "len": 1,
        "y": 1,
        "yanchor": "bottom",
        "ypad": 20,
        "nticks": 5,
    }
    figure.update_layout(
        margin={"t": 20, "b": 10, "r": 24},
        annotations=[written | {"x": x, "y": int(y), "text": text} for x, y, text in ticks],
        shapes=[line | {"y0": top, "y1": top} for top in tops],
        hovermode="closest",
        coloraxis={
            "colorscale": RESULTS,
            "colorbar": bar | {"title": {"text": tag(colour_by.replace("_", " ")), "side": "top"}},
        },
    )
    figure.update_xaxes(range=[-0.04, 1.04], visible=False, fixedrange=True)
    names = [_wrapped(str(name).replace("_", " ")) for name in table.columns]
    figure.update_yaxes(
        range=[int(bottoms[-1]), -8], tickvals=tops, ticktext=names, showgrid=False, zeroline=False, fixedrange=True
    )  # fmt: skip
    return figure


def _levels(begin: np.ndarray, end: np.ndarray, runs: int) -> np.ndarray:
    """y of so many lines from each of the heights `begin` to the one of `end`, with a gap behind each."""
    return np.repeat(np.stack([begin, end, np.full(len(begin), np.nan)], axis=-1), runs, axis=0).ravel()


@dataclass(frozen=True)
class _Axis:
    """places: of each run, in [0, 1]. ticks: place and text. strip_px: the height that their texts take."""

    places: np.ndarray
    ticks: list[tuple[float, str]]
    strip_px: int


def _axis(column: pd.Series, log: bool) -> _Axis:
    """By number where those that are there are numbers, else a place for each value; a dash first, where some lack."""
    missing = column.isna() | (column == "")
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    numeric = bool(np.isfinite(numbers[~missing]).all())
    if numeric:
        scaled = np.log10(numbers.where(numbers > 0)) if log else numbers
        missing = scaled.isna()
        low, high = scaled.min(), scaled.max()
        known = _share(scaled)
        ticks = [(float(_between(value, low, high)), text) for value, text in _ticks(numbers[~missing], log)]
    else:
        words = column.astype(str)
        kinds = sorted(words[~missing].unique())
        known = words.map({kind: _between(index, 0, len(kinds) - 1) for index, kind in enumerate(kinds)})
        ticks = [(float(_between(i, 0, len(kinds) - 1)), short(kind, 18)) for i, kind in enumerate(kinds)]
    if missing.any():
        begin = 0.14 if ticks else 0.0
        known = (begin + (1 - begin) * known).where(~missing, 0.0)
        ticks = [(0.0, DASH), *((begin + (1 - begin) * place, text) for place, text in ticks)]
    lines = min(-(-sum(len(text) + 2 for _, text in ticks) // LETTERS), len(ticks), 3)
    ticks = [(place, "<br>" * (index % lines) + tag(text)) for index, (place, text) in enumerate(ticks)]
    return _Axis(known.to_numpy(float), ticks, 8 + 15 * lines)


def _ticks(numbers: pd.Series, log: bool) -> list[tuple[float, str]]:
    """Where on the axis, and what is written there: the values themselves where they are few and apart."""
    values = np.unique(numbers)
    if not len(values):
        return []
    place = np.log10 if log else np.asarray
    ends = float(place(values[0])), float(place(values[-1]))
    apart = np.diff(_between(place(values), *ends)).min(initial=1)
    if len(values) > MOST_TICKS or apart < 1 / (MOST_TICKS + 3):
        values = _round_values(values[0], values[-1], log)
        values = values[:: -(-len(values) // MOST_TICKS)]
    return [(float(place(value)), _digits(value)) for value in values]


def _round_values(low: float, high: float, log: bool) -> np.ndarray:
    if log:
        decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        for within in ((1,), (1, 3), (1, 2, 5)):
            found = np.sort(np.outer(decades, within).ravel())
            found = found[(found >= low) & (found <= high)]
            if len(found) > 2:
                return found
    step = (high - low) / MOST_TICKS
    unit = 10.0 ** np.floor(np.log10(step))
    step = next(unit * times for times in (1, 2, 2.5, 5, 10) if unit * times >= step)
    return np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step


def _share(values: pd.Series) -> pd.Series:
    """Of the way from the least to the greatest."""
    return _between(values, values.min(), values.max())


def _between(values: Any, low: float, high: float) -> Any:
    """The middle where the ends are the same."""
    return (values - low) / (high - low) if high > low else values * 0 + 0.5


def _told(name: object, row: pd.Series) -> str:
    settings = [f"{tag(str(key).replace('_', ' '))} {tag(_short(value))}" for key, value in row.items()]
    return "<br>".join([f"<b>{tag(name)}</b>", *settings])


def _short(value: object) -> str:
    if pd.isna(value) or value == "":
        return DASH
    return f"{value:.4g}" if isinstance(value, float) else short(str(value))


def _digits(value: float) -> str:
    return large(value) if value >= 1e5 else f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _wrapped(name: str) -> str:
    return "<br>".join(tag(line) for line in textwrap.wrap(short(name), 15))

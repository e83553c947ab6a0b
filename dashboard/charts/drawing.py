"""A photo to draw on."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go


def drawable(picture: str, width: int, height: int, corners: Sequence[np.ndarray]) -> go.Figure:
    """A photo on which a box can be drawn; positions are px of the photo.

    picture: address of the image. corners: float (4, 2) of each square that is there already.
    """
    figure = go.Figure()
    # A box is told only where it holds points: a grid that nobody sees.
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(0, width, 60), np.linspace(0, height, 60)))
    figure.add_scatter(x=x, y=y, mode="markers", marker={"opacity": 0}, hoverinfo="skip", showlegend=False)
    for square in corners:
        ring = np.concatenate([square, square[:1]])
        figure.add_scatter(
            x=ring[:, 0], y=ring[:, 1], mode="lines", line={"color": "#FFFFFF", "width": 2}, hoverinfo="skip",
            showlegend=False,
        )  # fmt: skip
    figure.add_layout_image(
        source=picture,
        x=0,
        y=0,
        sizex=width,
        sizey=height,
        xref="x",
        yref="y",
        sizing="stretch",
        layer="below",
    )
    figure.update_xaxes(range=[0, width], visible=False, constrain="domain")
    figure.update_yaxes(range=[height, 0], visible=False, scaleanchor="x", constrain="domain")
    figure.update_layout(
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        height=round(max(120, min(560, 860 * height / width))),
        dragmode="select",
    )
    return figure

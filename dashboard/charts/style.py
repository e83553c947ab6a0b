"""What all charts have in common."""

import plotly.graph_objects as go

CONFIG = {"displaylogo": False, "modeBarButtons": [["toImage"]], "toImageButtonOptions": {"scale": 2}}
"""Of every chart: its picture can be downloaded, and nothing else clutters it."""


def style(figure: go.Figure, title: str, height: int) -> None:
    """What all charts have in common; colours of text and grid come from Streamlit's theme."""
    figure.update_layout(
        meta={"title": title},
        height=height,
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "right", "x": 1},
        hoverlabel={"namelength": -1},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )


def title_of(figure: go.Figure) -> str:
    """What a chart shows, as HTML; it stands above the chart, where it can wrap."""
    return (figure.layout.meta or {}).get("title", "")

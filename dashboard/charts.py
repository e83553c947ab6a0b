"""Plotly figures of DataFrames; text and grid colours come from Streamlit's theme."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.selection import GREY, Chosen
from dashboard.text import DASH, count, percent, tag
from trainer.evaluation.reliability import Reliability, surer_than

SEQUENTIAL = {
    "light": ((0, "#F4F7FA"), (0.25, "#C3DAEA"), (0.5, "#7FB2D3"), (0.75, "#2F7FB3"), (1, "#063F66")),
    "dark": ((0, "#1B2227"), (0.25, "#1F4A66"), (0.5, "#2C7DAF"), (0.75, "#7DBBE0"), (1, "#E3F2FB")),
}
# Blue for more in B, orange for more in A: told apart by everybody, and neither means good.
DIVERGING = {
    "light": ((0, "#B35806"), (0.25, "#F1A35F"), (0.5, "#F7F7F7"), (0.75, "#6BAED6"), (1, "#08519C")),
    "dark": ((0, "#F0A04B"), (0.25, "#8A5A2B"), (0.5, "#20262B"), (0.75, "#2C6E9B"), (1, "#7CC0EC")),
}
UNDECIDED = {"light": "#D9DDE1", "dark": "#3A4147"}
DIFFERENCE_LIMIT = 20
"""Points at which the colours of a difference matrix end; larger differences are written in the cell."""
HISTOGRAM_BINS = 20
"""Of the probabilities from 0 to 1, under a reliability diagram."""
CURVE_POINTS = 200
"""More would cost time and show no more."""
LEAST_ANSWERED = 20
CONFIG = {"displaylogo": False, "modeBarButtons": [["toImage"]], "toImageButtonOptions": {"scale": 2}}
"""Of every chart: its picture can be downloaded, and nothing else clutters it."""


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
    widths = {"validation": 2.2, "train": 1.0}
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
                    x=rows[across], y=rows["value"], mode="lines", line=line | {"width": 1}, opacity=0.3,
                    hoverinfo="skip", showlegend=False,
                )  # fmt: skip
            smooth = rows["value"].ewm(alpha=1 - smoothing).mean() if smoothing else rows["value"]
            figure.add_scatter(
                x=rows[across], y=smooth, mode="lines" if len(rows) > 1 else "markers", line=line,
                opacity=1 if part == "validation" else 0.6,
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
    _style(figure, title, 380)
    figure.update_xaxes(title_text="epoch" if axis == "epoch" else "minutes of training", rangemode="tozero")
    figure.update_yaxes(title_text=quantity.replace("_", " ") + unit)
    return figure


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
    gap = 0.18 if len(chosen) <= 2 else min(0.16, 0.6 / len(chosen))
    for index, run in enumerate(chosen):
        rows = table[table["run_id"] == run.run_id]
        shift = (index - (len(chosen) - 1) / 2) * gap
        figure.add_scatter(
            x=rows["value"], y=[position[name] - shift for name in rows["class"]], mode="markers", name=tag(run.label),
            marker={"color": run.colour, "size": 10, "symbol": run.marker},
            error_x={
                "type": "data", "array": rows["high"] - rows["value"], "arrayminus": rows["value"] - rows["low"],
                "color": run.colour, "thickness": 1.4, "width": 0,
            },
            customdata=np.stack([rows["class"].map(tag), rows["low"], rows["high"]], axis=1) if len(rows) else None,
            hovertemplate=f"{tag(run.label)}<br>%{{customdata[0]}}: {metric} %{{x:.3f}} "
            "(%{customdata[1]:.3f} to %{customdata[2]:.3f})<extra></extra>",
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
    interval = " with 95% intervals" if metric != "F1" else ""
    name = metric[0].upper() + metric[1:]
    _style(figure, f"{name} of each class{interval}; dotted: mean over classes", 90 + 52 * len(classes))
    figure.update_layout(shapes=shapes)
    figure.update_xaxes(range=[-0.01, 1.01], title_text=metric, dtick=0.2)
    figure.update_yaxes(
        tickvals=[position[name] for name in classes], ticktext=labels, showgrid=False, zeroline=False
    )
    return figure


def confusion_matrix(
    counts: np.ndarray, class_names: Sequence[str], title: str, *, normalise: str, theme: str
) -> go.Figure:
    """Rows are the truth, columns the prediction; share and count in the cells; one scale for all runs.

    counts: int64 (K, K). normalise: `truth` (rows: the diagonal is recall), `prediction` (columns: precision), `none`.
    """
    share = shares(counts, normalise)
    text = [
        [
            f"{percent(share[i, j])}<br>{counts[i, j]:,}" if normalise != "none" else f"{counts[i, j]:,}"
            for j in range(len(counts))
        ]
        for i in range(len(counts))
    ]
    ends = ("#14171A", "#FFFFFF") if theme == "light" else ("#E7EAED", "#0B1014")
    colours = [[ends[int(value > 0.62)] if value == value else ends[0] for value in row] for row in share]
    words = {"truth": "of the truth", "prediction": "of the prediction", "none": "of the largest cell"}[
        normalise
    ]
    return _matrix(share, text, colours, class_names, title, SEQUENTIAL[theme], (0, 1), f"share {words}")


def difference_matrix(
    points: np.ndarray, decided: np.ndarray, class_names: Sequence[str], title: str, *, theme: str
) -> go.Figure:
    """How many points more of each truth B puts where; cells that may be chance are grey.

    points: float64 (K, K), NaN without images. decided: bool (K, K).
    """
    shown = np.where(decided, np.clip(points, -DIFFERENCE_LIMIT, DIFFERENCE_LIMIT), np.nan)
    text = [[DASH if v != v else f"{v:+.1f}".replace("-", "−") for v in row] for row in points]
    dark_text, light_text = ("#14171A", "#FFFFFF") if theme == "light" else ("#0B1014", "#E7EAED")
    strong = np.abs(np.nan_to_num(shown)) > 0.6 * DIFFERENCE_LIMIT
    quiet = "#5B636B" if theme == "light" else "#A7AFB6"
    on_colour = dark_text if theme == "light" else light_text
    on_strong = light_text if theme == "light" else dark_text
    colours = [
        [quiet if not decided[i, j] else on_strong if strong[i, j] else on_colour for j in range(len(points))]
        for i in range(len(points))
    ]
    figure = _matrix(
        shown,
        text,
        colours,
        class_names,
        title,
        DIVERGING[theme],
        (-DIFFERENCE_LIMIT, DIFFERENCE_LIMIT),
        "points",
    )
    figure.update_layout(plot_bgcolor=UNDECIDED[theme])
    return figure


def shares(counts: np.ndarray, normalise: str) -> np.ndarray:
    """float64 (K, K) in [0, 1], NaN where there is nothing to take a share of."""
    if normalise == "none":
        return counts / max(counts.max(), 1)
    total = counts.sum(axis=1, keepdims=True) if normalise == "truth" else counts.sum(axis=0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, counts / total, np.nan)


def _matrix(
    values: np.ndarray,
    text: list[list[str]],
    text_colours: list[list[str]],
    class_names: Sequence[str],
    title: str,
    scale: Sequence[tuple[float, str]],
    limits: tuple[float, float],
    unit: str,
) -> go.Figure:
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
        customdata=[[names[i], names[j], text[i][j].replace("<br>", ", ")] for i, j in zip(rows, columns, strict=True)],
        hovertemplate=f"%{{customdata[0]}} taken for %{{customdata[1]}}: %{{customdata[2]}} {unit}<extra></extra>",
        selected={"marker": {"opacity": 0.25}}, unselected={"marker": {"opacity": 0.0}},
    )  # fmt: skip
    outline = {"type": "rect", "line": {"color": GREY, "width": 1.6}}
    diagonal = [outline | {"x0": i - 0.5, "x1": i + 0.5, "y0": i - 0.5, "y1": i + 0.5} for i in range(size)]
    _style(figure, title, 110 + 50 * size)
    figure.update_layout(
        showlegend=False, clickmode="event+select", dragmode=False, hovermode="closest", shapes=diagonal
    )
    ticks = {"tickvals": list(range(size)), "ticktext": names, "showgrid": False, "zeroline": False}
    figure.update_xaxes(title_text="prediction", side="bottom", range=[-0.5, size - 0.5], **ticks)
    figure.update_yaxes(title_text="truth", range=[size - 0.5, -0.5], **ticks)
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
                error_y={
                    "type": "data", "array": values["high"] - values["accuracy"],
                    "arrayminus": values["accuracy"] - values["low"], "color": run.colour, "thickness": 1, "width": 0,
                },
                hovertemplate=f"{tag(run.label)}<br>{tag(kind)}, strength %{{x}}: %{{y:.3f}}<extra></extra>",
                row=index // columns + 1, col=index % columns + 1,
            )  # fmt: skip
    _style(figure, "Accuracy over the strength of each corruption, with 95% intervals", 80 + 210 * rows)
    figure.update_layout(margin={"t": 60}, legend={"y": 1.08})
    figure.update_annotations(font_size=13)
    figure.update_xaxes(dtick=1)
    figure.update_xaxes(title_text="strength", row=rows, col=columns // 2 + 1)
    figure.update_yaxes(range=[0, 1], dtick=0.25)
    return figure


def slice_dots(tables: Mapping[str, pd.DataFrame], chosen: Sequence[Chosen]) -> go.Figure:
    """Accuracy in each slice with 95% intervals, slices on the rows; dotted: the run's accuracy on all images.

    tables: run_id → `trainer.evaluation.slices.slice_table`, with the same slices.
    """
    first = next(iter(tables.values()))
    keys = list(zip(first["grouping"], first["slice"], strict=True))
    groupings = list(dict.fromkeys(first["grouping"]))
    # A gap between groupings tells them apart.
    position = {key: -(index + groupings.index(key[0])) for index, key in enumerate(keys)}
    figure = go.Figure()
    for index, run in enumerate(chosen):
        table = tables[run.run_id]
        shift = (index - (len(chosen) - 1) / 2) * min(0.25, 0.8 / len(chosen))
        rows = [position[key] - shift for key in zip(table["grouping"], table["slice"], strict=True)]
        figure.add_scatter(
            x=table["accuracy"], y=rows, mode="markers", name=tag(run.label),
            marker={"color": run.colour, "size": 9, "symbol": run.marker},
            error_x={
                "type": "data", "array": table["high"] - table["accuracy"],
                "arrayminus": table["accuracy"] - table["low"], "color": run.colour, "thickness": 1.4, "width": 0,
            },
            customdata=np.stack([table["slice"].map(tag), table["images"]], axis=1),
            hovertemplate=f"{tag(run.label)}<br>%{{customdata[0]}}, %{{customdata[1]:,}} images: "
            "%{x:.3f}<extra></extra>",
        )  # fmt: skip
    _style(figure, "Accuracy in each slice, with 95% intervals", 90 + 30 * (len(keys) + len(groupings)))
    figure.update_xaxes(title_text="accuracy")
    figure.update_yaxes(
        tickvals=list(position.values()),
        ticktext=[tag(name) if name not in ("medium",) else tag(f"medium {grouping}") for grouping, name in keys],
        showgrid=False, zeroline=False,
    )  # fmt: skip
    return figure


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
    _style(figure, f"Test accuracy against {cost}", 380)
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title_text=f"{cost} ({unit})", rangemode="tozero")
    figure.update_yaxes(title_text="test accuracy (95% interval)")
    return figure


def parallel_coordinates(table: pd.DataFrame, colour_by: str) -> go.Figure:
    """Each run a line through its parameters and results.

    table: one row a run, numeric columns or text; the column `colour_by` decides the colour.
    """
    dimensions = []
    for name, column in table.items():
        label = tag(str(name).replace("_", " "))
        numbers = pd.to_numeric(column, errors="coerce")
        if numbers.notna().all():
            dimensions.append({"label": label, "values": numbers})
        else:
            kinds = sorted(column.astype(str).unique())
            codes = column.astype(str).map({kind: code for code, kind in enumerate(kinds)})
            ticks = {"tickvals": list(range(len(kinds))), "ticktext": [tag(kind[:18]) for kind in kinds]}
            dimensions.append({"label": label, "values": codes, **ticks})
    line = {
        "color": table[colour_by],
        "colorscale": "Cividis",
        "showscale": True,
        "colorbar": {"title": colour_by.replace("_", " ")},
    }
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line))
    _style(figure, "", 420)
    figure.update_layout(margin={"l": 70, "r": 40, "t": 60, "b": 30})
    return figure


def best_so_far(table: pd.DataFrame, axis: str) -> go.Figure:
    """Each trial a mark, those that were pruned hollow; the best finished one so far a line.

    table: columns trial, minutes, accuracy, best, status, as they ended. axis: `trial` or `time`.
    """
    figure = go.Figure()
    across = table["minutes"] if axis == "time" else pd.Series(range(1, len(table) + 1), index=table.index)
    figure.add_scatter(
        x=across, y=table["best"], mode="lines", name="best so far",
        line={"color": "#0072B2", "width": 2.2, "shape": "hv"}, hovertemplate="best so far: %{y:.3f}<extra></extra>",
    )  # fmt: skip
    for name, colour, symbol, rows in (
        ("finished", "#0072B2", "circle", table["status"] == "finished"),
        ("pruned or stopped", GREY, "circle-open", table["status"] != "finished"),
    ):
        figure.add_scatter(
            x=across[rows], y=table.loc[rows, "accuracy"], mode="markers", name=name,
            marker={"color": colour, "size": 8, "symbol": symbol}, customdata=table.loc[rows, "trial"],
            hovertemplate=f"trial %{{customdata:.0f}}, {name}: %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    _style(figure, "Validation accuracy of each trial, and the best so far", 340)
    words = "minutes since the first trial began" if axis == "time" else "trials that have ended"
    figure.update_xaxes(title_text=words, rangemode="tozero")
    figure.update_yaxes(title_text="validation accuracy")
    return figure


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
    _style(figure, "What mattered", 90 + 44 * len(names))
    figure.update_xaxes(range=[0, 1.12], tickformat=".0%", dtick=0.25)
    figure.update_yaxes(autorange="reversed", showgrid=False)
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
    _style(figure, "Test metrics over versions", 320)
    figure.update_xaxes(title_text="version", dtick=1 if len(table) < 25 else None)
    figure.update_yaxes(title_text="share")
    return figure


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
    _style(figure, f"How often an answer is right, by what was said{dotted}; grey: exactly as said", 460)
    figure.update_xaxes(title_text="probability of the answer", range=[0, 1.01], dtick=0.2)
    figure.update_layout(
        yaxis={
            "title": {"text": "share that is right"},
            "range": [0, 1.01],
            "domain": [0.27, 1],
            "dtick": 0.2,
        },
        yaxis2={"title": {"text": "images"}, "domain": [0, 0.17], "rangemode": "tozero", "nticks": 3},
        xaxis={"anchor": "y2"},
    )
    return figure


def _add_bins(figure: go.Figure, run: Chosen, bins: pd.DataFrame, dotted: bool = False) -> None:
    """One point a bin, joined; with 95% intervals unless `dotted`."""
    name = tag(f"{run.label} before calibration" if dotted else run.label)
    size, width, dash, symbol = (5, 1, "dot", f"{run.marker}-open") if dotted else (8, 2, "solid", run.marker)
    error = {
        "type": "data", "array": bins["high"] - bins["accuracy"], "arrayminus": bins["accuracy"] - bins["low"],
        "color": run.colour, "thickness": 1.2, "width": 0, "visible": not dotted,
    }  # fmt: skip
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
    _style(
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


def title_of(figure: go.Figure) -> str:
    """What a chart shows, as HTML; it stands above the chart, where it can wrap."""
    return (figure.layout.meta or {}).get("title", "")


def _style(figure: go.Figure, title: str, height: int) -> None:
    figure.update_layout(
        meta={"title": title},
        height=height,
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "right", "x": 1},
        hoverlabel={"namelength": -1},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )


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
        height=round(min(560, 860 * height / width)),
        dragmode="select",
    )
    return figure

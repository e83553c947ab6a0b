"""Charts show the figures that they are given, and nothing else."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from plotly.colors import sample_colorscale, unlabel_rgb

from dashboard import charts
from dashboard.charts import matrices
from dashboard.charts.curves import RAW
from dashboard.charts.style import readable
from dashboard.recalls import class_table, macro_values, sort_classes, wide_table, worst_class
from dashboard.selection import Chosen
from tests.extra.odd_runs import predictions
from trainer.evaluation.comparison import Predictions
from trainer.evaluation.reliability import measure
from trainer.evaluation.statistics import wilson

NAMES = ("angry", "disgust", "happy")
A = Chosen("a", "run <A>", "#0072B2", "solid", "circle")
B = Chosen("b", "run B", "#E69F00", "dash", "square")


@pytest.fixture
def found() -> dict[str, Predictions]:
    table = predictions(NAMES, size=60)
    other = predictions(NAMES, size=60, seed=1).assign(label=table["label"])
    return {"a": Predictions.from_table(table), "b": Predictions.from_table(other)}


def history(values: dict[str, list[float]]) -> pd.DataFrame:
    rows = [
        (run_id, key, step, value, 60.0 * step)
        for run_id in ("a", "b")
        for key, column in values.items()
        for step, value in enumerate(column, 1)
    ]
    return pd.DataFrame(rows, columns=["run_id", "key", "step", "value", "seconds"])


def draw(smoothing: float = 0.0, axis: str = "epoch") -> go.Figure:
    data = history({"validation/accuracy": [0.2, 0.6, 0.4], "train/accuracy": [0.1, 0.2, 0.3]})
    return charts.learning_curves(
        data, [A, B], "accuracy", axis=axis, smoothing=smoothing, best_epochs={"a": 2.0, "b": float("nan")}
    )


def test_learning_curves_are_the_logged_values_with_the_chosen_epoch_marked():
    lines = [trace for trace in draw().data if trace.mode == "lines"]
    assert [list(trace.y) for trace in lines] == [[0.2, 0.6, 0.4], [0.1, 0.2, 0.3]] * 2
    (mark,) = [trace for trace in draw().data if trace.mode == "markers"]
    assert (list(mark.x), list(mark.y)) == ([2], [0.6])
    assert {trace.line.color for trace in lines} == {A.colour, B.colour}


def test_no_axis_tells_of_half_an_epoch():
    assert draw().layout.xaxis.dtick == 1
    assert draw(axis="time").layout.xaxis.dtick is None
    data = history({"validation/accuracy": [0.5] * 36})
    figure = charts.learning_curves(data, [A], "accuracy", axis="epoch", smoothing=0.0, best_epochs={})
    assert figure.layout.xaxis.dtick is None


def many(count: int) -> list[Chosen]:
    return [Chosen(f"{index}", f"run {index}", "#0072B2", "solid", "circle") for index in range(count)]


def test_a_legend_of_many_runs_takes_nothing_from_the_curves():
    data = pd.concat(
        [history({"validation/accuracy": [0.2, 0.6]}).assign(run_id=f"{one}") for one in range(9)]
    )
    heights = [
        charts.learning_curves(
            data, many(count), "accuracy", axis="epoch", smoothing=0.0, best_epochs={}
        ).layout.height
        for count in (1, 2, 9)
    ]
    assert heights[0] == heights[1]
    assert heights[2] - heights[1] > 7 * 15


def test_axes_make_room_for_their_names_where_no_theme_does(found):
    table = class_table(found, "recall")
    calibration = charts.reliability_diagram(
        {"a": measure(found["a"].target, found["a"].probabilities)}, {}, [A]
    )
    for figure in (draw(), charts.class_dots(table, [A], "recall", {}), calibration):
        axes = [figure.layout[name] for name in figure.layout if name[1:5] == "axis"]
        assert all(axis.automargin for axis in axes), axes


def test_smoothing_keeps_the_raw_line_and_time_is_in_minutes():
    smooth = draw(smoothing=0.9, axis="time")
    raw = [trace for trace in smooth.data if trace.opacity == RAW]
    assert list(raw[0].y) == [0.2, 0.6, 0.4]
    assert list(raw[0].x) == [1.0, 2.0, 3.0]


def test_values_that_are_no_numbers_leave_a_chart_and_not_an_error():
    data = history({"validation/accuracy": [float("nan"), float("inf")]})
    figure = charts.learning_curves(data, [A], "accuracy", axis="epoch", smoothing=0.0, best_epochs={})
    assert not figure.data


def test_class_dots_carry_values_intervals_support_and_the_mean(found):
    table = sort_classes(class_table(found, "recall"), "name")
    figure = charts.class_dots(table, [A, B], "recall", macro_values(table))
    dots = [trace for trace in figure.data if trace.mode == "markers"]
    confusion = found["a"].evaluation.confusion
    recall = np.diag(confusion) / confusion.sum(1)
    np.testing.assert_allclose(dots[0].x, recall)
    low, high = wilson(np.diag(confusion), confusion.sum(1))
    np.testing.assert_allclose(np.array(dots[0].x) + dots[0].error_x.array, high)
    np.testing.assert_allclose(np.array(dots[0].x) - dots[0].error_x.arrayminus, low)
    assert all(
        f"n = {n}" in label for n, label in zip(confusion.sum(1), figure.layout.yaxis.ticktext, strict=True)
    )
    assert {line.x0 for line in figure.layout.shapes} == set(macro_values(table).values())
    assert "<A>" not in str(figure)  # a name is text


def test_rows_of_classes_grow_with_the_runs_that_stand_in_them(found):
    table = pd.concat([class_table({"a": found["a"]}, "recall").assign(run_id=f"{one}") for one in range(9)])
    few, lots = (charts.class_dots(table, many(count), "recall", {}).layout for count in (3, 9))
    assert lots.height - lots.legend.maxheight > few.height


def test_classes_are_sorted_by_name_by_worst_and_by_difference(found):
    table = class_table(found, "recall")
    means = table.groupby("class")["value"].mean()
    spread = table.groupby("class")["value"].max() - table.groupby("class")["value"].min()
    order = {
        name: list(dict.fromkeys(sort_classes(table, name)["class"]))
        for name in ("name", "worst first", "difference")
    }
    assert order["name"] == sorted(NAMES)
    assert order["worst first"] == list(means.sort_values().index)
    assert order["difference"][0] == spread.idxmax()


def test_the_table_beside_the_dots_says_the_same_with_its_intervals(found):
    table = sort_classes(class_table(found, "recall"), "worst first")
    wide = wide_table(table, {"a": "first", "b": "second"})
    assert list(wide) == ["images", "first", "second"]
    assert list(wide.index) == list(dict.fromkeys(table["class"]))
    for run_id, label in (("a", "first"), ("b", "second")):
        for row in table[table["run_id"] == run_id].itertuples():
            assert wide.at[row[2], "images"] == row.support
            assert wide.at[row[2], label] == f"{row.value:.3f} ({row.low:.3f} to {row.high:.3f})"
    assert set(wide_table(class_table(found, "F1"), {"a": "first"})["first"].str.len()) == {5}


def test_precision_divides_by_what_was_predicted_and_f1_has_no_interval(found):
    precision = class_table(found, "precision")
    confusion = found["a"].evaluation.confusion
    np.testing.assert_allclose(
        precision[precision["run_id"] == "a"]["value"], np.diag(confusion) / confusion.sum(0)
    )
    table = class_table(found, "F1")
    assert table["low"].isna().all()
    figure = charts.class_dots(table, [A, B], "F1", {})
    assert not any(" to " in trace.hovertemplate for trace in figure.data if trace.hovertemplate)


def test_the_worst_class_is_told_with_what_it_is_taken_for(found):
    name, recall, taken, highest = worst_class(class_table(found, "recall"), found, "a")
    confusion = found["a"].evaluation.confusion
    recalls = np.diag(confusion) / confusion.sum(1)
    row = int(recalls.argmin())
    assert (name, recall) == (NAMES[row], recalls[row])
    others = confusion[row].copy()
    others[row] = -1
    assert taken == NAMES[int(others.argmax())]
    assert highest >= recall


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("normalise", "axis"), [("truth", 1), ("prediction", 0)])
def test_a_confusion_matrix_has_one_scale_and_says_share_and_count(normalise: str, axis: int, theme: str):
    counts = np.array([[8, 2, 0], [1, 1, 0], [0, 0, 0]])
    figure = charts.confusion_matrix(counts, NAMES, "t", normalise=normalise, theme=theme)
    heat, cells = figure.data
    assert (heat.zmin, heat.zmax) == (0, 1)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(np.array(heat.z, float), counts / counts.sum(axis, keepdims=True))
    assert cells.text[0] == ("80%<br>8" if normalise == "truth" else "89%<br>8")
    assert cells.text[8] == "–<br>0"
    assert cells.customdata[0][2] == f"{'80' if axis else '89'}% of the {normalise}, 8 images"
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]  # the first class is on top
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("prediction", "truth")


def test_a_difference_matrix_is_centred_and_leaves_undecided_cells_without_colour():
    points = np.array([[5.0, -5.0], [1.0, np.nan]])
    decided = np.array([[True, True], [False, False]])
    heat, cells = charts.difference_matrix(points, decided, NAMES[:2], "t", theme="light").data
    assert heat.zmin == -heat.zmax
    assert list(np.isnan(np.array(heat.z, float)).ravel()) == [False, False, True, True]
    assert list(cells.text) == ["+5.0", "−5.0", "+1.0", "–"]


def axes_of(figure: go.Figure) -> dict[str, tuple[list[float], dict[str, float]]]:
    """Name of each axis → the places of the runs as they are drawn, and text of a tick → its place."""
    marks, ticks = figure.data[-2], figure.layout.annotations
    rows = zip(figure.layout.yaxis.ticktext, figure.layout.yaxis.tickvals, strict=True)
    return {
        name.replace("<br>", " "): (
            [x for x, y in zip(marks.x, marks.y, strict=True) if y == top],
            {tick.text.replace("<br>", ""): tick.x for tick in ticks if tick.y == top},
        )
        for name, top in rows
    }


def test_parallel_coordinates_take_numbers_and_words():
    table = pd.DataFrame({"optimizer": ["adam", "sgd"], "rate": ["0.1", "0.2"], "test accuracy": [0.5, 0.6]})
    axes = axes_of(charts.parallel_coordinates(table, "test accuracy"))
    assert axes["optimizer"] == ([0, 1], {"adam": 0, "sgd": 1})
    assert axes["rate"] == ([0, 1], {"0.1": 0, "0.2": 1})


def test_parallel_coordinates_have_a_place_for_what_a_run_lacks():
    table = pd.DataFrame(
        {
            "batch": ["1024", "", "64", "544"],
            "minutes": [3.5, np.nan, 1.0, 21.0],
            "kind": ["b", "a", None, "b"],
            "nothing": ["", "", "", ""],
            "test accuracy": [0.5, 0.6, 0.7, 0.8],
        }
    )
    axes = axes_of(charts.parallel_coordinates(table, "test accuracy"))
    assert axes["batch"][0] == pytest.approx([1, 0, 0.14, 0.57])
    assert axes["batch"][1] == pytest.approx({"–": 0, "64": 0.14, "544": 0.57, "1024": 1})
    assert axes["minutes"][0] == pytest.approx([0.2475, 0, 0.14, 1])
    assert axes["kind"] == ([1, 0.14, 0, 1], {"–": 0, "a": 0.14, "b": 1})
    assert axes["nothing"] == ([0, 0, 0, 0], {"–": 0})


def test_parallel_coordinates_space_a_logarithmic_axis_by_powers():
    table = pd.DataFrame({"rate": [1e-4, 1e-3, 2e-3, 1e-2, 3e-2, 1.0], "accuracy": np.linspace(0.1, 0.6, 6)})
    places, ticks = axes_of(charts.parallel_coordinates(table, "accuracy", logarithmic=["rate"]))["rate"]
    assert places[::3] == pytest.approx([0, 0.5])
    assert ticks == pytest.approx({"0.0001": 0, "0.001": 0.25, "0.01": 0.5, "0.1": 0.75, "1": 1})


def test_parallel_coordinates_are_lines_that_need_no_webgl_and_tell_the_whole_run():
    table = pd.DataFrame({"rate": np.arange(300.0), "accuracy": np.linspace(0, 1, 300)}).add_prefix("test ")
    table.index = [f"trial <{number}>" for number in range(300)]
    figure = charts.parallel_coordinates(table, "test accuracy")
    assert {trace.type for trace in figure.data} == {"scatter"}
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert len(lines) < 30
    assert sum(np.isnan(np.array(trace.x)).sum() for trace in lines[1:]) == 300
    assert figure.data[-2].text[0] == "<b>trial &lt;0&gt;</b><br>test rate 0<br>test accuracy 0"


def test_a_trial_stands_at_its_own_number_also_where_it_ended_after_a_later_one():
    table = pd.DataFrame(
        {
            "trial": [1, 0, 2, 4],
            "minutes": [1.0, 2.0, 3.0, 4.0],
            "accuracy": [0.3, 0.5, 0.9, 0.6],
            "best": [0.3, 0.5, 0.5, 0.6],
            "status": ["finished", "finished", "pruned", "finished"],
        }
    )
    line, finished, others = charts.best_so_far(table, "trial").data
    assert (list(line.x), list(line.y)) == ([0, 1, 2, 4], [0.5, 0.5, 0.5, 0.6])
    assert (list(finished.x), list(finished.y)) == ([0, 1, 4], [0.5, 0.3, 0.6])
    assert list(others.x) == [2]
    line, *_ = charts.best_so_far(table, "time").data
    assert (list(line.x), list(line.y)) == ([1, 2, 3, 4], [0.3, 0.5, 0.5, 0.6])


def test_slices_that_only_one_run_was_asked_about_have_their_rows():
    columns = ["grouping", "slice", "images", "accuracy", "low", "high"]
    old = pd.DataFrame([("size", "small", 5, 0.5, 0.4, 0.6)], columns=columns)
    new = pd.DataFrame(
        [("watermark", "with a watermark", 3, 0.3, 0.2, 0.4), ("size", "small", 5, 0.6, 0.5, 0.7)],
        columns=columns,
    )
    for tables in ({"a": old, "b": new}, {"a": new, "b": old}):
        figure = charts.slice_dots(tables, [A, B])
        assert len(figure.layout.yaxis.tickvals) == 2


def test_slices_of_a_persons_own_groups_are_named_with_what_they_are_grouped_by():
    rows = [
        ("glasses", "no"),
        ("glasses", "yes"),
        ("beard", "no"),
        ("brightness", "medium"),
        ("contrast", "flattest"),
    ]
    table = pd.DataFrame(rows, columns=["grouping", "slice"]).assign(
        images=5, accuracy=0.5, low=0.4, high=0.6
    )
    figure = charts.slice_dots({"a": table}, [A])
    names = ("no (glasses)", "yes (glasses)", "no (beard)", "medium brightness", "flattest")
    assert figure.layout.yaxis.ticktext == names
    assert tuple(row[0] for row in figure.data[0].customdata) == names


def test_a_run_without_a_cost_is_left_out_of_the_scatter():
    table = pd.DataFrame(
        {"size": [1.0, np.nan], "test_accuracy": [0.5, 0.6], "low": [0.4, 0.5], "high": [0.6, 0.7]},
        index=["a", "b"],
    )
    assert len(charts.cost_scatter(table, [A, B], "size", "bytes").data) == 1


def test_names_stand_beside_points_where_no_interval_crosses_them_and_else_in_a_legend():
    table = pd.DataFrame(
        {"size": [1.0, 9.0], "test_accuracy": [0.5, 0.8], "low": [0.4, 0.7], "high": [0.6, 0.9]},
        index=["a", "b"],
    )
    left, right = (apart := charts.cost_scatter(table, [A, B], "size", "MB")).data
    assert (left.textposition, right.textposition) == ("middle right", "middle left")
    assert left.mode == "markers+text"
    assert not apart.layout.showlegend
    close = charts.cost_scatter(table.assign(test_accuracy=[0.75, 0.8], high=0.9), [A, B], "size", "MB")
    assert {trace.mode for trace in close.data} == {"markers"}
    assert close.layout.showlegend


def test_a_reliability_diagram_shows_each_bin_with_its_interval_and_all_images_below(found):
    after, before = (measure(found[key].target, found[key].probabilities) for key in ("a", "b"))
    figure = charts.reliability_diagram({"a": after}, {"a": before}, [A])
    said_is_true, dotted, solid, images = figure.data
    assert list(said_is_true.x) == list(said_is_true.y) == [0, 1]
    for trace, bins in ((dotted, before.bins), (solid, after.bins)):
        np.testing.assert_allclose(trace.x, bins["confidence"])
        np.testing.assert_allclose(trace.y, bins["accuracy"])
    assert (dotted.line.dash, dotted.error_x.visible, dotted.error_y.visible) == ("dot", None, False)
    np.testing.assert_allclose(np.array(solid.y) + solid.error_y.array, after.bins["high"])
    np.testing.assert_allclose(np.array(solid.y) - solid.error_y.arrayminus, after.bins["low"])
    assert sum(images.y) == 60
    assert images.yaxis == "y2"
    assert "<A>" not in str(figure)


def test_coverage_curves_end_at_the_accuracy_of_all_with_the_threshold_marked(found):
    reliabilities = {key: measure(run.target, run.probabilities) for key, run in found.items()}
    figure = charts.coverage_curves(reliabilities, [A, B], coverage=0.8, threshold=0.5)
    curve, ring = figure.data[:2]
    assert (curve.x[-1], curve.y[-1]) == (1.0, found["a"].evaluation.summary["accuracy"])
    sure = found["a"].probabilities.max(1) >= 0.5
    right = found["a"].preds == found["a"].target
    assert (ring.x[0], ring.y[0]) == (sure.mean(), right[sure].mean())
    assert figure.layout.shapes[0].x0 == 0.8
    assert "<A>" not in str(figure)
    nobody = charts.coverage_curves(reliabilities, [A], coverage=0.8, threshold=1.1)
    assert len(nobody.data) == 1


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("scale", ["SEQUENTIAL", "DIVERGING"])
def test_the_text_of_a_cell_can_be_read_on_every_colour(scale: str, theme: str):
    colours = getattr(matrices, scale)[theme]
    for place in np.linspace(0, 1, 101):
        [found] = sample_colorscale([list(stop) for stop in colours], float(place))
        below = luminance("#" + "".join(f"{round(part):02X}" for part in unlabel_rgb(found)))
        ink = luminance(readable(colours, place, matrices.ON_COLOUR))
        assert (max(ink, below) + 0.05) / (min(ink, below) + 0.05) > 4.5, place


def test_a_matrix_of_counts_speaks_of_images():
    counts = np.array([[8, 2], [1, 1]])
    _, cells = charts.confusion_matrix(counts, NAMES[:2], "t", normalise="none", theme="light").data
    assert [cell[2] for cell in cells.customdata] == ["8 images", "2 images", "1 image", "1 image"]


def test_matrices_of_counts_share_the_scale_of_the_highest_count_of_all():
    counts = np.array([[8, 2], [1, 1]])
    arguments = {"normalise": "none", "theme": "light"}
    assert charts.confusion_matrix(counts, NAMES[:2], "t", **arguments, most=16).data[0].z[0][0] == 0.5
    assert charts.confusion_matrix(counts, NAMES[:2], "t", **arguments).data[0].z[0][0] == 1


def test_an_axis_of_shares_shows_none_below_zero_or_above_one():
    versions = pd.DataFrame(
        {"version": [1], "label": ["cnn"], "test_accuracy": [1.0], "test_macro_recall": [1.0]}
    )
    history = pd.DataFrame(
        {"run_id": ["a"], "key": ["validation/accuracy"], "step": [1], "value": [0.9], "seconds": [1.0]}
    )
    loss = history.assign(key="validation/loss", value=3.0)
    drawn = {"axis": "epoch", "smoothing": 0.0, "best_epochs": {}}
    for figure, is_share in (
        (charts.version_lines(versions), True),
        (charts.learning_curves(history, [A], "accuracy", **drawn), True),
        (charts.learning_curves(loss, [A], "loss", **drawn), False),
    ):
        clipped = figure.layout.yaxis.autorangeoptions
        assert (clipped.clipmin, clipped.clipmax) == ((-0.02, 1.02) if is_share else (None, None))


@pytest.mark.parametrize(("numbers", "ends"), [([1], (0.5, 1.5)), ([2, 3, 7], (1.5, 7.5))])
def test_the_axis_of_versions_has_no_room_for_others(numbers: list[int], ends: tuple[float, float]):
    table = pd.DataFrame({"version": numbers, "label": "cnn", "test_accuracy": 0.7, "test_macro_recall": 0.6})
    axis = charts.version_lines(table).layout.xaxis
    assert (axis.range, axis.dtick) == (ends, 1)

"""Per-class recall: which class is found how often, in every chosen run, and how sure that is."""

import streamlit as st

from dashboard import cache, charts, frame
from dashboard.recalls import ORDERS, class_table, macro_values, opening, sort_classes, wide_table
from dashboard.selection import choose_runs
from dashboard.text import number, several

snapshot = frame.load("Per-class recall")
top = st.container()
chosen = choose_runs(snapshot, most=12)
found = frame.load_each(cache.predictions, snapshot, chosen)
if not found:
    with top:
        frame.answer("Per-class recall", "Choose a finished run to see how often each class is found.")
    st.stop()
found = frame.same_test_set(snapshot, found, chosen)
shown = [run for run in chosen if run.run_id in found]
with top:
    frame.answer("Per-class recall", opening(found, shown))

with st.container(horizontal=True, vertical_alignment="bottom"):
    metric = st.segmented_control(
        "Metric",
        ("recall", "precision", "F1"),
        default="recall",
        key="metric",
        bind="query-params",
        required=True,
    )
    order = st.segmented_control(
        "Sort classes", ORDERS, default="worst first", key="order", bind="query-params", required=True
    )
table = sort_classes(class_table(found, metric), order)
macro = macro_values(table)
left, right = st.columns([4, 3], gap="large")
with left:
    frame.chart(
        charts.class_dots(table, shown, metric, macro), key="dots",
        alt=f"{metric} of each class in {several(len(shown), 'run')}: "
        + "; ".join(f"{run.label} {number(macro[run.run_id])} over all classes" for run in shown),
    )  # fmt: skip
with right:
    wide = wide_table(table, {run.run_id: run.label for run in shown})
    st.dataframe(
        wide,
        column_config=frame.right(wide.columns[1:]),
        height=frame.height(len(wide)),
        alt=f"{metric} of each class as a table",
    )
    if metric == "F1":
        st.caption("F1 is no share of images, so it has no such interval.")
    else:
        those = "that were predicted as the class" if metric == "precision" else "of the class"
        st.caption(
            f"Intervals are Wilson's, for the images {those}: how far each value may be off by chance. "
            "Whether two runs differ is tested image by image on Compare."
        )

"""Compare: which of the chosen runs is better, is it more than chance, what was done differently, what did it cost."""

import streamlit as st

from dashboard import cache, charts, frame, report
from dashboard.findings import (
    COSTS,
    compare_all,
    cost_table,
    cost_values,
    headline,
    metric_note,
    metric_table,
    parallel_table,
    parameter_table,
    price_table,
)
from dashboard.selection import choose_runs
from dashboard.text import plain, several
from dashboard.weakness_tabs import show_attention, show_classes, show_slices, show_worse_images

QUANTITIES = ("accuracy", "loss", "macro_recall")

snapshot = frame.load("Compare")
top = st.container()
chosen = choose_runs(snapshot, most=24)
if not chosen:
    with top:
        frame.answer("Compare", "Choose two or more runs to compare.")
    st.stop()
runs = snapshot.runs.loc[[run.run_id for run in chosen]]
comparisons, reasons = compare_all(snapshot, chosen)
with top:
    frame.answer("Compare", headline(runs, chosen, comparisons, reasons))

if len(chosen) < 3:
    left, right = st.columns(2, gap="large")
else:  # the differences would be out of sight beside a chart
    left, right = st.container(), st.container()
with left:
    st.subheader("Test metrics", anchor=False)
    table, decided = metric_table(runs, chosen, comparisons)
    table.columns = decided.columns = list(map(plain, table))
    bold = decided.map(lambda cell: f"text-align: right !important; font-weight: {700 if cell else 400}")
    # Names and intervals break into lines where the screen is narrow, and nothing is out of sight.
    st.table(
        table.style.apply(lambda _: bold, axis=None), alt="Test metrics of each run and their differences"
    )
    if comparisons:
        st.caption(plain(metric_note(chosen, comparisons)))
    for run_id, reason in reasons.items():
        label = next(run.label for run in chosen if run.run_id == run_id)
        st.caption(f"No difference is shown for {plain(label)}. {plain(reason)}.")
    if len(chosen) == 2 and comparisons:
        pair = next(iter(comparisons.values()))
        st.markdown(
            f"Both right: **{pair.both_right:,}** images. Only {plain(chosen[0].label)}: **{pair.only_a:,}**. "
            f"Only {plain(chosen[1].label)}: **{pair.only_b:,}**. Both wrong: **{pair.both_wrong:,}** "
            f"(exact McNemar, p {'< 0.001' if pair.p < 0.001 else f'= {pair.p:.3f}'})."
        )
with right:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        quantity = st.segmented_control(
            "Learning curve", QUANTITIES, default="accuracy", key="quantity", bind="query-params", required=True,
            format_func=lambda name: name.replace("_", " "),
        )  # fmt: skip
        axis = st.segmented_control(
            "Axis", ("epoch", "time"), default="epoch", key="axis", bind="query-params", required=True
        )
        smoothing = st.slider(
            "Smoothing", 0.0, 0.95, 0.0, 0.05, key="smoothing", bind="query-params", width=150
        )
    progress = cache.progress(runs)
    best = runs["best_epoch"].to_dict()
    with frame.tell_errors():
        curves = cache.figure(
            ("curves", *chosen, *best.values(), *progress, quantity, axis, smoothing),
            lambda: charts.learning_curves(
                cache.histories([run.run_id for run in chosen], progress), chosen, quantity,
                axis=axis, smoothing=smoothing, best_epochs=best,
            ),
        )  # fmt: skip
        frame.chart(
            curves, key="curves",
            alt=f"Validation and training {quantity.replace('_', ' ')} of {several(len(chosen), 'run')} over {axis}",
        )  # fmt: skip

names = [
    "What was done differently",
    "What it cost",
    "Each class",
    "Slices",
    "Worse images",
    "What it looks at",
    "Parallel coordinates",
]
tabs = st.tabs(names, key="detail", on_change="rerun", bind="query-params")
if tabs[0].open:
    with tabs[0]:
        everything = st.toggle("Also parameters that are equal", key="equal", bind="query-params")
        table = parameter_table(snapshot, chosen, everything)
        if table.empty:
            st.markdown(
                "These runs have the same parameters."
                if len(chosen) > 1
                else "Choose a second run to see what differs."
            )
        else:
            st.dataframe(
                table,
                height=frame.height(len(table)),
                alt="Parameters, one column a run",
                column_config={"_index": st.column_config.TextColumn("parameter", width=190)},
            )
if tabs[1].open:
    with tabs[1]:
        name = st.segmented_control(
            "Cost", list(COSTS), default="training time", key="cost", bind="query-params", required=True
        )
        table = cost_table(runs, chosen)
        values, unit = cost_values(runs, name)
        points = runs.assign(**{name: values}, low=table["low"], high=table["high"])
        frame.chart(
            charts.cost_scatter(points, chosen, name, unit),
            alt=f"Test accuracy of each run against its {name} in {unit}",
        )  # fmt: skip
        table = table.drop(columns=["low", "high"])
        st.dataframe(
            table, alt="What each run cost", hide_index=True, column_config=frame.right(table.columns[1:])
        )
        if runs.loc[runs["test_accuracy"].notna(), "test_fingerprint"].nunique() > 1:
            st.caption("These runs were tested on different images: their accuracies cannot be compared.")
        prices = price_table(runs, chosen, name)
        if len(prices):
            st.dataframe(
                prices, alt="What a further point of accuracy costs", hide_index=True,
                column_config=frame.right(prices.columns[2:]),
            )  # fmt: skip
            st.caption(
                "Only runs that no cheaper run equals. Whether the points are more than chance stands above: without "
                "that, their price means nothing."
            )
        if name == "energy" and len(methods := sorted(set(runs["energy_method"]) - {""})):
            st.caption(f"How energy was found: {'; '.join(map(plain, methods))}.")
if tabs[2].open:
    with tabs[2]:
        show_classes(chosen, comparisons)
if tabs[3].open:
    with tabs[3]:
        show_slices(snapshot, chosen)
if tabs[4].open:
    with tabs[4]:
        show_worse_images(snapshot, chosen)
if tabs[5].open:
    with tabs[5]:
        show_attention(snapshot, chosen)
if tabs[6].open:
    with tabs[6]:
        table = parallel_table(snapshot, chosen)
        if len(table) < 3:
            st.markdown("Parallel coordinates need three runs or more that have been tested.")
        else:
            frame.chart(
                charts.parallel_coordinates(table, "test accuracy"),
                alt=f"Parameters and results of {several(len(table), 'run')} as parallel lines",
            )
            if len(table) < len(chosen):
                st.caption("Runs without a test result are left out.")

st.download_button(
    "Download this comparison (HTML)",
    lambda: report.comparison_html(snapshot, chosen, comparisons, reasons),
    file_name="comparison.html",
    mime="text/html",
    on_click="ignore",
    help="One file with the findings, tables and charts; it opens without a network.",
)

"""Compare: which of the chosen runs is better, is it more than chance, what was done differently, what did it cost."""

import streamlit as st

from dashboard import cache, charts, frame, gallery, report
from dashboard.findings import (
    COSTS,
    compare_all,
    cost_table,
    headline,
    metric_table,
    parallel_table,
    parameter_table,
    price_table,
)
from dashboard.robustness import curve_table, robustness_sentence, robustness_table
from dashboard.selection import choose_runs
from dashboard.text import number, plain, several
from dashboard.weaknesses import slice_sentence, slice_tables, slice_text
from trainer.evaluation.attention import SIMILAR
from trainer.evaluation.slices import read_groups, recall_table

QUANTITIES = ("accuracy", "loss", "macro_recall")


def show_slices() -> None:
    """Where each run is weak, by what the test images are like or by groups that are brought along."""
    found = frame.same_test_set(frame.load_predictions(snapshot, chosen), chosen)
    file = st.file_uploader(
        "Groups of your own: CSV with sample_id and one column for each grouping (kept for this view only)",
        type="csv",
        max_upload_size=20,
    )
    slices = {}
    if file is not None:
        try:
            text = file.getvalue().decode("utf-8")
            slices = {run_id: read_groups(text, answers.sample_ids) for run_id, answers in found.items()}
        except (ValueError, UnicodeDecodeError) as error:
            st.error(plain(str(error)))
    if not slices:
        slices = frame.load_slices(snapshot, [run for run in chosen if run.run_id in found])
    tables = slice_tables(found, slices)
    shown = [run for run in chosen if run.run_id in tables]
    if not shown:
        st.markdown(
            "A training measures its test images at the end; none of these runs has done so. Groups of your own do."
        )
        return
    if ignored := max(slices[run.run_id].ignored for run in shown):
        st.caption(f"{several(ignored, 'row')} of the file name no test image and are left out.")
    st.markdown(slice_sentence(tables, shown))
    frame.chart(
        charts.slice_dots(tables, shown),
        key="slices",
        alt=f"Accuracy of {several(len(shown), 'run')} in each slice of the test set",
    )
    run = shown[0]
    if len(shown) > 1:
        labels = {run.run_id: run.label for run in shown}
        run_id = st.segmented_control(
            "Table of", list(labels), default=run.run_id, format_func=labels.__getitem__, required=True
        )
        run = next(run for run in shown if run.run_id == run_id)
    table = slice_text(tables[run.run_id])
    st.dataframe(
        table, hide_index=True, height=frame.height(len(table), most=24), alt=f"Slices of {run.label}",
        column_config={name: st.column_config.TextColumn(alignment="right") for name in table.columns[2:]},
    )  # fmt: skip
    st.caption(
        "Differences are from all other images, class by class (Mantel–Haenszel): a slice of hard classes is not "
        "blamed for them; their 95% intervals hold for all slices together. * decided, after Holm. Each condition "
        "is cut into thirds of the test set; watermarks are not measured. Nothing here is about groups of people: "
        "the data do not say who is in them, and nobody guesses."
    )
    with st.expander("Recall of each class in every slice"):
        answers = found[run.run_id]
        recalls = recall_table(
            answers.target, answers.preds == answers.target, answers.class_names, slices[run.run_id]
        )
        st.dataframe(
            recalls, hide_index=True, placeholder="–", height=frame.height(len(recalls), most=24),
            alt=f"Recall of each class in every slice, {run.label}",
            column_config={
                name: st.column_config.NumberColumn(format="%.3f") for name in answers.class_names
            },
        )  # fmt: skip


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

left, right = st.columns(2, gap="large")
with left:
    st.subheader("Test metrics", anchor=False)
    table, decided = metric_table(runs, chosen, comparisons)
    labels = {run.label for run in chosen}
    bold = decided.map(lambda cell: "font-weight: 700" if cell else "")
    st.dataframe(
        table.style.apply(lambda _: bold, axis=None),
        column_config={
            # Bold figures are wider than those that the browser measures a column by.
            name: st.column_config.TextColumn(alignment="right", width=None if name in labels else 190)
            for name in table
        },
        height="content",
        alt="Test metrics of each run and their differences",
    )
    sizes = {int(c.size) for c in comparisons.values()}
    if comparisons:
        st.caption(
            f"Differences are to {plain(chosen[0].label)}, with 95% intervals, over the same {sizes.pop():,} images; "
            "bold: the interval leaves out 0."
        )
    for run_id, reason in reasons.items():
        label = next(run.label for run in chosen if run.run_id == run_id)
        st.caption(f"No difference is shown for {plain(label)}: {plain(reason)}.")
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
    epochs = int(runs["epochs_done"].sum())
    best = runs["best_epoch"].to_dict()
    curves = cache.figure(
        ("curves", *chosen, *best.values(), epochs, quantity, axis, smoothing),
        lambda: charts.learning_curves(
            cache.histories([run.run_id for run in chosen], epochs), chosen, quantity,
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
        column, unit, _ = COSTS[name]
        points = runs.assign(**{name: runs[column]}, low=table["low"], high=table["high"])
        frame.chart(
            charts.cost_scatter(points, chosen, name, unit),
            alt=f"Test accuracy of each run against its {name} in {unit}",
        )  # fmt: skip
        st.dataframe(table.drop(columns=["low", "high"]), alt="What each run cost", hide_index=True)
        prices = price_table(runs, chosen, name)
        if len(prices):
            st.dataframe(prices, alt="What a further point of accuracy costs", hide_index=True)
            st.caption(
                "Only runs that no cheaper run equals. Whether the points are more than chance stands above: without "
                "that, their price means nothing."
            )
        if name == "energy" and len(methods := sorted(set(runs["energy_method"]) - {""})):
            st.caption(f"How energy was found: {'; '.join(map(plain, methods))}.")
if tabs[2].open:
    with tabs[2]:
        if len(chosen) >= 2 and comparisons:
            other = next(run for run in chosen if run.run_id in comparisons)
            rows = comparisons[other.run_id].classes
            scaled = {name: (100 * rows[name]).round(1) for name in ("a", "b", "difference", "low", "high")}
            recalls = [f"recall {run.label} (%)" for run in (chosen[0], other)]
            columns = [
                "class",
                "images",
                *recalls,
                "difference (points)",
                "low",
                "high",
                "p (Holm)",
                "decided",
            ]
            st.dataframe(
                rows.assign(**scaled).set_axis(columns, axis=1),
                hide_index=True,
                alt="Recall of each class in both runs and the difference",
                column_config={"p (Holm)": st.column_config.NumberColumn(format="%.3f")}
                | {name: st.column_config.NumberColumn(format="%.1f") for name in columns[2:7]},
            )
            st.caption(
                "p: exact McNemar on the images of the class, corrected after Holm for looking at all classes."
            )
        else:
            st.markdown("This needs two runs with predictions on the same test set.")
if tabs[3].open:
    with tabs[3]:
        show_slices()
if tabs[4].open:
    with tabs[4]:
        robust = frame.load_robustness(snapshot, chosen)
        if not robust:
            st.markdown(
                "A training asks its model about worse images at the end; none of these runs has done so."
            )
        else:
            asked = [run for run in chosen if run.run_id in robust]
            st.markdown(robustness_sentence(robust, asked))
            lines = cache.figure(
                ("corruptions", *asked), lambda: charts.corruption_curves(curve_table(robust), asked)
            )
            frame.chart(
                lines,
                key="corruptions",
                alt=f"Accuracy of {several(len(asked), 'run')} over the strength of each corruption",
            )
            table = robustness_table(robust, asked)
            st.dataframe(
                table,
                height=frame.height(len(table)),
                alt="Mean accuracy for each corruption",
                column_config={name: st.column_config.TextColumn(alignment="right") for name in table},
            )
            st.caption(
                "Means over five strengths, of one view of each image (no averaging). * decided: paired t test over "
                "the images, corrected after Holm for the number of corruptions. The eyes and the mouth are covered "
                "where they are in most images; nobody looked for them."
            )
if tabs[5].open:
    with tabs[5]:
        looks = frame.load_attention(snapshot, chosen[:6])
        for run in chosen:
            if run.run_id not in looks:
                continue
            found = looks[run.run_id]
            learned = (
                "they tell of what was learned"
                if found.random_similarity < SIMILAR
                else "they tell of the images rather than of what was learned"
            )
            st.markdown(
                f"**{plain(run.label)}**. Orange: what spoke for the class. With random weights the same images have "
                f"maps that correlate with these by {number(found.random_similarity, 2)}: {learned}."
            )
            st.html(gallery.attention_row(found))
        if looks:
            st.caption(
                "Means over test images that were answered rightly, turned upright and laid over each other "
                "(LayerCAM; each row is scaled to its strongest place). Two networks may look at the same places and "
                "still differ in what they see there."
            )
        else:
            st.markdown("A training keeps what its network looks at; none of these runs has done so.")
if tabs[6].open:
    with tabs[6]:
        if len(chosen) < 3:
            st.markdown("Parallel coordinates need three runs or more.")
        else:
            table = parallel_table(snapshot, chosen)
            frame.chart(
                charts.parallel_coordinates(table, "test accuracy"),
                alt=f"Parameters and results of {several(len(chosen), 'run')} as parallel lines",
            )

st.download_button(
    "Download this comparison (HTML)",
    lambda: report.comparison_html(snapshot, chosen, comparisons, reasons),
    file_name="comparison.html",
    mime="text/html",
    on_click="ignore",
    help="One file with the findings, tables and charts; it opens without a network.",
)

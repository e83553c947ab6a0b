"""The tabs of Compare that tell where runs are weak: classes, slices, worse images, and what their networks look at."""

import streamlit as st

from dashboard import cache, charts, frame, gallery
from dashboard.robustness import curve_table, robustness_sentence, robustness_table
from dashboard.selection import Chosen
from dashboard.text import plain, several
from dashboard.weaknesses import class_text, slice_sentence, slice_tables, slice_text
from trainer.evaluation.comparison import Comparison
from trainer.evaluation.slices import read_groups, recall_table
from trainer.store.snapshot import Snapshot

MOST_LOOKS = 6
"""Runs whose maps are shown: each has a picture for every class."""


def show_classes(chosen: list[Chosen], comparisons: dict[str, Comparison]) -> None:
    """How each class is found by the first run and by another; comparisons: run_id → that with the first."""
    others = {run.run_id: run.label for run in chosen if run.run_id in comparisons}
    if not others:
        st.markdown("This needs two runs with predictions on the same test set.")
        return
    first, other = chosen[0].label, next(iter(others))
    if len(others) > 1:
        other = st.segmented_control(
            f"Beside {plain(first)}", list(others), default=other, key="classes-of", bind="query-params",
            format_func=lambda run_id: plain(others[run_id]), required=True,
        )  # fmt: skip
    table = class_text(comparisons[other].classes, first, others[other])
    st.dataframe(
        table, hide_index=True, height=frame.height(len(table)),
        alt=f"Recall of each class in {first} and {others[other]}, and the difference",
        column_config=frame.right(table.columns[1:]),
    )  # fmt: skip
    st.caption(
        f"Differences are those of {plain(others[other])} from {plain(first)}, with 95% intervals for each class "
        "alone. p: exact McNemar on its images, corrected after Holm for looking at all classes. * decided."
    )


def show_slices(snapshot: Snapshot, chosen: list[Chosen]) -> None:
    """Where each run is weak, by what the test images are like or by groups that are brought along."""
    found = frame.same_test_set(snapshot, frame.load_each(cache.predictions, snapshot, chosen), chosen)
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
        slices = frame.load_each(cache.slices, snapshot, [run for run in chosen if run.run_id in found])
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
            "Table of",
            list(labels),
            default=run.run_id,
            key="slices-of",
            bind="query-params",
            format_func=lambda one: plain(labels[one]),
            required=True,
        )
        run = next(run for run in shown if run.run_id == run_id)
    table = slice_text(tables[run.run_id])
    st.dataframe(
        table, hide_index=True, height=frame.height(len(table), most=24), alt=f"Slices of {run.label}",
        column_config=frame.right(table.columns[2:]),
    )  # fmt: skip
    st.caption(
        "Differences are from all other images, class by class (Mantel–Haenszel): a slice of hard classes is not "
        "blamed for them. Their 95% intervals hold for all slices together, and p is corrected for the number of "
        "slices, both after Bonferroni. * decided: p below 0.05, and 0 outside of the interval. Each condition is cut "
        "into thirds of the test set; watermarks are found by a network that misses faint ones. Nothing here is about "
        "groups of people: the data do not say who is in them, and nobody guesses."
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


def show_worse_images(snapshot: Snapshot, chosen: list[Chosen]) -> None:
    """How much of its accuracy each run keeps under each corruption."""
    robust = frame.same_worse_images(snapshot, frame.load_each(cache.robustness, snapshot, chosen), chosen)
    if not robust:
        st.markdown(
            "A training asks its model about worse images at the end; none of these runs has done so."
        )
        return
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
        column_config=frame.right(table),
    )
    st.caption(
        "Means over five strengths, of one view of each image (no averaging). * decided: paired t test over "
        "the images, corrected after Holm for the number of corruptions. The eyes and the mouth are covered "
        "where they are in most images; nobody looked for them."
    )


def show_attention(snapshot: Snapshot, chosen: list[Chosen]) -> None:
    """What each network looks at, class by class."""
    looks = frame.load_each(cache.attention, snapshot, chosen[:MOST_LOOKS])
    for run in chosen:
        if run.run_id not in looks:
            continue
        found = looks[run.run_id]
        st.markdown(
            f"**{plain(run.label)}**. Orange: what spoke for the class. With random weights {found.checked()}."
        )
        st.html(gallery.attention_row(found))
    if looks:
        st.caption(
            "Means over test images that were answered rightly, turned upright and laid over each other "
            "(LayerCAM; each picture is scaled to its strongest place). Two networks may look at the same places and "
            "still differ in what they see there."
        )
    else:
        st.markdown("A training keeps what its network looks at; none of these runs has done so.")
    if len(chosen) > MOST_LOOKS:
        st.caption(f"Only the first {MOST_LOOKS} of {len(chosen)} runs are looked at here.")

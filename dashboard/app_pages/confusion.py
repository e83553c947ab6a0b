"""Confusion: what is taken for what, run beside run, and the images behind a cell."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dashboard import cache, charts, frame
from dashboard.gallery import gallery, key_line
from dashboard.selection import Chosen, choose_runs
from dashboard.text import percent, plain, several, tag
from trainer.evaluation.comparison import Predictions, difference_matrix
from trainer.evaluation.metrics import confused_pairs
from trainer.store.snapshot import Snapshot

NORMALISE = {"recall": "truth", "precision": "prediction", "counts": "none"}
SHOWN_IMAGES = 24


def opening(found: Predictions, label: str) -> str:
    pairs = confused_pairs(found.evaluation)
    if pairs.empty:
        return f"{plain(label)} confuses nothing on {len(found):,} images."
    top = pairs.iloc[0]
    common = pairs.sort_values("count", ascending=False, kind="stable").iloc[0]
    pair = f"{plain(top['truth'])} for {plain(top['prediction'])}"
    text = (
        f"{plain(label)} takes {pair} in {percent(top['share'])} of cases ({several(top['count'], 'image')})"
    )
    if (common["truth"], common["prediction"]) != (top["truth"], top["prediction"]):
        pair = f"{plain(common['truth'])} for {plain(common['prediction'])}"
        text += f"; most often it takes {pair} ({several(common['count'], 'image')})"
    return f"{text}."


def clicked_on(key: str, names: tuple[str, ...], run_id: str) -> Callable[[], None]:
    return lambda: clicked(key, names, run_id)


def clicked(key: str, names: tuple[str, ...], run_id: str) -> None:
    """A click on a cell chooses its truth and prediction, and the run whose images are shown."""
    if points := st.session_state[key].selection.points:
        st.session_state["truth"] = names[round(points[0]["y"])]
        st.session_state["prediction"] = names[round(points[0]["x"])]
        st.session_state["by"] = run_id
        st.session_state["clicks"] = st.session_state.get("clicks", 0) + 1


def chart_key(name: str) -> str:
    """Another one after each click: the same cell can then be clicked again."""
    return f"{name}-{st.session_state.get('clicks', 0)}"


def difference(snapshot: Snapshot, a: Chosen, b: Chosen, found: dict[str, Predictions]) -> None:
    first, second = found[a.run_id], found[b.run_id]
    if reason := frame.different_tests(snapshot, found, a.run_id, b.run_id):
        st.markdown(f"The difference cannot be shown: {plain(reason)}.")
        return
    points, decided = difference_matrix(first, second)
    several_cells = several(int(decided.sum()), "cell")
    verb = "differs" if decided.sum() == 1 else "differ"
    title = f"{b.label} − {a.label}, in points of the truth: {several_cells} {verb} by more than chance"
    frame.chart(
        charts.difference_matrix(points, decided, first.class_names, tag(title), theme=frame.theme()),
        key=(key := chart_key("difference")), on_select=clicked_on(key, first.class_names, b.run_id),
        selection_mode="points", alt=title,
    )  # fmt: skip
    st.caption(
        f"Blue: {plain(b.label)} puts more of the true class there; orange: {plain(a.label)} does. Grey cells may be "
        "chance (exact McNemar in each cell, corrected after Holm for all cells)."
    )


def most_confused(run: Chosen, pairs: pd.DataFrame) -> None:
    with st.container():
        st.subheader("Most confused pairs", anchor=False)
        st.dataframe(
            pairs.assign(share=pairs["share"].map(percent)).rename(
                columns={"share": "share of the truth", "count": "images", "prediction": "taken for"}
            ),
            hide_index=True, column_config=frame.right(["share of the truth"]),
            alt=f"Most confused pairs of {run.label}",
        )  # fmt: skip
        st.caption(f"Of {plain(run.label)}.")


def matrix(run_id: str, predictions: Predictions, title: str, view: str, theme: str, most: int) -> go.Figure:
    return cache.figure(
        ("matrix", run_id, title, view, theme, most),
        lambda: charts.confusion_matrix(
            predictions.evaluation.confusion,
            predictions.class_names,
            title,
            normalise=NORMALISE[view],
            theme=theme,
            most=most,
        ),
    )


snapshot = frame.load("Confusion")
top = st.container()
chosen = choose_runs(snapshot, most=6)
found = frame.load_each(cache.predictions, snapshot, chosen)
shown = [run for run in chosen if run.run_id in found]
if not shown:
    with top:
        frame.answer("Confusion", "Choose a finished run to see what it takes for what.")
    st.stop()
best = max(shown, key=lambda run: found[run.run_id].evaluation.summary["accuracy"])
with top:
    frame.answer("Confusion", opening(found[best.run_id], best.label))

view = st.segmented_control(
    "Share of", list(NORMALISE), default="recall", key="share", bind="query-params", required=True,
    help="recall: rows add up to 100%, the diagonal is recall. precision: columns do. counts: images.",
)  # fmt: skip
most = max(int(found[run.run_id].evaluation.confusion.max()) for run in shown)
with st.grid(min(len(shown), 2), min_column_width=340, gap="medium"):
    for run in shown:
        predictions = found[run.run_id]
        title = f"{run.label}: accuracy {predictions.evaluation.summary['accuracy']:.3f}, n = {len(predictions):,}"
        key = chart_key(f"matrix-{run.run_id[:8]}")
        with st.container():
            frame.chart(
                matrix(run.run_id, predictions, tag(title), view, frame.theme(), most),
                key=key, on_select=clicked_on(key, predictions.class_names, run.run_id),
                selection_mode="points", alt=f"Confusion matrix, {title}",
            )  # fmt: skip
    if len(shown) == 2:
        with st.container():
            difference(snapshot, shown[0], shown[1], found)
    if len(pairs := confused_pairs(found[best.run_id].evaluation).head(10)):
        most_confused(best, pairs)

st.subheader("The images behind a cell", anchor=False)
labels = {run.run_id: run.label for run in shown}
if st.session_state.get("by", best.run_id) not in labels:
    del st.session_state["by"]
asked = st.query_params.get("by")
if len(shown) > 1 and "by" not in st.session_state and asked in labels.values():
    # A link that somebody wrote, or of before names were escaped there.
    st.session_state["by"] = next(run_id for run_id, label in labels.items() if label == asked)
with st.container(horizontal=True, vertical_alignment="top"):
    of = best.run_id
    if len(shown) > 1:
        of = st.segmented_control(
            "By",
            list(labels),
            default=of,
            format_func=lambda one: plain(labels[one]),
            key="by",
            bind="query-params",
            required=True,
        )
    predictions = found[of]
    names = predictions.class_names
    for key in ("truth", "prediction"):
        if key in st.session_state and st.session_state[key] not in names:
            del st.session_state[key]
    pairs = confused_pairs(predictions.evaluation)
    start = [names.index(pairs.iloc[0][key]) if len(pairs) else 0 for key in ("truth", "prediction")]
    truth = st.selectbox("Truth", names, start[0], key="truth", bind="query-params", width=170)
    prediction = st.selectbox("Taken for", names, start[1], key="prediction", bind="query-params", width=170)
cell = np.flatnonzero(
    (predictions.target == names.index(truth)) & (predictions.preds == names.index(prediction))
)
cell = cell[np.argsort(-predictions.loss[cell], kind="stable")]
row = snapshot.runs.loc[of]
pictures = cache.pictures(of, row["dataset"], row["test_fingerprint"])
word = "found as such" if truth == prediction else f"taken for {prediction}"
st.markdown(
    f"{several(len(cell), 'image')} of {plain(truth)} {'are' if len(cell) != 1 else 'is'} {plain(word)}"
    + (f", the {SHOWN_IMAGES} of highest loss:" if len(cell) > SHOWN_IMAGES else ":" if len(cell) else ".")
)
if len(cell):
    run = next(run for run in shown if run.run_id == of)
    others = [
        other
        for other in shown
        if other is not run and not frame.different_tests(snapshot, found, of, other.run_id)
    ]
    if not len(pictures):
        st.caption(f"{plain(pictures.missing)}; the answers are shown without them.")
    if others:
        st.html(key_line([run, *others]))
    st.html(gallery(cell[:SHOWN_IMAGES].tolist(), [run, *others], found, pictures))

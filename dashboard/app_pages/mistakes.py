"""Mistakes: test images with what each chosen run made of them."""

import numpy as np
import streamlit as st

from dashboard import cache, frame
from dashboard.gallery import gallery, key_line
from dashboard.selection import Chosen, choose_runs
from dashboard.text import plain, several
from trainer.evaluation.comparison import Predictions

PAGE = 24
SUSPECT_LABEL, SUSPECT_OTHER = 0.1, 0.7
"""A label is suspected where every run gives it less than the first, and one other class more than the second."""
ORDERS = {
    "highest loss": "loss",
    "surest mistakes": "confidence",
    "disagreement": "disagreement",
}


def groups(runs: list[Chosen], found: dict[str, Predictions]) -> dict[str, np.ndarray]:
    """Name of a tab → positions of its images."""
    right = {run.run_id: found[run.run_id].preds == found[run.run_id].target for run in runs}
    suspects = all_sure_of_another([found[run.run_id] for run in runs])
    if len(runs) == 2:
        a, b = (right[run.run_id] for run in runs)
        parts = {
            "Both wrong": ~a & ~b,
            f"Only {runs[0].label} right": a & ~b,
            f"Only {runs[1].label} right": b & ~a,
            "Both right": a & b,
        }
    else:
        wrong = [~right[run.run_id] for run in runs]
        parts = {"Mistakes" if len(runs) == 1 else "Wrong in some run": np.any(wrong, axis=0)}
        if len(runs) > 2:
            parts["Wrong in every run"] = np.all(wrong, axis=0)
    return {
        **{name: np.flatnonzero(mask) for name, mask in parts.items()},
        "Suspected label errors": suspects,
    }


def all_sure_of_another(found: list[Predictions]) -> np.ndarray:
    """Positions where all runs are sure of one and the same other class than the label."""
    target, rows = found[0].target, np.arange(len(found[0]))
    other = found[0].preds
    suspect = other != target
    for predictions in found:
        suspect &= predictions.preds == other
        suspect &= predictions.probabilities[rows, target] < SUSPECT_LABEL
        suspect &= predictions.probabilities[rows, other] > SUSPECT_OTHER
    return np.flatnonzero(suspect)


def rank(index: np.ndarray, order: str, found: list[Predictions]) -> np.ndarray:
    """`index`, the most telling image first."""
    if order == "loss":
        key = np.mean([predictions.loss[index] for predictions in found], axis=0)
    elif order == "confidence":
        key = np.mean(
            [p.probabilities[index].max(1) * (p.preds[index] != p.target[index]) for p in found], axis=0
        )
    else:  # total variation between the runs' probabilities, the largest pair
        stack = np.stack([predictions.probabilities[index] for predictions in found])
        key = np.abs(stack[:, None] - stack[None]).sum(-1).max((0, 1)) / 2 if len(index) else np.empty(0)
    return index[np.argsort(-key, kind="stable")]


def opening(parts: dict[str, np.ndarray], runs: list[Chosen], found: dict[str, Predictions]) -> str:
    size = len(found[runs[0].run_id])
    suspects = len(parts["Suspected label errors"])
    doubt = (
        f"; {several(suspects, 'label')} deserve{'' if suspects != 1 else 's'} a second look"
        if suspects
        else ""
    )
    if len(runs) == 2:
        both, only_a, only_b, _ = (len(index) for index in list(parts.values())[:4])
        return (
            f"Of {size:,} test images both get {both:,} wrong; {plain(runs[0].label)} alone is right on {only_a:,}, "
            f"{plain(runs[1].label)} alone on {only_b:,}{doubt}."
        )
    some = f"{len(next(iter(parts.values()))):,}"
    if len(runs) == 1:
        return f"{plain(runs[0].label)} is wrong on {some} of {size:,} test images{doubt}."
    every = f"{len(parts['Wrong in every run']):,}"
    return f"{every} of {size:,} test images are wrong in every run, {some} in some{doubt}."


snapshot = frame.load("Mistakes")
top = st.container()
chosen = choose_runs(snapshot, most=4)
found = frame.load_each(cache.predictions, snapshot, chosen)
shown = [run for run in chosen if run.run_id in found]
if not shown:
    with top:
        frame.answer("Mistakes", "Choose a finished run to see its mistakes.")
    st.stop()
found = frame.same_test_set(snapshot, found, shown)
shown = [run for run in shown if run.run_id in found]
parts = groups(shown, found)
with top:
    frame.answer("Mistakes", opening(parts, shown, found))

first = found[shown[0].run_id]
names = first.class_names
with st.container(horizontal=True, vertical_alignment="top"):
    orders = [name for name in ORDERS if len(shown) > 1 or name != "disagreement"]
    order = st.segmented_control(
        "Sort by", orders, default=orders[0], key="by-what", bind="query-params", required=True
    )
    truth = st.selectbox("Truth", ["any", *names], key="true-class", bind="query-params", width=150)
    prediction = st.selectbox("Taken for", ["any", *names], key="taken-for", bind="query-params", width=150)
st.html(key_line(shown))
row = snapshot.runs.loc[shown[0].run_id]
pictures = cache.pictures(shown[0].run_id, row["dataset"], row["test_fingerprint"])
if not len(pictures):
    st.caption(f"{plain(pictures.missing)}; the answers are shown without them.")
elif not pictures.complete:
    st.caption(
        "The dataset is not decoded on this machine; the run kept the pictures of highest loss, "
        f"{len(pictures):,} of them."
    )

kept = np.ones(len(first), dtype=bool)
if truth != "any":
    kept &= first.target == names.index(truth)
if prediction != "any":
    kept &= np.any([found[run.run_id].preds == names.index(prediction) for run in shown], axis=0)
labels = [f"{plain(name)} ({len(index):,})" for name, index in parts.items()]
tabs = st.tabs(labels, key="part", on_change="rerun", bind="query-params")
for number, (tab, (name, everything)) in enumerate(zip(tabs, parts.items(), strict=True)):
    if not tab.open:
        continue
    index = everything[kept[everything]]
    with tab:
        if name == "Suspected label errors":
            st.caption(
                f"Every chosen run gives the label less than {SUSPECT_LABEL:.0%} and one other class more than "
                f"{SUSPECT_OTHER:.0%}. Models can be wrong together: look before you call it an error."
            )
        if len(index) < len(everything):
            st.caption(
                f"{len(index):,} of {several(len(everything), 'image')} have this truth and prediction."
            )
        if not len(index):
            st.markdown("No image is here.")
            continue
        ranked = rank(index, ORDERS[order], [found[run.run_id] for run in shown])
        pages = -(-len(ranked) // PAGE)
        page = 1
        if pages > 1:
            page = st.number_input(
                f"Page (of {pages})", 1, pages, 1, key=f"page-{number}", bind="query-params", width=150
            )
        st.html(gallery(ranked[(page - 1) * PAGE : page * PAGE].tolist(), shown, found, pictures))

"""Calibration: whether probabilities mean what they say, and what it gains to answer only where a model is sure."""

import streamlit as st

from dashboard import cache, charts, frame
from dashboard.calibrations import COVERAGE, calibration_table, opening
from dashboard.selection import choose_runs
from dashboard.text import number, plain, several
from trainer.contract import UNCALIBRATED
from trainer.inference.answers import SURE

snapshot = frame.load("Calibration")
top = st.container()
chosen = choose_runs(snapshot, most=6)
predictions = frame.load_each(cache.predictions, snapshot, chosen)
if not predictions:
    with top:
        frame.answer("Calibration", "Choose a finished run to see whether its probabilities can be believed.")
    st.stop()
predictions = frame.same_test_set(snapshot, predictions, chosen)
found = frame.load_each(cache.reliability, snapshot, [run for run in chosen if run.run_id in predictions])
if not found:
    st.stop()
shown = [run for run in chosen if run.run_id in found]
earlier = {
    run: cache.reliability(run.run_id, snapshot.runs.at[run.run_id, "status"], UNCALIBRATED) for run in shown
}
before = {run.run_id: one for run, one in earlier.items() if not isinstance(one, str)}
best = max(shown, key=lambda run: predictions[run.run_id].evaluation.summary["accuracy"])
with top:
    frame.answer("Calibration", opening(best.label, found[best.run_id], before.get(best.run_id)))

if before and not st.toggle("Also before calibration", True, key="before", bind="query-params"):
    before = {}
for run, one in earlier.items():
    if isinstance(one, str):
        st.caption(f"{plain(run.label)} is shown as calibrated alone: {plain(one)}.")
left, right = st.columns(2, gap="large")
with left:
    figure = cache.figure(
        ("reliability", *shown, *before), lambda: charts.reliability_diagram(found, before, shown)
    )
    errors = "; ".join(f"{run.label} {number(found[run.run_id].error)}" for run in shown)
    frame.chart(
        figure,
        key="reliability",
        alt=f"Share of right answers by the probability that was told; ECE: {errors}",
    )
    sizes = found[best.run_id].bins["images"]
    st.caption(
        f"A point is the mean of {sizes.min():,} to {several(sizes.max(), 'image')} of similar probability, with "
        "Wilson's 95% interval."
    )
with right:
    figure = cache.figure(("coverage", *shown), lambda: charts.coverage_curves(found, shown, COVERAGE, SURE))
    frame.chart(
        figure, key="coverage",
        alt=f"Accuracy of the surest answers of {several(len(shown), 'run')} by the share that is answered",
    )  # fmt: skip
    st.caption(f"Below {SURE:.2f} the page Try it says “not sure”. Dotted: the surest {COVERAGE:.0%}.")
table = calibration_table(shown, found, before, snapshot.runs["temperature"].to_dict())
st.dataframe(
    table,
    hide_index=True,
    height=frame.height(len(table)),
    column_config=frame.right(table.columns[1:]),
    alt="Calibration of each run: its errors, the parts of the Brier score, and the accuracy of its surest answers",
)
st.caption(
    "ECE: the mean distance between what was said and what was right, over 15 groups of equally many images; by "
    "chance: what a model whose probabilities are true would have on these images, on average and (≤) in 95% of cases. "
    "Brier score = reliability (lower is better) − resolution (higher is better) + uncertainty (of the data): for each "
    "class over 15 groups of its probabilities, summed over classes."
)

"""Sweep: what a search for better settings has found so far, and which settings mattered."""

import shlex
from datetime import UTC, datetime

import pandas as pd
import streamlit as st

from dashboard import cache, charts, frame
from dashboard.address import choose_newest, write
from dashboard.sweeps import (
    best_trial,
    command,
    in_words,
    judged,
    opening,
    progress_table,
    trials_of,
    values_table,
)
from dashboard.text import percent, plain, several
from trainer.search import LEAST_FOR_IMPORTANCE
from trainer.store.location import StoreError
from trainer.store.snapshot import SweepRun

TITLE = "Sweep"
COMMAND = "python -m trainer sweep --dataset fer2013 --trials 20"
MOST_ROWS = 500


def label(sweep: SweepRun) -> str:
    begun = datetime.fromtimestamp(sweep.started_ms / 1000, UTC)
    return f"{sweep.name}, {begun:%d %b %Y %H:%M} UTC"


def state_of(trials: pd.DataFrame) -> frozenset[tuple[str, str]]:
    return frozenset(zip(trials.index, trials["status"], strict=True))


@st.fragment(run_every="5s")
def watch(sweep: SweepRun, state: frozenset[tuple[str, str]]) -> None:
    """Draws the page again when a trial has begun or ended."""
    try:
        found = cache.snapshot()
    except StoreError:
        return  # the store is away for a moment
    if state_of(trials_of(found, sweep)) != state:
        st.rerun()


def every_trial(trials: pd.DataFrame, table: pd.DataFrame) -> None:
    """The trials with their settings, the best first."""
    shown = trials.sort_values("validation_accuracy", ascending=False, kind="stable")[
        ["trial", "status", "validation_accuracy", "epochs_done", "reason"]
    ].rename(columns={"epochs_done": "epochs done", "validation_accuracy": "validation accuracy"})
    settings = table.drop(columns="validation accuracy")
    formats = {"validation accuracy": "%.3f"} | dict.fromkeys(settings.select_dtypes("number"), "%.4g")
    st.dataframe(
        shown.join(settings).head(MOST_ROWS),
        hide_index=True,
        placeholder="–",
        column_config={
            name: st.column_config.NumberColumn(format=written) for name, written in formats.items()
        },
        height=frame.height(min(len(shown), MOST_ROWS)),
        alt="Each trial with its settings",
    )
    if len(shown) > MOST_ROWS:
        st.caption(f"The best {MOST_ROWS} of {len(shown):,} trials.")


snapshot = frame.load(TITLE, without_runs=True)
if not snapshot.sweeps:
    frame.answer(TITLE, "No settings have been searched yet.")
    st.markdown(
        "Each trial trains with other settings; start the same command again to work on them together:"
    )
    st.code(COMMAND, language="bash", wrap_lines=True)
    st.stop()
top = st.container()
sweeps = {sweep.run_id: sweep for sweep in snapshot.sweeps}
chosen = choose_newest(
    "Sweep", list(sweeps), snapshot.sweeps[0].run_id, key="sweep", shown=len(sweeps) > 1,
    format_func=lambda run_id: label(sweeps[run_id]),
)  # fmt: skip
write(sweep=chosen)
sweep = sweeps[chosen]
with frame.tell_errors():
    snapshot = cache.with_trials(sweep.run_id)
trials = trials_of(snapshot, sweep)
with top:
    frame.answer(TITLE, opening(sweep, trials))
    st.caption(
        f"{plain(sweep.dataset)}, {plain(label(sweep))}. Searched: {plain('; '.join(map(in_words, sweep.space)))}."
    )
watch(sweep, state_of(trials))
if (best := best_trial(trials)) is not None:
    tried = values_table(snapshot, sweep, trials).loc[best.name].drop("validation accuracy")
    st.markdown(
        "It has "
        + ", ".join(
            f"{plain(name.replace('_', ' '))} **{plain(f'{value:.4g}' if isinstance(value, float) else value)}**"
            for name, value in tried.items()
        )
        + ". Chosen on validation from many, its accuracy flatters; test has not been looked at. "
        "Train it in full, and test it once:"
    )
    if (arguments := command(snapshot, sweep, str(best.name))) is not None:
        st.code(
            shlex.join(["python", "-m", "trainer", "train", *arguments]), language="bash", wrap_lines=True
        )

progress = progress_table(trials)
table = values_table(snapshot, sweep, trials)
if progress.empty:
    if (trials["status"] == "running").all():
        st.markdown("No trial has ended yet.")
    else:
        st.markdown("No trial came to the end of its first epoch:")
        every_trial(trials, table)
    st.stop()
left, right = st.columns([3, 2], gap="large")
with left:
    axis = st.segmented_control(
        "Axis", ("trial", "time"), default="trial", key="axis", bind="query-params", required=True
    )
    frame.chart(
        charts.best_so_far(progress, axis),
        alt=f"Validation accuracy of {several(len(progress), 'trial')}, and the best so far",
        key="best-so-far",
    )
with right:
    found = cache.importances(sweep, judged(snapshot, sweep, trials))
    if found:
        frame.chart(
            charts.importance_bars(found),
            alt="How much each setting mattered: "
            + ", ".join(f"{name} {percent(share)}" for name, share in found.items()),
            key="importance",
        )
        st.caption("Share of the differences between finished trials that a setting accounts for (fANOVA).")
    else:
        st.markdown("**What mattered**")
        st.caption(
            f"Told from {LEAST_FOR_IMPORTANCE} finished trials on, that differ in accuracy and in two settings or more."
        )
names = ["Parallel coordinates", "All trials"]
tabs = st.tabs(names, key="view", on_change="rerun", bind="query-params")
if tabs[0].open:
    with tabs[0]:
        if len(table) < 3:
            st.markdown("Parallel coordinates need three trials or more.")
        else:
            frame.chart(
                charts.parallel_coordinates(
                    table.set_axis([f"trial {one:.0f}" for one in trials.loc[table.index, "trial"]]),
                    "validation accuracy",
                    logarithmic=[one.name for one in sweep.space if one.log],
                ),
                alt=f"Settings and accuracy of {several(len(table), 'trial')} as parallel lines",
            )
if tabs[1].open:
    with tabs[1]:
        every_trial(trials, table)

"""Which runs a page is about: chosen once, remembered from page to page, and written into the URL."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from dashboard.address import SHORTEST_ID, is_asked_again, keep_missing, tell_missing, write
from dashboard.cache import MOST_WANTED
from dashboard.text import short
from trainer.store.snapshot import NOT_CONFIGURATION, Snapshot

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
GREY = "#8A8F98"
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
KEY = "runs"
_PARTS = ("architecture", "mode", "recipe", "seed")
LONGEST_VALUE = 18
"""Characters of a parameter's value in a label: a table has a column for each run."""
_ID_LENGTH = 8


@dataclass(frozen=True)
class Chosen:
    """A chosen run as every chart and table shows it."""

    run_id: str
    label: str
    colour: str
    dash: str
    marker: str


def choose_runs(snapshot: Snapshot, *, most: int) -> list[Chosen]:
    """The bar at the top: runs by name, in the order of choice; a page shows the first `most` of them."""
    runs = snapshot.runs
    restore(snapshot)
    names = full_names(runs)
    chosen = st.multiselect(
        "Runs",
        list(runs.index),
        format_func=names.__getitem__,
        key=KEY,
        persist_state="session",
        placeholder="Choose runs by name",
        help="The first run is the one that the others are compared with."
        + (" Older runs can be loaded on the page Runs." if snapshot.has_older else ""),
    )
    remember(chosen)
    tell_missing(KEY, chosen, "store")
    if len(chosen) > most:
        st.caption(f"Only the first {most} of the {len(chosen)} chosen runs are shown here.")
    return describe(snapshot, chosen[:most])


def after_ticks(before: Sequence[str], groups: Sequence[Sequence[str]], ticked: Sequence[int]) -> list[str]:
    """The chosen runs when those rows of a table have a tick; each row is a group of runs.

    Of a group that was chosen in part, and so had no tick, nothing is unticked; nor what the table does not show.
    """
    chosen = set(before)
    without = [group for row, group in enumerate(groups) if row not in ticked and chosen.issuperset(group)]
    unticked = {run_id for group in without for run_id in group}
    kept = [run_id for run_id in before if run_id not in unticked]
    return kept + [run_id for row in ticked for run_id in groups[row] if run_id not in chosen]


def restore(snapshot: Snapshot) -> None:
    """Take the choice from the URL in a new session, and where somebody goes back to it, else the two best runs; drop
    runs that are gone."""
    runs = snapshot.runs
    if KEY not in st.session_state or is_asked_again(KEY):
        wanted = st.query_params.get_all(KEY)
        found = [
            run_id
            for short_id in wanted
            if len(short_id) >= SHORTEST_ID
            for run_id in runs.index
            if run_id.startswith(short_id)
        ]
        st.session_state[KEY] = list(dict.fromkeys(found)) if wanted else best_two(runs)
        missing = [one for one in wanted if not any(run_id.startswith(one) for run_id in found)]
        if snapshot.has_older and len(wanted) > MOST_WANTED:
            missing = []  # they were not all looked for
        keep_missing(KEY, missing, st.session_state[KEY])
    elif gone := [run_id for run_id in st.session_state[KEY] if run_id not in runs.index]:
        st.session_state[KEY] = [run_id for run_id in st.session_state[KEY] if run_id not in gone]


def remember(run_ids: Sequence[str]) -> None:
    """Write the choice into the URL."""
    write(**{KEY: [run_id[:_ID_LENGTH] for run_id in run_ids]})


def best_two(runs: pd.DataFrame) -> list[str]:
    """The best run by test accuracy, and the best other on the same test set; the better one second."""
    tested = runs[runs["test_accuracy"].notna()].sort_values("test_accuracy", ascending=False, kind="stable")
    if tested.empty:
        return list(runs.index[:1])
    # The dataset that was worked on last, not the easier one.
    newest = runs.loc[runs.index.isin(tested.index), "test_fingerprint"].iloc[0]
    same = tested[tested["test_fingerprint"] == newest]
    return list(same.index[:2])[::-1]


def describe(snapshot: Snapshot, run_ids: Sequence[str]) -> list[Chosen]:
    """Labels, shortened to what differs, and one colour, dash and marker for each place in the choice."""
    labels = short_names(snapshot, run_ids)
    return [
        Chosen(
            run_id,
            labels[run_id],
            COLOURS[index] if index < len(COLOURS) else GREY,
            DASHES[index % len(DASHES)],
            # Grey runs share a colour: each round of dashes takes the markers from one further on.
            MARKERS[(index + index // len(DASHES)) % len(MARKERS)],
        )
        for index, run_id in enumerate(run_ids)
    ]


def full_names(runs: pd.DataFrame) -> dict[str, str]:
    """run_id → its name, with a part of the id where the name is shared or missing."""
    names = [short(name) for name in runs["name"].tolist()]
    shared = {name for name, times in Counter(names).items() if times > 1 or not name}
    return {
        run_id: f"{name} {run_id[:_ID_LENGTH]}".strip() if name in shared else name
        for run_id, name in zip(runs.index.tolist(), names, strict=True)
    }


def short_names(snapshot: Snapshot, run_ids: Sequence[str]) -> dict[str, str]:
    """run_id → architecture and what else tells the runs apart: mode, recipe, seed, else a parameter or the id."""
    runs = snapshot.runs.loc[list(run_ids)]
    parts = pd.DataFrame(index=runs.index)
    for name in _PARTS:
        values = runs[name].map(
            lambda v: "" if v == "" or v != v else f"seed {v:.0f}" if isinstance(v, float) else v
        )
        if name == "architecture" or values[values != ""].nunique() > 1:
            parts[name] = values
    labels = (
        parts.agg(lambda row: " · ".join(filter(None, row)), axis=1) if len(runs) else pd.Series(dtype=str)
    )
    for _, alike in labels.groupby(labels):
        for key, values in differing_parameters(snapshot, list(alike.index)).items():
            if labels[alike.index].duplicated().any() and key not in {*_PARTS, *NOT_CONFIGURATION}:
                labels[alike.index] = [
                    f"{labels[run_id]} · {key} {short(values[run_id], LONGEST_VALUE)}"
                    if values[run_id]
                    else labels[run_id]
                    for run_id in alike.index
                ]
    names = full_names(snapshot.runs)
    labels = labels.map(short)  # before they are compared: two long ones may become one
    unclear = labels.duplicated(keep=False) | (labels == "")
    labels = labels.where(~unclear, pd.Series(names))
    shared = labels.duplicated(keep=False)  # a run's name may be another's label
    return {
        run_id: f"{labels[run_id]} {run_id[:_ID_LENGTH]}" if shared[run_id] else labels[run_id]
        for run_id in run_ids
    }


def differing_parameters(snapshot: Snapshot, run_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """parameter → run_id → value ("" where it has none), for those that differ; by name."""
    params = {run_id: snapshot.params.get(run_id, {}) for run_id in run_ids}
    keys = sorted({key for values in params.values() for key in values})
    table = {key: {run_id: values.get(key, "") for run_id, values in params.items()} for key in keys}
    return {key: values for key, values in table.items() if len(set(values.values())) > 1}

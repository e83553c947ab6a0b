"""Runs: what was trained, what it reached, and what is going on now."""

import pandas as pd
import streamlit as st

from dashboard import cache, frame
from dashboard.selection import KEY, after_ticks, full_names, remember, restore
from dashboard.table import COLUMNS, DEFAULT_COLUMNS, fold_seeds, run_table, state_of
from dashboard.text import number, plain, several, short
from dashboard.trainings import stage
from trainer.store.location import StoreError
from trainer.store.snapshot import Snapshot

ANY = "any"
MOST_FOUND = 200
"""Runs that one search fetches from a server."""
MOST_DATASETS = 2
MOST_FAILED = 20


def opening(runs: pd.DataFrame, names: dict[str, str], has_older: bool) -> str:
    """How many runs, which is best, and what is being trained; over all datasets where there are several."""
    loaded = " loaded" if has_older else ""
    parts = []
    datasets = runs["dataset"].unique()
    for dataset in datasets[:MOST_DATASETS]:
        group = runs[runs["dataset"] == dataset]
        text = f"{several(len(group), 'run')}{loaded} on {plain(dataset)}"
        tested = group[group["test_accuracy"].notna()]
        if len(tested):
            on = ""
            if (
                tested["test_fingerprint"].nunique() > 1
            ):  # of the largest test set alone: others cannot be compared
                tested = tested[tested["test_fingerprint"] == largest_test_set(tested)]
                on = f" on {tested['test_images'].max():,.0f} images"
            best = tested.loc[tested["test_accuracy"].idxmax()]
            text += f", best {plain(names[best.name])} with {number(best['test_accuracy'])} test accuracy{on}"
        parts.append(text)
    if len(datasets) > MOST_DATASETS:
        parts.append(f"more on {several(len(datasets) - MOST_DATASETS, 'other dataset')}")
    running = runs[runs["status"] == "running"]
    for run_id, row in list(running.iterrows())[:1]:
        more = f" and {len(running) - 1} more" if len(running) > 1 else ""
        parts.append(f"{plain(names[run_id])}{more} is training ({stage(row)})")
    return "; ".join(parts) + "."


def largest_test_set(tested: pd.DataFrame) -> str:
    """Its fingerprint; of equally large ones that of the newest run."""
    images = tested["test_images"].fillna(0)
    return tested.loc[images.idxmax(), "test_fingerprint"]


@st.fragment(run_every="3s")
def live(state: frozenset[tuple[str, ...]]) -> None:
    """The answer and the running trainings, read again every few seconds without a reload of the page."""
    try:
        snapshot = cache.snapshot()
    except StoreError:
        return  # the store is away for a moment; the page stays as it is
    runs = snapshot.runs
    if state_of(runs) != state:
        st.rerun()  # a run began, ended, went or was promoted: the table has to know
    names = full_names(runs)
    frame.answer("Runs", opening(runs, names, snapshot.has_older))
    running = runs[runs["status"] == "running"]
    with st.grid("auto", min_column_width=300):
        for run_id, row in running.head(6).iterrows():
            with st.container(border=True, key=f"live-{run_id[:8]}"):
                epochs = row["epochs"] if row["epochs"] == row["epochs"] else None
                share = min(row["epochs_done"] / epochs, 1.0) if epochs else 0.0
                st.progress(share, f"**{plain(names[run_id])}**  \n{stage(row)}")
                if row["curve"]:
                    st.metric(
                        "validation accuracy",
                        number(row["curve"][-1]),
                        chart_data=row["curve"],
                        chart_type="line",
                    )


def filtered(runs: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """The bar of filters, all of them in the URL."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="filters"):
        for column, label in (("dataset", "Dataset"), ("architecture", "Architecture"), ("status", "Status")):
            options = [ANY, *sorted({value for value in runs[column] if value})]
            value = st.selectbox(label, options, key=column, bind="query-params", width=132)
            if value != ANY:
                runs = runs[runs[column] == value]
        text = st.text_input(
            "Search", key="text", bind="query-params", placeholder="name, recipe, id …", width=190
        )
        sort = st.selectbox("Sort by", list(SORTS), key="sort", bind="query-params", width=150)
        fold = st.toggle(
            "Fold seeds",
            key="fold",
            bind="query-params",
            help="Runs that differ only in seed become one row: mean ± standard deviation of those tested.",
        )
        with st.popover("Columns"):
            st.multiselect("Columns", list(COLUMNS), DEFAULT_COLUMNS, key="columns", bind="query-params")
    if text and len(runs):
        everything = runs[["recipe", "mode", "registered"]].agg(" ".join, axis=1) + " " + runs.index + " "
        everything += pd.Series(names).reindex(runs.index)
        runs = runs[everything.str.contains(text, case=False, regex=False)]
    column, ascending = SORTS[sort]
    shown = fold_seeds(runs) if fold else runs
    return shown.sort_values(column, ascending=ascending, kind="stable", na_position="last")


def choose(key: str, members: list[list[str]]) -> None:
    """The rows that are ticked in the table become the chosen runs."""
    st.session_state[KEY] = after_ticks(st.session_state[KEY], members, st.session_state[key].selection.rows)


def show_older(snapshot: Snapshot) -> None:
    """What a server has beside the runs that are loaded, and how to get it."""
    if not snapshot.has_older:
        return
    newest = cache.reader().newest or 0
    asked = len(snapshot.runs) - newest
    more = f" and {several(asked, 'older one')} that models, links or people named" if asked > 0 else ""
    frame.older(
        f"Loaded are the newest {newest:,} runs of this server{more}. Table, filters, search and the answer above know "
        "only these.",
        "runs",
    )
    if text := st.session_state.get("text", ""):
        search_server(text)
    if message := st.session_state.pop("found", None):
        st.caption(message)


def search_server(text: str) -> None:
    """Offers to look for a name among all runs of a server."""
    if st.button(f"Look for “{plain(short(text))}” among all names", key="search-server"):
        try:
            found = cache.search_names(text, MOST_FOUND)
        except ValueError as error:  # a StoreError is one, too
            st.error(plain(str(error)))
            return
        st.session_state["found"] = (
            "No run of this server has that in its name." if not found else
            f"The newest {MOST_FOUND} runs with that in their names are loaded." if found == MOST_FOUND else
            f"{several(found, 'run')} with that in the name, all loaded."
        )  # fmt: skip
        st.rerun()


SORTS = {
    "newest": ("started", False),
    "test accuracy": ("test_accuracy", False),
    "macro recall": ("test_macro_recall", False),
    "validation accuracy": ("validation_accuracy", False),
    "training time": ("training_seconds", True),
    "size": ("parameters", True),
    "energy": ("estimated_kwh", True),
}

snapshot: Snapshot = frame.load("Runs")
runs, names = snapshot.runs, full_names(snapshot.runs)
restore(snapshot)
live(state_of(runs))

shown = filtered(runs, names)
remember(st.session_state[KEY])
if shown.empty:
    st.markdown("No run fits these filters.")
    show_older(snapshot)
    st.stop()
members = list(shown["members"]) if "members" in shown else [[run_id] for run_id in shown.index]
key = f"table-{hash(tuple(map(tuple, members)))}"
ticked = set(st.session_state[KEY])
chosen_rows = [i for i, group in enumerate(members) if ticked.issuperset(group)]
table, config = run_table(shown, names, st.session_state.get("columns", DEFAULT_COLUMNS))
st.dataframe(
    table, column_config=config, hide_index=True, key=key, on_select=lambda: choose(key, members),
    selection_mode="multi-row", selection_default={"selection": {"rows": chosen_rows}},
    height=frame.height(len(table)), placeholder="–", alt=f"{several(len(table), 'run')} with their results",
)  # fmt: skip

count_chosen = len(st.session_state[KEY])
count_hidden = len(ticked.difference(*members))
hidden = f", {count_hidden} of them not shown by these filters" if count_hidden else ""
st.caption(
    f"{several(count_chosen, 'run')} chosen{hidden}. Tick runs to choose them, then go on:" if count_chosen else
    "Tick two or more runs to compare them."
)  # fmt: skip
with st.container(horizontal=True):
    for file, label in (
        ("compare.py", f"Compare {several(count_chosen, 'run')}"),
        ("recall.py", "Per-class recall"),
        ("calibration.py", "Calibration"),
        ("confusion.py", "Confusion"),
        ("mistakes.py", "Mistakes"),
    ):
        if st.button(
            label,
            type="primary" if file == "compare.py" else "secondary",
            disabled=not count_chosen,
            key=f"go-{file}",
        ):
            st.switch_page(
                f"app_pages/{file}", query_params={KEY: [run_id[:8] for run_id in st.session_state[KEY]]}
            )
show_older(snapshot)
if (failed := runs[runs["status"].isin(["failed", "stale"])]).size:
    with st.expander(f"{several(len(failed), 'run')} did not come to an end"):
        for run_id, row in failed.head(MOST_FAILED).iterrows():
            why = row["reason"] or (
                "its process is gone" if row["status"] == "stale" else "no reason was logged"
            )
            st.markdown(f"{plain(names[run_id])}: {row['status']}, {plain(why[:300])}")
        if len(failed) > MOST_FAILED:
            st.caption(f"These are the newest {MOST_FAILED}.")

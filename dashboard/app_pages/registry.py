"""Registry: the versions of each registered model, who is champion, and what a promotion would change."""

import os
from pathlib import Path

import pandas as pd
import streamlit as st

from dashboard import cache, charts, frame
from dashboard.address import choose_newest, write
from dashboard.links import mlflow_version_url
from dashboard.selection import short_names
from dashboard.text import document, number, plain, several, signed
from trainer.contract import CHALLENGER, CHAMPION, Tag
from trainer.evaluation.comparison import verdict
from trainer.evaluation.gates import Verdict, failed, read_gates
from trainer.store.location import StoreError
from trainer.store.promotion import LONGEST_REASON, champion_of, judged, judged_champion, promote
from trainer.store.registry import Version, remove_alias, set_alias
from trainer.store.snapshot import Snapshot

OTHER = "another alias …"
MOST_TAGGED = 12
SCROLLING = "<style>.st-key-card table{display:block;max-width:100%;overflow-x:auto}</style>"
"""Lets the card's tables scroll, not the page, where they are wider."""


def opening(model: str, versions: list[Version], table: pd.DataFrame) -> str:
    champion = next((v for v in versions if CHAMPION in v.aliases), None)
    if champion is None:
        return f"{plain(model)} has {several(len(versions), 'version')} and no champion."
    row = table.loc[champion.version]
    text = f"Version {champion.version} ({plain(row['label'])}) is the champion of {plain(model)}"
    if row["test_accuracy"] == row["test_accuracy"]:
        text += f", with {number(row['test_accuracy'])} test accuracy"
    same = table[(table["fingerprint"] == row["fingerprint"]) & (table["fingerprint"] != "")]
    best = same["test_accuracy"].idxmax() if same["test_accuracy"].notna().any() else champion.version
    reached = table.at[best, "test_accuracy"]
    if reached > row["test_accuracy"] and number(reached) != number(row["test_accuracy"]):
        text += f"; version {best} ({plain(table.at[best, 'label'])}) reached {number(reached)}"
    return f"{text}."


def version_table(snapshot: Snapshot, versions: list[Version]) -> pd.DataFrame:
    """Index version; test accuracy, label, aliases, other metrics of its run, fingerprint of its test set ("":
    unknown), run_id, created."""
    runs = snapshot.runs
    known = [v.run_id for v in versions if v.run_id and v.run_id in runs.index]
    labels = short_names(snapshot, list(dict.fromkeys(known)))
    rows = []
    for v in versions:
        run = runs.loc[v.run_id] if v.run_id in runs.index else pd.Series(dtype=object)
        accuracy = run.get("test_accuracy", float("nan"))
        if accuracy != accuracy:
            accuracy = pd.to_numeric(v.tags.get(Tag.TEST_ACCURACY), errors="coerce")
        rows.append(
            {
                "version": v.version,
                "test_accuracy": accuracy,  # before what is cut off on a narrow screen
                "label": labels.get(v.run_id or "", v.tags.get(Tag.ARCHITECTURE, "no run")),
                "aliases": ", ".join(v.aliases),
                "test_macro_recall": run.get("test_macro_recall", float("nan")),
                "test_macro_f1": run.get("test_macro_f1", float("nan")),
                "test_ece": run.get("test_ece", float("nan")),
                "latency_ms": run.get("latency_ms", float("nan")),
                "parameters": run.get("parameters", float("nan")),
                "fingerprint": run.get("test_fingerprint", v.tags.get(Tag.TEST_FINGERPRINT, "")),
                "run": run.get("name", "")
                if v.run_id in runs.index
                else f"{(v.run_id or '')[:8]} (deleted)"
                if v.run_id
                else "",
                "run_id": v.run_id or "",
                "created": pd.Timestamp(v.created_ms, unit="ms") if v.created_ms else pd.NaT,
            }
        )
    return pd.DataFrame(rows).set_index("version")


def change(table: pd.DataFrame, now: int | None, version: int, alias: str) -> str:
    """What moving the alias would change, in a sentence or two."""
    if now is None:
        return f"Nobody is {plain(alias)} yet."
    if now == version:
        return f"Version {version} is {plain(alias)} already."
    before, after = table.loc[now], table.loc[version]
    labels = [f"version {now}", f"version {version}"]
    if not before["fingerprint"] or before["fingerprint"] != after["fingerprint"]:
        return (
            f"Version {now} loses {plain(alias)}. The two were tested on different data or on none, so their "
            "figures cannot be compared."
        )
    try:
        found = cache.comparison(before["run_id"], after["run_id"])
    except (ValueError, StoreError) as error:
        gain = 100 * (after["test_accuracy"] - before["test_accuracy"])
        known = (
            f"Test accuracy changes by {signed(gain, 1)} points"
            if gain == gain
            else "By how much is not known"
        )
        return (
            f"Version {now} loses {plain(alias)}. {known}; whether it is more than chance cannot be told: "
            f"{plain(str(error))}."
        )
    sentence = verdict(found, *labels)
    return f"Version {now} loses {plain(alias)}. {plain(sentence[0].upper() + sentence[1:])}"


def verdicts_on(candidate: Version, against: Version | None) -> list[Verdict]:
    """Raises ValueError where the gates cannot be read."""
    return judged(read_gates(Path.cwd()), snapshot, candidate, against, cache.comparison)


def gate_lines(verdicts: list[Verdict]) -> str:
    """Markdown, one line a gate; those that are not passed first."""
    words = {True: "passed", False: "not passed", None: "cannot be told"}
    ordered = sorted(verdicts, key=lambda verdict: bool(verdict.passed))
    return "\n".join(f"- **{plain(v.gate)}**, {words[v.passed]}: {plain(v.text)}" for v in ordered)


def champion_check(champion: Version) -> None:
    """Say so where today's champion does not pass the gates, whoever made it champion."""
    try:
        verdicts, _ = judged_champion(read_gates(Path.cwd()), snapshot, champion, cache.comparison)
    except ValueError as error:
        st.warning(plain(str(error)))
        return
    lost = [verdict for verdict in verdicts if not verdict.passed]
    if not lost:
        return
    why = champion.tags.get(Tag.PROMOTION_REASON)
    given = (
        f" It was promoted all the same by {plain(champion.tags.get(Tag.PROMOTED_BY, '?'))}: “{plain(why)}”."
        if why
        else ""
    )
    st.warning(
        f"Version {champion.version}, the champion, does not pass every gate.{given}\n\n{gate_lines(lost)}"
    )


@st.dialog("Move an alias")
def confirm(model: str, version: int, alias: str, table: pd.DataFrame, now: int | None) -> None:
    st.markdown(change(table, now, version, alias))
    candidate, champion = (next((v for v in versions if v.version == one), None) for one in (version, now))
    verdicts: list[Verdict] = []
    reason = ""
    if alias == CHAMPION and candidate is not None:
        try:
            verdicts = verdicts_on(candidate, champion)
        except ValueError as error:
            st.error(plain(str(error)))
            return
        st.markdown(gate_lines(verdicts))
        if failed(verdicts):
            reason = st.text_input(
                "Why it becomes champion all the same", key=f"reason:{model}:{version}", max_chars=LONGEST_REASON,
                persist_state="session",  # the dialog is closed where the versions change meanwhile
                help="Kept with the version, with the name of the account and the time",
            )  # fmt: skip
    columns = ["test_accuracy", "test_macro_recall", "test_ece", "latency_ms"]
    both = table.loc[[v for v in (now, version) if v is not None], columns].map(number)
    both["latency_ms"] = [number(milliseconds, 1) for milliseconds in table.loc[both.index, "latency_ms"]]
    both.columns = ["test accuracy", "macro recall", "ECE", "latency (ms)"]
    both.index = [f"version {v}" for v in both.index]
    st.dataframe(both.T, column_config=frame.right(both.index), alt="Metrics of the two versions")
    with st.container(horizontal=True):
        missing = bool(failed(verdicts)) and not reason.strip()
        if st.button(
            f"Make version {version} the {plain(alias)}", type="primary", key="confirm", disabled=missing
        ):
            try:
                if alias == CHAMPION and candidate is not None:
                    promote(cache.store(), candidate, champion, verdicts, reason)
                else:
                    set_alias(cache.store(), model, version, alias)
            except (StoreError, ValueError) as error:
                st.error(plain(str(error)))
            else:
                moved(model, version, alias)
        if st.button("Leave it as it is", key="cancel"):
            st.session_state.pop(f"reason:{model}:{version}", None)
            st.rerun()


def moved(model: str, version: int, alias: str) -> None:
    cache.forget()
    st.session_state.pop(f"reason:{model}:{version}", None)
    st.session_state["moved"] = f"{plain(model)} version {version} is now {plain(alias)}."
    st.rerun()


@st.fragment(run_every="3s")
def watch(model: str, seen: tuple[object, ...]) -> None:
    """A promotion made elsewhere shows here within seconds."""
    try:
        if fingerprint(cache.snapshot(), model) != seen:
            st.rerun()
    except StoreError:
        return


def fingerprint(snapshot: Snapshot, model: str) -> tuple[object, ...]:
    """Changes with the versions of a model and their aliases: what happens to others closes no dialog."""
    return tuple((v.version, v.created_ms, v.aliases) for v in snapshot.versions if v.name == model), sorted(
        {v.name for v in snapshot.versions}
    )


snapshot = frame.load("Registry", without_runs=True)
if not snapshot.versions:
    frame.answer("Registry", "No model is registered yet.")
    st.markdown("Every training that ends well registers a version:")
    st.code("make train", language="bash")
    watch("", fingerprint(snapshot, ""))
    st.stop()
models = sorted({version.name for version in snapshot.versions})
newest = max(snapshot.versions, key=lambda version: version.created_ms).name
top = st.container()
model = choose_newest("Model", models, newest, key="model", shown=len(models) > 1)
if st.query_params.get("model", model) != model:  # the number was the other model's
    st.session_state.pop("version", None)
    write(model=model, version=str(max(v.version for v in snapshot.versions if v.name == model)))
if asked := st.query_params.get("version"):
    with frame.tell_errors():
        snapshot = cache.snapshot([f"{model}/{asked}"])
versions = [version for version in snapshot.versions if version.name == model]
table = version_table(snapshot, versions)
with top:
    frame.answer("Registry", opening(model, versions, table))
if message := st.session_state.pop("moved", None):
    st.success(message)
if champion := champion_of(snapshot, model):
    champion_check(champion)

shown = table.sort_index(ascending=False).reset_index()
shown.insert(4, "MLflow", [mlflow_version_url(cache.store(), model, int(v)) for v in shown["version"]])
st.dataframe(
    shown.drop(columns=["fingerprint", "run_id"]), hide_index=True, height=frame.height(len(shown)), placeholder="–",
    alt=f"Versions of {model} with their metrics",
    column_config={
        "version": st.column_config.NumberColumn("version", width=60),
        "label": st.column_config.TextColumn("what it is", width=170),
        "aliases": st.column_config.TextColumn("aliases", width=90),
        "test_accuracy": st.column_config.NumberColumn("test accuracy", format="%.3f", width=95),
        "test_macro_recall": st.column_config.NumberColumn("macro recall", format="%.3f"),
        "test_macro_f1": st.column_config.NumberColumn("macro F1", format="%.3f"),
        "test_ece": st.column_config.NumberColumn("ECE", format="%.3f"),
        "latency_ms": st.column_config.NumberColumn("latency (ms)", format="%.1f"),
        "parameters": st.column_config.NumberColumn("parameters", format="compact"),
        "created": st.column_config.DatetimeColumn("created (UTC)", format="YYYY-MM-DD HH:mm"),
        "MLflow": st.column_config.LinkColumn("in MLflow", display_text="open"),
    },
)  # fmt: skip
if snapshot.has_older_versions:
    frame.older(
        f"These are the newest versions of this server, those of the loaded runs, and those that have an alias: "
        f"{several(len(versions), 'version')} of {plain(model)}.",
        "versions",
    )
if cache.store().artifact_root is not None and "MOODIFY_MLFLOW_URL" not in os.environ:
    st.caption("The links open the MLflow UI that “make mlflow” starts on this machine.")

left, right = st.columns([3, 2], gap="large")
with left:
    sets = table.loc[table["fingerprint"] != "", "fingerprint"].nunique()
    frame.chart(
        charts.version_lines(table.reset_index()), key="versions",
        alt=f"Test accuracy and macro recall of the {several(len(table), 'version')} of {model}",
    )  # fmt: skip
    if sets > 1:
        st.caption(
            f"These versions were tested on {sets} different test sets: compare only those of one set."
        )
with right:
    st.subheader("Promote a version", anchor=False)
    numbers = list(shown["version"])
    version = choose_newest("Version", numbers, numbers[0], key="version")
    write(model=model, version=str(version))
    st.caption(plain(table.at[version, "label"]))
    known = sorted({CHAMPION, CHALLENGER} | {alias for v in versions for alias in v.aliases})
    known.sort(key=lambda alias: (alias != CHAMPION, alias != CHALLENGER, alias))
    alias = st.selectbox("Alias", [*known, OTHER], key="alias", bind="query-params")
    if alias == OTHER:
        alias = st.text_input(
            "Name of the alias", key="new-alias", max_chars=100, validate="^[A-Za-z0-9_-]+$"
        ).strip()
    now = next((v.version for v in versions if alias in v.aliases), None)
    if alias:
        st.caption(change(table, now, version, alias))
    if alias == CHAMPION and now != version:
        chosen = next(v for v in versions if v.version == version)
        try:
            st.markdown(gate_lines(verdicts_on(chosen, champion)))
        except ValueError as error:
            st.error(plain(str(error)))
    with st.container(horizontal=True):
        if st.button(
            f"Make version {version} the {plain(alias or '…')}",
            type="primary",
            disabled=not alias or now == version,
            key="promote",
        ):
            confirm(model, version, alias, table, now)
        if (
            now is not None
            and alias != CHAMPION
            and st.button(f"Remove the alias {plain(alias)}", key="remove")
        ):
            try:
                remove_alias(cache.store(), model, alias)
                cache.forget()
                st.rerun()
            except StoreError as error:
                st.error(plain(str(error)))
if text := next(v.description for v in versions if v.version == version):
    with st.expander(f"Model card of version {version}"), st.container(key="card"):
        st.html(SCROLLING)
        st.markdown(document(text))
with st.expander("Tags of the versions"):
    tagged = [v for v in reversed(versions) if v in versions[-MOST_TAGGED:] or v.version == version]
    tags = pd.DataFrame({f"version {v.version}": v.tags for v in tagged}).sort_index()
    st.dataframe(tags, placeholder="–", alt="Tags, one column a version")
    if len(versions) > len(tagged):
        st.caption(f"Of the newest {MOST_TAGGED} versions and of the one that is chosen above.")
watch(model, fingerprint(snapshot, model))

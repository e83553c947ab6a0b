"""Data audit: what is wrong with the images and labels of a dataset, and a list of what training may leave out."""

import shlex
from datetime import UTC, datetime

import pandas as pd
import streamlit as st

from dashboard import cache, frame
from dashboard.address import choose_newest, write
from dashboard.text import plain, several
from trainer.contract import AUDIT_LIST, AUDIT_TABLE, Reason
from trainer.evaluation.audit import (
    LABEL,
    REASONS,
    Audit,
    class_counts,
    excludable,
    exclusion_list,
    sections,
    sentence,
    suggestions,
    twin_counts,
)
from trainer.evaluation.audit_report import findings_html, note
from trainer.store.location import StoreError
from trainer.store.snapshot import AuditRun

TITLE = "Data audit"
COMMAND = "python -m trainer audit --dataset fer2013 --folds 4"


def label(run: AuditRun) -> str:
    return f"{run.dataset}, {datetime.fromtimestamp(run.made_ms / 1000, UTC):%d %b %Y %H:%M} UTC"


def overview(audit: Audit) -> None:
    """Class counts and twins as tables; where all of it comes from."""
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Images", anchor=False)
        counts = class_counts(audit).rename_axis("class").map("{:,}".format)
        st.dataframe(
            counts, height=frame.height(len(counts)), column_config=frame.right(counts),
            alt="Images of each class in each part",
        )  # fmt: skip
    with right:
        st.subheader("Near-duplicates", anchor=False)
        twins = twin_counts(audit)
        st.dataframe(
            twins.assign(share=100 * twins["share"]), hide_index=True,
            column_config={"share": st.column_config.NumberColumn("share of them", format="%.1f%%")},
            alt="Pairs of near-duplicates, and how many of them have different labels",
        )  # fmt: skip
    facts = audit.facts
    skipped = f" {several(facts['skipped'], 'file')} could not be read." if facts["skipped"] else ""
    st.caption(f"{plain(facts['dataset'])}: {plain(facts['source'])}.{skipped}")


def suspects(rows: pd.DataFrame) -> None:
    """Which label is most often suspected to be which."""
    most = [f"{plain(one)} rather {plain(other)} ({count:,})" for one, other, count in suggestions(rows)][:6]
    if most:
        st.markdown("Most often: " + ", ".join(most))


def leave_out(audit: Audit) -> None:
    """A list for `train --exclude`, of the reasons that are chosen."""
    st.subheader("Train without them", anchor=False)
    found = excludable(audit)
    reasons: list[Reason] = st.multiselect(
        "Leave out", list(found), ["blank", "no-face", "conflict"], key="leave-out", bind="query-params",
        format_func=lambda reason: f"{REASONS[reason]} ({len(found[reason]):,})",
    )  # fmt: skip
    size = len({sample_id for reason in reasons for sample_id in found[reason]})
    with st.container(horizontal=True):
        st.download_button(
            f"Save the list of {several(size, 'image')}", exclusion_list(audit, reasons), AUDIT_LIST,
            "text/plain", disabled=not size, key="save-list",
        )  # fmt: skip
        st.download_button(
            "Save all findings as CSV",
            audit.findings.to_csv(index=False),
            AUDIT_TABLE,
            "text/csv",
            key="save-csv",
        )
    st.caption(
        "Only images of train leave; validation and test stay as they are. The run says what it left out."
    )
    if size:
        where = ["--data-dir", audit.facts["data_dir"]] if "data_dir" in audit.facts else []
        words = ["--dataset", audit.facts["dataset"], *where, "--exclude", AUDIT_LIST]
        st.code(shlex.join(["python", "-m", "trainer", "train", *words]), language="bash", wrap_lines=True)


snapshot = frame.load(TITLE, without_runs=True)
if not snapshot.audits:
    frame.answer(TITLE, "No dataset has been audited yet.")
    st.markdown("Near-duplicates and blank images take seconds, judging the labels some minutes:")
    st.code(COMMAND, language="bash", wrap_lines=True)
    st.stop()
top = st.container()
runs = {run.run_id: run for run in snapshot.audits}
chosen = choose_newest(
    "Audit", list(runs), snapshot.audits[0].run_id, key="audit", shown=len(runs) > 1,
    format_func=lambda run_id: label(runs[run_id]),
)  # fmt: skip
write(audit=chosen)
try:
    audit = cache.audit(chosen)
except StoreError as error:
    with top:
        frame.answer(TITLE, "This audit cannot be read.")
    st.markdown(plain(str(error)))
    st.stop()
with top:
    frame.answer(TITLE, plain(sentence(audit)))
    st.caption(plain(label(runs[chosen])))

found = sections(audit)
names = ["Images", *(section.heading() for section in found)]
tabs = st.tabs(names, key="findings", on_change="rerun", bind="query-params")
with tabs[0]:
    if tabs[0].open:
        overview(audit)
for tab, section in zip(tabs[1:], found, strict=True):
    if tab.open:
        with tab:
            st.caption(plain(note(section)))
            suspects(section.rows[section.rows["finding"] == LABEL])
            st.html(findings_html(section.rows, audit.thumbnails))
leave_out(audit)

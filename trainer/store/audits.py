"""Audits of datasets in the store: each is a run in an experiment of its own, which no list of trainings shows."""

import json
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from trainer.contract import (
    AUDIT_FACTS,
    AUDIT_FINDINGS,
    AUDIT_FOLDER,
    AUDIT_LIST,
    AUDIT_REPORT,
    AUDIT_TABLE,
    AUDIT_THUMBNAILS,
    Reason,
    Tag,
    audit_experiment,
    metric_key,
)
from trainer.drafts import drafts
from trainer.evaluation.audit import Audit, exclusion_list, metrics
from trainer.evaluation.audit_report import report_html
from trainer.store.location import Store
from trainer.store.writer import RunWriter


def log_audit(store: Store, audit: Audit, reasons: Collection[Reason], params: Mapping[str, object]) -> str:
    """Keep an audit, with its report and a list for `train --exclude`; returns the id of its run."""
    facts = audit.facts
    tags = {Tag.AUDIT: "true", Tag.DATASET: facts["dataset"]}
    name = f"audit of {facts['dataset']}, {facts['made']}"
    writer = RunWriter.create(store, audit_experiment(facts["dataset"]), name, tags)
    with writer, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, AUDIT_FOLDER)
        write_audit(folder, audit, reasons)
        audit.findings.to_parquet(folder / AUDIT_FINDINGS, index=False)
        thumbnails = pd.DataFrame(
            {"sample_id": list(audit.thumbnails), "png": list(audit.thumbnails.values())}
        )
        thumbnails.to_parquet(folder / AUDIT_THUMBNAILS, index=False)
        writer.log_params(params)
        writer.log_metrics({metric_key("audit", key): value for key, value in metrics(audit).items()})
        parts = {part: (facts["fingerprints"][part], counts) for part, counts in facts["counts"].items()}
        writer.log_dataset(facts["dataset"], facts["source"], parts)
        writer.log_folder(Path(scratch))
    return writer.run_id


def write_audit(folder: Path, audit: Audit, reasons: Collection[Reason]) -> None:
    """The files for people: report, findings as CSV, facts as JSON, and the list."""
    names = (AUDIT_REPORT, AUDIT_FACTS, AUDIT_LIST, AUDIT_TABLE)
    with drafts([folder / name for name in names]) as [report, facts, excluded, table]:
        report.write_text(report_html(audit), encoding="utf-8")
        facts.write_text(json.dumps(audit.facts, indent=1), encoding="utf-8")
        excluded.write_text(exclusion_list(audit, reasons), encoding="utf-8")
        audit.findings.to_csv(table, index=False, float_format="%.6g")

"""An audit of eight images, one of whose classes has a hostile name."""

import json

import pandas as pd

from trainer.evaluation.audit import Audit, shown_ids

HOSTILE = "<script>alert(1)</script>"
SAMPLES = pd.DataFrame(
    {
        "part": ["train"] * 6 + ["test"] * 2,
        "sample_id": [f"train/{index}" for index in range(6)] + ["test/0", "test/1"],
        "label": ["happy", "happy", "sad", "sad", HOSTILE, "sad", "happy", "sad"],
    }
)
PNG = b"\x89PNG"


def audit_of(*findings: pd.DataFrame, judged: int = 0, looked_at: int = 8) -> Audit:
    counts = {
        part: rows["label"].value_counts().reindex(["happy", "sad", HOSTILE], fill_value=0).to_dict()
        for part, rows in SAMPLES.groupby("part", sort=False)
    }
    facts = {
        "dataset": "faces", "source": f"here\n{HOSTILE}", "made": "2026-01-02T03:04:05+00:00",
        "class_names": ["happy", "sad", HOSTILE], "counts": counts, "fingerprints": {"train": "1a", "test": "2b"},
        "skipped": 3, "faces_looked_at": looked_at, "labels_judged": judged, "labels_by": "two runs" if judged else "",
        "limits": {"twin_correlation": 0.985, "twin_difference": 8.0, "blank_deviation": 5.0},
    }  # fmt: skip
    audit = Audit(json.loads(json.dumps(facts)), pd.concat(findings, ignore_index=True))
    return Audit(audit.facts, audit.findings, dict.fromkeys(shown_ids(audit), PNG))

"""What an audit found in a dataset, and how that is said: the same words for the command, the report and the page."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from trainer.contract import Reason
from trainer.evaluation.label_errors import suspected_labels
from trainer.wording import several

TWIN, BLANK, NO_FACE, LABEL = "twin", "blank", "no face", "label"
COLUMNS = (
    "finding",
    "part",
    "sample_id",
    "label",
    "other_part",
    "other_sample_id",
    "other_label",
    "score",
    "label_probability",
    "other_probability",
)
FACTS = frozenset(
    (
        *("dataset", "source", "made", "class_names", "counts", "fingerprints", "skipped"),
        *("faces_looked_at", "labels_judged", "labels_by", "limits"),
    )
)
MOST_SHOWN = 96
"""Findings of a section whose pictures are kept: this bounds the report and what is logged."""

REASONS: Mapping[Reason, str] = {
    "blank": "blank images",
    "conflict": "images with a twin of another label in train",
    "duplicate": "images with an earlier twin of the same label in train",
    "leak": "images with a twin in another part than train",
    "no-face": "images with nothing like a face",
    "label": "images whose label is suspect",
}
"""Why an image may leave train."""


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found in a dataset.

    facts: plain values, as they go into JSON.
        dataset, source, made (ISO 8601, UTC); class_names; counts: part → class → images; fingerprints: part → hex;
        skipped: files that could not be read. faces_looked_at, labels_judged: how many images that was done for.
        labels_by: who judged them, "" where nobody did. limits: name → value of every threshold.
    findings: COLUMNS; one row a finding. For a twin, the other image, and the mean difference in grey levels as score.
        For a blank image the standard deviation in grey levels, for a non-face the detector's highest score (0 to 1).
        For a label, the suggested one as other_label, the margin as score, and the probabilities of both.
    thumbnails: sample id → PNG file, of the first MOST_SHOWN findings of each section.
    """

    facts: Mapping[str, Any]
    findings: pd.DataFrame
    thumbnails: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def checked(cls, facts: Any, findings: pd.DataFrame, thumbnails: pd.DataFrame) -> "Audit":
        """What was read, thumbnails with the columns sample_id and png. Raises ValueError where a part is missing."""
        there = set(facts) if isinstance(facts, dict) else set()
        missing = [
            *(FACTS - there),
            *(set(COLUMNS) - set(findings)),
            *({"sample_id", "png"} - set(thumbnails)),
        ]
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        known = findings[findings["finding"].isin((TWIN, BLANK, NO_FACE, LABEL))]
        return cls(facts, known, dict(zip(thumbnails["sample_id"], thumbnails["png"], strict=True)))

    def of(self, finding: str) -> pd.DataFrame:
        return self.findings[self.findings["finding"] == finding]

    @property
    def images(self) -> int:
        return sum(sum(counts.values()) for counts in self.facts["counts"].values())


@dataclass(frozen=True, eq=False)
class Section:
    """Findings of one kind, the most telling first. looked_for: whether that was done at all."""

    title: str
    note: str
    rows: pd.DataFrame
    looked_for: bool = True

    def heading(self) -> str:
        """The title with the number of findings."""
        return f"{self.title} ({len(self.rows):,})" if self.looked_for else self.title


def twin_findings(samples: pd.DataFrame, pairs: np.ndarray, differences: np.ndarray) -> pd.DataFrame:
    """Of near-duplicates, the least different first.

    Args:
        samples: Columns part, sample_id and label (a name); one row an image.
        pairs: int64 (P, 2), positions in samples. differences: float (P,), in grey levels.
    """
    first, second = (samples.iloc[pairs[:, side]].reset_index(drop=True) for side in (0, 1))
    table = pd.concat([first, second.add_prefix("other_")], axis=1).assign(score=differences)
    return _findings(TWIN, table.sort_values("score", kind="stable"))


def image_findings(
    finding: str, samples: pd.DataFrame, positions: np.ndarray, scores: np.ndarray
) -> pd.DataFrame:
    """Of single images, the lowest score first. positions: int64 (M,), in samples; scores: float (M,)."""
    return _findings(
        finding, samples.iloc[positions].assign(score=scores).sort_values("score", kind="stable")
    )


def label_findings(
    samples: pd.DataFrame, positions: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]
) -> pd.DataFrame:
    """Of suspected label errors among the images at `positions` (int64 (M,)), the most suspect first.

    probabilities: float (M, K), out of sample.
    """
    judged = samples.iloc[positions].reset_index(drop=True)
    number = {name: index for index, name in enumerate(class_names)}
    target = judged["label"].map(number).to_numpy(dtype=np.int64)
    suspects = suspected_labels(target, probabilities)
    rows, suggested = suspects["position"].to_numpy(), suspects["suggested"].to_numpy()
    table = judged.iloc[rows].assign(
        other_label=np.array(class_names, dtype=object)[suggested],
        score=suspects["margin"].to_numpy(),
        label_probability=probabilities[rows, target[rows]],
        other_probability=probabilities[rows, suggested],
    )
    return _findings(LABEL, table)


def _findings(finding: str, table: pd.DataFrame) -> pd.DataFrame:
    table = table.assign(finding=finding).reindex(columns=list(COLUMNS))
    text = [name for name in COLUMNS if name not in ("score", "label_probability", "other_probability")]
    return table.astype(dict.fromkeys(text, object)).fillna(dict.fromkeys(text, "")).reset_index(drop=True)


def sentence(audit: Audit) -> str:
    """What a person came for."""
    twins, blank = audit.of(TWIN), len(audit.of(BLANK))
    differing = int((twins["label"] != twins["other_label"]).sum())
    text = f"{audit.facts['dataset']} has {several(len(twins), 'pair')} of near-duplicates"
    if len(twins):
        text += f", {_percent(differing, len(twins))} of them with different labels"
    text += f"; {several(blank, 'image')} {'is' if blank == 1 else 'are'} blank"
    if looked := audit.facts["faces_looked_at"]:
        without = audit.of(NO_FACE)
        text += f"; no face was found on {len(without):,} of {looked:,} images"
        if nothing := int((without["score"] == 0).sum()):
            text += f", nothing like one on {nothing:,} of them"
    if judged := audit.facts["labels_judged"]:
        text += f"; {len(audit.of(LABEL)):,} of {judged:,} labels are suspect"
    return f"{text}."


def class_counts(audit: Audit) -> pd.DataFrame:
    """Images; rows are classes and then `all`, columns parts."""
    table = pd.DataFrame(audit.facts["counts"]).reindex(audit.facts["class_names"])
    return pd.concat([table, table.sum().to_frame("all").T]).astype(int)


def twin_counts(audit: Audit) -> pd.DataFrame:
    """Columns parts, pairs, other labels (pairs whose labels differ), share (of these); one row a pair of parts."""
    twins = audit.of(TWIN)
    parts = twins["part"].where(
        twins["part"] == twins["other_part"], twins["part"] + " and " + twins["other_part"]
    )
    differ = twins["label"] != twins["other_label"]
    table = differ.groupby(parts, sort=False).agg(["size", "sum"]).reset_index()
    table.columns = ["parts", "pairs", "other labels"]
    return table.assign(share=table["other labels"] / table["pairs"])


def sections(audit: Audit) -> list[Section]:
    """All findings; a twin can be in two of the sections."""
    facts, twins = audit.facts, audit.of(TWIN)
    limits = facts["limits"]
    differ, across = twins["label"] != twins["other_label"], twins["part"] != twins["other_part"]
    alike = (
        f"Correlation above {limits['twin_correlation']:g} and a mean difference below "
        f"{limits['twin_difference']:g} of 256 grey levels."
    )
    leaked = twins[across & (twins["part"] == "train")]["other_sample_id"].nunique()
    faces = f"Looked for on {facts['faces_looked_at']:,} of {audit.images:,} images."
    labels = (
        f"{facts['labels_judged']:,} of {audit.images:,} labels were judged, by {facts['labels_by']}. Confident "
        "learning (arXiv 1911.00068) suspects them. Models can be wrong: look before you call it an error."
        if facts["labels_judged"]
        else "Labels were not judged: --folds 4 trains networks for it, --model takes what a run has answered."
    )
    return [
        Section("Twins with different labels", f"{alike} Of such a pair at least one label is wrong.", twins[differ]),
        Section(
            "Twins in different parts",
            f"{alike} {several(leaked, 'image')} of other parts {'has' if leaked == 1 else 'have'} a twin in train.",
            twins[across],
        ),
        Section("Other twins", f"{alike} Same part, same label.", twins[~differ & ~across]),
        Section("Suspected labels", labels, audit.of(LABEL), facts["labels_judged"] > 0),
        Section(
            "No face found",
            f"{faces} The detector misses some faces, above all covered or turned ones; "
            "the least face-like come first." if facts["faces_looked_at"]
            else "Faces were not looked for.",
            audit.of(NO_FACE),
            facts["faces_looked_at"] > 0,
        ),
        Section(
            "Blank",
            f"A standard deviation below {limits['blank_deviation']:g} of 256 grey levels.",
            audit.of(BLANK),
        ),
    ]  # fmt: skip


def shown_ids(audit: Audit) -> list[str]:
    """Sample ids of all that is shown of the findings, each once."""
    shown = [section.rows.head(MOST_SHOWN) for section in sections(audit)]
    ids = pd.concat([rows[column] for rows in shown for column in ("sample_id", "other_sample_id")])
    return [sample_id for sample_id in ids.drop_duplicates() if sample_id]


def excludable(audit: Audit) -> dict[Reason, list[str]]:
    """Why → sample ids of train, each once, in the order of the findings."""
    twins = audit.of(TWIN)
    differ = twins["label"] != twins["other_label"]
    faceless = audit.of(NO_FACE)
    inside = (twins["part"] == "train") & (twins["other_part"] == "train")
    one_side = (twins["part"] == "train") ^ (twins["other_part"] == "train")
    # Of one in train and one in test, the label of the latter has no say in what is learned: see leak.
    either = [*_of_train(twins[inside & differ]), *_of_train(twins[inside & differ], "other_")]
    found: dict[Reason, list[str]] = {
        "blank": _of_train(audit.of(BLANK)),
        "conflict": either,
        "duplicate": _of_train(twins[inside & ~differ], "other_"),
        "leak": [*_of_train(twins[one_side]), *_of_train(twins[one_side], "other_")],
        "no-face": _of_train(faceless[faceless["score"] == 0]),
        "label": _of_train(audit.of(LABEL)),
    }
    return {reason: list(dict.fromkeys(ids)) for reason, ids in found.items()}


def exclusion_list(audit: Audit, reasons: Collection[Reason]) -> str:
    """The text of a list for `train --exclude`: each sample id once, under the first of the reasons that it has."""
    facts = audit.facts
    lines = [
        f"# Images of {facts['dataset']} ({_one_line(facts['source'])}) that a training may leave out;",
        f"# found by Moodify's audit of {facts['made']}. One sample id a line; lines with # are comments.",
    ]
    seen: set[str] = set()
    for reason, ids in excludable(audit).items():
        if reason in reasons:
            new = [sample_id for sample_id in ids if sample_id not in seen]
            seen.update(new)
            lines += ["", f"# {reason}: {len(new):,} {REASONS[reason]}", *new]
    return "\n".join(lines) + "\n"


def metrics(audit: Audit) -> dict[str, float]:
    """What can be followed from audit to audit, as numbers of images or pairs."""
    twins = audit.of(TWIN)
    values: dict[str, float] = {
        "images": audit.images,
        "twin_pairs": len(twins),
        "twin_pairs_of_different_labels": int((twins["label"] != twins["other_label"]).sum()),
        "blank": len(audit.of(BLANK)),
    }
    if audit.facts["faces_looked_at"]:
        values["without_face"] = len(audit.of(NO_FACE))
        values["nothing_like_a_face"] = int((audit.of(NO_FACE)["score"] == 0).sum())
    if audit.facts["labels_judged"]:
        values["suspected_labels"] = len(audit.of(LABEL))
    return values


def suggestions(rows: pd.DataFrame) -> Iterator[tuple[str, str, int]]:
    """(label, suggested, images) of suspected labels, the most frequent first."""
    counts = rows.groupby(["label", "other_label"]).size().sort_values(ascending=False, kind="stable")
    for (label, suggested), count in counts.items():
        yield str(label), str(suggested), int(count)


def _of_train(rows: pd.DataFrame, prefix: str = "") -> list[str]:
    return rows.loc[rows[f"{prefix}part"] == "train", f"{prefix}sample_id"].tolist()


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f}%"
